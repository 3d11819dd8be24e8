//! Command lines and the machine of a run with a Linux control domain.
//!
//! Between [`super::dom0`], which has gathered the files, and `crate::qemu`, which runs the machine.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::dom0::{Prepared, Userland};
use super::request::{Emulator, Hypervisor, Request};
use crate::bochs::{self, Bochs};
use crate::disk;
use crate::iso::{self, Entry, Protocol};
use crate::paths::Paths;
use crate::provision::qemu::Qemu;
use crate::provision::{grub, qemu_patch};
use crate::qemu::command::{Boot, BootModule, Machine, split_words};
use crate::qemu::machine::Launch;

/// The hypervisor's command line.
pub(crate) fn hypervisor_line(request: &Request) -> String {
    // Debian's Xen panics in its MWAIT idle loop under TCG, hence cpuidle=0; and two vCPUs of a PV dom0 are far slower
    // in emulation than one.
    let (dom0_vcpus, special) = match request.hypervisor {
        Hypervisor::Oxen => (request.cpus(), ""),
        Hypervisor::Xen => (1, " cpuidle=0"),
    };
    let memory = request.dom0_mem;
    let line = format!(
        "console=com1 com1=115200,8n1 loglvl=all guest_loglvl=all noreboot{special} \
         dom0_mem={memory}M,max:{memory}M dom0_max_vcpus={dom0_vcpus} {}",
        request.xen_args
    );
    line.trim_end().to_owned()
}

/// The command line of dom0's kernel.
pub(crate) fn dom0_line(request: &Request) -> String {
    let root = match request.disk {
        // The kernel's messages are for tests that fail; systemd's are not for the console of every run.
        Some(_) => format!("root=LABEL={} ro systemd.show_status=0", disk::DOM0_LABEL),
        None => "rdinit=/init".to_owned(),
    };
    let line = format!("console=hvc0 quiet loglevel=4 {root} {}", request.dom0_args);
    line.trim_end().to_owned()
}

/// An emulator that is there to be run.
pub(super) enum Program {
    /// QEMU.
    Qemu(Qemu),
    /// Bochs.
    Bochs(Bochs),
}

/// Provides the emulator under which a hypervisor runs.
pub(super) fn program(paths: &Paths, emulator: Emulator, hypervisor: Hypervisor) -> Result<Program> {
    Ok(match (emulator, hypervisor) {
        (Emulator::Qemu, Hypervisor::Oxen) => Program::Qemu(qemu_patch::for_oxen(paths)?),
        (Emulator::Qemu, Hypervisor::Xen) => Program::Qemu(qemu_patch::for_real_xen(paths)?),
        (Emulator::Bochs, _) => Program::Bochs(bochs::provide(paths)?),
    })
}

/// The process to start, with all command lines.
pub(super) fn launch_of(paths: &Paths, request: &Request, prepared: &Prepared) -> Result<Launch> {
    let qemu = match &prepared.host.emulator {
        Program::Bochs(bochs) => {
            ensure!(request.script.is_some(), "Bochs has no input: give it a --script");
            let image = image(paths, request, prepared)?;
            return bochs.launch(&prepared.run_dir, &image, request.cpus(), request.mem);
        }
        Program::Qemu(qemu) => qemu,
    };
    let (board, cpu) = match request.hypervisor {
        Hypervisor::Oxen => ("q35", "EPYC-v4"),
        Hypervisor::Xen => ("pc", qemu.xen_cpu),
    };
    Machine {
        qemu: qemu.clone(),
        board,
        cpu: request.cpu.clone().unwrap_or_else(|| cpu.to_owned()),
        cpus: request.cpus(),
        memory_mib: request.mem,
        icount: request.icount,
        boot: boot_of(paths, request, prepared)?,
        extra: drives(request, &prepared.host.userland)
            .into_iter()
            .chain(split_words(&request.qemu_args).context("--qemu-args")?)
            .collect(),
    }
    .launch()
}

/// The machine's disks: dom0's, and a guest's as the second one. What is written to them is forgotten.
fn drives(request: &Request, userland: &Userland) -> Vec<String> {
    let (Some(device), Userland::Disks(disks)) = (request.disk, userland) else { return Vec::new() };
    let mut words = Vec::new();
    for (index, (name, disk)) in [("dom0", &disks.dom0), ("guest", &disks.guest)].into_iter().enumerate() {
        // A comma in a file's name is doubled.
        let file = disk.image.display().to_string().replace(',', ",,");
        words.extend([
            "-drive".to_owned(),
            format!("if=none,id={name},format=raw,snapshot=on,file={file}"),
            "-device".to_owned(),
            device.argument(index, name),
        ]);
    }
    words
}

/// How QEMU starts: by its own loader, or by GRUB from an image made for this run.
fn boot_of(paths: &Paths, request: &Request, prepared: &Prepared) -> Result<Boot> {
    if request.grub {
        return Ok(Boot::Iso(image(paths, request, prepared)?));
    }
    Ok(Boot::Kernel {
        image: prepared.host.hypervisor.clone(),
        args: hypervisor_line(request),
        modules: vec![
            BootModule { path: prepared.host.kernel.image.clone(), args: dom0_line(request) },
            BootModule { path: prepared.initramfs.clone(), args: String::new() },
        ],
    })
}

/// An image for this run alone.
fn image(paths: &Paths, request: &Request, prepared: &Prepared) -> Result<PathBuf> {
    grub::ensure(paths)?;
    let entry = Entry {
        title: "dom0".to_owned(),
        protocol: protocol(request.hypervisor),
        hypervisor_args: hypervisor_line(request),
        dom0_args: dom0_line(request),
    };
    let image = prepared.run_dir.path("boot.iso");
    iso::make(&image, &prepared.files(), &[entry], 0)?;
    Ok(image)
}

/// How GRUB starts a hypervisor.
pub(super) fn protocol(hypervisor: Hypervisor) -> Protocol {
    match hypervisor {
        Hypervisor::Oxen => Protocol::Multiboot2,
        Hypervisor::Xen => Protocol::Multiboot1,
    }
}
