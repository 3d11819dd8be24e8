//! One test per class of MSRs, on a guest of the fake machine.

use super::*;
use crate::domain::Role;
use crate::x86::testing::with_domain;

fn with_vcpu(work: impl FnOnce(&Host, &Domain, &Vcpu, &mut Hardware)) {
    with_domain(Role::Guest, 1, |_, host, domain| {
        let vcpu = domain.vcpu(0).unwrap();
        let mut hardware = vcpu.hardware.try_lock().unwrap();
        work(host, domain, vcpu, &mut hardware);
    });
}

#[test]
fn efer() {
    with_vcpu(|host, domain, vcpu, hardware| {
        assert_eq!(read(domain, vcpu, hardware, msr::EFER), Ok(0), "SVME is not the guest's to see");
        assert_eq!(write(host, domain, vcpu, hardware, msr::EFER, 0xd01), Ok(()));
        assert_eq!(read(domain, vcpu, hardware, msr::EFER), Ok(0x901), "LMA is hardware's");
        assert_eq!(hardware.guest().efer(), 0x901);
        assert_eq!(write(host, domain, vcpu, hardware, msr::EFER, 1 << 12), Err(Refused), "no nested SVM");
        assert_eq!(write(host, domain, vcpu, hardware, msr::EFER, 1 << 13), Err(Refused), "no LMSLE");
        hardware.guest_mut().cr0 |= 1 << 31 | 1;
        assert_eq!(write(host, domain, vcpu, hardware, msr::EFER, 0x801), Err(Refused), "LME changes with paging off");
        assert_eq!(write(host, domain, vcpu, hardware, msr::EFER, 0x101), Ok(()));
    });
}

#[test]
fn page_attributes_and_clock() {
    with_vcpu(|host, domain, vcpu, hardware| {
        assert_eq!(read(domain, vcpu, hardware, msr::PAT), Ok(0x0007_0406_0007_0406));
        assert_eq!(write(host, domain, vcpu, hardware, msr::PAT, 0x0407_0506_0100_0406), Ok(()));
        assert_eq!(hardware.guest().g_pat, 0x0407_0506_0100_0406);
        for bad in [2, 3 << 8, 8 << 56] {
            assert_eq!(write(host, domain, vcpu, hardware, msr::PAT, bad), Err(Refused));
        }
        assert_eq!(write(host, domain, vcpu, hardware, msr::TSC, 5000), Ok(()));
        assert_eq!(read(domain, vcpu, hardware, msr::TSC), Ok(5000), "time stands still in the test");
        assert_eq!(write(host, domain, vcpu, hardware, msr::TSC_AUX, 7), Ok(()));
        assert_eq!(read(domain, vcpu, hardware, msr::TSC_AUX), Ok(7));
        assert_eq!(write(host, domain, vcpu, hardware, msr::TSC_AUX, 1 << 32), Err(Refused));
    });
}

#[test]
fn memory_type_ranges() {
    with_vcpu(|host, domain, vcpu, hardware| {
        assert_eq!(read(domain, vcpu, hardware, 0xfe), Ok(0x508));
        assert_eq!(write(host, domain, vcpu, hardware, 0xfe, 0x508), Err(Refused));
        let all = (0x200..0x210).chain([0x250, 0x258, 0x259]).chain(0x268..0x270);
        for number in all {
            let is_mask = number < 0x210 && number % 2 == 1;
            let value = if is_mask { 0xffff_8000_0800 } else { 6 };
            assert_eq!(read(domain, vcpu, hardware, number), Ok(0), "{number:#x}");
            assert_eq!(write(host, domain, vcpu, hardware, number, value), Ok(()), "{number:#x}");
            assert_eq!(read(domain, vcpu, hardware, number), Ok(value));
            let reserved = if is_mask { 1 } else { 2 };
            assert_eq!(write(host, domain, vcpu, hardware, number, reserved), Err(Refused), "{number:#x}");
        }
        assert_eq!(write(host, domain, vcpu, hardware, 0x200, 1 << 48 | 6), Err(Refused), "48 bits of address");
        for absent in [0x210, 0x251, 0x25a, 0x267, 0x270] {
            assert_eq!(read(domain, vcpu, hardware, absent), Err(Refused), "{absent:#x}");
        }
        assert_eq!(write(host, domain, vcpu, hardware, 0x2ff, 0xc06), Ok(()));
        assert_eq!(write(host, domain, vcpu, hardware, 0x2ff, 0xc02), Err(Refused));
        assert_eq!(write(host, domain, vcpu, hardware, 0x2ff, 0x1006), Err(Refused));
        assert_eq!(read(domain, vcpu, hardware, 0x2ff), Ok(0xc06));
        assert_eq!(Mtrr::FIRMWARE.fixed[2], 0, "the video window is not cached");
    });
}

