#!/bin/sh
# A million random hypercalls of a guest that may ask for nothing, twice; it ends by itself, and all memory is there again.
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
log=$(console_log random_hypercalls)
# Powered off or crashed.
has_ended() { state random_hypercalls | grep -q s; }
# One life, with another seed each time.
life() { # SEED
    sed -i "s/seed=[0-9]*/seed=$1/" /tmp/random_hypercalls.cfg
    rm -f "$log"
    xl create -q -e /tmp/random_hypercalls.cfg || die "create"
    wait_until 3000 has_ended || die "seed $1 does not end: $(tail -n 20 "$log")"
    wait_for 20 'GUEST-TEST random_hypercalls PASS' "$log" || die "seed $1"
    xl destroy random_hypercalls || die "destroy"
}
free_is() { [ "$(free_kib)" -ge "$1" ]; }

xl create -q -p -e /tmp/random_hypercalls.cfg && xl destroy random_hypercalls || die "create and destroy"
before=$(free_kib)
[ -n "$before" ] || die "debug key m does not show the free memory (Dom heap: NkB free)"
# The control domain's grant table knows whom others have asked about: it may grow once, by what tests/keystone allows, too.
life "$seed"
wait_until 60 free_is $((before - 1024)) || die "seed $seed: free memory was $before KiB and is $(free_kib) KiB"
after=$(free_kib)
echo "seed $seed: free memory was $before KiB and is $after KiB"

life "$((seed + 1))"
wait_until 60 free_is "$after" || die "seed $((seed + 1)): free memory was $after KiB and is $(free_kib) KiB"
