//! What devices need of the machine, on Linux: loop devices and interfaces by ioctls and sysfs, images by qemu-nbd, scripts.
//!
//! Everything here is found below /sys, /proc and /dev of the control domain; nothing is remembered between calls.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};

use super::raw;
use crate::device::dma::{Card, Dma};
use crate::device::host::{AboutTo, Host, Made, Mounted, Number, What};
use crate::error::{Error, Result};
use crate::fault;

/// How often a free loop device may be taken by somebody else before it is had.
const LOOP_ATTEMPTS: u32 = 64;
/// How long a script may take, as in libxl.
const SCRIPT_PATIENCE: Duration = Duration::from_secs(40);
/// How often a script, or an interface that is to come, is looked at.
const SCRIPT_PAUSE: Duration = Duration::from_millis(20);

/// The machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinuxHost;

fn failed(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let doing = doing.into();
    move |error| Error::system(doing, error)
}

/// Whether the switch of [`fault`] lets something be done, which `doing` says.
fn may(doing: impl Fn() -> String) -> Result<()> {
    fault::check_host(&doing).map_err(|error| Error::system(doing(), error))
}

fn read(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    may(|| format!("reading {}", path.display()))?;
    fs::read_to_string(path).map_err(failed(format!("reading {}", path.display())))
}

fn write(path: &str, text: &str) -> Result<()> {
    may(|| format!("writing \"{text}\" to {path}"))?;
    fs::write(path, text).map_err(failed(format!("writing \"{text}\" to {path}")))
}

/// The names in a directory; none if there is no such directory.
fn names(path: &str) -> Result<Vec<String>> {
    may(|| format!("reading {path}"))?;
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::system(format!("reading {path}"), error)),
    };
    let name = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name().to_string_lossy().into_owned());
    entries.map(name).collect::<io::Result<_>>().map_err(failed(format!("reading {path}")))
}

/// The numbers in a `dev_t`, as Linux packs them.
fn unpack(device: u64) -> Number {
    let major = device >> 8 & 0xfff | device >> 32 & !0xfff;
    let minor = device & 0xff | device >> 12 & !0xff;
    let narrow = |number| u32::try_from(number).unwrap_or(u32::MAX);
    Number { major: narrow(major), minor: narrow(minor) }
}

fn number_of(path: &str) -> Result<Number> {
    fs::metadata(path).map(|found| unpack(found.rdev())).map_err(failed(path))
}

/// What hardware is behind a block device: none if it is a device of the kernel's own that passes nothing on. Of several, the
/// one that is most in the way.
fn dma(directory: &Path, depth: u32) -> Result<Dma> {
    let place = fs::canonicalize(directory).map_err(failed(format!("{}", directory.display())))?;
    if !place.to_string_lossy().contains("/devices/virtual/") {
        return Ok(way_to_memory(&place));
    }
    // What cannot be looked through, and files that are read and written past the page cache, may stand on anything.
    if depth == 0 || fs::read_to_string(place.join("loop/dio")).is_ok_and(|text| text.trim() == "1") {
        return Ok(Dma::PastIommu);
    }
    let mut found = Dma::None;
    for name in names(&place.join("slaves").to_string_lossy())? {
        found = found.max(dma(&place.join("slaves").join(name), depth - 1)?);
    }
    Ok(found)
}

/// How hardware reaches memory: `place` is its directory in sysfs, or one below it.
fn way_to_memory(place: &Path) -> Dma {
    /// VIRTIO_F_ACCESS_PLATFORM (virtio specification 1.2, 6): without it a device gets the domain's frame numbers and reaches
    /// memory past any IOMMU. sysfs has a digit for each bit, bit 0 first.
    const ACCESS_PLATFORM: usize = 33;
    let is_virtio = |place: &&Path| {
        let number = place.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("virtio"));
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    let Some(virtio) = place.ancestors().find(is_virtio) else { return Dma::Ordinary };
    let features = fs::read_to_string(virtio.join("features")).unwrap_or_default();
    if features.as_bytes().get(ACCESS_PLATFORM) == Some(&b'1') { Dma::Ordinary } else { Dma::PastIommu }
}

