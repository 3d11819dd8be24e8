//! first light
use keystone::control::Control;
use keystone::trap::FakeTrap;
use keystone::world::{Plan, World};
use libxc::Handle;
use machine::fake::TestAllocator;

#[global_allocator]
static ALLOCATOR: TestAllocator = TestAllocator;

#[test]
fn boots() {
    World::with(&Plan::default(), |world| {
        let control = Control::boot(world);
        let handle = Handle::new(FakeTrap::new(&control)).unwrap();
        println!("{:?}", handle.version());
        println!("{:?}", handle.capabilities());
        println!("{:?}", handle.domains());
        println!("{}", world.machine.console());
        println!("{:?}", world.ledger());
    });
}
