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
for command in list pause unpause destroy shutdown reboot console vcpu-list; do
    fails 1 xl $command nosuch
done
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
