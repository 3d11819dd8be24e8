#!/bin/bash
# Runs the script of a test run in a control domain that has booted from a disk, as dom0-init.sh does in one that is all initramfs.
# oxen-run.service starts it while systemd boots; /oxen/run.conf is the same.
exec > /dev/console 2>&1 3<> /dev/console
export HOME=/root TERM=vt102 LC_ALL=C.UTF-8
export PATH=/oxen/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/xen-4.17/bin
cd /root || exit
. /oxen/run.conf
. /oxen/report.sh
GETTY=serial-getty@hvc0.service

# The last word comes from here: what systemd runs when nothing but the root file system is left (dom0-last-word.sh).
finish() { # STATUS
    [ -z "$READER" ] || kill "$READER" 2> /dev/null
    dmesg -n 1
    tell status "$1"
    if [ -s /oxen/get.list ]; then deliver; fi
    echo "$1" > /oxen/status
    systemctl poweroff
    exit
}

milestone dom0-userland
# The boot is complete, well or not.
state=$(systemctl is-system-running --wait)
echo "$state" > /oxen/boot-state
[ "$state" = running ] || tell notice "systemd says $state: $(systemctl --failed --plain --no-legend | tr -s ' \n' ' ')"
milestone toolstack
until systemctl is-active --quiet "$GETTY"; do sleep 0.1; done
if [ "$MODE" = shell ]; then
    # The account's own login; powering off ends the run.
    echo 0 > /oxen/status
    milestone shell
    exit
fi
# The harness and a login cannot both read the console.
systemctl stop "$GETTY"
run_script
finish $?
