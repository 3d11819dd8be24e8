//! States of a device in xenstore (public/io/xenbus.h): the value of the node `state` of either end.

operations! {
    /// The state.
    pub enum XenbusState("XenbusState") {
        /// No node.
        Unknown = 0 "Unknown";
        /// Starting.
        Initialising = 1 "Initialising";
        /// Waiting for information from the other end.
        InitWait = 2 "InitWait";
        /// Waiting for the other end to connect.
        Initialised = 3 "Initialised";
        /// In use.
        Connected = 4 "Connected";
        /// Shutting down.
        Closing = 5 "Closing";
        /// Gone.
        Closed = 6 "Closed";
        /// Changing.
        Reconfiguring = 7 "Reconfiguring";
        /// Changed.
        Reconfigured = 8 "Reconfigured";
    }
}
