//! Generic receive offload (net/core/gro.c): segments of one TCP flow that come in a row become one packet,
//! so that the layers above do their work once.
//!
//! Segments are merged exactly when cutting the packet again gives back the frames, bit for bit
//! (net/ipv4/tcp_offload.c, `tcp_gro_receive`; the rules are at [`Segment::continues`]). Within a flow nothing
//! overtakes: what cannot be merged makes its flow's packet leave first.
//!
//! A driver that polls gives each receive queue's frames to [`Stack::napi_gro_receive`], and ends its poll with
//! [`Stack::napi_gro_flush`]: nothing is held while its queue's interrupt is on.

mod predict;
mod segment;

use std::time::Duration;

use super::checksum::Sum;
use super::drop_reason::SkbDropReason;
use super::netdevice::IfIndex;
use super::skb::{Gso, PktType, SkBuff};
use super::time::Instant;
use super::trace::Stage;
use crate::stack::Stack;
use crate::wire::ethernet::ETH_HLEN;
use crate::wire::ipv6::IPV6_HLEN;
use crate::wire::tcp::{MAX_TCP_OPTION_SPACE, TCP_HLEN};
use segment::{Class, FlowKey, Next, Segment};

/// Lists of held packets in one context (`GRO_HASH_BUCKETS`).
const GRO_HASH_BUCKETS: usize = 8;
/// Packets held in one list (`MAX_GRO_SKBS`).
const MAX_GRO_SKBS: usize = 8;
/// Largest packet that is made, IP header included.
const GRO_MAX_SIZE: usize = 65_535;
/// The clock's tick by which held packets grow old (`HZ` of 1000).
const JIFFY: Duration = Duration::from_millis(1);

/// What is to be flushed (`napi_gro_flush`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroFlush {
    /// Everything: the poll is over.
    All,
    /// What was held before this tick of a millisecond: the poll goes on, or a timer will end it.
    Old,
}

/// Counters of one receive queue's context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroStats {
    /// Frames that were looked at.
    pub received: u64,
    /// Frames that were merged into a packet that was held.
    pub merged: u64,
    /// Packets of more than one frame that went up.
    pub packets: u64,
    /// Frames in them.
    pub segments: u64,
    /// Held packets that left because another flow needed the place.
    pub evicted: u64,
}

/// A packet that waits for more of its flow (`struct napi_gro_cb`).
struct Held {
    skb: SkBuff,
    /// As the packet's, closer at hand.
    pkt_type: PktType,
    key: FlowKey,
    head: Segment,
    pseudo: Sum,
    /// The first segment's headers from the link layer on, as far as they fit.
    headers: Headers,
    /// Sequence number of what would continue it.
    next_seq: u32,
    /// Bytes from the network header on.
    len: usize,
    count: u16,
    ids: Ids,
    since: u64,
}

/// Room for the headers of TCP over IPv6 with all options, or of what is shorter.
type Headers = [u8; ETH_HLEN + IPV6_HLEN + TCP_HLEN + MAX_TCP_OPTION_SPACE];

bitflags::bitflags! {
    /// How the identifications of IPv4 may run, as far as the segments tell (`NAPI_GRO_CB(skb)->is_atomic`). Those of IPv6,
    /// which has none, are always zero.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Ids: u8 {
        /// One more each time.
        const COUNTING = 1;
        /// Always the same, which DF allows (RFC 6864 section 4.1).
        const FIXED = 2;
    }
}

/// The context of one receive queue (the part of `struct napi_struct` that is GRO's).
#[derive(Default)]
pub(crate) struct NapiGro {
    buckets: [Vec<Held>; GRO_HASH_BUCKETS],
    held: usize,
    /// Where the last frame went: its flow's next will mostly be the next frame.
    recent: (usize, usize),
    stats: GroStats,
}

/// What became of a frame.
enum Gro {
    /// It is part of a held packet.
    Held,
    /// This goes up now.
    Deliver(SkBuff),
    /// This goes up first; then the frame is to be tried again.
    Before { held: SkBuff, skb: SkBuff },
}

impl NapiGro {
    /// Takes a frame that starts at its link-layer header, if it is plainly the next of the flow of the one before; the
    /// packet that it completes.
    #[inline(always)]
    fn receive_next(&mut self, mut skb: SkBuff) -> Result<Option<SkBuff>, SkBuff> {
        let (bucket, at) = self.recent;
        let Some(held) = self.buckets[bucket].get_mut(at) else {
            return Err(skb);
        };
        let Some(next) = predict::predicted(&mut skb, held) else {
            return Err(skb);
        };
        self.stats.received += 1;
        self.stats.merged += 1;
        Ok(held.merge(skb, next).then(|| self.remove(bucket, at)))
    }

