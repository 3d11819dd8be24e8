//! Boot.
use machine::boot_info::BootInfo;
use machine::log;
/// Start.
pub fn start(info: BootInfo) -> ! {
    log!(Info, "Xen version 4.17 (Oxen {})", env!("CARGO_PKG_VERSION"));
    for r in &info.ranges { log!(Info, "{:?}", r); }
    for r in &info.modules { log!(Info, "{:?}", r); }
    log!(Info, "image {:?} floor {:?} tsc {}", info.image, info.floor, machine::cpu::timestamp_khz());
    machine::cpu::stop()
}
