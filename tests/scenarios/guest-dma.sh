#!/bin/sh
# An IOMMU of AMD's, or of Intel's: guests' disks are disks of the machine, which read and write the guests' own pages. What a guest writes past its
# page cache is on the disk for dom0, past dom0's page cache, and the other way round. A disk that goes past the IOMMU is copied.
# A guest on a bridge with the machine's network card fetches from the outside, and gets back what it sends there.
# run: --tools oxen --put /usr/share/seabios/bios-256k.bin=/put/content --qemu-args "-device amd-iommu,pt=off -drive if=none,id=n,snapshot=on,driver=null-co,read-zeroes=on,size=64M -device nvme,drive=n,serial=1 -drive if=none,id=v,snapshot=on,driver=null-co,read-zeroes=on,size=64M -device virtio-blk-pci,drive=v,iommu_platform=on,disable-legacy=on -drive if=none,id=w,snapshot=on,driver=null-co,read-zeroes=on,size=8M -device virtio-blk-pci,drive=w,serial=past -netdev user,id=net,restrict=on,tftp=/usr/share/seabios,guestfwd=tcp:10.0.2.100:7-cmd:cat -device e1000e,netdev=net"
# run: --tools oxen --put /usr/share/seabios/bios-256k.bin=/put/content --qemu-args "-device intel-iommu -drive if=none,id=n,snapshot=on,driver=null-co,read-zeroes=on,size=64M -device nvme,drive=n,serial=1 -drive if=none,id=v,snapshot=on,driver=null-co,read-zeroes=on,size=64M -device virtio-blk-pci,drive=v,iommu_platform=on,disable-legacy=on -drive if=none,id=w,snapshot=on,driver=null-co,read-zeroes=on,size=8M -device virtio-blk-pci,drive=w,serial=past -netdev user,id=net,restrict=on,tftp=/usr/share/seabios,guestfwd=tcp:10.0.2.100:7-cmd:cat -device e1000e,netdev=net"
# checks: create block-attach destroy info
. /oxen/lib.sh

MIB=8
log=$(console_log dma)
sum() { cut -d ' ' -f 1; }

load_drivers || die "a driver cannot be loaded"
xl dmesg | grep 'IOMMU: 1 unit' || die "no IOMMU"
xl info | grep '^virt_caps.*hvm_directio' || die "xl info does not know: $(xl info | grep virt_caps)"
wait_until 60 test -b /dev/nvme0n1 || die "no NVMe disk"
wait_until 60 test -b /dev/vda || die "no virtio disk"
wait_until 60 test -b /dev/vdb || die "no second virtio disk"
through=vda past=vdb
[ "$(cat /sys/block/vda/serial)" != past ] || through=vdb past=vda

# dom0's own transfers go through it, too.
head -c 1048576 /dev/urandom > /tmp/random
dd if=/tmp/random of=/dev/nvme0n1 bs=65536 oflag=direct 2> /dev/null || die "dom0 cannot write"
dd if=/dev/nvme0n1 bs=65536 count=16 iflag=direct 2> /dev/null | cmp - /tmp/random || die "dom0 reads something else"

wait_until 60 sh -c 'ls -d /sys/bus/pci/drivers/e1000e/*/net/*' || die "no network card"
card=$(basename "$(ls -d /sys/bus/pci/drivers/e1000e/*/net/*)")
brctl addbr xenbr0 && brctl addif xenbr0 "$card" && ip link set "$card" up && ip link set xenbr0 up || die "no bridge"

config dma - "disk = [ 'phy:/dev/nvme0n1,xvda,w', 'phy:/dev/$through,xvdb,w' ]" "vif = [ 'bridge=xenbr0' ]"
sed -i 's/console=hvc0/console=hvc0 oxen.modules/' /tmp/dma.cfg
xl create /tmp/dma.cfg || die "create"
wait_for 250 GUEST-READY "$log" || die "no greeting"
[ -z "$(loops)" ] || die "a disk is copied through a loop device: $(loops)"
answer dma '^DISKS' 'until [ -b /dev/xvda ] && [ -b /dev/xvdb ]; do usleep 50000; done; echo DISKS' 400 || die "no disks"
for pair in "nvme0n1 xvda" "$through xvdb"; do
    there=${pair% *} here=${pair#* }
    # From the guest: dom0 sees what it wrote.
    type_into dma "head -c \$(($MIB << 20)) /dev/urandom > /tmp/r; dd if=/tmp/r of=/dev/$here bs=262144 oflag=direct 2> /dev/null; echo WROTE$here \$? \$(sha256sum < /tmp/r)"
    wrote=$(wait_for 400 "^WROTE$here 0 [0-9a-f]\{64\}" "$log" | cut -d ' ' -f 3) || die "the guest cannot write to $there"
    found=$(dd if="/dev/$there" bs=262144 count=$((MIB * 4)) iflag=direct 2> /dev/null | sha256sum | sum)
    [ "$found" = "$wrote" ] || die "$there: the guest wrote $wrote, dom0 reads $found"
    # To the guest.
    head -c $((MIB << 20)) /dev/urandom > /tmp/r
    wrote=$(sha256sum < /tmp/r | sum)
    dd if=/tmp/r of="/dev/$there" bs=262144 oflag=direct 2> /dev/null || die "dom0 cannot write to $there"
    answer dma "^READ$here $wrote" "echo READ$here \$(dd if=/dev/$here bs=262144 count=$((MIB * 4)) iflag=direct 2> /dev/null | sha256sum)" 400 || die "$there: the guest reads something else"
    echo "/dev/$there: $MIB MiB each way"
done
rm /tmp/r

# By the bridge to the outside and back: what comes in is the card's own work, what goes out it reads from the guest's pages.
wanted=$(sha256sum < /put/content | sum)
answer dma '^UP 0' 'ip addr add 10.0.2.77/24 dev eth0; ip link set eth0 up; ping -c 1 -w 60 10.0.2.2 > /dev/null; echo UP $?' 400 || die "the outside does not answer the guest"
answer dma "^FETCHED $wanted" 'busybox tftp -g -r bios-256k.bin -l /tmp/fetched 10.0.2.2; echo FETCHED $(sha256sum < /tmp/fetched)' 400 || die "the guest fetches something else"
answer dma '^SENT 0' 'head -c 2000000 /dev/urandom > /tmp/r; busybox nc 10.0.2.100 7 < /tmp/r > /tmp/back; busybox cmp /tmp/r /tmp/back; echo SENT $?' 400 || die "what the guest sends comes back otherwise"
xl dmesg | grep 'IOMMU: .* it may not' && die "a device was refused something"
echo "bridged to $card: 256 KiB fetched, 2 MB there and back"

# What is past the IOMMU would miss the guest's pages: it is copied.
xl block-attach dma "phy:/dev/$past,xvdc,w" || die "block-attach"
loops | grep -q "/dev/$past" || die "the disk past the IOMMU is not copied: $(loops)"
xl destroy dma || die "destroy"
wait_until 60 gone dma || die "still there"
[ -z "$(loops)" ] || die "loop devices are left: $(loops)"
