#!/bin/sh
# One CPU, booted by QEMU's loader (multiboot1) from packed kernels. What is put into dom0 arrives; then dom0's kernel panics:
# the hypervisor notices and the harness says so.
# run: --smp 1 --put boot.sh=/put/boot.sh --put ../scenarios=/put/all
# expect: 121
. /oxen/lib.sh
sh /put/boot.sh || exit 1
[ "$(sha256sum < /put/boot.sh)" = "$(sha256sum < /put/all/boot.sh)" ] || die "the two copies differ"
echo c > /proc/sysrq-trigger
