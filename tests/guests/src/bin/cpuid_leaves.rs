//! CPUID: the hypervisor's leaves, topology, and what a guest must not be shown.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::{Test, environment, println};
    use public_abi::Hypercall;
    use public_abi::version::VersionOp;
    use public_abi::x86::cpuid::{
        FIRST_LEAF, HvmFeatures, LEAF_HVM, LEAF_HYPERCALL, LEAF_TIME, LEAF_VERSION, MSR_HYPERCALL_PAGE,
    };

    guests::guest!("cpuid_leaves", run);

    fn run(test: &mut Test) {
        hypervisor(test);
        processor(test);
        topology(test);
        beyond(test);
    }

    fn hypervisor(test: &mut Test) {
        test.equal("base", environment::xen_leaves(), Some(FIRST_LEAF));
        let [last, ..] = rt::cpuid(FIRST_LEAF, 0);
        test.check("last leaf", (FIRST_LEAF + 4..FIRST_LEAF + 0x100).contains(&last), format_args!("{last:#x}"));
        let [version, b, c, d] = rt::cpuid(FIRST_LEAF + LEAF_VERSION, 0);
        let by_call = guests::call::raw(Hypercall::XenVersion, [u64::from(VersionOp::Version.number()), 0, 0, 0, 0]);
        test.equal("version as xen_version says", i64::from(version), by_call);
        test.equal("rest of the version leaf", [b, c, d], [0; 3]);
        let [pages, msr, features, more] = rt::cpuid(FIRST_LEAF + LEAF_HYPERCALL, 0);
        test.equal("hypercall pages", pages, 1);
        test.equal("hypercall MSR", msr, MSR_HYPERCALL_PAGE);
        test.equal("features of PV only", [features & !1, more], [0; 2]);
        let time: [[u32; 4]; 4] = core::array::from_fn(|subleaf| rt::cpuid(FIRST_LEAF + LEAF_TIME, subleaf as u32));
        println!("GUEST-INFO time leaves {time:x?}");
        let [[_, mode, khz, _], ..] = time;
        test.check("time mode", mode <= 3, mode);
        test.check("TSC kHz", (100_000..10_000_000).contains(&khz), khz);
        let [_, [_, _, scale, _], [host_khz, ..], none] = time;
        test.holds("scale of the TSC", scale != 0);
        test.check("host's kHz", host_khz.abs_diff(khz) <= 1, host_khz);
        test.equal("no fourth time leaf", none, [0; 4]);
        let [flags, vcpu, domain, _] = rt::cpuid(FIRST_LEAF + LEAF_HVM, 0);
        println!("GUEST-INFO hvm leaf flags {flags:#x} vcpu {vcpu} domain {domain}");
        let flags = HvmFeatures::from_bits_retain(flags);
        test.holds("IOMMU mappings", flags.contains(HvmFeatures::IOMMU_MAPPINGS));
        test.holds("vCPU number present", flags.contains(HvmFeatures::VCPU_ID_PRESENT) && vcpu == 0);
        test.holds("domain identifier present", flags.contains(HvmFeatures::DOMID_PRESENT));
        test.equal("control domain is 0", domain == 0, guests::role() == guests::Role::Control);
        test.holds("upcall vectors", flags.contains(HvmFeatures::UPCALL_VECTOR));
    }

    fn processor(test: &mut Test) {
        let [_, b, c, d] = rt::cpuid(0, 0);
        test.equal("AuthenticAMD", [b, d, c], [0x6874_7541, 0x6974_6e65, 0x444d_4163]);
        let [_, b, c, d] = rt::cpuid(1, 0);
        test.holds("hypervisor bit", c >> 31 & 1 == 1);
        test.holds("no MONITOR", c >> 3 & 1 == 0);
        test.holds("no VMX", c >> 5 & 1 == 0);
        test.holds("APIC on", d >> 9 & 1 == 1);
        test.holds("x2APIC", c >> 21 & 1 == 1);
        test.holds("no TSC-deadline without support", c >> 24 & 1 == 0);
        test.equal("initial APIC identifier of vCPU 0", b >> 24, 0);
        test.equal("no OSXSAVE before CR4 says so", c >> 27 & 1, 0);
        let cr4 = rt::cr4();
        if c >> 26 & 1 == 1 {
            rt::set_cr4(cr4 | 1 << 18);
            let [_, _, c, _] = rt::cpuid(1, 0);
            test.equal("OSXSAVE follows CR4", c >> 27 & 1, 1);
            rt::set_cr4(cr4);
            let [_, _, c, _] = rt::cpuid(1, 0);
            test.equal("OSXSAVE follows CR4 back", c >> 27 & 1, 0);
        }
        let [largest, ..] = rt::cpuid(0x8000_0000, 0);
        test.check("extended leaves", (0x8000_0008..0x8000_0100).contains(&largest), format_args!("{largest:#x}"));
        let [_, _, c, d] = rt::cpuid(0x8000_0001, 0);
        test.holds("long mode, NX", d >> 29 & 1 == 1 && d >> 20 & 1 == 1);
        test.holds("no SVM", c >> 2 & 1 == 0);
        test.equal("no SVM leaf", rt::cpuid(0x8000_000a, 0), [0; 4]);
        let [sizes, ..] = rt::cpuid(0x8000_0008, 0);
        test.check(
            "address sizes",
            (36..=52).contains(&(sizes & 0xff)) && sizes >> 8 & 0xff == 48,
            format_args!("{sizes:#x}"),
        );
        let [_, _, _, d] = rt::cpuid(0x8000_0007, 0);
        println!("GUEST-INFO invariant TSC {}", d >> 8 & 1);
    }

    fn topology(test: &mut Test) {
        let [_, _, c, d] = rt::cpuid(1, 0);
        println!("GUEST-INFO leaf 1 ecx {c:#x} edx {d:#x}, leaf b {:x?}", rt::cpuid(0xb, 0));
        println!(
            "GUEST-INFO leaf 80000008 {:x?} leaf 8000001e {:x?}",
            rt::cpuid(0x8000_0008, 0),
            rt::cpuid(0x8000_001e, 0)
        );
        let [xcr0_low, _, size, xcr0_high] = rt::cpuid(0xd, 0);
        println!("GUEST-INFO xsave areas {xcr0_high:#x}:{xcr0_low:#x} {size} bytes");
        test.holds("x87 and SSE states", xcr0_low & 3 == 3 && size >= 576);
    }

    fn beyond(test: &mut Test) {
        let [last, ..] = rt::cpuid(0, 0);
        println!("GUEST-INFO last basic leaf {last:#x}, beyond {:x?}", rt::cpuid(last + 1, 0));
        test.equal("basic leaf beyond the last", rt::cpuid(last + 1, 0), [0; 4]);
        test.equal("extended leaf beyond the last", rt::cpuid(0x8000_0fff, 0), [0; 4]);
        test.equal("hypervisor leaf beyond the last", rt::cpuid(FIRST_LEAF + 0x80, 0), [0; 4]);
        test.equal("nothing at 0x40000100", rt::cpuid(FIRST_LEAF + 0x100, 0), [0; 4]);
        test.equal("nothing at 0x20000000", rt::cpuid(0x2000_0000, 0), [0; 4]);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
