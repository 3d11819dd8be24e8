#!/bin/sh
# Two guests run beside each other, one of them busy; both stay reachable and dom0 is not starved. One shutdown ends both.
# shared: 500
# interop: --hypervisor xen --tools oxen
# checks: create list shutdown
. /oxen/lib.sh

config one tick
config two -
xl create /tmp/one.cfg || die "create one"
xl create /tmp/two.cfg || die "create two"
wait_for 250 GUEST-READY "$(console_log one)" || die "no greeting of one"
wait_for 250 GUEST-READY "$(console_log two)" || die "no greeting of two"
# A loop on the second guest's only vCPU, until it is told to stop.
type_into two 'echo BUSY; until [ -e /stop ]; do :; done & sleep 1000'
wait_for 60 '^BUSY' "$(console_log two)" || die "the second guest takes no input"
ticks=$(grep -a -c GUEST-TICK "$(console_log one)")
wait_for 120 "GUEST-TICK $((ticks + 3))" "$(console_log one)" || die "the first guest stands still beside a busy one"
xl list
xl shutdown -a -w || die "xl shutdown -a -w ended with status $?"
wait_until 60 gone one || die "one is still there"
wait_until 60 gone two || die "two is still there"
