//! The frame of HVM save records (public/hvm/save.h): descriptor, type codes, iteration.
//!
//! domctl `sethvmcontext`/`gethvmcontext` carry a sequence of records: an 8-byte [`SaveDescriptor`] and then `length`
//! bytes, HEADER first, END last. Records are not aligned. The contents are in `arch_hvm_save.rs`.

operations! {
    /// The type code of a record (x86).
    pub enum SaveCode("HVM_SAVE_CODE_") {
        /// End of the sequence; no contents.
        End = 0 "END";
        /// [`crate::arch_hvm_save::HvmSaveHeader`].
        Header = 1 "HEADER";
        /// [`crate::arch_hvm_save::HvmHwCpu`], per vCPU.
        Cpu = 2 "CPU";
        /// [`crate::arch_hvm_save::HvmHwVpic`], two instances.
        Pic = 3 "PIC";
        /// [`crate::arch_hvm_save::HvmHwVioapic`].
        Ioapic = 4 "IOAPIC";
        /// [`crate::arch_hvm_save::HvmHwLapic`], per vCPU.
        Lapic = 5 "LAPIC";
        /// [`crate::arch_hvm_save::HvmHwLapicRegs`], per vCPU.
        LapicRegs = 6 "LAPIC_REGS";
        /// [`crate::arch_hvm_save::HvmHwPciIrqs`].
        PciIrq = 7 "PCI_IRQ";
        /// [`crate::arch_hvm_save::HvmHwIsaIrqs`].
        IsaIrq = 8 "ISA_IRQ";
        /// [`crate::arch_hvm_save::HvmHwPciLink`].
        PciLink = 9 "PCI_LINK";
        /// [`crate::arch_hvm_save::HvmHwPit`].
        Pit = 10 "PIT";
        /// [`crate::arch_hvm_save::HvmHwRtc`].
        Rtc = 11 "RTC";
        /// [`crate::arch_hvm_save::HvmHwHpet`].
        Hpet = 12 "HPET";
        /// [`crate::arch_hvm_save::HvmHwPmtimer`].
        Pmtimer = 13 "PMTIMER";
        /// [`crate::arch_hvm_save::HvmHwMtrr`], per vCPU.
        Mtrr = 14 "MTRR";
        /// [`crate::arch_hvm_save::HvmViridianDomain`].
        ViridianDomain = 15 "VIRIDIAN_DOMAIN";
        /// [`crate::arch_hvm_save::HvmHwCpuXsave`] and the extended area, per vCPU; variable length.
        CpuXsave = 16 "CPU_XSAVE";
        /// [`crate::arch_hvm_save::HvmViridianVcpu`], per vCPU.
        ViridianVcpu = 17 "VIRIDIAN_VCPU";
        /// [`crate::arch_hvm_save::HvmVmceVcpu`], per vCPU.
        VmceVcpu = 18 "VMCE_VCPU";
        /// [`crate::arch_hvm_save::HvmTscAdjust`], per vCPU.
        TscAdjust = 19 "TSC_ADJUST";
        /// [`crate::arch_hvm_save::HvmMsrHeader`] and its entries, per vCPU; variable length.
        CpuMsr = 20 "CPU_MSR";
    }
}

abi! {
    /// `struct hvm_save_descriptor`: before each record.
    pub struct SaveDescriptor = 8 {
        0 typecode: u16 = "A [`SaveCode`].";
        2 instance: u16 = "vCPU, or number of the device.";
        4 length: u32 = "Bytes that follow.";
    }
}

/// A record whose contents have a fixed length.
pub trait SaveRecord: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable {
    /// Its type code.
    const CODE: SaveCode;
}

/// One record in a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'bytes> {
    /// Its descriptor.
    pub descriptor: SaveDescriptor,
    /// Its contents.
    pub contents: &'bytes [u8],
}

impl Record<'_> {
    /// The contents as a structure, if the type code is that of `T` and the length is exact.
    #[must_use]
    pub fn get<T: SaveRecord>(&self) -> Option<T> {
        if u32::from(self.descriptor.typecode) != T::CODE.number() {
            return None;
        }
        T::read_from_bytes(self.contents).ok()
    }
}

/// A sequence of records ends before its END record, at this byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// Byte at which a descriptor or its contents should begin.
    pub offset: usize,
}

impl core::fmt::Display for Truncated {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "save records are cut off at byte {}", self.offset)
    }
}

impl core::error::Error for Truncated {}

/// Goes through a sequence of records; ends after END, which is not returned.
#[derive(Clone, Debug)]
pub struct Records<'bytes> {
    bytes: &'bytes [u8],
    offset: usize,
    ended: bool,
}

impl<'bytes> Records<'bytes> {
    /// Begins at the first record of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'bytes [u8]) -> Self {
        Self { bytes, offset: 0, ended: false }
    }

    /// The next record, or `None` at END.
    fn step(&mut self) -> Result<Option<Record<'bytes>>, Truncated> {
        let truncated = Truncated { offset: self.offset };
        let rest = self.bytes.get(self.offset..).ok_or(truncated)?;
        let (descriptor, rest) =
            <SaveDescriptor as zerocopy::FromBytes>::read_from_prefix(rest).map_err(|_| truncated)?;
        let length = usize::try_from(descriptor.length).map_err(|_| truncated)?;
        let contents = rest.get(..length).ok_or(truncated)?;
        self.offset = self.offset.saturating_add(size_of::<SaveDescriptor>()).saturating_add(length);
        if u32::from(descriptor.typecode) == SaveCode::End.number() {
            return Ok(None);
        }
        Ok(Some(Record { descriptor, contents }))
    }
}

impl<'bytes> Iterator for Records<'bytes> {
    type Item = Result<Record<'bytes>, Truncated>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.step().transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}
