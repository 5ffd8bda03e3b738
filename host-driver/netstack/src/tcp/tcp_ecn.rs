//! Explicit congestion notification (RFC 3168; include/net/tcp_ecn.h).
//!
//! Routers mark packets instead of dropping them. What they mark, the receiver echoes with ECE on all it sends, until
//! the sender tells with CWR that it has reduced its window.

use bitflags::bitflags;

use super::sock::{Segment, TcpSock, TcpState};
use super::*;
use crate::wire::tcp::TcpFlags;

/// The ECN field of an IP header (RFC 3168 section 5).
pub(crate) const INET_ECN_MASK: u8 = 3;
/// Of a transport that knows ECN.
const INET_ECN_ECT_0: u8 = 2;
/// Congestion was met.
const INET_ECN_CE: u8 = 3;

/// Control bits of a SYN that offers ECN.
const TCPHDR_SYN_ECN: TcpFlags = TcpFlags::ECE.union(TcpFlags::CWR);

bitflags! {
    /// State of ECN of one connection (`tp->ecn_flags`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub(crate) struct EcnFlags: u8 {
        /// It was offered or agreed on (`TCP_ECN_OK`).
        const OK = 1;
        /// The window was reduced: the next new data tells the peer (`TCP_ECN_QUEUE_CWR`).
        const QUEUE_CWR = 2;
        /// Congestion was met on the way here: the peer must be told (`TCP_ECN_DEMAND_CWR`).
        const DEMAND_CWR = 4;
        /// The peer's packets have come with ECN in their IP header (`TCP_ECN_SEEN`).
        const SEEN = 8;
    }
}

/// Whether to answer a SYN that offers ECN with consent (RFC 3168 section 6.1.1; `tcp_ecn_create_request`).
pub(crate) fn ecn_wanted(config: &StackConfig, syn: &Segment) -> bool {
    config.tcp_ecn > 0 && syn.flags.contains(TCPHDR_SYN_ECN) && syn.ecn == 0
}

impl TcpSock {
    /// What our SYN offers (`tcp_ecn_send_syn`).
    pub(super) fn ecn_send_syn(&mut self, config: &StackConfig) -> TcpFlags {
        if config.tcp_ecn != 1 {
            self.ecn = EcnFlags::empty();
            return TcpFlags::SYN;
        }
        self.ecn = EcnFlags::OK;
        TcpFlags::SYN | TCPHDR_SYN_ECN
    }

    /// The control bits of a segment beside those that it has anyway, and what our state is when it has left
    /// (`tcp_ecn_send`, `tcp_ecn_send_synack`).
    pub(super) fn ecn_flags(&mut self, mut flags: TcpFlags, new_data: bool) -> TcpFlags {
        let ok = self.ecn.contains(EcnFlags::OK);
        if flags.contains(TcpFlags::SYN) {
            if self.state != TcpState::SynSent {
                // Both began at once: the answer to the peer's offer.
                flags -= TcpFlags::CWR;
                flags.set(TcpFlags::ECE, ok);
            } else if self.retransmits > 0 {
                // RFC 3168 section 6.1.1.1: something on the way may drop SYNs that offer ECN.
                flags -= TCPHDR_SYN_ECN;
            }
        } else if ok {
            flags.set(TcpFlags::ECE, self.ecn.contains(EcnFlags::DEMAND_CWR));
            if new_data && self.ecn.contains(EcnFlags::QUEUE_CWR) {
                self.ecn -= EcnFlags::QUEUE_CWR;
                flags |= TcpFlags::CWR;
            }
        }
        flags
    }

    /// The ECN field of what is sent: set on new data only (RFC 3168 section 6.1.4 and 6.1.5).
    pub(super) fn ecn_field(&self, new_data: bool) -> u8 {
        let marked = new_data && self.ecn.contains(EcnFlags::OK) && self.is_synchronised();
        if marked { INET_ECN_ECT_0 } else { 0 }
    }

    /// What the peer's SYN or SYN-ACK says of our offer (`tcp_ecn_rcv_syn`, `tcp_ecn_rcv_synack`).
    pub(super) fn ecn_rcv_syn(&mut self, seg: &Segment) {
        let agreed = if seg.flags.contains(TcpFlags::ACK) {
            seg.flags & TCPHDR_SYN_ECN == TcpFlags::ECE
        } else {
            seg.flags.contains(TCPHDR_SYN_ECN)
        };
        if !agreed {
            self.ecn -= EcnFlags::OK;
        }
    }

    /// The peer has reduced its window: no need to tell it any longer (`tcp_ecn_accept_cwr`).
    pub(super) fn ecn_accept_cwr(&mut self, seg: &Segment) {
        if seg.flags.contains(TcpFlags::CWR) && self.ecn.contains(EcnFlags::OK) {
            self.ecn -= EcnFlags::DEMAND_CWR;
            // Its window may be one segment, so it waits for us.
            self.ack.now |= seg.seq != seg.end_seq;
        }
    }

    /// Looks at what the IP header of received data says (`tcp_ecn_check_ce`).
    pub(super) fn ecn_check_ce(&mut self, seg: &Segment) {
        if !self.ecn.contains(EcnFlags::OK) {
            return;
        }
        match seg.ecn {
            // A retransmission, once others came with it: a segment was lost (RFC 3168 section 6.1.5).
            0 if self.ecn.contains(EcnFlags::SEEN) => self.enter_quickack_mode(2),
            0 => {}
            INET_ECN_CE => {
                if !self.ecn.contains(EcnFlags::DEMAND_CWR) {
                    self.enter_quickack_mode(2);
                }
                self.ecn |= EcnFlags::DEMAND_CWR | EcnFlags::SEEN;
            }
            _ => self.ecn |= EcnFlags::SEEN,
        }
    }

    /// Whether the peer tells of congestion (`tcp_ecn_rcv_ecn_echo`).
    pub(super) fn ecn_rcv_echo(&self, seg: &Segment) -> bool {
        seg.flags & (TcpFlags::ECE | TcpFlags::SYN) == TcpFlags::ECE && self.ecn.contains(EcnFlags::OK)
    }

    /// The window was reduced, for whatever reason (RFC 3168 section 6.1.2; `tcp_ecn_queue_cwr`).
    pub(super) fn ecn_queue_cwr(&mut self) {
        if self.ecn.contains(EcnFlags::OK) {
            self.ecn |= EcnFlags::QUEUE_CWR;
        }
    }

    /// The reduction was undone (`tcp_ecn_withdraw_cwr`).
    pub(super) fn ecn_withdraw_cwr(&mut self) {
        self.ecn -= EcnFlags::QUEUE_CWR;
    }
}
