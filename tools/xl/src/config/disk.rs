//! One entry of `disk=`: a block device (xl-disk-configuration(5)).
//!
//! An entry is a comma-separated list of positional parameters (target, format, vdev, access) and named ones; `target=`
//! takes the rest of the entry, commas and all. A prefix such as `phy:` or `file:` is the old way to say how to get at the
//! target.

/// What the target's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The disk itself.
    Raw,
    /// QEMU's first copy-on-write format.
    Qcow,
    /// QEMU's copy-on-write format.
    Qcow2,
    /// Microsoft's.
    Vhd,
    /// QEMU's enhanced format.
    Qed,
    /// A drive without a medium.
    Empty,
}

/// Who serves the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The kernel's block backend.
    Phy,
    /// QEMU.
    Qdisk,
    /// Something that reads xenstore by itself.
    Standalone,
}

/// A block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// File or device in the backend domain; `None`: no medium.
    pub target: Option<String>,
    /// Its format.
    pub format: Format,
    /// The name in the guest, for example `xvda`.
    pub vdev: String,
    /// Whether the guest may write.
    pub writable: bool,
    /// Whether it is a CD drive.
    pub cdrom: bool,
    /// Who serves it; `None`: chosen by target and format.
    pub backend: Option<Backend>,
    /// Name of the backend domain; empty: the control domain.
    pub backend_domain: String,
    /// Hotplug script that makes the target a device; empty: `block`.
    pub script: String,
    /// Whether direct I/O is known to be safe on the target.
    pub direct_io_safe: bool,
    /// Whether discard requests are passed on; `None`: by the backend.
    pub discard: Option<bool>,
    /// Whether the guest trusts the backend; `None`: it does.
    pub trusted: Option<bool>,
}

/// An entry while it is read: what was not given is `None`.
#[derive(Default)]
struct Draft {
    target: Option<String>,
    format: Option<Format>,
    vdev: Option<String>,
    access: Option<bool>,
    access_set: bool,
    had_prefix: bool,
    cdrom: bool,
    backend: Option<Backend>,
    backend_domain: Option<String>,
    script: Option<String>,
    direct_io_safe: bool,
    discard: Option<bool>,
    trusted: Option<bool>,
}

impl Disk {
    /// Reads an entry such as `/dev/vg/guest,raw,xvda,rw` or `format=qcow2, vdev=xvdb, target=/srv/disk.qcow2`.
    pub fn parse(text: &str) -> Result<Disk, String> {
        Disk::parse_parts([text])
    }

    /// Reads an entry that is given in parts, as on a command line: `phy:/dev/vg/guest xvda w`.
    pub fn parse_parts<'a>(parts: impl IntoIterator<Item = &'a str>) -> Result<Disk, String> {
        let mut draft = Draft::default();
        parts.into_iter().try_for_each(|part| draft.entry(part))?;
        draft.finish()
    }
}

impl Draft {
    fn entry(&mut self, text: &str) -> Result<(), String> {
        let mut rest = text.trim_start_matches([' ', '\t', '\n']);
        while !rest.is_empty() {
            if let Some(target) = rest.strip_prefix("target=") {
                return set_once(&mut self.target, "target", target.strip_suffix(',').unwrap_or(target));
            }
            if let Some(after) = self.prefix(rest)? {
                rest = after;
                continue;
            }
            let (part, after) = rest.split_once(',').unwrap_or((rest, ""));
            self.parameter(part)?;
            rest = after.trim_start_matches([' ', '\t', '\n']);
        }
        Ok(())
    }

