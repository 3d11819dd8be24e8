//! Names of block devices in guests, and their numbers (docs/man/xen-vbd-interface.7 of Xen).
//!
//! The number tells a guest the name; the node `virtual-device` holds it, and it is the device's place in xenstore.

/// Xen's own disks: `xvda`, `xvda1`; major number 202, or the extended form with bit 28.
const XVD_MAJOR: u32 = 202;
const EXTENDED: u32 = 1 << 28;

/// The number of a device from its name: `xvda`, `hdc`, `sda1`, `d0p1`, or the number itself. `None` if it is no such name.
pub fn number(name: &str) -> Option<u32> {
    if let Some((disk, partition)) = pair(name).or_else(|| lettered(name, "xvd", (1 << 20) - 1, 255)) {
        return Some(match disk <= 15 && partition <= 15 {
            true => XVD_MAJOR << 8 | disk << 4 | partition,
            false => EXTENDED | disk << 8 | partition,
        });
    }
    if let Some(number) = plain(name) {
        return Some(number);
    }
    if let Some((disk, partition)) = lettered(name, "hd", 3, 63) {
        let major = if disk < 2 { 3 } else { 22 };
        return Some(major << 8 | (disk & 1) << 6 | partition);
    }
    lettered(name, "sd", 15, 15).map(|(disk, partition)| 8 << 8 | disk << 4 | partition)
}

/// `dDISKpPARTITION`
fn pair(name: &str) -> Option<(u32, u32)> {
    let (disk, partition) = name.strip_prefix('d')?.split_once('p')?;
    let (disk, partition) = (decimal(disk)?, decimal(partition)?);
    (disk < 1 << 20 && partition < 256).then_some((disk, partition))
}

fn decimal(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A number as C reads it.
fn plain(text: &str) -> Option<u32> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => decimal(text),
    };
    number.filter(|&number| i32::try_from(number).is_ok())
}

/// Letters count disks like the columns of a sheet: a … z, aa, ab …; a partition follows, from 1 on.
fn lettered(name: &str, prefix: &str, most_disks: u32, most_partitions: u32) -> Option<(u32, u32)> {
    let rest = name.strip_prefix(prefix)?;
    let split = rest.find(|character: char| !character.is_ascii_lowercase()).unwrap_or(rest.len());
    let (letters, digits) = rest.split_at(split);
    let mut disk: u32 = 0;
    for letter in letters.bytes() {
        disk = disk.checked_mul(26)?.checked_add(u32::from(letter - b'a') + 1)?;
    }
    let disk = disk.checked_sub(1).filter(|&disk| disk <= most_disks)?;
    if digits.is_empty() {
        return Some((disk, 0));
    }
    let partition = decimal(digits).filter(|_| !digits.starts_with('0'))?;
    (partition <= most_partitions).then_some((disk, partition))
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn names_have_xens_numbers() {
        for (name, expected) in [
            ("xvda", 51712),
            ("xvda1", 51713),
            ("xvdb", 51728),
            ("xvdp15", 51967),
            ("xvdq", 1 << 28 | 16 << 8),
            ("xvda16", 1 << 28 | 16),
            ("xvdaa", 1 << 28 | 26 << 8),
            ("d0p0", 51712),
            ("d5p2", 51712 + 5 * 16 + 2),
            ("hda", 768),
            ("hdb2", 768 + 64 + 2),
            ("hdc", 5632),
            ("sda", 2048),
            ("sdb3", 2067),
            ("51712", 51712),
            ("0xca00", 51712),
        ] {
            assert_eq!(number(name), Some(expected), "{name}");
        }
        for name in
            ["", "xvd", "xvda01", "xvda0", "xvda256", "hde", "sdq", "sda16", "vda", "d0", "d0p256", "xvda1x", "-1"]
        {
            assert_eq!(number(name), None, "{name}");
        }
    }
}
