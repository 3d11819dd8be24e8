//! Event channels and interrupts.

use core::sync::atomic::Ordering::SeqCst;
use guests::shared::Shared;
use guests::{Test, call, clock, event};
use public_abi::domid::DOMID_SELF;
use public_abi::event_channel::{AllocUnbound, EventChannelOp};
use rt::apic;

use crate::row::{measure, measure_between};

/// The vector of the interrupt to itself.
const VECTOR: u32 = 0x50;

pub(crate) fn run(test: &mut Test) {
    let shared = Shared::map();
    let port = event::ipi(0);
    // The event is taken between the samples, so that each one is delivered anew.
    measure_between(
        test,
        "evtchn-send-self",
        || Some(()),
        |()| (call::send(port) == 0).then_some(()),
        |()| {
            shared.vcpu(0).upcall_pending().store(0, SeqCst);
            shared.vcpu(0).selector().store(0, SeqCst);
            shared.take_pending(port)
        },
    );
    measure(test, "evtchn-alloc-close", || {
        let mut unbound = AllocUnbound { dom: DOMID_SELF, remote_dom: DOMID_SELF, port: 0 };
        call::event(EventChannelOp::AllocUnbound, &mut unbound) == 0 && call::close(unbound.port) == 0
    });
}

/// The rows that need interrupts.
pub(crate) fn with_interrupts(test: &mut Test) {
    apic::enable();
    rt::enable_interrupts();
    measure(test, "self-ipi", || {
        let before = rt::trap::interrupts(0, VECTOR as u8);
        apic::send(0, VECTOR | apic::ASSERT | apic::SHORTHAND_SELF);
        clock::spin_within(1000, || rt::trap::interrupts(0, VECTOR as u8) != before)
    });
    rt::disable_interrupts();
}
