#!/bin/sh
# A guest with a disk and a network interface, both by our xl; disks and interfaces come and go while it runs.
# shared: 600
# run: --tools oxen
# interop: --hypervisor xen --tools oxen
# checks: create list reboot destroy block-attach block-list block-detach network-attach network-list network-detach
. /oxen/lib.sh

log=$(console_log dev)

# A disk with a file system in a file, and a bridge of dom0's own.
dd if=/dev/urandom of=/tmp/disk.img bs=1M count=4 2> /dev/null
mke2fs -F -L oxen /tmp/disk.img > /dev/null || die "mke2fs"
dd if=/dev/urandom of=/tmp/more.img bs=1M count=1 2> /dev/null
brctl addbr xenbr0 && ip addr add 10.9.8.1/24 dev xenbr0 && ip link set xenbr0 up || die "no bridge"

config dev - 'disk = [ "/tmp/disk.img,raw,xvda,rw" ]' 'vif = [ "mac=00:16:3e:09:08:07" ]'
sed -i 's/console=hvc0/console=hvc0 oxen.modules/' /tmp/dev.cfg
xl create /tmp/dev.cfg || die "create"
wait_for 250 GUEST-READY "$log" || die "no greeting"
id=$(xl domid dev)

# The guest sees what dom0 wrote, and dom0 what the guest writes.
answer dev '^xvda-is-there' 'until [ -b /dev/xvda ]; do usleep 50000; done; echo xvda-is-there' || die "no disk"
sum=$(sha256sum < /tmp/disk.img | cut -c 1-64)
answer dev "^SUM $sum" 'echo SUM $(sha256sum < /dev/xvda)' || die "the guest reads something else"
answer dev '^WROTE 0' 'dd if=/dev/urandom of=/dev/xvda bs=4096 seek=512 count=128 conv=fsync 2> /dev/null; echo WROTE $?'
type_into dev 'echo NEW $(sha256sum < /dev/xvda)'
new=$(wait_for 120 '^NEW [0-9a-f]\{64\}' "$log" | cut -d ' ' -f 2) || die "no hash"
[ "$new" != "$sum" ] || die "the guest's writes changed nothing"
[ "$(sha256sum < /tmp/disk.img | cut -c 1-64)" = "$new" ] || die "dom0 reads something else than the guest wrote"

# By the bridge.
answer dev '^PING 0' 'ip addr add 10.9.8.2/24 dev eth0; ip link set eth0 up; ping -c 3 -w 60 10.9.8.1 > /dev/null; echo PING $?' || die "dom0 cannot be reached"
ping -c 1 -w 30 10.9.8.2 > /dev/null || die "the guest cannot be reached"
answer dev '00:16:3e:09:08:07' 'ip link show eth0'

# Lists.
row=$(xl block-list dev | awk 'NR == 2 { print $1, $2, $3, $4, $7 }')
[ "$row" = "51712 0 $id 4 /local/domain/0/backend/vbd/$id/51712" ] || die "block-list: $(xl block-list dev)"
row=$(xl network-list dev | awk 'NR == 2 { print $1, $2, $5, $8 }')
[ "$row" = "0 0 4 /local/domain/0/backend/vif/$id/0" ] || die "network-list: $(xl network-list dev)"

