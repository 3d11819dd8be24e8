//! xen_version: what this hypervisor calls itself, and what a guest may rely on.
//!
//! Every text has a fixed size and is zero to its end (XSA-122). XENVER_version is what benchmarks call an empty hypercall:
//! it touches nothing. The answers to unprivileged callers are Xen's (xsm/dummy.h): only the command line and the build
//! identifier are kept from them.

use super::Caller;
use crate::domain::Domain;
use crate::outcome::Reply;
use machine::{PAGE_SIZE_U64, platform};
use public_abi::version::{
    BuildIdHeader, CAPABILITIES_INFO_LEN, CHANGESET_INFO_LEN, COMMANDLINE_LEN, CompileInfo, EXTRAVERSION_LEN, Feature,
    FeatureInfo, PlatformParameters, VersionOp,
};
use public_abi::{Errno, GuestPtr};

/// The version of Xen whose interfaces these are.
pub const MAJOR: u64 = 4;
/// Its minor number.
pub const MINOR: u64 = 17;
/// What follows the two numbers.
pub const EXTRA: &str = ".7-oxen";
/// Which guests can run: 32-bit, 32-bit PAE and 64-bit ones in hardware virtual machines. No PV, hence no `xen-3.0-…`.
pub const CAPABILITIES: &str = "hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64 ";
/// The build does not record when it was made, so that it can be repeated byte by byte.
const COMPILE_DATE: &str = "not recorded";
const COMPILER: &str = concat!("rustc ", env!("CARGO_PKG_RUST_VERSION"));
/// What callers without the right to know are told.
const DENIED: &[u8] = b"<denied>\0";
/// First address that Xen keeps for itself in a PV guest. Other guests have nothing there; Xen 4.17 tells them all the same.
const VIRT_START: u64 = 0xffff_8000_0000_0000;

/// Answers xen_version.
///
/// # Errors
/// `EFAULT`, `EINVAL` for a bad submap or a needless argument; for the build identifier `EPERM`, `EINVAL` for no room at all,
/// `ENOBUFS` for too little, `ENODATA` if there is none; `ENOSYS` for unknown commands.
#[inline]
pub fn handle(caller: &Caller<'_>, command: u32, argument: GuestPtr<()>) -> Reply {
    if command == VersionOp::Version.number() {
        return Ok(MAJOR << 16 | MINOR);
    }
    answer(caller, command, argument)
}

#[inline(never)]
fn answer(caller: &Caller<'_>, command: u32, argument: GuestPtr<()>) -> Reply {
    let memory = &caller.memory;
    match VersionOp::try_from(command).map_err(|_| Errno::ENOSYS)? {
        VersionOp::Version => Ok(MAJOR << 16 | MINOR),
        VersionOp::ExtraVersion => done(memory.write(argument.cast(), &text::<EXTRAVERSION_LEN>(EXTRA))),
        VersionOp::CompileInfo => done(memory.write(argument.cast(), &compile_info())),
        VersionOp::Capabilities => done(memory.write(argument.cast(), &text::<CAPABILITIES_INFO_LEN>(CAPABILITIES))),
        VersionOp::Changeset => {
            let changeset = caller.host.platform.changeset;
            done(memory.write(argument.cast(), &text::<CHANGESET_INFO_LEN>(changeset)))
        }
        VersionOp::PlatformParameters => {
            done(memory.write(argument.cast(), &PlatformParameters { virt_start: VIRT_START }))
        }
        VersionOp::GetFeatures => {
            let mut info: FeatureInfo = memory.read(argument.cast())?;
            info.submap = if info.submap_idx == 0 {
                features(caller.domain)
            } else {
                return Err(Errno::EINVAL.into());
            };
            done(memory.write(argument.cast(), &info))
        }
        VersionOp::Pagesize if !argument.is_null() => Err(Errno::EINVAL.into()),
        VersionOp::Pagesize => Ok(PAGE_SIZE_U64),
        VersionOp::GuestHandle => {
            let handle = caller.domain.control.lock().handle;
            done(memory.write(argument.cast(), &handle))
        }
        VersionOp::Commandline if !caller.domain.is_control() => done(memory.write_bytes(argument.address(), DENIED)),
        VersionOp::Commandline => {
            done(memory.write(argument.cast(), &text::<COMMANDLINE_LEN>(&caller.host.platform.command_line)))
        }
        VersionOp::BuildId => build_id(caller, argument.cast()),
        _ => Err(Errno::ENOSYS.into()),
    }
}

fn done(result: Result<(), Errno>) -> Reply {
    result?;
    Ok(0)
}

/// What the linker has called the image: its size, and its bytes if there is somewhere to put them.
fn build_id(caller: &Caller<'_>, argument: GuestPtr<BuildIdHeader>) -> Reply {
    if !caller.domain.is_control() {
        return Err(Errno::EPERM.into());
    }
    let room = if argument.is_null() {
        None
    } else {
        match caller.memory.read(argument)?.len {
            0 => return Err(Errno::EINVAL.into()),
            length => Some(length),
        }
    };
    let id = platform::build_id();
    let size = u32::try_from(id.len()).ok().filter(|size| *size != 0).ok_or(Errno::ENODATA)?;
    if let Some(room) = room {
        if size > room {
            return Err(Errno::ENOBUFS.into());
        }
        let header = u64::try_from(size_of::<BuildIdHeader>()).unwrap_or(0);
        let place = argument.address().checked_add(header).ok_or(Errno::EFAULT)?;
        caller.memory.write_bytes(place, id)?;
    }
    Ok(u64::from(size))
}

/// A text in a buffer of `N` bytes, zero to the end, the last byte always zero.
fn text<const N: usize>(text: &str) -> [u8; N] {
    let mut buffer = [0; N];
    for (place, byte) in buffer.iter_mut().take(N.saturating_sub(1)).zip(text.bytes()) {
        *place = byte;
    }
    buffer
}

fn compile_info() -> CompileInfo {
    CompileInfo {
        compiler: text(COMPILER),
        compile_by: text("oxen"),
        compile_domain: text("localhost"),
        compile_date: text(COMPILE_DATE),
    }
}

/// What a domain may rely on (public/features.h, submap 0). All guests here are translated by nested paging.
fn features(domain: &Domain) -> u32 {
    let mut features = Feature::MemoryOpVnodeSupported.bit()
        | Feature::WritablePageTables.bit()
        | Feature::AutoTranslatedPhysmap.bit()
        | Feature::HvmCallbackVector.bit()
        | Feature::HvmSafePvclock.bit();
    if domain.is_control() {
        features |= Feature::Dom0.bit();
    }
    features |=
        if domain.settings.identity_mapped { Feature::DirectMapped.bit() } else { Feature::NotDirectMapped.bit() };
    features
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_zero_to_the_end_and_terminated() {
        assert_eq!(text::<8>("abc"), *b"abc\0\0\0\0\0");
        assert_eq!(text::<4>("abcdef"), *b"abc\0");
        assert_eq!(text::<1>("x"), [0]);
    }

    #[test]
    fn the_extra_version_fits() {
        assert!(EXTRA.len() < EXTRAVERSION_LEN);
        assert!(COMPILER.len() < 64);
    }
}
