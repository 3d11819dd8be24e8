#!/bin/sh
# init of the test dom0. Brings up what Xen's toolstack needs, runs the person's script or a shell, sends the wanted
# files, powers off. It reports to the harness in lines "$MARK MESSAGE ;" on the console; the messages are listed in
# console/protocol.rs. /oxen/run.conf (written for each run) sets:
#   MARK   the marker of this run        MODE   script or shell
#   ROWS, COLUMNS   size of the person's terminal, for a shell
export PATH=/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin:/usr/lib/xen-4.17/bin
export HOME=/root TERM="${TERM:-vt102}" ENV=/etc/shrc

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
# devtmpfs has no links; Debian's scripts for disks look at /dev/stdin.
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
. /oxen/run.conf
exec 3<>/dev/console

. /oxen/report.sh

finish() { # STATUS, or nothing when there is none
    [ -z "$READER" ] || kill "$READER" 2>/dev/null
    dmesg -n 1
    [ -z "$1" ] || tell status "$1"
    if [ -s /oxen/get.list ]; then deliver; fi
    # Said twice, since the hypervisor may print into the middle of a line.
    [ -z "$1" ] || tell status "$1"
    tell end
    tell end
    sync
    poweroff -f
    # poweroff returns before the machine is off.
    while :; do sleep 1000; done
}

fail() { tell failed "$*"; tell failed "$*"; finish; }

milestone dom0-userland
while read -r module; do
    insmod "/oxen/modules/$module.ko" || tell notice "cannot load the module $module"
done < /oxen/modules/order
[ -d /proc/xen ] || fail "this kernel does not run on Xen: /proc/xen is missing"
mount -t xenfs xenfs /proc/xen || fail "cannot mount xenfs on /proc/xen"
grep -q control_d /proc/xen/capabilities || fail "this is not the control domain: /proc/xen/capabilities says: $(cat /proc/xen/capabilities)"
for node in privcmd evtchn gntdev xenbus; do
    [ -e /dev/xen/$node ] || tell notice "the kernel has no /dev/xen/$node"
done
ip link set lo up
hostname dom0

# The daemons put themselves into the background before they are ready; their answers say when they are.
until_ready() { # SECONDS COMMAND...
    end=$(($(date +%s) + $1))
    shift
    until "$@" > /dev/null 2>&1; do
        [ "$(date +%s)" -le $end ] || return 1
        usleep 50000
    done
}
xenstored --pid-file=/run/xen/xenstored.pid || fail "xenstored ended with status $?"
until_ready 60 xenstore-read -s / || fail "xenstored does not answer"
milestone xenstored
xen-init-dom0 || fail "xen-init-dom0 ended with status $?"
mkdir -p /var/log/xen/console
xenconsoled --log=guest --log-dir=/var/log/xen/console --pid-file=/run/xen/xenconsoled.pid || fail "xenconsoled ended with status $?"
milestone toolstack

if [ "$MODE" = shell ]; then
    [ -z "$ROWS" ] || stty rows "$ROWS" cols "$COLUMNS" <&3
    milestone shell
    setsid cttyhack sh -l
    finish $?
fi

run_script
finish $?
