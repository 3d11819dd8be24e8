//! Tests of records: round trips, and that bad ones change nothing.

use super::*;
use crate::domain::Role;
use crate::x86::testing::{with_domain, with_guest};
use machine::codec::registers::{Register, cr0, cr4, efer};
use proptest::prelude::*;
use public_abi::arch_hvm_save::HvmHwCpuXsave;
use std::vec::Vec;

fn save(domain: &Domain, vcpu: &Vcpu, code: SaveCode) -> Vec<u8> {
    let mut bytes = std::vec![0; record_room(domain, code)];
    let length = save_record(domain, vcpu, code, &mut bytes).unwrap().unwrap();
    bytes.truncate(length);
    bytes
}

const ALL: [SaveCode; 6] =
    [SaveCode::Cpu, SaveCode::CpuXsave, SaveCode::Lapic, SaveCode::LapicRegs, SaveCode::Mtrr, SaveCode::TscAdjust];

/// A guest in long mode, off its CPU.
fn with_vcpu(work: impl FnOnce(&Host, &Domain, &Vcpu)) {
    with_domain(Role::Guest, 2, |machine, host, domain| {
        machine.advance(1000);
        let vcpu = domain.vcpu(0).unwrap();
        vcpu.clear_wait(Wait::DOWN);
        let mut hardware = vcpu.hardware.try_lock().unwrap();
        let long = crate::x86::walk::tests::long_mode(0x1000);
        let state = hardware.guest_mut();
        (state.cr0, state.cr3, state.cr4) = (long.cr0 | cr0::ET, long.cr3, cr4::PAE);
        state.set_efer(long.efer());
        state.cs = long.cs;
        (state.lstar, state.star, state.kernel_gs_base) = (0xffff_ffff_8100_0000, 0x23_0010 << 32, 0x7000);
        hardware.set_tsc_offset(500);
        hardware.inject(machine::codec::vmcb::event::VALID | 0x31);
        hardware.set_register(Register::R11, 11);
        hardware.lazy_mut().tsc_aux = 9;
        hardware.lazy_mut().xcr0 = 7;
        hardware.lazy_mut().debug_address = [1, 2, 3, 4];
        drop(hardware);
        work(host, domain, vcpu);
    });
}

#[test]
fn a_vcpu_moves_to_another() {
    with_vcpu(|host, domain, vcpu| {
        let other = domain.vcpu(1).unwrap();
        for code in ALL {
            let bytes = save(domain, vcpu, code);
            load_record(host, domain, other, code, &bytes).unwrap_or_else(|error| panic!("{code:?}: {error:?}"));
            if code != SaveCode::LapicRegs {
                assert_eq!(save(domain, other, code), bytes, "{code:?}");
            }
        }
        assert!(!other.wait().contains(Wait::DOWN), "a vCPU with registers runs");
        let hardware = other.hardware.try_lock().unwrap();
        assert_eq!(hardware.register(Register::R11), 11);
        assert_eq!(hardware.guest().efer() & (efer::LMA | efer::SVME), efer::LMA, "the guest does not see SVME");
        assert_eq!((hardware.lazy().xcr0, hardware.lazy().tsc_aux), (7, 9));
        assert_eq!(hardware.control().tsc_offset, 500);
        assert_eq!(other.events.time.tsc_offset(), 500, "the guest's clock page counts from the same offset");
        assert!(hardware.has_injection());
    });
}

#[test]
fn an_init_from_before_does_not_undo_a_restore() {
    with_vcpu(|host, domain, vcpu| {
        let other = domain.vcpu(1).unwrap();
        other.x86.startup.note(crate::x86::Startup::INIT);
        let bytes = save(domain, vcpu, SaveCode::Cpu);
        load_record(host, domain, other, SaveCode::Cpu, &bytes).unwrap();
        let mut hardware = other.hardware.try_lock().unwrap();
        crate::x86::interrupts::prepare(host, domain, other, &mut hardware).unwrap();
        assert_eq!(hardware.register(Register::R11), 11);
        assert!(hardware.is_64_bit());
    });
}

