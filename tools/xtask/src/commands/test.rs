//! `cargo xtask test`: all layers or one, with a filter on the tests' names.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::harness::request::Hypervisor;
use crate::initramfs::dom0::Tools;
use crate::paths::Paths;
use crate::testing::beside::{self, Beside};
use crate::testing::scenarios::{self, Overrides};
use crate::testing::{End, Report, guests, host};

/// Arguments of the command.
#[derive(Args, Clone, Debug)]
pub(crate) struct TestArgs {
    /// Only this layer: 1 host tests, 2 tiny guests, 3 dom0 scenarios, 4 interop (repeatable)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=4))]
    layer: Vec<u8>,
    /// Only tests whose name contains this
    filter: Option<String>,
    /// Layers 2 to 4: boot this hypervisor, whatever the scenarios say
    #[arg(long, value_enum)]
    hypervisor: Option<Hypervisor>,
    /// Layers 3 and 4: use this toolstack, whatever the scenarios say
    #[arg(long, value_enum)]
    tools: Option<Tools>,
    /// Layer 3: the runs that are too long for every day, too (`# nightly:` in a scenario's head)
    #[arg(long)]
    nightly: bool,
}

/// Runs the tests; a failure in one layer does not keep the next ones from running.
pub(crate) fn run(paths: &Paths, args: &TestArgs) -> ExitCode {
    let mut report = Report::default();
    let mut layers: Vec<u8> = (1..=4).filter(|layer| args.layer.is_empty() || args.layer.contains(layer)).collect();
    let is_beside = args.filter.is_none() && layers.ends_with(&[3, 4]) && beside::has_room();
    if is_beside {
        layers.pop();
    }
    for layer in layers {
        if report.interrupted {
            break;
        }
        let companion = (is_beside && layer == 3).then_some(4);
        if let Err(error) = run_layer(paths, layer, args, companion, &mut report) {
            report.case(&format!("layer {layer}"), || End::Failed(format!("{error:#}"), None));
        }
    }
    if report.finish() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a layer, and `companion` beside it.
fn run_layer(paths: &Paths, layer: u8, args: &TestArgs, companion: Option<u8>, report: &mut Report) -> Result<()> {
    let filter = args.filter.as_deref();
    let overrides = Overrides { hypervisor: args.hypervisor, tools: args.tools, nightly: args.nightly };
    match layer {
        1 => return host::run(paths, filter, report),
        2 => return guests::run(paths, filter, overrides.hypervisor.unwrap_or(Hypervisor::Oxen), report),
        _ => {}
    }
    let mut other = None;
    let result = scenarios::run(paths, layer, filter, overrides, report, || {
        let Some(layer) = companion else { return Ok(()) };
        let hypervisor = args.hypervisor.as_ref().map(scenarios::name_of);
        let options = [("--hypervisor", hypervisor), ("--tools", args.tools.as_ref().map(scenarios::name_of))];
        other = Some(Beside::start(&format!("layer {layer}"), beside::arguments(layer, &options))?);
        Ok(())
    });
    let other = other.map_or(Ok(()), |other| other.finish(report));
    result.and(other)
}
