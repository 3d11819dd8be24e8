//! Which features guests may have: the allow-list with its reasons, what depends on what, and the policies made from them.
//!
//! A feature is offered when a guest can use it without the hypervisor's help, or when the hypervisor helps: state that it
//! needs is switched with the vCPU (XSAVE components), or its registers are emulated (APIC, MTRR, machine check). All
//! others are hidden, whatever they are: new processors bring features that nobody here has looked at.

use super::policy::{Answer, CpuPolicy, EXTENDED_BASE, EXTENDED_STATES, Featureset, WORDS};
use crate::domain::Role;
use public_abi::cpu_features::CpuFeature::{self, *};

/// Features that come with the instruction set, or with registers that `machine` switches or this module's siblings
/// emulate.
///
/// Not here, and why: MONITOR, MONITORX (would hold the physical CPU); SVM, SKINIT (no nesting yet); performance
/// counters, IBS, LWP, PQM, PQE (not switched); IBRS, STIBP, SSBD, IBPB (their MSRs are not switched); XSAVES (its
/// components would need compacted areas); CET, LA57 (not switched, not walked); DBEXT (address masks are not switched);
/// `TSC_DEADLINE`, `TSC_ADJUST` (AMD has none); TOPOEXT, HTT, `CMP_LEGACY` (each vCPU is shown as a package of its own, so
/// that APIC id 2n needs no explanation); OSVW, `NODEID_MSR`, WDT, EXTAPIC, ITSC (host matters; ITSC for the control domain
/// only, which does not move to other hosts).
const OFFERED: &[CpuFeature] = &[
    Fpu,
    Vme,
    De,
    Pse,
    Tsc,
    Msr,
    Pae,
    Mce,
    Cx8,
    Apic,
    Sep,
    Mtrr,
    Pge,
    Mca,
    Cmov,
    Pat,
    Pse36,
    Clflush,
    Mmx,
    Fxsr,
    Sse,
    Sse2,
    Sse3,
    Pclmulqdq,
    Ssse3,
    Fma,
    Cx16,
    Pcid,
    Sse41,
    Sse42,
    X2apic,
    Movbe,
    Popcnt,
    Aesni,
    Xsave,
    Avx,
    F16c,
    Rdrand,
    Hypervisor,
    Syscall,
    Nx,
    Mmxext,
    Ffxsr,
    Page1gb,
    Rdtscp,
    Lm,
    ThreeDnowExt,
    ThreeDnow,
    LahfLm,
    Cr8Legacy,
    Abm,
    Sse4a,
    Misalignsse,
    ThreeDnowPrefetch,
    Xop,
    Fma4,
    Tbm,
    Xsaveopt,
    Xsavec,
    Xgetbv1,
    Fsgsbase,
    Bmi1,
    Avx2,
    FdpExcpOnly,
    Smep,
    Bmi2,
    Erms,
    Invpcid,
    NoFpuSel,
    Avx512f,
    Avx512dq,
    Rdseed,
    Adx,
    Smap,
    Avx512Ifma,
    Clflushopt,
    Clwb,
    Avx512cd,
    Sha,
    Avx512bw,
    Avx512vl,
    Avx512Vbmi,
    Umip,
    Pku,
    Avx512Vbmi2,
    Gfni,
    Vaes,
    Vpclmulqdq,
    Avx512Vnni,
    Avx512Bitalg,
    Avx512Vpopcntdq,
    Rdpid,
    Clzero,
    RstrFpErrPtrs,
    NoLmsl,
    SsbNo,
    BtcNo,
    Fsrm,
    AvxVnni,
    Avx512Bf16,
    Fzrm,
    Fsrs,
    Fsrcs,
    LfenceDispatch,
    Nscb,
    SrsoNo,
];

/// Features that guests have whether the processor has them or not: the hypervisor makes them.
const EMULATED: &[CpuFeature] = &[Apic, X2apic, Hypervisor, NoLmsl];

/// Features that make no sense without another; those needed come before those that need them.
const NEEDS: &[(CpuFeature, CpuFeature)] = &[
    (X2apic, Apic),
    (Fxsr, Fpu),
    (Mmx, Fpu),
    (Ffxsr, Fxsr),
    (Sse, Fxsr),
    (Sse2, Sse),
    (Misalignsse, Sse),
    (Sse4a, Sse),
    (Lm, Sse2),
    (Lm, Pae),
    (Nx, Pae),
    (Page1gb, Lm),
    (LahfLm, Lm),
    (Pcid, Lm),
    (Cx16, Lm),
    (Invpcid, Pcid),
    (Fsgsbase, Lm),
    (Pku, Pae),
    (Sse3, Sse2),
    (Sha, Sse2),
    (Gfni, Sse2),
    (Aesni, Sse2),
    (Pclmulqdq, Sse2),
    (Ssse3, Sse3),
    (Sse41, Ssse3),
    (Sse42, Sse41),
    (Xsaveopt, Xsave),
    (Xsavec, Xsave),
    (Xgetbv1, Xsave),
    (Pku, Xsave),
    (Avx, Xsave),
    (Avx, Sse2),
    (Fma, Avx),
    (F16c, Avx),
    (Fma4, Avx),
    (Xop, Avx),
    (Avx2, Avx),
    (Vaes, Avx),
    (Vpclmulqdq, Avx),
    (AvxVnni, Avx2),
    (Avx512f, Avx2),
    (Avx512dq, Avx512f),
    (Avx512Ifma, Avx512f),
    (Avx512cd, Avx512f),
    (Avx512bw, Avx512f),
    (Avx512vl, Avx512f),
    (Avx512Vnni, Avx512f),
    (Avx512Vpopcntdq, Avx512f),
    (Avx512Vbmi, Avx512bw),
    (Avx512Vbmi2, Avx512bw),
    (Avx512Bitalg, Avx512bw),
    (Avx512Bf16, Avx512bw),
];

