//! xl.
fn main() {}
