//! The hypercall table: number, name, arguments and who may call.
//!
//! One list below makes all three views of it: `Hypercall` (the numbers), `TABLE` (for access checks, traces and the
//! manual) and `Request` (decoded registers). Registers come in here from the hypervisor's run loop and go out from
//! the toolstack and the test guests; the structures that the pointers lead to are in the module of each family.
//!
//! Calls that only classic PV guests can make in Xen 4.17 (set_trap_table 0 … mmuext_op 26, nmi_op 28, callback_op 30,
//! kexec_op 37, mca 48) are absent on purpose: an unknown number is answered with -ENOSYS. So is the
//! hypervisor-internal continuation call 49. Numbers: public/xen.h; arguments and reachability: hypercall-defs.c.

use crate::errno::Errno;
use crate::handle::GuestPtr;

/// What an argument register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgumentKind {
    /// The number of a sub-operation, 32 bits.
    Command,
    /// The number of a sub-operation with a continuation cursor in its upper bits, 64 bits.
    LongCommand,
    /// A number of array elements, 32 bits.
    Count,
    /// A plain number, 64 bits.
    Number,
    /// A signed number, 64 bits.
    Signed,
    /// A domain identifier, 16 bits.
    Domain,
    /// A vCPU number of the calling domain, 32 bits.
    Vcpu,
    /// A guest address of a structure or array.
    Pointer,
}

/// Who may make a call at all. Sub-operations may narrow it further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Every domain.
    Any,
    /// The domain that owns the hardware.
    HardwareDomain,
    /// The control domain.
    Control,
    /// The control domain, and a device model's domain for the domain that it serves.
    DeviceModel,
    /// The control domain and the xenstore domain.
    Xenstore,
    /// The sub-operation decides: see [`crate::domctl::DomctlOp::caller`].
    Command,
}

/// On which architectures a call exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architectures {
    /// x86 and Arm.
    All,
    /// x86 only.
    X86,
}

/// One argument of a hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name, for traces.
    pub name: &'static str,
    /// What it is.
    pub kind: ArgumentKind,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HypercallInfo {
    /// The call.
    pub call: Hypercall,
    /// The number in the register.
    pub number: u64,
    /// Xen's name without `__HYPERVISOR_`.
    pub name: &'static str,
    /// The arguments, in the order of registers.
    pub arguments: &'static [Argument],
    /// Who may call.
    pub caller: Caller,
    /// Where it exists.
    pub architectures: Architectures,
}

/// A value that travels in one register.
trait Register: Copy {
    /// Takes the value out of the register; upper bits beyond the type are ignored, as C's calling convention does.
    fn from_register(register: u64) -> Self;
    /// Puts the value into a register.
    fn to_register(self) -> u64;
}

impl Register for u64 {
    fn from_register(register: u64) -> Self {
        register
    }

    fn to_register(self) -> u64 {
        self
    }
}

impl Register for i64 {
    fn from_register(register: u64) -> Self {
        register.cast_signed()
    }

    fn to_register(self) -> u64 {
        self.cast_unsigned()
    }
}

impl Register for u32 {
    fn from_register(register: u64) -> Self {
        let [a, b, c, d, ..] = register.to_le_bytes();
        Self::from_le_bytes([a, b, c, d])
    }

    fn to_register(self) -> u64 {
        u64::from(self)
    }
}

impl Register for u16 {
    fn from_register(register: u64) -> Self {
        let [a, b, ..] = register.to_le_bytes();
        Self::from_le_bytes([a, b])
    }

    fn to_register(self) -> u64 {
        u64::from(self)
    }
}

impl<T> Register for GuestPtr<T> {
    fn from_register(register: u64) -> Self {
        Self::from_address(register)
    }

    fn to_register(self) -> u64 {
        self.address()
    }
}

macro_rules! argument_type {
    (Command) => { u32 };
    (LongCommand) => { u64 };
    (Count) => { u32 };
    (Number) => { u64 };
    (Signed) => { i64 };
    (Domain) => { u16 };
    (Vcpu) => { u32 };
    (Pointer) => { GuestPtr<()> };
}

/// The most arguments that any call may have (six registers).
pub const MAX_ARGUMENTS: usize = 6;

