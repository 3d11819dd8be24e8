//! hvm_op: which parameters this domain may read and set, bad requests, time, memory types.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::{Role, Test, call, check, println, role};
    use public_abi::domid::DOMID_SELF;
    use public_abi::hvm_op::{GetMemType, HvmOp, HvmParamRequest, PagetableDying};
    use public_abi::hvm_params::HvmParam;
    use public_abi::{Errno, Hypercall};

    guests::guest!("hvm_params", run);

    fn set(index: u32, value: u64) -> i64 {
        call::hvm(HvmOp::SetParam, &mut HvmParamRequest { domid: DOMID_SELF, index, value, ..Default::default() })
    }

    fn get(index: u32) -> (i64, u64) {
        let mut request = HvmParamRequest { domid: DOMID_SELF, index, value: 0x7777, ..Default::default() };
        (call::hvm(HvmOp::GetParam, &mut request), request.value)
    }

    fn run(test: &mut Test) {
        for parameter in HvmParam::ALL {
            println!("GUEST-INFO {} {:x?}", parameter.name(), get(parameter.number()));
        }
        known(test);
        settable(test);
        forbidden(test);
        others(test);
    }

    fn known(test: &mut Test) {
        let store = (call::get_parameter(HvmParam::StoreEvtchn), call::get_parameter(HvmParam::StorePfn));
        let console = (call::get_parameter(HvmParam::ConsoleEvtchn), call::get_parameter(HvmParam::ConsolePfn));
        match role() {
            // Linux takes 0 as: the store is here.
            Role::Control => test.equal("no rings", (store, console), ((Ok(0), Ok(0)), (Ok(0), Ok(0)))),
            Role::Guest => {
                let set = |pair: (Result<u64, i64>, Result<u64, i64>)| matches!(pair, (Ok(port), Ok(frame)) if port != 0 && frame != 0);
                test.holds("rings", set(store) && set(console));
            }
        }
        for index in [39, 40, 100, u32::MAX] {
            test.equal("no such parameter to read", get(index), (check::error(Errno::EINVAL), 0x7777));
            test.fails("no such parameter to set", set(index, 0), Errno::EINVAL);
        }
    }

    fn settable(test: &mut Test) {
        for parameter in [HvmParam::CallbackIrq, HvmParam::VmGenerationIdAddr, HvmParam::StoreEvtchn] {
            let (_, before) = get(parameter.number());
            let result = set(parameter.number(), before);
            test.check("may be set", result == 0, format_args!("{}: {result}", parameter.name()));
            test.equal("reads back", get(parameter.number()), (0, before));
        }
        let via = (2_u64 << 56) | 0x77;
        test.succeeds("callback", set(HvmParam::CallbackIrq.number(), via));
        test.equal("reads back", get(HvmParam::CallbackIrq.number()), (0, via));
        test.succeeds("no callback", set(HvmParam::CallbackIrq.number(), 0));
    }

    fn forbidden(test: &mut Test) {
        let list = [
            HvmParam::StorePfn,
            HvmParam::ConsolePfn,
            HvmParam::IoreqPfn,
            HvmParam::BufioreqPfn,
            HvmParam::Viridian,
            HvmParam::TimerMode,
            HvmParam::HpetEnabled,
            HvmParam::IdentPt,
            HvmParam::AcpiSState,
            HvmParam::VptAlign,
            HvmParam::TripleFaultReason,
            HvmParam::MonitorRingPfn,
            HvmParam::PagingRingPfn,
            HvmParam::SharingRingPfn,
            HvmParam::IoreqServerPfn,
            HvmParam::NrIoreqServerPages,
            HvmParam::Altp2m,
            HvmParam::McaCap,
        ];
        for parameter in list {
            let (_, before) = get(parameter.number());
            let result = set(parameter.number(), 1);
            test.check(
                "may not be set by the domain itself",
                result == check::error(Errno::EPERM),
                format_args!("{}: {result}", parameter.name()),
            );
            test.check("unchanged", get(parameter.number()).1 == before, parameter.name());
        }
        for parameter in [
            HvmParam::DmDomain,
            HvmParam::PaeEnabled,
            HvmParam::NestedHvm,
            HvmParam::BufioreqEvtchn,
            HvmParam::MemoryEventCr0,
        ] {
            let result = set(parameter.number(), 1);
            test.check(
                "obsolete",
                result == check::error(Errno::EINVAL),
                format_args!("{}: {result}", parameter.name()),
            );
        }
    }

    fn others(test: &mut Test) {
        let mut request = HvmParamRequest { domid: 0x7e00, index: 1, ..Default::default() };
        test.fails("no such domain", call::hvm(HvmOp::GetParam, &mut request), Errno::ESRCH);
        for number in [2, 3, 4, 6, 7, 8, 14, 16, 17, 26, 255] {
            let result = call::raw(Hypercall::HvmOp, [number, call::address(&mut request), 0, 0, 0]);
            test.check("unknown", result < 0, format_args!("{number}: {result}"));
        }
        let mut dying = PagetableDying { domid: DOMID_SELF, ..Default::default() };
        println!("GUEST-INFO pagetable_dying answers {}", call::hvm(HvmOp::PagetableDying, &mut dying));
        let mut kind = GetMemType { domid: DOMID_SELF, pfn: 0x300, mem_type: 77, ..Default::default() };
        let result = call::hvm(HvmOp::GetMemType, &mut kind);
        println!("GUEST-INFO get_mem_type answers {result} {}", kind.mem_type);
        let mut flush = [0_u8; 8];
        println!("GUEST-INFO flush_tlbs answers {}", call::hvm(HvmOp::FlushTlbs, &mut flush));
        test.fails("flush_tlbs without a null pointer", call::hvm(HvmOp::FlushTlbs, &mut flush), Errno::EINVAL);
        test.succeeds("flush_tlbs", call::raw(Hypercall::HvmOp, [HvmOp::FlushTlbs.number().into(), 0, 0, 0, 0]));
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
