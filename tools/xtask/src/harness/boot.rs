//! Command lines and the machine of a run with a Linux control domain.
//!
//! Between [`super::dom0`], which has gathered the files, and `crate::qemu`, which runs the machine.

use anyhow::{Context, Result};

use super::dom0::Prepared;
use super::request::{Hypervisor, Request};
use crate::iso::{self, Entry};
use crate::paths::Paths;
use crate::provision::grub;
use crate::qemu::command::{Boot, BootModule, Machine, split_words};

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
    let line = format!("console=hvc0 quiet loglevel=4 rdinit=/init {}", request.dom0_args);
    line.trim_end().to_owned()
}

/// The machine with all command lines.
pub(super) fn machine_of(paths: &Paths, request: &Request, prepared: &Prepared) -> Result<Machine> {
    let host = &prepared.host;
    let (board, cpu) = match request.hypervisor {
        Hypervisor::Oxen => ("q35", "EPYC-v4"),
        Hypervisor::Xen => ("pc", host.qemu.xen_cpu),
    };
    Ok(Machine {
        qemu: host.qemu.clone(),
        board,
        cpu: request.cpu.clone().unwrap_or_else(|| cpu.to_owned()),
        cpus: request.cpus(),
        memory_mib: request.mem,
        icount: request.icount,
        boot: boot_of(paths, request, prepared)?,
        extra: split_words(&request.qemu_args).context("--qemu-args")?,
    })
}

/// How the machine starts: by QEMU's own loader, or by GRUB from an image made for this run.
fn boot_of(paths: &Paths, request: &Request, prepared: &Prepared) -> Result<Boot> {
    if request.grub {
        grub::ensure(paths)?;
        let entry = Entry {
            title: "dom0".to_owned(),
            hypervisor_args: hypervisor_line(request),
            dom0_args: dom0_line(request),
        };
        let image = prepared.run_dir.path("boot.iso");
        iso::make(&image, &prepared.files(), &[entry], 0)?;
        return Ok(Boot::Iso(image));
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
