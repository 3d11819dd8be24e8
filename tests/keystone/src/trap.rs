//! The toolstack's way down on the fake machine: what /dev/xen/privcmd and /dev/xen/evtchn are on Linux.
//!
//! Buffers lie in the control domain's RAM, hypercalls are made by its vCPU, pages of other domains are mapped by
//! XENMEM_add_to_physmap_batch at frames of its own choice and read and written through them, as Linux's drivers do it.

use crate::control::Control;
use libxc::error::{Error, Result};
use libxc::fault;
use libxc::trap::{Buf, Events, Foreign, Trap};
use machine::PAGE_SIZE_U64;
use public_abi::domid::DOMID_SELF;
use public_abi::event_channel::{BindInterdomain, BindVirq, EventChannelOp, Port};
use public_abi::memory::{AddToPhysmapBatch, MapSpace, MemAcquireResource, MemoryOp, RemoveFromPhysmap, Resource};
use public_abi::virq::Virq;
use public_abi::{Errno, GuestPtr, Request};
use std::cell::Cell;
use std::rc::Rc;
use zerocopy::IntoBytes;

/// Bytes of a page.
const PAGE: usize = 4096;
/// Frames in one batch: their numbers fill a page.
const BATCH: usize = 512;

/// The trap of a process in the control domain.
pub struct FakeTrap {
    control: Rc<Control>,
    /// Calls so far: hypercalls, mappings and buffers.
    calls: Cell<u64>,
}

impl FakeTrap {
    /// A trap over the control domain's kernel.
    pub fn new(control: &Rc<Control>) -> Self {
        Self { control: control.clone(), calls: Cell::new(0) }
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.calls.get()
    }

    /// The control domain's kernel.
    pub fn control(&self) -> &Rc<Control> {
        &self.control
    }

    /// Counts a call.
    fn count(&self) {
        self.calls.set(self.calls.get() + 1);
    }
}

fn failed(doing: String, errno: Errno) -> Error {
    Error::system(doing, std::io::Error::from_raw_os_error(errno.number()))
}

/// Memory for hypercall arguments.
pub struct GuestBuffer {
    control: Rc<Control>,
    place: u64,
    length: usize,
}

impl Buf for GuestBuffer {
    fn address(&self) -> u64 {
        self.place
    }

    fn len(&self) -> usize {
        self.length
    }

    fn read_at(&self, offset: usize, bytes: &mut [u8]) {
        assert!(offset + bytes.len() <= self.length, "outside of the buffer");
        bytes.copy_from_slice(&self.control.read(self.place + offset as u64, bytes.len()));
    }

    fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.length, "outside of the buffer");
        self.control.write(self.place + offset as u64, bytes);
    }
}

impl Drop for GuestBuffer {
    fn drop(&mut self) {
        self.control.give_buffer(self.place, self.length as u64);
    }
}

/// Pages of another domain, at frames of the control domain.
pub struct GuestPages {
    control: Rc<Control>,
    gfn: u64,
    pages: usize,
}

impl GuestPages {
    /// The first frame of the control domain at which they are.
    pub fn gfn(&self) -> u64 {
        self.gfn
    }

    fn place(&self, offset: usize, length: usize) -> u64 {
        assert!(offset + length <= self.pages * PAGE, "outside of the mapping");
        self.gfn * PAGE_SIZE_U64 + offset as u64
    }
}

impl Foreign for GuestPages {
    fn len(&self) -> usize {
        self.pages * PAGE
    }

    fn read_at(&self, offset: usize, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.control.read(self.place(offset, bytes.len()), bytes.len()));
    }

    fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        self.control.write(self.place(offset, bytes.len()), bytes);
    }

    fn clear_at(&mut self, offset: usize, length: usize) {
        self.control.write(self.place(offset, length), &vec![0; length]);
    }
}

impl Drop for GuestPages {
    fn drop(&mut self) {
        for gfn in (self.gfn..).take(self.pages) {
            let mut request = RemoveFromPhysmap { domid: DOMID_SELF, gpfn: gfn, ..RemoveFromPhysmap::default() };
            let cmd = u64::from(MemoryOp::RemoveFromPhysmap.number());
            // Frames behind a failure in the middle were never mapped.
            match self.control.exchange(&mut request, |arg| Request::MemoryOp { cmd, arg }) {
                Ok(_) | Err(Errno::ENOENT) => {}
                Err(errno) => panic!("unmapping frame {gfn:#x}: {errno}"),
            }
        }
        self.control.give_frames(self.gfn, self.pages as u64);
    }
}

impl FakeTrap {
    /// Frames for pages of others; they are unmapped and given back when dropped.
    fn frames(&self, pages: usize) -> std::result::Result<GuestPages, Errno> {
        let gfn = self.control.take_frames(pages as u64).ok_or(Errno::ENOMEM)?;
        Ok(GuestPages { control: self.control.clone(), gfn, pages })
    }

