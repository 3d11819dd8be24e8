//! What all tests here begin with: a host that has booted, and a toolstack that has created and destroyed a domain once.
#![allow(dead_code, reason = "each test file is its own crate and uses some of the helpers")]

use keystone::control::Control;
use keystone::toolstack::Toolstack;
use keystone::world::{Plan, World};
use machine::fake::TestAllocator;

/// Counts what the hypervisor allocates, and makes it fail where a test says so.
#[global_allocator]
static ALLOCATOR: TestAllocator = TestAllocator;

/// A small guest.
pub const CONFIG: &str = r#"
name = "g"
kernel = "/guest/kernel"
ramdisk = "/guest/initrd"
extra = "console=hvc0"
memory = 4
vcpus = 2
"#;

/// Runs a test with a toolstack on a host as planned. A domain has come and gone before, so that tables and lists which
/// only grow have grown.
pub fn with_toolstack_on<R>(plan: &Plan, test: impl FnOnce(&Toolstack) -> R) -> R {
    World::with(plan, |world| {
        let control = Control::boot(world);
        let toolstack = Toolstack::new(&control);
        let built = toolstack.create(CONFIG).unwrap_or_else(|failure| panic!("{failure}\n{}", world.machine.console()));
        toolstack.destroy(built.domid).expect("is destroyed");
        test(&toolstack)
    })
}

/// The same on an ordinary host.
pub fn with_toolstack<R>(test: impl FnOnce(&Toolstack) -> R) -> R {
    with_toolstack_on(&Plan::default(), test)
}
