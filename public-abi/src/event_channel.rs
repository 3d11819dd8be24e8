//! Event channels (hypercall 32, public/event_channel.h), both ABIs: two-level bitmaps and FIFO queues.

operations! {
    /// What to do.
    pub enum EventChannelOp("EVTCHNOP_") {
        /// [`BindInterdomain`].
        BindInterdomain = 0 "bind_interdomain";
        /// [`BindVirq`].
        BindVirq = 1 "bind_virq";
        /// [`BindPirq`].
        BindPirq = 2 "bind_pirq";
        /// [`Port`].
        Close = 3 "close";
        /// [`Port`].
        Send = 4 "send";
        /// [`Status`].
        Status = 5 "status";
        /// [`AllocUnbound`].
        AllocUnbound = 6 "alloc_unbound";
        /// [`BindIpi`].
        BindIpi = 7 "bind_ipi";
        /// [`BindVcpu`].
        BindVcpu = 8 "bind_vcpu";
        /// [`Port`].
        Unmask = 9 "unmask";
        /// [`Reset`].
        Reset = 10 "reset";
        /// [`InitControl`]: switches the domain to the FIFO ABI.
        InitControl = 11 "init_control";
        /// [`ExpandArray`].
        ExpandArray = 12 "expand_array";
        /// [`SetPriority`].
        SetPriority = 13 "set_priority";
    }

    /// What a port is, in [`Status::status`].
    pub enum PortStatus("EVTCHNSTAT_") {
        /// Free.
        Closed = 0 "closed";
        /// Waits for a remote domain: [`StatusUnbound`].
        Unbound = 1 "unbound";
        /// Connected: [`StatusInterdomain`].
        Interdomain = 2 "interdomain";
        /// Physical interrupt: its number, a `u32`.
        Pirq = 3 "pirq";
        /// Virtual interrupt: its number, a `u32`.
        Virq = 4 "virq";
        /// Between the domain's own vCPUs.
        Ipi = 5 "ipi";
    }
}

abi! {
    /// `struct evtchn_alloc_unbound`.
    pub struct AllocUnbound = 8 {
        0 dom: u16 = "Domain that gets the port.";
        2 remote_dom: u16 = "Domain that may connect to it.";
        4 port: u32 = "OUT.";
    }

    /// `struct evtchn_bind_interdomain`.
    pub struct BindInterdomain = 12 {
        0 remote_dom: u16 = "Domain to connect to.";
        2 pad: [u8; 2];
        4 remote_port: u32 = "Its unbound port.";
        8 local_port: u32 = "OUT.";
    }

    /// `struct evtchn_bind_virq`.
    pub struct BindVirq = 12 {
        0 virq: u32 = "A [`crate::virq::Virq`].";
        4 vcpu: u32 = "vCPU to notify; 0 for global ones.";
        8 port: u32 = "OUT.";
    }

    /// `struct evtchn_bind_pirq`.
    pub struct BindPirq = 12 {
        0 pirq: u32 = "Physical interrupt of the domain.";
        4 flags: u32 = "[`BIND_PIRQ_WILL_SHARE`] or 0.";
        8 port: u32 = "OUT.";
    }

    /// `struct evtchn_bind_ipi`.
    pub struct BindIpi = 8 {
        0 vcpu: u32 = "vCPU to notify.";
        4 port: u32 = "OUT.";
    }

    /// `struct evtchn_close`, `struct evtchn_send` and `struct evtchn_unmask`.
    pub struct Port = 4 {
        0 port: u32 = "Port of the calling domain.";
    }

    /// `struct evtchn_status`.
    pub struct Status = 24 {
        0  dom: u16 = "IN: whose port.";
        2  pad: [u8; 2];
        4  port: u32 = "IN.";
        8  status: u32 = "OUT: a [`PortStatus`].";
        12 vcpu: u32 = "OUT: vCPU it notifies.";
        16 u: [u32; 2] = "OUT: chosen by `status`.";
    }

    /// `struct evtchn_status.u.unbound`.
    pub struct StatusUnbound = 2 {
        0 dom: u16 = "Domain that may connect.";
    }

    /// `struct evtchn_status.u.interdomain`.
    pub struct StatusInterdomain = 8 {
        0 dom: u16 = "Domain at the other end.";
        2 pad: [u8; 2];
        4 port: u32 = "Port at the other end.";
    }

    /// `struct evtchn_bind_vcpu`.
    pub struct BindVcpu = 8 {
        0 port: u32 = "Port of the calling domain.";
        4 vcpu: u32 = "vCPU to notify from now on.";
    }

    /// `struct evtchn_reset`.
    pub struct Reset = 2 {
        0 dom: u16 = "Domain whose ports are closed; it returns to the two-level ABI.";
    }

    /// `struct evtchn_init_control`.
    pub struct InitControl = 24 {
        0  control_gfn: u64 = "Guest frame of the control block.";
        8  offset: u32 = "Byte offset of the [`FifoControlBlock`] in it; 8-aligned.";
        12 vcpu: u32 = "vCPU it belongs to.";
        16 link_bits: u8 = "OUT: [`FIFO_LINK_BITS`].";
        17 pad: [u8; 7];
    }

    /// `struct evtchn_expand_array`.
    pub struct ExpandArray = 8 {
        0 array_gfn: u64 = "Guest frame of the next page of event words.";
    }

    /// `struct evtchn_set_priority`.
    pub struct SetPriority = 8 {
        0 port: u32 = "Port of the calling domain.";
        4 priority: u32 = "[`FIFO_PRIORITY_MAX`] to [`FIFO_PRIORITY_MIN`].";
    }

    /// `struct evtchn_fifo_control_block`: shared memory, one per vCPU.
    pub struct FifoControlBlock = 72 {
        0 ready: u32 = "Bit n: queue n is not empty.";
        4 rsvd: u32;
        8 head: [u32; 16] = "First port of each queue; index 0 is the most urgent.";
    }
}

plain_union! { Status.u: 8; StatusUnbound, StatusInterdomain, u32 }

constants! { u32 {
    BIND_PIRQ_WILL_SHARE = 1, "The handler can share the interrupt.";
    FIFO_PRIORITY_MAX = 0, "Most urgent.";
    FIFO_PRIORITY_DEFAULT = 7, "Priority of a new port.";
    FIFO_PRIORITY_MIN = 15, "Least urgent.";
    FIFO_MAX_QUEUES = 16, "Queues per vCPU.";
    FIFO_PENDING = 1 << 31, "Event word: the event has been raised.";
    FIFO_MASKED = 1 << 30, "Event word: do not notify.";
    FIFO_LINKED = 1 << 29, "Event word: it is on a queue.";
    FIFO_BUSY = 1 << 28, "Event word: the hypervisor is about to change its mask.";
    FIFO_LINK_BITS = 17, "Width of the link field of an event word.";
    FIFO_LINK_MASK = (1 << 17) - 1, "Event word: next port of the queue, 0 at its end.";
    FIFO_NR_CHANNELS = 1 << 17, "Ports of the FIFO ABI.";
    FIFO_EVENT_WORDS_PER_PAGE = 1024, "Event words (u32) in a page of the array.";
    TWO_LEVEL_NR_CHANNELS = 4096, "Ports of the two-level ABI for 64-bit guests.";
    TWO_LEVEL_NR_CHANNELS_32 = 1024, "Ports of the two-level ABI for 32-bit guests.";
}}
