#!/bin/sh
# A guest that powers off, restarts or crashes by itself is treated as its configuration says.
# run: --timeout 600
. /oxen/lib.sh

make_config() { # NAME WHAT-THEN MORE-LINES...
    sed -e "s/^name = .*/name = \"$1\"/" -e "s/console=hvc0/console=hvc0 oxen.then=$2/" /guest/pvh.cfg > "/tmp/$1.cfg"
    name=$1
    shift 2
    for line in "$@"; do echo "$line" >> "/tmp/$name.cfg"; done
}

make_config off poweroff
xl create /tmp/off.cfg || die "create off"
wait_for 120 GUEST-READY "$(console_log off)" || die "no greeting of off"
wait_until 60 gone off || die "a guest that powered off is still there"

make_config again nothing 'on_reboot = "restart"'
xl create /tmp/again.cfg || die "create again"
wait_for 120 GUEST-READY "$(console_log again)" || die "no greeting of again"
first=$(xl domid again)
type_into again /sbin/reboot
restarted() { id=$(xl domid again 2> /dev/null) && [ "$id" != "$first" ]; }
wait_until 120 restarted || die "a guest that restarted has no new domain"
greetings() { [ "$(grep -a -c GUEST-READY "$(console_log again)")" = 2 ]; }
wait_until 180 greetings || die "the restarted guest does not come up"
xl destroy again || die "destroy again"
wait_until 60 gone again || die "again is still there after its destruction"

make_config kept crash 'on_crash = "preserve"'
xl create /tmp/kept.cfg || die "create kept"
crashed() { xl list kept | awk 'NR == 2 { print $5 }' | grep -q c; }
wait_until 120 crashed || die "a crashed guest is not shown as crashed"
xl destroy kept || die "destroy kept"

make_config broken crash 'on_crash = "destroy"'
xl create /tmp/broken.cfg || die "create broken"
wait_for 120 'Kernel panic' "$(console_log broken)" || die "the guest did not crash"
wait_until 60 gone broken || die "a crashed guest with on_crash=destroy is still there"
