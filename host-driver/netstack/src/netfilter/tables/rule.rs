//! Rules: what they match and what they do (include/linux/netfilter/x_tables.h).

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use bitflags::bitflags;
use thiserror::Error;

use super::ChainId;
use crate::core::netdevice::IfIndex;
use crate::core::skb::{PktType, SkBuff};
use crate::netfilter::conntrack::{Counter, CtState, NfCt};
use crate::netfilter::core::NfHookState;
use crate::netfilter::nat::NatRange;
use crate::netfilter::packet::{IpView, NfProto};
use crate::wire::ipv4::{IPPROTO_TCP, IPPROTO_UDP};
use crate::wire::tcp::{TcpFlags, TcpHdr};
use zerocopy::FromBytes;

/// A network of either family, such as `10.0.0.0/8`, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

/// Text that is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a network address with a prefix length")]
pub struct PrefixError;

impl Prefix {
    /// The network of `len` bits that `addr` is in.
    ///
    /// # Errors
    /// [`PrefixError`] if the length is over 32 or 128.
    pub const fn new(addr: IpAddr, len: u8) -> Result<Self, PrefixError> {
        let max = match addr {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        if len > max {
            return Err(PrefixError);
        }
        Ok(Self { addr, len })
    }

    /// Whether an address is in it; never one of the other family.
    pub fn contains(&self, addr: &IpAddr) -> bool {
        let different = match (self.addr, addr) {
            (IpAddr::V4(a), IpAddr::V4(b)) => u128::from(a.to_bits() ^ b.to_bits()) << 96,
            (IpAddr::V6(a), IpAddr::V6(b)) => a.to_bits() ^ b.to_bits(),
            _ => return false,
        };
        different.leading_zeros() >= u32::from(self.len)
    }
}

impl From<IpAddr> for Prefix {
    fn from(addr: IpAddr) -> Self {
        Self {
            addr,
            len: if addr.is_ipv4() { 32 } else { 128 },
        }
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(s: &str) -> Result<Self, PrefixError> {
        match s.split_once('/') {
            Some((addr, len)) => Self::new(
                addr.parse().map_err(|_| PrefixError)?,
                len.parse().map_err(|_| PrefixError)?,
            ),
            None => s.parse::<IpAddr>().map(Self::from).map_err(|_| PrefixError),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

bitflags! {
    /// States of a packet in connection tracking (`-m conntrack --ctstate`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct CtStates: u8 {
        /// It fits no connection and begins none.
        const INVALID = 1 << 0;
        /// Of a connection that has been answered.
        const ESTABLISHED = 1 << 1;
        /// An error about a connection.
        const RELATED = 1 << 2;
        /// It begins a connection.
        const NEW = 1 << 3;
        /// Not tracked.
        const UNTRACKED = 1 << 6;
    }
}

/// One condition of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// The family.
    Family(NfProto),
    /// Source network (`-s`).
    Source(Prefix),
    /// Destination network (`-d`).
    Destination(Prefix),
    /// Interface that the packet came by (`-i`).
    InInterface(IfIndex),
    /// Interface that it leaves by (`-o`).
    OutInterface(IfIndex),
    /// Transport protocol (`-p`).
    Protocol(u8),
    /// Source ports of TCP or UDP (`--sport`).
    SourcePorts(RangeInclusive<u16>),
    /// Destination ports of TCP or UDP (`--dport`).
    DestinationPorts(RangeInclusive<u16>),
    /// ICMP or ICMPv6 type, and code if given (`--icmp-type`).
    IcmpType {
        /// Type.
        kind: u8,
        /// Code; any if `None`.
        code: Option<u8>,
    },
    /// Of the TCP flags in `mask` exactly those in `set` (`--tcp-flags`).
    TcpFlags {
        /// Those that are looked at.
        mask: TcpFlags,
        /// Those of them that must be set.
        set: TcpFlags,
    },
    /// State in connection tracking; asks for tracking.
    CtState(CtStates),
    /// The bits of the mark under the mask.
    Mark {
        /// Wanted value.
        value: u32,
        /// Bits that are looked at.
        mask: u32,
    },
    /// Whom the link-layer frame was for (`-m pkttype`).
    PktType(PktType),
    /// Fragments but the first (`-f`).
    Fragment,
}

impl Match {
    fn matches(&self, skb: &SkBuff, view: &IpView, state: &NfHookState) -> bool {
        let ports = || {
            let has_ports = matches!(view.protocol, IPPROTO_TCP | IPPROTO_UDP) && !view.later_fragment;
            let l4 = skb.data().get(view.l4..).filter(|_| has_ports)?;
            l4.first_chunk::<4>()
                .map(|&[a, b, c, d]| (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
        };
        match self {
            Self::Family(pf) => view.family() == *pf,
            Self::Source(net) => net.contains(&view.saddr),
            Self::Destination(net) => net.contains(&view.daddr),
            Self::InInterface(dev) => state.iif == Some(*dev),
            Self::OutInterface(dev) => state.oif == Some(*dev),
            Self::Protocol(protocol) => view.protocol == *protocol,
            Self::SourcePorts(range) => ports().is_some_and(|p| range.contains(&p.0)),
            Self::DestinationPorts(range) => ports().is_some_and(|p| range.contains(&p.1)),
            Self::IcmpType { kind, code } => {
                let icmp = view.is_icmp() && !view.later_fragment;
                let header = skb.data().get(view.l4..).filter(|_| icmp);
                header
                    .and_then(|h| h.first_chunk::<2>())
                    .is_some_and(|h| h[0] == *kind && code.is_none_or(|c| c == h[1]))
            }
            Self::TcpFlags { mask, set } => {
                let tcp = view.protocol == IPPROTO_TCP && !view.later_fragment;
                let l4 = skb.data().get(view.l4..).filter(|_| tcp).unwrap_or(&[]);
                TcpHdr::ref_from_prefix(l4).is_ok_and(|(h, _)| h.flags() & *mask == *set)
            }
            Self::CtState(states) => states.intersects(match skb.nfct() {
                None => CtStates::INVALID,
                Some(NfCt::Untracked) => CtStates::UNTRACKED,
                Some(NfCt::Tracked { state, .. }) => match state {
                    CtState::New => CtStates::NEW,
                    CtState::Established => CtStates::ESTABLISHED,
                    CtState::Related => CtStates::RELATED,
                },
            }),
            Self::Mark { value, mask } => skb.mark() & mask == *value,
            Self::PktType(pkt_type) => skb.pkt_type() == *pkt_type,
            Self::Fragment => view.later_fragment,
        }
    }
}

/// How a rejected packet is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectWith {
    /// ICMP port unreachable (RFC 792, RFC 4443).
    PortUnreachable,
    /// ICMP host unreachable; in IPv6 address unreachable.
    HostUnreachable,
    /// ICMP administratively prohibited (RFC 1812 section 5.2.7.1).
    AdminProhibited,
    /// A TCP reset; what is not TCP is answered as with [`RejectWith::PortUnreachable`].
    TcpReset,
}

/// What a rule does with a packet that it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The packet passes this table.
    Accept,
    /// The packet is gone.
    Drop,
    /// The packet is gone and its sender is told.
    Reject(RejectWith),
    /// Another destination; only in the nat table, PREROUTING and OUTPUT.
    Dnat(NatRange),
    /// Another source; only in the nat table, POSTROUTING and INPUT.
    Snat(NatRange),
    /// The source becomes the address of the interface that the packet leaves by; only in the nat table,
    /// POSTROUTING.
    Masquerade(Option<RangeInclusive<u16>>),
    /// The destination becomes this host; only in the nat table, PREROUTING and OUTPUT.
    Redirect(Option<RangeInclusive<u16>>),
    /// No connection tracking; only in the raw table.
    NoTrack,
    /// Changes the bits of the mark under the mask, and goes on; only in the mangle table.
    Mark {
        /// New value of the bits.
        value: u32,
        /// Bits that change.
        mask: u32,
    },
    /// Tells a `tracing` subscriber and goes on; with no subscriber it only counts.
    Log(Box<str>),
    /// Goes on in a chain of the user's, and comes back from its end.
    Jump(ChainId),
    /// Back to the rule behind the jump; in a base chain to its policy.
    Return,
}

impl Target {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Accept => "ACCEPT",
            Self::Drop => "DROP",
            Self::Reject(_) => "REJECT",
            Self::Dnat(_) => "DNAT",
            Self::Snat(_) => "SNAT",
            Self::Masquerade(_) => "MASQUERADE",
            Self::Redirect(_) => "REDIRECT",
            Self::NoTrack => "NOTRACK",
            Self::Mark { .. } => "MARK",
            Self::Log(_) => "LOG",
            Self::Jump(_) => "JUMP",
            Self::Return => "RETURN",
        }
    }
}

/// A rule: all conditions, one target, counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Conditions, each with whether it must hold.
    matches: Vec<(bool, Match)>,
    target: Target,
    pub(super) counter: Counter,
}

