//! The machine itself: built by a test, entered by its threads.

use super::cpu::Cpu;
use super::devices::Devices;
use super::ram::Ram;
use super::script::{Guest, Script, StepResult};
use crate::boot_info::{CommandLine, Module};
use crate::cpu::Work;
use crate::exit::Exit;
use crate::frame::{FrameInfo, FrameTable, OWNERS, Region};
use crate::units::{CpuId, DomId, Gpa, Maddr, Mfn, PAGE_SIZE, PAGE_SIZE_U64};
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::boxed::Box;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::string::String;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

/// The reason with which a thread of a machine ends that was shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// Whose script: a vCPU's (domain, index) or a CPU's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ScriptKey {
    Vcpu(u16, u16),
    Cpu(u16),
}

/// Everything that a machine is.
#[derive(Debug)]
pub(super) struct State {
    pub(super) ram: Ram,
    pub(super) frames: FrameTable,
    cpus: Vec<Cpu>,
    pub(super) running_cpus: AtomicUsize,
    pub(super) clock: AtomicU64,
    pub(super) khz: u64,
    stopped: AtomicBool,
    /// A CPU's thread has found an error.
    broken: AtomicBool,
    /// The test takes the CPUs' turns: they are no threads, and do not wait when they idle.
    pub(super) is_stepped: bool,
    /// How often a CPU has relaxed since a guest was entered last.
    pub(super) relaxed: AtomicU64,
    desk: Mutex<Desk>,
}

/// What tests put in and look at.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) host: Option<&'static (dyn Any + Send + Sync)>,
    pub(super) console: Vec<u8>,
    pub(super) typed: VecDeque<u8>,
    pub(super) ports: HashMap<u16, u32>,
    pub(super) port_writes: Vec<(u16, u8, u32)>,
    pub(super) firmware: Vec<(u64, Vec<u8>)>,
    pub(super) cpuid: HashMap<(u32, u32), [u32; 4]>,
    pub(super) wall_clock: u64,
    pub(super) devices: Devices,
    scripts: HashMap<ScriptKey, Script>,
    deliveries: Vec<(CpuId, u64)>,
    device_writes: Vec<(Maddr, Vec<u8>)>,
}

impl core::fmt::Debug for Desk {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Desk with scripts {:?}", self.scripts)
    }
}

std::thread_local! {
    static CURRENT: RefCell<Option<(Arc<State>, CpuId)>> = const { RefCell::new(None) };
}

/// The machine and the CPU that this thread is.
pub(super) fn current() -> (Arc<State>, CpuId) {
    CURRENT.with_borrow(Clone::clone).expect("no fake machine on this thread: work inside FakeMachine::on_cpu")
}

/// As [`current`], for what also works outside of a machine.
pub(super) fn try_current() -> Option<(Arc<State>, CpuId)> {
    CURRENT.with_borrow(Clone::clone)
}

/// Runs `work` on this thread's machine, without the cost of another reference.
pub(super) fn with_current<R>(work: impl FnOnce(&State, CpuId) -> R) -> R {
    CURRENT.with_borrow(|current| {
        let (machine, cpu) = current.as_ref().expect("no fake machine on this thread: work inside FakeMachine::on_cpu");
        work(machine, *cpu)
    })
}

/// Makes the thread a CPU, and what it was before again when dropped.
struct OnCpu {
    before: Option<(Arc<State>, CpuId)>,
    ranks: u64,
}

impl OnCpu {
    fn enter(machine: &Arc<State>, cpu: CpuId) -> Self {
        let before = CURRENT.with_borrow_mut(|current| current.replace((machine.clone(), cpu)));
        Self { before, ranks: super::arch::replace_held_ranks(0) }
    }
}

impl Drop for OnCpu {
    fn drop(&mut self) {
        let before = self.before.take();
        CURRENT.with_borrow_mut(|current| *current = before);
        super::arch::replace_held_ranks(self.ranks);
    }
}

/// What a machine shall have.
#[derive(Clone, Debug)]
pub struct Builder {
    regions: Vec<(u64, u64)>,
    reserved: Vec<(u64, u64)>,
    cpus: u16,
    khz: u64,
    is_stepped: bool,
}

impl Builder {
    /// RAM: pages 0 to `count`.
    #[must_use]
    pub fn pages(self, count: u64) -> Self {
        self.region(0, count)
    }

    /// RAM: `count` pages from `start` on. Regions are given in ascending order and leave holes between them.
    #[must_use]
    pub fn region(mut self, start: u64, count: u64) -> Self {
        self.regions.push((start, count));
        self
    }

