//! The xenstore protocol: messages and ring page (public/io/xs_wire.h, docs/misc/xenstore.txt).

operations! {
    /// [`XsdSockmsg::kind`].
    pub enum XsMessage("XS_") {
        /// Commands to the daemon.
        Control = 0 "CONTROL";
        /// List children.
        Directory = 1 "DIRECTORY";
        /// Read a value.
        Read = 2 "READ";
        /// Read permissions.
        GetPerms = 3 "GET_PERMS";
        /// Watch a path.
        Watch = 4 "WATCH";
        /// Stop watching.
        Unwatch = 5 "UNWATCH";
        /// Start a transaction.
        TransactionStart = 6 "TRANSACTION_START";
        /// End a transaction.
        TransactionEnd = 7 "TRANSACTION_END";
        /// A domain's ring is ready.
        Introduce = 8 "INTRODUCE";
        /// A domain's ring is gone.
        Release = 9 "RELEASE";
        /// Path of a domain.
        GetDomainPath = 10 "GET_DOMAIN_PATH";
        /// Write a value.
        Write = 11 "WRITE";
        /// Make a node.
        Mkdir = 12 "MKDIR";
        /// Remove a node.
        Rm = 13 "RM";
        /// Set permissions.
        SetPerms = 14 "SET_PERMS";
        /// From the daemon: a watch fired.
        WatchEvent = 15 "WATCH_EVENT";
        /// From the daemon: the name of an error.
        Error = 16 "ERROR";
        /// Whether a domain's ring is ready.
        IsDomainIntroduced = 17 "IS_DOMAIN_INTRODUCED";
        /// A domain continues after a suspend.
        Resume = 18 "RESUME";
        /// A domain is the device model of another.
        SetTarget = 19 "SET_TARGET";
        /// Remove all watches and transactions.
        ResetWatches = 21 "RESET_WATCHES";
        /// List children in parts.
        DirectoryPart = 22 "DIRECTORY_PART";
        /// Never sent.
        Invalid = 0xffff "INVALID";
    }
}

constants! { usize {
    RING_SIZE = 1024, "Bytes of each direction of the ring page.";
    PAYLOAD_MAX = 4096, "Bytes after a header.";
    ABS_PATH_MAX = 3072, "Bytes of an absolute path.";
    REL_PATH_MAX = 2048, "Bytes of a relative path.";
}}

constants! { u32 {
    SERVER_FEATURE_RECONNECTION = 1, "[`XenstoreDomainInterface::server_features`].";
    SERVER_FEATURE_ERROR = 2, "[`XenstoreDomainInterface::server_features`].";
    CONNECTED = 0, "[`XenstoreDomainInterface::connection`]: in use.";
    RECONNECT = 1, "[`XenstoreDomainInterface::connection`]: the guest asks for a fresh start.";
    ERROR_NONE = 0, "[`XenstoreDomainInterface::error`].";
    ERROR_COMM = 1, "[`XenstoreDomainInterface::error`]: communication problem.";
    ERROR_RINGIDX = 2, "[`XenstoreDomainInterface::error`]: an index is out of range.";
    ERROR_PROTO = 3, "[`XenstoreDomainInterface::error`]: not the protocol.";
}}

/// The names of errors that the daemon sends.
pub const ERROR_NAMES: &[&str] = &[
    "EINVAL",
    "EACCES",
    "EEXIST",
    "EISDIR",
    "ENOENT",
    "ENOMEM",
    "ENOSPC",
    "EIO",
    "ENOTEMPTY",
    "ENOSYS",
    "EROFS",
    "EBUSY",
    "EAGAIN",
    "EISCONN",
    "E2BIG",
    "EPERM",
];

abi! {
    /// `struct xsd_sockmsg`: before each message.
    pub struct XsdSockmsg = 16 {
        0  kind: u32 = "An [`XsMessage`] (the member `type`).";
        4  req_id: u32 = "Copied into the answer.";
        8  tx_id: u32 = "Transaction, 0 for none.";
        12 len: u32 = "Bytes that follow.";
    }

    /// `struct xenstore_domain_interface`: the ring page; the byte is the index modulo [`RING_SIZE`].
    pub struct XenstoreDomainInterface = 2076 {
        0    req: [u8; 1024] = "Requests.";
        1024 rsp: [u8; 1024] = "Answers and watch events.";
        2048 req_cons: u32 = "Written by the daemon.";
        2052 req_prod: u32 = "Written by the guest.";
        2056 rsp_cons: u32 = "Written by the guest.";
        2060 rsp_prod: u32 = "Written by the daemon.";
        2064 server_features: u32 = "`SERVER_FEATURE_*`.";
        2068 connection: u32 = "State of the connection.";
        2072 error: u32 = "`ERROR_*`.";
    }
}