    /// Maps one batch of pages from a frame on.
    fn map_batch(&self, domain: u16, gfns: &[u64], at: u64) -> std::result::Result<(), Errno> {
        let control = &self.control;
        let list = |gfns: &[u64]| -> std::result::Result<Buffer, Errno> {
            let mut buffer = self.buffer(gfns.len() * 8)?;
            buffer.write_at(0, gfns.as_bytes());
            Ok(buffer)
        };
        let own: Vec<u64> = (at..).take(gfns.len()).collect();
        let (idxs, gpfns) = (list(gfns)?, list(&own)?);
        let errors = self.buffer(gfns.len() * 4)?;
        let mut request = AddToPhysmapBatch {
            domid: DOMID_SELF,
            space: u16::try_from(MapSpace::GmfnForeign.number()).unwrap_or(u16::MAX),
            size: u16::try_from(gfns.len()).map_err(|_| Errno::EINVAL)?,
            foreign_domid: domain,
            idxs: GuestPtr::from_address(idxs.address()),
            gpfns: GuestPtr::from_address(gpfns.address()),
            errs: GuestPtr::from_address(errors.address()),
        };
        let cmd = u64::from(MemoryOp::AddToPhysmapBatch.number());
        control.exchange(&mut request, |arg| Request::MemoryOp { cmd, arg })?;
        let mut codes = vec![0; gfns.len() * 4];
        errors.read_at(0, &mut codes);
        let code = |bytes: &[u8; 4]| i32::from_le_bytes(*bytes);
        match codes.as_chunks::<4>().0.iter().map(code).find(|code| *code != 0) {
            None => Ok(()),
            Some(code) => Err(Errno::try_from(-code).unwrap_or_else(|_| panic!("{code} is no error"))),
        }
    }

    fn buffer(&self, bytes: usize) -> std::result::Result<Buffer, Errno> {
        let place = self.control.take_buffer(bytes as u64).ok_or(Errno::ENOMEM)?;
        let length = bytes.max(1).next_multiple_of(PAGE);
        Ok(GuestBuffer { control: self.control.clone(), place, length })
    }
}

type Buffer = GuestBuffer;

impl Trap for FakeTrap {
    type Buf = GuestBuffer;
    type Foreign = GuestPages;
    type Events = GuestEvents;

    fn alloc(&self, bytes: usize) -> Result<GuestBuffer> {
        const DOING: &str = "mapping memory for hypercalls";
        self.count();
        let buffer = fault::check_map(|| DOING.into()).and_then(|()| self.buffer(bytes));
        buffer.map_err(|errno| failed(DOING.into(), errno))
    }

    fn hypercall(&self, number: u64, [a, b, c, d, e]: [u64; 5]) -> std::result::Result<u64, Errno> {
        self.count();
        crate::guest::answer(self.control.hypercall(number, [a, b, c, d, e, 0]))
    }

    fn foreign(&self, domain: u16, gfns: &[u64]) -> Result<GuestPages> {
        let doing = || format!("mapping {} pages of domain {domain}", gfns.len());
        let map = || {
            self.count();
            fault::check_map(doing)?;
            let pages = self.frames(gfns.len())?;
            for (gfns, at) in gfns.chunks(BATCH).zip((pages.gfn..).step_by(BATCH)) {
                self.map_batch(domain, gfns, at)?;
            }
            Ok(pages)
        };
        map().map_err(|errno| failed(doing(), errno))
    }

    fn resource(&self, domain: u16, kind: Resource, id: u32, frame: u64, frames: usize) -> Result<GuestPages> {
        let doing = || format!("mapping resource {} of domain {domain}", kind.name());
        let map = || {
            self.count();
            fault::check_map(doing)?;
            let pages = self.frames(frames)?;
            let own: Vec<u64> = (pages.gfn..).take(frames).collect();
            let mut list = self.buffer(own.len() * 8)?;
            list.write_at(0, own.as_bytes());
            let mut request = MemAcquireResource {
                domid: domain,
                kind: u16::try_from(kind.number()).unwrap_or(u16::MAX),
                id,
                nr_frames: u32::try_from(frames).map_err(|_| Errno::EINVAL)?,
                frame,
                frame_list: GuestPtr::from_address(list.address()),
                ..MemAcquireResource::default()
            };
            let cmd = u64::from(MemoryOp::AcquireResource.number());
            self.control.exchange(&mut request, |arg| Request::MemoryOp { cmd, arg })?;
            Ok(pages)
        };
        map().map_err(|errno: Errno| failed(doing(), errno))
    }

    fn events(&self) -> Result<GuestEvents> {
        Ok(GuestEvents { control: self.control.clone() })
    }
}

/// Event channels of the process.
pub struct GuestEvents {
    control: Rc<Control>,
}

impl GuestEvents {
    fn call<T: zerocopy::FromBytes + IntoBytes + zerocopy::Immutable>(
        &self,
        operation: EventChannelOp,
        value: &mut T,
    ) -> Result<()> {
        let cmd = operation.number();
        let result = self.control.exchange(value, |arg| Request::EventChannelOp { cmd, arg });
        result.map(drop).map_err(|errno| failed(format!("{} of an event channel", operation.name()), errno))
    }
}

impl Events for GuestEvents {
    fn bind_interdomain(&self, domain: u16, remote_port: u32) -> Result<u32> {
        let mut bind = BindInterdomain { remote_dom: domain, remote_port, ..BindInterdomain::default() };
        self.call(EventChannelOp::BindInterdomain, &mut bind)?;
        self.control.unmask(bind.local_port);
        Ok(bind.local_port)
    }

    fn bind_virq(&self, virq: Virq) -> Result<u32> {
        let mut bind = BindVirq { virq: virq.number(), ..BindVirq::default() };
        self.call(EventChannelOp::BindVirq, &mut bind)?;
        self.control.unmask(bind.port);
        Ok(bind.port)
    }

    fn unbind(&self, port: u32) -> Result<()> {
        self.call(EventChannelOp::Close, &mut Port { port })?;
        self.control.mask(port);
        Ok(())
    }

    fn notify(&self, port: u32) -> Result<()> {
        self.call(EventChannelOp::Send, &mut Port { port })
    }

    fn wait(&self) -> Result<u32> {
        self.control.wait_event().ok_or_else(|| Error::Protocol("nothing will ever happen any more".into()))
    }
}
