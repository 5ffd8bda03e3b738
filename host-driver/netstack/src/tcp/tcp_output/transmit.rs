//! Segments as packets: their options and their header (`__tcp_transmit_skb`).

use zerocopy::IntoBytes;

use super::{MAX_TCP_HEADER, XmitKind, tcp_pseudo};
use crate::core::skb::{Gso, SkBuff};
use crate::tcp::seq::Seq;
use crate::tcp::sock::{TcpSock, TcpState};
use crate::tcp::*;
use crate::wire::tcp::{
    MAX_TCP_OPTION_SPACE, TCP_CHECK_OFFSET, TCP_HLEN, TCPOLEN_TSTAMP_ALIGNED, TcpFlags, TcpHdr, TcpOptions,
    Timestamp,
};

impl TcpSock {
    /// An entry of the queue as one packet, with one header, that shares its payload and is cut into segments of
    /// `mss` bytes below (`__tcp_transmit_skb` with `clone_it`, `tcp_set_skb_tso_segs`).
    pub(super) fn transmit_skb(&mut self, net: &mut Net<'_>, at: usize, mss: usize) -> Option<SkBuff> {
        let entry = self.queue.get(at)?;
        let (seq, len, mut flags) = (entry.seq, entry.len(), entry.flags);
        let mut skb = net.pool.alloc(MAX_TCP_HEADER)?;
        skb.reserve(MAX_TCP_HEADER).ok()?;
        entry.payload().share_with(&mut skb).ok()?;
        if self.state != TcpState::SynSent {
            flags |= TcpFlags::ACK;
        }
        let new_data = len > 0 && !seq.before(self.snd_nxt);
        flags = self.ecn_flags(flags, new_data);
        if len > mss {
            skb.set_gso(Some(Gso {
                size: mss as u16,
                segs: len.div_ceil(mss) as u16,
                kind: self.gso_type,
            }));
        }
        self.push_header(net, skb, seq, flags)
    }

    /// A segment without payload.
    pub(super) fn pure_ack(&mut self, net: &mut Net<'_>) -> Option<(SkBuff, XmitKind)> {
        let flags = self.ecn_flags(TcpFlags::ACK, false);
        self.control(net, self.acceptable_seq(), flags)
    }

    fn control(&mut self, net: &mut Net<'_>, seq: Seq, flags: TcpFlags) -> Option<(SkBuff, XmitKind)> {
        let Some(mut skb) = net.pool.alloc(MAX_TCP_HEADER) else {
            self.ack_not_sent(net.now);
            return None;
        };
        skb.reserve(MAX_TCP_HEADER).ok()?;
        Some((self.push_header(net, skb, seq, flags)?, XmitKind::Control))
    }

    /// A reset for a connection that we give up (`tcp_send_active_reset`).
    pub(crate) fn active_reset(&mut self, net: &mut Net<'_>) -> Option<SkBuff> {
        net.mib.tcp.out_rsts += 1;
        let seq = self.acceptable_seq();
        self.control(net, seq, TcpFlags::RST | TcpFlags::ACK).map(|r| r.0)
    }

    /// Asks the peer for its window, or whether it lives (`tcp_write_wakeup`): with data if there is room,
    /// or else with a sequence number that is long acknowledged, which must be answered.
    pub(super) fn window_probe(&mut self, net: &mut Net<'_>) -> Option<(SkBuff, XmitKind)> {
        let room = self.wnd_end();
        if let Some(head) = self.queue.send_head()
            && head.seq.before(room)
        {
            let at = self.queue.sent();
            let size = (room.since(head.seq) as usize).min(self.mss_cache);
            let whole = head.len() <= size;
            self.queue.split(at, size);
            if !whole && let Some(part) = self.queue.get_mut(at) {
                part.flags |= TcpFlags::PSH;
            }
            return Some((
                self.transmit_skb(net, at, self.mss_cache)?,
                XmitKind::New(self.mss_cache),
            ));
        }
        self.control(net, self.snd_una - 1, TcpFlags::ACK)
    }

