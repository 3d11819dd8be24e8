//! Linux's x86 boot protocol, as far as a loader needs it that does not run the real-mode code: where in a bzImage
//! the compressed kernel lies.
//!
//! Layout: Linux, Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header". Before this comes the file as read
//! from disk; after it `decompress` unpacks the payload.

use crate::ImageError;
use crate::bytes::Bytes;

/// Offset of `HdrS` in the file.
const MAGIC_OFFSET: u64 = 0x202;
/// "HdrS", little endian.
const MAGIC: u32 = 0x5372_6448;
/// Offset of the boot sector's signature.
const BOOT_FLAG_OFFSET: u64 = 0x1fe;
const BOOT_FLAG: u16 = 0xaa55;
/// Unit of `setup_sects`, in bytes.
const SECTOR: u64 = 512;
/// What a `setup_sects` of zero means, for historical reasons.
const DEFAULT_SETUP_SECTORS: u8 = 4;
/// The first protocol version with `payload_offset` and `payload_length`: 2.08.
const FIRST_WITH_PAYLOAD: u16 = 0x0208;
/// The first protocol version with `pref_address` and `init_size`: 2.10.
const FIRST_WITH_INIT_SIZE: u16 = 0x020a;
/// `loadflags`: the protected-mode code is loaded at 1 MiB (a bzImage, not a zImage).
const LOADED_HIGH: u8 = 1;

/// The fields of the header that matter to a loader; offsets of fields are in their names' documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// 0x206: protocol version, major in the high byte (0x020f is 2.15).
    pub version: u16,
    /// 0x211: `loadflags`.
    pub load_flags: u8,
    /// 0x1f1: size of the real-mode code in 512-byte sectors, with a zero replaced by 4, without the boot sector.
    pub setup_sectors: u8,
    /// 0x248: offset of the payload from the protected-mode code, in bytes.
    pub payload_offset: u32,
    /// 0x24c: size of the payload in bytes, with the appended size of the uncompressed data.
    pub payload_length: u32,
    /// 0x258: where the kernel prefers to be loaded; zero before protocol 2.10.
    pub preferred_address: u64,
    /// 0x260: memory the kernel needs from its start while it initialises, in bytes; zero before protocol 2.10.
    pub init_size: u32,
}

impl Header {
    /// Reads the header; `None` when the file is not a Linux x86 kernel with a boot header.
    ///
    /// # Errors
    /// It is one, but the header is cut, older than protocol 2.08, or of a zImage.
    pub fn parse(file: &[u8]) -> Result<Option<Self>, ImageError> {
        let bytes = Bytes::new(file);
        if bytes.u32(MAGIC_OFFSET, "HdrS") != Ok(MAGIC) {
            return Ok(None);
        }
        let boot_flag = bytes.u16(BOOT_FLAG_OFFSET, "boot_flag")?;
        if boot_flag != BOOT_FLAG {
            return Err(field("boot_flag", BOOT_FLAG_OFFSET, boot_flag.into(), "must be 0xaa55"));
        }
        let version = bytes.u16(0x206, "version")?;
        if version < FIRST_WITH_PAYLOAD {
            return Err(field(
                "version",
                0x206,
                version.into(),
                "older than boot protocol 2.08, has no payload fields",
            ));
        }
        let load_flags = bytes.u8(0x211, "loadflags")?;
        if load_flags & LOADED_HIGH == 0 {
            return Err(field("loadflags", 0x211, load_flags.into(), "LOADED_HIGH is clear: a zImage, not a bzImage"));
        }
        let has_init_size = version >= FIRST_WITH_INIT_SIZE;
        Ok(Some(Self {
            version,
            load_flags,
            setup_sectors: match bytes.u8(0x1f1, "setup_sects")? {
                0 => DEFAULT_SETUP_SECTORS,
                sectors => sectors,
            },
            payload_offset: bytes.u32(0x248, "payload_offset")?,
            payload_length: bytes.u32(0x24c, "payload_length")?,
            preferred_address: if has_init_size { bytes.u64(0x258, "pref_address")? } else { 0 },
            init_size: if has_init_size { bytes.u32(0x260, "init_size")? } else { 0 },
        }))
    }

    /// Offset of the protected-mode code in the file: behind the boot sector and the setup sectors.
    #[must_use]
    pub fn protected_mode_offset(&self) -> u64 {
        u64::from(self.setup_sectors).saturating_add(1).saturating_mul(SECTOR)
    }

    /// The compressed kernel with the size that Linux's build appends, for [`crate::decompress::decompress`].
    ///
    /// # Errors
    /// The payload is empty or not wholly in the file.
    pub fn payload<'a>(&self, file: &'a [u8]) -> Result<&'a [u8], ImageError> {
        if self.payload_length == 0 {
            return Err(field("payload_length", 0x24c, 0, "the image has no payload"));
        }
        let offset = self.protected_mode_offset().saturating_add(self.payload_offset.into());
        Ok(Bytes::new(file).part(offset, self.payload_length.into(), "bzImage payload")?.as_slice())
    }
}

const fn field(what: &'static str, offset: u64, value: u64, problem: &'static str) -> ImageError {
    ImageError::Field { what, offset, value, problem }
}
