#!/bin/sh
# dom0 restarts the machine. QEMU is told to end instead, so that the harness sees a machine that ended before the script.
# run: --smp 1
# expect: 122
/sbin/reboot
# The restart is under way.
while :; do sleep 1; done
