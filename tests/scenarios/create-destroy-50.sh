#!/bin/sh
# Fifty guests come and go, some of them while they boot, and all memory comes back.
# run: --timeout 900 --domu-elf
. /oxen/lib.sh

# The hypervisor's own count in KiB (debug key m); xl info counts in MiB, in which a small leak would not show.
free_kib() {
    xl dmesg -c > /dev/null
    xl debug-keys m
    xl dmesg -c | sed -n 's/.*Dom heap: *\([0-9]*\)kB free.*/\1/p'
}

cycle() { # NUMBER
    echo "guest $1"
    if [ $(($1 % 10)) = 5 ]; then
        rm -f "$(console_log guest)"
        xl create /guest/pvh.cfg > /dev/null || die "create $1"
        wait_for 120 'Linux version' "$(console_log guest)" > /dev/null || die "guest $1 did not begin to boot"
    else
        xl create -q -p /guest/pvh.cfg > /dev/null || die "create -p $1"
    fi
    xl destroy guest || die "destroy $1"
    wait_until 60 gone guest || die "guest $1 is still there"
}

# The first guests make the tools and the hypervisor allocate what they keep.
for n in 1 5; do cycle $n; done
before=$(free_kib)
[ -n "$before" ] || die "debug key m does not show the free memory (Dom heap: NkB free)"
n=0
while [ $n -lt 50 ]; do
    cycle $n
    n=$((n + 1))
done
same() { [ "$(free_kib)" = "$before" ]; }
# Pages are scrubbed and returned in the background.
wait_until 30 same || die "free memory was $before KiB and is $(free_kib) KiB after 50 guests"
echo "free memory before and after: $before KiB"
