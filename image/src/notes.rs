//! Xen's ELF notes: what a kernel says about how it wants to be started.
//!
//! Numbers and meanings: Xen, public/elfnote.h. Comes after the segment table in `elf`, which finds the areas with
//! notes; `pvh` builders and `placement` read the result. Strings and numbers that only classic PV uses are kept as
//! they are, so that tools can show them.

use public_abi::elfnote::{ElfNote, NOTE_NAME};

use crate::ImageError;
use crate::bytes::Bytes;

/// Three 32-bit numbers: size of the name, size of the descriptor, type.
const NOTE_HEADER: u64 = 12;
/// `XEN_ELFNOTE_PHYS32_RELOC` has up to three numbers of four bytes.
const RELOC_SIZES: [u64; 4] = [0, 4, 8, 12];

/// `XEN_ELFNOTE_PHYS32_RELOC`: newer than the 4.17 headers that `public-abi` has, but Debian's Linux
/// 6.12 has this note.
const PHYS32_RELOC: u32 = 19;

/// `PHYS32_RELOC` as it is in the file: the kernel can be loaded elsewhere. A number that is absent has a default,
/// see [`crate::Kernel::relocation`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelocationNote {
    /// Alignment of the start of the image, in bytes.
    pub align: Option<u32>,
    /// The lowest address of the start.
    pub min: Option<u32>,
    /// The highest address of the last byte.
    pub max: Option<u32>,
}

/// The Xen notes of a kernel. Strings are without their zero. When a note appears more than once the last one counts,
/// as in Xen's own loader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes<'a> {
    /// How many notes with the name "Xen" there are, known or not.
    pub count: u32,
    /// `ENTRY`: virtual address of the PV entry point.
    pub entry: Option<u64>,
    /// `HYPERCALL_PAGE`: virtual address of the hypercall page.
    pub hypercall_page: Option<u64>,
    /// `VIRT_BASE`: virtual address of physical address zero.
    pub virt_base: Option<u64>,
    /// `PADDR_OFFSET`: what to subtract from `p_paddr` (PV only).
    pub paddr_offset: Option<u64>,
    /// `XEN_VERSION`: "xen-3.0".
    pub xen_version: Option<&'a [u8]>,
    /// `GUEST_OS`: such as "linux".
    pub guest_os: Option<&'a [u8]>,
    /// `GUEST_VERSION`: such as "2.6".
    pub guest_version: Option<&'a [u8]>,
    /// `LOADER`: "generic".
    pub loader: Option<&'a [u8]>,
    /// `PAE_MODE`: "yes", "no" or "bimodal".
    pub pae_mode: Option<&'a [u8]>,
    /// `FEATURES`: names with `|` between them, see [`Notes::features`].
    pub features: Option<&'a [u8]>,
    /// `SUPPORTED_FEATURES`: bit n is XENFEAT number n.
    pub supported_features: Option<u64>,
    /// `BSD_SYMTAB`: "yes" when the symbol table must be loaded (PV only).
    pub bsd_symtab: Option<&'a [u8]>,
    /// `HV_START_LOW`: lowest virtual address of the hypervisor's hole (PV only).
    pub hv_start_low: Option<u64>,
    /// `L1_MFN_VALID`: pairs of mask and value (PV only).
    pub l1_mfn_valid: Option<&'a [u8]>,
    /// `SUSPEND_CANCEL`: nonzero when the kernel can go on after a cancelled suspend.
    pub suspend_cancel: Option<u64>,
    /// `INIT_P2M`: virtual address of the initial P2M (PV only).
    pub init_p2m: Option<u64>,
    /// `MOD_START_PFN`: nonzero when the initrd need not be mapped (PV only).
    pub mod_start_pfn: Option<u64>,
    /// `PHYS32_ENTRY`: physical address where a PVH kernel starts, in 32-bit mode without paging.
    pub phys32_entry: Option<u32>,
    /// `PHYS32_RELOC`: the kernel can be relocated.
    pub phys32_reloc: Option<RelocationNote>,
}

impl<'a> Notes<'a> {
    /// Adds the Xen notes of an area (a PT_NOTE segment or an SHT_NOTE section). `align` is the area's own: 8 means
    /// descriptors are aligned to 8 bytes, anything else to 4, as binutils does it.
    pub(crate) fn scan(&mut self, area: Bytes<'a>, align: u64) -> Result<(), ImageError> {
        let align = if align == 8 { 8 } else { 4 };
        let mut at: u64 = 0;
        while at < area.len() {
            let name_size = area.u32(at, "note namesz")?;
            let desc_size = area.u32(at.saturating_add(4), "note descsz")?;
            let kind = area.u32(at.saturating_add(8), "note type")?;
            let name_at = at.saturating_add(NOTE_HEADER);
            let name = area.part(name_at, name_size.into(), "note name")?;
            // Offsets are far below 2^63: sums of two 32-bit sizes and an offset in memory.
            let desc_at = round_up(name_at.saturating_add(name_size.into()), align);
            let desc = area.part(desc_at, desc_size.into(), "note descriptor")?;
            if name.as_slice() == NOTE_NAME {
                self.add(kind, desc)?;
            }
            at = round_up(desc_at.saturating_add(desc_size.into()), align);
        }
        Ok(())
    }