#[test]
fn an_event_whose_delivery_an_exit_interrupted_is_saved() {
    use machine::codec::vmcb::event;
    const INTERRUPT: u64 = event::VALID | event::INTERRUPT | 0x41;
    const PAGE_FAULT: u64 = event::VALID | event::EXCEPTION | event::HAS_ERROR | 14 | 2 << 32;
    const DOUBLE_FAULT: u64 = event::VALID | event::EXCEPTION | event::HAS_ERROR | 8;
    let cases = [
        (0, INTERRUPT, INTERRUPT),
        (0, PAGE_FAULT, PAGE_FAULT),
        (0, INTERRUPT & !event::VALID, 0),
        // The instruction raises it again.
        (0, event::VALID | event::SOFTWARE | 0x80, 0),
        (PAGE_FAULT, PAGE_FAULT, DOUBLE_FAULT),
        (PAGE_FAULT, DOUBLE_FAULT, DOUBLE_FAULT),
        (PAGE_FAULT, 0, PAGE_FAULT),
    ];
    with_vcpu(|host, domain, vcpu| {
        for (queued, interrupted, expected) in cases {
            let mut hardware = vcpu.hardware.try_lock().unwrap();
            hardware.inject(queued);
            machine::fake::vmcb_mut(&mut hardware).control.exit_int_info = interrupted;
            drop(hardware);
            let bytes = save(domain, vcpu, SaveCode::Cpu);
            let other = domain.vcpu(1).unwrap();
            load_record(host, domain, other, SaveCode::Cpu, &bytes).unwrap();
            let restored = other.hardware.try_lock().unwrap().control().event_injection;
            assert_eq!(restored, expected, "{queued:#x} {interrupted:#x}");
        }
    });
}

#[test]
fn a_vcpu_that_is_down_has_no_registers_to_save() {
    with_vcpu(|_, domain, _| {
        let mut out = [0; 2048];
        let down = domain.vcpu(1).unwrap();
        assert_eq!(save_record(domain, down, SaveCode::Cpu, &mut out), Ok(None));
        assert_eq!(save_record(domain, down, SaveCode::Mtrr, &mut out), Ok(Some(240)));
        assert_eq!(save_record(domain, down, SaveCode::Mtrr, &mut out[..100]), Err(Errno::ENOBUFS));
        assert_eq!(save_record(domain, down, SaveCode::Ioapic, &mut out), Ok(None));
        let _running = down.hardware.try_lock().unwrap();
        assert_eq!(save_record(domain, down, SaveCode::Mtrr, &mut out), Err(Errno::ENODATA));
    });
}

#[test]
fn what_libxl_writes_for_a_pvh_guest_is_taken() {
    with_domain(Role::Guest, 1, |_, host, domain| {
        let vcpu = domain.vcpu(0).unwrap();
        // 32-bit flat protected mode, as libxl's vcpu_hvm.
        let record = HvmHwCpu {
            cs_limit: u32::MAX,
            ds_limit: u32::MAX,
            es_limit: u32::MAX,
            ss_limit: u32::MAX,
            cs_arbytes: 0xc9b,
            ds_arbytes: 0xc93,
            es_arbytes: 0xc93,
            ss_arbytes: 0xc93,
            tr_arbytes: 0x8b,
            tr_limit: 0x67,
            cr0: cr0::PE | cr0::ET,
            dr6: 0xffff_0ff0,
            dr7: 0x400,
            rip: 0x100_0850,
            rbx: 0x9000,
            rflags: 2,
            ..HvmHwCpu::default()
        };
        load_record(host, domain, vcpu, SaveCode::Cpu, record.as_bytes()).unwrap();
        let hardware = vcpu.hardware.try_lock().unwrap();
        assert_eq!(hardware.register(Register::Rbx), 0x9000);
        assert_eq!(hardware.guest().rip, 0x100_0850);
        assert_eq!(hardware.guest().cs.attributes, 0xc9b);
        assert!(!vcpu.wait().contains(Wait::DOWN));
        drop(hardware);
        // The same from an old stream of an Intel host.
        let old = HvmHwCpu { cs_arbytes: 0xc09b, ..record };
        load_record(host, domain, vcpu, SaveCode::Cpu, old.as_bytes()).unwrap();
        assert_eq!(vcpu.hardware.try_lock().unwrap().guest().cs.attributes, 0xc9b);
    });
}