    /// The options of the next segment (`tcp_syn_options`, `tcp_established_options`).
    fn options(&mut self, net: &Net<'_>, flags: TcpFlags, payload: usize) -> TcpOptions {
        let mut opt = TcpOptions::default();
        let now = self.tcp_time_stamp_ts(net.now);
        let ts = Timestamp {
            val: now,
            ecr: self.rx_opt.ts_recent,
        };
        if flags.contains(TcpFlags::SYN) {
            // What we offer, or of the peer's offer what we take.
            let active = self.state == TcpState::SynSent;
            opt.mss = Some(self.advmss);
            opt.sack_ok = if active {
                net.config.tcp_sack
            } else {
                self.rx_opt.sack_ok
            };
            let scaling = if active {
                net.config.tcp_window_scaling
            } else {
                self.rx_opt.wscale_ok
            };
            opt.wscale = scaling.then_some(self.rx_opt.rcv_wscale);
            let timestamps = if active {
                net.config.tcp_timestamps
            } else {
                self.rx_opt.tstamp_ok
            };
            opt.ts = timestamps.then_some(ts);
            return opt;
        }
        opt.ts = self.rx_opt.tstamp_ok.then_some(ts);
        if self.selective_acks.is_empty() && self.dsack.is_none() {
            return opt;
        }
        let room = if payload == 0 {
            MAX_TCP_OPTION_SPACE
        } else {
            let ts = if self.rx_opt.tstamp_ok {
                TCPOLEN_TSTAMP_ALIGNED
            } else {
                0
            };
            (self.mss_cache + ts)
                .saturating_sub(payload)
                .min(MAX_TCP_OPTION_SPACE)
        };
        let blocks = room.saturating_sub(opt.len() + 4) / 8;
        if blocks > 0 {
            // RFC 2883 section 4: the duplicate is the first.
            if let Some(dsack) = self.dsack.take() {
                opt.sacks.push(dsack);
            }
            for block in self.selective_acks.as_slice() {
                opt.sacks.push(*block);
            }
            opt.sacks.truncate(blocks);
        }
        opt
    }

    /// Puts the header in front of the payload.
    fn push_header(
        &mut self,
        net: &mut Net<'_>,
        mut skb: SkBuff,
        seq: Seq,
        flags: TcpFlags,
    ) -> Option<SkBuff> {
        let opt = self.options(net, flags, skb.len());
        let mut options = [0; MAX_TCP_OPTION_SPACE];
        let options = {
            let len = opt.emit(&mut options);
            options.get(..len)?
        };
        let mut th = TcpHdr::new(self.local.port(), self.peer.port(), flags, options.len());
        th.seq = seq.0.into();
        if flags.contains(TcpFlags::ACK) {
            th.ack_seq = self.rcv_nxt.0.into();
        }
        th.window = if flags.contains(TcpFlags::SYN) {
            // RFC 7323 section 2.2: never scaled on a SYN.
            (self.rcv_wnd.min(0xffff) as u16).into()
        } else {
            self.select_window().into()
        };
        let len = skb.len() + TCP_HLEN + options.len();
        // The device or `checksum_help` adds the rest, as it does for each segment of a GSO packet.
        th.check = tcp_pseudo(self.local.ip(), self.peer.ip(), len).folded().into();
        let room = skb.push(TCP_HLEN + options.len()).ok()?;
        let (fixed, rest) = room.split_at_mut_checked(TCP_HLEN)?;
        fixed.copy_from_slice(th.as_bytes());
        rest.copy_from_slice(options);
        skb.set_checksum_partial(TCP_CHECK_OFFSET);
        skb.set_priority(self.opts.priority.unwrap_or(0));
        skb.set_mark(self.opts.mark);
        skb.set_owner_w(self.sock.wmem.charge(skb.truesize()));
        if flags.contains(TcpFlags::ACK) {
            self.event_ack_sent();
        }
        Some(skb)
    }
}
