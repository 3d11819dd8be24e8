# xl create to the guest's first instruction and to its init, and xl destroy; runs in the control domain behind counted.sh. The guests
# end these samples.
linux_config elf /guest/vmlinux oxen.run=/ended.sh
printf 'name = "first"\ntype = "pvh"\nkernel = "/tests/first"\nmemory = 128\nvcpus = 1\ntsc_mode = "native"\n' > first.cfg

# The tiny guest sleeps behind its mark.
sleeps() { [ "$(state "$1")" = -b---- ]; }
row create-first-instruction
for _ in 1 2 3; do
    begin
    xl create -q first.cfg || die "xl cannot create first"
    rarely sleeps first || die "first does not run: $(xl list)"
    xl destroy first || die "xl cannot destroy first"
    wait_until 60 gone first
done

log=$(console_log elf)
has_come_up() { grep -a -q BENCH-INIT "$log"; }
for _ in 1 2 3; do
    rm -f "$log"
    row create-init
    begin
    xl create -q elf.cfg || die "xl cannot create elf"
    rarely has_come_up || die "elf does not come up: $(tail -n 20 "$log")"
    row destroy
    begin
    xl destroy elf || die "xl cannot destroy elf"
    end
    wait_until 60 gone elf
done
row the-end
