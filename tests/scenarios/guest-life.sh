#!/bin/sh
# The whole life of a PVH guest from a packed kernel: create, greeting, pause, unpause, a command on its console, a restart
# by the toolstack, orderly shutdown.
# shared: 500
# interop: --hypervisor xen --tools oxen
# checks: create domid domname list pause unpause console reboot shutdown
. /oxen/lib.sh
log=$(console_log guest)

sed 's,/guest/vmlinux",/guest/vmlinuz",' /guest/pvh.cfg > /tmp/guest.cfg
xl create /tmp/guest.cfg || die "xl create ended with status $?"
wait_for 200 GUEST-READY "$log" || die "no greeting"
first=$(xl domid guest)
[ "$(xl domname "$first")" = guest ] || die "domid and domname do not agree"
xl list -l guest | grep -q '"name": "guest"' || die "xl list -l does not show the name"

xl pause guest || die "pause"
case $(state guest) in *p*) ;; *) die "a paused guest is not shown as paused: $(state guest)" ;; esac
xl unpause guest || die "unpause"
case $(state guest) in *p*) die "an unpaused guest is shown as paused: $(state guest)" ;; esac

# The guest's shell answers, and an attached console shows it.
xl console guest > /tmp/attached &
attached=$!
type_into guest 'echo ANSWER $((6 * 7))'
wait_for 60 'ANSWER 42' "$log" || die "no answer on the guest's console"
wait_for 60 'ANSWER 42' /tmp/attached || die "the attached console does not show the answer"
kill $attached

# A restart is one only when the guest is up again, under another id and with the same UUID.
uuid=$(xl list -v guest | awk 'NR == 2 { print $7 }')
xl reboot guest || die "xl reboot ended with status $?"
greetings() { [ "$(grep -a -c GUEST-READY "$log")" = 2 ]; }
wait_until 250 greetings || die "the guest does not come up again"
[ "$(xl domid guest)" != "$first" ] || die "the restarted guest has the same id"
[ "$(xl list -v guest | awk 'NR == 2 { print $7 }')" = "$uuid" ] || die "the restarted guest has another UUID"

xl shutdown -w guest || die "shutdown ended with status $?"
wait_until 60 gone guest || die "the guest is still there after its shutdown"
grep -q 'Done. Rebooting now' /var/log/xen/xl-guest.log || die "the monitor's log does not tell of the restart"
