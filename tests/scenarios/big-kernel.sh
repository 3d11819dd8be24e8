#!/bin/sh
# A kernel of 60 MiB is loaded to its last byte, and dom0's own work has its turns meanwhile: its kernel complains of nothing.
# shared: 200
. /oxen/lib.sh

base=$((0x100000))
size=$((60 << 20))
# le BYTES VALUE: a number, its lowest byte first.
le() {
    le_bytes=$1
    le_value=$2
    while [ "$le_bytes" -gt 0 ]; do
        printf "\\$(printf %03o $((le_value & 255)))"
        le_value=$((le_value >> 8))
        le_bytes=$((le_bytes - 1))
    done
}
# An ELF64 program for PVH in one segment, zeroes but for its head and its last word. It crashes if that word is not there, and sleeps.
kernel_head() {
    entry=$((base + 64 + 2 * 56 + 20))
    printf '\177ELF\2\1\1' && le 9 0 && le 2 2 && le 2 62 && le 4 1 && le 8 $entry && le 8 64 && le 8 0 && le 4 0
    le 2 64 && le 2 56 && le 2 2 && le 6 0
    le 4 1 && le 4 7 && le 8 0 && le 8 $base && le 8 $base && le 8 $size && le 8 $size && le 8 4096
    le 4 4 && le 4 4 && le 8 176 && le 8 $((base + 176)) && le 8 $((base + 176)) && le 8 20 && le 8 20 && le 8 4
    le 4 4 && le 4 4 && le 4 18 && printf 'Xen\0' && le 4 $entry
    # cmp dword [end - 4], "last"; je +2; ud2; sti; hlt; jmp to sti
    le 2 $((0x3d81)) && le 4 $((base + size - 4)) && printf 'last' && le 2 $((0x0274)) && le 2 $((0x0b0f)) && le 4 $((0xfcebf4fb))
}
kernel_head > /tmp/big || die "no kernel"
truncate -s $((size - 4)) /tmp/big && printf last >> /tmp/big && [ "$(stat -c %s /tmp/big)" = $size ] || die "no big kernel"
printf 'name = "big"\ntype = "pvh"\nkernel = "/tmp/big"\nmemory = 128\ntsc_mode = "native"\n' > /tmp/big.cfg

# complaints MARK: what dom0's kernel has said of processors or programs that were kept from their work, since it was told MARK.
complaints() {
    dmesg > /tmp/complaints.log
    grep -q "$1" /tmp/complaints.log || die "dom0's kernel has forgotten '$1'"
    sed "1,/$1/d" /tmp/complaints.log | grep -i -e 'soft lockup' -e 'hard lockup' -e 'rcu.*stall' -e 'rcu.*starved' -e 'blocked for more than'
}
[ "$(cat /proc/sys/kernel/soft_watchdog)" = 1 ] || die "dom0's kernel does not look for lock-ups"

echo "big-kernel: here it begins" > /dev/kmsg
xl create -q /tmp/big.cfg || die "create"
sleeps() { [ "$(state big)" = -b---- ]; }
wait_until 100 sleeps || die "the kernel was not loaded as it is: $(xl list)"
xl destroy big || die "destroy"
wait_until 60 gone big || die "big is still there"
complaints 'big-kernel: here it begins' && die "dom0 was kept from its work"

# Each complaint would be seen.
echo "big-kernel: here it is tested" > /dev/kmsg
complaints 'big-kernel: here it is tested' && die "a complaint of nothing"
seen=0
for text in 'watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [xl:1]' 'rcu: INFO: rcu_preempt self-detected stall on CPU' \
    'rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:' 'rcu: rcu_preempt kthread starved for 5250 jiffies!' \
    'INFO: task xl:1 blocked for more than 120 seconds.'; do
    echo "a test, no complaint: $text" > /dev/kmsg
    seen=$((seen + 1))
    [ "$(complaints 'big-kernel: here it is tested' | grep -c .)" = $seen ] || die "'$text' would not be seen"
done
rm -f /tmp/big
