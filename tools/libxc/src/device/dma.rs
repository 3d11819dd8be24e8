//! Where a guest's pages must not reach a device of the machine.
//!
//! A backend that serves a guest from real hardware hands the guest's own pages, which it has mapped by grants, to a driver,
//! and the driver hands their addresses to the device. A control domain whose frames are the machine's frames ("1:1") does
//! its own DMA safely without an IOMMU; but granted pages appear at frames of its choosing where no RAM is, so the device
//! would read and write the wrong memory. Here, and nowhere else, it is decided what is done then.

/// What is known about this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The control domain is translated, with frames that are the machine's (XENFEAT_auto_translated_physmap and
    /// XENFEAT_direct_mapped).
    pub one_to_one: bool,
    /// The hypervisor translates devices' accesses, granted pages included (XEN_SYSCTL_PHYSCAP_directio).
    pub iommu: bool,
    /// The control domain's kernel copies every transfer through memory of its own (`swiotlb=force`).
    pub bounces: bool,
}

/// How data may go between guest and device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The guest's pages themselves may be handed to the device.
    Direct,
    /// They must be copied on the way; why.
    Copied(&'static str),
    /// Not at all; why, and what helps.
    Refused(String),
}

/// Why.
const REASON: &str =
    "the control domain's frames are the machine's and no IOMMU translates the pages that guests grant";

impl Facts {
    /// Whether granted pages may be handed to hardware.
    fn is_safe(&self) -> bool {
        !self.one_to_one || self.iommu || self.bounces
    }

    /// The way for a block device. `does_dma`: hardware of the machine is behind it.
    pub fn block(&self, does_dma: bool) -> Way {
        // A loop device without direct I/O copies between the guest's pages and the page cache.
        if does_dma && !self.is_safe() { Way::Copied(REASON) } else { Way::Direct }
    }

    /// The way for a network interface that is to be joined with a card of the machine, if it is one.
    pub fn network(&self, card: Option<&str>) -> Way {
        match card {
            Some(card) if !self.is_safe() => Way::Refused(format!(
                "packets would go through {card} straight from the guest's pages, which is not possible here: {REASON}; \
                 an IOMMU, or `swiotlb=force' on the control domain's command line, makes it possible"
            )),
            _ => Way::Direct,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hardware_behind_a_bare_one_to_one_domain_is_in_the_way() {
        let bare = Facts { one_to_one: true, ..Facts::default() };
        assert_eq!(bare.block(true), Way::Copied(REASON));
        assert!(matches!(bare.network(Some("eth0")), Way::Refused(text) if text.contains("eth0")));
        assert_eq!((bare.block(false), bare.network(None)), (Way::Direct, Way::Direct));
        for safe in [Facts::default(), Facts { iommu: true, ..bare }, Facts { bounces: true, ..bare }] {
            assert_eq!((safe.block(true), safe.network(Some("eth0"))), (Way::Direct, Way::Direct));
        }
    }
}
