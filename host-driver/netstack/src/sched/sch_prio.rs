//! Bands of priority (net/sched/sch_prio.c): the next packet is from the first band that has one.

use super::{Pfifo, Qdisc, QdiscStats};
use crate::core::skb::SkBuff;
use crate::core::time::Instant;

/// Band of each priority, as Linux maps them (`prio2band`): interactive before best effort before bulk.
const PRIO2BAND: [u8; 16] = [1, 2, 2, 2, 1, 2, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1];

/// Tells the class of a packet; `None` leaves it to the packet's priority (`tcf_classify`).
pub type Filter = Box<dyn FnMut(&SkBuff) -> Option<usize> + Send>;

/// `prio`.
pub struct Prio {
    bands: Vec<Pfifo>,
    filter: Option<Filter>,
}

impl Prio {
    /// `bands` bands (at least one), each of at most `limit` packets.
    pub fn new(bands: usize, limit: usize) -> Self {
        Self {
            bands: (0..bands.max(1)).map(|_| Pfifo::new(limit)).collect(),
            filter: None,
        }
    }

    /// Asks `filter` first for the band of each packet.
    #[must_use]
    pub fn with_filter(mut self, filter: Filter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// Counters of one band (`tc -s class`).
    pub fn band_stats(&self, band: usize) -> Option<QdiscStats> {
        self.bands.get(band).map(Pfifo::stats)
    }

    fn classify(&mut self, skb: &SkBuff) -> usize {
        let filtered = self.filter.as_mut().and_then(|filter| filter(skb));
        let mapped = || usize::from(PRIO2BAND[(skb.priority() & 15) as usize]);
        filtered.unwrap_or_else(mapped).min(self.bands.len() - 1)
    }
}

impl Qdisc for Prio {
    fn kind(&self) -> &'static str {
        "prio"
    }

    fn enqueue(&mut self, skb: SkBuff, now: Instant) -> Result<(), SkBuff> {
        let band = self.classify(&skb);
        self.bands[band].enqueue(skb, now)
    }

    fn dequeue(&mut self, now: Instant) -> Option<SkBuff> {
        self.bands.iter_mut().find_map(|band| band.dequeue(now))
    }

    fn purge(&mut self) -> Option<SkBuff> {
        self.bands.iter_mut().find_map(Pfifo::purge)
    }

    fn len(&self) -> usize {
        self.bands.iter().map(Pfifo::len).sum()
    }

    fn stats(&self) -> QdiscStats {
        self.bands.iter().map(Pfifo::stats).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(priority: u32, n: u8) -> SkBuff {
        let mut skb = SkBuff::from_slice(&[n]);
        skb.set_priority(priority);
        skb
    }

    fn drain(q: &mut Prio) -> Vec<u8> {
        std::iter::from_fn(|| q.dequeue(Instant::ZERO))
            .map(|s| s.data()[0])
            .collect()
    }

    #[test]
    fn interactive_goes_before_bulk_and_each_keeps_its_order() {
        let mut q = Prio::new(3, 10);
        // TC_PRIO_BULK 2, TC_PRIO_BESTEFFORT 0, TC_PRIO_INTERACTIVE 6.
        for (n, priority) in [(0, 2), (1, 0), (2, 6), (3, 2), (4, 6), (5, 0)] {
            q.enqueue(packet(priority, n), Instant::ZERO).unwrap();
        }
        assert_eq!(drain(&mut q), [2, 4, 1, 5, 0, 3]);
    }

    #[test]
    fn a_filter_decides_and_a_full_band_drops_only_its_own() {
        let by_parity: Filter = Box::new(|skb| (skb.data()[0] != 9).then(|| usize::from(skb.data()[0] % 2)));
        let mut q = Prio::new(2, 2).with_filter(by_parity);
        for n in [1, 3, 5, 0] {
            let _ = q.enqueue(packet(0, n), Instant::ZERO);
        }
        // Beyond the filter, and mapped to a band that there is not: the last.
        assert!(q.enqueue(packet(2, 9), Instant::ZERO).is_err());
        assert_eq!(
            (q.band_stats(1).unwrap().drops, q.band_stats(0).unwrap().drops),
            (2, 0)
        );
        assert_eq!(q.stats().drops, 2);
        assert_eq!(drain(&mut q), [0, 1, 3]);
    }
}
