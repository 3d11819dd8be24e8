#!/bin/sh
# The hypervisor cannot build a dom0 of so little memory: it says why, and the harness, too.
# run: --smp 1 --dom0-mem 1 --dom0-elf
# expect: 122
# only: oxen
echo "there is a dom0 of 1 MiB"
exit 1
