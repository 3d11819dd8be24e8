#!/bin/sh
# A Linux guest while it runs: vCPUs come and go, memory goes and comes back, its name changes, a sysrq and an NMI reach its kernel.
# shared: 500
# interop: --hypervisor xen --tools oxen
# checks: create list vcpu-set mem-set mem-max rename uptime vm-list sysrq trigger reboot destroy
. /oxen/lib.sh
log=$(console_log grow)
config grow - 'vcpus = 2'
xl create /tmp/grow.cfg || die "create"
wait_for 250 'GUEST-READY.*cpus=2' "$log" || die "no greeting"
id=$(xl domid grow)

# vCPUs: the guest's kernel takes one down by itself, and offers it again, which a program of the guest must take up. (Linux 6.1
# cannot take up what was not there when it started, with Xen's tools neither.)
xl vcpu-set grow 1 || die "vcpu-set 1"
[ "$(xenstore-read "/local/domain/$id/cpu/1/availability")" = offline ] || die "vcpu-set 1 changes nothing"
answer grow '^LEFT 1' 'until [ $(nproc) = 1 ]; do usleep 50000; done; echo LEFT $(nproc)' || die "the guest keeps its second vCPU"
xl vcpu-set -i grow 2 || die "vcpu-set 2"
answer grow '^AGAIN 2' 'until echo 1 > /sys/devices/system/cpu/cpu1/online; do usleep 50000; done 2> /dev/null; echo AGAIN $(nproc)' || die "the guest does not take its second vCPU up"
fails 1 xl vcpu-set -i grow 3
fails 1 xl vcpu-set grow 0

# Memory: the guest gives it back and takes it again.
# What the hypervisor keeps of a domain for itself is a little, and stays.
at_most() { [ "$(xl list grow | awk 'NR == 2 { print $3 }')" -le "$1" ]; }
at_least() { [ "$(xl list grow | awk 'NR == 2 { print $3 }')" -ge "$1" ]; }
xl mem-set grow 200 || die "mem-set 200"
wait_until 120 at_most 202 || die "the guest keeps its memory: $(xl list grow)"
[ "$(xl list -l grow | tr -d ' ,' | sed -n 's/"target_memkb"://p')" = 204800 ] || die "xl list -l does not show the new size"
xl mem-set grow 250m || die "mem-set 250m"
wait_until 120 at_least 248 || die "the guest does not take its memory again: $(xl list grow)"
fails 1 xl mem-set grow 300
fails 1 xl mem-max grow 100
fails 1 xl mem-set grow 10x
xl mem-max grow 300 || die "mem-max"
[ "$(xenstore-read "/local/domain/$id/memory/static-max")" = 307200 ] || die "mem-max changes nothing"
# A domain that may have more than it has is built by Xen's xl with populate on demand, which Oxen does not have.
xl mem-max grow 250 || die "mem-max again"

# Its name; the console's file keeps the one it was made with.
xl rename grow grown || die "rename"
gone grow || die "the old name is still there"
[ "$(xl domid grown)" = "$id" ] || die "the new name is not there"
fails 1 xl rename grown Domain-0
xl uptime grown | awk -v id="$id" 'NR == 2 { exit !($1 == "grown" && $2 == id && $3 ~ /^[0-9]+:[0-9][0-9]:[0-9][0-9]$/) }' || die "uptime: $(xl uptime grown)"
xl vm-list | grep -q " $id    grown" || die "vm-list: $(xl vm-list)"

# A key for its kernel, and an interrupt that it did not ask for.
xl trigger grown nmi || die "trigger"
wait_for 60 'Dazed and confused' "$log" || die "no answer to the interrupt"
xl sysrq grown h || die "sysrq"
wait_for 60 'sysrq: HELP' "$log" || die "no answer to the sysrq"

# A restart keeps the new name and the size that was asked for.
first=$id
xl reboot grown || die "reboot"
greetings() { [ "$(cat /var/log/xen/console/guest-grow*.log | grep -a -c GUEST-READY)" = 2 ]; }
wait_until 250 greetings || die "the guest does not come up again"
[ "$(xl domid grown)" != "$first" ] || die "the restarted guest has the same id"
[ "$(xl list grown | awk 'NR == 2 { print $3 }')" -le 252 ] || die "the restarted guest has another size: $(xl list grown)"
xl destroy grown || die "destroy"
