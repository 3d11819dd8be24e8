#!/bin/busybox sh
# In the guest that `devices.sh` makes: moves 16 MiB over each device three times, each in a row of its own.
failed() { echo "BENCH-FAILED $*"; }
ip link set eth0 up
ip addr add 10.9.0.2/24 dev eth0
n=0
until ping -c 1 -W 1 10.9.0.1 > /dev/null 2>&1; do n=$((n + 1)); [ $n -lt 120 ] || { failed no network; exit 1; }; done
for _ in 1 2 3; do
    # What was read before is to come from the disk again.
    sync
    echo 3 > /proc/sys/vm/drop_caches
    /mark-row
    /mark-begin
    dd if=/dev/xvda of=/dev/null bs=1M count=16 2> /dev/null || failed reading
    /mark-end
    /mark-row
    /mark-begin
    dd if=/dev/zero of=/dev/xvda bs=1M count=16 conv=fsync 2> /dev/null || failed writing
    /mark-end
    /mark-row
    /mark-begin
    dd if=/dev/zero bs=1M count=16 2> /dev/null | nc 10.9.0.1 5001 || failed sending
    /mark-end
    /mark-row
    /mark-begin
    got=$(nc 10.9.0.1 5002 < /dev/null | wc -c)
    /mark-end
    [ "$got" = 16777216 ] || failed "receiving: $got bytes"
done
echo BENCH-MOVED
