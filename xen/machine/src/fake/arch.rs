//! The names that every architecture exports, for the fake machine.

use super::devices::{PinEntry, with_current_devices};
use super::machine::{current, try_current, with_current};
use crate::codec::tags::AddressSpaceTag;
use crate::codec::vmcb::Vmcb;
use crate::cpu::Work;
use crate::exit::Exit;
use crate::frame::FrameTable;
use crate::platform::{ApicIds, DeviceVector, Pin, PinState};
use crate::units::{CpuId, DomId, Maddr, Mfn};
use crate::vcpu::{GeneralRegisters, LazyState};
use core::any::Any;
use core::cell::Cell;
use core::sync::atomic::Ordering;

std::thread_local! {
    /// Lock ranks that this thread holds. Also kept outside of machines, where the console's lock is still used.
    static HELD_RANKS: Cell<u64> = const { Cell::new(0) };
}

/// Bytes of an XSAVE area with x87, SSE and AVX state.
const EXTENDED_STATE_BYTES: usize = 832;
/// x87, SSE and AVX.
const COMPONENTS: u64 = 0b111;

/// Where hardware finds the permission maps.
#[derive(Clone, Copy, Debug)]
pub struct PermissionMaps {
    /// One bit a port.
    pub ports: Maddr,
    /// Two bits an MSR.
    pub msrs: Maddr,
}

pub fn with_frames<R>(work: impl FnOnce(&FrameTable) -> R) -> R {
    let (machine, _) = current();
    work(&machine.frames)
}

pub fn may_allocate() -> bool {
    super::allocation::may_allocate()
}

pub fn page_address(mfn: Mfn) -> *mut u8 {
    with_current(|machine, _| machine.ram.page_address(mfn))
        .unwrap_or_else(|| panic!("the hypervisor reaches {mfn:?}, which is not RAM"))
}

/// Writes a page back to memory.
pub fn write_back(mfn: Mfn) {
    super::iommu_intel::write_back(mfn.address(), crate::units::PAGE_SIZE_U64);
}

/// Writes the line of 64 bytes back that a word of a page is in.
pub fn write_back_word(mfn: Mfn, word: usize) {
    let line = mfn.address().number() + ((word as u64 * 8) & !63);
    super::iommu_intel::write_back(Maddr::new(line), 64);
}

pub fn page_of(place: *const u8) -> Mfn {
    with_current(|machine, _| machine.ram.page_of(place))
        .unwrap_or_else(|| panic!("{place:p} is not in this machine's RAM"))
}

pub fn lies_in(place: *const u8, mfn: Mfn) -> bool {
    page_of(place) == mfn
}

pub fn current_cpu() -> CpuId {
    with_current(|_, cpu| cpu)
}

pub fn cpu_count() -> usize {
    with_current(|machine, _| machine.running_cpus.load(Ordering::Acquire))
}

pub fn take_work() -> u32 {
    with_current(|machine, cpu| machine.cpu(cpu).take_work())
}

pub fn take_device_vectors() -> [u64; 4] {
    with_current(|machine, cpu| machine.cpu(cpu).take_device_vectors())
}

pub fn end_interrupt() {
    with_current_devices(|devices| devices.ended += 1);
}

pub fn has_work() -> bool {
    with_current(|machine, cpu| !machine.cpu(cpu).work().is_empty())
}

pub fn kick(cpu: CpuId) {
    with_current(|machine, _| {
        if let Some(cpu) = machine.find_cpu(cpu) {
            cpu.kicks.fetch_add(1, Ordering::AcqRel);
            cpu.note(Work::KICK);
        }
    });
}

/// Rounds of waiting after which nobody will ever come: on a stepped machine no other CPU runs meanwhile.
const MOST_ROUNDS: u64 = 1 << 20;

pub fn relax() {
    if let Some((machine, cpu)) = try_current() {
        machine.check_running();
        if machine.is_stepped && machine.relaxed.fetch_add(1, Ordering::Relaxed) > MOST_ROUNDS {
            panic!("{cpu:?} waits for another CPU, but the test takes its turn now");
        }
    }
    std::thread::yield_now();
}

pub fn pass(ticks: u64) {
    with_current(|machine, _| machine.advance(ticks));
}

pub fn interrupt_window() {
    with_current(|machine, cpu| machine.cpu(cpu).take_interrupt());
}

