//! Faults (temporary).
use crate::domain::Domain;
use crate::host::Host;
use crate::outcome::{Reply, Stop};
use crate::p2m::entry::{Entry, Kind};
use crate::vcpu::Vcpu;
use machine::exit::Access;
use machine::{Mfn, log, frame};
/// Temporary.
pub fn handle(_h: &Host, domain: &Domain, _v: &Vcpu, _hw: &mut machine::vcpu::Vcpu, a: Access) -> Reply {
    let gfn = a.gpa.frame();
    log!(Info, "fault {a:x?}");
    if domain.is_control() && frame::state(Mfn::new(gfn.number())).is_none() && (gfn.number() >> 20) == 0 {
        if let Ok(mut txn) = domain.p2m.begin() {
            let e = Entry::with_frame(Kind::MmioDirect, 0, Mfn::new(gfn.number()));
            txn.set(gfn, e).ok();
            txn.commit().complete();
            return Ok(0);
        }
    }
    Err(Stop::Crash(&"fault"))
}
