//! hvm_op as guests and the toolstack use it.

use super::support::{GUEST, NOBODY, World, error, put, with_world};
use crate::hypercall::hvm;
use crate::outcome::Reply;
use machine::DomId;
use public_abi::hvm_op::{
    Altp2mOp, Altp2mRequest, EvtchnUpcallVector, GetMemType, GetTime, HvmOp, HvmParamRequest, PagetableDying,
};
use public_abi::hvm_params::HvmParam;
use public_abi::{Errno, GuestPtr};

const SELF: u16 = 0x7ff0;

fn number(operation: HvmOp) -> u64 {
    u64::from(operation.number())
}

fn set(world: &World, caller: DomId, domid: u16, index: HvmParam, value: u64) -> Reply {
    let request = HvmParamRequest { domid, index: index.number(), value, ..HvmParamRequest::default() };
    world.hvm(caller, number(HvmOp::SetParam), &request).0
}

fn get(world: &World, caller: DomId, domid: u16, index: HvmParam) -> Result<u64, Errno> {
    let request = HvmParamRequest { domid, index: index.number(), value: 0xdead, ..HvmParamRequest::default() };
    let (reply, after) = world.hvm(caller, number(HvmOp::GetParam), &request);
    match reply {
        Ok(_) => Ok(after.value),
        Err(crate::outcome::Stop::Error(errno)) => Err(errno),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn the_toolstack_sets_what_the_guest_reads() {
    with_world(|world| {
        let control = DomId::CONTROL;
        assert_eq!(get(world, GUEST, SELF, HvmParam::StoreEvtchn), Ok(0), "as the control domain expects of itself");
        assert_eq!(set(world, control, GUEST.0, HvmParam::StorePfn, 0xfeffc), Ok(0));
        assert_eq!(set(world, control, GUEST.0, HvmParam::StoreEvtchn, 5), Ok(0));
        assert_eq!(get(world, GUEST, SELF, HvmParam::StorePfn), Ok(0xfeffc));
        assert_eq!(get(world, GUEST, GUEST.0, HvmParam::StoreEvtchn), Ok(5));
        assert_eq!(set(world, GUEST, SELF, HvmParam::StorePfn, 1), error(Errno::EPERM));
        assert_eq!(set(world, GUEST, SELF, HvmParam::StoreEvtchn, 9), Ok(0), "a guest may, after a reset");
        assert_eq!(get(world, GUEST, SELF, HvmParam::IoreqPfn), Err(Errno::EPERM));
        assert_eq!(set(world, GUEST, 0, HvmParam::StoreEvtchn, 9), error(Errno::EPERM), "not another domain's");
        assert_eq!(get(world, GUEST, 0, HvmParam::StoreEvtchn), Err(Errno::EPERM));
        assert_eq!(get(world, control, NOBODY, HvmParam::StoreEvtchn), Err(Errno::ESRCH));
    });
}

#[test]
fn some_parameters_are_set_once() {
    with_world(|world| {
        let set = |value| set(world, DomId::CONTROL, GUEST.0, HvmParam::IoreqServerPfn, value);
        assert_eq!(set(0xfeff0), Ok(0));
        assert_eq!(set(0xfeff0), Ok(0), "the same again");
        assert_eq!(set(0xfeff1), error(Errno::EEXIST));
    });
}

#[test]
fn task_state_is_stored_in_one_place() {
    with_world(|world| {
        assert_eq!(set(world, GUEST, SELF, HvmParam::Vm86Tss, 0xfeff_0000), Ok(0));
        assert_eq!(get(world, GUEST, SELF, HvmParam::Vm86Tss), Ok(0xfeff_0000));
        assert_eq!(get(world, GUEST, SELF, HvmParam::Vm86TssSized), Ok(128 << 32 | 0xfeff_0000));
    });
}

#[test]
fn numbers_without_a_name_are_the_control_domains() {
    with_world(|world| {
        let ask = |caller, index| {
            let request = HvmParamRequest { domid: GUEST.0, index, value: 3, ..HvmParamRequest::default() };
            world.hvm(caller, number(HvmOp::SetParam), &request).0
        };
        assert_eq!(ask(DomId::CONTROL, 3), Ok(0));
        assert_eq!(ask(GUEST, 3), error(Errno::EPERM));
        assert_eq!(ask(DomId::CONTROL, 39), error(Errno::EINVAL));
        assert_eq!(ask(DomId::CONTROL, u32::MAX), error(Errno::EINVAL));
    });
}

#[test]
fn the_gsi_callback_is_stored_and_ignored() {
    with_world(|world| {
        let callback = || crate::event::callback_line(&world.host.domains.get(GUEST).unwrap());
        assert_eq!(set(world, GUEST, SELF, HvmParam::CallbackIrq, 9), Ok(0));
        assert_eq!(callback(), None, "there is no line to raise");
        // Linux stores 1 when every vCPU has a vector of its own.
        assert_eq!(set(world, GUEST, SELF, HvmParam::CallbackIrq, 1), Ok(0));
        assert_eq!(get(world, GUEST, SELF, HvmParam::CallbackIrq), Ok(1));
    });
}

#[test]
fn small_operations_answer_as_xen() {
    with_world(|world| {
        let vector = |vcpu, vector| {
            let request = EvtchnUpcallVector { vcpu, vector, ..EvtchnUpcallVector::default() };
            world.hvm(GUEST, number(HvmOp::SetEvtchnUpcallVector), &request).0
        };
        assert_eq!(vector(0, 15), error(Errno::EINVAL));
        assert_eq!(vector(2, 0xf3), error(Errno::ENOENT));
        assert_eq!(vector(1, 0xf3), Ok(0));
        assert_eq!(world.host.domains.get(GUEST).unwrap().vcpu(1).unwrap().events.upcall.vector(), Some(0xf3));
        let dying =
            |domid| world.hvm(GUEST, number(HvmOp::PagetableDying), &PagetableDying { domid, ..Default::default() }).0;
        assert_eq!(dying(SELF), error(Errno::EINVAL));
        assert_eq!(dying(0), error(Errno::EOPNOTSUPP));
        assert_eq!(dying(NOBODY), error(Errno::ESRCH));
        let altp2m = Altp2mRequest::new(Altp2mOp::GetDomainState, GUEST.0);
        assert_eq!(world.hvm(GUEST, number(HvmOp::Altp2m), &altp2m).0, error(Errno::EOPNOTSUPP));
        let raw = |command, pointer| world.call(GUEST, |caller| hvm::handle(caller, command, pointer));
        let some: GuestPtr<()> = put(&0_u64).cast();
        assert_eq!(raw(number(HvmOp::GuestRequestVmEvent), GuestPtr::NULL), Ok(0));
        assert_eq!(raw(number(HvmOp::GuestRequestVmEvent), some), error(Errno::EINVAL));
        assert_eq!(raw(number(HvmOp::FlushTlbs), some), error(Errno::EINVAL));
        let epoch = world.host.domains.get(GUEST).unwrap().p2m.epoch();
        assert_eq!(raw(number(HvmOp::FlushTlbs), GuestPtr::NULL), Ok(0));
        assert_ne!(world.host.domains.get(GUEST).unwrap().p2m.epoch(), epoch);
        let kind = |caller, domid, pfn| {
            let request = GetMemType { domid, pfn, ..GetMemType::default() };
            let (reply, after) = world.hvm(caller, number(HvmOp::GetMemType), &request);
            reply.map(|_| after.mem_type)
        };
        assert_eq!(kind(GUEST, SELF, 5), Ok(2), "a hole is emulated");
        assert_eq!(kind(DomId::CONTROL, SELF, 0x100), Ok(0), "RAM");
        assert_eq!(kind(DomId::CONTROL, GUEST.0, 5), Ok(2));
        assert_eq!(kind(GUEST, 0, 5), Err(crate::outcome::Stop::Error(Errno::EPERM)));
        for unknown in [2, 3, 6, 11, 12, 17, 26, 1 << 32] {
            assert_eq!(raw(unknown, some), error(Errno::ENOSYS), "{unknown}");
        }
        assert_eq!(raw(number(HvmOp::GetParam), GuestPtr::NULL), error(Errno::EFAULT));
        world.machine.advance(3_000_000);
        let (reply, time) = world.hvm(GUEST, number(HvmOp::GetTime), &GetTime::default());
        assert_eq!((reply, time.now >= 1_500_000), (Ok(0), true), "{}", time.now);
    });
}
