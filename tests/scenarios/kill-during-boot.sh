#!/bin/sh
# A guest is destroyed at different moments of its boot; dom0 and the next guest do not notice.
# shared: 400
# interop: --hypervisor xen --tools oxen
# checks: create list destroy
. /oxen/lib.sh
log=$(console_log guest)

# The first moment is the earliest: the guest has just been started.
for moment in '' 'Linux version' 'Freeing unused kernel image'; do
    rm -f "$log"
    xl create /guest/pvh.cfg > /dev/null || die "create before '$moment'"
    [ -z "$moment" ] || wait_for 200 "$moment" "$log" || die "the guest did not reach '$moment'"
    xl destroy guest || die "destroy at '$moment'"
    wait_until 60 gone guest || die "still there after '$moment'"
done
[ "$(xl list | awk 'NR > 1' | wc -l)" = 1 ] || die "a domain was left over"
