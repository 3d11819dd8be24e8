#!/bin/sh
# The whole life of a PVH guest: create, greeting, pause, unpause, a command on its console, orderly shutdown.
# run: --timeout 400
. /oxen/lib.sh
log=$(console_log guest)

xl create /guest/pvh.cfg || die "xl create ended with status $?"
wait_for 120 GUEST-READY "$log" || die "no greeting"
[ "$(xl domname "$(xl domid guest)")" = guest ] || die "domid and domname do not agree"
xl list -l guest | grep -q '"name": "guest"' || die "xl list -l does not show the name"

xl pause guest || die "pause"
xl list guest | awk 'NR == 2 { print $5 }' | grep -q p || die "a paused guest is not shown as paused"
xl unpause guest || die "unpause"

# The guest's shell answers, and an attached console shows it.
xl console guest > /tmp/attached &
attached=$!
type_into guest 'echo ANSWER $((6 * 7))'
wait_for 60 'ANSWER 42' "$log" || die "no answer on the guest's console"
wait_for 60 'ANSWER 42' /tmp/attached || die "the attached console does not show the answer"
kill $attached

xl shutdown -w guest || die "shutdown ended with status $?"
wait_until 60 gone guest || die "the guest is still there after its shutdown"
