//! QEMU's plugin interface, version 4 (QEMU 9.1 to 10.0; include/qemu/qemu-plugin.h has the declarations): all of this
//! crate's unsafe code.
//!
//! Every instruction adds one to its processor's count, inline. VMRUN, the instruction behind it, hypercalls and the marker NOPs call
//! back. While a row is recorded each address has a count of its own, too, inline: a callback would cost a thousand times more.

#![expect(unsafe_code, reason = "QEMU's interface is C")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::meter::{Marker, Meter};
use crate::report;

/// The interface's version, which QEMU looks for.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = 4;

/// A place in a scoreboard, which has one for each processor.
#[repr(C)]
#[derive(Clone, Copy)]
struct Counter {
    board: *mut c_void,
    offset: usize,
}
// SAFETY: the board lives as long as QEMU does, and its functions may be called on any thread.
unsafe impl Send for Counter {}
// SAFETY: as above.
unsafe impl Sync for Counter {}

/// GLib's growing arrays, as far as they are looked at.
#[repr(C)]
struct Array {
    data: *mut c_char,
    length: c_uint,
}

/// A register's description.
#[repr(C)]
struct Register {
    handle: *mut c_void,
    name: *const c_char,
    feature: *const c_char,
}

type Event = extern "C" fn(c_uint, *mut c_void);
/// Callback flags: registers are not looked at; registers are read.
const NO_REGISTERS: c_int = 0;
const READ_REGISTERS: c_int = 1;
/// Inline operation: add.
const ADD: c_int = 0;

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, callback: extern "C" fn(u64, *mut c_void));
    fn qemu_plugin_register_vcpu_init_cb(id: u64, callback: extern "C" fn(u64, c_uint));
    fn qemu_plugin_tb_n_insns(block: *const c_void) -> usize;
    fn qemu_plugin_tb_get_insn(block: *const c_void, index: usize) -> *mut c_void;
    fn qemu_plugin_insn_vaddr(instruction: *const c_void) -> u64;
    fn qemu_plugin_insn_size(instruction: *const c_void) -> usize;
    fn qemu_plugin_insn_data(instruction: *const c_void, bytes: *mut c_void, length: usize) -> usize;
    fn qemu_plugin_register_vcpu_insn_exec_cb(at: *mut c_void, callback: Event, flags: c_int, user: *mut c_void);
    fn qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(at: *mut c_void, what: c_int, counter: Counter, value: u64);
    fn qemu_plugin_scoreboard_new(bytes: usize) -> *mut c_void;
    fn qemu_plugin_u64_get(counter: Counter, processor: c_uint) -> u64;
    fn qemu_plugin_get_registers() -> *mut Array;
    fn qemu_plugin_read_register(handle: *mut c_void, bytes: *mut Array) -> c_int;
    fn qemu_plugin_read_memory_vaddr(address: u64, bytes: *mut Array, length: usize) -> bool;
    fn g_byte_array_new() -> *mut Array;
    fn g_byte_array_set_size(array: *mut Array, length: c_uint) -> *mut Array;
}

/// Where a VMCB has its exit code (AMD APM volume 2, appendix B).
const EXIT_CODE: u64 = 0x70;

/// Addresses that are counted while a row is recorded; more than a kernel, its tools and a hypervisor execute.
const PLACES: usize = 1 << 21;

/// What was asked for, and the counters.
struct Setup {
    direct_map: u64,
    row: Option<u64>,
    retired: Counter,
    /// One counter for each address, while a row is recorded.
    places: Counter,
}

static SETUP: OnceLock<Setup> = OnceLock::new();

/// What callbacks change.
#[derive(Default)]
struct State {
    meters: Vec<Meter>,
    /// Addresses of the instructions behind VMRUNs.
    behind_vmrun: HashSet<u64>,
    report: Option<File>,
    /// Where in the board an address has its counter.
    places: HashMap<u64, usize>,
}

impl State {
    /// The place of an address's counter; none when all are taken.
    fn place(&mut self, address: u64) -> Option<usize> {
        let next = self.places.len() * size_of::<u64>();
        let place = *self.places.entry(address).or_insert(next);
        (place < PLACES * size_of::<u64>()).then_some(place)
    }
}

static STATE: Mutex<Option<State>> = Mutex::new(None);
/// RAX's handle, as an address; 0 until it is known.
static RAX: OnceLock<usize> = OnceLock::new();

fn state() -> MutexGuard<'static, Option<State>> {
    // A panic in a callback would abort QEMU; a poisoned lock cannot be met.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does something with a processor's meter and its count of retired instructions.
fn with_meter<T>(processor: c_uint, work: impl FnOnce(&mut Meter, u64) -> T) -> Option<T> {
    // SAFETY: the counter was made by `install`.
    let retired = unsafe { qemu_plugin_u64_get(SETUP.get()?.retired, processor) };
    let mut state = state();
    let meters = &mut state.as_mut()?.meters;
    let index = processor as usize;
    if meters.len() <= index {
        meters.resize_with(index + 1, Meter::default);
    }
    Some(work(&mut meters[index], retired))
}

