//! Event channels with bitmaps: every operation, its effect in shared_info, and bad arguments.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::shared::Shared;
    use guests::{Test, call, console, event, println};
    use public_abi::Errno;
    use public_abi::domid::DOMID_SELF;
    use public_abi::event_channel::{
        AllocUnbound, BindInterdomain, BindIpi, BindPirq, BindVcpu, BindVirq, EventChannelOp, ExpandArray, Port,
        PortStatus, SetPriority, Status,
    };
    use public_abi::virq::Virq;

    guests::guest!("evtchn_2level", run);

    fn run(test: &mut Test) {
        let shared = Shared::map();
        send_to_self(test, shared);
        pairs(test, shared);
        bad_arguments(test);
        virqs(test);
        many(test);
    }

    fn send_to_self(test: &mut Test, shared: Shared) {
        let port = event::ipi(0);
        test.equal("status", event::status(port), Ok((PortStatus::Ipi.number(), 0, [0, 0])));
        let vcpu = shared.vcpu(0);
        vcpu.upcall_pending().store(0, SeqCst);
        vcpu.selector().store(0, SeqCst);
        test.succeeds("send", call::send(port));
        test.holds("pending", shared.is_pending(port));
        test.equal("selector", vcpu.selector().load(SeqCst), 1 << (port / 64));
        test.equal("upcall pending", vcpu.upcall_pending().load(SeqCst), 1);
        // A second event of a pending port changes nothing.
        vcpu.upcall_pending().store(0, SeqCst);
        vcpu.selector().store(0, SeqCst);
        test.succeeds("send again", call::send(port));
        test.equal("no second upcall", (vcpu.upcall_pending().load(SeqCst), vcpu.selector().load(SeqCst)), (0, 0));
        test.holds("taken", shared.take_pending(port));
        // Masked: pending, but no upcall until it is unmasked.
        shared.mask(port);
        test.succeeds("send masked", call::send(port));
        test.holds("pending though masked", shared.is_pending(port));
        test.equal(
            "no upcall of a masked port",
            (vcpu.upcall_pending().load(SeqCst), vcpu.selector().load(SeqCst)),
            (0, 0),
        );
        test.succeeds("unmask", call::event(EventChannelOp::Unmask, &mut Port { port }));
        test.holds("mask cleared", !shared.is_masked(port));
        test.equal(
            "upcall made up for",
            (vcpu.upcall_pending().load(SeqCst), vcpu.selector().load(SeqCst)),
            (1, 1 << (port / 64)),
        );
        test.holds("taken after unmasking", shared.take_pending(port));
        test.succeeds("close", call::close(port));
        test.equal("closed", event::status(port), Ok((0, 0, [0, 0])));
        test.fails("close twice", call::close(port), Errno::EINVAL);
        test.fails("send on a closed port", call::send(port), Errno::EINVAL);
    }

    fn pairs(test: &mut Test, shared: Shared) {
        let (near, far) = event::pair();
        let own = guests::environment::domain_id().unwrap_or(0);
        let interdomain = PortStatus::Interdomain.number();
        test.equal("near end", event::status(near), Ok((interdomain, 0, [own.into(), far])));
        test.equal("far end", event::status(far), Ok((interdomain, 0, [own.into(), near])));
        // Binding raises the local end at once.
        test.holds("local end raised by binding", shared.take_pending(near));
        test.succeeds("send", call::send(near));
        test.equal("far end is raised", (shared.take_pending(near), shared.take_pending(far)), (false, true));
        test.succeeds("send back", call::send(far));
        test.equal("near end is raised", (shared.take_pending(near), shared.take_pending(far)), (true, false));
        let mut bind = BindInterdomain { remote_dom: DOMID_SELF, remote_port: far, ..Default::default() };
        test.fails("bind a bound port", call::event(EventChannelOp::BindInterdomain, &mut bind), Errno::EINVAL);
        test.succeeds("close one end", call::close(near));
        test.equal(
            "the other end waits again",
            event::status(far),
            Ok((PortStatus::Unbound.number(), 0, [own.into(), 0])),
        );
        test.check("send on an unbound port", call::send(far) <= 0, call::send(far));
        test.succeeds("close the other end", call::close(far));
    }

    fn bad_arguments(test: &mut Test) {
        for port in [0, 4096, 1 << 17, u32::MAX] {
            test.fails("send", call::send(port), Errno::EINVAL);
            test.fails("close", call::close(port), Errno::EINVAL);
            // Port 0 is reserved, yet Xen unmasks it.
            let unmasked = call::event(EventChannelOp::Unmask, &mut Port { port });
            test.equal("unmask", unmasked, if port == 0 { 0 } else { guests::check::error(Errno::EINVAL) });
            test.fails(
                "bind_vcpu",
                call::event(EventChannelOp::BindVcpu, &mut BindVcpu { port, vcpu: 0 }),
                Errno::EINVAL,
            );
            let mut status = Status { dom: DOMID_SELF, port, ..Default::default() };
            let result = call::event(EventChannelOp::Status, &mut status);
            test.check(
                "status",
                if port == 0 {
                    result == 0 && status.status == 0
                } else {
                    result == guests::check::error(Errno::EINVAL)
                },
                format_args!("{port}: {result}"),
            );
            let mut bind = BindInterdomain { remote_dom: DOMID_SELF, remote_port: port, ..Default::default() };
            test.fails("bind_interdomain", call::event(EventChannelOp::BindInterdomain, &mut bind), Errno::EINVAL);
        }
        for vcpu in [64, 8192, u32::MAX] {
            test.fails("bind_ipi", call::event(EventChannelOp::BindIpi, &mut BindIpi { vcpu, port: 0 }), Errno::ENOENT);
            test.equal("virq", event::virq(Virq::Timer, vcpu), Err(guests::check::error(Errno::ENOENT)));
        }
        for dom in [77, 0x7ff4, 0xffff] {
            let mut unbound = AllocUnbound { dom, remote_dom: 0, port: 0 };
            test.fails("alloc_unbound", call::event(EventChannelOp::AllocUnbound, &mut unbound), Errno::ESRCH);
            let mut status = Status { dom, port: 1, ..Default::default() };
            test.fails("status of nobody", call::event(EventChannelOp::Status, &mut status), Errno::ESRCH);
        }
        let mut pirq = BindPirq { pirq: 4000, flags: 0, port: 0 };
        test.fails_any("bind_pirq", call::event(EventChannelOp::BindPirq, &mut pirq), &[Errno::EINVAL, Errno::EPERM]);
        let mut priority = SetPriority { port: 1, priority: 3 };
        test.fails("set_priority", call::event(EventChannelOp::SetPriority, &mut priority), Errno::ENOSYS);
        let expanded = call::event(EventChannelOp::ExpandArray, &mut ExpandArray { array_gfn: 0x300 });
        test.fails("expand_array", expanded, Errno::EOPNOTSUPP);
        test.fails("unknown", rt::hypercall(32, [15, call::address(&mut priority), 0, 0, 0]), Errno::ENOSYS);
    }

    fn virqs(test: &mut Test) {
        let port = event::virq(Virq::Debug, 0);
        test.check("VIRQ_DEBUG", port.is_ok(), format_args!("{port:?}"));
        let Ok(port) = port else { return };
        test.equal("status", event::status(port), Ok((PortStatus::Virq.number(), 0, [Virq::Debug.number(), 0])));
        test.equal("bound twice", event::virq(Virq::Debug, 0), Err(guests::check::error(Errno::EEXIST)));
        test.fails(
            "rebind a per-vCPU virq",
            call::event(EventChannelOp::BindVcpu, &mut BindVcpu { port, vcpu: 0 }),
            Errno::EINVAL,
        );
        test.succeeds("close", call::close(port));
        let again = event::virq(Virq::Debug, 0);
        test.holds("bound again", again.is_ok_and(|port| call::close(port) == 0));
        for number in [24, 25, u32::MAX] {
            let mut bind = BindVirq { virq: number, vcpu: 0, port: 0 };
            test.fails("no such virq", call::event(EventChannelOp::BindVirq, &mut bind), Errno::EINVAL);
        }
        let mut bind = BindVirq { virq: Virq::Argo.number(), vcpu: 1, port: 0 };
        test.fails_any(
            "a global virq on vCPU 1",
            call::event(EventChannelOp::BindVirq, &mut bind),
            &[Errno::EINVAL, Errno::ENOENT],
        );
    }

    /// All ports that the domain may have, then ENOSPC, then all free again.
    fn many(test: &mut Test) {
        let mut first = 0;
        let mut last = 0;
        let mut count = 0;
        let end = loop {
            let mut bind = BindIpi { vcpu: 0, port: 0 };
            let result = call::event(EventChannelOp::BindIpi, &mut bind);
            if result != 0 || count > 5000 {
                break result;
            }
            count += 1;
            if first == 0 {
                first = bind.port;
            }
            last = bind.port;
        };
        println!("GUEST-INFO {count} ports, {first} to {last}, then {end}");
        test.fails("no more ports", end, Errno::ENOSPC);
        test.check("many ports", (900..4096).contains(&count), count);
        test.succeeds("the last one works", call::send(last));
        let mut closed = 0;
        for port in first..=last {
            if port != console::port() && event::status(port).is_ok_and(|status| status.0 == PortStatus::Ipi.number()) {
                closed += u32::from(call::close(port) == 0);
            }
        }
        test.equal("all closed", closed, count);
        let port = event::ipi(0);
        test.equal("the first free port is used again", port, first);
    }
    use core::sync::atomic::Ordering::SeqCst;
}

#[cfg(not(target_os = "none"))]
fn main() {}
