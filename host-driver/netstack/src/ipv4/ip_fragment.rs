//! Fragmentation and reassembly of IPv4 (RFC 791 section 3.2; net/ipv4/ip_fragment.c, `ip_do_fragment`).

use super::inet_fragment::{FragId, FragKey, Fragment, Reject};
use super::route::Rtable;
use crate::core::drop_reason::SkbDropReason;
use crate::core::netdevice::IfIndex;
use crate::core::skb::SkBuff;
use crate::errno::Errno;
use crate::stack::Stack;
use crate::wire::ethernet::EtherType;
use crate::wire::icmp::{ICMP_EXC_FRAGTIME, ICMP_TIME_EXCEEDED};
use crate::wire::ipv4::{IP_MF, IPV4_HLEN, IpHdr};

/// An option with this bit is in every fragment (RFC 791 section 3.1).
const IPOPT_COPIED: u8 = 0x80;

impl Stack {
    /// Puts the fragments of a datagram together (`ip_defrag`). Gives the datagram back when it is complete;
    /// one that is no fragment at once.
    pub(crate) fn ip_defrag(&mut self, skb: SkBuff, iif: IfIndex) -> Option<SkBuff> {
        let Some(iph) = skb.header::<IpHdr>().copied().filter(IpHdr::is_fragment) else {
            return Some(skb);
        };
        self.mib.ip.reasm_reqds += 1;
        let more = iph.frag_off.get() & IP_MF != 0;
        let header_len = iph.header_len();
        let len = skb.len().saturating_sub(header_len);
        // All fragments but the last end at a multiple of eight, and there are no empty ones.
        if len == 0 || more && !len.is_multiple_of(8) {
            self.mib.ip.reasm_fails += 1;
            self.kfree_skb(skb, SkbDropReason::FragReasm);
            return None;
        }
        let key = FragKey {
            saddr: iph.saddr().into(),
            daddr: iph.daddr().into(),
            id: u32::from(iph.id.get()),
            protocol: iph.protocol,
            iif,
        };
        let fragment = Fragment {
            skb,
            offset: iph.fragment_offset(),
            len,
            payload_at: header_len,
            header_len,
            more,
            ecn: iph.tos & 3,
        };
        match self.frags.insert(key, fragment, self.now) {
            Ok(None) => None,
            Ok(Some(id)) => self.ip_frag_reasm(id),
            Err((skb, reject)) => {
                self.mib.ip.reasm_fails += u64::from(reject != Reject::Duplicate);
                self.inet_frag_reject(skb, reject);
                None
            }
        }
    }

    fn ip_frag_reasm(&mut self, id: FragId) -> Option<SkBuff> {
        let Some((mut skb, ecn)) = self.inet_frag_reasm(id) else {
            self.mib.ip.reasm_fails += 1;
            return None;
        };
        // The first fragment may have more options than the last, which told the length.
        let Ok(len) = u16::try_from(skb.len()) else {
            self.mib.ip.reasm_fails += 1;
            self.kfree_skb(skb, SkbDropReason::PktTooBig);
            return None;
        };
        if let Some(iph) = skb.header_mut::<IpHdr>() {
            iph.tot_len = len.into();
            iph.frag_off = 0.into();
            iph.tos = iph.tos & !3 | ecn;
            let header_len = iph.header_len();
            ip_send_check(&mut skb, header_len);
        }
        self.mib.ip.reasm_oks += 1;
        Some(skb)
    }

    /// RFC 792, RFC 1122 section 3.3.2: the sender is told, if the first fragment came (`ip_expire`).
    pub(crate) fn ip_expire(&mut self, id: FragId) {
        self.mib.ip.reasm_fails += 1;
        self.mib.ip.reasm_timeout += 1;
        let Some(mut quote) = self.frags.first(id).and_then(|f| self.pool.copy(&f.skb)) else {
            return;
        };
        quote.reset_network_header();
        self.icmp_send(&quote, ICMP_TIME_EXCEEDED, ICMP_EXC_FRAGTIME, [0, 0]);
        self.pool.recycle(quote);
    }