pub fn idle() {
    let (machine, id) = current();
    let cpu = machine.cpu(id);
    while !machine.is_stepped && cpu.work().is_empty() && !cpu.has_interrupt() {
        machine.check_running();
        std::thread::yield_now();
    }
    cpu.take_interrupt();
}

pub fn timestamp() -> u64 {
    with_current(|machine, _| machine.clock.load(Ordering::Acquire))
}

pub fn timestamp_khz() -> u64 {
    with_current(|machine, _| machine.khz)
}

pub fn set_timer(deadline: Option<u64>) {
    with_current(|machine, cpu| machine.cpu(cpu).set_deadline(deadline, machine.clock.load(Ordering::Acquire)));
}

pub fn wall_clock_seconds() -> u64 {
    with_current(|machine, _| machine.desk().wall_clock)
}

pub fn set_working_for(domain: DomId, vcpu: u16) {
    let packed = u64::from(domain.0) << 16 | u64::from(vcpu);
    with_current(|machine, cpu| machine.cpu(cpu).working_for.store(packed, Ordering::Release));
}

pub fn restart() -> ! {
    panic!("the fake machine restarts")
}

pub fn stop() -> ! {
    panic!("the fake machine stops")
}

pub fn held_ranks() -> u64 {
    HELD_RANKS.get()
}

pub fn set_held_ranks(ranks: u64) {
    HELD_RANKS.set(ranks);
}

/// Sets the ranks and gives those before: another CPU holds others.
pub(super) fn replace_held_ranks(ranks: u64) -> u64 {
    HELD_RANKS.replace(ranks)
}

pub fn console_write(text: &[u8]) {
    super::allocation::exempt(|| {
        if let Some((machine, _)) = try_current() {
            machine.desk().console.extend_from_slice(text);
        }
    });
}

pub fn console_receive() -> Option<u8> {
    with_current(|machine, _| machine.desk().typed.pop_front())
}

pub fn console_port() -> Option<u16> {
    Some(0x3f8)
}

pub fn set_no_reboot() {}

/// Twenty bytes, as many as the linker's.
pub fn build_id() -> &'static [u8] {
    b"the fake machine: 20"
}

/// As many as the usual controller has.
pub fn pin_count(_controller: Maddr) -> u16 {
    24
}

pub fn set_pin(controller: Maddr, pin: Pin, state: PinState, vector: DeviceVector, apic_id: u8) {
    with_current_devices(|devices| devices.set_pin(controller, PinEntry { pin, state, vector, apic_id }));
}

/// Nothing is programmed when the hypervisor starts.
pub fn mask_interrupts(_controller: Maddr) {}

/// As `mask_interrupts`: what is typed on a fake console is in its queue at once.
pub fn route_console(_controller: Maddr, _pin: Pin) {}

pub fn set_host(host: &'static (dyn Any + Send + Sync)) {
    with_current(|machine, _| machine.desk().host = Some(host));
}

pub fn host() -> Option<&'static (dyn Any + Send + Sync)> {
    with_current(|machine, _| machine.desk().host)
}

/// Starts a thread for each further CPU that the builder has foreseen. Those that were not are not there.
pub fn start_other_cpus(apic_ids: impl Iterator<Item = u32>, entry: fn(CpuId) -> !) -> ApicIds {
    let (machine, _) = current();
    let found = (1u16..).zip(apic_ids).take_while(|(number, _)| machine.find_cpu(CpuId(*number)).is_some());
    if machine.is_stepped {
        return found.map(|(_, apic_id)| apic_id).collect();
    }
    let fake = super::machine::FakeMachine::from_state(machine.clone());
    let mut started = ApicIds::new();
    for (number, apic_id) in found {
        let fake = fake.clone();
        std::thread::spawn(move || {
            fake.on_cpu_until_stopped(number, || {
                entry(CpuId(number));
            });
        });
        started.push(apic_id).expect("as many as there can be");
    }
    started
}

pub fn apic_id() -> u32 {
    with_current(|_, cpu| u32::from(cpu.0) * 2)
}

pub fn local_apic() -> Maddr {
    Maddr::new(0xfee0_0000)
}

