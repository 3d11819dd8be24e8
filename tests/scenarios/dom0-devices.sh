#!/bin/sh
# dom0 drives the machine's devices: disks at a SATA controller, an NVMe controller and virtio have the same content as the file that is
# behind them, keep what is written, and interrupt; a network card fetches the file, too. By messages, and once by lines.
# run: --smp 2 --dom0-elf --put /usr/share/seabios/bios-256k.bin=/put/content --qemu-args "-drive if=none,id=a,format=raw,snapshot=on,file=/usr/share/seabios/bios-256k.bin -drive if=none,id=n,format=raw,snapshot=on,file=/usr/share/seabios/bios-256k.bin -drive if=none,id=v,format=raw,snapshot=on,file=/usr/share/seabios/bios-256k.bin -device ide-hd,bus=ide.0,drive=a -device nvme,drive=n,serial=1 -device virtio-blk-pci,drive=v -netdev user,id=net,restrict=on,tftp=/usr/share/seabios -device e1000e,netdev=net"
# run: --smp 1 --dom0-elf --put /usr/share/seabios/bios-256k.bin=/put/content --qemu-args "-drive if=none,id=a,format=raw,snapshot=on,file=/usr/share/seabios/bios-256k.bin -drive if=none,id=n,format=raw,snapshot=on,file=/usr/share/seabios/bios-256k.bin -drive if=none,id=v,format=raw,snapshot=on,file=/usr/share/seabios/bios-256k.bin -device ide-hd,bus=ide.0,drive=a -device nvme,drive=n,serial=1 -device virtio-blk-pci,drive=v -netdev user,id=net,restrict=on,tftp=/usr/share/seabios -device e1000e,netdev=net"
# run: --smp 2 --dom0-args pci=nomsi --dom0-elf --put /usr/share/seabios/bios-256k.bin=/put/content --qemu-args "-drive if=none,id=a,format=raw,snapshot=on,file=/usr/share/seabios/bios-256k.bin -drive if=none,id=n,format=raw,snapshot=on,file=/usr/share/seabios/bios-256k.bin -drive if=none,id=v,format=raw,snapshot=on,file=/usr/share/seabios/bios-256k.bin -device ide-hd,bus=ide.0,drive=a -device nvme,drive=n,serial=1 -device virtio-blk-pci,drive=v -netdev user,id=net,restrict=on,tftp=/usr/share/seabios -device e1000e,netdev=net"
. /oxen/lib.sh

hash_of() { sha256sum "$1" | cut -d' ' -f1; }
interrupts() { # NAME: how many came to all CPUs on lines with that name
    awk -v name="$1" '$0 ~ name { for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++) sum += $i } END { print sum + 0 }' /proc/interrupts
}
forget() { sync; echo 3 > /proc/sys/vm/drop_caches; }

load_drivers || die "a driver cannot be loaded"
wanted=$(hash_of /put/content)
head -c 131072 /dev/urandom > /tmp/random
disk() { # DEVICE NAME-OF-INTERRUPTS
    wait_until 60 test -b "/dev/$1" || die "no /dev/$1"
    before=$(interrupts "$2")
    [ "$(hash_of "/dev/$1")" = "$wanted" ] || die "/dev/$1 has another content"
    dd if=/tmp/random of="/dev/$1" bs=4096 seek=16 conv=notrunc 2> /dev/null || die "cannot write to /dev/$1"
    forget
    dd if="/dev/$1" of=/tmp/read bs=4096 skip=16 count=32 2> /dev/null || die "cannot read from /dev/$1"
    cmp /tmp/random /tmp/read || die "/dev/$1 does not keep what is written"
    after=$(interrupts "$2")
    [ "$after" -gt "$before" ] || die "/dev/$1 works without interrupts ($2: $before, $after)"
    echo "/dev/$1: interrupts $before to $after"
}
disk sda 'ahci'
disk nvme0n1 'nvme0q'
disk vda 'virtio[0-9]'

card=$(ls -d /sys/bus/pci/drivers/e1000e/*/net/* | head -1)
card=${card##*/}
[ -n "$card" ] || die "the network card has no driver"
ip link set "$card" up && ip addr add 10.0.2.15/24 dev "$card" || die "cannot set up $card"
wait_until 60 grep -q 1 "/sys/class/net/$card/carrier" || die "$card has no carrier"
before=$(interrupts "$card")
busybox tftp -g -r bios-256k.bin -l /tmp/fetched 10.0.2.2 || die "cannot fetch over $card"
[ "$(hash_of /tmp/fetched)" = "$wanted" ] || die "what came over $card is something else"
after=$(interrupts "$card")
[ "$after" -gt "$before" ] || die "$card works without interrupts"
echo "$card: interrupts $before to $after"

# Interrupts follow their affinity: all of the card's to the last CPU, and what it interrupts from then on is counted there.
last=$(($(nproc) - 1))
others() { # how many of the card's interrupts came to CPUs before the last
    awk -v name="$card" -v last="$last" '$0 ~ name { for (i = 0; i < last; i++) sum += $(i + 2) } END { print sum + 0 }' /proc/interrupts
}
for number in $(awk -v name="$card" '$0 ~ name { sub(":", "", $1); print $1 }' /proc/interrupts); do
    echo "$last" > "/proc/irq/$number/smp_affinity_list" || die "interrupt $number cannot be moved to CPU $last"
done
# The change takes effect at an interrupt's next arrival: two transfers before the counts are compared.
fetch() { busybox tftp -g -r bios-256k.bin -l /tmp/fetched 10.0.2.2 && [ "$(hash_of /tmp/fetched)" = "$wanted" ]; }
fetch && fetch || die "cannot fetch after the move"
before=$(others) all=$(interrupts "$card")
fetch || die "cannot fetch on CPU $last"
[ "$(others)" = "$before" ] || die "$card still interrupts other CPUs than $last"
[ "$(interrupts "$card")" -gt "$all" ] || die "$card does not interrupt CPU $last"
cat /proc/interrupts

# ACPI's own interrupt, on which the power button depends: the ACPI timer raises it about every two seconds, once bit 0 of its enable
# register (on this board at port 0x602) is set. Linux has no handler for that event and turns it off again.
before=$(interrupts 'acpi')
printf '\001' | dd of=/dev/port bs=1 seek=$((0x602)) conv=notrunc 2> /dev/null || die "no ports"
acpi_came() { [ "$(interrupts 'acpi')" -gt "$before" ]; }
wait_until 60 acpi_came || die "no interrupt of ACPI"
echo "ACPI: interrupts $before to $(interrupts 'acpi')"
