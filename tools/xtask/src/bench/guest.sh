# The bench guest as a PVH guest. Its console goes to /tests/log.
. /oxen/lib.sh
cat > /tests/bench.cfg << END
name = "bench"
type = "pvh"
kernel = "/tests/bench"
memory = 64
vcpus = 1
tsc_mode = "native"
on_poweroff = "preserve"
on_reboot = "preserve"
on_crash = "preserve"
END
log=$(console_log bench)
xl create -q /tests/bench.cfg || die "xl cannot create the guest"
wait_for 600 "GUEST-TEST bench" "$log"
cp "$log" /tests/log
