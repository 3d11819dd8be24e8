#!/bin/sh
# Our daemons under Debian's xl and xenstore clients: the whole life of a guest, watches, permissions, CONTROL, consoles; and beside it
# a guest that breaks every rule of its rings.
# run: --daemons oxen --tools debian --domu-elf
# interop: --hypervisor xen --daemons oxen --tools debian --domu-elf
# tiny: hostile_rings
. /oxen/lib.sh

daemon() { cat "/run/xen/$1.pid"; }
for name in xenstored xenconsoled; do
    [ "$(readlink "/proc/$(daemon $name)/exe")" = "/usr/local/bin/$name" ] || die "another $name runs"
done
by_kernel() { XENSTORED_PATH=/dev/xen/xenbus "$@"; }

# Nodes, by the socket and by the kernel's ring.
xenstore-write /t/a 1 /t/b 2 || die "write"
[ "$(by_kernel xenstore-read /t/a)" = 1 ] || die "the kernel's ring does not show what the socket wrote"
by_kernel xenstore-write /t/a 3 || die "write by the kernel's ring"
[ "$(xenstore-read /t/a)" = 3 ] || die "the socket does not show what the kernel's ring wrote"
xenstore-chmod /t/b n0 b0 || die "chmod"
xenstore-ls -p /t | grep -q '^b = "2".*(n0,b0)' || die "ls -p: $(xenstore-ls -p /t)"
fails 1 xenstore-read /nothing
# shellcheck disable=SC2046
xenstore-write $(seq 1 1500 | sed 's,.*,/many/a-name-that-is-long-& x,') || die "many nodes in one transaction"
[ "$(xenstore-list /many | wc -l)" = 1500 ] || die "a directory longer than a message: $(xenstore-list /many | wc -l)"
xenstore-rm /many
xenstore-watch -n 3 /t > /tmp/watched &
watcher=$!
wait_for 60 '^/t$' /tmp/watched > /dev/null || die "no first event"
xenstore-write /t/c 1
xenstore-rm /t
wait $watcher
[ "$(tr '\n' ' ' < /tmp/watched)" = '/t /t/c /t ' ] || die "events: $(cat /tmp/watched)"

# What an administrator asks.
xenstore-control check || die "check"
xenstore-control quota | grep -q '^watches *: *128' || die "quota: $(xenstore-control quota)"
xenstore-control memreport /tmp/report && grep -q 'domain 0: ' /tmp/report || die "memreport"
fails 1 xenstored --pid-file=/tmp/second.pid
fails 1 xenconsoled --pid-file=/run/xen/xenconsoled.pid
xenstore-read -s /local/domain/0/name > /dev/null || die "a second daemon disturbs the first"

# A guest's life.
xenstore-watch @introduceDomain @releaseDomain > /tmp/domains &
watcher=$!
wait_for 60 @releaseDomain /tmp/domains > /dev/null
: > /tmp/domains
xl create /guest/pvh.cfg || die "create"
id=$(xl domid guest)
wait_for 60 @introduceDomain /tmp/domains > /dev/null || die "no @introduceDomain"
wait_for 250 GUEST-READY "$(console_log guest)" || die "no greeting"
xenstore-control quota "$id" | grep -q '^watches *: *[1-9]' || die "the guest's kernel watches nothing"
xl list guest || die "list"
xl console guest > /tmp/attached &
attached=$!
type_into guest 'echo ANSWER $((6 * 7))'
wait_for 60 'ANSWER 42' "$(console_log guest)" || die "no answer on the console"
wait_for 60 'ANSWER 42' /tmp/attached || die "the attached console does not show the answer"
kill $attached

# A guest that breaks every rule; dom0 and the other guest notice nothing.
daemons="$(daemon xenstored) $(daemon xenconsoled)"
xenstore-write /secret/below yes /open yes
xenstore-chmod /secret n0
xenstore-chmod /open b0
tiny_config hostile hostile_rings
xl create -q /tmp/hostile.cfg || die "create of the hostile guest"
wait_for 400 'GUEST-TEST hostile_rings' "$(console_log hostile)" > /tmp/verdict || die "no verdict: $(cat "$(console_log hostile)")"
grep -q 'PASS' /tmp/verdict || die "$(cat "$(console_log hostile)")"
wait_until 60 gone hostile || die "the hostile guest is still there"
for pid in $daemons; do
    size=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$pid/status") || die "a daemon has ended"
    [ "$size" -lt 65536 ] || die "a daemon has $size KiB"
done
[ "$daemons" = "$(daemon xenstored) $(daemon xenconsoled)" ] || die "a daemon was started again"
[ "$(cat /var/log/xen/xenstored.log /var/log/xen/xenconsoled.log 2> /dev/null | wc -c)" -lt 65536 ] || die "the daemons' logs grow"
[ "$(xenstore-read /secret/below)$(xenstore-list /secret)" = yesbelow ] || die "a secret has changed: $(xenstore-ls /secret)"
xenstore-ls -p / | grep -q '^secret = "".*(n0)' || die "permissions have changed"
[ -z "$(xenstore-list /open)" ] || die "nodes of a guest that is gone: $(xenstore-list /open | wc -l)"
xenstore-rm /secret
xenstore-rm /open
type_into guest 'echo ANSWER $((6 * 7 + 1))'
wait_for 60 'ANSWER 43' "$(console_log guest)" || die "the other guest has suffered"
xl shutdown -w guest || die "shutdown"
wait_for 60 @releaseDomain /tmp/domains > /dev/null || die "no @releaseDomain"
wait_until 60 gone guest || die "the guest is still there"
kill $watcher
nodes() { xenstore-ls -f | grep "/domain/$id/\|domain/$id \|/$id/"; }
[ -z "$(nodes)" ] || die "nodes are left: $(nodes)"
xl create -p /guest/pvh.cfg || die "create -p"
xl destroy guest || die "destroy"
xenstore-control check || die "check at the end"