/// Bits that leaf 0x80000001 EDX repeats of leaf 1 EDX on AMD processors.
const REPEATED: u32 = 0x0183_f3ff;

fn mask_of(features: &[CpuFeature]) -> Featureset {
    let mut words = [0; WORDS];
    for feature in features {
        set(&mut words, *feature, true);
    }
    words
}

fn set(words: &mut Featureset, feature: CpuFeature, value: bool) {
    if let Some(word) = usize::try_from(feature.word()).ok().and_then(|index| words.get_mut(index)) {
        *word = if value { *word | feature.mask() } else { *word & !feature.mask() };
    }
}

fn get(words: &Featureset, feature: CpuFeature) -> bool {
    let word = usize::try_from(feature.word()).ok().and_then(|index| words.get(index));
    word.is_some_and(|word| word & feature.mask() != 0)
}

/// Takes away what lacks what it needs.
fn sanitise(words: &mut Featureset) {
    for (feature, needed) in NEEDS {
        if !get(words, *needed) {
            set(words, *feature, false);
        }
    }
}

impl CpuPolicy {
    /// What the hypervisor itself makes of the processor: the raw policy cut to leaves that are known.
    pub fn host(raw: &Self) -> Self {
        let mut policy = *raw;
        policy.limit_leaves();
        policy
    }

    /// The most that a guest of this host can have.
    pub fn maximum(raw: &Self) -> Self {
        let mut policy = Self::host(raw);
        let mut words = policy.featureset();
        for (word, offered) in words.iter_mut().zip(mask_of(OFFERED)) {
            *word &= offered;
        }
        for feature in EMULATED {
            set(&mut words, *feature, true);
        }
        sanitise(&mut words);
        policy.finish(&words, raw);
        policy
    }

    /// What a domain has unless the toolstack says otherwise.
    pub fn default_for(raw: &Self, role: Role) -> Self {
        let mut policy = Self::maximum(raw);
        if role == Role::Control && raw.has(Itsc) {
            let mut words = policy.featureset();
            set(&mut words, Itsc, true);
            policy.set_featureset(&words);
        }
        policy
    }

    fn limit_leaves(&mut self) {
        self.basic[0][0] = self.basic[0][0].min(self.basic.len() as u32 - 1);
        self.features[0][0] = self.features[0][0].min(self.features.len() as u32 - 1);
        let extended = self.extended[0][0] & 0xffff;
        self.extended[0][0] = EXTENDED_BASE | extended.min(self.extended.len() as u32 - 1);
    }

    /// Puts a featureset in and makes all other leaves agree with it, `host` giving the places of XSAVE components.
    fn finish(&mut self, words: &Featureset, host: &Self) {
        let mut words = *words;
        let repeated = words[0] & REPEATED;
        words[2] = words[2] & !REPEATED | repeated;
        self.set_featureset(&words);
        self.finish_states(host);
        self.finish_topology();
        // Monitor, power management, direct cache access, performance counters, quality of service: hidden.
        for leaf in [2, 3, 5, 6, 8, 9, 0xa, 0xc] {
            self.basic[leaf] = [0; 4];
        }
        // Vendor again, family again, and power management except for the feature word.
        self.extended[0] = [self.extended[0][0], self.basic[0][1], self.basic[0][2], self.basic[0][3]];
        self.extended[1][0] = self.basic[1][0];
        self.extended[7] = [0, 0, 0, self.extended[7][3]];
        // Bits of addresses: physical and linear only; what the host's nested paging could do is hidden.
        let linear = if self.has(Lm) { 48 } else { 32 };
        self.extended[8][0] = self.extended[8][0] & 0xff | linear << 8;
        // SVM, what processors keep secret, platform quality of service; TLB sizes and hints pass.
        for leaf in (9..=0x18).chain(0x1b..=0x20) {
            self.extended[leaf] = [0; 4];
        }
        if !self.has(Page1gb) {
            self.extended[0x19] = [0; 4];
        }
        self.extended[0x21] = [self.extended[0x21][0], 0, 0, 0];
    }

    /// Every vCPU is a package with one core and one thread. The APIC id is filled in when a vCPU asks.
    fn finish_topology(&mut self) {
        self.basic[1][0] &= 0x0fff_0fff;
        self.basic[1][1] &= 0x0000_ffff;
        self.caches = [[0; 4]; super::policy::CACHES];
        self.topology = [[0; 4]; super::policy::TOPOLOGY];
        self.extended[1][1] &= 0xf000_ffff;
        self.extended[8][2] = 0;
        self.extended[8][3] = 0;
    }

