//! Entering and leaving a guest with AMD SVM (AMD APM volume 2, chapter 15).

use super::cpu::{self, this};
use super::{PermissionMaps, lazy, machine_check, paging};
use crate::codec::registers::{efer, msr};
use crate::codec::tags::{AddressSpaceTag, Flush};
use crate::codec::vmcb::{FLUSH_ALL, Vmcb};
use crate::exit::{Exit, X86Exit};
use crate::units::{CpuId, Maddr, Mfn};
use crate::vcpu::GeneralRegisters;
use core::arch::x86_64::__cpuid;
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Writes an MSR.
pub(super) fn write_msr(number: u32, value: u64) {
    // SAFETY: callers name registers that this processor has, with values the manual allows.
    unsafe {
        asm!("wrmsr", in("ecx") number, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack));
    }
}

/// Reads an MSR.
pub(super) fn read_msr(number: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: callers name registers that this processor has.
    unsafe { asm!("rdmsr", in("ecx") number, out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// Whether this processor can run guests; if not, what it lacks.
pub(super) fn check() -> Result<(), &'static str> {
    if __cpuid(0x8000_0000).eax < 0x8000_000a || __cpuid(0x8000_0001).ecx & 1 << 2 == 0 {
        return Err("this processor has no AMD SVM (virtualisation), which Oxen needs");
    }
    if __cpuid(0x8000_000a).edx & 1 == 0 {
        return Err("this processor has no nested paging (NPT), which Oxen needs");
    }
    if read_msr(msr::VM_CR) & 1 << 4 != 0 {
        return Err("AMD SVM is switched off in the firmware's set-up");
    }
    if !lazy::has_xsave() {
        return Err("this processor has no XSAVE, which Oxen needs");
    }
    Ok(())
}

/// How many address-space tags the processors know, the hypervisor's own included.
static TAGS: AtomicU32 = AtomicU32::new(2);

/// Turns SVM on for this processor.
pub(super) fn enable() {
    lazy::enable();
    write_msr(msr::EFER, read_msr(msr::EFER) | efer::SVME);
    serialise_lfence();
    // A number may be on its second processor: the first has not started.
    let page_in = |place: &AtomicU64| match place.load(Ordering::Relaxed) {
        0 => {
            let Some(page) = cpu::allocate_early().map(Mfn::address) else { panic!("no memory to enable SVM") };
            place.store(page.number(), Ordering::Relaxed);
            page.number()
        }
        page => page,
    };
    let (saved, state) = (page_in(&this().save_area), page_in(&this().host_state));
    write_msr(msr::VM_HSAVE_PA, saved);
    // SAFETY: the page is this processor's own. What VMSAVE stores (FS, GS, TR, LDTR, system call MSRs) never changes.
    unsafe { asm!("vmsave rax", in("rax") state, options(nostack)) };
    TAGS.store(__cpuid(0x8000_000a).ebx.max(2), Ordering::Relaxed);
}

/// Makes LFENCE wait for all instructions before it, as guests are told by DE_CFG that it does, and as hypervisor and guests
/// need against speculation. (AMD "Software techniques for managing speculation", mitigation G-2.) The register is there from
/// family 10h on, but for 11h; processors that say so (CPUID 80000021 EAX bit 2) always wait and need nothing.
fn serialise_lfence() {
    let always_waits = __cpuid(0x8000_0000).eax >= 0x8000_0021 && __cpuid(0x8000_0021).eax & 1 << 2 != 0;
    let signature = __cpuid(1).eax;
    let family = (signature >> 8 & 0xf) + (signature >> 20 & 0xff);
    if !always_waits && family >= 0x10 && family != 0x11 {
        write_msr(msr::DE_CFG, read_msr(msr::DE_CFG) | LFENCE_SERIALISES);
    }
}

/// DE_CFG: LFENCE is dispatch serialising.
const LFENCE_SERIALISES: u64 = 1 << 1;

/// Checks that a new control block is no page into which the processor writes the hypervisor's own state.
pub fn check_control_block(vmcb: &Vmcb) {
    let place = paging::physical(core::ptr::from_ref(vmcb)).number();
    let is_in = |field: &AtomicU64| field.load(Ordering::Relaxed) == place;
    let is_taken = (0..).map(CpuId).map_while(cpu::per_cpu).any(|cpu| is_in(&cpu.save_area) || is_in(&cpu.host_state));
    assert!(!is_taken, "a control block at {place:#x}, where a processor keeps the hypervisor's state");
}

#[repr(C, align(4096))]
struct Maps(UnsafeCell<[u8; 5 * 4096]>);
// SAFETY: written once by the boot CPU before any guest runs.
unsafe impl Sync for Maps {}
/// Port permission map (3 pages) and MSR permission map (2 pages): ones intercept.
static MAPS: Maps = Maps(UnsafeCell::new([0; 5 * 4096]));
const MSR_MAP: usize = 3 * 4096;

/// MSRs that guests read and write without an exit: VMLOAD, VMSAVE and VMRUN exchange them.
const FREE_MSRS: [u32; 10] = [
    msr::SYSENTER_CS,
    msr::SYSENTER_ESP,
    msr::SYSENTER_EIP,
    msr::STAR,
    msr::LSTAR,
    msr::CSTAR,
    msr::SFMASK,
    msr::FS_BASE,
    msr::GS_BASE,
    msr::KERNEL_GS_BASE,
];

/// The bit of an MSR's read permission; the write permission is the next (APM volume 2, 15.11).
fn map_bit(number: u32) -> usize {
    let (base, first) = if number >= 0xc000_0000 { (0x800 * 8, 0xc000_0000) } else { (0, 0) };
    base + (number - first) as usize * 2
}

/// Fills the permission maps: every port and every MSR exits, but for the free ones. TSC's reads exit as well: RDTSC is there
/// for those who are in a hurry, and one emulator reads the register as 0.
pub(super) fn initialise_maps() {
    // SAFETY: the boot CPU alone, before any guest runs.
    let maps = unsafe { &mut *MAPS.0.get() };
    maps.fill(0xff);
    for number in FREE_MSRS {
        let bit = map_bit(number);
        maps[MSR_MAP + bit / 8] &= !(0b11 << (bit % 8));
    }
}

pub fn permission_maps() -> PermissionMaps {
    let start = paging::physical_of_static(&MAPS);
    PermissionMaps { ports: start, msrs: crate::Maddr::new(start.number() + MSR_MAP as u64) }
}

#[cold]
fn new_tag(vmcb: &mut Vmcb) -> AddressSpaceTag {
    let me = this();
    let mut tags = me.tags.get();
    let (tag, flush) = tags.allocate(TAGS.load(Ordering::Relaxed));
    me.tags.set(tags);
    if flush == Flush::All {
        vmcb.control.tlb_control = FLUSH_ALL;
    }
    tag
}

/// The processor refused a control block, so it may not have flushed what that asked for.
#[cold]
fn forget_tags() {
    let me = this();
    let mut tags = me.tags.get();
    tags.end_round();
    me.tags.set(tags);
}

// svm_run(vmcb's physical address, general registers, this CPU's saved hidden state)
global_asm!(
    r#"
.section .text.svm_run, "ax", @progbits
.balign 16
svm_run:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    push rsi
    push rdx
    mov rax, rdi
    mov rcx, [rsi + 8]
    mov rdx, [rsi + 16]
    mov rbx, [rsi + 24]
    mov rbp, [rsi + 40]
    mov rdi, [rsi + 56]
    mov r8, [rsi + 64]
    mov r9, [rsi + 72]
    mov r10, [rsi + 80]
    mov r11, [rsi + 88]
    mov r12, [rsi + 96]
    mov r13, [rsi + 104]
    mov r14, [rsi + 112]
    mov r15, [rsi + 120]
    mov rsi, [rsi + 48]
    clgi
    sti
    vmload rax
    vmrun rax
    vmsave rax
    push rdi
    mov rdi, [rsp + 16]
    mov [rdi + 8], rcx
    mov [rdi + 16], rdx
    mov [rdi + 24], rbx
    mov [rdi + 40], rbp
    mov [rdi + 48], rsi
    mov [rdi + 64], r8
    mov [rdi + 72], r9
    mov [rdi + 80], r10
    mov [rdi + 88], r11
    mov [rdi + 96], r12
    mov [rdi + 104], r13
    mov [rdi + 112], r14
    mov [rdi + 120], r15
    pop rcx
    mov [rdi + 56], rcx
    pop rax
    vmload rax
    cli
    stgi
    pop rsi
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
"#
);

unsafe extern "C" {
    fn svm_run(vmcb: u64, general: *mut u64, host_state: u64);
}

/// Where the processor finds a control block. Its provenance is exposed: the processor and the world switch reach it through
/// the physical address.
pub fn control_block_address(vmcb: &mut Vmcb) -> Maddr {
    paging::physical(core::ptr::from_mut(vmcb).cast_const())
}

/// Runs a guest until it exits; `place` is what [`control_block_address`] has said of `vmcb`. With the global interrupt flag
/// clear around VMRUN, nothing comes between the guest's registers and the hypervisor's; an interrupt that ended the run is
/// taken before this returns.
#[inline]
pub fn run(vmcb: &mut Vmcb, place: Maddr, general: &mut GeneralRegisters, tag: &mut AddressSpaceTag) -> Exit {
    let me = this();
    if !me.tags.get().is_current(*tag) {
        *tag = new_tag(vmcb);
    }
    vmcb.control.asid = tag.number();
    // What follows changes the block behind Rust's back.
    core::ptr::from_mut(vmcb).expose_provenance();
    // SAFETY: the VMCB is a page of its own, set up by `Vcpu`; the register array has 16 places; the third address is
    // this processor's saved state. The guest reaches only what its nested page table maps.
    unsafe { svm_run(place.number(), general.as_mut_ptr(), me.host_state.load(Ordering::Relaxed)) };
    vmcb.control.tlb_control = 0;
    // An event that was delivered, or whose delivery EXITINTINFO reports now, is not to be delivered at the next entry.
    vmcb.control.event_injection = 0;
    let exit = Exit::decode(&vmcb.control);
    match exit {
        Exit::Interrupt => cpu::interrupt_window(),
        Exit::Invalid => forget_tags(),
        Exit::X86(X86Exit::Exception { vector: MACHINE_CHECK, .. }) => machine_check::interrupted_guest(),
        _ => {}
    }
    exit
}

/// The vector of machine checks.
const MACHINE_CHECK: u8 = 18;
