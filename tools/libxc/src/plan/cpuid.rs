//! The CPUID policy of a PVH guest: changes to what the hypervisor gives every such guest by default.
//!
//! What libxl's `xc_cpuid_apply_policy` does for a guest without `cpuid=`: the topology says that a vCPU's APIC id is twice
//! its number, virtualization is hidden, and an invariant TSC is shown only where it stays true. Pure; the build step reads
//! the default policy, passes it through [`adjust`] and writes it back.

use public_abi::cpu_policy::CpuidLeaf as Leaf;

/// Changes the default policy for a PVH guest.
pub fn adjust(leaves: &mut [Leaf], invariant_tsc: bool) {
    let amd = leaves.iter().any(|leaf| leaf.leaf == 0 && is_amd(leaf));
    for leaf in leaves {
        match leaf.leaf {
            1 => basic(leaf),
            4 if !amd => cache_topology(leaf),
            // AMD's CmpLegacy (bit 1) would contradict HTT; SVM is bit 2.
            0x8000_0001 => leaf.c &= !(1 << 1 | 1 << 2),
            0x8000_0007 => leaf.d = leaf.d & !(1 << 8) | u32::from(invariant_tsc) << 8,
            0x8000_0008 if amd => core_count(leaf),
            _ => {}
        }
    }
}

/// "AuthenticAMD" or "HygonGenuine", in the order EBX, EDX, ECX.
fn is_amd(leaf: &Leaf) -> bool {
    let name: Vec<u8> = [leaf.b, leaf.d, leaf.c].iter().flat_map(|part| part.to_le_bytes()).collect();
    name == b"AuthenticAMD" || name == b"HygonGenuine"
}

/// Leaf 1: HTT and PAE on, VMX off, and twice as many logical processors per package.
fn basic(leaf: &mut Leaf) {
    leaf.d |= 1 << 28 | 1 << 6;
    leaf.c &= !(1 << 5);
    let count = leaf.b >> 16 & 0xff;
    let count = match count {
        0 => 2,
        1..=0x7f => count * 2,
        _ => count,
    };
    leaf.b = leaf.b & !(0xff << 16) | count << 16;
}

/// Leaf 4 (Intel): APIC ids per package doubled, none shared by cache.
fn cache_topology(leaf: &mut Leaf) {
    if leaf.a & 0x1f != 0 {
        let cores = (leaf.a >> 26) << 1 | 1;
        leaf.a = leaf.a & 0x0000_3fff | (cores & 0x3f) << 26;
    }
}

/// Leaf 0x80000008 (AMD): number of cores and size of the core's part of the APIC id. The size stays at 7 or less, which
/// some guests cannot do with more than, and stays 0, which means that the count tells it all.
fn core_count(leaf: &mut Leaf) {
    let cores = leaf.c & 0xff;
    let size = leaf.c >> 12 & 0xf;
    if cores < 0x7f {
        let size = if (1..7).contains(&size) { size + 1 } else { size };
        leaf.c = leaf.c & !0xf0ff | (cores << 1 | 1) | size << 12;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amd() -> Leaf {
        let part = |text: &[u8; 4]| u32::from_le_bytes(*text);
        Leaf { leaf: 0, subleaf: !0, a: 0x10, b: part(b"Auth"), c: part(b"cAMD"), d: part(b"enti") }
    }

    #[test]
    fn an_amd_guest_sees_doubled_apic_ids_and_no_svm() {
        let one = Leaf { leaf: 1, b: 4 << 16 | 0x0800, c: 1 << 5 | 1, ..Leaf::default() };
        let extended = Leaf { leaf: 0x8000_0001, c: 0b111, ..Leaf::default() };
        let power = Leaf { leaf: 0x8000_0007, d: 1 << 8, ..Leaf::default() };
        let size = Leaf { leaf: 0x8000_0008, c: 2 << 12 | 3, ..Leaf::default() };
        let mut leaves = [amd(), one, extended, power, size];
        adjust(&mut leaves, false);
        assert_eq!((leaves[1].b, leaves[1].c, leaves[1].d), (8 << 16 | 0x0800, 1, 1 << 28 | 1 << 6));
        assert_eq!(leaves[2].c, 0b001);
        assert_eq!(leaves[3].d, 0);
        assert_eq!(leaves[4].c, 3 << 12 | 7);
        adjust(&mut leaves, true);
        assert_eq!(leaves[3].d, 1 << 8);
    }

    #[test]
    fn counts_stay_in_their_fields() {
        let mut leaves = [
            amd(),
            Leaf { leaf: 1, b: 0xff << 16, ..Leaf::default() },
            Leaf { leaf: 0x8000_0008, c: 7 << 12 | 0x7f, ..Leaf::default() },
        ];
        adjust(&mut leaves, false);
        assert_eq!(leaves[1].b, 0xff << 16);
        assert_eq!(leaves[2].c, 7 << 12 | 0x7f);
        let mut intel = [Leaf { leaf: 4, a: 0x3f << 26 | 0xfff << 14 | 0x121, ..Leaf::default() }];
        adjust(&mut intel, false);
        assert_eq!(intel[0].a, 0x3f << 26 | 0x121);
    }
}
