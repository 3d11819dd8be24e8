//! Longer than 500 lines because unsafe stands in one module of a tool.
//!
//! The unsafe of this crate: mappings and ioctls of the Xen devices, of loop devices and of network interfaces, each wrapped so
//! that its caller needs none.
//!
//! A [`Mapping`] is memory that someone else may write too, a hypervisor or another domain, so no reference to it is made: bytes are
//! copied between it and ordinary memory. The two exceptions, [`Mapping::read_file`] and [`Mapping::is_zero`], say why they may.
//! The ioctl numbers are computed as Linux's `_IOC(NONE, …)` does.
#![expect(unsafe_code, reason = "mappings and ioctls; every block says why it is sound")]

use std::ffi::c_void;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::ptr;

use rustix::io::{Errno, Result};
use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode};
use rustix::mm::{self, MapFlags, ProtFlags};

/// Mapped memory, unmapped when dropped.
pub(super) struct Mapping {
    address: *mut c_void,
    length: usize,
}

impl Mapping {
    /// A shared, writable mapping of a device. `length` is a multiple of the page size and not zero.
    pub(super) fn shared(device: &File, length: usize) -> Result<Mapping> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: The address is the kernel's choice, so the mapping replaces nothing that exists.
        let address = unsafe { mm::mmap(ptr::null_mut(), length, protection, MapFlags::SHARED, device, 0) }?;
        Ok(Mapping { address, length })
    }

    /// Anonymous memory that is locked, for kernels without /dev/xen/hypercall.
    pub(super) fn locked(length: usize) -> Result<Mapping> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::LOCKED | MapFlags::POPULATE;
        // SAFETY: The address is the kernel's choice, so the mapping replaces nothing that exists.
        let address = unsafe { mm::mmap_anonymous(ptr::null_mut(), length, protection, flags) }?;
        Ok(Mapping { address, length })
    }

    /// A shared, writable mapping of one page of a device, from an offset that the device gave.
    pub(super) fn page_at(device: &File, offset: u64) -> Result<Mapping> {
        let (length, protection) = (super::PAGE, ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: The address is the kernel's choice, so the mapping replaces nothing that exists.
        let address = unsafe { mm::mmap(ptr::null_mut(), length, protection, MapFlags::SHARED, device, offset) }?;
        Ok(Mapping { address, length })
    }

    pub(super) fn address(&self) -> u64 {
        self.address.addr() as u64
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// The pointer to `count` bytes at `offset`; panics unless they lie in the mapping.
    fn at(&self, offset: usize, count: usize) -> *mut u8 {
        let end = offset.checked_add(count);
        assert!(end.is_some_and(|end| end <= self.length), "{count} bytes at {offset} lie outside of the mapping");
        self.address.cast::<u8>().wrapping_add(offset)
    }

    pub(super) fn read_at(&self, offset: usize, bytes: &mut [u8]) {
        let from = self.at(offset, bytes.len());
        // SAFETY: `from` is valid for that many bytes of this mapping (checked by `at`), and `bytes` is ours alone, so
        // the two do not overlap. Others may write the mapping meanwhile; the bytes are taken as they come.
        unsafe { ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) }
    }

    pub(super) fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        let to = self.at(offset, bytes.len());
        // SAFETY: `to` is valid for that many bytes of this mapping (checked by `at`), which is writable; `bytes` is
        // ordinary memory, so the two do not overlap.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }

    /// Whether bytes are all zero; no if offset or count is no multiple of 16. As [`Mapping::read_file`], for a mapping that only this
    /// process and its own hypercalls write to.
    pub(super) fn is_zero(&self, offset: usize, count: usize) -> bool {
        let from = self.at(offset, count).cast_const().cast::<u128>();
        if !from.is_aligned() || !count.is_multiple_of(size_of::<u128>()) {
            return false;
        }
        // SAFETY: `from` is aligned, and valid for that many bytes of this mapping (checked by `at`), which was zeroed when it was
        // made. While the slice lives `self` is borrowed, so nobody here writes them, and no hypercall is made that would.
        let words = unsafe { std::slice::from_raw_parts(from, count / size_of::<u128>()) };
        crate::trap::is_zero(words)
    }

    /// Reads `count` bytes of a file to the beginning, from `at` on. For a mapping that only this process and its own hypercalls
    /// write to.
    pub(super) fn read_file(&mut self, file: &File, at: u64, count: usize) -> std::io::Result<()> {
        let to = self.at(0, count);
        // SAFETY: `to` is valid for that many bytes of this mapping (checked by `at`), which is writable and was zeroed when it
        // was made. `self` is borrowed alone, so nobody else here reaches them while the slice lives, and a hypercall that would
        // write to them is made by this process, not meanwhile.
        let bytes = unsafe { std::slice::from_raw_parts_mut(to, count) };
        file.read_exact_at(bytes, at)
    }

    /// The place of a word; panics unless it is aligned and lies in the mapping.
    fn word_at(&self, offset: usize) -> *mut u32 {
        assert!(offset.is_multiple_of(4), "a word at {offset} is not aligned");
        self.at(offset, 4).cast()
    }

    pub(super) fn load(&self, offset: usize) -> u32 {
        let from = self.word_at(offset);
        // SAFETY: `from` is valid and aligned (checked by `word_at`). Others may write it meanwhile: a volatile read of an
        // aligned word is one access, and any value will do.
        unsafe { from.read_volatile() }
    }

    pub(super) fn store(&mut self, offset: usize, word: u32) {
        let to = self.word_at(offset);
        // SAFETY: `to` is valid and aligned (checked by `word_at`), and the mapping is writable; a volatile write of an
        // aligned word is one access.
        unsafe { to.write_volatile(word) }
    }

    pub(super) fn clear_at(&mut self, offset: usize, length: usize) {
        let to = self.at(offset, length);
        // SAFETY: `to` is valid for that many bytes of this mapping (checked by `at`), which is writable.
        unsafe { ptr::write_bytes(to, 0, length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: The range was mapped by the constructor and belongs to nobody else; no pointer into it outlives `self`.
        let result = unsafe { mm::munmap(self.address, self.length) };
        debug_assert!(result.is_ok(), "munmap of our own mapping fails only for a wrong range");
    }
}

/// `_IOC(_IOC_NONE, kind, number, size_of::<T>())`.
const fn opcode<T>(kind: u8, number: u8) -> Opcode {
    (size_of::<T>() as Opcode) << 16 | (kind as Opcode) << 8 | number as Opcode
}

/// An ioctl that takes a pointer to `T` and returns a number that is not negative.
struct Call<'a, T> {
    opcode: Opcode,
    argument: &'a mut T,
}

// SAFETY: `as_ptr` gives a pointer that is valid for reading and writing a `T` while the ioctl runs, which is what all
// requests of this file take; what `T` itself points to is the business of the function that makes the `Call`.
unsafe impl<T> Ioctl for Call<'_, T> {
    type Output = IoctlOutput;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        ptr::from_mut(self.argument).cast()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _argument: *mut c_void) -> Result<Self::Output> {
        Ok(out)
    }
}