    /// RAM that stays reserved instead of going to the pool (for `frame::adopt`).
    #[must_use]
    pub fn reserve(mut self, start: u64, count: u64) -> Self {
        self.reserved.push((start, count));
        self
    }

    /// CPUs, 1 unless said otherwise.
    #[must_use]
    pub fn cpus(mut self, count: u16) -> Self {
        self.cpus = count;
        self
    }

    /// Frequency of the time stamp counter, 1 GHz unless said otherwise.
    #[must_use]
    pub fn timestamp_khz(mut self, khz: u64) -> Self {
        self.khz = khz;
        self
    }

    /// The test takes the CPUs' turns on one thread: no other CPU is started as a thread, and an idle CPU does not wait for
    /// an interrupt but comes back at once. So every run is the same.
    #[must_use]
    pub fn stepped(mut self) -> Self {
        self.is_stepped = true;
        self
    }

    /// The machine. Without a region it has 1024 pages from 0 on.
    pub fn build(self) -> FakeMachine {
        let regions = if self.regions.is_empty() { Vec::from([(0, 1024)]) } else { self.regions };
        let mut table = heapless::Vec::new();
        for (start, count) in &regions {
            let info: Box<[FrameInfo]> = (0..*count).map(|_| FrameInfo::new()).collect();
            table.push(Region { start: Mfn::new(*start), info }).expect("few regions");
        }
        let state = Arc::new(State {
            ram: Ram::new(&regions),
            frames: FrameTable::new(table, (0..OWNERS).map(|_| AtomicU32::new(0)).collect()),
            cpus: (0..self.cpus).map(|id| Cpu::new(CpuId(id))).collect(),
            running_cpus: AtomicUsize::new(usize::from(self.cpus)),
            clock: AtomicU64::new(0),
            khz: self.khz,
            stopped: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            is_stepped: self.is_stepped,
            relaxed: AtomicU64::new(0),
            desk: Mutex::new(Desk::default()),
        });
        let machine = FakeMachine(state);
        machine.on_cpu(0, || machine.release_all(&regions, &self.reserved));
        machine
    }
}

/// A machine; clones are the same machine.
#[derive(Clone, Debug)]
pub struct FakeMachine(Arc<State>);

impl FakeMachine {
    pub(super) fn from_state(state: Arc<State>) -> Self {
        Self(state)
    }

    /// Begins to describe a machine.
    pub fn builder() -> Builder {
        Builder { regions: Vec::new(), reserved: Vec::new(), cpus: 1, khz: 1_000_000, is_stepped: false }
    }

    fn release_all(&self, regions: &[(u64, u64)], reserved: &[(u64, u64)]) {
        for (start, count) in regions {
            let is_free = |page: &u64| !reserved.iter().any(|(from, pages)| (*from..from + pages).contains(page));
            let mut page = *start;
            while page < start + count {
                let run = (page..start + count).take_while(is_free).count() as u64;
                self.0.frames.release(Mfn::new(page), run);
                page += run.max(1);
            }
        }
    }

    /// Runs `work` as CPU `cpu`. Calls may be nested, also for other machines.
    pub fn on_cpu<R>(&self, cpu: u16, work: impl FnOnce() -> R) -> R {
        assert!(usize::from(cpu) < self.0.cpus.len(), "the machine has {} CPUs", self.0.cpus.len());
        let _on_cpu = OnCpu::enter(&self.0, CpuId(cpu));
        work()
    }