    /// Leaf 0xd follows from the features: which components there are, where they lie, how large all of them are.
    fn finish_states(&mut self, host: &Self) {
        let instructions = self.states[1][0];
        self.states = [[0; 4]; EXTENDED_STATES];
        if !self.has(Xsave) {
            return;
        }
        let by_feature = [(Avx, 0b100u64), (Avx512f, 0b1110_0000), (Pku, 1 << 9)];
        let allowed = by_feature.iter().filter(|(feature, _)| self.has(*feature));
        let states = allowed.fold(0b11, |all, (_, states)| all | states) & host.extended_states() | 0b11;
        let mut size = STATE_HEADER_END;
        for (number, (place, known)) in (0..).zip(self.states.iter_mut().zip(&host.states)).skip(2) {
            if states & 1 << number != 0 {
                // Size, offset, and in ECX whether a compacted area aligns it.
                let [bytes, offset, flags, _] = *known;
                *place = [bytes, offset, flags & 0b10, 0];
                size = size.max(offset.saturating_add(bytes));
            }
        }
        self.states[0] = [states as u32, 0, size, 0];
        self.states[1] = [instructions, 0, 0, 0];
    }

    /// Leaf 0xd.0 EBX: bytes of an area in standard format for these components.
    pub(super) fn standard_size(&self, states: u64) -> u32 {
        let components = (2..).zip(self.states.iter().skip(2)).filter(|(number, _)| states & 1 << number != 0);
        components.fold(STATE_HEADER_END, |size, (_, [bytes, offset, ..])| size.max(offset.saturating_add(*bytes)))
    }

    /// Leaf 0xd.1 EBX: bytes of an area in compacted format for these components.
    pub(super) fn compacted_size(&self, states: u64) -> u32 {
        let components = (2..).zip(self.states.iter().skip(2)).filter(|(number, _)| states & 1 << number != 0);
        components.fold(STATE_HEADER_END, |size, (_, [bytes, _, flags, _]): (u32, &Answer)| {
            let start = if flags & 0b10 != 0 { size.next_multiple_of(64) } else { size };
            start.saturating_add(*bytes)
        })
    }
}

/// Where the legacy area and the header of an XSAVE area end.
const STATE_HEADER_END: u32 = 576;

/// Cuts a policy that the toolstack wrote down to what `maximum` can give, and makes its leaves agree.
pub(super) fn clamp(policy: &mut CpuPolicy, maximum: &CpuPolicy) {
    let topology = (policy.basic[1][1] & 0x00ff_0000, policy.caches, policy.extended[8][2] & 0x0003_f0ff);
    let mut words = policy.featureset();
    // What says how vCPUs are grouped needs no help of the processor.
    let (threads, cores) = (get(&words, Htt), get(&words, CmpLegacy));
    // The control domain may have the invariant TSC, guests have it if the toolstack wants it: both only from the host.
    let steady_clock = get(&words, Itsc);
    for (word, allowed) in words.iter_mut().zip(maximum.featureset()) {
        *word &= allowed;
    }
    set(&mut words, Itsc, steady_clock && maximum.has(Itsc));
    set(&mut words, Htt, threads);
    set(&mut words, CmpLegacy, cores);
    for feature in [FdpExcpOnly, NoFpuSel, Hypervisor, NoLmsl] {
        set(&mut words, feature, maximum.has(feature));
    }
    if policy.basic_limit() < 0xd {
        set(&mut words, Xsave, false);
    }
    sanitise(&mut words);
    policy.limit_leaves();
    let bits =
        policy.physical_address_bits().clamp(36.min(maximum.physical_address_bits()), maximum.physical_address_bits());
    policy.extended[8][0] = policy.extended[8][0] & !0xff | bits;
    policy.finish(&words, maximum);
    // The toolstack's idea of how vCPUs are grouped holds; the size of a cache line is the processor's.
    policy.basic[1][1] = policy.basic[1][1] & !0xff00 | maximum.basic[1][1] & 0xff00 | topology.0;
    policy.extended[8][2] = topology.2;
    policy.caches = topology.1;
    policy.finish_caches();
}

impl CpuPolicy {
    /// AMD processors have no leaf 4; on others, entries end at the first that is none, and reserved bits are zero.
    fn finish_caches(&mut self) {
        let mut ended = self.is_amd();
        for answer in &mut self.caches {
            ended |= !matches!(answer[0] & 0x1f, 1..=3);
            *answer = if ended { [0; 4] } else { [answer[0] & 0xffff_c3ff, answer[1], answer[2], answer[3] & 7] };
        }
    }

    /// Whether leaf 0 names AMD or Hygon.
    fn is_amd(&self) -> bool {
        const AMD: u32 = u32::from_le_bytes(*b"Auth");
        const HYGON: u32 = u32::from_le_bytes(*b"Hygo");
        matches!(self.basic[0][1], AMD | HYGON)
    }
}
