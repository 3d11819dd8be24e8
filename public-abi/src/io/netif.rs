//! The network device protocol (public/io/netif.h): two rings of `ring.rs`, one per direction, and a control ring.
//!
//! Directions are named from the guest's side: "tx" leaves it.

operations! {
    /// [`NetifExtraInfo::kind`].
    pub enum NetifExtra("XEN_NETIF_EXTRA_TYPE_") {
        /// Nothing.
        None = 0 "NONE";
        /// Segmentation.
        Gso = 1 "GSO";
        /// Join a multicast group.
        McastAdd = 2 "MCAST_ADD";
        /// Leave a multicast group.
        McastDel = 3 "MCAST_DEL";
        /// Hash of the packet.
        Hash = 4 "HASH";
    }

    /// [`NetifCtrlRequest::kind`].
    pub enum NetifCtrl("XEN_NETIF_CTRL_TYPE_") {
        /// Nothing.
        Invalid = 0 "INVALID";
        /// Which hashes.
        GetHashFlags = 1 "GET_HASH_FLAGS";
        /// Which hashes.
        SetHashFlags = 2 "SET_HASH_FLAGS";
        /// Key.
        SetHashKey = 3 "SET_HASH_KEY";
        /// Size of the mapping.
        GetHashMappingSize = 4 "GET_HASH_MAPPING_SIZE";
        /// Size of the mapping.
        SetHashMappingSize = 5 "SET_HASH_MAPPING_SIZE";
        /// Mapping.
        SetHashMapping = 6 "SET_HASH_MAPPING";
        /// Algorithm.
        SetHashAlgorithm = 7 "SET_HASH_ALGORITHM";
        /// Static grants.
        GetGrefMappingSize = 8 "GET_GREF_MAPPING_SIZE";
        /// Static grants.
        AddGrefMapping = 9 "ADD_GREF_MAPPING";
        /// Static grants.
        DelGrefMapping = 10 "DEL_GREF_MAPPING";
    }
}

constants! { u16 {
    NETTXF_CSUM_BLANK = 1 << 0, "Packet leaves: the checksum is missing.";
    NETTXF_DATA_VALIDATED = 1 << 1, "Packet leaves: the data is known to be good.";
    NETTXF_MORE_DATA = 1 << 2, "Packet leaves: more requests belong to it.";
    NETTXF_EXTRA_INFO = 1 << 3, "Packet leaves: a [`NetifExtraInfo`] follows.";
    NETRXF_DATA_VALIDATED = 1 << 0, "Packet arrives: the data is known to be good.";
    NETRXF_CSUM_BLANK = 1 << 1, "Packet arrives: the checksum is missing.";
    NETRXF_MORE_DATA = 1 << 2, "Packet arrives: more responses belong to it.";
    NETRXF_EXTRA_INFO = 1 << 3, "Packet arrives: a [`NetifExtraInfo`] follows.";
    NETRXF_GSO_PREFIX = 1 << 4, "Packet arrives: segmentation prefix.";
}}

constants! { u8 {
    EXTRA_FLAG_MORE = 1 << 0, "[`NetifExtraInfo::flags`]: another one follows.";
    GSO_TYPE_NONE = 0, "No segmentation.";
    GSO_TYPE_TCPV4 = 1, "TCP over IPv4.";
    GSO_TYPE_TCPV6 = 2, "TCP over IPv6.";
}}

constants! { i16 {
    NETIF_RSP_DROPPED = -2, "The packet was dropped.";
    NETIF_RSP_ERROR = -1, "Failed.";
    NETIF_RSP_OKAY = 0, "Done.";
    NETIF_RSP_NULL = 1, "Answer to an extra-info slot.";
}}

/// Slots of one packet that every back end accepts.
pub const NR_SLOTS_MIN: usize = 18;
/// Largest packet.
pub const MAX_TX_SIZE: usize = 0xffff;

abi! {
    /// `struct netif_tx_request`.
    pub struct NetifTxRequest = 12 {
        0  gref: u32 = "Grant reference of the page.";
        4  offset: u16 = "First byte.";
        6  flags: u16 = "`NETTXF_*`.";
        8  id: u16 = "Copied into the response.";
        10 size: u16 = "Bytes; of the whole packet in its first request.";
    }

    /// `struct netif_extra_info`.
    pub struct NetifExtraInfo = 8 {
        0 kind: u8 = "A [`NetifExtra`] (the member `type`).";
        1 flags: u8 = "[`EXTRA_FLAG_MORE`] or 0.";
        2 u: [u16; 3] = "Chosen by `kind`.";
    }

    /// `struct netif_extra_info.u.gso`.
    pub struct NetifExtraGso = 6 {
        0 size: u16 = "Largest payload of a segment.";
        2 kind: u8 = "`GSO_TYPE_*` (the member `type`).";
        3 pad: u8;
        4 features: u16 = "Unused.";
    }

    /// `struct netif_extra_info.u.hash`.
    pub struct NetifExtraHash = 6 {
        0 kind: u8 = "Which hash (the member `type`).";
        1 algorithm: u8 = "1: Toeplitz.";
        2 value: [u8; 4] = "Little-endian.";
    }

    /// `struct netif_tx_response`.
    pub struct NetifTxResponse = 4 {
        0 id: u16 = "From the request.";
        2 status: i16 = "`NETIF_RSP_*`.";
    }

    /// `struct netif_rx_request`.
    pub struct NetifRxRequest = 8 {
        0 id: u16 = "Copied into the response.";
        2 pad: u16;
        4 gref: u32 = "Grant reference of an empty page.";
    }

    /// `struct netif_rx_response`.
    pub struct NetifRxResponse = 8 {
        0 id: u16 = "From the request.";
        2 offset: u16 = "First byte in the page.";
        4 flags: u16 = "`NETRXF_*`.";
        6 status: i16 = "Bytes, or a negative `NETIF_RSP_*`.";
    }

    /// `struct xen_netif_ctrl_request`.
    pub struct NetifCtrlRequest = 16 {
        0 id: u16 = "Copied into the response.";
        2 kind: u16 = "A [`NetifCtrl`] (the member `type`).";
        4 data: [u32; 3] = "Parameters.";
    }

    /// `struct xen_netif_ctrl_response`.
    pub struct NetifCtrlResponse = 12 {
        0 id: u16 = "From the request.";
        2 kind: u16 = "From the request (the member `type`).";
        4 status: u32 = "0 done, 1 not supported, 2 invalid, 3 overflow.";
        8 data: u32 = "Result.";
    }

    /// `struct xen_netif_gref`.
    pub struct NetifGref = 8 {
        0 gref: u32 = "Grant reference (the member `ref`).";
        4 flags: u16 = "1: read-only.";
        6 status: u16 = "OUT.";
    }
}

plain_union! { NetifExtraInfo.u: 6; NetifExtraGso, NetifExtraHash, [u8; 6] }