fn unsigned(value: IoctlOutput) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[repr(C)]
struct PrivcmdHypercall {
    number: u64,
    arguments: [u64; 5],
}

/// `IOCTL_PRIVCMD_HYPERCALL`
pub(super) fn hypercall(device: &File, number: u64, arguments: [u64; 5]) -> Result<u64> {
    let mut argument = PrivcmdHypercall { number, arguments };
    let call = Call { opcode: opcode::<PrivcmdHypercall>(b'P', 0), argument: &mut argument };
    // SAFETY: The kernel reads the structure only. The hypercall may write memory at addresses among its arguments:
    // callers pass addresses of a `Buf` with enough room, as `Handle` guarantees.
    unsafe { ioctl::ioctl(device.as_fd(), call) }.map(unsigned)
}

#[repr(C)]
struct PrivcmdMapBatch {
    count: u32,
    domain: u16,
    address: u64,
    gfns: *const u64,
    results: *mut i32,
}

/// `IOCTL_PRIVCMD_MMAPBATCH_V2`: fills `mapping`, a fresh mapping of the same device, with pages of a domain.
pub(super) fn map_batch(
    device: &File,
    domain: u16,
    mapping: &Mapping,
    gfns: &[u64],
    results: &mut [i32],
) -> Result<()> {
    let pages = mapping.len() / super::PAGE;
    if gfns.len() != pages || results.len() != pages {
        return Err(Errno::INVAL);
    }
    let count = u32::try_from(pages).map_err(|_| Errno::INVAL)?;
    let address = mapping.address();
    let mut argument = PrivcmdMapBatch { count, domain, address, gfns: gfns.as_ptr(), results: results.as_mut_ptr() };
    let call = Call { opcode: opcode::<PrivcmdMapBatch>(b'P', 4), argument: &mut argument };
    // SAFETY: The kernel reads `count` frame numbers and writes `count` results, which is how long both slices are, and
    // changes page tables of `mapping` only, whose memory is never referenced.
    let result = unsafe { ioctl::ioctl(device.as_fd(), call) };
    match result {
        // Single pages failed: the results say which.
        Err(Errno::NOENT) => Ok(()),
        other => other.map(|_| ()),
    }
}