# Disks and interfaces come and go.
xl block-attach dev phy:/tmp/more.img xvdb r || die "block-attach"
sum=$(sha256sum < /tmp/more.img | cut -c 1-64)
answer dev "^MORE $sum" 'until [ -b /dev/xvdb ]; do usleep 50000; done; echo MORE $(sha256sum < /dev/xvdb)' || die "the attached disk"
fails 1 xl block-attach dev /tmp/more.img,raw,xvdb
fails 1 xl block-attach dev /tmp/disk.img,raw,xvdc
fails 1 xl block-attach dev /nosuch,raw,xvdc
xl list -l dev | grep -q '"vdev": "xvdb"' || die "xl list -l does not know the attached disk"
xl block-detach dev xvdb || die "block-detach"
answer dev '^GONE 1' 'while [ -b /dev/xvdb ]; do usleep 50000; done; ls /dev/xvdb 2> /dev/null; echo GONE $?' || die "the detached disk"
xl list -l dev | grep -q '"vdev": "xvdb"' && die "xl list -l knows the detached disk"
loops | grep -q more.img && die "the detached disk has a loop device: $(loops)"
fails 1 xl block-detach dev xvdb
xl network-attach dev bridge=xenbr0 || die "network-attach"
answer dev '^ETH1 0' 'until [ -e /sys/class/net/eth1 ]; do usleep 50000; done; grep -q ^00:16:3e: /sys/class/net/eth1/address; echo ETH1 $?' || die "the attached interface"
xl network-detach dev 1 || die "network-detach"
answer dev '^NOETH1' 'while [ -e /sys/class/net/eth1 ]; do usleep 50000; done; echo NOETH1' || die "the detached interface"
[ ! -e "/sys/class/net/vif$id.1" ] || die "the detached interface is still in dom0"

# A restart keeps disk, interface and addresses, with what was attached since.
xl block-attach dev phy:/tmp/more.img xvdb r || die "block-attach again"
mac=$(xenstore-read "/local/domain/0/backend/vif/$id/0/mac")
xl reboot dev || die "reboot"
greetings() { [ "$(grep -a -c GUEST-READY "$log")" = 2 ]; }
wait_until 250 greetings || die "the guest does not come up again"
id=$(xl domid dev)
[ "$(xenstore-read "/local/domain/0/backend/vif/$id/0/mac")" = "$mac" ] || die "the interface has another address"
answer dev '^BOTH 0' 'until [ -b /dev/xvda ] && [ -b /dev/xvdb ]; do usleep 50000; done; echo BOTH $?' || die "the restarted guest lacks a disk"

# By a route: the guest's address is known here, and the interface has the address of another one.
xl network-attach dev script=vif-route ip=10.9.9.2 gatewaydev=xenbr0 vifname=routed || die "network-attach with a route"
answer dev '^ROUTED 0' 'until [ -e /sys/class/net/eth1 ]; do usleep 50000; done; ip addr add 10.9.9.2/32 dev eth1; ip link set eth1 up; ip route add 10.9.8.1/32 dev eth1; ping -c 2 -w 60 10.9.8.1 > /dev/null; echo ROUTED $?' || die "the routed interface"
ip route | grep -q '^10.9.9.2 dev routed' || die "there is no route: $(ip route)"
ping -c 1 -w 30 10.9.9.2 > /dev/null || die "the guest cannot be reached by its route"

# All goes with the domain; a guest that still has its disk mounted or open does not matter.
xl destroy dev || die "destroy"
wait_until 60 gone dev || die "still there"
[ -z "$(loops)" ] || die "loop devices are left: $(loops)"
[ ! -e "/sys/class/net/vif$id.0" ] && [ ! -e /sys/class/net/routed ] || die "an interface is left"
xenstore-ls /local/domain/0/backend 2> /dev/null | grep vbd && die "nodes of backends are left"

# What cannot be had is said before there is a domain.
cause() { # TEXT SETTING
    fails 3 xl create /tmp/dev.cfg "$2"
    grep -q "$1" /tmp/fails.err || die "$2: $(cat /tmp/fails.err)"
    gone dev || die "$2 left a domain"
}
cause 'no bridge nosuch' 'vif=["bridge=nosuch"]'
cause '/nosuch' 'disk=["/nosuch,raw,xvda"]'
cause 'qemu-utils' 'disk=["/tmp/disk.img,qcow2,xvda"]'
ip link set xenbr0 down
brctl delbr xenbr0
rm /tmp/disk.img /tmp/more.img
