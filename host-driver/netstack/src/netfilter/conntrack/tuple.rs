//! What identifies one direction of a connection (`struct nf_conntrack_tuple`).

use std::fmt;
use std::net::IpAddr;

use crate::netfilter::packet::{IPPROTO_ICMPV6, IpView};
use crate::wire::ipv4::{IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP};

/// UDP-Lite, SCTP and DCCP have their ports where UDP has them.
const IPPROTO_DCCP: u8 = 33;
const IPPROTO_SCTP: u8 = 132;
const IPPROTO_UDPLITE: u8 = 136;

/// The transport's part of a [`Tuple`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TupleL4 {
    /// The protocol has nothing that tells its flows apart.
    None,
    /// Ports.
    Ports {
        /// Of the sender.
        src: u16,
        /// Of the receiver.
        dst: u16,
    },
    /// ICMP queries and replies.
    Icmp {
        /// Identifier.
        id: u16,
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
}

/// One direction of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Transport protocol.
    pub protocol: u8,
    /// Ports or their like.
    pub l4: TupleL4,
}

/// Which of two directions (`enum ip_conntrack_dir`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dir {
    /// Of the first packet.
    Original,
    /// Of the answers.
    Reply,
}

impl Dir {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
}

impl Tuple {
    /// The tuple of a packet (`nf_ct_get_tuple`); none for later fragments and packets cut short. `packet`
    /// begins with the network header that `view` is of.
    pub(crate) fn of(view: &IpView, packet: &[u8]) -> Option<Self> {
        if view.later_fragment {
            return None;
        }
        let l4 = packet.get(view.l4..)?;
        let l4 = match view.protocol {
            IPPROTO_TCP | IPPROTO_UDP | IPPROTO_DCCP | IPPROTO_SCTP | IPPROTO_UDPLITE => {
                let &[s0, s1, d0, d1] = l4.first_chunk::<4>()?;
                TupleL4::Ports {
                    src: u16::from_be_bytes([s0, s1]),
                    dst: u16::from_be_bytes([d0, d1]),
                }
            }
            _ if view.is_icmp() => {
                let &[kind, code, _, _, id0, id1, ..] = l4.first_chunk::<8>()?;
                TupleL4::Icmp {
                    id: u16::from_be_bytes([id0, id1]),
                    kind,
                    code,
                }
            }
            _ => TupleL4::None,
        };
        Some(Self {
            src: view.saddr,
            dst: view.daddr,
            protocol: view.protocol,
            l4,
        })
    }

    /// That of the answers (`nf_ct_invert_tuple`); none for ICMP messages that have no answers.
    pub fn invert(&self) -> Option<Self> {
        let l4 = match self.l4 {
            TupleL4::None => TupleL4::None,
            TupleL4::Ports { src, dst } => TupleL4::Ports { src: dst, dst: src },
            TupleL4::Icmp { id, kind, code } => TupleL4::Icmp {
                id,
                kind: invert_icmp(self.protocol, kind)?,
                code,
            },
        };
        Some(Self {
            src: self.dst,
            dst: self.src,
            protocol: self.protocol,
            l4,
        })
    }
}

/// The type that answers a type (`nf_conntrack_invert_icmp_tuple`).
const fn invert_icmp(protocol: u8, kind: u8) -> Option<u8> {
    match (protocol, kind) {
        // Echo, timestamp, information, address mask (RFC 792, RFC 950).
        (IPPROTO_ICMP, 0) => Some(8),
        (IPPROTO_ICMP, 8) => Some(0),
        (IPPROTO_ICMP, 13 | 15 | 17) => Some(kind + 1),
        (IPPROTO_ICMP, 14 | 16 | 18) => Some(kind - 1),
        // Echo (RFC 4443 section 4), node information (RFC 4620).
        (IPPROTO_ICMPV6, 128 | 139) => Some(kind + 1),
        (IPPROTO_ICMPV6, 129 | 140) => Some(kind - 1),
        _ => None,
    }
}

impl fmt::Display for Tuple {
    /// As /proc/net/nf_conntrack has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src={} dst={}", self.src, self.dst)?;
        match self.l4 {
            TupleL4::None => Ok(()),
            TupleL4::Ports { src, dst } => write!(f, " sport={src} dport={dst}"),
            TupleL4::Icmp { id, kind, code } => write!(f, " type={kind} code={code} id={id}"),
        }
    }
}

impl fmt::Debug for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proto={} {self}", self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::testing::config())]
        #[test]
        fn inverting_twice_changes_nothing(
            src in any::<[u8; 4]>(), dst in any::<[u8; 4]>(), a in any::<u16>(), b in any::<u16>(), kind in any::<u8>(),
        ) {
            let ports = TupleL4::Ports { src: a, dst: b };
            let icmp = TupleL4::Icmp { id: a, kind, code: 0 };
            for (protocol, l4) in [(IPPROTO_UDP, ports), (IPPROTO_ICMP, icmp), (IPPROTO_ICMPV6, icmp), (47, TupleL4::None)] {
                let tuple = Tuple { src: src.into(), dst: dst.into(), protocol, l4 };
                if let Some(inverse) = tuple.invert() {
                    prop_assert_eq!(inverse.invert(), Some(tuple));
                }
            }
        }
    }

    #[test]
    fn errors_have_no_answers() {
        assert_eq!(invert_icmp(IPPROTO_ICMP, 3), None);
        assert_eq!(invert_icmp(IPPROTO_ICMPV6, 1), None);
    }
}
