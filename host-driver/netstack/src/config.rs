//! Settings, with the names and defaults of Linux's sysctls.

use std::time::Duration;

use crate::core::neighbour::NeighParms;
use crate::tcp::CongestionAlgorithm;

/// Settings of a [`Stack`](crate::Stack).
#[derive(Debug, Clone)]
pub struct StackConfig {
    /// CPUs that packets are received on, 1 to 64 (`nr_cpu_ids`); more than one matters to
    /// [RPS](crate::core::rps) only.
    pub cpus: usize,
    /// Time to live of what we send (net.ipv4.ip_default_ttl).
    pub ip_default_ttl: u8,
    /// Forward between interfaces; the setting of interfaces added later (net.ipv4.ip_forward).
    pub ip_forward: bool,
    /// No IPv6 on interfaces added later, until [`Stack::enable_ipv6`](crate::Stack::enable_ipv6)
    /// (net.ipv6.conf.default.disable_ipv6).
    ///
    /// False, as in Linux: an interface that comes up makes its link-local address, checks it, tells its groups and
    /// asks for routers, without being told to. In co-simulation that is about ten short frames in the first twelve
    /// seconds of virtual time, each at a time that the seed gives: runs replay as before. A test that counts frames
    /// of IPv4 sets this.
    pub disable_ipv6: bool,
    /// Forward IPv6 between interfaces; the setting of interfaces added later
    /// (net.ipv6.conf.default.forwarding).
    pub ipv6_forwarding: bool,
    /// Do not learn the MTU of paths (net.ipv4.ip_no_pmtu_disc).
    pub ip_no_pmtu_disc: bool,
    /// Least MTU that is believed of a path (net.ipv4.route.min_pmtu).
    pub ip_min_pmtu: usize,
    /// Time for which the MTU of a path is believed (net.ipv4.route.mtu_expires; RFC 1191 section 6.3).
    pub ip_mtu_expires: Duration,
    /// Memory for fragments that wait for each other, in bytes, both families (net.ipv4.ipfrag_high_thresh).
    pub ipfrag_high_thresh: usize,
    /// Time that the fragments of a datagram have (net.ipv4.ipfrag_time).
    pub ipfrag_time: Duration,
    /// First and last ephemeral port (net.ipv4.ip_local_port_range).
    pub ip_local_port_range: (u16, u16),
    /// Receive buffer of a new socket in bytes (net.core.rmem_default).
    pub rmem_default: usize,
    /// Send buffer of a new socket in bytes (net.core.wmem_default).
    pub wmem_default: usize,
    /// Most that a program may set a receive buffer to, in bytes (net.core.rmem_max).
    pub rmem_max: usize,
    /// Most that a program may set a send buffer to, in bytes (net.core.wmem_max).
    pub wmem_max: usize,
    /// Packets that the receive backlog of a CPU holds (net.core.netdev_max_backlog).
    pub netdev_max_backlog: usize,
    /// Flows that the limit of a backlog tells apart, of CPUs that get one from now on
    /// (net.core.flow_limit_table_len; [`Stack::set_flow_limit_cpus`](crate::Stack::set_flow_limit_cpus)).
    pub flow_limit_table_len: usize,
    /// Packets that the queue of an interface holds (txqueuelen).
    pub tx_queue_len: usize,
    /// Time between two ICMP errors to one host, with a burst of six (net.ipv4.icmp_ratelimit).
    pub icmp_ratelimit: Duration,
    /// Bit mask of the ICMP types that are limited (net.ipv4.icmp_ratemask).
    pub icmp_ratemask: u32,
    /// Limited ICMP messages per second to all hosts (net.ipv4.icmp_msgs_per_sec).
    pub icmp_msgs_per_sec: u32,
    /// Burst allowed beyond it (net.ipv4.icmp_msgs_burst).
    pub icmp_msgs_burst: u32,
    /// Answer no echo requests (net.ipv4.icmp_echo_ignore_all).
    pub icmp_echo_ignore_all: bool,
    /// Answer no echo requests to broadcast addresses (net.ipv4.icmp_echo_ignore_broadcasts;
    /// RFC 1122 section 3.2.2.6 allows either).
    pub icmp_echo_ignore_broadcasts: bool,
    /// Drop unicast datagrams inside link-layer broadcasts, as RFC 1122 section 3.3.6 wishes
    /// (drop_unicast_in_l2_multicast).
    pub drop_unicast_in_l2_multicast: bool,
    /// Make neighbour entries from gratuitous ARP (arp_accept).
    pub arp_accept: bool,
    /// Announce new addresses by gratuitous ARP (arp_notify).
    pub arp_notify: bool,
    /// The neighbour table (net.ipv4.neigh.default).
    pub neigh: NeighParms,
    /// Receive buffer of a TCP socket in bytes: least, initial, most (net.ipv4.tcp_rmem).
    pub tcp_rmem: (usize, usize, usize),
    /// Send buffer of a TCP socket in bytes (net.ipv4.tcp_wmem).
    pub tcp_wmem: (usize, usize, usize),
    /// Let the receive buffer grow with the rate of the reader (net.ipv4.tcp_moderate_rcvbuf).
    pub tcp_moderate_rcvbuf: bool,
    /// Timestamps (net.ipv4.tcp_timestamps, RFC 7323).
    pub tcp_timestamps: bool,
    /// Selective acknowledgments (net.ipv4.tcp_sack, RFC 2018).
    pub tcp_sack: bool,
    /// Scaled windows (net.ipv4.tcp_window_scaling, RFC 7323).
    pub tcp_window_scaling: bool,
    /// Explicit congestion notification (RFC 3168; net.ipv4.tcp_ecn): 0 no, 1 offered and accepted, 2 accepted.
    pub tcp_ecn: u8,
    /// Find out whether a timeout was for nothing, by new data (F-RTO, RFC 5682; net.ipv4.tcp_frto, 0 is no).
    pub tcp_frto: u8,
    /// Algorithm of congestion control of new sockets (net.ipv4.tcp_congestion_control).
    pub tcp_congestion_control: CongestionAlgorithm,
    /// Times that a SYN is sent again (net.ipv4.tcp_syn_retries).
    pub tcp_syn_retries: u32,
    /// Times that a SYN-ACK is sent again (net.ipv4.tcp_synack_retries).
    pub tcp_synack_retries: u32,
    /// Retransmissions after which another route is asked for (net.ipv4.tcp_retries1).
    pub tcp_retries1: u32,
    /// Retransmissions after which a connection is given up (net.ipv4.tcp_retries2).
    pub tcp_retries2: u32,
    /// The same for a connection that nobody owns (net.ipv4.tcp_orphan_retries).
    pub tcp_orphan_retries: u32,
    /// Time in FIN-WAIT-2 of a connection that nobody owns (net.ipv4.tcp_fin_timeout).
    pub tcp_fin_timeout: Duration,
    /// Idle time before the first keepalive probe (net.ipv4.tcp_keepalive_time).
    pub tcp_keepalive_time: Duration,
    /// Time between keepalive probes (net.ipv4.tcp_keepalive_intvl).
    pub tcp_keepalive_intvl: Duration,
    /// Keepalive probes that end a connection (net.ipv4.tcp_keepalive_probes).
    pub tcp_keepalive_probes: u32,
    /// Shrink the window of an idle connection (net.ipv4.tcp_slow_start_after_idle).
    pub tcp_slow_start_after_idle: bool,
    /// Challenge ACKs per second (net.ipv4.tcp_challenge_ack_limit).
    pub tcp_challenge_ack_limit: u32,
    /// Bytes of one socket that may wait in queues of devices (net.ipv4.tcp_limit_output_bytes).
    pub tcp_limit_output_bytes: usize,
    /// SYN cookies: 0 never, 1 when the backlog overflows, 2 always (net.ipv4.tcp_syncookies).
    pub tcp_syncookies: u8,
    /// Handshakes that may go on at one listener (net.ipv4.tcp_max_syn_backlog).
    pub tcp_max_syn_backlog: u32,
    /// Connections that may wait for an accept (net.core.somaxconn).
    pub somaxconn: u32,
    /// Connections in TIME-WAIT (net.ipv4.tcp_max_tw_buckets).
    pub tcp_max_tw_buckets: usize,
    /// Free buffers of 2 KiB that the pool keeps.
    pub skb_pool_max_free: usize,
}

