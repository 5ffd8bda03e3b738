//! Several pairs of queues (virtio 1.3 sections 5.1.6.5.5, 5.1.6.5.6 and 5.1.6.5.7).

use hematite_lang::prelude::*;

use super::class::{Answer, Step, verdict};
use crate::parse::classifier::HashTypes;
use crate::parse::steering::{Steer, TABLE, TableOut};
use crate::parse::toeplitz::{KEY_BYTES, KeyOut};
use crate::virtio::features::Negotiated;

/// VIRTIO_NET_CTRL_MQ.
const CLASS: u64 = 4;
/// VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET.
const VQ_PAIRS_SET: usize = 0;
/// VIRTIO_NET_CTRL_MQ_RSS_CONFIG.
const RSS_CONFIG: usize = 1;
/// VIRTIO_NET_CTRL_MQ_HASH_CONFIG.
const HASH_CONFIG: usize = 2;
/// Offset of `indirection_table` in struct virtio_net_rss_config.
const ENTRIES: u64 = 8;
/// Offset of `hash_key_length` in struct virtio_net_hash_config.
const HASH_KEY_LENGTH: u64 = 12;
/// supported_hash_types: VIRTIO_NET_HASH_TYPE_* of IPv4, TCPv4, UDPv4, IPv6, TCPv6 and UDPv6.
pub const HASH_TYPES: u64 = 0x3f;

/// Carries out the commands of class MQ for `PAIRS` pairs of queues.
///
/// Until the first, and after VQ_PAIRS_SET, receive queues are chosen evenly by a hash of addresses and ports; after
/// RSS_CONFIG by the driver's key and table, until VQ_PAIRS_SET. Refused are: more pairs than there are, hash
/// types that are not supported, a table whose length is not a power of two or more than 128, receive or transmit
/// queues that there are not, and a key of any length but 40 bytes. What is behind the key is ignored, as Linux pads its
/// structure, but commands of 512 bytes and more are refused.
///
/// VQ_PAIRS_SET is in effect when nothing for a queue that is no longer used is inside the card. Frames that pass while
/// RSS_CONFIG is carried out go where the old or the new table says.
#[hw]
pub struct MultiQueue<const PAIRS: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// One pair, no hashes: a device reset.
    pub reset: Signal<In, Bit>,
    /// What was negotiated.
    pub negotiated: Signal<In, Negotiated>,
    /// The command at hand.
    pub step: Signal<In, Step>,
    /// What becomes of it.
    pub answer: Signal<Out, Answer>,
    /// Something for the receive queue is on its way through the card.
    pub inside: [Signal<In, Bit>; PAIRS],
    /// Nothing goes to the receive queue any more.
    pub retire: [Signal<Out, Bit>; PAIRS],
    /// Frames go to one queue only.
    pub single: Signal<Out, Bit>,
    /// How frames are spread.
    pub steer: Signal<Out, Steer>,
    /// Writes of the indirection table.
    pub table: TableOut,
    /// Writes of the hash key.
    pub key: KeyOut,
    /// What is hashed.
    pub hash_types: Signal<Out, HashTypes>,
    accept: Reg<Bit>,
    /// Something in the command is wrong.
    bad: Reg<Bit>,
    /// Offset of `hash_key_length`.
    key_at: Reg<Bits<10>>,
    /// What the command says.
    types: Reg<Bits<6>>,
    mask: Reg<Bits<7>>,
    unclassified: Reg<Bits<3>>,
    /// What is written of table and key, from registers: both lie far away.
    entry_at: Reg<Bits<7>>,
    entry_made: Reg<Bits<3>>,
    entry_due: Reg<Bit>,
    word_at: Reg<Bits<5>>,
    word_made: Reg<Bits<16>>,
    word_due: Reg<Bit>,
    /// Of each receive queue, a cycle late: that lies far away too.
    retired: [Reg<Bit>; PAIRS],
    /// What holds.
    active_types: Reg<Bits<6>>,
    #[reset(Steer { rss: false, pairs: bits::<4>(1), mask: bits::<7>(0), unclassified: bits::<3>(0) })]
    steering: Reg<Steer>,
}

