//! Memory hypercalls (temporary).
use super::Caller;
use crate::outcome::Reply;
use crate::p2m::entry::{Entry, Kind};
use public_abi::{Errno, GuestPtr};
/// Temporary.
pub fn call(c: &Caller<'_>, cmd: u64, arg: GuestPtr<()>) -> Reply {
    machine::log!(Info, "memory_op {cmd}");
    match cmd & 63 {
        9 => {
            let n: u32 = c.memory.read(GuestPtr::from_address(arg.address()))?;
            let buf: u64 = c.memory.read(GuestPtr::from_address(arg.address() + 8))?;
            let control = c.domain.control.lock();
            let mut i = 0u64;
            for e in control.memory_map.iter().take(n as usize) {
                let mut b = [0u8; 20];
                b[..8].copy_from_slice(&e.start.to_le_bytes()); b[8..16].copy_from_slice(&e.length.to_le_bytes()); b[16..].copy_from_slice(&e.kind.to_le_bytes());
                c.memory.write_bytes(buf + i * 20, &b)?; i += 1;
            }
            c.memory.write(GuestPtr::from_address(arg.address()), &(i as u32))?;
            Ok(0)
        }
        7 => {
            let space: u32 = c.memory.read(GuestPtr::from_address(arg.address() + 4))?;
            let gfn: u64 = c.memory.read(GuestPtr::from_address(arg.address() + 16))?;
            if space != 0 { return Err(Errno::EINVAL.into()); }
            let mfn = c.domain.events.shared_info_mfn();
            let pin = machine::frame::Pin::take(mfn, c.domain.id).ok_or(Errno::EINVAL)?;
            let mut txn = c.domain.p2m.begin().map_err(|_| Errno::ENOMEM)?;
            txn.set(machine::Gfn::new(gfn), Entry::with_frame(Kind::SharedPage, 0, pin.into_entry())).map_err(|_| Errno::EINVAL)?;
            txn.commit().complete();
            Ok(0)
        }
        _ => Err(Errno::ENOSYS.into()),
    }
}
