//! The allocator of core's own tests: it lets them count and fail the allocations of small objects, too.
//!
//! Before: nothing. After: every test that asks [`machine::fake`] how much is allocated.

#[global_allocator]
static ALLOCATOR: machine::fake::TestAllocator = machine::fake::TestAllocator;