#[test]
fn bad_registers_are_refused_whole() {
    with_vcpu(|host, domain, vcpu| {
        let good = HvmHwCpu::read_from_bytes(&save(domain, vcpu, SaveCode::Cpu)).unwrap();
        let refused = |change: &dyn Fn(&mut HvmHwCpu)| {
            let mut bad = HvmHwCpu { r11: 999, ..good };
            change(&mut bad);
            let reply = load_record(host, domain, vcpu, SaveCode::Cpu, bad.as_bytes());
            let unchanged = vcpu.hardware.try_lock().unwrap().register(Register::R11) == 11;
            reply == Err(Errno::EINVAL) && unchanged
        };
        let changes: [&dyn Fn(&mut HvmHwCpu); 23] = [
            &|cpu| cpu.cr0 |= 1 << 32,
            &|cpu| cpu.cr0 &= !cr0::PE,
            &|cpu| cpu.cr0 &= !cr0::PG,
            &|cpu| cpu.cr0 |= cr0::NW,
            &|cpu| cpu.cr4 |= 1 << 13,
            &|cpu| cpu.cr4 &= !cr4::PAE,
            &|cpu| cpu.cr3 |= 1 << 60,
            &|cpu| cpu.msr_efer |= efer::SVME,
            &|cpu| cpu.msr_efer &= !efer::LMA,
            &|cpu| cpu.dr6 |= 1 << 32,
            &|cpu| cpu.dr7 |= 1 << 40,
            &|cpu| cpu.flags = 2,
            &|cpu| cpu.pad0 = 1,
            &|cpu| cpu.msr_tsc_aux = 1 << 32,
            &|cpu| cpu.msr_lstar = 1 << 48,
            &|cpu| cpu.gs_base = 1 << 63,
            &|cpu| cpu.cs_sel = 0x1_0000,
            &|cpu| cpu.cs_arbytes |= 0x400,
            &|cpu| cpu.pending_event = 1 << 31 | 1 << 8,
            &|cpu| cpu.pending_event = 1 << 31 | 3 << 8 | 2,
            &|cpu| cpu.pending_event = 1 << 31 | 3 << 8 | 32,
            &|cpu| cpu.pending_event = 1 << 31 | 1 << 20,
            &|cpu| cpu.fpu_regs[27] = 1,
        ];
        for (number, change) in changes.iter().enumerate() {
            assert!(refused(*change), "change {number}");
        }
        assert!(!refused(&|_| ()));
        let bytes = good.as_bytes();
        assert_eq!(load_record(host, domain, vcpu, SaveCode::Cpu, &bytes[1..]), Err(Errno::EINVAL));
    });
}

#[test]
fn what_xrstor_would_refuse_never_gets_in() {
    with_vcpu(|host, domain, vcpu| {
        let good = save(domain, vcpu, SaveCode::CpuXsave);
        assert_eq!(good.len(), 24 + 832, "up to the AVX component");
        let load = |change: &dyn Fn(&mut HvmHwCpuXsave), extra: usize| {
            let mut bytes = good.clone();
            let (mut record, _) = HvmHwCpuXsave::read_from_prefix(&bytes).unwrap();
            change(&mut record);
            record.write_to_prefix(&mut bytes).unwrap();
            bytes.resize(good.len() + extra, 0);
            load_record(host, domain, vcpu, SaveCode::CpuXsave, &bytes)
        };
        assert_eq!(load(&|_| (), 0), Ok(()));
        assert_eq!(load(&|_| (), 64), Ok(()), "a longer area of zeroes");
        assert_eq!(load(&|record| record.xstate_bv = 7, 0), Ok(()));
        let changes: [&dyn Fn(&mut HvmHwCpuXsave); 9] = [
            &|record| record.xstate_bv = 8,
            &|record| record.xstate_bv = 1 << 63,
            &|record| record.xcomp_bv = 1 << 63,
            &|record| record.xsave_reserved[5] = 1,
            &|record| record.fpu_sse[27] = 0x80,
            &|record| record.xcr0 = 0,
            &|record| record.xcr0 = 5,
            &|record| record.xcr0_accum = 3,
            &|record| record.xcr0_accum |= 1 << 9,
        ];
        for (number, change) in changes.iter().enumerate() {
            assert_eq!(load(*change, 0), Err(Errno::EINVAL), "change {number}");
        }
        for length in [0, 23, 599, 600, good.len() - 1] {
            assert_eq!(load_record(host, domain, vcpu, SaveCode::CpuXsave, &good[..length]), Err(Errno::EINVAL));
        }
        let mut longer = good.clone();
        longer.push(1);
        assert_eq!(load_record(host, domain, vcpu, SaveCode::CpuXsave, &longer), Err(Errno::EINVAL));
    });
}

