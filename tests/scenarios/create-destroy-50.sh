#!/bin/sh
# Fifty guests come and go, some of them while they boot, and all memory comes back.
# shared: 900
# tiny: hello
# interop: --hypervisor xen --tools oxen
# checks: create destroy debug-keys dmesg
. /oxen/lib.sh

# The hypervisor's own count in KiB (debug key m); xl info counts in MiB, in which a small leak would not show.
free_kib() {
    xl dmesg -c > /dev/null
    xl debug-keys m
    xl dmesg -c | sed -n 's/.*Dom heap: *\([0-9]*\)kB free.*/\1/p'
}

# Most guests are never started; one in ten runs and ends by itself, and one in twenty-five is Linux and dies while it boots.
tiny_config guest hello
sed -i 's/^memory = .*/memory = 256/' /tmp/guest.cfg
cycle() { # NUMBER
    case $(($1 % 25))-$(($1 % 10)) in
    12-*)
        rm -f "$(console_log guest)"
        xl create -q /guest/pvh.cfg > /dev/null || die "create $1"
        wait_for 200 'Linux version' "$(console_log guest)" > /dev/null || die "guest $1 did not begin to boot"
        xl destroy guest || die "destroy $1"
        ;;
    *-5) xl create -q /tmp/guest.cfg > /dev/null || die "create $1" ;;
    *)
        xl create -q -p /tmp/guest.cfg > /dev/null || die "create -p $1"
        xl destroy guest || die "destroy $1"
        ;;
    esac
    wait_until 60 gone guest || die "guest $1 is still there"
}

# The first guests make the tools and the hypervisor allocate what they keep.
for n in 1 5 12; do cycle $n; done
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
