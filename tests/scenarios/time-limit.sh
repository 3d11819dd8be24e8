#!/bin/sh
# The harness's options arrive where they should. Then a script that does not end is stopped at the time limit, and what was
# to be fetched is fetched all the same.
# run: --smp 1 --mem 1536 --dom0-mem 600 --cpu EPYC-v4,-avx2 --dom0-elf --timeout 75 --xen-args "nonsense=1" --dom0-args "oxen.word=1" --qemu-args "-m 1400" --put boot.sh=/put/boot.sh
# fetches: /tmp/late=boot.sh
# expect: 124
# only: oxen
. /oxen/lib.sh
xl info xen_commandline | grep -q 'dom0_mem=600M,max:600M.* nonsense=1$' || die "command line: $(xl info xen_commandline)"
xl dmesg | grep -q "unknown option 'nonsense=1'" || die "the unknown option is not reported"
grep -q ' oxen.word=1$' /proc/cmdline || die "dom0's command line: $(cat /proc/cmdline)"
grep -q '^flags.* avx ' /proc/cpuinfo || die "no AVX"
! grep -q '^flags.* avx2 ' /proc/cpuinfo || die "AVX2 although the CPU model has none"
# QEMU takes the last of two -m; its firmware keeps a little.
memory=$(xl info total_memory)
[ "$memory" -gt 1350 ] && [ "$memory" -le 1400 ] || die "$memory MiB of RAM"
[ "$(xl list Domain-0 | awk 'NR == 2 { print $3 }')" -ge 599 ] || die "dom0's memory: $(xl list)"
cp /put/boot.sh /tmp/late
while :; do sleep 1; done