/// Runs `read` on an empty byte array of GLib's and gives its first 8 bytes, if it reads them.
fn word(read: impl FnOnce(*mut Array) -> bool) -> Option<u64> {
    thread_local! {
        // SAFETY: no conditions.
        static SCRATCH: *mut Array = unsafe { g_byte_array_new() };
    }
    SCRATCH.with(|array| {
        // SAFETY: the array was made above.
        unsafe { g_byte_array_set_size(*array, 0) };
        if !read(*array) {
            return None;
        }
        // SAFETY: `array` is GLib's, and nobody else uses it.
        let Array { data, length } = unsafe { array.read() };
        if length < 8 {
            return None;
        }
        // SAFETY: the array holds 8 bytes or more.
        Some(unsafe { data.cast::<u64>().read_unaligned() })
    })
}

/// What is in RAX.
fn rax() -> Option<u64> {
    let handle = std::ptr::with_exposed_provenance_mut(*RAX.get()?);
    // SAFETY: QEMU gave the handle for processors of this kind; the callback that asks may read registers.
    word(|array| unsafe { qemu_plugin_read_register(handle, array) } > 0)
}

/// The exit code in the VMCB whose physical address is in RAX.
fn exit_code() -> Option<u64> {
    let setup = SETUP.get()?;
    let vmcb = rax()?;
    // SAFETY: any address may be asked for.
    let code = word(|array| unsafe { qemu_plugin_read_memory_vaddr(setup.direct_map + vmcb + EXIT_CODE, array, 8) })?;
    Some(code & 0xffff_ffff)
}

extern "C" fn on_processor(_: u64, _: c_uint) {
    // SAFETY: called in the context of a processor.
    let list = unsafe { qemu_plugin_get_registers() };
    if list.is_null() {
        return;
    }
    // SAFETY: QEMU gives an array of descriptions.
    let Array { data, length } = unsafe { list.read() };
    for index in 0..length as usize {
        // SAFETY: index is below the array's length.
        let register = unsafe { data.cast::<Register>().wrapping_add(index).read() };
        // SAFETY: names are strings that live as long as QEMU.
        if unsafe { CStr::from_ptr(register.name) }.to_bytes() == b"rax" {
            RAX.get_or_init(|| register.handle.expose_provenance());
        }
    }
}

extern "C" fn on_vmrun(processor: c_uint, _: *mut c_void) {
    with_meter(processor, |meter, retired| meter.enter(retired));
}

extern "C" fn on_exit(processor: c_uint, _: *mut c_void) {
    let code = exit_code();
    with_meter(processor, |meter, retired| meter.leave(retired, code));
}

extern "C" fn on_call(processor: c_uint, _: *mut c_void) {
    // Callers give 32 bits (Xen's public headers: hypercall numbers are below 64).
    let number = rax().map_or(u64::MAX, |rax| rax & 0xffff_ffff);
    with_meter(processor, |meter, _| meter.call(number));
}

/// Instructions that a processor has executed so far, by address.
fn by_address(processor: c_uint) -> BTreeMap<u64, u64> {
    let (Some(setup), Some(state)) = (SETUP.get(), &*state()) else { return BTreeMap::new() };
    // SAFETY: the board was made by `set_up`, and the places lie in it.
    let count = |offset: usize| unsafe { qemu_plugin_u64_get(Counter { offset, ..setup.places }, processor) };
    state.places.iter().map(|(address, place)| (*address, count(*place))).filter(|(_, count)| *count != 0).collect()
}

fn on_marker(processor: c_uint, marker: Marker) {
    let Some(setup) = SETUP.get() else { return };
    let addresses = if setup.row.is_some() { by_address(processor) } else { BTreeMap::new() };
    let row = with_meter(processor, |meter, retired| {
        if setup.row.is_some_and(|row| meter.samples(row) || marker == Marker::Begin) {
            meter.executed(marker, addresses);
        }
        meter.mark(marker, retired)
    });
    let Some(row) = row else { return };
    if let (Some(row), Some(state)) = (row, state().as_mut())
        && let Some(file) = &mut state.report
        && let Err(error) = file.write_all(report::text(&row).as_bytes())
    {
        eprintln!("hvcount: cannot write the report: {error}");
        state.report = None;
    }
}

extern "C" fn on_begin(processor: c_uint, _: *mut c_void) {
    on_marker(processor, Marker::Begin);
}

extern "C" fn on_end(processor: c_uint, _: *mut c_void) {
    on_marker(processor, Marker::End);
}

extern "C" fn on_row(processor: c_uint, _: *mut c_void) {
    on_marker(processor, Marker::Row);
}

