#!/bin/sh
# Every command on a domain that was never started, and what wrong uses of them answer.
# shared: 200
# tiny: hello
# tiny: spin
# interop: --hypervisor xen --tools oxen
# checks: create domid domname list vcpu-list rename vcpu-pin vm-list claims block-list network-list channel-list mem-set sched-credit2 destroy pause unpause dmesg debug-keys info help config-update top
# checks xl=oxen: dump-core
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

# Weight, cap and rate limit, with credit2's ranges.
sched() { xl sched-credit2 -d cmd | awk 'NR == 2 { print $1, $2, $3, $4 }'; }
[ "$(sched)" = "cmd $id 256 0" ] || die "sched-credit2: $(xl sched-credit2 -d cmd)"
xl sched-credit2 -d cmd -w 512 -c 50 || die "sched-credit2 -w -c"
[ "$(sched)" = "cmd $id 512 50" ] || die "sched-credit2 -w -c changes nothing: $(xl sched-credit2 -d cmd)"
xl sched-credit2 --domain=cmd --cap=0 || die "sched-credit2 --cap"
[ "$(sched)" = "cmd $id 512 0" ] || die "sched-credit2 --cap=0: $(xl sched-credit2 -d cmd)"
xl sched-credit2 -p Pool-0 | grep -q '^cmd ' || die "sched-credit2 -p: $(xl sched-credit2 -p Pool-0)"
[ "$(xl sched-credit2 -s)" = 'Cpupool Pool-0: ratelimit=1000us' ] || die "sched-credit2 -s: $(xl sched-credit2 -s)"
xl sched-credit2 -s -r 500 || die "sched-credit2 -s -r"
[ "$(xl sched-credit2 -s)" = 'Cpupool Pool-0: ratelimit=500us' ] || die "sched-credit2 -s -r changes nothing"
xl sched-credit2 -s -r 1000 || die "sched-credit2 -s -r 1000"
fails 1 xl sched-credit2 -d cmd -c 101
fails 1 xl sched-credit2 -d cmd -w 0
fails 1 xl sched-credit2 -d cmd -w 65536
fails 1 xl sched-credit2 -w 5
fails 1 xl sched-credit2 -d cmd -p Pool-0
fails 1 xl sched-credit2 -p nosuch
fails 1 xl sched-credit2 -s -r 99

# A cap holds: two vCPUs that do nothing but run have a fifth of a CPU together. (What a busy host takes from QEMU counts as
# run at first, but the budget of later periods pays for it.)
tiny_config lazy spin 'vcpus = 2' 'cap = 20' 'cmdline = "seconds=600"'
xl create -q /tmp/lazy.cfg || die "create with a cap"
uptime() { awk '{ print int($1 * 10) }' /proc/uptime; }
cpu_time() { xl list lazy | awk 'NR == 2 { print int($6 * 10) }'; }
runs() { [ "$(cpu_time)" -ge $((ran + $1)) ]; }
ran=0
wait_until 60 runs 1 || die "a guest with a cap does not run"
begin=$(uptime)
ran=$(cpu_time)
wait_until 120 runs 6 || die "a guest with a cap of 20 % is as good as stopped"
used=$(($(cpu_time) - ran))
[ $((used * 5)) -le $(($(uptime) - begin + 20)) ] || die "$used tenths of a second of CPU in $(($(uptime) - begin))"
xl sched-credit2 -d lazy -c 0 || die "the cap stays"
xl destroy lazy || die "destroy lazy"

# The processes, twice. Debian's xl has another program for this and gives it no options, so it gets one that adds them.
is_ours() { [ "$(readlink /usr/local/bin/xl)" = /usr/local/bin/oxen-xl ]; }
if is_ours; then
    xl top -b -i 2 -d 1 > /tmp/top || die "top -b"
else
    printf '#!/bin/sh\nexec /usr/lib/xen-4.17/bin/xentop -b -i 2 -d 1\n' > /usr/local/bin/xentop
    chmod 755 /usr/local/bin/xentop
    xl top > /tmp/top || die "top"
    rm /usr/local/bin/xentop
fi
[ "$(grep -c 'NAME  STATE' /tmp/top)" = 2 ] || die "top does not show two tables: $(cat /tmp/top)"
awk '$1 == "cmd" && $2 == "----p-" && $9 == 1 { n++ } END { exit n != 2 }' /tmp/top || die "top: $(cat /tmp/top)"

# What only our xl has: JSON for each list, core dumps in a moment, and warnings about xl.conf.
if is_ours; then
    json() { oxen-xl "$@" | tr -d ' \n'; }
    json list --json cmd | grep -q '"name":"cmd","domid":'"$id"',.*"paused":true' || die "list --json: $(json list --json cmd)"
    json vcpu-list --json cmd | grep -q '"name":"cmd","domid":'"$id"',"vcpu":0,"cpu":[0-9]*,"online":true' || die "vcpu-list --json: $(json vcpu-list --json cmd)"
    json sched-credit2 --json -d cmd | grep -q '"weight":512,"cap":0' || die "sched-credit2 --json"
    for list in block-list network-list channel-list; do [ "$(json $list --json cmd)" = '[]' ] || die "$list --json"; done
    json info --json | grep -q '"xen_major":"4","xen_minor":"17"' || die "info --json: $(json info --json)"
    for list in vm-list uptime claims; do json $list --json | grep -q '"domid":0' || die "$list --json: $(json $list --json)"; done
    oxen-xl dump-core cmd /tmp/core || die "dump-core"
    [ "$(dd if=/tmp/core bs=1 skip=1 count=3 2> /dev/null)" = ELF ] && [ "$(wc -c < /tmp/core)" -gt $((60 << 20)) ] || die "no core: $(ls -l /tmp/core)"
    grep -a -q 'GUEST-TEST' /tmp/core || die "the core does not hold the guest's memory"
    rm /tmp/core
    cp /etc/xen/xl.conf /tmp/xl.conf
    printf 'claim_mod = 1\n' >> /etc/xen/xl.conf
    line=$(wc -l < /etc/xen/xl.conf)
    oxen-xl create -n /tmp/cmd.cfg 2>&1 > /dev/null | grep -q "^/etc/xen/xl.conf:$line:1: warning: claim_mod: .*claim_mode" || die "no warning about xl.conf"
    cp /tmp/xl.conf /etc/xen/xl.conf
fi

# A configuration for the next time that the domain is built.
tiny_config next spin 'cmdline = "seconds=1"' 'on_poweroff = "restart"'
xl create -q -p /tmp/next.cfg || die "create next"
tiny_config next hello
xl config-update next /tmp/next.cfg 2> /tmp/update || die "config-update: $(cat /tmp/update)"
xl unpause next || die "unpause next"
wait_for 120 'GUEST-TEST hello PASS' "$(console_log next)" || die "the domain was not built as its new configuration says"
wait_until 60 gone next || die "the new configuration's on_poweroff does not count"

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