/// A card that an interface is or sends through.
fn card(interface: &str, depth: u32) -> Result<Option<Card>> {
    let place = format!("/sys/class/net/{interface}");
    let bus = fs::read_link(format!("{place}/device/subsystem"));
    let is_backend = |bus: &Path| bus.file_name().is_some_and(|name| name.to_string_lossy().starts_with("xen-backend"));
    match bus {
        Ok(bus) if !is_backend(&bus) => {
            let real = fs::canonicalize(&place).map_err(failed(place.clone()))?;
            return Ok(Some(Card { name: interface.into(), dma: way_to_memory(&real) }));
        }
        _ if depth == 0 => return Ok(None),
        _ => {}
    }
    // Ports of bridges and bonds, and what a VLAN stands on.
    for name in names(&place)?.iter().filter_map(|name| name.strip_prefix("lower_")) {
        if let Some(found) = card(name, depth - 1)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn any_socket() -> Result<OwnedFd> {
    may(|| "opening a socket".into())?;
    socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(|error| Error::system("opening a socket", error))
}

/// The file that a loop device is made of, if it is.
fn backing_file(device: &str) -> Result<Option<String>> {
    let path = format!("/sys/block/{}/loop/backing_file", device.trim_start_matches("/dev/"));
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim_end_matches('\n').into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::system(format!("reading {path}"), error)),
    }
}

/// Whether what Linux calls a backing file is what a user calls `target`.
fn is_of(backing: &str, target: &str) -> bool {
    let backing = backing.strip_suffix(" (deleted)").unwrap_or(backing);
    let place = fs::canonicalize(target);
    backing == target || place.is_ok_and(|place| place.as_os_str() == backing)
}

/// Layers of devices on devices that are looked through.
const DEPTH: u32 = 8;

impl Host for LinuxHost {
    fn bounces(&self) -> Result<bool> {
        let line = read("/proc/cmdline")?;
        let forced =
            |word: &str| word.strip_prefix("swiotlb=").is_some_and(|value| value.split(',').any(|v| v == "force"));
        Ok(line.split_whitespace().any(forced))
    }

    fn inspect(&self, path: &str) -> Result<What> {
        may(|| path.into())?;
        let found = fs::metadata(path).map_err(failed(path))?;
        if found.is_file() {
            return Ok(What::File);
        }
        if !found.file_type().is_block_device() {
            return Ok(What::Other);
        }
        let number = unpack(found.rdev());
        let directory = format!("/sys/dev/block/{}:{}", number.major, number.minor);
        Ok(What::Block { number, dma: dma(Path::new(&directory), DEPTH)? })
    }

    fn mounted(&self, number: Number) -> Result<Mounted> {
        let wanted = format!("{}:{}", number.major, number.minor);
        let mut mounted = Mounted::No;
        for line in read("/proc/self/mountinfo")?.lines() {
            let mut fields = line.split(' ').skip(2);
            if fields.next() != Some(&wanted) {
                continue;
            }
            let writable = fields.nth(2).is_some_and(|options| options.split(',').any(|option| option == "rw"));
            match writable {
                true => return Ok(Mounted::Writable),
                false => mounted = Mounted::ReadOnly,
            }
        }
        Ok(mounted)
    }

    fn attach_loop(&self, path: &str, read_only: bool, about_to: AboutTo<'_>) -> Result<Made> {
        may(|| format!("opening {path}"))?;
        let file =
            OpenOptions::new().read(true).write(!read_only).open(path).map_err(failed(format!("opening {path}")))?;
        let mut options = OpenOptions::new();
        let control = options
            .read(true)
            .write(true)
            .open("/dev/loop-control")
            .map_err(failed("opening /dev/loop-control (is the module loop loaded?)"))?;
        for _ in 0..LOOP_ATTEMPTS {
            may(|| "looking for a free loop device".into())?;
            let number =
                raw::loop_free(&control).map_err(|error| Error::system("looking for a free loop device", error))?;
            let device_path = format!("/dev/loop{number}");
            let device = options.open(&device_path).map_err(failed(format!("opening {device_path}")))?;
            // All that may fail comes before the device has its file.
            let number = number_of(&device_path)?;
            about_to(&device_path)?;
            may(|| format!("making {device_path} of {path}"))?;
            match raw::loop_configure(&device, &file, path, read_only) {
                // Somebody else was faster.
                Err(Errno::BUSY) => {}
                Err(error) => return Err(Error::system(format!("making {device_path} of {path}"), error)),
                Ok(()) => return Ok(Made { number, path: device_path }),
            }
        }
        Err(Error::Protocol("every free loop device is taken by somebody else".into()))
    }

