#!/bin/sh
# dom0 sees the CPUs it was given, and the toolstack describes the machine and its one domain.
# shared: 120
# interop: --hypervisor xen --tools oxen
# checks: info list
. /oxen/lib.sh

xl info || die "xl info ended with status $?"
xl list || die "xl list ended with status $?"
caps=$(xl info xen_caps)
case $caps in
*hvm-3.0-x86_64*) ;;
*) die "no 64-bit guests in xen_caps: $caps" ;;
esac
case $(xl info virt_caps) in
*hvm*hap*) ;;
*) die "no nested paging in virt_caps: $(xl info virt_caps)" ;;
esac
[ "$(xl info xen_version | cut -d. -f1,2)" = 4.17 ] || die "not the ABI of Xen 4.17: $(xl info xen_version)"

domains=$(xl list | awk 'NR > 1 { print $1 }')
[ "$domains" = Domain-0 ] || die "expected Domain-0 alone, got: $domains"

# dom0 has as many vCPUs as the hypervisor's command line gives it.
wanted=$(xl info xen_commandline | sed 's/.*dom0_max_vcpus=\([0-9]*\).*/\1/')
[ "$(nproc)" = "$wanted" ] || die "dom0 has $(nproc) CPUs instead of $wanted"
[ "$(xl vcpu-list Domain-0 | awk 'NR > 1' | wc -l)" = "$wanted" ] || die "xl vcpu-list does not show $wanted vCPUs"

xl dmesg | grep -q 'Xen version\|Command line' || die "xl dmesg does not show the hypervisor's first messages"
