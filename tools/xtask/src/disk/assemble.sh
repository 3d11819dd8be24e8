#!/bin/sh
# Makes the disks of Debian's files and ours. assemble.sh WORK DOM0-TAR GUEST-TAR DOM0-LABEL, where WORK has the folders
#   ours    what replaces files of the control domain
#   tools   what is added to them
#   out     where the disks, kernels and initramfs's go
set -e
work=$1 label=$4

# unpack TAR NAME: Debian's files, with the account and the name.
unpack() {
    root=$work/$2
    mkdir "$root"
    tar -xpf "$1" -C "$root"
    # What only the making of the files needed.
    rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
    # The password is the account's in disk/mod.rs, as crypt(3) writes it with SHA-512 and the salt "oxen".
    password='$6$oxen$tvOCRnwsdR.bhIlbzlTh8f9gLjeR40N0wxoAIgsnS/IeOk58U37nW1Rfy8DCCDUUBkgymnEbzYuG3FWQAfkj6.'
    sed -i "s|^root:[^:]*:|root:$password:|" "$root/etc/shadow"
    echo "oxen-$2" > "$root/etc/hostname"
    # On a busy machine an emulated one may take longer to find the device of a login than the 90 seconds that systemd waits for it.
    mkdir -p "$root/etc/systemd/system.conf.d"
    printf '[Manager]\nDefaultDeviceTimeoutSec=900\nDefaultTimeoutStartSec=900\n' > "$root/etc/systemd/system.conf.d/emulator.conf"
    printf '127.0.0.1 localhost\n127.0.1.1 oxen-%s\n' "$2" > "$root/etc/hosts"
}

# finish NAME DISK SIZE LABEL: the disk NAME, with its kernel and its initramfs beside it.
finish() {
    cp "$work/$1"/boot/vmlinuz-* "$work/out/$1.vmlinuz"
    cp "$work/$1"/boot/initrd.img-* "$work/out/$1.initrd"
    echo "$2 / ext4 errors=remount-ro 0 1" > "$work/$1/etc/fstab"
    truncate -s "$3" "$work/out/$1.img"
    # All of the file system is made here, so that no kernel has to go on with it in the background.
    mkfs.ext4 -q -F -L "$4" -E lazy_itable_init=0,lazy_journal_init=0 -d "$work/$1" "$work/out/$1.img"
    rm -rf "${work:?}/$1"
}

unpack "$3" guest
finish guest /dev/xvda 1G oxen-guest

unpack "$2" dom0
root=$work/dom0
# Folders such as /lib are links on Debian, and stay links.
tar -C "$work/tools" --owner=0 --group=0 -c . | tar -C "$root" --keep-directory-symlink --skip-old-files -x
tar -C "$work/ours" --owner=0 --group=0 -c . | tar -C "$root" --keep-directory-symlink -x
mkdir -p "$root/etc/xen/auto" "$root/guest" "$root/var/lib/xen/dump"
echo nbd >> "$root/etc/modules-load.d/xen.conf"
echo XENCONSOLED_TRACE=guest > "$root/etc/default/xenconsoled"
# As `systemctl enable` does, which not every machine has that makes disks.
for unit in proc-xen.mount xenstored.service xen-init-dom0.service xenconsoled.service xendomains.service; do
    target=$(sed -n 's/^WantedBy=//p' "$root/etc/systemd/system/$unit")
    mkdir -p "$root/etc/systemd/system/$target.wants"
    ln -s "../$unit" "$root/etc/systemd/system/$target.wants/$unit"
done
cp --sparse=always "$work/out/guest.img" "$root/guest/debian.img"
cp "$work/out/guest.vmlinuz" "$root/guest/vmlinuz"
cp "$work/out/guest.initrd" "$root/guest/initrd.img"
cat > "$root/guest/debian.cfg" << 'END'
name = "debian"
type = "pvh"
kernel = "/guest/vmlinuz"
ramdisk = "/guest/initrd.img"
extra = "console=hvc0 root=/dev/xvda quiet"
memory = 384
vcpus = 1
disk = [ "/guest/debian.img,raw,xvda,rw" ]
END
finish dom0 "LABEL=$label" 5G "$label"