#[repr(C)]
struct PrivcmdMapResource {
    domain: u16,
    kind: u32,
    id: u32,
    frame: u32,
    frames: u64,
    address: u64,
}

/// `IOCTL_PRIVCMD_MMAP_RESOURCE`: fills `mapping`, a fresh mapping of the same device, with frames of a resource.
pub(super) fn map_resource(
    device: &File,
    domain: u16,
    mapping: &Mapping,
    kind: u32,
    id: u32,
    frame: u64,
) -> Result<()> {
    let frame = u32::try_from(frame).map_err(|_| Errno::INVAL)?;
    let frames = (mapping.len() / super::PAGE) as u64;
    let mut argument = PrivcmdMapResource { domain, kind, id, frame, frames, address: mapping.address() };
    let call = Call { opcode: opcode::<PrivcmdMapResource>(b'P', 7), argument: &mut argument };
    // SAFETY: The kernel reads the structure and changes page tables of `mapping` only, whose memory is never referenced.
    unsafe { ioctl::ioctl(device.as_fd(), call) }.map(|_| ())
}

#[repr(C)]
struct GntdevMapGrantRef {
    count: u32,
    padding: u32,
    /// Where to map it in the device; written by the kernel.
    index: u64,
    domain: u32,
    reference: u32,
}

/// `IOCTL_GNTDEV_MAP_GRANT_REF` for one grant: the offset at which the device maps it.
pub(super) fn grant_offset(device: &File, domain: u16, reference: u32) -> Result<u64> {
    let mut argument = GntdevMapGrantRef { count: 1, padding: 0, index: 0, domain: domain.into(), reference };
    let call = Call { opcode: opcode::<GntdevMapGrantRef>(b'G', 0), argument: &mut argument };
    // SAFETY: The kernel reads the structure, with as many references as it counts, and writes the index in it.
    unsafe { ioctl::ioctl(device.as_fd(), call) }?;
    Ok(argument.index)
}

/// `IOCTL_EVTCHN_BIND_VIRQ`
pub(super) fn evtchn_bind_virq(device: &File, virq: u32) -> Result<u32> {
    evtchn(device, 0, virq)
}

/// `IOCTL_EVTCHN_BIND_INTERDOMAIN`
pub(super) fn evtchn_bind_interdomain(device: &File, domain: u32, port: u32) -> Result<u32> {
    evtchn(device, 1, [domain, port])
}

/// `IOCTL_EVTCHN_UNBIND`
pub(super) fn evtchn_unbind(device: &File, port: u32) -> Result<()> {
    evtchn(device, 3, port).map(|_| ())
}

/// `IOCTL_EVTCHN_NOTIFY`
pub(super) fn evtchn_notify(device: &File, port: u32) -> Result<()> {
    evtchn(device, 4, port).map(|_| ())
}

/// A request of /dev/xen/evtchn; all take 32-bit numbers and return a port or 0.
fn evtchn<T>(device: &File, number: u8, mut argument: T) -> Result<u32> {
    let call = Call { opcode: opcode::<T>(b'E', number), argument: &mut argument };
    // SAFETY: The kernel reads the numbers, whose count the opcode carries, and touches no other memory of ours.
    let result = unsafe { ioctl::ioctl(device.as_fd(), call) }?;
    u32::try_from(result).map_err(|_| Errno::IO)
}

/// An ioctl with a number of old, which carries no size.
struct Old<'a, T> {
    opcode: Opcode,
    argument: Option<&'a mut T>,
}

// SAFETY: `as_ptr` gives null for requests without an argument, whose argument the kernel ignores, or a pointer that is valid
// for reading and writing a `T` while the ioctl runs; that the request takes a `T` is the business of who makes the `Old`.
unsafe impl<T> Ioctl for Old<'_, T> {
    type Output = IoctlOutput;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.argument.as_deref_mut().map_or(ptr::null_mut(), |argument| ptr::from_mut(argument).cast())
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _argument: *mut c_void) -> Result<Self::Output> {
        Ok(out)
    }
}

/// `LOOP_CTL_GET_FREE`: the number of a loop device that has no file (linux/loop.h).
pub(super) fn loop_free(control: &File) -> Result<u32> {
    let call = Old::<u8> { opcode: 0x4c82, argument: None };
    // SAFETY: The request takes no argument and touches no memory of ours.
    let number = unsafe { ioctl::ioctl(control.as_fd(), call) }?;
    u32::try_from(number).map_err(|_| Errno::IO)
}

