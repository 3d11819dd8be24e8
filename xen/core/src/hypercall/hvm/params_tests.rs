//! Tests of the rules per parameter.

use super::*;

fn guest_value(parameter: HvmParam, value: u64) -> Result<u64, Stop> {
    check(Some(parameter), value, true)
}

#[test]
fn each_parameter_is_reached_by_whom_xen_says() {
    use HvmParam as P;
    let guest_sets: &[P] = &[
        P::CallbackIrq,
        P::StoreEvtchn,
        P::Vm86Tss,
        P::ConsoleEvtchn,
        P::AcpiIoportsLocation,
        P::VmGenerationIdAddr,
        P::X87FipWidth,
        P::Vm86TssSized,
    ];
    let guest_reads_only: &[P] = &[P::StorePfn, P::ConsolePfn, P::Altp2m];
    let obsolete = [4, 13, 20, 21, 22, 23, 24, 25, 26, 30];
    for index in 0..HVM_NR_PARAMS {
        let parameter = HvmParam::try_from(index).ok();
        let sets = parameter.is_some_and(|p| guest_sets.contains(&p));
        let reads = sets || parameter.is_some_and(|p| guest_reads_only.contains(&p));
        let expected = |allowed| match (obsolete.contains(&index), allowed) {
            (true, _) => Err(Errno::EINVAL),
            (false, true) => Ok(()),
            (false, false) => Err(Errno::EPERM),
        };
        assert_eq!(reach(setter(parameter), true), expected(sets), "set {index}");
        assert_eq!(reach(getter(parameter), true), expected(reads), "get {index}");
        assert_eq!(reach(setter(parameter), false), expected(!obsolete.contains(&index)), "control sets {index}");
    }
}

#[test]
fn values_are_checked() {
    let einval = Err(Stop::Error(Errno::EINVAL));
    assert_eq!(guest_value(HvmParam::TimerMode, 3), Ok(3));
    assert_eq!(guest_value(HvmParam::TimerMode, 4), einval);
    assert_eq!(guest_value(HvmParam::X87FipWidth, 8), Ok(8));
    assert_eq!(guest_value(HvmParam::X87FipWidth, 2), einval);
    assert_eq!(guest_value(HvmParam::TripleFaultReason, 5), Ok(5));
    assert_eq!(guest_value(HvmParam::TripleFaultReason, 6), einval);
    assert_eq!(guest_value(HvmParam::NrIoreqServerPages, 0), einval);
    assert_eq!(guest_value(HvmParam::NrIoreqServerPages, 64), Ok(64));
    assert_eq!(guest_value(HvmParam::NrIoreqServerPages, 65), einval);
    assert_eq!(guest_value(HvmParam::Altp2m, 0), Ok(0));
    assert_eq!(guest_value(HvmParam::Altp2m, 2), Err(Stop::Error(Errno::EOPNOTSUPP)));
    assert_eq!(guest_value(HvmParam::Altp2m, 4), einval);
    assert_eq!(guest_value(HvmParam::McaCap, 1), einval);
    assert_eq!(guest_value(HvmParam::AcpiSState, 0), Ok(0));
    assert_eq!(guest_value(HvmParam::AcpiSState, 1), einval);
    assert_eq!(guest_value(HvmParam::Viridian, 1 << 40), einval);
    assert_eq!(guest_value(HvmParam::Viridian, 2), einval, "the basic set is a must");
    assert_eq!(guest_value(HvmParam::Viridian, 1), Err(Stop::Error(Errno::EOPNOTSUPP)));
    assert_eq!(guest_value(HvmParam::StorePfn, u64::MAX), Ok(u64::MAX));
}

#[test]
fn task_state_segments_are_sized_and_capped() {
    assert_eq!(guest_value(HvmParam::Vm86Tss, 0), Ok(0));
    assert_eq!(guest_value(HvmParam::Vm86Tss, 0xfed0_0000), Ok(TSS_UPDATED | 128 << 32 | 0xfed0_0000));
    assert!(matches!(guest_value(HvmParam::Vm86Tss, 1 << 32), Err(Stop::Crash(_))));
    assert_eq!(check(Some(HvmParam::Vm86Tss), 1 << 32, false), Err(Stop::Error(Errno::EINVAL)));
    assert!(matches!(guest_value(HvmParam::Vm86TssSized, 103 << 32), Err(Stop::Crash(_))));
    assert_eq!(guest_value(HvmParam::Vm86TssSized, 104 << 32 | 5), Ok(TSS_UPDATED | 104 << 32 | 5));
    let capped = guest_value(HvmParam::Vm86TssSized, 0x7fff_ffff << 32 | 5);
    assert_eq!(capped, Ok(TSS_UPDATED | TSS_MAX_BYTES << 32 | 5));
}
