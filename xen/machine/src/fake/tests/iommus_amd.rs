//! What `iommus` does not show of AMD's units: commands that name each device, the log of events, what is refused.

use super::iommus::{AMD, BASE, DEVICE, read, take_events, with_iommu};
use crate::boxed::OutOfMemory;
use crate::fake::{FakeMachine, Refused};
use crate::frame;
use crate::iommu::{EventKind, Forget, Iommu, Maker, Refusal, UnitFlags};
use crate::units::{Gfn, Maddr};
use std::vec::Vec;

#[test]
fn many_commands_wrap_around() {
    with_iommu(AMD, |machine, iommu, tree| {
        machine.make_iommu_old();
        iommu.enable().unwrap();
        let before = machine.iommu_commands().len();
        assert!(before > 2 * 0x1_0000, "without a command for everything, every device is named: {before}");
        iommu.translate(tree.root().as_io_root()).unwrap();
        for _ in 0..300 {
            iommu.forget(Forget::Page(Gfn::new(0x77))).unwrap();
        }
        let commands = machine.iommu_commands();
        let [.., forget, wait] = commands.as_slice() else { panic!("no commands") };
        assert_eq!(*forget, [0x3000_0001_0000_0000, 0x7_7002]);
        assert_eq!(wait[0] >> 60, 1);
    });
}

#[test]
fn refused_accesses_are_logged_and_an_overflow_is_survived() {
    with_iommu(AMD, |machine, iommu, tree| {
        iommu.enable().unwrap();
        iommu.translate(tree.root().as_io_root()).unwrap();
        assert_eq!(machine.dma_write(DEVICE, 0x1234_5678, &[1]), Err(Refused));
        assert_eq!(read(machine, 0x9000), Err(Refused));
        let take = || take_events(iommu);
        let fault = |is_write| EventKind::PageFault { is_write };
        assert_eq!(take(), [(DEVICE, 0x1234_5678, fault(true)), (DEVICE, 0x9000, fault(false))]);
        assert_eq!(take(), []);
        for _ in 0..600 {
            assert_eq!(read(machine, 0x9000), Err(Refused));
        }
        assert_eq!(take().len(), 255, "as many as the log holds");
        assert_eq!(take(), []);
        assert_eq!(read(machine, 0xa000), Err(Refused));
        assert_eq!(take(), [(DEVICE, 0xa000, fault(false))], "it goes on");
    });
}

#[test]
fn what_cannot_be_is_refused_and_nothing_is_lost() {
    let machine = FakeMachine::builder().pages(2048).build();
    machine.on_cpu(0, || {
        let before = frame::free_pages();
        let mut iommu = Iommu::try_new(Maker::Amd, Vec::new()).unwrap();
        for registers in [0, 0x1000, BASE + 0x1000] {
            assert_eq!(iommu.add(Maddr::new(registers), UnitFlags::default()), Err(Refusal::Registers));
        }
        assert_eq!(iommu.add(Maddr::new(0x4000), UnitFlags::default()), Err(Refusal::Registers), "RAM");
        iommu.add(Maddr::new(BASE), UnitFlags::default()).unwrap();
        drop(iommu);
        assert_eq!(frame::free_pages(), before);
    });
    FakeMachine::builder().pages(64).build().on_cpu(0, || {
        assert_eq!(Iommu::try_new(Maker::Amd, Vec::new()).map(drop), Err(OutOfMemory));
    });
}
