//! Settings, with the names and defaults of Linux's sysctls.

use std::time::Duration;

use crate::core::neighbour::NeighParms;

/// Settings of a [`Stack`](crate::Stack).
#[derive(Debug, Clone)]
pub struct StackConfig {
    /// Time to live of what we send (net.ipv4.ip_default_ttl).
    pub ip_default_ttl: u8,
    /// Forward between interfaces; the setting of interfaces added later (net.ipv4.ip_forward).
    pub ip_forward: bool,
    /// No IPv6 on interfaces added later, until [`Stack::enable_ipv6`](crate::Stack::enable_ipv6)
    /// (net.ipv6.conf.default.disable_ipv6).
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
    /// Packets that the receive backlog holds (net.core.netdev_max_backlog).
    pub netdev_max_backlog: usize,
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
    /// Free buffers of 2 KiB that the pool keeps.
    pub skb_pool_max_free: usize,
}

impl Default for StackConfig {
    fn default() -> Self {
        Self {
            ip_default_ttl: 64,
            ip_forward: false,
            disable_ipv6: true,
            ipv6_forwarding: false,
            ip_no_pmtu_disc: false,
            ip_min_pmtu: 552,
            ip_mtu_expires: Duration::from_secs(600),
            ipfrag_high_thresh: 4 << 20,
            ipfrag_time: Duration::from_secs(30),
            ip_local_port_range: (32_768, 60_999),
            rmem_default: 212_992,
            wmem_default: 212_992,
            netdev_max_backlog: 1000,
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
            skb_pool_max_free: 4096,
        }
    }
}
