//! Two guests: one that answers and one that asks. `answers=DOMID` on the command line is the domain that may ask; it tells its
//! port in a line, and `asks=DOMID port=PORT` measures.

use guests::grant::Table;
use guests::shared::Shared;
use guests::{Test, call, environment, println};
use public_abi::GuestPtr;
use public_abi::domid::DOMID_SELF;
use public_abi::event_channel::{AllocUnbound, BindInterdomain, EventChannelOp};
use public_abi::grant_table::{
    CopyPtr, GNTCOPY_SOURCE_GREF, GNTST_OKAY, GrantCopy, GrantTableOp, MapFlags, MapGrantRef, UnmapGrantRef,
};
use public_abi::memory::{MemoryOp, RemoveFromPhysmap};
use public_abi::sched::{SchedOp, SchedPoll};
use rt::memory;

use crate::row::measure;

/// The grant of the answering guest.
const REFERENCE: u32 = 8;
const PAGE: u16 = 4096;

/// Plays the part that the command line says; false if it says none.
pub(crate) fn run(test: &mut Test) -> bool {
    let number = |key| environment::option(key).and_then(|value| u16::try_from(value).ok());
    match (number("answers"), number("asks")) {
        (Some(peer), _) => answer(test, peer),
        (None, Some(peer)) => {
            let port = environment::option("port").and_then(|port| u32::try_from(port).ok()).unwrap_or(0);
            ask(test, peer, port);
        }
        (None, None) => return false,
    }
    true
}

/// Sleeps until the event has come, and takes it.
fn wait(shared: Shared, port: u32) {
    while !shared.take_pending(port) {
        let mut list = [port];
        let ports = GuestPtr::from_address(call::address(&mut list));
        call::sched(SchedOp::Poll, &mut SchedPoll { ports, nr_ports: 1, ..Default::default() });
    }
}

/// Answers each event with one, until the toolstack destroys it.
fn answer(test: &mut Test, peer: u16) {
    let shared = Shared::map();
    let page = memory::take_pages(1);
    match Table::map() {
        Ok(table) => table.permit(REFERENCE, peer, page, 0),
        Err(error) => test.check("grant table", false, error),
    }
    let mut unbound = AllocUnbound { dom: DOMID_SELF, remote_dom: peer, port: 0 };
    test.succeeds("alloc_unbound", call::event(EventChannelOp::AllocUnbound, &mut unbound));
    println!("GUEST-INFO answers on port {}", unbound.port);
    shared.mask(unbound.port);
    loop {
        wait(shared, unbound.port);
        call::send(unbound.port);
    }
}

fn ask(test: &mut Test, peer: u16, remote_port: u32) {
    let shared = Shared::map();
    let mut bind = BindInterdomain { remote_dom: peer, remote_port, ..Default::default() };
    test.succeeds("bind_interdomain", call::event(EventChannelOp::BindInterdomain, &mut bind));
    let port = bind.local_port;
    shared.mask(port);
    // Binding raises the event once.
    test.holds("binding raises it", shared.take_pending(port));
    measure(test, "evtchn-ping-pong", || {
        call::send(port);
        wait(shared, port);
        true
    });
    let [here, room] = [memory::take_pages(1), memory::take_pages(1)];
    let mut copy = GrantCopy {
        source: CopyPtr { u: REFERENCE.into(), domid: peer, ..Default::default() },
        dest: CopyPtr { u: here >> 12, domid: DOMID_SELF, ..Default::default() },
        len: PAGE,
        flags: GNTCOPY_SOURCE_GREF,
        ..Default::default()
    };
    measure(test, "grant-copy", || call::grant(GrantTableOp::Copy, &mut copy) == 0 && copy.status == GNTST_OKAY);
    let mut remove = RemoveFromPhysmap { domid: DOMID_SELF, gpfn: room >> 12, ..Default::default() };
    test.succeeds("room", call::memory(MemoryOp::RemoveFromPhysmap, &mut remove));
    measure(test, "grant-map-unmap", || map_and_unmap(peer, room));
}

fn map_and_unmap(peer: u16, at: u64) -> bool {
    let flags = MapFlags::HOST_MAP.bits();
    let mut map = MapGrantRef { host_addr: at, flags, gref: REFERENCE, dom: peer, ..Default::default() };
    call::grant(GrantTableOp::MapGrantRef, &mut map);
    let mut unmap = UnmapGrantRef { host_addr: at, handle: map.handle, ..Default::default() };
    map.status == GNTST_OKAY && call::grant(GrantTableOp::UnmapGrantRef, &mut unmap) == 0 && unmap.status == GNTST_OKAY
}
