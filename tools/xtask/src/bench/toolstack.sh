# What a toolstack's work costs, counted by the plugin between markers; runs in the control domain. `ROW KEY` in /tests/log, in the
# order of the markers, says what each row of the plugin's report is. `xl` is the toolstack that is measured; devices are
# attached by oxen-xl on both hypervisors, since Debian's needs scripts that are not here.
. /oxen/lib.sh
cd /tests || exit 1
cat /guest/initrd marks.cpio > initrd

row() { ./mark-row && echo "ROW $1" | tee -a log; }
begin() { ./mark-begin; }
end() { ./mark-end; }

# linux_config NAME KERNEL EXTRA LINE...
linux_config() {
    printf 'name = "%s"\ntype = "pvh"\nkernel = "%s"\nramdisk = "/tests/initrd"\nextra = "console=hvc0 %s"\n' "$1" "$2" "$3" > "$1.cfg"
    printf 'memory = 128\nvcpus = 1\ntsc_mode = "native"\n' >> "$1.cfg"
    linux_config_name=$1
    shift 3
    for linux_config_line in "$@"; do echo "$linux_config_line" >> "$linux_config_name.cfg"; done
}
linux_config elf /guest/vmlinux oxen.run=/ended.sh
linux_config packed /guest/vmlinuz -
printf 'name = "first"\ntype = "pvh"\nkernel = "/tests/first"\nmemory = 128\nvcpus = 1\ntsc_mode = "native"\n' > first.cfg

row toolstack-nothing
for _ in 1 2 3; do begin; end; done

# create_and_destroy CONFIGURATION NAME. Before it the machine has a while in which nothing is asked of it: both hypervisors zero what
# ended domains have left when a CPU has nothing else to do.
create_and_destroy() {
    sleep 3
    begin
    xl create -q -p "$1" || die "xl cannot create $2"
    xl destroy "$2" || die "xl cannot destroy $2"
    end
    wait_until 60 gone "$2"
}
row create-destroy
for _ in 1 2 3; do create_and_destroy elf.cfg elf; done

# The kernel has 60 MB; its loading has to leave dom0's own work its turns.
! dmesg | grep -i -e 'soft lockup' -e 'rcu.*stall' -e 'blocked for more' || die "dom0 was kept from its work"

# The guest ends the sample; that it has run is seen by its time.
has_run() { xl list "$1" | awk 'NR == 2 { exit !($6 > 0) }'; }
row create-first-instruction
for _ in 1 2 3; do
    begin
    xl create -q first.cfg || die "xl cannot create first"
    wait_until 120 has_run first || die "first does not run"
    xl destroy first || die "xl cannot destroy first"
    wait_until 60 gone first
done
row create-init
begin
xl create -q elf.cfg || die "xl cannot create elf"
wait_for 1200 BENCH-INIT "$(console_log elf)" || die "elf does not come up"
row destroy
begin
xl destroy elf
end
wait_until 60 gone elf

# What devices move, 64 MiB each; /bench.sh in the guest marks its rows in this order.
dd if=/dev/zero of=disk.img bs=1M count=64 2> /dev/null
linux_config moves /guest/vmlinux "oxen.modules oxen.run=/bench.sh" 'disk = [ "/tests/disk.img,raw,xvda,rw" ]' 'vif = [ "mac=00:16:3e:00:00:01,bridge=bench" ]'
ip link add bench type bridge && ip addr add 10.9.0.1/24 dev bench && ip link set bench up || die "no bridge"
while :; do nc -l -p 5001 > /dev/null; done &
while :; do dd if=/dev/zero bs=1M count=64 2> /dev/null | nc -l -p 5002; done &
oxen-xl create -q moves.cfg || die "oxen-xl cannot create moves"
for key in disk-read disk-write net-to-control net-from-control; do echo "ROW $key" >> log; done
wait_for 1200 BENCH-MOVED "$(console_log moves)" || die "the guest with devices does not end: $(tail -n 5 "$(console_log moves)")"
oxen-xl destroy moves
wait_until 60 gone moves
kill %1 %2 2> /dev/null

# Last, because unpacking takes longer than all the rest.
row create-destroy-packed
create_and_destroy packed.cfg packed
row the-end
