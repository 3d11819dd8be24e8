//! The local APIC's two modes and the base register that switches between them (AMD APM volume 2, 16.3.1 and 16.9).
//!
//! Pure. `x86::apic` uses the boot processor's mode for all: the hypervisor speaks to every APIC in one way.

/// APIC_BASE: the registers are MSRs (x2APIC).
const EXTENDED: u64 = 1 << 10;
/// APIC_BASE: the APIC works at all.
const ENABLED: u64 = 1 << 11;
/// APIC_BASE: where the register page is.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// How an APIC's registers are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Through a page of memory at this address; APIC ids have 8 bits.
    Page(u64),
    /// Through MSRs; APIC ids have 32 bits.
    Registers,
}

impl Mode {
    /// The mode that a processor with this APIC_BASE is in, or shall be in because it is in none.
    pub const fn of(base: u64) -> Self {
        if base & EXTENDED != 0 { Self::Registers } else { Self::Page(base & ADDRESS) }
    }

    /// Whether a message can be addressed to this processor alone. The largest id of each mode means all of them.
    pub const fn reaches(self, apic_id: u32) -> bool {
        match self {
            Self::Page(_) => apic_id < 0xff,
            Self::Registers => apic_id < u32::MAX,
        }
    }

    /// What to write to APIC_BASE, in order, so that a processor where it reads `now` is in this mode. There is no way from
    /// MSRs to the page but through the disabled state, and none from there to MSRs but through the page.
    pub fn writes(self, now: u64) -> heapless::Vec<u64, 2> {
        let other = now & !(EXTENDED | ENABLED | ADDRESS);
        let state = now & (EXTENDED | ENABLED);
        let (steps, address): (&[u64], u64) = match self {
            Self::Page(address) if state == ENABLED && now & ADDRESS == address => (&[], address),
            Self::Page(address) if state & EXTENDED == 0 => (&[ENABLED], address),
            Self::Page(address) => (&[0, ENABLED], address),
            Self::Registers if state == ENABLED | EXTENDED => (&[], 0),
            Self::Registers if state == ENABLED => (&[ENABLED | EXTENDED], now & ADDRESS),
            Self::Registers => (&[ENABLED, ENABLED | EXTENDED], now & ADDRESS),
        };
        steps.iter().map(|bits| other | bits | address).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: Mode = Mode::Page(0xfee0_0000);

    #[test]
    fn ids_that_mean_all_processors_reach_none() {
        assert!(PAGE.reaches(0) && PAGE.reaches(0xfe));
        assert!(!PAGE.reaches(0xff) && !PAGE.reaches(0x100) && !PAGE.reaches(0x101));
        assert!(Mode::Registers.reaches(0xff) && Mode::Registers.reaches(0x1_0000));
        assert!(!Mode::Registers.reaches(u32::MAX));
    }

    #[test]
    fn every_step_is_one_that_the_processor_takes() {
        for mode in [PAGE, Mode::Registers] {
            for start in [0xfee0_0000u64, 0xfee0_0100, 0xfee0_0800, 0xfee0_0c00, 0xfed0_0900] {
                let mut now = start;
                for next in mode.writes(start) {
                    let bits = |base: u64| (base & ENABLED != 0, base & EXTENDED != 0);
                    let is_refused = matches!(
                        (bits(now), bits(next)),
                        (_, (false, true)) | ((true, true), (true, false)) | ((false, false), (true, true))
                    );
                    assert!(!is_refused, "{now:#x} to {next:#x}");
                    now = next;
                }
                assert_eq!(now & ENABLED, ENABLED, "{start:#x}");
                assert_eq!(now & 0x100, start & 0x100, "whether it is the boot processor is not ours");
                match mode {
                    Mode::Page(address) => assert_eq!((now & EXTENDED, now & ADDRESS), (0, address)),
                    Mode::Registers => assert_eq!(now & EXTENDED, EXTENDED),
                }
                assert_eq!(Mode::of(now), if mode == PAGE { PAGE } else { Mode::Registers });
            }
        }
    }

    #[test]
    fn who_is_there_already_is_left_alone() {
        assert!(PAGE.writes(0xfee0_0900).is_empty());
        assert!(Mode::Registers.writes(0xfee0_0c00).is_empty());
    }
}