    /// Sends a datagram in fragments that the path takes (`ip_do_fragment`).
    ///
    /// # Errors
    /// [`Errno::MsgSize`] if the path takes nothing at all, otherwise of the first fragment that failed.
    pub(super) fn ip_do_fragment(&mut self, mut skb: SkBuff, rt: &Rtable) -> Result<(), Errno> {
        let Some(iph) = skb.header::<IpHdr>().copied() else {
            self.kfree_skb(skb, SkbDropReason::IpInHdr);
            return Err(Errno::Inval);
        };
        let header_len = iph.header_len();
        let room = rt.mtu.saturating_sub(header_len) & !7;
        // The fragments share the checksum of the whole.
        if room == 0 || skb.len() <= header_len || skb.checksum_help().is_err() {
            self.mib.ip.frag_fails += 1;
            self.kfree_skb(skb, SkbDropReason::PktTooBig);
            return Err(Errno::MsgSize);
        }
        // What was merged goes as one: its segments would each need fragments of their own.
        skb.set_gso(None);
        let payload_len = skb.len() - header_len;
        // A fragment may be fragmented again.
        let (first_offset, last_more) = (iph.fragment_offset(), iph.frag_off.get() & IP_MF);
        let mut result = Ok(());
        for at in (0..payload_len).step_by(room) {
            let len = room.min(payload_len - at);
            let more = if at + len < payload_len { IP_MF } else { last_more };
            let Some(mut fragment) = self.ip_make_fragment(&skb, header_len, at, len) else {
                result = Err(Errno::NoBufs);
                break;
            };
            if let Some(h) = fragment.header_mut::<IpHdr>() {
                h.tot_len = ((header_len + len) as u16).into();
                h.frag_off = (((first_offset + at) / 8) as u16 | more).into();
            }
            if at > 0 {
                ip_options_fragment(
                    fragment
                        .data_mut()
                        .get_mut(IPV4_HLEN..header_len)
                        .unwrap_or(&mut []),
                );
            }
            ip_send_check(&mut fragment, header_len);
            self.mib.ip.frag_creates += 1;
            result = self.ip_finish_output2(fragment, rt);
            if result.is_err() {
                break;
            }
        }
        match result {
            Ok(()) => {
                self.mib.ip.frag_oks += 1;
                self.pool.recycle(skb);
            }
            Err(_) => {
                self.mib.ip.frag_fails += 1;
                self.kfree_skb(skb, SkbDropReason::PktTooBig);
            }
        }
        result
    }

    /// A packet with the header and a part of the payload of another.
    fn ip_make_fragment(&mut self, skb: &SkBuff, header_len: usize, at: usize, len: usize) -> Option<SkBuff> {
        let header = skb.data().get(..header_len)?;
        let mut fragment = self.alloc_ip_skb(header_len + len)?;
        fragment.put_slice(header).ok()?;
        skb.copy_bits(header_len + at, fragment.put(len).ok()?);
        fragment.set_dev(skb.dev()?);
        fragment.set_protocol(EtherType::IPV4);
        fragment.set_priority(skb.priority());
        fragment.reset_network_header();
        fragment.share_owner_w(skb);
        Some(fragment)
    }
}

/// The checksum of a header with options (`ip_send_check`).
pub(super) fn ip_send_check(skb: &mut SkBuff, header_len: usize) {
    let Some(iph) = skb.header_mut::<IpHdr>() else {
        return;
    };
    iph.check = 0.into();
    let sum = crate::core::checksum::checksum(skb.data().get(..header_len).unwrap_or(&[]));
    if let Some(iph) = skb.header_mut::<IpHdr>() {
        iph.check = sum.into();
    }
}

/// Leaves in a later fragment only the options that belong into every one (`ip_options_fragment`).
fn ip_options_fragment(options: &mut [u8]) {
    const IPOPT_END: u8 = 0;
    const IPOPT_NOOP: u8 = 1;
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        let len = match kind {
            IPOPT_END => return,
            IPOPT_NOOP => 1,
            _ => usize::from(options.get(at + 1).copied().unwrap_or(0)),
        };
        let Some(option) = options.get_mut(at..at + len).filter(|o| !o.is_empty()) else {
            return;
        };
        if kind & IPOPT_COPIED == 0 {
            option.fill(IPOPT_NOOP);
        }
        at += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc791_options_without_the_copied_bit_stay_in_the_first_fragment() {
        // Record route (7), then router alert (148, copied), then end.
        let mut options = [7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0, 0];
        ip_options_fragment(&mut options);
        assert_eq!(options, [1, 1, 1, 1, 1, 1, 1, 148, 4, 0, 0, 0]);
        let mut broken = [7, 0, 9, 9];
        ip_options_fragment(&mut broken);
        assert_eq!(broken, [7, 0, 9, 9]);
    }
}