    fn add(&mut self, kind: u32, desc: Bytes<'a>) -> Result<(), ImageError> {
        self.count = self.count.saturating_add(1);
        if kind == PHYS32_RELOC {
            self.phys32_reloc = Some(relocation(desc)?);
            return Ok(());
        }
        // Numbers that came after this list have no meaning to this loader.
        let Ok(note) = ElfNote::try_from(kind) else {
            return Ok(());
        };
        let what = note.name();
        match note {
            ElfNote::Entry => self.entry = Some(numeric(desc, what)?),
            ElfNote::HypercallPage => self.hypercall_page = Some(numeric(desc, what)?),
            ElfNote::VirtBase => self.virt_base = Some(numeric(desc, what)?),
            ElfNote::PaddrOffset => self.paddr_offset = Some(numeric(desc, what)?),
            ElfNote::XenVersion => self.xen_version = Some(string(desc)),
            ElfNote::GuestOs => self.guest_os = Some(string(desc)),
            ElfNote::GuestVersion => self.guest_version = Some(string(desc)),
            ElfNote::Loader => self.loader = Some(string(desc)),
            ElfNote::PaeMode => self.pae_mode = Some(string(desc)),
            ElfNote::Features => self.features = Some(string(desc)),
            ElfNote::BsdSymtab => self.bsd_symtab = Some(string(desc)),
            ElfNote::HvStartLow => self.hv_start_low = Some(numeric(desc, what)?),
            ElfNote::L1MfnValid => self.l1_mfn_valid = Some(desc.as_slice()),
            ElfNote::SuspendCancel => self.suspend_cancel = Some(numeric(desc, what)?),
            ElfNote::InitP2m => self.init_p2m = Some(numeric(desc, what)?),
            ElfNote::ModStartPfn => self.mod_start_pfn = Some(numeric(desc, what)?),
            ElfNote::SupportedFeatures => self.supported_features = Some(numeric(desc, what)?),
            ElfNote::Phys32Entry => {
                let entry = numeric(desc, what)?;
                self.phys32_entry = Some(u32::try_from(entry).map_err(|_| ImageError::Field {
                    what,
                    offset: desc.position(0),
                    value: entry,
                    problem: "not below 4 GiB",
                })?);
            }
            // Text for people, and the notes of crash dumps.
            _ => {}
        }
        Ok(())
    }

    /// The names in `FEATURES` and whether the kernel requires them (they had a `!`).
    pub fn features(&self) -> impl Iterator<Item = (&'a [u8], bool)> + use<'a> {
        self.features.unwrap_or_default().split(|&byte| byte == b'|').filter(|name| !name.is_empty()).map(|name| {
            match name.split_first() {
                Some((b'!', required)) => (required, true),
                _ => (name, false),
            }
        })
    }
}

/// A number of 4 or 8 bytes.
fn numeric(desc: Bytes<'_>, what: &'static str) -> Result<u64, ImageError> {
    match desc.len() {
        4 => desc.u32(0, what).map(u64::from),
        8 => desc.u64(0, what),
        other => Err(ImageError::Field {
            what,
            offset: desc.position(0),
            value: other,
            problem: "is the descriptor's size, which must be 4 or 8",
        }),
    }
}

/// The bytes before the first zero.
fn string(desc: Bytes<'_>) -> &[u8] {
    desc.as_slice().split(|&byte| byte == 0).next().unwrap_or_default()
}

fn relocation(desc: Bytes<'_>) -> Result<RelocationNote, ImageError> {
    if !RELOC_SIZES.contains(&desc.len()) {
        return Err(ImageError::Field {
            what: "PHYS32_RELOC",
            offset: desc.position(0),
            value: desc.len(),
            problem: "is the descriptor's size, which must be 0, 4, 8 or 12",
        });
    }
    let word = |index: u64| -> Result<Option<u32>, ImageError> {
        let at = index.saturating_mul(4);
        if at < desc.len() { desc.u32(at, "PHYS32_RELOC").map(Some) } else { Ok(None) }
    };
    let note = RelocationNote { align: word(0)?, min: word(1)?, max: word(2)? };
    if let Some(align) = note.align
        && !align.is_power_of_two()
    {
        return Err(ImageError::Field {
            what: "PHYS32_RELOC",
            offset: desc.position(0),
            value: align.into(),
            problem: "is the alignment, which must be a power of two",
        });
    }
    Ok(note)
}

fn round_up(offset: u64, align: u64) -> u64 {
    offset.checked_next_multiple_of(align).unwrap_or(u64::MAX)
}