    /// Takes a deprecated prefix (`phy:/…`, `qcow2:/…`); only an absolute path makes it one. Gives what follows it.
    fn prefix<'a>(&mut self, rest: &'a str) -> Result<Option<&'a str>, String> {
        let Some((prefix, path)) = rest.split_once(':').filter(|(_, path)| path.starts_with('/')) else {
            return Ok(None);
        };
        let is_word = prefix.starts_with(|c: char| c.is_ascii_lowercase())
            && prefix.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if !is_word {
            return Ok(None);
        }
        match prefix {
            "raw" | "qcow" | "qcow2" | "vhd" => self.set_format(prefix)?,
            "iscsi" | "nbd" | "enbd" | "drbd" => set_once(&mut self.script, "script", &format!("block-{prefix}"))?,
            "tapdisk" | "tap" | "tap2" | "aio" | "ioemu" | "file" | "phy" => {}
            _ => return Err(format!("unknown prefix `{prefix}:'")),
        }
        self.had_prefix = true;
        Ok(Some(path))
    }

    fn parameter(&mut self, part: &str) -> Result<(), String> {
        match part {
            "cdrom" | "devtype=cdrom" => self.cdrom = true,
            "devtype=disk" => self.cdrom = false,
            "direct-io-safe" => self.direct_io_safe = true,
            "discard" => self.discard = Some(true),
            "no-discard" => self.discard = Some(false),
            "trusted" => self.trusted = Some(true),
            "untrusted" => self.trusted = Some(false),
            "no-colo" => {}
            _ => match part.split_once('=') {
                Some((key, value)) => self.named(key, value)?,
                None => self.positional(part)?,
            },
        }
        Ok(())
    }

    fn named(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "format" => self.set_format(value),
            "access" => self.set_access(value),
            "vdev" => set_once(&mut self.vdev, "vdev", value),
            "script" => set_once(&mut self.script, "script", value),
            "backend" => set_once(&mut self.backend_domain, "backend", value),
            "backendtype" => {
                self.backend = Some(match value {
                    "phy" => Backend::Phy,
                    "qdisk" => Backend::Qdisk,
                    "standalone" => Backend::Standalone,
                    "tap" => {
                        return Err("backendtype=tap needs blktap, which Linux no longer has; leave it out".into());
                    }
                    _ => {
                        return Err(format!("backendtype `{value}' is unknown; there are phy, qdisk and standalone"));
                    }
                });
                Ok(())
            }
            "specification" if value == "xen" => Ok(()),
            "specification" => Err(format!("specification `{value}' is not supported; there is only xen")),
            "devtype" => Err(format!("devtype `{value}' is unknown; there are disk and cdrom")),
            _ => Err(format!("unknown parameter `{key}'; see xl-disk-configuration(5)")),
        }
    }

    fn positional(&mut self, part: &str) -> Result<(), String> {
        if self.target.is_none() {
            self.target = Some(part.into());
        } else if !self.had_prefix && self.format.is_none() {
            // The old form `,hdc:cdrom` of an empty drive has no format.
            if self.target.as_deref() == Some("") && part.contains(':') {
                self.set_vdev(part)?;
                self.format = Some(Format::Empty);
            } else {
                self.set_format(part)?;
            }
        } else if self.vdev.is_none() {
            self.set_vdev(part)?;
        } else if !self.access_set {
            self.access_set = true;
            self.set_access(part)?;
        } else {
            return Err(format!(
                "`{part}' is one positional parameter too many; they are target, format, vdev, access"
            ));
        }
        Ok(())
    }

    /// `vdev`, or the old `vdev:devtype`.
    fn set_vdev(&mut self, part: &str) -> Result<(), String> {
        let (vdev, kind) = part.rsplit_once(':').unwrap_or((part, "disk"));
        self.cdrom = match kind {
            "cdrom" => true,
            "disk" => self.cdrom && !part.contains(':'),
            _ => {
                return Err(format!("device type `{kind}' is unknown; there are disk and cdrom"));
            }
        };
        set_once(&mut self.vdev, "vdev", vdev)
    }

    fn set_format(&mut self, value: &str) -> Result<(), String> {
        let format = match value {
            "" | "raw" => Format::Raw,
            "qcow" => Format::Qcow,
            "qcow2" => Format::Qcow2,
            "vhd" => Format::Vhd,
            "qed" => Format::Qed,
            "empty" => Format::Empty,
            _ => {
                return Err(format!("format `{value}' is unknown; there are raw, qcow2, qcow, vhd, qed and empty"));
            }
        };
        match self.format {
            Some(old) if old != format => Err("the format is given twice".into()),
            _ => {
                self.format = Some(format);
                Ok(())
            }
        }
    }

    fn set_access(&mut self, value: &str) -> Result<(), String> {
        self.access = Some(match value {
            "r" | "ro" => false,
            "w" | "rw" | "" => true,
            _ => return Err(format!("access `{value}' is unknown; there are ro and rw")),
        });
        Ok(())
    }

    fn finish(self) -> Result<Disk, String> {
        let target = self.target.filter(|target| !target.is_empty());
        let Some(vdev) = self.vdev.filter(|vdev| !vdev.is_empty()) else {
            return Err("no vdev, the device's name in the guest, is given (for example xvda)".into());
        };
        if target.is_none() && !self.cdrom {
            return Err("no target, the file or device, is given; only a cdrom can be empty".into());
        }
        let format = if self.cdrom && target.is_none() { Format::Empty } else { self.format.unwrap_or(Format::Raw) };
        Ok(Disk {
            format,
            target,
            vdev,
            writable: self.access.unwrap_or(true) && !self.cdrom,
            cdrom: self.cdrom,
            backend: self.backend,
            backend_domain: self.backend_domain.unwrap_or_default(),
            script: self.script.unwrap_or_default(),
            direct_io_safe: self.direct_io_safe,
            discard: self.discard,
            trusted: self.trusted,
        })
    }
}

