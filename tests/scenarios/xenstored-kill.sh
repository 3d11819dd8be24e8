#!/bin/sh
# Our xenstored is killed and started again, with a guest that boots and one that runs, while programs write: nodes, rings and
# watches are as before.
# run: --daemons oxen --tools oxen --domu-elf
. /oxen/lib.sh

by_kernel() { XENSTORED_PATH=/dev/xen/xenbus "$@"; }
answers() { xenstore-read -s / > /dev/null 2>&1; }
kill_xenstored() {
    old=$(cat /run/xen/xenstored.pid)
    kill -9 "$old"
    wait_until 60 dead "$old" || die "xenstored does not die"
}
dead() { [ ! -d "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status" 2> /dev/null || [ ! -d "/proc/$1" ]; }
start_xenstored() { xenstored --pid-file=/run/xen/xenstored.pid || die "xenstored does not start again"; }
# Debian's xenconsoled does not connect again.
start_xenconsoled() {
    kill "$(cat /run/xen/xenconsoled.pid)" 2> /dev/null
    xenconsoled --log=guest --log-dir=/var/log/xen/console --pid-file=/run/xen/xenconsoled.pid || die "xenconsoled"
}

xenstore-write /t/kept yes /t/gone no || die "write"
xenstore-chmod /t/kept r0 || die "chmod"
xenstore-rm /t/gone
xl create /guest/pvh.cfg || die "create"
id=$(xl domid guest)
log=$(console_log guest)

# While the guest boots: kill after kill, with writers by the kernel's ring that must not notice.
round=0
while [ $round -lt 8 ]; do
    kill_xenstored
    by_kernel xenstore-write "/t/round/$round" "$round" &
    writer=$!
    start_xenstored
    wait $writer || die "a request by the kernel's ring was lost with round $round"
    [ "$(xenstore-read "/t/round/$round")" = $round ] || die "what the kernel's ring wrote in round $round is not there"
    round=$((round + 1))
done
[ "$(xenstore-read /t/kept)" = yes ] || die "a node is lost"
fails 1 xenstore-read /t/gone
xenstore-ls -p /t | grep -q '^kept = "yes".*(r0)' || die "permissions: $(xenstore-ls -p /t)"
start_xenconsoled
wait_for 250 GUEST-READY "$log" || die "the guest did not live through it"

# A guest that runs: its watch on control/shutdown is from before the kills.
[ "$(xl domid guest)" = "$id" ] || die "xl does not know the guest any more"
xl list guest || die "list"
kill_xenstored
start_xenstored
start_xenconsoled
wait_until 60 test -e "$(xenstore-read "/local/domain/$id/console/tty")" || die "no console"
type_into guest 'echo ANSWER $((6 * 7))'
wait_for 60 'ANSWER 42' "$log" || die "no answer on the console"
xenstore-control quota "$id" | grep -q '^watches *: *[1-9]' || die "the guest's watches are lost"
xl shutdown guest || die "shutdown"
ended() { gone guest || case $(state guest) in *s*) ;; *) false ;; esac; }
wait_until 100 ended || die "the guest does not hear of its shutdown"
gone guest || xl destroy guest || die "destroy"
wait_until 60 gone guest || die "the guest is still there"

# And everything goes on.
xl create /guest/pvh.cfg || die "create after the kills"
greetings() { [ "$(grep -a -c GUEST-READY "$log")" = 2 ]; }
wait_until 250 greetings || die "no greeting after the kills"
xl destroy guest || die "destroy after the kills"
xenstore-control check || die "check"