const VMRUN: [u8; 3] = [0x0f, 0x01, 0xd8];
/// How PVH guests call.
const VMMCALL: [u8; 3] = [0x0f, 0x01, 0xd9];
/// How kernels of PV guests call: only kernels, so in the upper half of addresses.
const SYSCALL: [u8; 2] = [0x0f, 0x05];
const UPPER_HALF: u64 = 1 << 63;

extern "C" fn on_block(_: u64, block: *mut c_void) {
    // SAFETY: QEMU gives a block that is valid during this call.
    let count = unsafe { qemu_plugin_tb_n_insns(block) };
    for index in 0..count {
        // SAFETY: index is below the block's number of instructions.
        let instruction = unsafe { qemu_plugin_tb_get_insn(block, index) };
        instrument(instruction);
    }
}

/// Adds what one instruction does. Callbacks come before the count of the instruction itself, but VMRUN's comes after it.
fn instrument(instruction: *mut c_void) {
    let Some(setup) = SETUP.get() else { return };
    // SAFETY: an instruction of the block that is being translated.
    let address = unsafe { qemu_plugin_insn_vaddr(instruction) };
    // SAFETY: as above.
    let size = unsafe { qemu_plugin_insn_size(instruction) };
    let mut bytes = [0_u8; 16];
    // SAFETY: as above; no more bytes are written than there are.
    let size = unsafe { qemu_plugin_insn_data(instruction, bytes.as_mut_ptr().cast(), size.min(bytes.len())) };
    let bytes = &bytes[..size];
    let call = |callback: Event, flags| {
        // SAFETY: as above; the callbacks need no user data.
        unsafe { qemu_plugin_register_vcpu_insn_exec_cb(instruction, callback, flags, std::ptr::null_mut()) };
    };
    if state().as_ref().is_some_and(|state| state.behind_vmrun.contains(&address)) {
        call(on_exit, READ_REGISTERS);
    }
    match Marker::decode(bytes) {
        Some(Marker::Begin) => call(on_begin, NO_REGISTERS),
        Some(Marker::End) => call(on_end, NO_REGISTERS),
        Some(Marker::Row) => call(on_row, NO_REGISTERS),
        None => {}
    }
    // SAFETY: as above, and the counter was made by `install`.
    unsafe { qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(instruction, ADD, setup.retired, 1) };
    if let Some(place) = state().as_mut().filter(|_| setup.row.is_some()).and_then(|state| state.place(address)) {
        let counter = Counter { offset: place, ..setup.places };
        // SAFETY: as above; the place lies in the board.
        unsafe { qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(instruction, ADD, counter, 1) };
    }
    if bytes == VMMCALL || (bytes == SYSCALL && address >= UPPER_HALF) {
        call(on_call, READ_REGISTERS);
    }
    if bytes == VMRUN {
        if let Some(state) = state().as_mut() {
            state.behind_vmrun.insert(address + size as u64);
        }
        call(on_vmrun, NO_REGISTERS);
    }
}

/// Called by QEMU when it loads the plugin. 0 is success.
///
/// # Safety
/// `arguments` is an array of `count` strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    _info: *const c_void,
    count: c_int,
    arguments: *const *const c_char,
) -> c_int {
    let mut words = Vec::new();
    for index in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: QEMU's promise above.
        let word = unsafe { arguments.wrapping_add(index).read() };
        // SAFETY: as above.
        words.push(unsafe { CStr::from_ptr(word) }.to_string_lossy().into_owned());
    }
    match set_up(&words) {
        Ok(()) => {
            // SAFETY: QEMU's own identifier, and functions with the right signatures.
            unsafe { qemu_plugin_register_vcpu_init_cb(id, on_processor) };
            // SAFETY: as above.
            unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, on_block) };
            0
        }
        Err(why) => {
            eprintln!("hvcount: {why}");
            1
        }
    }
}

fn set_up(words: &[String]) -> Result<(), String> {
    let (mut report, mut direct_map, mut row) = (None, 0, None);
    for word in words {
        match word.split_once('=') {
            Some(("out", path)) => {
                report = Some(File::create(path).map_err(|error| format!("cannot write {path}: {error}"))?);
            }
            Some(("dm", text)) => {
                direct_map = u64::from_str_radix(text, 16).map_err(|error| format!("{word}: {error}"))?;
            }
            Some(("row", text)) => row = Some(text.parse().map_err(|error| format!("{word}: {error}"))?),
            _ => return Err(format!("unknown argument {word}")),
        }
    }
    *state() = Some(State { report, ..State::default() });
    let counters = |count: usize| {
        // SAFETY: no conditions.
        let board = unsafe { qemu_plugin_scoreboard_new(count * size_of::<u64>()) };
        Counter { board, offset: 0 }
    };
    let places = if row.is_some() { PLACES } else { 1 };
    SETUP.get_or_init(|| Setup { direct_map, row, retired: counters(1), places: counters(places) });
    Ok(())
}
