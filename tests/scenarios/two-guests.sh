#!/bin/sh
# Two guests run beside each other, one of them busy; both stay reachable and dom0 is not starved.
# run: --timeout 500
. /oxen/lib.sh

sed -e 's/^name = .*/name = "one"/' -e 's/console=hvc0/console=hvc0 oxen.then=tick/' /guest/pvh.cfg > /tmp/one.cfg
sed -e 's/^name = .*/name = "two"/' /guest/pvh.cfg > /tmp/two.cfg
xl create /tmp/one.cfg || die "create one"
xl create /tmp/two.cfg || die "create two"
wait_for 180 GUEST-READY "$(console_log one)" || die "no greeting of one"
wait_for 180 GUEST-READY "$(console_log two)" || die "no greeting of two"
# A loop without end on the second guest's only vCPU.
type_into two 'while :; do :; done'
wait_for 60 'while :; do' "$(console_log two)" || die "the second guest takes no input"
ticks=$(grep -a -c GUEST-TICK "$(console_log one)")
wait_for 120 "GUEST-TICK $((ticks + 3))" "$(console_log one)" || die "the first guest stands still beside a busy one"
xl list
xl destroy two || die "destroy two"
xl shutdown -w one || xl destroy one || die "end of one"
wait_until 60 gone one || die "one is still there"
