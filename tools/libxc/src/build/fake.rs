//! A fake hypervisor and a fake xenstored, for tests of the builder: enough of both to build a domain on, with a switch
//! that makes the n-th hypercall or request fail.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread;

use public_abi::arch_hvm_save::{HvmHwMtrr, HvmSaveHeader};
use public_abi::cpu_policy::CpuidLeaf;
use public_abi::domctl::{Domctl, DomctlOp};
use public_abi::domctl_domain::HvmContext;
use public_abi::event_channel::AllocUnbound;
use public_abi::hvm_op::HvmParamRequest;
use public_abi::hvm_save::{SaveCode, SaveDescriptor, SaveRecord};
use public_abi::io::xs_wire::{XsMessage, XsdSockmsg};
use public_abi::memory::{MemoryOp, MemoryReservation, Resource};
use public_abi::sysctl::{Sysctl, SysctlCpuPolicy, SysctlOp};
use public_abi::virq::Virq;
use public_abi::{Errno, Request};
use zerocopy::{FromBytes, IntoBytes};

use crate::error::{Error, Result};
use crate::trap::{Buf, Events, Foreign, Trap};

const PAGE: usize = 4096;

/// A page that a domain and its mappings share.
type Page = Rc<RefCell<Vec<u8>>>;

/// A domain of the fake hypervisor.
#[derive(Default)]
pub(super) struct FakeDomain {
    /// Its populated frames.
    pub(super) memory: BTreeMap<u64, Page>,
    /// Its grant table's first frame.
    pub(super) grants: Page,
    /// Parameters that were set.
    pub(super) params: BTreeMap<u32, u64>,
    /// Save records that were loaded.
    pub(super) records: Vec<Vec<u8>>,
    ports: u32,
    dying: bool,
}

impl FakeDomain {
    /// Bytes of its memory; panics where there is none.
    pub(super) fn read(&self, address: u64, length: usize) -> Vec<u8> {
        let byte = |at: u64| self.memory[&(at / PAGE as u64)].borrow()[(at % PAGE as u64) as usize];
        (address..address + length as u64).map(byte).collect()
    }
}

/// The fake hypervisor.
#[derive(Default)]
pub(super) struct FakeTrap {
    pub(super) domains: RefCell<BTreeMap<u16, FakeDomain>>,
    buffers: RefCell<BTreeMap<u64, Page>>,
    /// Hypercalls, mappings and buffers asked for so far.
    pub(super) calls: Cell<u32>,
    /// The one that fails.
    pub(super) fail_at: Cell<Option<u32>>,
    /// Extents of more than this order are refused.
    pub(super) largest_order: Cell<u32>,
    next_domain: Cell<u16>,
}

/// A hypercall buffer.
pub(super) struct FakeBuf {
    address: u64,
    bytes: Page,
}

impl Buf for FakeBuf {
    fn address(&self) -> u64 {
        self.address
    }

    fn len(&self) -> usize {
        self.bytes.borrow().len()
    }

    fn read_at(&self, offset: usize, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.bytes.borrow()[offset..offset + bytes.len()]);
    }

    fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes.borrow_mut()[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

/// Mapped pages.
pub(super) struct FakePages(Vec<Page>);

impl FakePages {
    fn each(&self, offset: usize, length: usize, mut act: impl FnMut(usize, &mut u8)) {
        assert!(offset + length <= self.0.len() * PAGE, "outside of the mapping");
        for index in 0..length {
            let at = offset + index;
            act(index, &mut self.0[at / PAGE].borrow_mut()[at % PAGE]);
        }
    }
}

impl Foreign for FakePages {
    fn len(&self) -> usize {
        self.0.len() * PAGE
    }

    fn read_at(&self, offset: usize, bytes: &mut [u8]) {
        self.each(offset, bytes.len(), |index, byte| bytes[index] = *byte);
    }

    fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        self.each(offset, bytes.len(), |index, byte| *byte = bytes[index]);
    }

    fn clear_at(&mut self, offset: usize, length: usize) {
        self.each(offset, length, |_, byte| *byte = 0);
    }
}

/// Event channels are not needed to build a domain.
pub(super) struct NoEvents;

