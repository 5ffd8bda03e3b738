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
use super::skb::{Gso, SkBuff};
use super::time::Instant;
use super::trace::Stage;
use crate::stack::Stack;
use crate::wire::ethernet::ETH_HLEN;
use segment::{Class, FlowKey, Segment};

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
    key: FlowKey,
    head: Segment,
    pseudo: Sum,
    /// The link-layer header.
    link: [u8; ETH_HLEN],
    /// Sequence number of what would continue it.
    next_seq: u32,
    /// Bytes from the network header on.
    len: usize,
    count: u16,
    ids: Ids,
    since: u64,
}

/// How the identifications of IPv4 run (`NAPI_GRO_CB(skb)->is_atomic`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ids {
    /// One segment tells nothing yet.
    Unknown,
    /// One more each time.
    Counting,
    /// Always the same, which DF allows (RFC 6864 section 4.1).
    Fixed,
    /// IPv6 has none.
    None,
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
    /// Takes a frame that starts at its link-layer header, if it is plainly the next of the flow of the one before.
    #[inline]
    fn receive_next(&mut self, mut skb: SkBuff) -> Result<Gro, SkBuff> {
        let (bucket, at) = self.recent;
        let Some(held) = self.buckets[bucket].get(at) else {
            return Err(skb);
        };
        match predict::predicted(&mut skb, held) {
            Some((segment, ids)) => Ok(self.merge(bucket, at, skb, &segment, ids)),
            None => Err(skb),
        }
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
            let held = &bucket[at];
            let Some(ids) = segment.continues(&skb, held) else {
                return self.remove_before(key, at, skb);
            };
            return self.merge(key.bucket(), at, skb, &segment, ids);
        }
        let link = skb.mac_header().and_then(|l| l.first_chunk().copied());
        let Some(link) = link.filter(|_| !segment.closes()) else {
            return Gro::Deliver(skb);
        };
        if bucket.len() >= MAX_GRO_SKBS {
            // The oldest makes room (`gro_flush_oldest`).
            self.stats.evicted += 1;
            return self.remove_before(key, 0, skb);
        }
        bucket.push(Held {
            next_seq: segment.seq.wrapping_add(segment.len as u32),
            len: skb.len(),
            skb,
            key,
            pseudo: key.pseudo(),
            link,
            count: 1,
            ids: if segment.id.is_some() {
                Ids::Unknown
            } else {
                Ids::None
            },
            head: segment,
            since: jiffies(now),
        });
        self.held += 1;
        self.recent = (key.bucket(), bucket.len() - 1);
        Gro::Held
    }

    /// Appends a segment that continues the packet at a place.
    #[inline]
    fn merge(&mut self, bucket: usize, at: usize, skb: SkBuff, segment: &Segment, ids: Ids) -> Gro {
        let held = &mut self.buckets[bucket][at];
        if let Err(skb) = held.merge(skb, segment, ids) {
            let key = held.key;
            return self.remove_before(key, at, skb);
        }
        self.stats.merged += 1;
        self.recent = (bucket, at);
        // A shorter segment, or one with PSH or FIN, is the last.
        if segment.closes() || segment.len < held.head.len {
            Gro::Deliver(self.remove(bucket, at))
        } else {
            Gro::Held
        }
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
    fn has_room(&self, len: usize) -> bool {
        self.len + len <= GRO_MAX_SIZE
    }

    /// Appends the payload of a segment (`skb_gro_receive`), or gives the frame back.
    fn merge(&mut self, mut skb: SkBuff, segment: &Segment, ids: Ids) -> Result<(), SkBuff> {
        let len = self.len + segment.len;
        if !self.has_room(segment.len) || skb.is_nonlinear() {
            return Err(skb);
        }
        let headers = skb.headlen() - segment.len;
        if skb.pull(headers).is_err() {
            return Err(skb);
        }
        match self.skb.append_frag(skb) {
            Ok(()) => {}
            Err(mut skb) => {
                // Cannot be: the buffer holds what it held.
                let _ = skb.push(headers);
                return Err(skb);
            }
        }
        self.head.add_flags(&mut self.skb, segment);
        self.len = len;
        self.next_seq = self.next_seq.wrapping_add(segment.len as u32);
        self.count += 1;
        self.ids = ids;
        Ok(())
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
        let Some(dev) = self.devs.get_mut(ifindex).filter(|d| d.gro()) else {
            return self.receive(ifindex, skb, now);
        };
        let (up, len) = (dev.is_up(), skb.len());
        let napi = dev.napi_gro(queue);
        let next = if up { napi.receive_next(skb) } else { Err(skb) };
        let gro = match next {
            Ok(gro) => {
                napi.stats.received += 1;
                dev.count_received(len);
                gro
            }
            Err(mut skb) => {
                skb.set_dev(ifindex);
                if let Err(reason) = dev.eth_type_trans(&mut skb) {
                    return self.kfree_skb(skb, reason);
                }
                skb.set_tstamp(skb.tstamp().unwrap_or(now));
                let napi = dev.napi_gro(queue);
                napi.stats.received += 1;
                napi.receive(skb, now)
            }
        };
        match gro {
            Gro::Held => {}
            Gro::Deliver(skb) => self.netif_receive_skb(ifindex, skb),
            Gro::Before { held, skb } => {
                self.netif_receive_skb(ifindex, held);
                self.napi_gro_again(ifindex, skb, now);
            }
        }
    }

    /// A frame before which a held packet had to leave.
    fn napi_gro_again(&mut self, ifindex: IfIndex, skb: SkBuff, now: Instant) {
        let queue = skb.rx_queue();
        let mut next = Some(skb);
        while let Some(skb) = next.take() {
            let Some(napi) = self.devs.get_mut(ifindex).map(|d| d.napi_gro(queue)) else {
                return self.kfree_skb(skb, SkbDropReason::DevReady);
            };
            match napi.receive(skb, now) {
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
