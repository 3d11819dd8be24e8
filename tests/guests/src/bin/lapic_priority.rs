//! Priorities of the local APIC: TPR and CR8 hold interrupts back, PPR follows, nesting goes by class.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::sync::atomic::AtomicU32;
    use core::sync::atomic::Ordering::SeqCst;
    use guests::code::{GET_CR8, SET_CR8};
    use guests::{Test, clock, environment};
    use rt::{Registers, apic, trap};

    guests::guest!("lapic_priority", run);

    static PPR_INSIDE: AtomicU32 = AtomicU32::new(0);
    static ORDER: [AtomicU32; 4] = [const { AtomicU32::new(0) }; 4];
    static NEXT: AtomicU32 = AtomicU32::new(0);

    fn note(vector: u32) {
        PPR_INSIDE.store(apic::read(apic::PPR), SeqCst);
        let place = NEXT.fetch_add(1, SeqCst) as usize;
        if let Some(slot) = ORDER.get(place) {
            slot.store(vector, SeqCst);
        }
    }

    fn to_self(vector: u8) {
        apic::send(0, u32::from(vector) | apic::ASSERT | apic::SHORTHAND_SELF);
    }

    fn run(test: &mut Test) {
        apic::enable();
        trap::on_interrupt(0x40, || note(0x40));
        trap::on_interrupt(0x51, || note(0x51));
        trap::on_interrupt(0x58, || note(0x58));
        trap::on_interrupt(0x90, || note(0x90));
        held_back(test);
        cr8(test);
        order(test);
        in_service(test);
    }

    fn held_back(test: &mut Test) {
        rt::enable_interrupts();
        // A task priority of the interrupt's own class makes Xen under QEMU exit without end: QEMU 10 opens the interrupt
        // window when V_INTR_PRIO equals V_TPR, the manual wants it greater (AMD APM volume 2, section 15.21.4).
        let own_class = environment::is_oxen();
        for (tpr, passes) in [(0x30, true), (0x3f, true), (0x40, false), (0x4f, false), (0x50, false), (0xf0, false)] {
            if tpr >> 4 == 4 && !own_class {
                continue;
            }
            apic::write(apic::TPR, tpr);
            let before = trap::interrupts(0, 0x40);
            to_self(0x40);
            clock::delay(2);
            let came = trap::interrupts(0, 0x40) != before;
            test.check("by class", came == passes, format_args!("TPR {tpr:#x}"));
            test.equal("PPR follows TPR", apic::read(apic::PPR), tpr);
            test.equal("waits", apic::requested(0x40), !passes);
            apic::write(apic::TPR, 0);
            test.holds("delivered when TPR falls", clock::within(1000, || trap::interrupts(0, 0x40) == before + 1));
        }
        rt::disable_interrupts();
        test.equal("PPR inside of the handler", PPR_INSIDE.load(SeqCst), 0x40);
        test.equal("PPR outside", apic::read(apic::PPR), 0);
    }

    fn get_cr8() -> u64 {
        let mut registers = Registers::default();
        rt::execute(GET_CR8, &mut registers).ok();
        registers.rax
    }

    fn set_cr8(value: u64) -> Result<(), rt::Fault> {
        rt::execute(SET_CR8, &mut Registers { rax: value, ..Default::default() })
    }

    fn cr8(test: &mut Test) {
        test.runs("write", set_cr8(5));
        test.equal("CR8 reads back", get_cr8(), 5);
        test.equal("TPR follows CR8", apic::read(apic::TPR), 0x50);
        apic::write(apic::TPR, 0x70);
        test.equal("CR8 follows TPR", get_cr8(), 7);
        // Not tried: CR8 lowered while an interrupt waits for it, and reserved bits. QEMU 10 aborts at the first
        // (cpu_interrupt without its lock) and lets the second pass.
        test.runs("write", set_cr8(0));
        test.equal("TPR", apic::read(apic::TPR), 0);
    }

    /// Several wait at once: the highest comes first.
    fn order(test: &mut Test) {
        NEXT.store(0, SeqCst);
        for vector in [0x40, 0x90, 0x51, 0x58] {
            to_self(vector);
        }
        rt::enable_interrupts();
        test.holds("all come", clock::within(1000, || NEXT.load(SeqCst) == 4));
        rt::disable_interrupts();
        let order = [0, 1, 2, 3].map(|place: usize| ORDER[place].load(SeqCst));
        test.equal("from high to low", order, [0x90, 0x58, 0x51, 0x40]);
    }

    /// One that is not acknowledged holds back its class and those below.
    fn in_service(test: &mut Test) {
        trap::hold(0x51);
        rt::enable_interrupts();
        to_self(0x51);
        clock::delay(2);
        test.holds("in service", apic::in_service(0x51));
        test.equal("PPR", apic::read(apic::PPR), 0x50);
        let before = [0x40, 0x58, 0x90].map(|vector| trap::interrupts(0, vector));
        [0x40, 0x58, 0x90].into_iter().for_each(to_self);
        clock::delay(2);
        let now = [0x40, 0x58, 0x90].map(|vector| trap::interrupts(0, vector));
        test.equal(
            "only the higher class comes",
            [now[0] - before[0], now[1] - before[1], now[2] - before[2]],
            [0, 0, 1],
        );
        trap::hold(0);
        apic::end_of_interrupt();
        test.holds(
            "the others after the end of interrupt",
            clock::within(1000, || trap::interrupts(0, 0x40) > before[0] && trap::interrupts(0, 0x58) > before[1]),
        );
        rt::disable_interrupts();
        test.equal("nothing in service", apic::read(apic::PPR), 0);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
