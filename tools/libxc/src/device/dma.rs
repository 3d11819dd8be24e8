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

/// Hardware of the machine behind a device of this domain's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dma {
    /// None.
    None,
    /// Hardware whose accesses an IOMMU translates, if there is one.
    Ordinary,
    /// Hardware that addresses the machine's memory past any IOMMU: virtio without the feature ACCESS_PLATFORM.
    PastIommu,
}

/// A network card of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its interface.
    pub name: String,
    /// How it reaches memory.
    pub dma: Dma,
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
    /// Whether granted pages may be handed to such hardware.
    fn is_safe(&self, dma: Dma) -> bool {
        match dma {
            Dma::None => true,
            Dma::Ordinary => !self.one_to_one || self.iommu || self.bounces,
            Dma::PastIommu => !self.one_to_one || self.bounces,
        }
    }

    /// The way for a block device.
    pub fn block(&self, dma: Dma) -> Way {
        // A loop device without direct I/O copies between the guest's pages and the page cache.
        if self.is_safe(dma) { Way::Direct } else { Way::Copied(REASON) }
    }

    /// The way for a network interface that is to be joined with a card of the machine, if it is one.
    pub fn network(&self, card: Option<&Card>) -> Way {
        match card {
            Some(Card { name, dma: Dma::PastIommu }) if self.iommu && !self.is_safe(Dma::PastIommu) => {
                Way::Refused(format!(
                    "packets would go through {name} straight from the guest's pages, and {name} reaches memory past the \
                     IOMMU (virtio without iommu_platform); another card, or `swiotlb=force' on the control domain's \
                     command line, makes it possible"
                ))
            }
            Some(Card { name, dma }) if !self.is_safe(*dma) => Way::Refused(format!(
                "packets would go through {name} straight from the guest's pages, which is not possible here: {REASON}; \
                 an IOMMU, or `swiotlb=force' on the control domain's command line, makes it possible"
            )),
            _ => Way::Direct,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(dma: Dma) -> Card {
        Card { name: "eth0".into(), dma }
    }

    #[test]
    fn only_hardware_behind_a_bare_one_to_one_domain_is_in_the_way() {
        let bare = Facts { one_to_one: true, ..Facts::default() };
        for dma in [Dma::Ordinary, Dma::PastIommu] {
            assert_eq!(bare.block(dma), Way::Copied(REASON));
            let text = "an IOMMU, or";
            assert!(
                matches!(bare.network(Some(&card(dma))), Way::Refused(why) if why.contains("eth0") && why.contains(text))
            );
        }
        assert_eq!((bare.block(Dma::None), bare.network(None)), (Way::Direct, Way::Direct));
        for safe in [Facts::default(), Facts { iommu: true, ..bare }, Facts { bounces: true, ..bare }] {
            assert_eq!(safe.block(Dma::Ordinary), Way::Direct);
            assert_eq!(safe.network(Some(&card(Dma::Ordinary))), Way::Direct);
        }
    }

    #[test]
    fn what_goes_past_an_iommu_is_not_made_safe_by_it() {
        let facts = Facts { one_to_one: true, iommu: true, ..Facts::default() };
        assert_eq!(facts.block(Dma::PastIommu), Way::Copied(REASON));
        let refused = facts.network(Some(&card(Dma::PastIommu)));
        assert!(matches!(refused, Way::Refused(text) if text.contains("eth0") && text.contains("iommu_platform")));
        let bounces = Facts { bounces: true, ..facts };
        assert_eq!(bounces.block(Dma::PastIommu), Way::Direct);
        assert_eq!(bounces.network(Some(&card(Dma::PastIommu))), Way::Direct);
    }
}