/// What the test has set, or the answers of a small AMD processor.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    if let Some(answer) = with_current(|machine, _| machine.desk().cpuid.get(&(leaf, subleaf)).copied()) {
        return answer;
    }
    let vendor = [u32::from_le_bytes(*b"Auth"), u32::from_le_bytes(*b"cAMD"), u32::from_le_bytes(*b"enti")];
    match leaf {
        0 => [0xd, vendor[0], vendor[1], vendor[2]],
        1 => [0x0080_0f12, 0, 0x9fb8_220b, 0x178b_fbff],
        0xd if subleaf == 0 => [COMPONENTS as u32, EXTENDED_STATE_BYTES as u32, EXTENDED_STATE_BYTES as u32, 0],
        0xd if subleaf == 2 => [256, 576, 0, 0],
        0x8000_0000 => [0x8000_000a, vendor[0], vendor[1], vendor[2]],
        0x8000_0001 => [0x0080_0f12, 0, 0x0000_01f7, 0x2fd3_fbff],
        0x8000_0008 => [0x3030, 0, 0, 0],
        0x8000_000a => [1, 8, 0, 1],
        _ => [0; 4],
    }
}

pub fn supported_xcr0() -> u64 {
    COMPONENTS
}

pub fn extended_state_bytes() -> usize {
    EXTENDED_STATE_BYTES
}

pub fn permission_maps() -> PermissionMaps {
    // Nobody reads them: scripts decide what exits.
    PermissionMaps { ports: Maddr::new(0), msrs: Maddr::new(0) }
}

/// The processor has no pages of its own here.
pub fn check_control_block(_vmcb: &Vmcb) {}

pub fn load_lazy(_state: &LazyState) {}

pub fn save_lazy(_state: &mut LazyState) {}

pub fn set_xcr0(_value: u64) {}

pub fn set_tsc_aux(_value: u64) {}

pub fn load_debug_registers(values: &[u64; 4]) {
    with_current(|machine, cpu| machine.cpu(cpu).set_debug_registers(*values));
}

pub fn save_debug_registers(values: &mut [u64; 4]) {
    *values = with_current(|machine, cpu| machine.cpu(cpu).debug_registers());
}

pub fn control_block_address(_vmcb: &mut Vmcb) -> Maddr {
    Maddr::new(0)
}

pub fn run(vmcb: &mut Vmcb, _place: Maddr, general: &mut GeneralRegisters, tag: &mut AddressSpaceTag) -> Exit {
    super::script::run(vmcb, general, tag)
}

/// Firmware data that the test has placed, else RAM, else all ones.
pub fn read_firmware(maddr: Maddr, out: &mut [u8]) -> bool {
    if maddr.checked_add(out.len() as u64).is_none_or(|end| end.number() >= 1 << 46) {
        return false;
    }
    with_current(|machine, _| {
        let desk = machine.desk();
        for (place, at) in out.iter_mut().zip(maddr.number()..) {
            let placed = desk
                .firmware
                .iter()
                .rev()
                .find_map(|(start, bytes)| bytes.get(usize::try_from(at.checked_sub(*start)?).ok()?).copied());
            let mut byte = [0xff];
            *place = placed.unwrap_or_else(|| if machine.ram.read(Maddr::new(at), &mut byte) { byte[0] } else { 0xff });
        }
    });
    true
}

pub fn port_read(port: u16, size: u8) -> u32 {
    let mask = if size >= 4 { u32::MAX } else { (1 << (u32::from(size) * 8)) - 1 };
    let of_a_bus = with_current_devices(|devices| devices.port_read(port, size));
    let set = || with_current(|machine, _| machine.desk().ports.get(&port).copied());
    of_a_bus.or_else(set).unwrap_or(u32::MAX) & mask
}

pub fn port_write(port: u16, size: u8, value: u32) {
    super::allocation::exempt(|| {
        with_current(|machine, _| machine.desk().port_writes.push((port, size, value)));
    });
    with_current_devices(|devices| devices.port_write(port, size, value));
}

/// A PCI function's register, or what the test has placed there as firmware data.
pub fn device_read(maddr: Maddr, size: u8) -> Option<u32> {
    if let Some(value) = super::iommu::register_read(maddr, size) {
        return Some(value);
    }
    let of_a_bus = with_current_devices(|devices| devices.memory_read(maddr, size));
    if of_a_bus.is_some() {
        return of_a_bus;
    }
    let mut bytes = [0; 4];
    read_firmware(maddr, bytes.get_mut(..usize::from(size))?).then(|| u32::from_le_bytes(bytes))
}

pub fn device_write(maddr: Maddr, size: u8, value: u32) -> bool {
    super::allocation::exempt(|| {
        with_current(|machine, _| machine.record_device_write(maddr, &value.to_le_bytes()[..usize::from(size)]));
    });
    with_current_devices(|devices| devices.memory_write(maddr, size, value));
    super::iommu::register_write(maddr, size, value);
    true
}
