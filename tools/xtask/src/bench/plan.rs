//! Which machines a bench boots, and in which order.
//!
//! A machine is an emulator, a hypervisor and a scene. Both hypervisors are measured in the same scene of the same emulator,
//! by the same program. What cannot be is left out here, with the reason.

use clap::ValueEnum;

use crate::harness::request::{Emulator, Hypervisor};

/// What runs on the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Scene {
    /// The bench guest is the control domain.
    Control,
    /// The bench guest is a PVH guest that xl has made in a Linux control domain.
    Guest,
    /// A Linux control domain with a Linux guest: memory.
    Memory,
    /// A Linux control domain in which a toolstack makes guests, with the plugin that counts.
    Toolstack,
}

/// One machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// The emulator.
    pub(crate) emulator: Emulator,
    /// What runs.
    pub(crate) scene: Scene,
    /// The hypervisor.
    pub(crate) hypervisor: Hypervisor,
}

/// What a person wants; an empty list is everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Emulators.
    pub(crate) emulators: Vec<Emulator>,
    /// Scenes.
    pub(crate) scenes: Vec<Scene>,
    /// Hypervisors.
    pub(crate) hypervisors: Vec<Hypervisor>,
}

/// Why a machine is never booted.
fn impossible(machine: Machine) -> Option<&'static str> {
    match machine {
        Machine { emulator: Emulator::Bochs, scene: Scene::Control, hypervisor: Hypervisor::Xen } => {
            Some("Xen wants an IOMMU for a PVH control domain, and Bochs has none")
        }
        Machine { emulator: Emulator::Bochs, scene: Scene::Toolstack, .. } => Some("the plugin is QEMU's"),
        Machine { emulator: Emulator::Bochs, scene: Scene::Memory, .. } => {
            Some("memory does not depend on the emulator, and Bochs is slow")
        }
        _ => None,
    }
}

/// The machines, fast ones first. `Err` has the reasons why nothing of what is wanted can be done.
pub(crate) fn machines(wanted: &Wanted) -> Result<Vec<Machine>, String> {
    fn is_in<T: PartialEq>(list: &[T], item: &T) -> bool {
        list.is_empty() || list.contains(item)
    }
    let mut machines = Vec::new();
    let mut reasons = Vec::new();
    for scene in [Scene::Control, Scene::Guest, Scene::Memory, Scene::Toolstack] {
        for emulator in [Emulator::Qemu, Emulator::Bochs] {
            for hypervisor in [Hypervisor::Oxen, Hypervisor::Xen] {
                let machine = Machine { emulator, scene, hypervisor };
                if !is_in(&wanted.emulators, &emulator)
                    || !is_in(&wanted.scenes, &scene)
                    || !is_in(&wanted.hypervisors, &hypervisor)
                {
                    continue;
                }
                match impossible(machine) {
                    None => machines.push(machine),
                    Some(why) => reasons.push(why),
                }
            }
        }
    }
    if machines.is_empty() { Err(reasons.join("; ")) } else { Ok(machines) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_all_that_is_possible() {
        let all = machines(&Wanted::default()).unwrap();
        assert_eq!(all.len(), 11);
        assert!(all.iter().all(|machine| impossible(*machine).is_none()));
        assert_eq!(all[0], Machine { emulator: Emulator::Qemu, scene: Scene::Control, hypervisor: Hypervisor::Oxen });
    }

    #[test]
    fn wishes_are_combined() {
        let wanted = Wanted { emulators: vec![Emulator::Bochs], scenes: vec![Scene::Control], hypervisors: Vec::new() };
        let found = machines(&wanted).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].hypervisor, Hypervisor::Oxen);
        let wanted = Wanted { hypervisors: vec![Hypervisor::Xen], ..wanted };
        assert!(machines(&wanted).unwrap_err().contains("IOMMU"));
    }
}