    /// Takes a frame that starts at its network header (`dev_gro_receive`).
    fn receive(&mut self, mut skb: SkBuff, now: Instant) -> Gro {
        match segment::classify(&mut skb) {
            Class::Other => Gro::Deliver(skb),
            // A fragment, or what IP options hide: any flow between the two may be its own.
            Class::Hosts(saddr, daddr) => match self.take(|h| h.key.is_between(saddr, daddr)) {
                Some(held) => Gro::Before { held, skb },
                None => Gro::Deliver(skb),
            },
            Class::Unmergeable(key) => match self.take_in(key.bucket(), |h| h.key == key) {
                Some(held) => Gro::Before { held, skb },
                None => Gro::Deliver(skb),
            },
            Class::Segment(key, segment) => self.segment(skb, key, segment, now),
        }
    }

    fn segment(&mut self, skb: SkBuff, key: FlowKey, segment: Segment, now: Instant) -> Gro {
        let bucket = &mut self.buckets[key.bucket()];
        if let Some(at) = bucket.iter().position(|h| h.key == key) {
            let Some(next) = segment.continues(&skb, &bucket[at]) else {
                return self.remove_before(key, at, skb);
            };
            self.stats.merged += 1;
            self.recent = (key.bucket(), at);
            if bucket[at].merge(skb, next) {
                return Gro::Deliver(self.remove(key.bucket(), at));
            }
            return Gro::Held;
        }
        let Some(frame) = skb.mac_header().filter(|_| !segment.closes()) else {
            return Gro::Deliver(skb);
        };
        let mut headers = [0; size_of::<Headers>()];
        headers
            .iter_mut()
            .zip(frame)
            .for_each(|(held, byte)| *held = *byte);
        if bucket.len() >= MAX_GRO_SKBS {
            // The oldest makes room (`gro_flush_oldest`).
            self.stats.evicted += 1;
            return self.remove_before(key, 0, skb);
        }
        bucket.push(Held {
            next_seq: segment.seq.wrapping_add(segment.len as u32),
            len: skb.len(),
            pkt_type: skb.pkt_type(),
            skb,
            key,
            pseudo: key.pseudo(),
            headers,
            count: 1,
            ids: if segment.dont_fragment {
                Ids::all()
            } else {
                Ids::COUNTING
            },
            head: segment,
            since: jiffies(now),
        });
        self.held += 1;
        self.recent = (key.bucket(), bucket.len() - 1);
        Gro::Held
    }

    fn remove_before(&mut self, key: FlowKey, at: usize, skb: SkBuff) -> Gro {
        let held = self.remove(key.bucket(), at);
        Gro::Before { held, skb }
    }

    fn remove(&mut self, bucket: usize, at: usize) -> SkBuff {
        self.held -= 1;
        let held = self.buckets[bucket].remove(at);
        if held.count > 1 {
            self.stats.packets += 1;
            self.stats.segments += u64::from(held.count);
        }
        held.complete()
    }

    fn take_in(&mut self, bucket: usize, which: impl Fn(&Held) -> bool) -> Option<SkBuff> {
        let at = self.buckets.get(bucket)?.iter().position(which)?;
        Some(self.remove(bucket, at))
    }

    fn take(&mut self, which: impl Fn(&Held) -> bool) -> Option<SkBuff> {
        if self.held == 0 {
            return None;
        }
        (0..GRO_HASH_BUCKETS).find_map(|bucket| self.take_in(bucket, &which))
    }

    fn flush_one(&mut self, flush: GroFlush, now: Instant) -> Option<SkBuff> {
        let tick = jiffies(now);
        self.take(|h| flush == GroFlush::All || h.since != tick)
    }
}

fn jiffies(now: Instant) -> u64 {
    now.as_nanos() / JIFFY.as_nanos() as u64
}

impl Held {
    /// Whether the packet can grow by so much.
    #[inline]
    fn has_room(&self, len: usize) -> bool {
        self.len + len <= GRO_MAX_SIZE
    }

    /// How the identifications run if this is the next; None if not at all.
    #[inline(always)]
    fn ids_with(&self, id: u16) -> Option<Ids> {
        let (counting, fixed) = (self.head.id.wrapping_add(self.count), self.head.id);
        let mut ids = self.ids;
        ids.set(Ids::COUNTING, id == counting && ids.contains(Ids::COUNTING));
        ids.set(Ids::FIXED, id == fixed && ids.contains(Ids::FIXED));
        (!ids.is_empty()).then_some(ids)
    }

