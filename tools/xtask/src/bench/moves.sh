#!/bin/busybox sh
# In the guest that `toolstack.sh` makes: moves 64 MiB over each device, each in a row of its own.
ip link set eth0 up
ip addr add 10.9.0.2/24 dev eth0
n=0
until ping -c 1 -W 1 10.9.0.1 > /dev/null 2>&1; do n=$((n + 1)); [ $n -lt 120 ] || { echo BENCH-FAILED no network; exit 1; }; done
/mark-row
/mark-begin
dd if=/dev/xvda of=/dev/null bs=1M count=64 2> /dev/null || echo BENCH-FAILED reading
/mark-end
/mark-row
/mark-begin
dd if=/dev/zero of=/dev/xvda bs=1M count=64 conv=fsync 2> /dev/null || echo BENCH-FAILED writing
/mark-end
/mark-row
/mark-begin
dd if=/dev/zero bs=1M count=64 2> /dev/null | nc 10.9.0.1 5001 || echo BENCH-FAILED sending
/mark-end
/mark-row
/mark-begin
nc 10.9.0.1 5002 < /dev/null > /tmp/got
[ "$(stat -c %s /tmp/got)" = 67108864 ] || echo "BENCH-FAILED receiving: $(stat -c %s /tmp/got) bytes"
/mark-end
echo BENCH-MOVED