#[hw]
impl<const PAIRS: usize> Logic for MultiQueue<PAIRS> {
    fn update(&mut self) {
        assert!(PAIRS > 0 && PAIRS <= 8, "queues are numbered with three bits");
        registers!(self.clock, self.reset => self.active_types, self.steering, self.entry_due, self.word_due);
        registers!(self.clock => self.entry_at, self.entry_made, self.word_at, self.word_made);
        registers!(self.clock => self.accept, self.bad, self.key_at, self.types, self.mask, self.unclassified);
        let step = self.step.val();
        let negotiated = self.negotiated.val();
        let ours = step.class == bits::<8>(CLASS);
        let rss = step.code == bits::<8>(RSS_CONFIG as u64);
        let position = step.position.get_bits::<10>(0);
        let word = step.tail.get_bits::<16>(80);
        let is_queue = word < bits::<16>(PAIRS as u64);
        let key_at = self.key_at.q.val();
        let in_table = rss && position >= bits::<10>(ENTRIES) && position + 2 < key_at;
        let key_byte = position - key_at - 1;
        let in_key = position > key_at && key_byte < bits::<10>(KEY_BYTES as u64);

        // The fields, at the last byte of each.
        let mut bad = self.bad.q.val();
        if step.fresh && !rss && position == bits::<10>(0) {
            self.key_at.d.next = bits::<10>(HASH_KEY_LENGTH);
        }
        if step.fresh && position == bits::<10>(3) {
            self.types.d.next = step.tail.get_bits::<6>(64);
            if step.tail.get_bits::<26>(70).any() {
                bad = true;
            }
        }
        if step.fresh && rss && position == bits::<10>(5) {
            self.mask.d.next = word.get_bits::<7>(0);
            let length = word.get_bits::<7>(0).resize::<8>() + 1;
            self.key_at.d.next = bits::<10>(ENTRIES + 2) + cat::<10>((bits::<1>(0), length, bits::<1>(0)));
            if (word & (word + 1)).any() || word >= bits::<16>(TABLE as u64) {
                bad = true;
            }
        }
        if step.fresh && rss && position == bits::<10>(7) {
            self.unclassified.d.next = word.get_bits::<3>(0);
            if !is_queue {
                bad = true;
            }
        }
        if step.fresh && in_table && position.get_bit(0) && !is_queue {
            bad = true;
        }
        if step.fresh && rss && position > bits::<10>(ENTRIES) && position + 1 == key_at {
            let some = word.any();
            if !some || word > bits::<16>(PAIRS as u64) {
                bad = true;
            }
        }
        if step.fresh
            && position == key_at
            && step.tail.get_bits::<8>(88) != bits::<8>(KEY_BYTES as u64)
            && position >= bits::<10>(ENTRIES)
        {
            bad = true;
        }
        self.bad.d.next = bad && !step.start;
        let enough = step.length.get_bits::<10>(0) > key_at + bits::<10>(KEY_BYTES as u64);
        // Of a longer one `position` would come round again.
        let whole = enough && !step.length.get_bits::<7>(9).any() && !self.bad.q.val();
        let pairs = word.any() && word <= bits::<16>(PAIRS as u64) && step.length == bits::<16>(2);
        if step.start {
            self.accept.d.next = false;
            self.key_at.d.next = bits::<10>(0);
        } else if step.judge && ours {
            self.accept.d.next = match step.code.index() {
                VQ_PAIRS_SET => negotiated.mq && pairs,
                RSS_CONFIG => negotiated.rss && whole,
                HASH_CONFIG => negotiated.hash_report && whole,
                _ => false,
            };
        }

        // Table and key change byte by byte, the rest at the end.
        let pass = step.fresh && step.applying && ours && step.code != bits::<8>(VQ_PAIRS_SET as u64);
        self.entry_at.d.next = (position - bits::<10>(ENTRIES)).get_bits::<7>(1);
        self.entry_made.d.next = word.get_bits::<3>(0);
        self.entry_due.d.next = pass && in_table && position.get_bit(0);
        self.table.index.next = self.entry_at.q.val();
        self.table.queue.next = self.entry_made.q.val();
        self.table.valid.next = self.entry_due.q.val();
        self.word_at.d.next = key_byte.get_bits::<5>(1);
        self.word_made.d.next = cat::<16>((step.tail.get_bits::<8>(80), step.tail.get_bits::<8>(88)));
        self.word_due.d.next = pass && in_key && key_byte.get_bit(0);
        self.key.index.next = self.word_at.q.val();
        self.key.data.next = self.word_made.q.val();
        self.key.valid.next = self.word_due.q.val();
        let steering = self.steering.q.val();
        if step.commit && ours {
            match step.code.index() {
                VQ_PAIRS_SET => {
                    self.steering.d.next = Steer {
                        rss: false,
                        pairs: word.get_bits::<4>(0),
                        mask: steering.mask,
                        unclassified: steering.unclassified,
                    };
                }
                RSS_CONFIG => {
                    self.active_types.d.next = self.types.q.val();
                    self.steering.d.next = Steer {
                        rss: true,
                        pairs: steering.pairs,
                        mask: self.mask.q.val(),
                        unclassified: self.unclassified.q.val(),
                    };
                }
                HASH_CONFIG => self.active_types.d.next = self.types.q.val(),
                _ => {}
            }
        }
        let types = self.active_types.q.val();
        self.hash_types.next = HashTypes {
            ipv4: types.get_bit(0),
            tcpv4: types.get_bit(1),
            udpv4: types.get_bit(2),
            ipv6: types.get_bit(3),
            tcpv6: types.get_bit(4),
            udpv6: types.get_bit(5),
        };
        self.steer.next = steering;
        self.single.next = !steering.rss && steering.pairs == bits::<4>(1);
        let mut busy = false;
        for q in 0..PAIRS {
            let retired = !steering.rss && steering.pairs <= bits::<4>(q as u64);
            registers!(self.clock, self.reset => self.retired[q]);
            self.retired[q].d.next = retired;
            self.retire[q].next = self.retired[q].q.val();
            if retired && self.inside[q].val() {
                busy = true;
            }
        }
        let mut answer = verdict(self.accept.q.val());
        answer.busy = busy && ours;
        self.answer.next = answer;
    }
}