    /// Appends the payload of a segment, which is all of one buffer's end (`skb_gro_receive`). Whether it is the last.
    #[inline(always)]
    fn merge(&mut self, mut skb: SkBuff, next: Next) -> bool {
        // It is all there.
        let _ = skb.pull(skb.headlen() - next.len);
        self.skb.push_frag(skb);
        self.len += next.len;
        self.next_seq = self.next_seq.wrapping_add(next.len as u32);
        self.count += 1;
        self.ids = next.ids;
        // A shorter one, or one with PSH or FIN.
        let last = next.closes() || next.len < self.head.len;
        if last {
            self.head.add_flags(&mut self.skb, next.flags);
        }
        last
    }

    /// The packet, with headers that fit all of it (`napi_gro_complete`, `tcp_gro_complete`).
    fn complete(self) -> SkBuff {
        let Self {
            mut skb,
            head,
            count,
            ids,
            len,
            ..
        } = self;
        if count > 1 {
            head.complete(&mut skb, len);
            skb.set_gso(Some(Gso {
                size: head.len as u16,
                segs: count,
                kind: head.gso_type(ids),
            }));
        }
        skb
    }
}

impl Stack {
    /// A frame from a driver's poll of a receive queue ([`SkBuff::record_rx_queue`]), Ethernet header first
    /// and FCS stripped (`napi_gro_receive`). It may be held to be merged with what follows, until
    /// [`Stack::napi_gro_flush`].
    pub fn napi_gro_receive(&mut self, ifindex: IfIndex, mut skb: SkBuff, now: Instant) {
        self.set_now(now);
        let queue = skb.rx_queue();
        if super::trace::enabled() {
            if skb.packet_id() == 0 {
                skb.set_packet_id(super::trace::packet_id(skb.data()));
            }
            self.trace_packet(&skb, Stage::Gro);
        }
        let Some(dev) = self.devs.get_mut(ifindex).filter(|d| d.gro() && d.is_up()) else {
            return self.receive(ifindex, skb, now);
        };
        let len = skb.len();
        match dev.napi_gro(queue).receive_next(skb) {
            Ok(packet) => {
                dev.count_received(len);
                if let Some(packet) = packet {
                    self.netif_receive_skb(ifindex, packet);
                }
            }
            Err(skb) => self.dev_gro_receive(ifindex, skb, now),
        }
    }

    /// A frame that was not expected (`dev_gro_receive`).
    #[inline(never)]
    fn dev_gro_receive(&mut self, ifindex: IfIndex, mut skb: SkBuff, now: Instant) {
        let queue = skb.rx_queue();
        skb.set_dev(ifindex);
        skb.set_tstamp(skb.tstamp().unwrap_or(now));
        let dev = self.devs.get_mut(ifindex);
        match dev.map_or(Err(SkbDropReason::DevReady), |d| d.eth_type_trans(&mut skb)) {
            Ok(()) => {}
            Err(reason) => return self.kfree_skb(skb, reason),
        }
        if let Some(dev) = self.devs.get_mut(ifindex) {
            dev.napi_gro(queue).stats.received += 1;
        }
        // Again for each held packet that has to leave before it.
        let mut next = Some(skb);
        while let Some(skb) = next.take() {
            let Some(dev) = self.devs.get_mut(ifindex) else {
                return self.kfree_skb(skb, SkbDropReason::DevReady);
            };
            match dev.napi_gro(queue).receive(skb, now) {
                Gro::Held => {}
                Gro::Deliver(skb) => self.netif_receive_skb(ifindex, skb),
                Gro::Before { held, skb } => {
                    self.netif_receive_skb(ifindex, held);
                    next = Some(skb);
                }
            }
        }
    }

    /// Hands up what a queue's context holds (`napi_gro_flush`). Whether it still holds something.
    pub fn napi_gro_flush(&mut self, ifindex: IfIndex, queue: u16, flush: GroFlush, now: Instant) -> bool {
        self.set_now(now);
        while let Some(skb) = self
            .devs
            .get_mut(ifindex)
            .and_then(|d| d.napi_gro(queue).flush_one(flush, now))
        {
            self.netif_receive_skb(ifindex, skb);
        }
        self.devs
            .get_mut(ifindex)
            .is_some_and(|d| d.napi_gro(queue).held > 0)
    }

    /// Counters of a receive queue's context.
    pub fn gro_stats(&self, ifindex: IfIndex, queue: u16) -> Option<GroStats> {
        let dev = self.devs.get(ifindex)?;
        dev.napi_gro.get(usize::from(queue)).map(|n| n.stats)
    }
}

#[cfg(test)]
mod tests;
