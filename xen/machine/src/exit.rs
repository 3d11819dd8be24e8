//! Why a vCPU stopped running: what the run loop of the core switches on.
//!
//! Causes that every architecture has are neutral; the rest is `X86(..)`. The decoding of a VMCB into an `Exit` is pure and
//! happens here, so that it is tested without hardware.

use crate::codec::vmcb::{Control, exit};
use crate::units::Gpa;

/// Why the guest stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The guest executed the hypercall instruction of this machine; arguments are in its registers.
    Hypercall,
    /// A stage-2 (nested) translation was missing or did not allow the access.
    Stage2Fault(Access),
    /// A physical interrupt came and has been handled; look at the CPU's pending work.
    Interrupt,
    /// The guest waits for an interrupt.
    Halt,
    /// The guest spins.
    Pause,
    /// The guest can now take an interrupt that was waiting for that.
    InterruptWindow,
    /// The guest cannot go on (x86: triple fault).
    Shutdown,
    /// The hardware refused the vCPU's state.
    Invalid,
    /// What only x86 has.
    X86(X86Exit),
}

/// A guest access that stage 2 stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The guest physical address.
    pub gpa: Gpa,
    /// What the guest tried.
    pub kind: AccessKind,
    /// Whether a translation was there and its rights were the reason.
    pub cause: AccessCause,
    /// Whether the guest's own page-table walk made the access, rather than its final address.
    pub stage: AccessStage,
}

/// What a guest tried to do with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "self-explaining")]
pub enum AccessKind {
    Read,
    Write,
    Execute,
}

/// Why stage 2 stopped an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessCause {
    /// No translation.
    NotPresent,
    /// A translation that does not allow it.
    Rights,
}

/// Which step of the guest's access stage 2 stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessStage {
    /// The guest's own page-table walk.
    TableWalk,
    /// The access itself.
    Final,
}

/// Exits that only x86 has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum X86Exit {
    /// CPUID.
    Cpuid,
    /// RDMSR; the number is in ECX.
    MsrRead,
    /// WRMSR; the number is in ECX, the value in EDX:EAX.
    MsrWrite,
    /// IN, OUT, INS or OUTS.
    Port(PortAccess),
    /// A write to a control register; `operand` is EXITINFO1.
    CrWrite {
        /// Which control register.
        number: u8,
        /// Decode information, if the processor gives it.
        operand: u64,
    },
    /// An access to a debug register.
    DebugRegister {
        /// Which debug register.
        number: u8,
        /// Whether it was a write.
        write: bool,
    },
    /// An exception that the hypervisor intercepts.
    Exception {
        /// The vector, 0 to 31.
        vector: u8,
        /// The error code, if that exception has one.
        error_code: u32,
        /// The faulting address of a page fault.
        address: u64,
    },
    /// XSETBV.
    Xsetbv,
    /// WBINVD or INVD.
    CacheFlush,
    /// An instruction that this guest must not have: it gets an invalid-opcode exception.
    Forbidden,
    /// A task switch.
    TaskSwitch,
    /// A code that nobody asked to intercept.
    Unknown(u32),
}

/// A port access (APM volume 2, 15.10.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAccess {
    /// The first port.
    pub port: u16,
    /// Bytes: 1, 2 or 4.
    pub size: u8,
    /// From the guest to the port.
    pub write: bool,
    /// INS or OUTS.
    pub string: bool,
    /// With a repeat prefix.
    pub repeat: bool,
    /// The address of the next instruction.
    pub next_rip: u64,
}

impl PortAccess {
    fn decode(info: u64, next_rip: u64) -> Self {
        let size = match info >> 4 & 7 {
            1 => 1,
            2 => 2,
            _ => 4,
        };
        Self {
            port: (info >> 16 & 0xffff) as u16,
            size,
            write: info & 1 == 0,
            string: info & 1 << 2 != 0,
            repeat: info & 1 << 3 != 0,
            next_rip,
        }
    }
}

/// Error-code bits of a nested page fault (EXITINFO1; APM volume 2, 15.25.6).
mod npf {
    pub(super) const PRESENT: u64 = 1 << 0;
    pub(super) const WRITE: u64 = 1 << 1;
    pub(super) const FETCH: u64 = 1 << 4;
    pub(super) const TABLE_WALK: u64 = 1 << 33;
}

impl Exit {
    /// What the exit that a VMCB describes means.
    #[inline(always)]
    pub fn decode(control: &Control) -> Self {
        let code = (control.exit_code & 0xffff_ffff) as u32;
        match code {
            exit::VMMCALL => Self::Hypercall,
            exit::NPF => Self::Stage2Fault(decode_fault(control)),
            exit::INTR | exit::NMI | exit::SMI => Self::Interrupt,
            exit::CPUID => Self::X86(X86Exit::Cpuid),
            exit::MSR if control.exit_info_1 & 1 == 0 => Self::X86(X86Exit::MsrRead),
            exit::MSR => Self::X86(X86Exit::MsrWrite),
            exit::IOIO => Self::X86(X86Exit::Port(PortAccess::decode(control.exit_info_1, control.exit_info_2))),
            exit::HLT => Self::Halt,
            exit::PAUSE => Self::Pause,
            exit::VINTR => Self::InterruptWindow,
            exit::SHUTDOWN => Self::Shutdown,
            exit::INVALID => Self::Invalid,
            _ => Self::X86(decode_rare(code, control)),
        }
    }
}

