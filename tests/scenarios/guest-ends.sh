#!/bin/sh
# A guest that restarts, powers off or crashes by itself is treated as its configuration says.
# shared: 700
# tiny: hello
# tiny: crash
# tiny: spin
# tiny: triple_fault
# tiny: watchdog
# interop: --hypervisor xen --tools oxen
. /oxen/lib.sh

# Linux with two vCPUs restarts and then powers off.
config again - 'vcpus = 2'
xl create /tmp/again.cfg || die "create again"
wait_for 200 'GUEST-READY.*cpus=2' "$(console_log again)" || die "no greeting of again"
first=$(xl domid again)
type_into again /sbin/reboot
restarted() { id=$(xl domid again 2> /dev/null) && [ "$id" != "$first" ]; }
wait_until 120 restarted || die "a guest that restarted has no new domain"
greetings() { [ "$(grep -a -c GUEST-READY "$(console_log again)")" = 2 ]; }
wait_until 250 greetings || die "the restarted guest does not come up"
type_into again /sbin/poweroff
wait_until 120 gone again || die "a guest that powered off is still there"

# Linux crashes and is kept under another name beside its successor.
config kept crash 'on_crash = "rename-restart"'
xl create /tmp/kept.cfg || die "create kept"
renamed() { xl list | awk '{ print $1 }' | grep -q '^kept-20[0-9]*T[0-9]*Z$'; }
wait_until 250 renamed || die "the crashed guest was not renamed"
grep -q 'Kernel panic' "$(console_log kept)" || die "the crashed guest's console does not tell why"
old=$(xl list | awk '$1 ~ /^kept-/ { print $1 }')
case $(state "$old") in *sc*) ;; *) die "a crashed guest is not shown as crashed: $(state "$old")" ;; esac
succeeded() { xl domid kept > /dev/null 2>&1; }
wait_until 60 succeeded || die "the crashed guest has no successor"
xl destroy "$old" || die "the renamed domain cannot be destroyed by its name"
xl destroy kept || die "destroy kept"

# Each end with each action, with guests that live for a moment.
ends() { # PROGRAM EVENT REASON-LETTER
    tiny_config end "$1" "on_$2 = \"destroy\""
    xl create -q /tmp/end.cfg || die "create $1 with on_$2=destroy"
    wait_until 60 gone end || die "$1: still there with on_$2=destroy"

    tiny_config end "$1" "on_$2 = \"preserve\""
    xl create -q /tmp/end.cfg || die "create $1 with on_$2=preserve"
    stopped() { case $(state end) in *s*) ;; *) false ;; esac; }
    wait_until 60 stopped || die "$1: not shown as shut down with on_$2=preserve"
    case $(state end) in ---s"$3"-) ;; *) die "$1: state $(state end) with on_$2=preserve" ;; esac
    xl destroy end || die "destroy $1"
}
ends hello poweroff -
ends triple_fault reboot r
ends crash crash c
ends watchdog watchdog w

# A crashed guest's memory is in a file before its domain goes. By our xl only: on Oxen, Debian's had not come to an end with this
# after two minutes.
if [ "$(readlink /usr/local/bin/xl)" = /usr/local/bin/oxen-xl ]; then
    mkdir -p /var/lib/xen/dump
    tiny_config end crash 'on_crash = "coredump-destroy"'
    xl create -q /tmp/end.cfg || die "create crash with on_crash=coredump-destroy"
    wait_until 120 gone end || die "a crashed guest whose core is dumped is still there"
    dump=/var/lib/xen/dump/end
    [ "$(dd if=$dump bs=1 skip=1 count=3 2> /dev/null)" = ELF ] || die "no core dump: $(cat /var/log/xen/xl-end.log)"
    [ "$(wc -c < $dump)" -gt $((60 << 20)) ] || die "the dump is too small for the guest's memory: $(ls -l $dump)"
    # A text of the guest's program.
    grep -a -q 'GUEST-INFO panic at' $dump || die "the dump does not hold the guest's memory"
    rm $dump
fi

# Who powers off can be restarted, too. The successor is destroyed while it runs, not at its end or its beginning, where its
# monitor is at work on it; the monitor sees it and ends.
tiny_config end spin 'cmdline = "seconds=5"' 'on_poweroff = "restart"'
xl create -q /tmp/end.cfg || die "create with on_poweroff=restart"
first=$(xl domid end)
runs_again() {
    id=$(xl domid end 2> /dev/null) && [ "$id" != "$first" ] && case $(state end) in *p* | *s* | *d* | '') false ;; esac
}
wait_until 120 runs_again || die "a guest that powered off is not restarted"
xl destroy end || die "destroy the restarted guest"
no_monitor() { ! ps | grep -q '[m]onitor-domain\|[x]l create'; }
wait_until 60 no_monitor || die "the monitor does not end: $(cat /var/log/xen/xl-end.log)"
