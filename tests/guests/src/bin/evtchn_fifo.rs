//! Event channels with queues: control block, arrays, priorities, bad frames, more than 4,096 ports, reset.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::sync::atomic::Ordering::SeqCst;
    use guests::fifo::Fifo;
    use guests::{Test, call, event, println};
    use public_abi::Errno;
    use public_abi::domid::DOMID_SELF;
    use public_abi::event_channel::{
        BindIpi, EventChannelOp, ExpandArray, FIFO_LINK_BITS, FIFO_LINKED, FIFO_MASKED, FIFO_PENDING, InitControl,
        Port, Reset, SetPriority,
    };
    use rt::memory;

    guests::guest!("evtchn_fifo", run);

    /// Beyond all memory.
    const NO_FRAME: u64 = 0xf_ffff_ffff;

    fn run(test: &mut Test) {
        bad_control_blocks(test);
        let Ok(mut fifo) = Fifo::new(0, 0) else {
            test.holds("init_control", false);
            return;
        };
        bad_arrays(test);
        test.equal("first page of words", fifo.expand(), Ok(()));
        one_event(test, &mut fifo);
        priorities(test, &mut fifo);
        masking(test, &mut fifo);
        many(test, &mut fifo);
        second_control_block(test);
        reset(test);
    }

    fn init(control_gfn: u64, offset: u32, vcpu: u32) -> (i64, u8) {
        let mut request = InitControl { control_gfn, offset, vcpu, ..Default::default() };
        (call::event(EventChannelOp::InitControl, &mut request), request.link_bits)
    }

    fn bad_control_blocks(test: &mut Test) {
        let frame = memory::take_pages(1) >> 12;
        test.fails("no vCPU", init(frame, 0, 64).0, Errno::ENOENT);
        test.fails("offset beyond the page", init(frame, 4096, 0).0, Errno::EINVAL);
        test.fails("block across the page's end", init(frame, 4096 - 64, 0).0, Errno::EINVAL);
        test.fails("unaligned block", init(frame, 4, 0).0, Errno::EINVAL);
        test.fails("no such frame", init(NO_FRAME, 0, 0).0, Errno::EINVAL);
        test.fails("MMIO", init(0xfee00, 0, 0).0, Errno::EINVAL);
        test.fails(
            "expand before init",
            call::event(EventChannelOp::ExpandArray, &mut ExpandArray { array_gfn: frame }),
            Errno::EOPNOTSUPP,
        );
        let mut priority = SetPriority { port: 1, priority: 1 };
        test.fails("set_priority before init", call::event(EventChannelOp::SetPriority, &mut priority), Errno::ENOSYS);
    }

    fn bad_arrays(test: &mut Test) {
        let expand = |gfn: u64| call::event(EventChannelOp::ExpandArray, &mut ExpandArray { array_gfn: gfn });
        let results = [expand(NO_FRAME), expand(0xfee00), expand(u64::MAX)];
        for result in results {
            test.fails("array at a bad frame", result, Errno::EINVAL);
        }
    }

    fn one_event(test: &mut Test, fifo: &mut Fifo) {
        let port = event::ipi(0);
        fifo.unmask(port);
        test.succeeds("send", call::send(port));
        let word = fifo.word(port).load(SeqCst);
        test.equal("pending and linked", word & (FIFO_PENDING | FIFO_LINKED | FIFO_MASKED), FIFO_PENDING | FIFO_LINKED);
        test.equal("ready bit of the default priority", fifo.ready().load(SeqCst), 1 << 7);
        test.equal("head of the queue", fifo.first(7), port);
        test.succeeds("send again", call::send(port));
        test.equal("taken", fifo.take(), Some((port, true)));
        test.equal("nothing more", fifo.take(), None);
        test.succeeds("close", call::close(port));
    }

    fn priorities(test: &mut Test, fifo: &mut Fifo) {
        let ports: [u32; 4] = core::array::from_fn(|_| event::ipi(0));
        for (port, priority) in ports.into_iter().zip([15, 3, 0, 7]) {
            fifo.unmask(port);
            test.succeeds(
                "set_priority",
                call::event(EventChannelOp::SetPriority, &mut SetPriority { port, priority }),
            );
        }
        test.fails(
            "priority 16",
            call::event(EventChannelOp::SetPriority, &mut SetPriority { port: ports[0], priority: 16 }),
            Errno::EINVAL,
        );
        test.fails(
            "priority of no port",
            call::event(EventChannelOp::SetPriority, &mut SetPriority { port: 1 << 20, priority: 1 }),
            Errno::EINVAL,
        );
        for port in ports {
            test.succeeds("send", call::send(port));
        }
        test.equal("ready bits", fifo.ready().load(SeqCst), 1 << 15 | 1 << 3 | 1 | 1 << 7);
        let order = [ports[2], ports[1], ports[3], ports[0]];
        for port in order {
            test.equal("in the order of priority", fifo.take(), Some((port, true)));
        }
        // Equal priority: in the order of sending.
        for port in ports {
            call::event(EventChannelOp::SetPriority, &mut SetPriority { port, priority: 5 });
        }
        for port in [ports[3], ports[0], ports[2], ports[1]] {
            test.succeeds("send", call::send(port));
        }
        for port in [ports[3], ports[0], ports[2], ports[1]] {
            test.equal("first in, first out", fifo.take(), Some((port, true)));
        }
        test.equal("empty", fifo.take(), None);
        for port in ports {
            test.succeeds("close", call::close(port));
        }
    }

    fn masking(test: &mut Test, fifo: &mut Fifo) {
        let port = event::ipi(0);
        fifo.mask(port);
        test.succeeds("send masked", call::send(port));
        test.equal(
            "pending, not linked",
            fifo.word(port).load(SeqCst) & (FIFO_PENDING | FIFO_LINKED | FIFO_MASKED),
            FIFO_PENDING | FIFO_MASKED,
        );
        test.equal("nothing queued", fifo.take(), None);
        test.succeeds("unmask", call::event(EventChannelOp::Unmask, &mut Port { port }));
        test.equal("queued by unmasking", fifo.take(), Some((port, true)));
        // Masked while it is queued: taken off, but it does not fire.
        test.succeeds("send", call::send(port));
        fifo.mask(port);
        test.equal("masked in the queue", fifo.take(), Some((port, false)));
        test.succeeds("close", call::close(port));
    }

    fn many(test: &mut Test, fifo: &mut Fifo) {
        let mut highest = 0;
        let mut count = 0;
        let end = loop {
            let mut bind = BindIpi { vcpu: 0, port: 0 };
            let result = call::event(EventChannelOp::BindIpi, &mut bind);
            if result != 0 || bind.port >= 4900 {
                break result;
            }
            if bind.port % 1024 == 1023 && fifo.expand() != Ok(()) {
                test.holds("expand", false);
                break 0;
            }
            highest = bind.port;
            count += 1;
        };
        println!("GUEST-INFO {count} ports up to {highest}, then {end}");
        let limited = guests::role() == guests::Role::Guest;
        // xl gives a guest 1023 ports unless its configuration says otherwise; a control domain is not limited.
        test.check("ports", if limited { highest >= 1000 } else { highest > 4096 }, highest);
        if limited {
            test.fails("no more ports", end, Errno::ENOSPC);
        }
        for port in [highest, highest - 1, highest / 2] {
            fifo.unmask(port);
            test.succeeds("send on a high port", call::send(port));
            test.equal("high port", fifo.take(), Some((port, true)));
        }
    }

    fn second_control_block(test: &mut Test) {
        let frame = memory::take_pages(1) >> 12;
        test.fails("a second control block", init(frame, 0, 0).0, Errno::EINVAL);
        if guests::environment::vcpus() > 1 {
            let (result, bits) = init(frame, 128, 1);
            test.succeeds("control block of vCPU 1", result);
            test.equal("link bits", u32::from(bits), FIFO_LINK_BITS);
        }
    }

    fn reset(test: &mut Test) {
        if guests::console::port() != 0 {
            // It would close the console's port, too.
            return;
        }
        test.succeeds("reset", call::event(EventChannelOp::Reset, &mut Reset { dom: DOMID_SELF }));
        let shared = guests::shared::Shared::map();
        let port = event::ipi(0);
        test.succeeds("send", call::send(port));
        test.holds("bitmaps again", shared.is_pending(port));
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
