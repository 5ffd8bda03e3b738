//! Counters, named as in /proc/net/snmp and /proc/net/netstat (include/uapi/linux/snmp.h).

macro_rules! mib {
    ($( $(#[$doc:meta])* $name:ident $prefix:literal { $( $(#[$fdoc:meta])* $field:ident = $label:literal, )* } )*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
            #[non_exhaustive]
            pub struct $name { $( $(#[$fdoc])* pub $field: u64, )* }

            impl $name {
                /// Counters with the names that `nstat` prints, such as `IpInReceives`.
                pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                    [ $( (concat!($prefix, $label), self.$field), )* ].into_iter()
                }
            }
        )*
    };
}

mib! {
    /// Counters of IP (RFC 4293, `IPSTATS_MIB_*`).
    IpMib "Ip" {
        /// Datagrams received, bad ones included.
        in_receives = "InReceives",
        /// Dropped for errors in the header.
        in_hdr_errors = "InHdrErrors",
        /// Dropped because the address is not one to receive at, or a martian source.
        in_addr_errors = "InAddrErrors",
        /// Dropped for an unknown transport protocol.
        in_unknown_protos = "InUnknownProtos",
        /// Given to a transport protocol.
        in_delivers = "InDelivers",
        /// Datagrams that transport protocols wanted sent.
        out_requests = "OutRequests",
        /// Outgoing datagrams dropped for want of memory or queue space.
        out_discards = "OutDiscards",
        /// Outgoing datagrams without a route.
        out_no_routes = "OutNoRoutes",
        /// Datagrams forwarded.
        forw_datagrams = "ForwDatagrams",
        /// Datagrams put together again.
        reasm_oks = "ReasmOKs",
        /// Datagrams whose fragments did not all come in time.
        reasm_timeout = "ReasmTimeout",
        /// Fragments received.
        reasm_reqds = "ReasmReqds",
        /// Failures of reassembly.
        reasm_fails = "ReasmFails",
        /// Datagrams that were fragmented.
        frag_oks = "FragOKs",
        /// Fragments made.
        frag_creates = "FragCreates",
        /// Datagrams that had to be fragmented and could not.
        frag_fails = "FragFails",
    }

    /// More counters of IP, Linux's own (`IpExt` in /proc/net/netstat).
    IpExtMib "IpExt" {
        /// Datagrams received without a route.
        in_no_routes = "InNoRoutes",
        /// Datagrams cut short.
        in_truncated_pkts = "InTruncatedPkts",
        /// Multicast datagrams received.
        in_mcast_pkts = "InMcastPkts",
        /// Broadcast datagrams received.
        in_bcast_pkts = "InBcastPkts",
        /// Bytes received.
        in_octets = "InOctets",
        /// Bytes sent.
        out_octets = "OutOctets",
        /// Header checksum errors.
        in_csum_errors = "InCsumErrors",
    }

    /// Counters of ICMP (RFC 4293, `ICMP_MIB_*`).
    IcmpMib "Icmp" {
        /// Messages received, bad ones included.
        in_msgs = "InMsgs",
        /// Malformed messages.
        in_errors = "InErrors",
        /// Checksum errors.
        in_csum_errors = "InCsumErrors",
        /// Destination unreachable received.
        in_dest_unreachs = "InDestUnreachs",
        /// Time exceeded received.
        in_time_excds = "InTimeExcds",
        /// Redirects received.
        in_redirects = "InRedirects",
        /// Parameter problem received.
        in_parm_probs = "InParmProbs",
        /// Echo requests received.
        in_echos = "InEchos",
        /// Echo replies received.
        in_echo_reps = "InEchoReps",
        /// Messages sent.
        out_msgs = "OutMsgs",
        /// Messages not sent for want of memory or a route.
        out_errors = "OutErrors",
        /// Destination unreachable sent.
        out_dest_unreachs = "OutDestUnreachs",
        /// Time exceeded sent.
        out_time_excds = "OutTimeExcds",
        /// Redirects sent.
        out_redirects = "OutRedirects",
        /// Parameter problem sent.
        out_parm_probs = "OutParmProbs",
        /// Echo requests sent.
        out_echos = "OutEchos",
        /// Echo replies sent.
        out_echo_reps = "OutEchoReps",
        /// Messages held back by the limit for all hosts.
        out_rate_limit_global = "OutRateLimitGlobal",
        /// Messages held back by the limit for one host.
        out_rate_limit_host = "OutRateLimitHost",
    }

    /// Counters of IPv6 (RFC 4293, `IPSTATS_MIB_*` of /proc/net/snmp6).
    Ip6Mib "Ip6" {
        /// Packets received, bad ones included.
        in_receives = "InReceives",
        /// Dropped for errors in a header.
        in_hdr_errors = "InHdrErrors",
        /// Larger than the next link.
        in_too_big_errors = "InTooBigErrors",
        /// Without a route.
        in_no_routes = "InNoRoutes",
        /// Dropped because the address is not one to receive at.
        in_addr_errors = "InAddrErrors",
        /// Dropped for an unknown transport protocol.
        in_unknown_protos = "InUnknownProtos",
        /// Cut short.
        in_truncated_pkts = "InTruncatedPkts",
        /// Given to a transport protocol.
        in_delivers = "InDelivers",
        /// Forwarded.
        out_forw_datagrams = "OutForwDatagrams",
        /// Packets that transport protocols wanted sent.
        out_requests = "OutRequests",
        /// Outgoing, dropped for want of memory or queue space.
        out_discards = "OutDiscards",
        /// Outgoing without a route.
        out_no_routes = "OutNoRoutes",
        /// Datagrams whose fragments did not all come in time.
        reasm_timeout = "ReasmTimeout",
        /// Fragments received.
        reasm_reqds = "ReasmReqds",
        /// Put together again.
        reasm_oks = "ReasmOKs",
        /// Failures of reassembly.
        reasm_fails = "ReasmFails",
        /// Fragmented.
        frag_oks = "FragOKs",
        /// That had to be fragmented and could not.
        frag_fails = "FragFails",
        /// Fragments made.
        frag_creates = "FragCreates",
        /// Multicast packets received.
        in_mcast_pkts = "InMcastPkts",
        /// Multicast packets sent.
        out_mcast_pkts = "OutMcastPkts",
        /// Bytes received.
        in_octets = "InOctets",
        /// Bytes sent.
        out_octets = "OutOctets",
    }

    /// Counters of ICMPv6 (RFC 4293, `ICMP6_MIB_*`).
    Icmp6Mib "Icmp6" {
        /// Messages received, bad ones included.
        in_msgs = "InMsgs",
        /// Malformed messages.
        in_errors = "InErrors",
        /// Checksum errors.
        in_csum_errors = "InCsumErrors",
        /// Messages sent.
        out_msgs = "OutMsgs",
        /// Messages not sent for want of memory or a route.
        out_errors = "OutErrors",
        /// Destination unreachable received.
        in_dest_unreachs = "InDestUnreachs",
        /// Packet too big received.
        in_pkt_too_bigs = "InPktTooBigs",
        /// Time exceeded received.
        in_time_excds = "InTimeExcds",
        /// Parameter problem received.
        in_parm_problems = "InParmProblems",
        /// Echo requests received.
        in_echos = "InEchos",
        /// Echo replies received.
        in_echo_replies = "InEchoReplies",
        /// Multicast listener queries received.
        in_group_memb_queries = "InGroupMembQueries",
        /// Router solicitations received.
        in_router_solicits = "InRouterSolicits",
        /// Router advertisements received.
        in_router_advertisements = "InRouterAdvertisements",
        /// Neighbour solicitations received.
        in_neighbor_solicits = "InNeighborSolicits",
        /// Neighbour advertisements received.
        in_neighbor_advertisements = "InNeighborAdvertisements",
        /// Redirects received.
        in_redirects = "InRedirects",
        /// Destination unreachable sent.
        out_dest_unreachs = "OutDestUnreachs",
        /// Packet too big sent.
        out_pkt_too_bigs = "OutPktTooBigs",
        /// Time exceeded sent.
        out_time_excds = "OutTimeExcds",
        /// Parameter problem sent.
        out_parm_problems = "OutParmProblems",
        /// Echo requests sent.
        out_echos = "OutEchos",
        /// Echo replies sent.
        out_echo_replies = "OutEchoReplies",
        /// Router solicitations sent.
        out_router_solicits = "OutRouterSolicits",
        /// Neighbour solicitations sent.
        out_neighbor_solicits = "OutNeighborSolicits",
        /// Neighbour advertisements sent.
        out_neighbor_advertisements = "OutNeighborAdvertisements",
        /// Redirects sent.
        out_redirects = "OutRedirects",
        /// Multicast listener reports sent.
        out_mldv2_reports = "OutMLDv2Reports",
    }

    /// Counters of UDP (RFC 4113, `UDP_MIB_*`).
    UdpMib "Udp" {
        /// Datagrams delivered to sockets.
        in_datagrams = "InDatagrams",
        /// Datagrams for ports without a socket.
        no_ports = "NoPorts",
        /// Datagrams not delivered for other reasons.
        in_errors = "InErrors",
        /// Datagrams sent.
        out_datagrams = "OutDatagrams",
        /// Dropped because the socket's receive buffer was full.
        rcvbuf_errors = "RcvbufErrors",
        /// Not sent because there was no buffer or queue space.
        sndbuf_errors = "SndbufErrors",
        /// Checksum errors.
        in_csum_errors = "InCsumErrors",
        /// Multicast and broadcast datagrams that no socket wanted.
        ignored_multi = "IgnoredMulti",
    }

    /// Counters of TCP (RFC 4022, `TCP_MIB_*`).
    TcpMib "Tcp" {
        /// Connections that we began.
        active_opens = "ActiveOpens",
        /// Connections that peers began.
        passive_opens = "PassiveOpens",
        /// Attempts that failed.
        attempt_fails = "AttemptFails",
        /// Connections that were reset.
        estab_resets = "EstabResets",
        /// Segments received, bad ones included.
        in_segs = "InSegs",
        /// Segments sent, retransmissions included.
        out_segs = "OutSegs",
        /// Segments retransmitted.
        retrans_segs = "RetransSegs",
        /// Bad segments received.
        in_errs = "InErrs",
        /// Resets sent.
        out_rsts = "OutRsts",
        /// Checksum errors.
        in_csum_errors = "InCsumErrors",
    }

    /// More counters of TCP, Linux's own (`LINUX_MIB_*`).
    TcpExtMib "TcpExt" {
        /// Data segments that took the fast path (header prediction).
        hp_hits = "TCPHPHits",
        /// Acknowledgments that took it.
        hp_acks = "TCPHPAcks",
        /// Acknowledgments without data that did not.
        pure_acks = "TCPPureAcks",
        /// Acknowledgments that the timer sent.
        delayed_acks = "DelayedACKs",
        /// Segments that came again.
        delayed_ack_lost = "DelayedACKLost",
        /// Retransmission timeouts.
        timeouts = "TCPTimeouts",
        /// Tail loss probes.
        loss_probes = "TCPLossProbes",
        /// Recoveries with SACK.
        sack_recovery = "TCPSackRecovery",
        /// Recoveries without.
        reno_recovery = "TCPRenoRecovery",
        /// Peers that dropped what they had SACKed.
        sack_reneging = "TCPSACKReneging",
        /// Reorderings seen.
        sack_reorder = "TCPSACKReorder",
        /// SACK blocks that cannot be.
        sack_discard = "TCPSACKDiscard",
        /// D-SACKs received, of acknowledged data.
        dsack_recv = "TCPDSACKRecv",
        /// D-SACKs received, of data out of order.
        dsack_ofo_recv = "TCPDSACKOfoRecv",
        /// D-SACKs sent, of acknowledged data.
        dsack_old_sent = "TCPDSACKOldSent",
        /// D-SACKs sent, of data out of order.
        dsack_ofo_sent = "TCPDSACKOfoSent",
        /// Recoveries that were for nothing.
        full_undo = "TCPFullUndo",
        /// Recoveries that were partly for nothing.
        partial_undo = "TCPPartialUndo",
        /// Reductions undone since D-SACKs told of it.
        dsack_undo = "TCPDSACKUndo",
        /// Timeouts that were for nothing.
        loss_undo = "TCPLossUndo",
        /// Timeouts of which F-RTO found that they were for nothing.
        spurious_rtos = "TCPSpuriousRTOs",
        /// Segments queued out of order.
        ofo_queue = "TCPOFOQueue",
        /// Segments out of order dropped for want of memory.
        ofo_drop = "TCPOFODrop",
        /// Segments out of order that overlapped others.
        ofo_merge = "TCPOFOMerge",
        /// Times that the out-of-order queue was pruned.
        ofo_pruned = "OfoPruned",
        /// Segments appended to the buffer before them.
        rcv_coalesce = "TCPRcvCoalesce",
        /// Segments in order dropped for want of memory.
        rcvq_drop = "TCPRcvQDrop",
        /// Segments dropped since the window is closed.
        zero_window_drop = "TCPZeroWindowDrop",
        /// Handshakes refuted by a timestamp.
        paws_active = "PAWSActive",
        /// Segments refuted by a timestamp.
        paws_estab = "PAWSEstab",
        /// Challenge ACKs sent (RFC 5961).
        challenge_ack = "TCPChallengeACK",
        /// SYNs in connections that stand.
        syn_challenge = "TCPSYNChallenge",
        /// ICMP errors about what is not in flight.
        out_of_window_icmps = "OutOfWindowIcmps",
        /// Connections reset for data that nobody reads.
        abort_on_data = "TCPAbortOnData",
        /// Connections reset by a close with unread data.
        abort_on_close = "TCPAbortOnClose",
        /// Connections given up.
        abort_on_timeout = "TCPAbortOnTimeout",
        /// Keepalive probes sent.
        keepalive = "TCPKeepAlive",
        /// Connections that found the accept queue full.
        listen_overflows = "ListenOverflows",
        /// Connections dropped by listeners.
        listen_drops = "ListenDrops",
        /// SYNs that found the SYN queue full.
        req_q_full_drop = "TCPReqQFullDrop",
        /// SYN-ACKs sent again.
        synack_retrans = "TCPSynRetrans",
        /// Cookies sent.
        syncookies_sent = "SyncookiesSent",
        /// Cookies received.
        syncookies_recv = "SyncookiesRecv",
        /// Bad cookies received.
        syncookies_failed = "SyncookiesFailed",
        /// Connections that left TIME-WAIT by the timer.
        tw = "TW",
        /// Connections that found no room in TIME-WAIT.
        time_wait_overflow = "TCPTimeWaitOverflow",
    }

    /// Counters of ARP. Linux has none; the names are ours.
    ArpMib "Arp" {
        /// Packets received.
        in_msgs = "InMsgs",
        /// Requests answered.
        out_replies = "OutReplies",
        /// Requests sent.
        out_requests = "OutRequests",
    }
}

/// All counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Snmp {
    /// IP.
    pub ip: IpMib,
    /// IP, Linux's own.
    pub ip_ext: IpExtMib,
    /// ICMP.
    pub icmp: IcmpMib,
    /// IPv6.
    pub ip6: Ip6Mib,
    /// ICMPv6.
    pub icmp6: Icmp6Mib,
    /// UDP, both families.
    pub udp: UdpMib,
    /// TCP.
    pub tcp: TcpMib,
    /// TCP, Linux's own.
    pub tcp_ext: TcpExtMib,
    /// ARP.
    pub arp: ArpMib,
}

impl Snmp {
    /// All counters with the names that `nstat` prints.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        self.ip
            .iter()
            .chain(self.ip_ext.iter())
            .chain(self.icmp.iter())
            .chain(self.ip6.iter())
            .chain(self.icmp6.iter())
            .chain(self.udp.iter())
            .chain(self.tcp.iter())
            .chain(self.tcp_ext.iter())
            .chain(self.arp.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_nstat_and_unique() {
        let mib = Snmp {
            udp: UdpMib {
                rcvbuf_errors: 3,
                ..UdpMib::default()
            },
            ..Snmp::default()
        };
        assert!(mib.iter().any(|e| e == ("UdpRcvbufErrors", 3)));
        let mut names: Vec<_> = mib.iter().map(|e| e.0).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