#[test]
fn other_records_are_checked() {
    with_vcpu(|host, domain, vcpu| {
        let load = |code, bytes: &[u8]| load_record(host, domain, vcpu, code, bytes);
        let hidden = HvmHwLapic::read_from_bytes(&save(domain, vcpu, SaveCode::Lapic)).unwrap();
        assert_eq!((hidden.disabled, hidden.timer_divisor), (1, 2));
        let with_base = |base| HvmHwLapic { apic_base_msr: base, ..hidden };
        assert_eq!(load(SaveCode::Lapic, with_base(0xfee0_0d00).as_bytes()), Ok(()), "straight to x2APIC mode");
        for base in [0xfee0_0500, 0xfed0_0900, 0xfee0_0901, 1 << 60] {
            assert_eq!(load(SaveCode::Lapic, with_base(base).as_bytes()), Err(Errno::EINVAL), "{base:#x}");
        }
        let mut page = HvmHwLapicRegs::default();
        page.data[0x200] = 1;
        assert_eq!(load(SaveCode::LapicRegs, page.as_bytes()), Err(Errno::EINVAL), "vector 0 requested");
        page.data[0x200] = 0;
        page.data[0xf1] = 1;
        page.data[0x80] = 0x35;
        page.data[0x232] = 1;
        assert_eq!(load(SaveCode::LapicRegs, page.as_bytes()), Ok(()));
        assert_eq!(vcpu.x86.lapic.pending(), crate::x86::vlapic::Pending::Vector(0x70));
        assert_eq!(vcpu.hardware.try_lock().unwrap().control().v_intr & 0xf, 3);
        let mtrr = HvmHwMtrr::read_from_bytes(&save(domain, vcpu, SaveCode::Mtrr)).unwrap();
        let enabled = HvmHwMtrr { msr_mtrr_def_type: 0xc06, msr_mtrr_var: [6; 16].map(|_| 0), ..mtrr };
        assert_eq!(load(SaveCode::Mtrr, enabled.as_bytes()), Ok(()));
        for bad in [
            HvmHwMtrr { msr_mtrr_cap: 9, ..mtrr },
            HvmHwMtrr { msr_pat_cr: 2, ..mtrr },
            HvmHwMtrr { msr_mtrr_def_type: 2, ..mtrr },
            HvmHwMtrr { msr_mtrr_fixed: [3; 11], ..mtrr },
        ] {
            assert_eq!(load(SaveCode::Mtrr, bad.as_bytes()), Err(Errno::EINVAL));
        }
        assert_eq!(vcpu.x86.stored.lock().mtrr.default_type, 0xc06, "the last good one");
        assert_eq!(load(SaveCode::TscAdjust, &1u64.to_le_bytes()), Err(Errno::EINVAL));
        let msrs = |entries: &[(u32, u32, u64)]| {
            let mut bytes = (entries.len() as u64).to_le_bytes().to_vec();
            for (index, rsvd, val) in entries {
                bytes.extend(HvmOneMsr { index: *index, rsvd: *rsvd, val: *val }.as_bytes());
            }
            bytes
        };
        assert_eq!(load(SaveCode::CpuMsr, &msrs(&[(0x140, 0, 0), (0xda0, 0, 0)])), Ok(()));
        assert_eq!(load(SaveCode::CpuMsr, &msrs(&[(0x140, 0, 1)])), Err(Errno::EINVAL));
        assert_eq!(load(SaveCode::CpuMsr, &msrs(&[(0x999, 0, 0)])), Err(Errno::ENXIO));
        assert_eq!(load(SaveCode::CpuMsr, &msrs(&[(0x140, 1, 0)])), Err(Errno::EINVAL));
        assert_eq!(load(SaveCode::CpuMsr, &u64::MAX.to_le_bytes()), Err(Errno::EINVAL));
        assert_eq!(load(SaveCode::Pit, &[]), Err(Errno::ENODEV));
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn random_records_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), code in 0u32..22) {
        let Ok(code) = SaveCode::try_from(code) else { return Ok(()) };
        with_guest(Role::Guest, &[], |_, host, domain, vcpu, _| {
            let other = Vcpu::try_new(domain.id, 1, domain.p2m.root()).unwrap();
            for vcpu in [vcpu, &other] {
                load_record(host, domain, vcpu, code, &bytes).ok();
                let size = record_room(domain, code);
                if size > 0 && bytes.len() >= size {
                    load_record(host, domain, vcpu, code, &bytes[..size]).ok();
                }
            }
        });
    }
}