impl Events for NoEvents {
    fn bind_interdomain(&self, _: u16, _: u32) -> Result<u32> {
        Err(Error::Protocol("no events".into()))
    }

    fn bind_virq(&self, _: Virq) -> Result<u32> {
        Err(Error::Protocol("no events".into()))
    }

    fn unbind(&self, _: u32) -> Result<()> {
        Err(Error::Protocol("no events".into()))
    }

    fn notify(&self, _: u32) -> Result<()> {
        Err(Error::Protocol("no events".into()))
    }

    fn wait(&self) -> Result<u32> {
        Err(Error::Protocol("no events".into()))
    }
}

impl FakeTrap {
    /// Counts a call; whether it is the one to fail.
    fn fails(&self) -> bool {
        self.calls.set(self.calls.get() + 1);
        self.fail_at.get() == Some(self.calls.get())
    }

    fn get<S: FromBytes>(&self, address: u64) -> S {
        let buffers = self.buffers.borrow();
        let (base, bytes) = buffers.range(..=address).next_back().expect("an address in a buffer");
        S::read_from_prefix(&bytes.borrow()[(address - base) as usize..]).expect("in the buffer").0
    }

    fn put(&self, address: u64, value: &[u8]) {
        let buffers = self.buffers.borrow();
        let (base, bytes) = buffers.range(..=address).next_back().expect("an address in a buffer");
        let start = (address - base) as usize;
        bytes.borrow_mut()[start..start + value.len()].copy_from_slice(value);
    }

    fn domctl(&self, address: u64) -> std::result::Result<u64, Errno> {
        let mut request: Domctl = self.get(address);
        let operation = request.command().map_err(|_| Errno::ENOSYS)?;
        let mut domains = self.domains.borrow_mut();
        if operation == DomctlOp::CreateDomain {
            self.next_domain.set(self.next_domain.get() + 1);
            request.domain = self.next_domain.get();
            let grants = Rc::new(RefCell::new(vec![0; PAGE]));
            domains.insert(request.domain, FakeDomain { grants, ..FakeDomain::default() });
            self.put(address, request.as_bytes());
            return Ok(0);
        }
        let domain = domains.get_mut(&request.domain).ok_or(Errno::ESRCH)?;
        match operation {
            // A first call that asks to be continued, as for a domain with much memory.
            DomctlOp::DestroyDomain if !domain.dying => {
                domain.dying = true;
                return Err(Errno::ERESTART);
            }
            DomctlOp::DestroyDomain => drop(domains.remove(&request.domain)),
            DomctlOp::GetHvmContext => {
                let records = records();
                let mut context: HvmContext = request.get().map_err(|_| Errno::EINVAL)?;
                if !context.buffer.is_null() {
                    self.put(context.buffer.address(), &records);
                }
                context.size = records.len() as u32;
                request.set(&context).map_err(|_| Errno::EINVAL)?;
                self.put(address, request.as_bytes());
            }
            DomctlOp::SetHvmContext => {
                let context: HvmContext = request.get().map_err(|_| Errno::EINVAL)?;
                let byte = |index: u32| self.get::<u8>(context.buffer.address() + u64::from(index));
                domain.records.push((0..context.size).map(byte).collect());
            }
            _ => {}
        }
        Ok(0)
    }

    fn sysctl(&self, address: u64) -> std::result::Result<u64, Errno> {
        let mut request: Sysctl = self.get(address);
        if request.command() == Ok(SysctlOp::GetCpuPolicy) {
            let mut policy: SysctlCpuPolicy = request.get().map_err(|_| Errno::EINVAL)?;
            policy.nr_leaves = 1;
            self.put(policy.leaves.address(), CpuidLeaf { leaf: 1, ..CpuidLeaf::default() }.as_bytes());
            request.set(&policy).map_err(|_| Errno::EINVAL)?;
            self.put(address, request.as_bytes());
        }
        Ok(0)
    }