    fn attach_image(&self, path: &str, format: &str, read_only: bool, about_to: AboutTo<'_>) -> Result<Made> {
        let missing = |what: &str| {
            Error::Protocol(format!(
                "{path}: a {format} image needs {what} (`apt install qemu-utils', `modprobe nbd'); a raw image needs neither"
            ))
        };
        let is_free = |name: &str| !Path::new(&format!("/sys/block/{name}/pid")).exists();
        let mut devices: Vec<String> =
            names("/sys/block")?.into_iter().filter(|name| name.starts_with("nbd") && is_free(name)).collect();
        devices.sort();
        let Some(name) = devices.first() else { return Err(missing("a free nbd device")) };
        let device = format!("/dev/{name}");
        let number = number_of(&device)?;
        about_to(&device)?;
        may(|| format!("making {device} of {path}"))?;
        let mut command = Command::new("qemu-nbd");
        command.args(["--fork", "--persistent", "--cache=writeback", "--discard=unmap", "--format", format]);
        command.args(read_only.then_some("--read-only")).args(["--connect", &device, path]);
        match command.stdin(Stdio::null()).output() {
            Err(error) if error.kind() == ErrorKind::NotFound => Err(missing("qemu-nbd")),
            Err(error) => Err(Error::system("running qemu-nbd", error)),
            Ok(output) if !output.status.success() => {
                Err(Error::Protocol(format!("qemu-nbd: {}", String::from_utf8_lossy(&output.stderr).trim_end())))
            }
            Ok(_) => Ok(Made { number, path: device }),
        }
    }

    fn detach(&self, path: &str, target: &str) -> Result<()> {
        may(|| format!("giving {path} back"))?;
        if path.starts_with("/dev/nbd") {
            let status = Command::new("qemu-nbd").args(["--disconnect", path]).stdin(Stdio::null()).output();
            return match status {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => {
                    Err(Error::Protocol(format!("qemu-nbd: {}", String::from_utf8_lossy(&output.stderr).trim_end())))
                }
                Err(error) => Err(Error::system("running qemu-nbd", error)),
            };
        }
        if !path.starts_with("/dev/loop") {
            return Ok(());
        }
        if !backing_file(path)?.is_some_and(|file| is_of(&file, target)) {
            return Ok(());
        }
        let device = File::open(path).map_err(failed(format!("opening {path}")))?;
        match raw::loop_clear(&device) {
            // It has no file any more.
            Ok(()) | Err(Errno::NXIO) => Ok(()),
            Err(error) => Err(Error::system(format!("giving {path} back"), error)),
        }
    }

