#!/bin/sh
# Both xl's print the same and end with the same code, on the same host and the same domain.
# shared: 600
# tiny: hello
# run: --tools oxen
# run: --hypervisor xen --tools oxen
# checks debian-xl: create list vcpu-list sched-credit2 uptime trigger button-press domid domname vm-list block-list network-list channel-list claims rename vcpu-pin vcpu-set mem-set info dmesg
# checks oxen-xl: create list vcpu-list sched-credit2 uptime trigger button-press domid domname vm-list block-list network-list channel-list claims rename vcpu-pin vcpu-set mem-set info dmesg
. /oxen/lib.sh

# Runs a command with both; leaves what they print in /tmp/debian.out and so on.
run_both() {
    for who in debian oxen; do
        $who-xl "$@" > /tmp/$who.out 2> /tmp/$who.err < /dev/null
        echo $? > /tmp/$who.code
    done
}
bad=0
complain() {
    echo "DIFFERS: $*"
    bad=1
}
same_code() {
    run_both "$@"
    cmp -s /tmp/debian.code /tmp/oxen.code ||
        complain "xl $*: status $(cat /tmp/debian.code) of Debian's, $(cat /tmp/oxen.code) of ours: $(cat /tmp/oxen.err)"
}
same() {
    same_code "$@"
    diff /tmp/debian.out /tmp/oxen.out || complain "xl $*"
}

# A PVH guest has no buttons. On Xen nothing happens; Oxen refuses, of which Debian's xl says nothing.
refused=0
case $(debian-xl info xen_extra) in *oxen*) refused=1 ;; esac

tiny_config cmd hello 'vcpus = 2' 'maxvcpus = 3' 'cpus = "0"' 'on_crash = "preserve"' 'cpu_weight = 300' 'cap = 150'
cat >> /tmp/cmd.cfg << 'END'
uuid = "01234567-89ab-cdef-0123-456789abcdef"
cmdline = "a=b c"
END
same create -n /tmp/cmd.cfg
same create -n /tmp/cmd.cfg memory=128 'vcpus=1'
same create -n -q -f /tmp/cmd.cfg
same create -n /tmp/cmd.cfg 'cpuid="host,aes=0,sse4.2=k,family=0x17,model=0x31,smep=s,nc=3,procpkg=2,maxleaf=0xd"'
same create -n /tmp/cmd.cfg 'cpuid=["1:ecx=xxxxxx0xxxxxxxxxxxxxxxxxxxxxxxxx,edx=kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk", "0x7,0:ebx=1xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx0"]'
for maker in debian oxen; do
    $maker-xl create -q -p /tmp/cmd.cfg || die "$maker-xl create -p"
    for options in '' -v -l -Z -c -n; do
        # shellcheck disable=SC2086
        same list $options cmd
    done
    same vcpu-list cmd
    same sched-credit2 -d cmd
    same sched-credit2
    same domid cmd
    same domname "$(debian-xl domid cmd)"
    same vm-list
    same_code claims
    same block-list cmd
    same network-list cmd
    same channel-list cmd
    for press in 'trigger cmd power' 'button-press cmd sleep'; do
        # shellcheck disable=SC2086
        run_both $press
        [ "$(cat /tmp/debian.code) $(cat /tmp/oxen.code)" = "0 $refused" ] || complain "xl $press: $(cat /tmp/*.code /tmp/oxen.err)"
    done
    same -N vcpu-pin cmd 0 0 all
    same -N vcpu-pin cmd all - 0
    # What one changes the other shows.
    for doer in debian oxen; do
        $doer-xl rename cmd by-$doer || die "$doer-xl rename"
        same list by-$doer
        same list -l by-$doer
        $doer-xl rename by-$doer cmd || die "$doer-xl rename back"
        $doer-xl sched-credit2 -d cmd -w 400 -c $([ $doer = debian ] && echo 30 || echo 0) || die "$doer-xl sched-credit2"
        same sched-credit2 --domain cmd
        $doer-xl vcpu-pin cmd 1 0 0 || die "$doer-xl vcpu-pin"
        same vcpu-list cmd
        $doer-xl vcpu-set -i cmd $([ $doer = debian ] && echo 1 || echo 3) || die "$doer-xl vcpu-set"
        $doer-xl mem-set cmd $([ $doer = debian ] && echo 60 || echo 62) || die "$doer-xl mem-set"
        same list cmd
        same list -l cmd
    done
    # A domain without a name, as a toolstack that is killed can leave it.
    id=$(debian-xl domid cmd)
    xenstore-rm "/local/domain/$id/name"
    for list in list vcpu-list 'sched-credit2 -d'; do
        # shellcheck disable=SC2086
        same $list "$id"
    done
    for list in vm-list sched-credit2; do same $list; done
    same_code domname "$id"
    run_both uptime "$id"
    for who in debian oxen; do awk 'NR == 2 { exit !($1 == "(null)") }' /tmp/$who.out || complain "$who-xl uptime: $(cat /tmp/$who.out)"; done
    debian-xl destroy "$id" || die "destroy"
done
same info
same info -n
for line in xen xen_caps free_memory host; do same info $line; done
same sched-credit2 -s
same sched-credit2 -p Pool-0
same dmesg
same domid Domain-0
same domname 0

# The exit codes of wrong uses. Left out is what Debian's xl answers with 0 although it fails: pausing, unpausing or listing the
# vCPUs of a domain that is not there, a line of `xl info` or a command in `xl help` that does not exist.
same_code
same_code -V
same_code nonsense
same_code help
same_code help create
same_code -N list
for command in list pause unpause destroy shutdown reboot console vcpu-list domid domname; do same_code $command nosuch; done
for command in list destroy shutdown reboot console domname; do same_code $command 4321; done
for command in pause unpause destroy shutdown reboot console domid domname debug-keys create; do same_code $command; done
for command in list info dmesg pause shutdown create console; do
    same_code $command --nonsense
    same_code $command -h
done
same_code list -l 4321
same_code destroy 0
for command in rename mem-set mem-max vcpu-set block-attach network-detach block-detach sysrq trigger button-press; do
    same_code $command nosuch x
    same_code $command cmd
    same_code $command
done
for command in uptime channel-list network-list; do same_code $command nosuch; done
for command in vm-list claims uptime; do same_code $command; done
for command in channel-list block-list network-list network-attach config-update; do same_code $command; done
same_code trigger 0 nonsense
same_code button-press 0 nonsense
same_code sysrq 0 long
same_code mem-set 0 12x
same_code mem-max 0 12x
same_code vcpu-set 0 x
same_code vcpu-pin 0 x all
same_code sched-credit2 -w 5
same_code sched-credit2 -d 0 -w 0
same_code sched-credit2 -d 0 -c 100000
same_code sched-credit2 -d nosuch
same_code sched-credit2 -d 0 -p Pool-0
same_code sched-credit2 -p nosuch
same_code sched-credit2 -s -r 99
same_code -N vcpu-pin 0 0 nonsense
same -N vcpu-pin 0 0 0
same_code li
same_code list --lon
same_code create /nosuch.cfg
same_code create /tmp/cmd.cfg /tmp/cmd.cfg
same_code create /tmp/cmd.cfg 'kernel="/nosuch"'
same_code create /tmp/cmd.cfg 'memory=900000'
same_code create /tmp/cmd.cfg 'name = = 1'
[ $bad = 0 ] || die "the toolstacks differ"
