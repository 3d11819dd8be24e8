#!/bin/sh
# mmdebstrap runs this when essential packages are there and the kernel is not: what the initramfs is made by.
# before-kernel.sh ROOT MODULES
set -e
folder=$1/etc/initramfs-tools
mkdir -p "$folder/conf.d" "$folder/scripts/init-bottom" "$1/usr/share/initramfs-tools/modules.d"
# Debian's default holds the drivers of every disk there is, and takes a minute more to make and seconds more to boot.
echo MODULES=list > "$folder/conf.d/oxen"
for module in $2; do echo "$module"; done > "$1/usr/share/initramfs-tools/modules.d/oxen"
cat > "$folder/scripts/init-bottom/oxen" << 'END'
#!/bin/sh
# Lays files that the boot loader gave beside this initramfs, below /oxen/root, over the root file system.
[ "$1" != prereqs ] || exit 0
[ -d /oxen/root ] || exit 0
mount -o remount,rw "$rootmnt"
cp -a /oxen/root/. "$rootmnt/"
[ "$readonly" != y ] || mount -o remount,ro "$rootmnt"
END
chmod 755 "$folder/scripts/init-bottom/oxen"
