//! Why a packet was dropped: `enum skb_drop_reason` of include/net/dropreason-core.h.

macro_rules! drop_reasons {
    ($( $(#[$doc:meta])* $variant:ident = $name:literal, )*) => {
        /// Why a packet was dropped. Every drop has exactly one reason, and every reason a counter
        /// (see [`DropCounters`]). Named as in Linux where Linux has the reason.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum SkbDropReason { $( $(#[$doc])* $variant, )* }

        impl SkbDropReason {
            /// Every reason.
            pub const ALL: &[Self] = &[ $( Self::$variant, )* ];

            /// The kernel's name of the reason, without the `SKB_DROP_REASON_` prefix.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }
        }
    };
}

drop_reasons! {
    /// The frame is shorter than the header it should hold.
    PktTooSmall = "PKT_TOO_SMALL",
    /// The packet is longer than the path or the buffer takes.
    PktTooBig = "PKT_TOO_BIG",
    /// The frame came from an interface that the stack does not know, or that is down.
    DevReady = "DEV_READY",
    /// The frame is addressed to another host's link-layer address.
    OtherHost = "OTHERHOST",
    /// No handler for this EtherType.
    UnhandledProto = "UNHANDLED_PROTO",
    /// The backlog queue of the CPU is full (`netdev_max_backlog`).
    CpuBacklog = "CPU_BACKLOG",
    /// A hook or a rule dropped the packet.
    NetfilterDrop = "NETFILTER_DROP",
    /// The queueing discipline is full.
    QdiscDrop = "QDISC_DROP",
    /// The IPv4 header checksum is wrong.
    IpCsum = "IP_CSUM",
    /// The IPv4 header is malformed.
    IpInHdr = "IP_INHDR",
    /// The source address cannot be a source (RFC 1122 section 3.2.1.3).
    IpInvalidSource = "IP_INVALID_SOURCE",
    /// The source address is one of ours, or a loopback address from outside: a martian.
    IpLocalSource = "IP_LOCALNET",
    /// No packet for the source address would leave by this interface (rp_filter).
    IpRpfilter = "IP_RPFILTER",
    /// The destination address cannot be a destination on this interface.
    IpInvalidDest = "IP_INVALID_DEST",
    /// A unicast datagram inside a link-layer broadcast (RFC 1122 section 3.3.6).
    UnicastInL2Multicast = "UNICAST_IN_L2_MULTICAST",
    /// The datagram is for somebody else and forwarding is off, or there is no route.
    IpInNoRoutes = "IP_INNOROUTES",
    /// A fragment that contradicts the others of its datagram, or none that could be one.
    FragReasm = "FRAG_REASM",
    /// A fragment whose datagram did not become complete in time.
    FragReasmTimeout = "FRAG_REASM_TIMEOUT",
    /// A fragment that was there already.
    DupFrag = "DUP_FRAG",
    /// IPv6 is off on the interface.
    Ipv6Disabled = "IPV6DISABLED",
    /// The IGMP checksum is wrong.
    IgmpCsum = "IGMP_CSUM",
    /// No route for the packet after a hook changed it.
    IpOutNoRoutes = "IP_OUTNOROUTES",
    /// No handler for the transport protocol.
    IpNoProto = "IP_NOPROTO",
    /// No socket wants the packet.
    NoSocket = "NO_SOCKET",
    /// The socket's filter did not want the packet.
    SocketFilter = "SOCKET_FILTER",
    /// The socket's receive buffer is full.
    SocketRcvbuff = "SOCKET_RCVBUFF",
    /// The UDP checksum is wrong.
    UdpCsum = "UDP_CSUM",
    /// The UDP length does not fit the datagram.
    UdpLength = "UDP_LENGTH",
    /// The ICMP checksum is wrong.
    IcmpCsum = "ICMP_CSUM",
    /// The ICMP message is malformed, of an unknown type, or not to be answered.
    InvalidProto = "INVALID_PROTO",
    /// The ARP packet is malformed or claims an impossible address.
    ArpInvalid = "ARP_INVALID",
    /// Address resolution failed.
    NeighFailed = "NEIGH_FAILED",
    /// The queue of packets that wait for address resolution overflowed.
    NeighQueueFull = "NEIGH_QUEUEFULL",
    /// The neighbour table is full.
    NeighCreateFail = "NEIGH_CREATEFAIL",
    /// No buffer.
    NoMem = "NOMEM",
    /// The packet could not get its link-layer header.
    HhFillFail = "NEIGH_HH_FILLFAIL",
    /// The socket was closed with the packet queued.
    SocketClose = "SOCKET_CLOSE",
    /// The socket's memory limit is reached.
    ProtoMem = "PROTO_MEM",
    /// The TCP checksum is wrong.
    TcpCsum = "TCP_CSUM",
    /// The segment's control bits make no sense in the state of the socket.
    TcpFlags = "TCP_FLAGS",
    /// The segment holds nothing new.
    TcpOldData = "TCP_OLD_DATA",
    /// The receive window is closed.
    TcpZeroWindow = "TCP_ZEROWINDOW",
    /// The segment is beyond the receive window.
    TcpOverWindow = "TCP_OVERWINDOW",
    /// The segment is in the out-of-order queue already.
    TcpOfoMerge = "TCP_OFOMERGE",
    /// The segment of the out-of-order queue is not needed any more.
    TcpOfoDrop = "TCP_OFO_DROP",
    /// The out-of-order queue was emptied for want of memory.
    TcpOfoQueuePrune = "TCP_OFO_QUEUE_PRUNE",
    /// A reset, or a segment of a connection that it ended.
    TcpReset = "TCP_RESET",
    /// The timestamp is too old (PAWS).
    TcpRfc7323Paws = "TCP_RFC7323_PAWS",
    /// No part of the segment is in the window.
    TcpInvalidSequence = "TCP_INVALID_SEQUENCE",
    /// The acknowledgment is not one of our SYN.
    TcpInvalidAckSequence = "TCP_INVALID_ACK_SEQUENCE",
    /// A SYN in a connection that stands.
    TcpInvalidSyn = "TCP_INVALID_SYN",
    /// The acknowledgment is of long ago.
    TcpTooOldAck = "TCP_TOO_OLD_ACK",
    /// The acknowledgment is of what was not sent.
    TcpAckUnsentData = "TCP_ACK_UNSENT_DATA",
    /// Data for a socket that nobody reads any more.
    TcpAbortOnData = "TCP_ABORT_ON_DATA",
    /// The listener has no room for another connection.
    TcpListenOverflow = "TCP_LISTEN_OVERFLOW",
    /// The connection is in TIME-WAIT.
    TcpTimeWait = "TCP_TIMEWAIT",
}

/// One counter for each [`SkbDropReason`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropCounters([u64; SkbDropReason::ALL.len()]);

impl Default for DropCounters {
    fn default() -> Self {
        Self([0; SkbDropReason::ALL.len()])
    }
}

impl DropCounters {
    /// Packets dropped for `reason`.
    pub fn get(&self, reason: SkbDropReason) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or(0)
    }

    /// Packets dropped in total.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (SkbDropReason, u64)> + '_ {
        SkbDropReason::ALL
            .iter()
            .map(|&r| (r, self.get(r)))
            .filter(|e| e.1 != 0)
    }

    pub(crate) fn count(&mut self, reason: SkbDropReason) {
        if let Some(counter) = self.0.get_mut(reason as usize) {
            *counter += 1;
        }
    }
}