    /// Runs `work`, which does not return by itself, as CPU `cpu` until the machine is shut down.
    pub fn on_cpu_until_stopped(&self, cpu: u16, work: impl FnOnce()) {
        let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.on_cpu(cpu, work)));
        if let Err(reason) = end
            && !reason.is::<Stopped>()
        {
            // The other CPUs would wait for this one.
            self.0.broken.store(true, Ordering::Release);
            self.shut_down();
            std::panic::resume_unwind(reason);
        }
    }

    /// Whether a CPU's thread has found an error, and has shut the machine down.
    pub fn is_broken(&self) -> bool {
        self.0.broken.load(Ordering::Acquire)
    }

    /// Shuts the machine down: its CPUs leave [`FakeMachine::on_cpu_until_stopped`] at their next idling, relaxing or entry.
    pub fn shut_down(&self) {
        self.0.stopped.store(true, Ordering::Release);
    }

    /// Queues a step for a vCPU: what it does at an entry, see `script`.
    pub fn script_vcpu(
        &self,
        domain: DomId,
        vcpu: u16,
        step: impl FnMut(&mut Guest<'_>) -> StepResult + Send + 'static,
    ) {
        self.queue(ScriptKey::Vcpu(domain.0, vcpu), Box::new(step));
    }

    /// Queues a step for whatever runs on a CPU without a script of its own.
    pub fn script_cpu(&self, cpu: u16, step: impl FnMut(&mut Guest<'_>) -> StepResult + Send + 'static) {
        self.queue(ScriptKey::Cpu(cpu), Box::new(step));
    }

    /// Gives a vCPU a program: what it does at every entry once it has no steps, see `script`.
    pub fn program_vcpu(&self, domain: DomId, vcpu: u16, program: impl FnMut(&mut Guest<'_>) -> Exit + Send + 'static) {
        let mut desk = self.0.desk();
        desk.scripts.entry(ScriptKey::Vcpu(domain.0, vcpu)).or_default().program = Some(Box::new(program));
    }

    /// Drops all steps and programs of a domain's vCPUs.
    pub fn forget_scripts(&self, domain: DomId) {
        self.0.desk().scripts.retain(|key, _| !matches!(key, ScriptKey::Vcpu(id, _) if *id == domain.0));
    }

    fn queue(&self, key: ScriptKey, step: super::script::Step) {
        self.0.desk().scripts.entry(key).or_default().steps.push_back(step);
    }

    /// Steps that a vCPU has still to do.
    pub fn steps_left(&self, domain: DomId, vcpu: u16) -> usize {
        self.0.desk().scripts.get(&ScriptKey::Vcpu(domain.0, vcpu)).map_or(0, |script| script.steps.len())
    }

    /// The time stamp counter.
    pub fn now(&self) -> u64 {
        self.0.clock.load(Ordering::Acquire)
    }

    /// Lets time pass, and timers expire.
    pub fn advance(&self, ticks: u64) {
        self.0.advance(ticks);
    }

    /// Sets the battery-backed clock, in seconds since 1970.
    pub fn set_wall_clock(&self, seconds: u64) {
        self.0.desk().wall_clock = seconds;
    }

    /// The deadline that a CPU has set.
    pub fn timer(&self, cpu: u16) -> Option<u64> {
        self.0.cpu(CpuId(cpu)).deadline()
    }

    /// How often a CPU was kicked.
    pub fn kicks(&self, cpu: u16) -> u64 {
        self.0.cpu(CpuId(cpu)).kicks.load(Ordering::Acquire)
    }

    /// Work noted for a CPU.
    pub fn work(&self, cpu: u16) -> Work {
        self.0.cpu(CpuId(cpu)).work()
    }

    /// Whether an interrupt waits for a CPU: it would not stay idle.
    pub fn has_interrupt(&self, cpu: u16) -> bool {
        self.0.cpu(CpuId(cpu)).has_interrupt()
    }

    /// Interrupts a CPU with work, as a device would.
    pub fn note_work(&self, cpu: u16, work: Work) {
        self.0.cpu(CpuId(cpu)).note(work);
    }

    pub(super) fn with_state<R>(&self, work: impl FnOnce(&State) -> R) -> R {
        work(&self.0)
    }

    pub(super) fn with_devices<R>(&self, work: impl FnOnce(&mut Devices) -> R) -> R {
        work(&mut self.0.desk().devices)
    }

    pub(super) fn has_cpu(&self, cpu: u16) -> bool {
        self.0.find_cpu(CpuId(cpu)).is_some()
    }

    pub(super) fn note_vector(&self, cpu: CpuId, vector: u8) {
        self.0.cpu(cpu).note_vector(vector);
    }

    /// Events that were delivered to guests: the CPU, and the event in the format of EVENTINJ.
    pub fn deliveries(&self) -> Vec<(CpuId, u64)> {
        self.0.desk().deliveries.clone()
    }

    /// What guests wrote to addresses that are no RAM.
    pub fn device_writes(&self) -> Vec<(Maddr, Vec<u8>)> {
        self.0.desk().device_writes.clone()
    }

    /// Everything written to the console.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&self.0.desk().console).into_owned()
    }

    /// Types at the console: CPU 0 gets an interrupt.
    pub fn type_text(&self, text: &str) {
        self.0.desk().typed.extend(text.bytes());
        self.note_work(0, Work::CONSOLE);
    }

    /// What a port reads from now on; others read all ones.
    pub fn set_port(&self, port: u16, value: u32) {
        self.0.desk().ports.insert(port, value);
    }

    /// Port writes so far: port, size, value.
    pub fn port_writes(&self) -> Vec<(u16, u8, u32)> {
        self.0.desk().port_writes.clone()
    }

    /// Puts firmware data at an address, RAM or not, where `platform::read_firmware` finds it.
    pub fn set_firmware(&self, maddr: u64, bytes: &[u8]) {
        self.0.desk().firmware.push((maddr, bytes.to_vec()));
    }

    /// What CPUID answers for a leaf from now on.
    pub fn set_cpuid(&self, leaf: u32, subleaf: u32, registers: [u32; 4]) {
        self.0.desk().cpuid.insert((leaf, subleaf), registers);
    }

    /// Puts a file into RAM that is reserved still, as a boot loader's module. To be called on one of the machine's CPUs.
    pub fn load_module(&self, start: Maddr, bytes: &[u8], command_line: &str) -> Module {
        for (part, page) in bytes.chunks(PAGE_SIZE).zip(0u64..) {
            let place = start.checked_add(page * PAGE_SIZE_U64).expect("the module is below the top");
            assert!(self.write_ram(place, part), "a module at {place:?}, where no RAM is");
        }
        let length = bytes.len() as u64;
        self.0.frames.claim(start.frame(), length.div_ceil(PAGE_SIZE_U64));
        let command_line = CommandLine::try_from(command_line).expect("a short command line");
        Module { start, length, command_line }
    }

    /// Reads RAM past all translation. False if it is not RAM.
    #[must_use]
    pub fn read_ram(&self, maddr: Maddr, out: &mut [u8]) -> bool {
        self.0.ram.read(maddr, out)
    }

    /// Writes RAM past all translation. False if it is not RAM.
    #[must_use]
    pub fn write_ram(&self, maddr: Maddr, bytes: &[u8]) -> bool {
        self.0.ram.write(maddr, bytes)
    }

    /// Translations that a CPU remembers for an address-space tag.
    pub fn remembered(&self, cpu: u16, tag: u32) -> usize {
        self.0.cpu(CpuId(cpu)).translation().tlb.len(tag)
    }

    /// Translates as a CPU without TLB would at this moment, setting accessed and dirty bits: for checks by tests.
    pub fn translate(&self, root: Mfn, gpa: Gpa, kind: crate::exit::AccessKind) -> Option<Mfn> {
        let walk = super::tlb::Walk { ram: &self.0.ram, frames: &self.0.frames, tag: 0, root };
        super::tlb::Tlb::default().translate(&walk, gpa, kind).ok()
    }
}

impl State {
    pub(super) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn cpu(&self, id: CpuId) -> &Cpu {
        &self.cpus[id.index()]
    }

    pub(super) fn find_cpu(&self, id: CpuId) -> Option<&Cpu> {
        self.cpus.get(id.index())
    }

    /// Ends the thread if the machine was shut down.
    pub(super) fn check_running(&self) {
        if self.stopped.load(Ordering::Acquire) && !std::thread::panicking() {
            std::panic::resume_unwind(Box::new(Stopped));
        }
    }

    pub(super) fn advance(&self, ticks: u64) {
        let now = self.clock.fetch_add(ticks, Ordering::AcqRel).saturating_add(ticks);
        for cpu in &self.cpus {
            cpu.expire(now);
        }
    }

    pub(super) fn record_device_write(&self, maddr: Maddr, bytes: &[u8]) {
        self.desk().device_writes.push((maddr, bytes.to_vec()));
    }

    pub(super) fn record_delivery(&self, cpu: CpuId, event: u64) {
        self.desk().deliveries.push((cpu, event));
    }

    /// Whose script runs on a CPU now: the vCPU's that it works for, if that has ever had one.
    pub(super) fn script_key(&self, cpu: CpuId) -> ScriptKey {
        let packed = self.cpu(cpu).working_for.load(Ordering::Acquire);
        let vcpu = ScriptKey::Vcpu((packed >> 16) as u16, packed as u16);
        if self.desk().scripts.contains_key(&vcpu) { vcpu } else { ScriptKey::Cpu(cpu.0) }
    }

    /// Takes a script out while one of its steps runs, so that the step may queue others.
    pub(super) fn take_script(&self, key: ScriptKey) -> Script {
        self.desk().scripts.get_mut(&key).map(core::mem::take).unwrap_or_default()
    }

    pub(super) fn put_script(&self, key: ScriptKey, mut script: Script) {
        let mut desk = self.desk();
        if let Some(added) = desk.scripts.remove(&key) {
            script.append(added);
        }
        desk.scripts.insert(key, script);
    }
}