    fn populate(&self, address: u64) -> std::result::Result<u64, Errno> {
        let request: MemoryReservation = self.get(address);
        let mut domains = self.domains.borrow_mut();
        let domain = domains.get_mut(&request.domid).ok_or(Errno::ESRCH)?;
        if request.extent_order > self.largest_order.get() {
            return Ok(0);
        }
        for index in 0..request.nr_extents {
            let gfn: u64 = self.get(request.extent_start.address() + index * 8);
            assert!(gfn.is_multiple_of(1 << request.extent_order), "extents are aligned");
            for gfn in gfn..gfn + (1 << request.extent_order) {
                // Not zero, as memory that another domain had before.
                let old = domain.memory.insert(gfn, Rc::new(RefCell::new(vec![0xaa; PAGE])));
                assert!(old.is_none(), "frame {gfn:#x} is populated twice");
            }
        }
        Ok(request.nr_extents)
    }
}

/// The records that the builder looks for.
fn records() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut push = |code: SaveCode, contents: &[u8]| {
        let descriptor = SaveDescriptor { typecode: code.number() as u16, instance: 0, length: contents.len() as u32 };
        bytes.extend_from_slice(descriptor.as_bytes());
        bytes.extend_from_slice(contents);
    };
    push(HvmSaveHeader::CODE, HvmSaveHeader { magic: 7, ..HvmSaveHeader::default() }.as_bytes());
    push(HvmHwMtrr::CODE, HvmHwMtrr::default().as_bytes());
    push(SaveCode::End, &[]);
    bytes
}

impl Trap for FakeTrap {
    type Buf = FakeBuf;
    type Foreign = FakePages;
    type Events = NoEvents;

    fn alloc(&self, bytes: usize) -> Result<FakeBuf> {
        let mut buffers = self.buffers.borrow_mut();
        let address = buffers.last_key_value().map_or(0x1000, |(base, bytes)| base + bytes.borrow().len() as u64);
        let bytes = Rc::new(RefCell::new(vec![0; bytes.next_multiple_of(PAGE)]));
        buffers.insert(address, bytes.clone());
        Ok(FakeBuf { address, bytes })
    }

    fn hypercall(&self, number: u64, [a, b, c, d, e]: [u64; 5]) -> std::result::Result<u64, Errno> {
        if self.fails() {
            return Err(Errno::ENOMEM);
        }
        match Request::decode(number, [a, b, c, d, e, 0])? {
            Request::Domctl { op } => self.domctl(op.address()),
            Request::Sysctl { op } => self.sysctl(op.address()),
            Request::MemoryOp { cmd, arg } if cmd == u64::from(MemoryOp::PopulatePhysmap.number()) => {
                self.populate(arg.address())
            }
            Request::MemoryOp { .. } => Ok(0),
            Request::HvmOp { arg, .. } => {
                let request: HvmParamRequest = self.get(arg.address());
                let mut domains = self.domains.borrow_mut();
                domains.get_mut(&request.domid).ok_or(Errno::ESRCH)?.params.insert(request.index, request.value);
                Ok(0)
            }
            Request::EventChannelOp { arg, .. } => {
                let mut request: AllocUnbound = self.get(arg.address());
                let mut domains = self.domains.borrow_mut();
                let domain = domains.get_mut(&request.dom).ok_or(Errno::ESRCH)?;
                domain.ports += 1;
                request.port = domain.ports;
                self.put(arg.address(), request.as_bytes());
                Ok(0)
            }
            _ => Err(Errno::ENOSYS),
        }
    }

    fn foreign(&self, domain: u16, gfns: &[u64]) -> Result<FakePages> {
        let domains = self.domains.borrow();
        let memory = domains.get(&domain).map(|domain| &domain.memory).filter(|_| !self.fails());
        let page = |gfn: &u64| memory.and_then(|memory| memory.get(gfn)).cloned();
        let pages: Option<Vec<Page>> = gfns.iter().map(page).collect();
        pages.map(FakePages).ok_or_else(|| Error::Protocol("mapping failed".into()))
    }

    fn resource(&self, domain: u16, _: Resource, _: u32, _: u64, _: usize) -> Result<FakePages> {
        let domains = self.domains.borrow();
        let grants = domains.get(&domain).map(|domain| domain.grants.clone()).filter(|_| !self.fails());
        grants.map(|page| FakePages(vec![page])).ok_or_else(|| Error::Protocol("mapping failed".into()))
    }