impl Rule {
    /// A rule that matches every packet.
    pub fn new(target: Target) -> Self {
        Self {
            matches: Vec::new(),
            target,
            counter: Counter::default(),
        }
    }

    /// The condition must hold too.
    #[must_use]
    pub fn when(mut self, condition: Match) -> Self {
        self.matches.push((true, condition));
        self
    }

    /// The condition must not hold (`!`).
    #[must_use]
    pub fn unless(mut self, condition: Match) -> Self {
        self.matches.push((false, condition));
        self
    }

    /// What it does.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The conditions, each with whether it must hold or must not.
    pub fn matches(&self) -> impl Iterator<Item = (bool, &Match)> + '_ {
        self.matches.iter().map(|(holds, m)| (*holds, m))
    }

    /// Packets and bytes that it matched.
    pub fn counter(&self) -> Counter {
        self.counter
    }

    pub(crate) fn needs_conntrack(&self) -> bool {
        self.matches.iter().any(|(_, m)| matches!(m, Match::CtState(_)))
    }

    pub(super) fn applies(&self, skb: &SkBuff, view: &IpView, state: &NfHookState) -> bool {
        self.matches
            .iter()
            .all(|(holds, m)| m.matches(skb, view, state) == *holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn networks_are_read_and_bounded() {
        let net: Prefix = "10.1.0.0/16".parse().unwrap();
        assert!(
            net.contains(&"10.1.255.255".parse().unwrap()) && !net.contains(&"10.2.0.0".parse().unwrap())
        );
        assert!(
            !net.contains(&"::ffff:10.1.0.1".parse().unwrap()),
            "another family"
        );
        assert!(
            "0.0.0.0/0"
                .parse::<Prefix>()
                .unwrap()
                .contains(&"255.1.2.3".parse().unwrap())
        );
        assert_eq!("::1".parse::<Prefix>().unwrap().to_string(), "::1/128");
        for bad in ["10.0.0.0/33", "::/129", "x/3", "1.2.3.4/"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }

    proptest! {
        #![proptest_config(crate::testing::config())]
        #[test]
        fn a_network_is_its_first_bits(a in any::<u128>(), b in any::<u128>(), keep in 0u8..=128, len in 0u8..=128) {
            // `b` shares its first `keep` bits with `a`.
            let mask = if keep == 0 { 0 } else { u128::MAX << (128 - keep) };
            let b = a & mask | b & !mask;
            let net = Prefix::new(IpAddr::V6(a.into()), len).unwrap();
            let same = len == 0 || a >> (128 - len) == b >> (128 - len);
            prop_assert_eq!(net.contains(&IpAddr::V6(b.into())), same);
        }
    }
}
