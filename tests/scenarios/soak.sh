#!/bin/sh
# A million random hypercalls of a guest that may ask for nothing; it ends by itself, and all memory is there again.
# nightly: --tools oxen
# tiny: random_hypercalls
. /oxen/lib.sh

seed=$(date +%s)
tiny_config random_hypercalls random_hypercalls 'on_poweroff = "preserve"' 'on_crash = "preserve"' "extra = \"calls=1000000 seed=$seed\""
free_kib() {
    xl dmesg -c > /dev/null
    xl debug-keys m
    xl dmesg -c | sed -n 's/.*Dom heap: *\([0-9]*\)kB free.*/\1/p'
}
# What only grows has grown after this.
xl create -q -p -e /tmp/random_hypercalls.cfg && xl destroy random_hypercalls || die "create and destroy"
before=$(free_kib)
[ -n "$before" ] || die "debug key m does not show the free memory (Dom heap: NkB free)"

log=$(console_log random_hypercalls)
rm -f "$log"
xl create -q -e /tmp/random_hypercalls.cfg || die "create"
wait_for 3000 'GUEST-TEST random_hypercalls' "$log" | grep PASS || die "seed $seed: $(tail -n 20 "$log")"
xl destroy random_hypercalls || die "destroy"
same() { [ "$(free_kib)" = "$before" ]; }
wait_until 60 same || die "seed $seed: free memory was $before KiB and is $(free_kib) KiB"
