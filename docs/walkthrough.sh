# What docs/walkthrough.md shows of the control domain: `cargo xtask walkthrough` runs this in a dom0 from a Debian disk and puts the
# terminal's text, part by part, into the document.
. /oxen/lib.sh

exec > /tmp/walkthrough.txt 2>&1
log=$(console_log debian)

part() { echo "@@ $1"; }
# run COMMAND: shows the command at a prompt, and what it prints.
run() {
    echo "root@oxen-dom0:~# $1"
    eval "$1" || die "'$1' ended with status $?"
}
# The guest's console from a position on, without what only a terminal understands.
console_from() { tail -c +"$1" "$log" | sed -e 's/\x1b\[[0-9;?]*[A-Za-z]//g' -e 's/\r//g'; }
size() { wc -c < "$log"; }
prompts() { grep -a -o 'root@oxen-guest:~#' "$log" | wc -l; }
is_back() { [ "$(prompts)" -gt "$before" ]; }
# in_guest LINE: types a line at the guest's prompt, and waits for the next one.
in_guest() {
    before=$(prompts)
    type_into debian "$1"
    wait_until 300 is_back || die "the guest does not come back from '$1'"
}

# show_in_guest LINE...: types lines, short ones, which a terminal of 80 columns does not wrap, and shows the console from that prompt on.
show_in_guest() {
    from=$(($(size) + 1))
    for line in "$@"; do in_guest "$line"; done
    printf 'root@oxen-guest:~# '
    console_from "$from" | sed '$d'
}

part host
run 'xl info | grep -e ^release -e ^nr_cpus -e ^total_memory -e ^free_memory -e ^virt_caps -e ^xen_version -e ^xen_caps -e ^xen_extra -e ^cc_compiler'
run 'xl list'
run 'systemctl --plain --no-legend list-units "xen*"'
run 'ls -l /dev/disk/by-label | cut -d " " -f 9-'

part bridge
run 'ip link add xenbr0 type bridge'
run 'ip addr add 10.0.0.1/24 dev xenbr0'
run 'ip link set xenbr0 up'

part config
echo 'vif = [ "bridge=xenbr0" ]' >> /guest/debian.cfg
run 'cat /guest/debian.cfg'
run 'xl create --plan /guest/debian.cfg'

part create
run 'xl create /guest/debian.cfg'
run 'xl list'

part login
wait_for 1200 'oxen-guest login:' "$log" > /dev/null || die "no login"
echo 'root@oxen-dom0:~# xl console debian'
from=$(($(grep -a -b -m 1 'oxen-guest login:' "$log" | cut -d : -f 1) + 1))
type_into debian root
wait_for 120 'Password:' "$log" > /dev/null || die "no password"
before=$(prompts)
type_into debian oxen
wait_until 120 is_back || die "no shell"
for line in 'uname -r' 'cat /sys/hypervisor/type' 'lsblk' 'free -m'; do in_guest "$line"; done
# The last prompt belongs to what comes next.
console_from "$from" | sed '$d'
in_guest 'echo INTERFACE: $(ls /sys/class/net | grep ^e)'
card=$(sed -n 's/\r//; s/^INTERFACE: //p' "$log" | tail -n 1)
show_in_guest "ip addr add 10.0.0.2/24 dev $card" "ip link set $card up" 'ping -c 3 10.0.0.1'

part devices
run 'xl network-list debian'
run 'xl block-list debian'
run 'truncate -s 64M /var/tmp/data.img'
run 'xl block-attach debian /var/tmp/data.img,raw,xvdb,rw'
echo 'root@oxen-dom0:~# xl console debian'
show_in_guest 'lsblk' 'mkfs.ext4 -q /dev/xvdb' 'mount /dev/xvdb /mnt' 'echo hello > /mnt/hello' 'umount /mnt'
run 'xl block-detach debian xvdb'
run 'mount -o loop /var/tmp/data.img /mnt && cat /mnt/hello; umount /mnt'

part changes
run 'xl mem-set debian 300'
is_smaller() { [ "$(xl list debian | awk 'NR == 2 { print $3 }')" -le 302 ]; }
wait_until 120 is_smaller || die "the guest keeps its memory"
run 'xl vcpu-pin debian 0 1'
run 'xl sched-credit2 -d debian -w 512'
run 'xl sched-credit2 -d debian'
run 'xl vcpu-list debian'
run 'xl list'
run 'xl top -b -i 1'

part mistakes
sed -e 's/^memory/memori/' -e 's/xenbr0/xenbr7/' /guest/debian.cfg > /var/tmp/wrong.cfg
echo 'root@oxen-dom0:~# xl create /var/tmp/wrong.cfg'
xl create /var/tmp/wrong.cfg && die "a wrong configuration is taken"
echo 'root@oxen-dom0:~# xl create /guest/debian.cfg name=\"other\" vif=[\"bridge=xenbr7\"]'
xl create /guest/debian.cfg 'name="other"' 'vif=["bridge=xenbr7"]' && die "a wrong bridge is taken"

part shutdown
run 'xl shutdown -w debian'
wait_until 120 gone debian || die "the guest is still there"
run 'xl list'
run 'e2fsck -fn /guest/debian.img'
