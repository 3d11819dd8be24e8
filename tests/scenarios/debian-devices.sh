#!/bin/sh
# Disks and networks by Debian's xl and its own scripts: a guest boots with one each, and others come and go while it runs.
# shared: 300
# run: --tools debian
# checks: create list block-attach block-list block-detach network-attach network-list network-detach destroy
. /oxen/lib.sh

log=$(console_log dev)

dd if=/dev/urandom of=/tmp/disk.img bs=1M count=4 2> /dev/null
dd if=/dev/urandom of=/tmp/more.img bs=1M count=1 2> /dev/null
brctl addbr xenbr0 && ip addr add 10.9.8.1/24 dev xenbr0 && ip link set xenbr0 up || die "no bridge"
config dev - 'disk = [ "/tmp/disk.img,raw,xvda,rw" ]' 'vif = [ "mac=00:16:3e:09:08:07,bridge=xenbr0" ]'
sed -i 's/console=hvc0/console=hvc0 oxen.modules/' /tmp/dev.cfg
xl create /tmp/dev.cfg || die "create: $(cat /var/log/xen/xen-hotplug.log)"
wait_for 250 GUEST-READY "$log" || die "no greeting"
id=$(xl domid dev)

sum=$(sha256sum < /tmp/disk.img | cut -c 1-64)
answer dev "^SUM $sum" 'until [ -b /dev/xvda ]; do usleep 50000; done; echo SUM $(sha256sum < /dev/xvda)' || die "the guest reads something else"
answer dev '^PING 0' 'ip addr add 10.9.8.2/24 dev eth0; ip link set eth0 up; ping -c 3 -w 60 10.9.8.1 > /dev/null; echo PING $?' || die "dom0 cannot be reached"
row=$(xl block-list dev | awk 'NR == 2 { print $1, $2, $3, $4 }')
[ "$row" = "51712 0 $id 4" ] || die "block-list: $(xl block-list dev)"
row=$(xl network-list dev | awk 'NR == 2 { print $1, $2, $5 }')
[ "$row" = "0 0 4" ] || die "network-list: $(xl network-list dev)"

xl block-attach dev /tmp/more.img,raw,xvdb,ro || die "block-attach: $(cat /var/log/xen/xen-hotplug.log)"
sum=$(sha256sum < /tmp/more.img | cut -c 1-64)
answer dev "^MORE $sum" 'until [ -b /dev/xvdb ]; do usleep 50000; done; echo MORE $(sha256sum < /dev/xvdb)' || die "the attached disk"
xl list -l dev | grep -q '"vdev": "xvdb"' || die "xl list -l does not know the attached disk"
xl block-detach dev xvdb || die "block-detach"
answer dev '^GONE 1' 'while [ -b /dev/xvdb ]; do usleep 50000; done; ls /dev/xvdb 2> /dev/null; echo GONE $?' || die "the detached disk"
loops | grep -q more.img && die "the detached disk has a loop device: $(loops)"
xl network-attach dev bridge=xenbr0 || die "network-attach"
answer dev '^ETH1' 'until [ -e /sys/class/net/eth1 ]; do usleep 50000; done; echo ETH1' || die "the attached interface"
xl network-detach dev 1 || die "network-detach"
answer dev '^NOETH1' 'while [ -e /sys/class/net/eth1 ]; do usleep 50000; done; echo NOETH1' || die "the detached interface"

xl destroy dev || die "destroy"
wait_until 60 gone dev || die "still there"
no_loops() { [ -z "$(loops)" ]; }
wait_until 30 no_loops || die "loop devices are left: $(loops)"
ip link set xenbr0 down
brctl delbr xenbr0
rm /tmp/disk.img /tmp/more.img
