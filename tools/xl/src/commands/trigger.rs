//! `xl trigger` and `xl button-press`: buttons and interrupts of a guest's machine.

use public_abi::domctl_vcpu;

use crate::cli::{Button, Trigger};
use crate::failure::{Failure, Outcome};
use crate::output::note;
use crate::session::Session;

pub(super) fn run(options: &Trigger) -> Outcome {
    let session = Session::open()?;
    let domid = session.find(&options.domain)?;
    let trigger = named(&options.trigger)?;
    let vcpu = match options.vcpu.as_deref().map(str::parse) {
        None => 0,
        Some(Ok(vcpu)) => vcpu,
        Some(Err(_)) => {
            note(format_args!("Invalid vcpuid, using default vcpuid=0."));
            0
        }
    };
    send(&session, domid, trigger, vcpu, &options.trigger)
}

pub(super) fn button(options: &Button) -> Outcome {
    note(format_args!("WARNING: \"button-press\" is deprecated. Please use \"trigger\""));
    let session = Session::open()?;
    let domid = session.find(&options.domain)?;
    let trigger = match options.button.as_str() {
        "power" => domctl_vcpu::Trigger::Power,
        "sleep" => domctl_vcpu::Trigger::Sleep,
        other => {
            return Err(Failure::new(format!("{other} is an invalid button identifier; there are power and sleep")));
        }
    };
    send(&session, domid, trigger, 0, &options.button)
}

fn send(session: &Session, domid: u16, trigger: domctl_vcpu::Trigger, vcpu: u32, name: &str) -> Outcome {
    let sent = session.handle.send_trigger(domid, trigger, vcpu);
    sent.map_err(|error| Failure::new(format!("sending the trigger '{name}' to domain {domid}: {error}")))
}

fn named(name: &str) -> Outcome<domctl_vcpu::Trigger> {
    match name.to_ascii_lowercase().as_str() {
        "power" => Ok(domctl_vcpu::Trigger::Power),
        "sleep" => Ok(domctl_vcpu::Trigger::Sleep),
        "nmi" => Ok(domctl_vcpu::Trigger::Nmi),
        "init" => Ok(domctl_vcpu::Trigger::Init),
        "reset" => Ok(domctl_vcpu::Trigger::Reset),
        "s3resume" => Err(Failure::new("s3resume is for HVM guests, which this xl does not run yet")),
        _ => Err(Failure::new(format!("Invalid trigger \"{name}\"; there are nmi, reset, init, power and sleep"))),
    }
}