    fn events(&self) -> Result<NoEvents> {
        Ok(NoEvents)
    }
}

/// The fake xenstored's nodes, and the domains that were introduced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tree {
    pub(super) nodes: BTreeMap<String, Vec<u8>>,
    pub(super) introduced: BTreeSet<String>,
}

/// Shared with the thread that serves it.
#[derive(Default)]
pub(super) struct FakeStore {
    pub(super) tree: Mutex<Tree>,
    /// Requests so far.
    pub(super) requests: Mutex<u32>,
    /// The one that fails.
    pub(super) fail_at: Mutex<Option<u32>>,
}

/// Serves a client. Transactions are the real thing: a copy of the tree that replaces it at the end.
pub(super) fn serve(store: Arc<FakeStore>) -> UnixStream {
    let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
    thread::spawn(move || {
        let mut open: BTreeMap<u32, Tree> = BTreeMap::new();
        loop {
            let mut header = [0; 16];
            if theirs.read_exact(&mut header).is_err() {
                return;
            }
            let header = XsdSockmsg::read_from_bytes(&header).expect("sixteen bytes");
            let mut payload = vec![0; header.len as usize];
            theirs.read_exact(&mut payload).expect("its payload");
            let failing = {
                let mut requests = store.requests.lock().expect("not poisoned");
                *requests += 1;
                *store.fail_at.lock().expect("not poisoned") == Some(*requests)
            };
            let kind = XsMessage::try_from(header.kind).expect("a known request");
            let answer = match failing {
                true => Err("ENOSPC"),
                false => answer(&store, &mut open, kind, header.tx_id, &payload),
            };
            let (kind, payload) = match answer {
                Ok(payload) => (kind, payload),
                Err(name) => (XsMessage::Error, format!("{name}\0").into_bytes()),
            };
            let header = XsdSockmsg { kind: kind.number(), len: payload.len() as u32, ..header };
            theirs.write_all(&[header.as_bytes(), &payload].concat()).expect("is open");
        }
    });
    ours
}

fn answer(
    store: &FakeStore,
    open: &mut BTreeMap<u32, Tree>,
    kind: XsMessage,
    tx: u32,
    payload: &[u8],
) -> std::result::Result<Vec<u8>, &'static str> {
    let mut shared = store.tree.lock().expect("not poisoned");
    let end = payload.iter().position(|&byte| byte == 0).unwrap_or(payload.len());
    let path = String::from_utf8_lossy(&payload[..end]).into_owned();
    let done = Ok(b"OK\0".to_vec());
    match kind {
        XsMessage::TransactionStart => {
            let number = open.keys().next_back().map_or(1, |last| last + 1);
            open.insert(number, shared.clone());
            return Ok(format!("{number}\0").into_bytes());
        }
        XsMessage::TransactionEnd => {
            let tree = open.remove(&tx).ok_or("ENOENT")?;
            if payload == b"T\0" {
                *shared = tree;
            }
            return done;
        }
        XsMessage::Introduce => {
            shared.introduced.insert(path);
            return done;
        }
        _ => {}
    }
    let tree = if tx == 0 { &mut *shared } else { open.get_mut(&tx).ok_or("ENOENT")? };
    let below = format!("{path}/");
    let exists = tree.nodes.keys().any(|node| *node == path || node.starts_with(&below));
    match kind {
        XsMessage::Write => drop(tree.nodes.insert(path, payload[end + 1..].to_vec())),
        XsMessage::Mkdir => drop(tree.nodes.entry(path).or_default()),
        XsMessage::Rm => tree.nodes.retain(|node, _| *node != path && !node.starts_with(&below)),
        XsMessage::Directory if !exists => return Err("ENOENT"),
        XsMessage::Directory => {
            let child = |node: &String| {
                node.strip_prefix(&below).map(|rest| rest.split('/').next().unwrap_or_default().to_string())
            };
            let children: BTreeSet<String> = tree.nodes.keys().filter_map(child).collect();
            return Ok(children.iter().flat_map(|child| format!("{child}\0").into_bytes()).collect());
        }
        XsMessage::SetPerms if exists => {}
        XsMessage::SetPerms => return Err("ENOENT"),
        _ => return Err("ENOSYS"),
    }
    done
}
