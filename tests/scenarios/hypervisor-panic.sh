#!/bin/sh
# The hypervisor ends as it would by a bug of its own: the harness says so.
# run: --smp 1 --dom0-elf
# expect: 120
# only: oxen
. /oxen/lib.sh
xl debug-keys C
die "the hypervisor goes on"
