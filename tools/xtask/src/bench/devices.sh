# What devices move; runs in the control domain behind counted.sh. /bench.sh in the guest marks the rows, in the order given here. The
# devices are attached by our xl on both hypervisors, so that the same work is compared.
dd if=/dev/zero of=disk.img bs=1M count=16 2> /dev/null
linux_config moves /guest/vmlinux "oxen.modules oxen.run=/bench.sh" 'disk = [ "/tests/disk.img,raw,xvda,rw" ]' 'vif = [ "mac=00:16:3e:00:00:01,bridge=bench" ]'
brctl addbr bench && ip addr add 10.9.0.1/24 dev bench && ip link set bench up || die "no bridge"
nc -ll -p 5001 -e /bin/sh -c 'cat > /dev/null' &
taker=$!
nc -ll -p 5002 -e /bin/dd if=/dev/zero bs=1M count=16 2> /dev/null &
giver=$!
oxen-xl create -q moves.cfg || die "oxen-xl cannot create moves"
for _ in 1 2 3; do
    for key in disk-read disk-write net-to-control net-from-control; do echo "ROW $key" >> log; done
done
log=$(console_log moves)
has_moved() { grep -a -q -e BENCH-MOVED -e BENCH-FAILED "$log"; }
rarely has_moved || die "the guest with devices does not end: $(tail -n 20 "$log")"
grep -a BENCH-FAILED "$log" && die "the guest with devices fails"
oxen-xl destroy moves
kill $taker $giver
row the-end
