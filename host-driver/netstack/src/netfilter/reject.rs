//! Answers to rejected packets (net/ipv4/netfilter/nf_reject_ipv4.c).

use zerocopy::{FromBytes, IntoBytes};

use super::packet::{IpView, NfProto};
use super::tables::RejectWith;
use crate::core::checksum::Sum;
use crate::core::dst::{Ipcm, PmtuDisc};
use crate::core::skb::SkBuff;
use crate::stack::Stack;
use crate::wire::icmp::{ICMP_DEST_UNREACH, ICMP_HOST_UNREACH, ICMP_PKT_FILTERED, ICMP_PORT_UNREACH};
use crate::wire::icmpv6::{
    ICMPV6_ADDR_UNREACH, ICMPV6_ADM_PROHIBITED, ICMPV6_DEST_UNREACH, ICMPV6_PORT_UNREACH,
};
use crate::wire::ipv4::IPPROTO_TCP;
use crate::wire::tcp::{TCP_CHECK_OFFSET, TCP_HLEN, TcpFlags, TcpHdr};

impl Stack {
    /// Tells the sender of a packet that was rejected.
    pub(super) fn nf_reject(&mut self, skb: &SkBuff, with: RejectWith) {
        let Some(view) = IpView::of_skb(skb) else { return };
        if with == RejectWith::TcpReset && view.protocol == IPPROTO_TCP {
            self.nf_send_reset(skb, &view);
            return;
        }
        match view.family() {
            NfProto::Ipv4 => {
                let code = match with {
                    RejectWith::PortUnreachable | RejectWith::TcpReset => ICMP_PORT_UNREACH,
                    RejectWith::HostUnreachable => ICMP_HOST_UNREACH,
                    RejectWith::AdminProhibited => ICMP_PKT_FILTERED,
                };
                self.icmp_send(skb, ICMP_DEST_UNREACH, code, [0, 0]);
            }
            NfProto::Ipv6 => {
                let code = match with {
                    RejectWith::PortUnreachable | RejectWith::TcpReset => ICMPV6_PORT_UNREACH,
                    RejectWith::HostUnreachable => ICMPV6_ADDR_UNREACH,
                    RejectWith::AdminProhibited => ICMPV6_ADM_PROHIBITED,
                };
                self.icmpv6_send(skb, ICMPV6_DEST_UNREACH, code, 0);
            }
        }
    }

    /// A reset as if it came from where the segment was going (RFC 9293 section 3.10.7.1; `nf_send_reset`).
    fn nf_send_reset(&mut self, skb: &SkBuff, view: &IpView) {
        // The payload may be in other pieces.
        let l4 = skb.data().get(view.l4..).unwrap_or(&[]);
        let Ok((th, _)) = TcpHdr::ref_from_prefix(l4) else {
            return;
        };
        // No reset answers a reset, and nothing answers what is not whole.
        if view.is_fragment || th.flags().contains(TcpFlags::RST) {
            return;
        }
        let ends = TcpFlags::SYN | TcpFlags::FIN;
        let payload = view.len.saturating_sub(view.l4 + th.header_len());
        let len = payload as u32 + (th.flags() & ends).bits().count_ones();
        let mut rst = TcpHdr::new(th.dest.get(), th.source.get(), TcpFlags::RST, 0);
        if th.flags().contains(TcpFlags::ACK) {
            rst.seq = th.ack_seq;
        } else {
            rst.set_flags(TcpFlags::RST | TcpFlags::ACK);
            rst.ack_seq = th.seq.get().wrapping_add(len).into();
        }
        let Ok(dst) = self.route_output(view.saddr, None, None) else {
            return;
        };
        let Some(dst) = dst.with_saddr(view.daddr) else {
            return;
        };
        let pseudo = Sum::ZERO.add_pseudo_header(view.daddr, view.saddr, IPPROTO_TCP, TCP_HLEN as u16);
        rst.check = pseudo.folded().into();
        let Some(mut answer) = self.alloc_ip_skb(TCP_HLEN) else {
            return;
        };
        if answer.put_slice(rst.as_bytes()).is_err() {
            return self.pool.recycle(answer);
        }
        answer.set_checksum_partial(TCP_CHECK_OFFSET);
        let ipc = Ipcm {
            protocol: IPPROTO_TCP,
            ttl: self.config.ip_default_ttl,
            tos: 0,
            pmtudisc: PmtuDisc::Do,
            looped: false,
        };
        // What goes wrong is counted where it does.
        let _ = self.dst_send(answer, &dst, ipc);
    }
}
