//! Properties of the tables: numbers are unique, ascending and those of Xen's headers, conversions go there and back.
//!
//! `golden/numbers.txt` was printed by a C program compiled with the headers of Xen 4.17.7 (three names of tsc_mode and
//! five of the e820 types come from its internal headers, the save codes from its save-record macros).

use std::collections::{BTreeMap, BTreeSet};

use public_abi::errno::Errno;
use public_abi::hypercall::{ArgumentKind, Caller, Hypercall, MAX_ARGUMENTS, Request, TABLE};

/// Takes the golden values out of their file.
fn golden_numbers() -> BTreeMap<&'static str, u32> {
    include_str!("golden/numbers.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(' ').and_then(|(name, value)| Some((name, value.parse().ok()?))))
        .collect::<Option<_>>()
        .unwrap_or_default()
}

/// Checks one operations enum: ascending, unique names, Xen's numbers (which it takes out of `golden`), both
/// conversions, and refusal of every gap up to the largest.
macro_rules! check {
    ($golden:ident; $($name:ty),* $(,)?) => {$({
        let all = <$name>::ALL;
        for member in all {
            let name = format!("{}{}", <$name>::FAMILY, member.name());
            assert_eq!($golden.remove(name.as_str()), Some(member.number()), "{name}");
        }
        assert!(!all.is_empty());
        assert!(
            all.windows(2).all(|pair| matches!(pair, [a, b] if a.number() < b.number())),
            "{} is not ascending", stringify!($name)
        );
        let names: BTreeSet<&str> = all.iter().map(|member| member.name()).collect();
        assert_eq!(names.len(), all.len(), "{} has a name twice", stringify!($name));
        let numbers: BTreeSet<u32> = all.iter().map(|member| member.number()).collect();
        for member in all {
            assert_eq!(<$name>::try_from(member.number()), Ok(*member));
            assert_eq!(u32::from(*member), member.number());
        }
        let largest = numbers.last().copied().unwrap_or(0).min(2000);
        for number in (0..=largest + 1).chain([u32::MAX]) {
            assert_eq!(<$name>::try_from(number).is_ok(), numbers.contains(&number), "{} {number}", stringify!($name));
        }
    })*};
}

#[test]
fn operation_enums() {
    use public_abi::*;
    let mut golden = golden_numbers();
    check! { golden;
        callback::CallbackOp, callback::CallbackType, console_io::ConsoleIoOp, cpu_features::CpuFeature,
        dm_op::DmOp, dm_op::IoRange, dm_op::BufioreqMode, dm_op::InjectType, dm_op::CacheAttribute,
        domctl::DomctlOp, domctl_debug::VmEventOperation, domctl_debug::VmEventMode, domctl_debug::MonitorOperation,
        domctl_debug::MonitorEvent, domctl_debug::VmtraceOperation, domctl_device::DeviceKind,
        domctl_device::PtIrqType, domctl_domain::ShadowOperation, domctl_domain::TscMode, domctl_vcpu::Trigger,
        elfnote::ElfNote, event_channel::EventChannelOp, event_channel::PortStatus, grant_table::GrantTableOp,
        hvm_op::HvmOp, hvm_op::MemType, hvm_op::Altp2mOp, hvm_params::HvmParam, hvm_params::TimerMode,
        hvm_save::SaveCode, io::blkif::BlkifOp, io::netif::NetifExtra, io::netif::NetifCtrl,
        io::xenbus::XenbusState, io::xs_wire::XsMessage, ioreq::IoreqState, ioreq::IoreqType, memory::MemoryOp,
        memory::MapSpace, memory::Resource, memory::E820Type, memory_tools::PagingOp, memory_tools::AccessOp,
        memory_tools::MemAccess, memory_tools::SharingOp, physdev::PhysdevOp, physdev::MapPirqType,
        platform::PlatformOp, platform_more::FirmwareInfoType, platform_more::EfiFunction, sched::SchedOp,
        sched::ShutdownReason, sched_params::SchedulerId, sched_params::DomctlSchedulerOp,
        sched_params::SysctlSchedulerOp, sysctl::SysctlOp, sysctl::CpupoolOperation, sysctl::FeaturesetIndex,
        sysctl::CpuPolicyIndex, sysctl_more::TbufOperation, sysctl_more::PmStat, sysctl_more::HotplugOperation,
        sysctl_more::PmOperation, sysctl_more::LivepatchOperation, vcpu::VcpuOp, vcpu::Runstate,
        version::VersionOp, version::Feature, virq::Virq, vm_assist::VmAssistOp, vm_assist::VmAssistType,
        vm_event::VmEventReason, x86::MemmapType,
    }
    assert_eq!(golden, BTreeMap::new(), "Xen's constants that no enum has");
}

#[test]
fn an_unknown_number_names_its_family() {
    let error = public_abi::memory::MemoryOp::try_from(8).map_err(|error| error.to_string());
    assert_eq!(error, Err("XENMEM_* has no number 8".to_owned()));
}