impl Default for StackConfig {
    fn default() -> Self {
        Self {
            cpus: 1,
            ip_default_ttl: 64,
            ip_forward: false,
            disable_ipv6: false,
            ipv6_forwarding: false,
            ip_no_pmtu_disc: false,
            ip_min_pmtu: 552,
            ip_mtu_expires: Duration::from_secs(600),
            ipfrag_high_thresh: 4 << 20,
            ipfrag_time: Duration::from_secs(30),
            ip_local_port_range: (32_768, 60_999),
            rmem_default: 212_992,
            wmem_default: 212_992,
            rmem_max: 32 << 20,
            wmem_max: 32 << 20,
            netdev_max_backlog: 1000,
            flow_limit_table_len: 4096,
            tx_queue_len: 1000,
            icmp_ratelimit: Duration::from_secs(1),
            icmp_ratemask: 0x1818,
            icmp_msgs_per_sec: 1000,
            icmp_msgs_burst: 50,
            icmp_echo_ignore_all: false,
            icmp_echo_ignore_broadcasts: true,
            drop_unicast_in_l2_multicast: false,
            arp_accept: false,
            arp_notify: false,
            neigh: NeighParms::default(),
            tcp_rmem: (4096, 131_072, 6_291_456),
            tcp_wmem: (4096, 16_384, 4_194_304),
            tcp_moderate_rcvbuf: true,
            tcp_timestamps: true,
            tcp_sack: true,
            tcp_window_scaling: true,
            tcp_ecn: 2,
            tcp_frto: 2,
            tcp_congestion_control: CongestionAlgorithm::Cubic,
            tcp_syn_retries: 6,
            tcp_synack_retries: 5,
            tcp_retries1: 3,
            tcp_retries2: 15,
            tcp_orphan_retries: 8,
            tcp_fin_timeout: Duration::from_secs(60),
            tcp_keepalive_time: Duration::from_secs(7200),
            tcp_keepalive_intvl: Duration::from_secs(75),
            tcp_keepalive_probes: 9,
            tcp_slow_start_after_idle: true,
            tcp_challenge_ack_limit: 1000,
            tcp_limit_output_bytes: 1_048_576,
            tcp_syncookies: 1,
            tcp_max_syn_backlog: 1024,
            somaxconn: 4096,
            tcp_max_tw_buckets: 65_536,
            skb_pool_max_free: 4096,
        }
    }
}
