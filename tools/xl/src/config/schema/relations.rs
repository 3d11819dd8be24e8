//! Checks between keys: what is missing, what contradicts what. The last step of the schema.

use super::super::domain::DomainConfig;
use super::super::parse::Settings;
use super::super::report::{Report, Severity};
use super::super::text::Text;

/// Reports everything that is wrong with the configuration as a whole.
pub(super) fn check(config: &DomainConfig, settings: &Settings, text: &Text, report: &mut Report) {
    if settings.get("name").is_none() {
        report.about_file(Severity::Error, text.file(), "`name=' is missing: every domain needs a name");
    }
    if settings.get("kernel").is_none() && settings.get("bootloader").is_none() && settings.get("firmware").is_none() {
        report.about_file(
            Severity::Error,
            text.file(),
            "`kernel=' is missing: a PVH guest is booted from a kernel file",
        );
    }
    if let Some(setting) = settings.get("kernel").filter(|setting| setting.value.is_off()) {
        report.error(&setting.value.place, "kernel: the file name is empty");
    }
    if let Some(setting) = settings.get("maxvcpus")
        && config.most_vcpus() < config.online_vcpus()
    {
        let message = format!("maxvcpus: {} is less than vcpus, {}", config.most_vcpus(), config.online_vcpus());
        report.error(&setting.value.place, message);
    }
    if let Some(setting) = settings.get("maxmem") {
        if config.max_memory_kib() < config.memory_kib() {
            let (most, start) = (config.max_memory_kib() >> 10, config.memory_kib() >> 10);
            report.error(&setting.value.place, format!("maxmem: {most} is less than memory, {start}"));
        } else if config.max_memory_kib() > config.memory_kib() {
            // From xl such a guest gets populate-on-demand memory, which needs a hypervisor that offers it.
            report.warning(
                &setting.value.place,
                "maxmem: more than memory; the guest starts with maxmem, and its balloon driver gives back the rest",
            );
        }
    }
    if settings.get("memory").is_none() && settings.get("maxmem").is_none() {
        report.about_file(Severity::Warning, text.file(), "`memory=' is missing: the guest gets 32 MiB, as from xl");
    }
    for key in ["root", "extra"] {
        if let (Some(setting), true) = (settings.get(key), config.cmdline.is_some()) {
            report.warning(&setting.place, format!("{key}: ignored, because cmdline= is given"));
        }
    }
    if config.seclabel.is_some()
        && let Some(setting) = settings.get("seclabel")
    {
        report.warning(&setting.place, "seclabel: has no effect: the hypervisor has no security labels");
    }
}