#[test]
fn machine_check_banks() {
    with_vcpu(|host, domain, vcpu, hardware| {
        assert_eq!(read(domain, vcpu, hardware, 0x179), Ok(2));
        assert_eq!(write(host, domain, vcpu, hardware, 0x179, 2), Err(Refused));
        assert_eq!(write(host, domain, vcpu, hardware, 0x17a, 4), Ok(()));
        assert_eq!(read(domain, vcpu, hardware, 0x17a), Ok(4));
        for bank in 0..2u32 {
            let first = 0x400 + bank * 4;
            assert_eq!(read(domain, vcpu, hardware, first), Ok(u64::MAX));
            assert_eq!(write(host, domain, vcpu, hardware, first, 5), Ok(()));
            for other in 1..4 {
                assert_eq!(read(domain, vcpu, hardware, first + other), Ok(0));
                assert_eq!(write(host, domain, vcpu, hardware, first + other, 0), Ok(()));
                assert_eq!(write(host, domain, vcpu, hardware, first + other, 1), Err(Refused));
            }
        }
        assert_eq!(read(domain, vcpu, hardware, 0xc000_0408), Ok(1 << 61));
    });
}

#[test]
fn what_linux_touches_on_amd_processors() {
    with_vcpu(|host, domain, vcpu, hardware| {
        let constant = [
            (0x8b, 0),
            (0xce, 0),
            (0x140, 0),
            (0xc001_0000, 0),
            (0xc001_0007, 0),
            (0xc001_0010, 0),
            (0xc001_0015, 0),
            (0xc001_001a, 0),
            (0xc001_001f, 0),
            (0xc001_0055, 0),
            (0xc001_0200, 0),
            (0xc001_1029, 2),
            (0x4000_0000, 0),
        ];
        for (number, value) in constant {
            assert_eq!(read(domain, vcpu, hardware, number), Ok(value), "{number:#x}");
        }
        for ignored in [0xc001_001f, 0xc001_1029, 0xc001_0010, 0xc001_0020, 0xc001_0000] {
            assert_eq!(write(host, domain, vcpu, hardware, ignored, 0x1234), Ok(()), "{ignored:#x}");
        }
        let absent = [
            0x3a,
            0x3b,
            0x48,
            0x49,
            0x10a,
            0x10b,
            0x17,
            0x198,
            0x19c,
            0x4d0,
            0x6e0,
            0xd90,
            0xda0,
            0x400_0001,
            0x4000_0001,
            0xc000_0104,
            0xc001_0058,
            0xc001_1028,
            0xc001_1023,
            0xc001_0140,
            0xffff_ffff,
        ];
        for number in absent {
            assert_eq!(read(domain, vcpu, hardware, number), Err(Refused), "{number:#x}");
            assert_eq!(write(host, domain, vcpu, hardware, number, 0), Err(Refused), "{number:#x}");
        }
        assert_eq!(write(host, domain, vcpu, hardware, 0xc001_0015, 0), Err(Refused));
        assert_eq!(write(host, domain, vcpu, hardware, 0x140, 1), Err(Refused));
        assert_eq!(write(host, domain, vcpu, hardware, 0x4000_0000, 0x1001), Err(Refused), "there is one page");
        assert_eq!(write(host, domain, vcpu, hardware, 0x4000_0000, 0xffff_f000), Err(Refused), "not RAM");
    });
}

#[test]
fn nothing_panics() {
    with_vcpu(|host, domain, vcpu, hardware| {
        let interesting = (0..0x2000u32).chain(0x4000_0000..0x4000_0400).chain(0xc000_0000..0xc000_2000);
        for number in interesting.chain(0xc001_0000..0xc001_2000).chain([u32::MAX]) {
            let before = read(domain, vcpu, hardware, number);
            for value in [0, 1, u64::MAX, 0xfee0_0900] {
                write(host, domain, vcpu, hardware, number, value).ok();
            }
            if let Ok(value) = before {
                write(host, domain, vcpu, hardware, number, value).ok();
            }
        }
    });
}