#[test]
fn errors_go_there_and_back() {
    assert!(Errno::ALL.windows(2).all(|pair| matches!(pair, [a, b] if a.number() < b.number())));
    let golden: BTreeSet<String> =
        include_str!("golden/errno.txt").lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    let aliases = [("EWOULDBLOCK", Errno::EWOULDBLOCK), ("EDEADLOCK", Errno::EDEADLOCK)];
    let names = Errno::ALL.iter().map(|errno| (errno.name(), *errno)).chain(aliases);
    let ours: BTreeSet<String> = names.map(|(name, errno)| format!("{name} {}", errno.number())).collect();
    assert_eq!(ours, golden);
    for errno in Errno::ALL {
        assert_eq!(Errno::try_from(errno.number()), Ok(*errno));
        assert_eq!(Errno::from_register(errno.to_register()), Err(Ok(*errno)));
    }
    assert_eq!(Errno::ENOSYS.to_register(), 0xffff_ffff_ffff_ffda);
    assert_eq!(Errno::from_register(0), Ok(0));
    assert_eq!(Errno::from_register(u64::MAX - 4095), Ok(u64::MAX - 4095));
    assert_eq!(Errno::from_register(u64::MAX - 4094), Err(Err(public_abi::errno::UnknownErrno(4095))));
    assert!(Errno::try_from(0).is_err() && Errno::try_from(-22).is_err());
}

#[test]
fn the_hypercall_table_is_sorted_and_complete() {
    assert!(TABLE.windows(2).all(|pair| matches!(pair, [a, b] if a.number < b.number)));
    let names: BTreeSet<&str> = TABLE.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), TABLE.len());
    for row in TABLE {
        assert_eq!(Hypercall::try_from(row.number), Ok(row.call));
        assert_eq!((row.call.number(), row.call.name(), row.call.caller()), (row.number, row.name, row.caller));
        assert_eq!(row.call.info(), Some(row));
        assert!(!row.arguments.is_empty() && row.arguments.len() <= MAX_ARGUMENTS);
    }
    let known: BTreeSet<u64> = TABLE.iter().map(|row| row.number).collect();
    for number in (0..=64).chain([u64::MAX, 1 << 32, (1 << 32) | 12]) {
        assert_eq!(Hypercall::try_from(number).is_ok(), known.contains(&number), "{number}");
    }
    assert_eq!(Hypercall::try_from(26), Err(Errno::ENOSYS), "mmuext_op is for PV guests");
    assert_eq!(Hypercall::Domctl.caller(), Caller::Command);
}

#[test]
fn requests_take_exactly_the_bits_of_their_registers() {
    let registers = [0x1111_2222_3333_4444, 0x5555_6666_7777_8888, 0x9999_aaaa_bbbb_cccc, 4, 5, 6];
    for row in TABLE {
        let request = Request::decode(row.number, registers);
        let (number, encoded) = request.map(|request| request.encode()).unwrap_or_default();
        assert_eq!(number, row.number);
        for (index, (register, sent)) in registers.iter().zip(encoded).enumerate() {
            let expected = match row.arguments.get(index).map(|argument| argument.kind) {
                None => 0,
                Some(ArgumentKind::Command | ArgumentKind::Count | ArgumentKind::Vcpu) => register & 0xffff_ffff,
                Some(ArgumentKind::Domain) => register & 0xffff,
                Some(_) => *register,
            };
            assert_eq!(sent, expected, "{} argument {index}", row.name);
        }
    }
    assert_eq!(Request::decode(0, registers), Err(Errno::ENOSYS));
}

#[test]
fn features_lie_in_known_words() {
    use public_abi::cpu_features::CpuFeature;
    use public_abi::cpu_policy::{CpuidRegister, FEATURESET_WORDS, WordSource};
    for feature in CpuFeature::ALL {
        let word = usize::try_from(feature.word()).ok();
        assert!(word.is_some_and(|word| word < FEATURESET_WORDS.len()), "{}", feature.name());
        assert_eq!(feature.mask().count_ones(), 1);
    }
    // Positions known from the processors' manuals: SVM is 80000001.ECX bit 2, x2APIC is 1.ECX bit 21.
    let place = |feature: CpuFeature| (FEATURESET_WORDS.get(feature.word() as usize).copied(), feature.mask());
    let cpuid = |leaf, register| Some(WordSource::Cpuid { leaf, subleaf: 0, register });
    assert_eq!(place(CpuFeature::Svm), (cpuid(0x8000_0001, CpuidRegister::Ecx), 1 << 2));
    assert_eq!(place(CpuFeature::X2apic), (cpuid(1, CpuidRegister::Ecx), 1 << 21));
    assert_eq!(place(CpuFeature::Smep), (cpuid(7, CpuidRegister::Ebx), 1 << 7));
}

/// Checks that each command carries exactly one structure, except for those listed.
macro_rules! check_payloads {
    ($($request:ty, $operation:ty, without: [$($without:ident),*];)*) => {$(
        for operation in <$operation>::ALL {
            let carriers: Vec<&str> = <$request>::PAYLOADS
                .iter()
                .filter(|(name, commands)| commands.contains(operation) && !name.contains("arm"))
                .map(|(name, _)| *name)
                .collect();
            let without: &[$operation] = &[$(<$operation>::$without),*];
            let expected = usize::from(!without.contains(operation));
            assert_eq!(carriers.len(), expected, "{} is carried by {carriers:?}", operation.name());
        }
    )*};
}

#[test]
fn each_command_has_one_parameter_structure() {
    use public_abi::domctl::{Domctl, DomctlOp};
    use public_abi::hvm_op::{Altp2mOp, Altp2mRequest};
    use public_abi::platform::{PlatformOp, PlatformRequest};
    use public_abi::sysctl::{Sysctl, SysctlOp};
    check_payloads! {
        Domctl, DomctlOp, without: [
            DestroyDomain, PauseDomain, UnpauseDomain, RealModeArea, ResumeDomain, SetOptFeature, SoftReset
        ];
        Altp2mRequest, Altp2mOp, without: [];
        PlatformRequest, PlatformOp, without: [];
        Sysctl, SysctlOp, without: [];
        public_abi::dm_op::DmOpRequest, public_abi::dm_op::DmOp, without: [];
    }
}
