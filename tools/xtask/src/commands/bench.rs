//! `cargo xtask bench`: measures Oxen and Debian's Xen side by side and prints the tables.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::Args;

use crate::bench::machines::Interrupted;
use crate::bench::plan::{self, Machine, Scene, Wanted};
use crate::bench::{json, machines, print, profile, table};
use crate::harness::request::{Emulator, Hypervisor};
use crate::paths::Paths;
use crate::{changeset, progress};

/// Arguments of the command.
#[derive(Args, Clone, Debug)]
pub(crate) struct BenchArgs {
    /// Only this emulator (repeatable) [default: both]
    #[arg(long, value_enum)]
    emulator: Vec<Emulator>,
    /// Only this scene (repeatable) [default: all]
    #[arg(long, value_enum)]
    scene: Vec<Scene>,
    /// Only this hypervisor (repeatable) [default: both]
    #[arg(long, value_enum)]
    hypervisor: Vec<Hypervisor>,
    /// Also write the tables as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Instead of tables, show where Oxen spends the instructions of a row (number in the guest's order, from 0)
    #[arg(long, value_name = "ROW", conflicts_with_all = ["emulator", "scene", "hypervisor", "json"])]
    profile: Option<usize>,
}

/// Measures. A machine that fails costs its column, and the command's success.
pub(crate) fn run(paths: &Paths, args: &BenchArgs) -> Result<ExitCode> {
    if let Some(row) = args.profile {
        print!("{}", profile::run(paths, row)?);
        return Ok(ExitCode::SUCCESS);
    }
    let wanted =
        Wanted { emulators: args.emulator.clone(), scenes: args.scene.clone(), hypervisors: args.hypervisor.clone() };
    let mut runs = Vec::new();
    let mut failed = false;
    for machine in plan::machines(&wanted).map_err(|why| anyhow!(why))? {
        let step = progress::step(&describe(machine));
        match machines::run(paths, machine, &[]) {
            Ok(readings) => {
                step.done();
                runs.push((machine, readings));
            }
            Err(error) => {
                drop(step);
                progress::warn(&format!("{}: {error:#}", describe(machine)));
                failed = true;
                // Somebody wants an end of it all. What was measured is still shown.
                if error.is::<Interrupted>() {
                    break;
                }
            }
        }
    }
    let tables = table::tables(&runs);
    let revision = changeset::of(&paths.root);
    print!("Oxen {revision}\n\n{}", print::text(&tables));
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&json::value(&revision, &tables))?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn describe(machine: Machine) -> String {
    let emulator = match machine.emulator {
        Emulator::Qemu => "QEMU",
        Emulator::Bochs => "Bochs",
    };
    let hypervisor = match machine.hypervisor {
        Hypervisor::Oxen => "Oxen",
        Hypervisor::Xen => "Debian's Xen",
    };
    let what = match machine.scene {
        Scene::Control => "the bench guest as control domain",
        Scene::Guest => "the bench guest made by xl",
        Scene::Memory => "memory, with Linux",
        Scene::Toolstack => "a toolstack's work",
    };
    format!("measuring {hypervisor} in {emulator}: {what}")
}