/// Sets a field that must not have been set to anything before.
fn set_once(field: &mut Option<String>, name: &str, value: &str) -> Result<(), String> {
    if field.as_deref().is_some_and(|old| !old.is_empty()) {
        return Err(format!("{name} is given twice"));
    }
    *field = Some(value.into());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(text: &str) -> Disk {
        Disk::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// The equivalent spellings that xl-disk-configuration(5) opens with.
    #[test]
    fn the_manuals_spellings_are_equal() {
        let raw = disk("/dev/vg/guest-volume,,hda");
        for text in [
            "/dev/vg/guest-volume,raw,hda,rw",
            "format=raw, vdev=hda, access=rw, target=/dev/vg/guest-volume",
            "raw:/dev/vg/guest-volume,hda,w",
        ] {
            assert_eq!(disk(text), raw, "{text}");
        }
        let cdrom = disk("/root/image.iso,,hdc,cdrom");
        for text in [
            "/root/image.iso,,hdc,,cdrom",
            "/root/image.iso,raw,hdc,devtype=cdrom",
            "format=raw, vdev=hdc, access=ro, devtype=cdrom, target=/root/image.iso",
            "raw:/root/image.iso,hdc:cdrom,ro",
        ] {
            assert_eq!(disk(text), cdrom, "{text}");
        }
        let empty = disk(",hdc:cdrom,r");
        assert_eq!((empty.format, empty.target, empty.cdrom), (Format::Empty, None, true));
    }

    #[test]
    fn parts_are_one_entry() {
        assert_eq!(super::Disk::parse_parts(["phy:/dev/x", "xvda", "r"]), Ok(disk("/dev/x,raw,xvda,ro")));
        assert_eq!(super::Disk::parse_parts(["target=/a,b", "vdev=xvda"]), Ok(disk("vdev=xvda,target=/a,b")));
    }

    #[test]
    fn a_named_target_takes_the_rest() {
        let disk = disk("vdev=xvda,target=/a,b=c,");
        assert_eq!(disk.target.as_deref(), Some("/a,b=c"));
        assert_eq!(super::Disk::parse("phy:/dev/x,xvda,r").map(|disk| disk.writable), Ok(false));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("/a", "vdev"),
            ("vdev=xvda", "target"),
            ("/a,raw,xvda,rx", "access"),
            ("/a,rax,xvda", "format"),
            ("/a,raw,xvda,rw,more", "too many"),
            ("foo:/a,xvda", "prefix"),
            ("/a,raw,xvda,format=qcow2", "twice"),
            ("/a,raw,xvda,brand=new", "brand"),
        ] {
            assert!(Disk::parse(text).is_err_and(|error| error.contains(word)), "{text}");
        }
    }
}