fn decode_fault(control: &Control) -> Access {
    let info = control.exit_info_1;
    Access {
        gpa: Gpa::new(control.exit_info_2),
        kind: match () {
            () if info & npf::FETCH != 0 => AccessKind::Execute,
            () if info & npf::WRITE != 0 => AccessKind::Write,
            () => AccessKind::Read,
        },
        cause: if info & npf::PRESENT == 0 { AccessCause::NotPresent } else { AccessCause::Rights },
        stage: if info & npf::TABLE_WALK == 0 { AccessStage::Final } else { AccessStage::TableWalk },
    }
}

fn decode_rare(code: u32, control: &Control) -> X86Exit {
    let low = (code & 0xf) as u8;
    match code {
        exit::CR_WRITE..=0x1f => X86Exit::CrWrite { number: low, operand: control.exit_info_1 },
        exit::DR_READ..=0x2f => X86Exit::DebugRegister { number: low, write: false },
        exit::DR_WRITE..=0x3f => X86Exit::DebugRegister { number: low, write: true },
        exit::EXCEPTION..=0x5f => X86Exit::Exception {
            vector: (code - exit::EXCEPTION) as u8,
            error_code: (control.exit_info_1 & 0xffff_ffff) as u32,
            address: control.exit_info_2,
        },
        exit::XSETBV => X86Exit::Xsetbv,
        exit::WBINVD | exit::INVD => X86Exit::CacheFlush,
        exit::TASK_SWITCH => X86Exit::TaskSwitch,
        exit::VMRUN | exit::VMLOAD..=exit::SKINIT | exit::INVLPGA | exit::RDPMC | exit::RDPRU => X86Exit::Forbidden,
        exit::MONITOR | exit::MWAIT | exit::MWAIT_ARMED => X86Exit::Forbidden,
        _ => X86Exit::Unknown(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::vmcb::Vmcb;

    fn left(code: u64, info_1: u64, info_2: u64) -> Control {
        let mut control = Vmcb::ZERO.control;
        (control.exit_code, control.exit_info_1, control.exit_info_2) = (code, info_1, info_2);
        control
    }

    #[test]
    fn a_refused_vmcb_is_known_by_its_low_half() {
        assert_eq!(Exit::decode(&left(0x0000_0000_ffff_ffff, 0, 0)), Exit::Invalid);
        assert_eq!(Exit::decode(&left(u64::MAX, 0, 0)), Exit::Invalid);
    }

    #[test]
    fn port_accesses_are_taken_apart() {
        // OUT dx, al at port 0x3f8: size bit 4, direction 0.
        let exit = Exit::decode(&left(0x7b, 0x3f8 << 16 | 1 << 4, 0x1234));
        let Exit::X86(X86Exit::Port(access)) = exit else { panic!("{exit:?}") };
        assert_eq!((access.port, access.size, access.write, access.string), (0x3f8, 1, true, false));
        assert_eq!(access.next_rip, 0x1234);
        // REP INSW.
        let Exit::X86(X86Exit::Port(access)) = Exit::decode(&left(0x7b, 0x1f0 << 16 | 1 << 5 | 0b1101, 0)) else {
            panic!()
        };
        assert_eq!((access.port, access.size, access.write), (0x1f0, 2, false));
        assert!(access.string && access.repeat);
    }

    #[test]
    fn nested_faults_say_who_and_why() {
        let Exit::Stage2Fault(access) = Exit::decode(&left(0x400, 1 << 32 | 0b110, 0xfee0_0020)) else { panic!() };
        assert_eq!(access.kind, AccessKind::Write);
        assert_eq!(access.cause, AccessCause::NotPresent);
        assert_eq!(access.stage, AccessStage::Final);
        let Exit::Stage2Fault(access) = Exit::decode(&left(0x400, 1 << 33 | 0b111, 0x1000)) else { panic!() };
        assert_eq!((access.cause, access.stage), (AccessCause::Rights, AccessStage::TableWalk));
        let Exit::Stage2Fault(access) = Exit::decode(&left(0x400, 1 << 32 | 0b10100, 0x1000)) else { panic!() };
        assert_eq!(access.kind, AccessKind::Execute);
    }

    #[test]
    fn rare_exits_keep_their_numbers() {
        assert_eq!(Exit::decode(&left(0x14, 0, 0)), Exit::X86(X86Exit::CrWrite { number: 4, operand: 0 }));
        assert_eq!(Exit::decode(&left(0x37, 0, 0)), Exit::X86(X86Exit::DebugRegister { number: 7, write: true }));
        assert_eq!(
            Exit::decode(&left(0x4e, 6, 0xdead)),
            Exit::X86(X86Exit::Exception { vector: 14, error_code: 6, address: 0xdead })
        );
        assert_eq!(Exit::decode(&left(0x6f, 0, 0)), Exit::X86(X86Exit::Forbidden));
        assert_eq!(Exit::decode(&left(0x399, 0, 0)), Exit::X86(X86Exit::Unknown(0x399)));
    }
}
