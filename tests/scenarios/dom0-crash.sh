#!/bin/sh
# dom0's kernel panics: the hypervisor notices and the harness says so.
# run: --smp 1
# expect: 121
echo c > /proc/sysrq-trigger
