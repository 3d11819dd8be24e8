#!/bin/sh
# Our daemons are killed and started again, with a guest that boots and one that runs, while programs write: nodes, rings and
# watches are as before, and xl's monitor, an attached console and new devices know nothing of it.
# run: --daemons oxen --tools oxen --domu-elf
# interop: --hypervisor xen --daemons oxen --tools oxen --domu-elf
# checks: create domid console block-attach block-detach reboot destroy
. /oxen/lib.sh

by_kernel() { XENSTORED_PATH=/dev/xen/xenbus "$@"; }
dead() { [ ! -d "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status" 2> /dev/null || [ ! -d "/proc/$1" ]; }
kill_daemon() { # NAME
    old=$(cat "/run/xen/$1.pid")
    kill -9 "$old"
    wait_until 60 dead "$old" || die "$1 does not die"
}
start_xenstored() { xenstored --pid-file=/run/xen/xenstored.pid || die "xenstored does not start again"; }
start_xenconsoled() {
    xenconsoled --log=guest --log-dir=/var/log/xen/console --pid-file=/run/xen/xenconsoled.pid "$@" || die "xenconsoled does not start again"
}

xenstore-write /t/kept yes /t/gone no || die "write"
xenstore-chmod /t/kept r0 || die "chmod"
xenstore-rm /t/gone
config guest -
sed -i 's/console=hvc0/console=hvc0 oxen.modules/' /tmp/guest.cfg
xl create /tmp/guest.cfg || die "create"
id=$(xl domid guest)
log=$(console_log guest)
monitor=$(sed -n 's/.*to die \[pid \([0-9]*\)\].*/\1/p' /var/log/xen/xl-guest.log)
[ -d "/proc/$monitor" ] || die "no monitor: $(cat /var/log/xen/xl-guest.log)"

# While the guest boots: kill after kill, with writers by the kernel's ring that must not notice.
round=0
while [ $round -lt 8 ]; do
    kill_daemon xenstored
    by_kernel xenstore-write "/t/round/$round" "$round" &
    writer=$!
    [ $round != 3 ] || kill_daemon xenconsoled
    start_xenstored
    wait $writer || die "a request by the kernel's ring was lost with round $round"
    [ "$(xenstore-read "/t/round/$round")" = $round ] || die "what the kernel's ring wrote in round $round is not there"
    [ $round != 3 ] || start_xenconsoled
    round=$((round + 1))
done
[ "$(xenstore-read /t/kept)" = yes ] || die "a node is lost"
fails 1 xenstore-read /t/gone
xenstore-ls -p /t | grep -q '^kept = "yes".*(r0)' || die "permissions: $(xenstore-ls -p /t)"
wait_for 250 GUEST-READY "$log" || die "the guest did not live through it"
[ "$(xl domid guest)" = "$id" ] || die "xl does not know the guest any more"

# A console that is attached finds the next xenconsoled, also when xenstored goes meanwhile.
xl console guest > /tmp/attached 2> /tmp/attached.err &
attached=$!
answer guest 'ANSWER 42' 'echo ANSWER $((6 * 7))'
wait_for 60 'ANSWER 42' /tmp/attached || die "the attached console does not show the answer"
kill_daemon xenconsoled
wait_for 60 'waiting for xenconsoled' /tmp/attached.err || die "the attached console does not notice"
kill_daemon xenstored
start_xenstored
start_xenconsoled --log-size=4k --log-files=2
answer guest 'ANSWER 43' 'echo ANSWER $((6 * 7 + 1))'
wait_for 60 'ANSWER 43' /tmp/attached || die "the attached console was not attached again: $(cat /tmp/attached.err)"
kill $attached

# Logs: put aside when they have grown, and opened anew when asked.
type_into guest 'i=0; while [ $i -lt 400 ]; do echo "a line to fill the log, number $i"; i=$((i + 1)); done'
wait_until 60 test -e "$log.2" || die "the log grows without an end"
wait_for 60 'number 399' "$log" || die "the last line is not in the log"
[ ! -e "$log.3" ] && [ "$(wc -c < "$log.1")" -le 4096 ] || die "logs: $(ls -l "$log"*)"
mv "$log" /tmp/moved.log
kill -HUP "$(cat /run/xen/xenconsoled.pid)"
wait_until 60 test -e "$log" || die "the log was not opened anew"
kill_daemon xenconsoled
start_xenconsoled --timestamp=guest
answer guest '^\[20.*\] ANSWER 44' 'echo ANSWER $((6 * 7 + 2))'

# A device for a guest that booted with another daemon.
dd if=/dev/urandom of=/tmp/disk.img bs=1M count=1 2> /dev/null
sum=$(sha256sum < /tmp/disk.img | cut -c 1-64)
xl block-attach guest phy:/tmp/disk.img xvdb r || die "block-attach"
answer guest "DISK $sum" 'until [ -b /dev/xvdb ]; do usleep 50000; done; echo DISK $(sha256sum < /dev/xvdb)'
xl block-detach guest xvdb || die "block-detach"

# The guest's watch on control/shutdown and the monitor's are from before the kills.
[ -d "/proc/$monitor" ] || die "the monitor has ended: $(cat /var/log/xen/xl-guest.log)"
xenstore-control quota "$id" | grep -q '^watches *: *[1-9]' || die "the guest's watches are lost"
before=$(grep -a -c GUEST-READY "$log")
xl reboot guest || die "reboot"
is_another() { another=$(xl domid guest 2> /dev/null) && [ "$another" != "$id" ]; }
wait_until 250 is_another || die "the monitor did not restart the guest: $(cat /var/log/xen/xl-guest.log)"
greetings() { [ "$(grep -a -c GUEST-READY "$log")" -gt "$before" ]; }
wait_until 250 greetings || die "no greeting after the kills: $(tail -n 5 "$log")"
[ -d "/proc/$monitor" ] || die "the monitor has ended after all"
xl destroy guest || die "destroy after the kills"
wait_until 60 dead "$monitor" || die "the monitor does not end with its domain"
xenstore-control check || die "check"
