//! The trap on Linux: hypercalls and mappings by /dev/xen/privcmd, buffers by /dev/xen/hypercall, event channels by
//! /dev/xen/evtchn. And what devices need of it ([`LinuxHost`]).
//!
//! `raw` holds the unsafe of this crate; here is what it is used for. Request layouts: Linux,
//! include/uapi/xen/privcmd.h and include/uapi/xen/evtchn.h.

mod host;
mod raw;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

pub use host::LinuxHost;
use public_abi::Errno;
use public_abi::memory::Resource;
use public_abi::virq::Virq;
use raw::Mapping;
use rustix::fs::OFlags;

use crate::error::{Error, Result};
use crate::fault;
use crate::trap::{Buf, Events, Foreign, Trap};

/// Bytes of a page.
const PAGE: usize = 4096;

/// The trap on Linux.
pub struct Privcmd {
    privcmd: File,
    /// Memory that the kernel keeps in place for hypercalls; kernels before 4.18 have no such device.
    hypercall: Option<File>,
}

impl Privcmd {
    /// Opens the devices. They exist in a control domain whose kernel has the module xen-privcmd.
    pub fn open() -> Result<Privcmd> {
        let privcmd = open("/dev/xen/privcmd").map_err(|source| {
            Error::system("opening /dev/xen/privcmd (is this a Xen control domain, with the module xen-privcmd, and are you root?)", source)
        })?;
        Ok(Privcmd { privcmd, hypercall: open("/dev/xen/hypercall").ok() })
    }
}

fn open(path: &str) -> std::io::Result<File> {
    // std opens with O_CLOEXEC: the descriptors do not reach hotplug scripts.
    OpenOptions::new().read(true).write(true).open(path)
}

impl Trap for Privcmd {
    type Buf = HypercallBuf;
    type Foreign = ForeignPages;
    type Events = Evtchn;

    fn alloc(&self, bytes: usize) -> Result<HypercallBuf> {
        const DOING: &str = "mapping memory for hypercalls";
        let length = bytes.max(1).next_multiple_of(PAGE);
        may_map(|| DOING.into())?;
        let mapping = match &self.hypercall {
            Some(device) => Mapping::shared(device, length),
            None => Mapping::locked(length),
        };
        mapping.map(HypercallBuf).map_err(|error| Error::system(DOING, error))
    }

    fn hypercall(&self, number: u64, arguments: [u64; 5]) -> std::result::Result<u64, Errno> {
        let result = raw::hypercall(&self.privcmd, number, arguments);
        // The error numbers of Linux on x86 are Xen's.
        result.map_err(|error| Errno::try_from(error.raw_os_error()).unwrap_or(Errno::EIO))
    }

    fn foreign(&self, domain: u16, gfns: &[u64]) -> Result<ForeignPages> {
        let doing = || format!("mapping {} pages of domain {domain}", gfns.len());
        let failed = |error| Error::system(doing(), error);
        may_map(doing)?;
        let mapping = Mapping::shared(&self.privcmd, gfns.len() * PAGE).map_err(failed)?;
        let mut results = vec![0; gfns.len()];
        raw::map_batch(&self.privcmd, domain, &mapping, gfns, &mut results).map_err(failed)?;
        match results.iter().zip(gfns).find(|(result, _)| **result != 0) {
            None => Ok(ForeignPages(mapping)),
            Some((result, gfn)) => {
                let error = std::io::Error::from_raw_os_error(-result);
                Err(Error::system(format!("mapping page {gfn:#x} of domain {domain}"), error))
            }
        }
    }

    fn resource(&self, domain: u16, kind: Resource, id: u32, frame: u64, frames: usize) -> Result<ForeignPages> {
        let doing = || format!("mapping resource {} of domain {domain}", kind.name());
        let failed = |error| Error::system(doing(), error);
        may_map(doing)?;
        let mapping = Mapping::shared(&self.privcmd, frames * PAGE).map_err(failed)?;
        raw::map_resource(&self.privcmd, domain, &mapping, kind.number(), id, frame).map_err(failed)?;
        Ok(ForeignPages(mapping))
    }

    fn events(&self) -> Result<Evtchn> {
        let device = open("/dev/xen/evtchn").map_err(|source| Error::system("opening /dev/xen/evtchn", source))?;
        Ok(Evtchn { device })
    }
}

/// Whether the switch of [`fault`] lets a mapping be.
fn may_map(doing: impl Fn() -> String) -> Result<()> {
    fault::check_map(&doing).map_err(|errno| Error::system(doing(), std::io::Error::from_raw_os_error(errno.number())))
}

/// Memory for hypercall arguments.
pub struct HypercallBuf(Mapping);

impl Buf for HypercallBuf {
    fn address(&self) -> u64 {
        self.0.address()
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn read_at(&self, offset: usize, bytes: &mut [u8]) {
        self.0.read_at(offset, bytes);
    }

    fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        self.0.write_at(offset, bytes);
    }
}

/// Mapped pages of another domain.
pub struct ForeignPages(Mapping);

impl Foreign for ForeignPages {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn read_at(&self, offset: usize, bytes: &mut [u8]) {
        self.0.read_at(offset, bytes);
    }

    fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        self.0.write_at(offset, bytes);
    }

    fn clear_at(&mut self, offset: usize, length: usize) {
        self.0.clear_at(offset, length);
    }

    fn load(&self, offset: usize) -> u32 {
        self.0.load(offset)
    }

    fn store(&mut self, offset: usize, word: u32) {
        self.0.store(offset, word);
    }
}

/// A page that a domain has granted to this one, by /dev/xen/gntdev.
pub fn granted_page(domain: u16, reference: u32) -> Result<ForeignPages> {
    let failed = |error| Error::system(format!("mapping grant {reference} of domain {domain}"), error);
    let device = open("/dev/xen/gntdev").map_err(|source| Error::system("opening /dev/xen/gntdev", source))?;
    let offset = raw::grant_offset(&device, domain, reference).map_err(failed)?;
    // The mapping keeps the device open.
    Mapping::page_at(&device, offset).map(ForeignPages).map_err(failed)
}

/// A file's bytes, without a copy of them: a kernel has tens of megabytes, and most are looked at once. Whoever changes the file
/// meanwhile changes them, and whoever shortens it ends this process, as with Xen's toolstack.
pub struct FileBytes(raw::FileMapping);

impl FileBytes {
    /// The bytes that a file has now; `None` for what is no regular file, or is empty.
    pub fn map(file: &File) -> std::io::Result<Option<FileBytes>> {
        let metadata = file.metadata()?;
        let length = usize::try_from(metadata.len()).map_err(|_| std::io::ErrorKind::FileTooLarge)?;
        if !metadata.is_file() || length == 0 {
            return Ok(None);
        }
        Ok(Some(FileBytes(raw::FileMapping::new(file, length)?)))
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// The page that the control domain's kernel shares with xenstored (/proc/xen/xsd_kva), and its event channel
/// (/proc/xen/xsd_port).
pub fn kernel_store() -> Result<(ForeignPages, u32)> {
    const PAGE_FILE: &str = "/proc/xen/xsd_kva";
    const PORT_FILE: &str = "/proc/xen/xsd_port";
    let device = open(PAGE_FILE).map_err(|source| Error::system(format!("opening {PAGE_FILE}"), source))?;
    let page = Mapping::page_at(&device, 0).map_err(|error| Error::system(format!("mapping {PAGE_FILE}"), error))?;
    let text =
        std::fs::read_to_string(PORT_FILE).map_err(|source| Error::system(format!("reading {PORT_FILE}"), source))?;
    let port = text.trim().parse().map_err(|_| Error::Protocol(format!("{PORT_FILE} says \"{}\"", text.trim())))?;
    Ok((ForeignPages(page), port))
}

/// Event channels by /dev/xen/evtchn.
pub struct Evtchn {
    device: File,
}

impl Evtchn {
    /// Event channels for a program that waits for other things, too, by the descriptor.
    pub fn open_nonblocking() -> Result<Evtchn> {
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0))
            .open("/dev/xen/evtchn")
            .map_err(|source| Error::system("opening /dev/xen/evtchn", source))?;
        Ok(Evtchn { device })
    }

    /// The next port with an event, taken; `None` if there is none now.
    pub fn next_pending(&self) -> Result<Option<u32>> {
        let port = self.next_masked()?;
        if let Some(port) = port {
            self.unmask(port)?;
        }
        Ok(port)
    }

    /// The same, and no event of that port is delivered before [`Evtchn::unmask`].
    pub fn next_masked(&self) -> Result<Option<u32>> {
        match self.read() {
            Ok(port) => Ok(Some(port)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(Error::system("waiting for an event", error)),
        }
    }

    /// Lets a port's events be delivered again, also one that has come meanwhile.
    pub fn unmask(&self, port: u32) -> Result<()> {
        let written = (&self.device).write_all(&port.to_ne_bytes());
        written.map_err(|error| Error::system(format!("unmasking port {port}"), error))
    }

    fn read(&self) -> std::io::Result<u32> {
        let mut port = [0; 4];
        (&self.device).read_exact(&mut port)?;
        Ok(u32::from_ne_bytes(port))
    }
}

impl AsFd for Evtchn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl Events for Evtchn {
    fn bind_interdomain(&self, domain: u16, remote_port: u32) -> Result<u32> {
        raw::evtchn_bind_interdomain(&self.device, domain.into(), remote_port)
            .map_err(|error| Error::system(format!("binding to port {remote_port} of domain {domain}"), error))
    }

    fn bind_virq(&self, virq: Virq) -> Result<u32> {
        raw::evtchn_bind_virq(&self.device, virq.number())
            .map_err(|error| Error::system(format!("binding to VIRQ {}", virq.name()), error))
    }

    fn unbind(&self, port: u32) -> Result<()> {
        raw::evtchn_unbind(&self.device, port).map_err(|error| Error::system(format!("closing port {port}"), error))
    }

    fn notify(&self, port: u32) -> Result<()> {
        raw::evtchn_notify(&self.device, port).map_err(|error| Error::system(format!("notifying port {port}"), error))
    }

    fn wait(&self) -> Result<u32> {
        let port = self.read().map_err(|source| Error::system("waiting for an event", source))?;
        self.unmask(port)?;
        Ok(port)
    }
}