/// `struct loop_config`, with `struct loop_info64` in it.
#[repr(C)]
struct LoopConfig {
    file: u32,
    block_size: u32,
    /// Device, inode, device number, offset, size limit.
    places: [u64; 5],
    /// Number, encryption type and key size.
    numbers: [u32; 3],
    flags: u32,
    file_name: [u8; 64],
    encryption: [u8; 96],
    init: [u64; 2],
    reserved: [u64; 8],
}

/// `LOOP_CONFIGURE`: gives a loop device its file.
pub(super) fn loop_configure(device: &File, file: &File, name: &str, read_only: bool) -> Result<()> {
    /// `LO_FLAGS_READ_ONLY`
    const READ_ONLY: u32 = 1;
    let mut file_name = [0; 64];
    let length = name.len().min(63);
    file_name[..length].copy_from_slice(&name.as_bytes()[..length]);
    let mut argument = LoopConfig {
        file: u32::try_from(file.as_raw_fd()).map_err(|_| Errno::BADF)?,
        block_size: 0,
        places: [0; 5],
        numbers: [0; 3],
        flags: if read_only { READ_ONLY } else { 0 },
        file_name,
        encryption: [0; 96],
        init: [0; 2],
        reserved: [0; 8],
    };
    let call = Old { opcode: 0x4c0a, argument: Some(&mut argument) };
    // SAFETY: The kernel reads the structure, which has the layout of linux/loop.h (a test asserts its size), and takes a
    // reference of its own to the open file.
    unsafe { ioctl::ioctl(device.as_fd(), call) }.map(|_| ())
}

/// `LOOP_CLR_FD`: takes a loop device's file away, at once or when its last user has closed it.
pub(super) fn loop_clear(device: &File) -> Result<()> {
    let call = Old::<u8> { opcode: 0x4c01, argument: None };
    // SAFETY: The request takes no argument and touches no memory of ours.
    unsafe { ioctl::ioctl(device.as_fd(), call) }.map(|_| ())
}

/// `struct ifreq`: a name, and what the request makes of the rest.
#[repr(C)]
struct Interface {
    name: [u8; 16],
    rest: [u8; 24],
}

/// A name as the kernel wants it, with a zero at its end.
fn interface_name(name: &str) -> Result<[u8; 16]> {
    let mut bytes = [0; 16];
    if name.is_empty() || name.len() > 15 || name.contains(['\0', '/']) {
        return Err(Errno::INVAL);
    }
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Ok(bytes)
}

/// A request about an interface whose answer is left in `rest`.
fn interface(socket: BorrowedFd<'_>, request: Opcode, name: &str, rest: &[u8]) -> Result<[u8; 24]> {
    let mut argument = Interface { name: interface_name(name)?, rest: [0; 24] };
    argument.rest[..rest.len()].copy_from_slice(rest);
    let call = Old { opcode: request, argument: Some(&mut argument) };
    // SAFETY: All requests made here take a `struct ifreq`, whose size on 64-bit Linux is this structure's, and no pointer in it.
    unsafe { ioctl::ioctl(socket, call) }?;
    Ok(argument.rest)
}

/// `SIOCBRADDIF`: makes interface number `index` a port of a bridge.
pub(super) fn bridge_add(socket: BorrowedFd<'_>, bridge: &str, index: u32) -> Result<()> {
    interface(socket, 0x89a2, bridge, &index.to_ne_bytes()).map(|_| ())
}

/// `SIOCSIFNAME`
pub(super) fn interface_rename(socket: BorrowedFd<'_>, name: &str, new: &str) -> Result<()> {
    interface(socket, 0x8923, name, &interface_name(new)?).map(|_| ())
}

/// An IPv4 address as `struct sockaddr_in`.
fn socket_address(address: [u8; 4]) -> [u8; 16] {
    /// `AF_INET`
    const INET: u16 = 2;
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&INET.to_ne_bytes());
    bytes[4..8].copy_from_slice(&address);
    bytes
}

/// `SIOCGIFADDR`
pub(super) fn interface_address(socket: BorrowedFd<'_>, name: &str) -> Result<[u8; 4]> {
    let rest = interface(socket, 0x8915, name, &[])?;
    Ok([rest[4], rest[5], rest[6], rest[7]])
}

/// `SIOCSIFADDR` and `SIOCSIFNETMASK`: an address of its own, with no network around it.
pub(super) fn set_interface_address(socket: BorrowedFd<'_>, name: &str, address: [u8; 4]) -> Result<()> {
    interface(socket, 0x8916, name, &socket_address(address))?;
    interface(socket, 0x891c, name, &socket_address([255; 4])).map(|_| ())
}

