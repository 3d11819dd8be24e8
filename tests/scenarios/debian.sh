#!/bin/sh
# Debian 12 on disks. dom0 boots from a disk of the machine, with systemd and our daemons as its units. Two guests boot their own Debian
# from PV disks, a raw file and a qcow2 image, to their logins; 100 MiB go from dom0 to a guest, to the other guest, back and to dom0
# again, unchanged; the guests shut down and their file systems are clean. The long runs have all disks of dom0's, and guests on a volume
# and on a partition, the one behind a route.
# nightly: --disk virtio --tools oxen --daemons oxen --dom0-elf --mem 3072 --dom0-mem 1024 --timeout 1500
# nightly: --disk nvme --tools oxen --daemons oxen --dom0-elf --mem 3072 --dom0-mem 1024 --timeout 3600 --dom0-args oxen.more
# nightly: --disk ahci --smp 1 --tools oxen --daemons oxen --dom0-elf --mem 3072 --dom0-mem 1024 --timeout 3600 --dom0-args oxen.more
# checks: create list shutdown
. /oxen/lib.sh

MIB=100
PORT=7000
say() { echo "$(cut -d ' ' -f 1 /proc/uptime) s: $*"; }
hash_of() { sha256sum < "$1" | cut -c 1-64; }

# guest NAME DISK VIF ADDRESS: creates a guest with its own Debian on the disk, logs in on its console, and sets its network up.
guest() {
    log=$(console_log "$1")
    sed -e "s/^name = .*/name = \"$1\"/" -e "s|^disk = .*|disk = [ \"$2\" ]|" /guest/debian.cfg > "/tmp/$1.cfg"
    echo "vif = [ \"$3\" ]" >> "/tmp/$1.cfg"
    xl create "/tmp/$1.cfg" || die "xl create $1 ended with status $?"
    say "$1 is created"
}
login() { # NAME ADDRESS
    log=$(console_log "$1")
    wait_for 600 'oxen-guest login:' "$log" || die "$1 has no login: $(cat -v "$log" | tail -n 60)"
    say "$1 has booted"
    type_into "$1" root
    wait_for 120 'Password:' "$log" || die "$1 asks for no password"
    type_into "$1" oxen
    wait_for 120 'root@oxen-guest' "$log" || die "$1 gives no shell"
    # A plain shell: neither prompts nor echoes between the answers.
    type_into "$1" 'exec sh'
    type_into "$1" 'stty -echo; PS1=; echo; echo READY $((40 + 2))'
    says "$1" '^READY 42'
    type_into "$1" 'echo STATE $(systemctl is-system-running --wait) $(systemctl --failed --plain --no-legend | cut -d " " -f 1)'
    says "$1" '^STATE running'
    type_into "$1" "for i in /sys/class/net/e*; do ip addr add $2 dev \${i##*/} && ip link set \${i##*/} up; done; echo NET \$?"
    says "$1" '^NET 0'
    say "$1 is ready"
}
says() { # NAME PATTERN
    wait_for 300 "$2" "$(console_log "$1")" || die "$1 does not answer with '$2'"
}
listen() { # NAME FILE WORD
    type_into "$1" "nc -l $PORT > $2; echo $3 \$(sha256sum < $2)"
}
send() { # NAME FILE ADDRESS
    type_into "$1" "until nc -N $3 $PORT < $2; do sleep 1; done"
}
send_from_dom0() { nc -N "$1" $PORT < /var/tmp/data; }
# to_dom0 NAME FILE: the guest sends the file to dom0.
to_dom0() {
    nc -l $PORT > /var/tmp/back &
    listener=$!
    send "$1" "$2" 10.9.8.1
    wait $listener
    [ "$(hash_of /var/tmp/back)" = "$sum" ] || die "what $1 sent to dom0 is something else"
    say "$1 has sent to dom0"
}
from_dom0() { # NAME ADDRESS FILE WORD
    listen "$1" "$3" "$4"
    wait_until 300 send_from_dom0 "$2" || die "$1 cannot be reached"
    says "$1" "^$4 $sum"
    say "dom0 has sent to $1"
}
down() { # NAME
    xl shutdown -w "$1" || die "xl shutdown $1"
    wait_until 120 gone "$1" || die "$1 is still there"
    say "$1 is down"
}
clean() { e2fsck -fn "$1" || die "the file system in $1 is not clean after the shutdown"; }

