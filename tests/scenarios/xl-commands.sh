#!/bin/sh
# Every command on a domain that was never started, and what wrong uses of them answer.
# shared: 200
# tiny: hello
# interop: --hypervisor xen --tools oxen
. /oxen/lib.sh

tiny_config cmd hello
xl create -p /tmp/cmd.cfg || die "create -p"
id=$(xl domid cmd) || die "domid"
[ "$(xl domname "$id")" = cmd ] || die "domname"

# Columns.
row=$(xl list cmd | awk 'NR == 2 { print $1, $2, $3, $4, $5, $6 }')
[ "$row" = "cmd $id 64 1 --p--- 0.0" ] || die "xl list: $row"
[ "$(xl list "$id" | tail -n 1)" = "$(xl list cmd | tail -n 1)" ] || die "xl list differs by name and by id"
xl list -v cmd | awk 'NR == 2 { exit !($7 ~ /^[0-9a-f]{8}-[0-9a-f]{4}-/ && $8 == "-" && $9 == "-") }' || die "xl list -v: $(xl list -v cmd)"
xl list -l cmd | tr -d ' \n' | grep -q "\"domid\":$id,.*\"type\":\"pvh\",\"name\":\"cmd\"" || die "xl list -l: $(xl list -l cmd)"
xl list -l cmd | tr -d ' \n' | grep -q '"kernel":"/tests/hello"' || die "xl list -l has no kernel"
row=$(xl vcpu-list cmd | awk 'NR == 2 { print $1, $2, $3, $5, $6 }')
[ "$row" = "cmd $id 0 --- 0.0" ] || die "xl vcpu-list: $(xl vcpu-list cmd)"

# Names, pins, and lists of what there is.
xl rename cmd other && xl rename "$id" cmd || die "rename"
xl vcpu-pin cmd all 0 && xl vcpu-pin cmd 0 - all || die "vcpu-pin"
xl vcpu-list cmd | awk 'NR == 2 { exit !($7 == "0" || $7 == "all") }' || die "vcpu-list after vcpu-pin: $(xl vcpu-list cmd)"
[ "$(xl -N vcpu-pin cmd 0 0)" = "cpumap: $(xl vcpu-list cmd | awk 'NR == 2 { print $7 }')" ] || die "xl -N vcpu-pin: $(xl -N vcpu-pin cmd 0 0)"
xl vm-list | grep -q "  $id    cmd" || die "vm-list"
xl claims 2> /dev/null | awk -v id="$id" '$2 == id { exit !($NF == 0) }' || die "claims: $(xl claims)"
[ "$(xl block-list cmd | wc -l)" = 1 ] && [ "$(xl network-list cmd | wc -l)" = 1 ] && [ "$(xl channel-list cmd | wc -l)" = 1 ] || die "devices of a domain without any"
xl mem-set cmd 60 || die "mem-set"
[ "$(xenstore-read "/local/domain/$id/memory/target")" = 61440 ] || die "mem-set changes nothing"

# Pauses count.
xl pause cmd || die "pause"
xl unpause cmd || die "unpause"
case $(state cmd) in *p*) ;; *) die "one unpause undid two pauses" ;; esac
xl unpause cmd || die "unpause again"
wait_until 60 gone cmd || die "an unpaused guest does not come to its end"
grep -q 'GUEST-TEST hello PASS' "$(console_log cmd)" || die "no verdict of the guest"

# The host.
xl dmesg -c > /dev/null || die "dmesg -c"
xl debug-keys h || die "debug-keys"
xl dmesg | grep -q "'h' pressed" || die "the answer to a debug key is not in xl dmesg"
xl dmesg -c | grep -q "'h' pressed" || die "xl dmesg -c shows nothing"
! xl dmesg | grep -q "'h' pressed" || die "xl dmesg -c does not clear"
[ "$(xl info free_memory)" -gt 0 ] || die "xl info free_memory: $(xl info free_memory)"
xl info -n | grep -q '^node: *memsize *memfree *distances' || die "xl info -n"
xl help | grep -q vcpu-list || die "xl help"
xl create -h | grep -q -e -q || die "xl create -h"

# What fails says so, by the exit codes of Xen's xl.
for command in list pause unpause destroy shutdown reboot console vcpu-list uptime channel-list network-list; do
    fails 1 xl $command nosuch
done
fails 1 xl rename nosuch other
fails 1 xl mem-set nosuch 64
fails 1 xl vcpu-set nosuch 1
fails 1 xl vcpu-pin nosuch all all
fails 1 xl trigger nosuch power
fails 1 xl trigger 0 nonsense
fails 1 xl sysrq 0 long
fails 1 xl block-attach nosuch /tmp/x,raw,xvda
fails 1 xl network-detach 0 7
fails 1 xl list 4321
fails 1 xl destroy 4321
fails 1 xl destroy 0
fails 1 xl domid nosuch
fails 1 xl domname 4321
fails 1 xl domname letters
fails 1 xl shutdown
fails 1 xl nonsense
fails 2 xl list --nonsense
fails 2 xl pause
fails 2 xl domid
