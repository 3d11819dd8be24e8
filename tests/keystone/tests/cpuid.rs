//! `cpuid=` of a configuration, and what the guest's CPUID instruction says then.

mod common;

use common::{CONFIG, with_toolstack};
use keystone::guest;
use keystone::snapshot::Snapshot;
use keystone::toolstack::Toolstack;
use machine::DomId;
use std::sync::{Arc, Mutex};

/// What CPUID answers to a guest of that configuration, for these leaves.
fn seen(toolstack: &Toolstack, line: &str, leaves: &'static [u32]) -> Vec<[u32; 4]> {
    let world = toolstack.control.world();
    let built = toolstack.create(&format!("{CONFIG}\n{line}\n")).unwrap_or_else(|failure| panic!("{failure}"));
    let answers = Arc::new(Mutex::new(Vec::new()));
    let found = answers.clone();
    guest::run(&world.machine, DomId(built.domid), 0, move |cpu| {
        cpu.enter_long_mode();
        found.lock().unwrap().extend(leaves.iter().map(|leaf| cpu.cpuid(*leaf, 0)));
    });
    toolstack.handle().domain_unpause(built.domid).expect("is unpaused");
    assert!(world.run_until(|| answers.lock().unwrap().len() == leaves.len()), "the guest does not run");
    toolstack.destroy(built.domid).expect("is destroyed");
    let answers = answers.lock().unwrap();
    answers.clone()
}

const SSSE3: u32 = 1 << 9;
const AES: u32 = 1 << 25;
const VMX: u32 = 1 << 5;

#[test]
fn a_guest_sees_the_features_that_its_configuration_names() {
    with_toolstack(|toolstack| {
        let before = Snapshot::take(toolstack);
        let plain = seen(toolstack, "", &[1])[0];
        assert_eq!(plain[2] & (SSSE3 | AES | VMX), SSSE3 | AES, "{plain:x?}");
        let [leaf, extended] =
            seen(toolstack, "cpuid = \"host,aes=0,family=0x17,model=0x31,nx=0\"", &[1, 0x8000_0001])[..]
        else {
            unreachable!("two leaves")
        };
        assert_eq!(leaf[2] & (SSSE3 | AES), SSSE3, "{leaf:x?}");
        // Base family 15 and 8 more, base model 1 and 3 before it; the stepping is the host's.
        assert_eq!(leaf[0] & 0x0fff_0fff, 0x0083_0f10 | plain[0] & 0xf, "{leaf:x?}");
        assert_eq!(extended[3] >> 20 & 1, 0, "{extended:x?}");
        // What the policy hides by default comes back with the host's value only where guests can have it.
        let host = seen(toolstack, "cpuid = \"host,ssse3=k,vmx=1\"", &[1])[0];
        assert_eq!(host[2] & (SSSE3 | AES | VMX), SSSE3 | AES, "{host:x?}");
        let bits = "x".repeat(6) + "0" + &"x".repeat(25);
        let list = seen(toolstack, &format!("cpuid = [ \"1:ecx={bits}\" ]"), &[1])[0];
        assert_eq!(list[2] & (SSSE3 | AES), SSSE3, "{list:x?}");
        assert_eq!(before.difference(&Snapshot::take(toolstack)), "");
    });
}

#[test]
fn a_leaf_that_no_policy_has_is_named_and_leaves_nothing() {
    with_toolstack(|toolstack| {
        let before = Snapshot::take(toolstack);
        let config = format!("{CONFIG}\ncpuid = [ \"0x12,3:eax={}\" ]\n", "1".repeat(32));
        let text = toolstack.create(&config).expect_err("is refused").to_string();
        assert!(text.contains("CPUID policy") && text.contains("leaf 0x12, sub-leaf 3"), "{text}");
        assert_eq!(before.difference(&Snapshot::take(toolstack)), "");
    });
}