# dom0 itself.
say "dom0 has booted from $(findmnt -n -o SOURCE /)"
[ "$(cat /oxen/boot-state)" = running ] || die "systemd says $(cat /oxen/boot-state): $(systemctl --failed; journalctl -p err -b --no-pager | tail -n 30)"
for unit in proc-xen.mount xenstored xen-init-dom0 xenconsoled xendomains; do
    systemctl is-active --quiet "$unit" || die "$(systemctl status "$unit")"
done
[ "$(readlink "/proc/$(cat /run/xen/xenstored.pid)/exe")" = /usr/local/sbin/xenstored ] || die "another xenstored runs"
xl list | grep -q '^Domain-0 ' || die "xl list: $(xl list)"
systemd-analyze

ip link add xenbr0 type bridge && ip addr add 10.9.8.1/24 dev xenbr0 && ip link set xenbr0 up || die "no bridge"
# The image has the disk of the machine's behind it, which nobody else uses.
qemu-img create -q -f qcow2 -F raw -b "$(readlink -f /dev/disk/by-label/oxen-guest)" /guest/two.qcow2 || die "qemu-img"
guest one /guest/debian.img,raw,xvda bridge=xenbr0
guest two /guest/two.qcow2,qcow2,xvda bridge=xenbr0
head -c $((MIB << 20)) /dev/urandom > /var/tmp/data
sum=$(hash_of /var/tmp/data)
login one 10.9.8.2/24
login two 10.9.8.3/24

from_dom0 one 10.9.8.2 /var/tmp/in GOT
listen two /var/tmp/in GOT
send one /var/tmp/in 10.9.8.3
says two "^GOT $sum"
say "one has sent to two"
listen one /var/tmp/back BACK
send two /var/tmp/in 10.9.8.2
says one "^BACK $sum"
say "two has sent to one"
to_dom0 one /var/tmp/back

down one
down two
[ -z "$(losetup -a)" ] || die "loop devices are left: $(losetup -a)"
[ ! -e /sys/block/nbd0/pid ] || die "nbd0 is still in use"
clean /guest/debian.img
qemu-nbd --read-only --connect=/dev/nbd0 /guest/two.qcow2 || die "qemu-nbd"
has_size() { [ "$(blockdev --getsz /dev/nbd0)" -gt 0 ]; }
wait_until 60 has_size || die "nbd0 stays empty"
clean /dev/nbd0
qemu-nbd --disconnect /dev/nbd0 > /dev/null
say "both file systems are clean"

grep -q oxen.more /proc/cmdline || exit 0

# A partition and a volume, behind which there is a file: phy: without a copy.
truncate -s 1100M /guest/disk
echo 'start=1MiB' | sfdisk -q /guest/disk || die "sfdisk"
disk=$(losetup -P -f --show /guest/disk)
truncate -s 1200M /guest/volumes
volumes=$(losetup -f --show /guest/volumes)
pvcreate -q "$volumes" && vgcreate -q guests "$volumes" && lvcreate -q -y -n three -L 1G guests || die "no volume"
wait_until 60 test -b "${disk}p1" || die "no partition"
for target in /dev/guests/three "${disk}p1"; do
    dd if=/dev/disk/by-label/oxen-guest of="$target" bs=1M conv=sparse status=none || die "cannot fill $target"
done
sync
guest three phy:/dev/guests/three,xvda 'script=vif-route,ip=10.9.9.2,gatewaydev=xenbr0'
guest four "phy:${disk}p1,xvda" bridge=xenbr0
login three 10.9.9.2/32
type_into three 'ip route add 10.9.8.1/32 dev $(ls /sys/class/net | grep ^e) && ip route add default via 10.9.8.1; echo ROUTE $?'
says three '^ROUTE 0'
login four 10.9.8.4/24
from_dom0 three 10.9.9.2 /var/tmp/in GOT
to_dom0 three /var/tmp/in
from_dom0 four 10.9.8.4 /var/tmp/in GOT
to_dom0 four /var/tmp/in
down three
down four
clean /dev/guests/three
clean "${disk}p1"
vgchange -q -an guests
losetup -d "$disk" "$volumes"

# Without qemu-nbd the message says what is missing.
mkdir /tmp/none
sed -e 's|^disk = .*|disk = [ "/guest/two.qcow2,qcow2,xvda" ]|' /guest/debian.cfg > /tmp/none.cfg
PATH=/oxen/bin:/tmp/none
export PATH
xl create /tmp/none.cfg 2> /tmp/none/errors && die "an image without qemu-nbd"
/bin/grep -q qemu-utils /tmp/none/errors || die "$(/bin/cat /tmp/none/errors)"