macro_rules! hypercalls {
    ($(
        $number:literal $variant:ident $text:literal ($($argument:ident : $kind:ident),*) $caller:ident $where:ident;
    )*) => {
        /// The hypercalls that an HVM or PVH guest can make.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u64)]
        pub enum Hypercall {
            $(
                #[doc = concat!("`__HYPERVISOR_", $text, "` (", $number, ").")]
                $variant = $number,
            )*
        }

        /// The table, in ascending order of numbers.
        pub const TABLE: &[HypercallInfo] = &[$(
            HypercallInfo {
                call: Hypercall::$variant,
                number: $number,
                name: $text,
                arguments: &[$(Argument { name: stringify!($argument), kind: ArgumentKind::$kind }),*],
                caller: Caller::$caller,
                architectures: Architectures::$where,
            },
        )*];

        impl Hypercall {
            /// The number in the register.
            #[must_use]
            pub const fn number(self) -> u64 {
                match self { $(Self::$variant => $number,)* }
            }

            /// Xen's name without `__HYPERVISOR_`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Who may make the call at all.
            #[must_use]
            pub const fn caller(self) -> Caller {
                match self { $(Self::$variant => Caller::$caller,)* }
            }

            /// The row of the table.
            #[must_use]
            pub fn info(self) -> Option<&'static HypercallInfo> {
                TABLE.iter().find(|row| row.call == self)
            }
        }

        impl TryFrom<u64> for Hypercall {
            type Error = Errno;

            /// The call of that number, or `ENOSYS`.
            #[inline]
            fn try_from(number: u64) -> Result<Self, Errno> {
                match number {
                    $($number => Ok(Self::$variant),)*
                    _ => Err(Errno::ENOSYS),
                }
            }
        }

        /// A hypercall with its arguments taken out of the registers.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the fields are the arguments of the table, described by their kinds")]
        pub enum Request {
            $(
                #[doc = concat!("`", $text, "`.")]
                $variant { $($argument: argument_type!($kind)),* },
            )*
        }

        impl Request {
            /// Decodes the number and the argument registers of a 64-bit caller.
            ///
            /// # Errors
            /// `ENOSYS` for a number that is not in the table.
            #[inline]
            pub fn decode(number: u64, registers: [u64; MAX_ARGUMENTS]) -> Result<Self, Errno> {
                let call = Hypercall::try_from(number)?;
                let mut values = registers.into_iter();
                Ok(match call {
                    $(Hypercall::$variant => Self::$variant {
                        $($argument: Register::from_register(values.next().unwrap_or(0))),*
                    },)*
                })
            }

            /// Which call this is.
            #[must_use]
            pub const fn call(&self) -> Hypercall {
                match self { $(Self::$variant { .. } => Hypercall::$variant,)* }
            }

            /// The number and the argument registers; unused registers are zero.
            #[must_use]
            pub fn encode(&self) -> (u64, [u64; MAX_ARGUMENTS]) {
                let mut registers = [0; MAX_ARGUMENTS];
                let mut slots = registers.iter_mut();
                match *self {
                    $(Self::$variant { $($argument),* } => {
                        $(
                            if let Some(slot) = slots.next() {
                                *slot = Register::to_register($argument);
                            }
                        )*
                    })*
                }
                (self.call().number(), registers)
            }
        }
    };
}

hypercalls! {
    7  PlatformOp     "platform_op"      (op: Pointer) HardwareDomain X86;
    12 MemoryOp       "memory_op"        (cmd: LongCommand, arg: Pointer) Any All;
    13 Multicall      "multicall"        (call_list: Pointer, nr_calls: Count) Any All;
    15 SetTimerOp     "set_timer_op"     (timeout: Signed) Any X86;
    17 XenVersion     "xen_version"      (cmd: Command, arg: Pointer) Any All;
    18 ConsoleIo      "console_io"       (cmd: Command, count: Count, buffer: Pointer) Any All;
    20 GrantTableOp   "grant_table_op"   (cmd: Command, uop: Pointer, count: Count) Any All;
    21 VmAssist       "vm_assist"        (cmd: Command, assist: Command) Any All;
    24 VcpuOp         "vcpu_op"          (cmd: Command, vcpu: Vcpu, arg: Pointer) Any All;
    27 XsmOp          "xsm_op"           (op: Pointer) Any All;
    29 SchedOp        "sched_op"         (cmd: Command, arg: Pointer) Any All;
    32 EventChannelOp "event_channel_op" (cmd: Command, arg: Pointer) Any All;
    33 PhysdevOp      "physdev_op"       (cmd: Command, arg: Pointer) Any All;
    34 HvmOp          "hvm_op"           (cmd: LongCommand, arg: Pointer) Any All;
    35 Sysctl         "sysctl"           (op: Pointer) Control All;
    36 Domctl         "domctl"           (op: Pointer) Command All;
    39 ArgoOp         "argo_op"          (cmd: Command, arg1: Pointer, arg2: Pointer, arg3: Number, arg4: Number) Any All;
    40 XenpmuOp       "xenpmu_op"        (cmd: Command, arg: Pointer) Any X86;
    41 DmOp           "dm_op"            (domain: Domain, nr_buffers: Count, buffers: Pointer) DeviceModel All;
    42 HypfsOp        "hypfs_op"         (cmd: Command, path: Pointer, length: Number, buffer: Pointer, size: Number) Control All;
}
