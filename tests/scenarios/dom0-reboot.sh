#!/bin/sh
# One CPU, booted by GRUB (multiboot2). dom0 restarts the machine. QEMU is told to end instead, so that the harness sees a
# machine that ended before the script.
# run: --smp 1 --grub --put boot.sh=/put/boot.sh
# expect: 122
. /oxen/lib.sh
sh /put/boot.sh || exit 1
/sbin/reboot
# The restart is under way.
while :; do sleep 1; done
