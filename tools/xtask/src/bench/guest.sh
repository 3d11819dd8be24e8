# The bench guest as a PVH guest, then two of them with each other. Their consoles go to /tests/log.
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
xl destroy bench
wait_until 60 gone bench

# Numbers of domains come in order, so the one that answers knows who will ask.
# part NAME EXTRA
part() {
    sed -e "s/^name = .*/name = \"$1\"/" /tests/bench.cfg > "/tests/$1.cfg"
    echo "extra = \"$2\"" >> "/tests/$1.cfg"
    xl create -q -p "/tests/$1.cfg" || die "xl cannot create $1"
}
part probe -
asker=$(($(xl domid probe) + 2))
xl destroy probe
part answers "answers=$asker"
xl unpause answers
port=$(wait_for 600 "answers on port" "$(console_log answers)" | tr -d '\r' | sed 's/.*port //')
part asks "asks=$(xl domid answers) port=$port"
[ "$(xl domid asks)" = "$asker" ] || die "the number of the guest that asks is $(xl domid asks), not $asker"
xl unpause asks
wait_for 600 "GUEST-TEST" "$(console_log asks)"
cat "$(console_log asks)" >> /tests/log