    fn run_script(&self, script: &str, arguments: &[&str], environment: &[(String, String)]) -> Result<()> {
        may(|| format!("running {script}"))?;
        let mut command = Command::new(script);
        command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
        let mut child = command.stdin(Stdio::null()).spawn().map_err(failed(format!("running {script}")))?;
        let deadline = Instant::now() + SCRIPT_PATIENCE;
        loop {
            match child.try_wait().map_err(failed(format!("waiting for {script}")))? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(Error::Protocol(format!("{script} failed: {status}"))),
                None if Instant::now() < deadline => std::thread::sleep(SCRIPT_PAUSE),
                None => {
                    child.kill().and_then(|()| child.wait()).map_err(failed(format!("stopping {script}")))?;
                    let seconds = SCRIPT_PATIENCE.as_secs();
                    return Err(Error::Protocol(format!("{script} did not end in {seconds} s")));
                }
            }
        }
    }

    fn is_bridge(&self, name: &str) -> Result<bool> {
        may(|| format!("looking for the bridge {name}"))?;
        Ok(!name.contains('/') && Path::new(&format!("/sys/class/net/{name}/bridge")).exists())
    }

    fn card_behind(&self, interface: &str) -> Result<Option<Card>> {
        may(|| format!("looking for the card behind {interface}"))?;
        card(interface, DEPTH)
    }

    fn wait_for_interface(&self, interface: &str, patience: Duration) -> Result<()> {
        may(|| format!("waiting for {interface}"))?;
        let place = format!("/sys/class/net/{interface}");
        let deadline = Instant::now() + patience;
        while !Path::new(&place).exists() {
            if Instant::now() >= deadline {
                return Err(Error::Protocol(format!("the backend made no {interface} in {} s", patience.as_secs())));
            }
            std::thread::sleep(SCRIPT_PAUSE);
        }
        Ok(())
    }

    fn mtu(&self, interface: &str) -> Result<u32> {
        let text = read(format!("/sys/class/net/{interface}/mtu"))?;
        text.trim().parse().map_err(|_| Error::Protocol(format!("the MTU of {interface} is \"{}\"", text.trim())))
    }

    fn set_mtu(&self, interface: &str, mtu: u32) -> Result<()> {
        write(&format!("/sys/class/net/{interface}/mtu"), &mtu.to_string())
    }

    fn rename(&self, interface: &str, name: &str) -> Result<()> {
        may(|| format!("renaming {interface} to {name}"))?;
        raw::interface_rename(any_socket()?.as_fd(), interface, name)
            .map_err(|error| Error::system(format!("renaming {interface} to {name}"), error))
    }

    fn set_up(&self, interface: &str) -> Result<()> {
        /// `IFF_UP`
        const UP: u32 = 1;
        let path = format!("/sys/class/net/{interface}/flags");
        let text = read(&path)?;
        let flags = u32::from_str_radix(text.trim().trim_start_matches("0x"), 16)
            .map_err(|_| Error::Protocol(format!("the flags of {interface} are \"{}\"", text.trim())))?;
        write(&path, &format!("{:#x}", flags | UP))
    }

    fn join_bridge(&self, interface: &str, bridge: &str) -> Result<()> {
        may(|| format!("adding {interface} to the bridge {bridge}"))?;
        let text = read(format!("/sys/class/net/{interface}/ifindex"))?;
        let index = text.trim().parse().map_err(|_| Error::Protocol(format!("{interface} has no number")))?;
        raw::bridge_add(any_socket()?.as_fd(), bridge, index)
            .map_err(|error| Error::system(format!("adding {interface} to the bridge {bridge}"), error))
    }

    fn prepare_routing(&self, interface: &str, gateway: Option<&str>) -> Result<()> {
        write(&format!("/proc/sys/net/ipv4/conf/{interface}/proxy_arp"), "1")?;
        let Some(gateway) = gateway else { return Ok(()) };
        let socket = any_socket()?;
        let address = raw::interface_address(socket.as_fd(), gateway)
            .map_err(|error| Error::system(format!("the address of {gateway}"), error))?;
        raw::set_interface_address(socket.as_fd(), interface, address)
            .map_err(|error| Error::system(format!("giving {interface} the address of {gateway}"), error))
    }

    fn add_route(&self, interface: &str, address: Ipv4Addr) -> Result<()> {
        may(|| format!("a route to {address} by {interface}"))?;
        raw::add_route(any_socket()?.as_fd(), interface, address.octets())
            .map_err(|error| Error::system(format!("a route to {address} by {interface}"), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_unpacked_as_linux_packs_them() {
        assert_eq!(unpack(0x0703), Number { major: 7, minor: 3 });
        // glibc's makedev(259, 0x12345): the minor number's lowest byte, the major number, the rest of the minor number.
        assert_eq!(unpack(0x45 | 259 << 8 | 0x123 << 20), Number { major: 259, minor: 0x12345 });
    }

    #[test]
    fn files_and_directories_are_told_apart() {
        let path = std::env::temp_dir().join(format!("libxc-host-{}", std::process::id()));
        fs::write(&path, b"x").expect("is written");
        assert_eq!(LinuxHost.inspect(&path.to_string_lossy()).expect("is there"), What::File);
        fs::remove_file(&path).expect("is removed");
        assert_eq!(LinuxHost.inspect("/").expect("is there"), What::Other);
        assert!(LinuxHost.inspect(&path.to_string_lossy()).is_err_and(|error| error.is_absent()));
    }

    #[test]
    fn a_backing_file_is_known_by_any_of_its_names() {
        let path = std::env::temp_dir().join(format!("libxc-backing-{}", std::process::id()));
        let link = path.with_extension("link");
        fs::write(&path, b"x").expect("is written");
        std::os::unix::fs::symlink(&path, &link).expect("is made");
        let place = fs::canonicalize(&path).expect("is there").to_string_lossy().into_owned();
        assert!(is_of(&place, &path.to_string_lossy()) && is_of(&place, &link.to_string_lossy()));
        assert!(!is_of(&place, "/other") && !is_of("/other", &path.to_string_lossy()));
        fs::remove_file(&path).expect("is removed");
        fs::remove_file(&link).expect("is removed");
        assert!(is_of(&format!("{place} (deleted)"), &place));
    }

    #[test]
    fn a_script_that_fails_is_named() {
        let run = |script: &str| LinuxHost.run_script(script, &["add"], &[]);
        run("/bin/true").expect("succeeds");
        assert!(run("/bin/false").is_err_and(|error| error.to_string().contains("/bin/false failed")));
        assert!(run("/nosuch").is_err_and(|error| error.is_absent()));
    }
}