/// `struct rtentry`
#[repr(C)]
struct Route {
    pad1: u64,
    destination: [u8; 16],
    gateway: [u8; 16],
    mask: [u8; 16],
    flags: u16,
    pad2: i16,
    pad3: u64,
    pad4: u64,
    metric: i16,
    device: *const u8,
    mtu: u64,
    window: u64,
    initial_round_trip: u16,
}

/// `SIOCADDRT`: packets for one address go to an interface.
pub(super) fn add_route(socket: BorrowedFd<'_>, name: &str, address: [u8; 4]) -> Result<()> {
    /// `RTF_UP` and `RTF_HOST`
    const UP_HOST: u16 = 0x5;
    let name = interface_name(name)?;
    let mut argument = Route {
        pad1: 0,
        destination: socket_address(address),
        gateway: socket_address([0; 4]),
        mask: socket_address([255; 4]),
        flags: UP_HOST,
        pad2: 0,
        pad3: 0,
        pad4: 0,
        metric: 0,
        device: name.as_ptr(),
        mtu: 0,
        window: 0,
        initial_round_trip: 0,
    };
    let call = Old { opcode: 0x890b, argument: Some(&mut argument) };
    // SAFETY: The kernel reads the structure, which has the layout of linux/route.h (a test asserts its size), and the name it
    // points to, which lives until the call has returned and ends with a zero.
    unsafe { ioctl::ioctl(socket, call) }.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers that Linux's headers give on x86-64.
    #[test]
    fn opcodes_are_linuxs() {
        assert_eq!(opcode::<PrivcmdHypercall>(b'P', 0), 0x0030_5000);
        assert_eq!(opcode::<PrivcmdMapBatch>(b'P', 4), 0x0020_5004);
        assert_eq!(opcode::<PrivcmdMapResource>(b'P', 7), 0x0020_5007);
        assert_eq!(opcode::<[u32; 2]>(b'E', 1), 0x0008_4501);
        assert_eq!(opcode::<GntdevMapGrantRef>(b'G', 0), 0x0018_4700);
    }

    /// Sizes of the structures on 64-bit Linux.
    #[test]
    fn structures_are_linuxs() {
        assert_eq!(size_of::<LoopConfig>(), 304);
        assert_eq!(std::mem::offset_of!(LoopConfig, flags), 8 + 52);
        assert_eq!(size_of::<Interface>(), 40);
        assert_eq!(size_of::<Route>(), 120);
        assert_eq!(std::mem::offset_of!(Route, device), 88);
        assert_eq!(interface_name("sixteen-letters-"), Err(Errno::INVAL));
    }

    #[test]
    fn a_file_is_read_into_a_mapping() {
        let path = std::env::temp_dir().join(format!("libxc-file-{}", std::process::id()));
        let content: Vec<u8> = (0..10_000_u32).map(|index| (index % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let file = File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut mapping = Mapping::locked(8192).expect("memory for two pages");
        mapping.read_file(&file, 1000, 8192).unwrap();
        let mut bytes = vec![0; 8192];
        mapping.read_at(0, &mut bytes);
        assert_eq!(bytes, content[1000..9192]);
        assert!(!mapping.is_zero(4096, 4096));
        mapping.clear_at(4096, 4095);
        assert!(mapping.is_zero(4096, 4080) && !mapping.is_zero(4096, 4096));
        let short = mapping.read_file(&file, 9000, 1001).unwrap_err();
        assert_eq!(short.kind(), std::io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn mappings_copy_in_and_out() {
        let mut mapping = Mapping::locked(8192).expect("memory for two pages");
        mapping.write_at(4090, b"abcdefghij");
        let mut bytes = [0; 10];
        mapping.read_at(4090, &mut bytes);
        assert_eq!(&bytes, b"abcdefghij");
        mapping.clear_at(4091, 8);
        mapping.read_at(4090, &mut bytes);
        assert_eq!(&bytes, b"a\0\0\0\0\0\0\0\0j");
    }

    #[test]
    fn words_are_loaded_and_stored() {
        let mut mapping = Mapping::locked(4096).expect("memory for a page");
        mapping.store(4092, 0x0403_0201);
        let mut bytes = [0; 4];
        mapping.read_at(4092, &mut bytes);
        assert_eq!((bytes, mapping.load(4092)), ([1, 2, 3, 4], 0x0403_0201));
    }

    #[test]
    #[should_panic(expected = "outside of the mapping")]
    fn nothing_is_written_outside() {
        let mut mapping = Mapping::locked(4096).expect("memory for a page");
        mapping.write_at(4090, b"abcdefghij");
    }
}
