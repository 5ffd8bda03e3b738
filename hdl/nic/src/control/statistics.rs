//! Device statistics (virtio 1.4 section 5.1.9.5.11).

use hematite_lang::prelude::*;

use super::class::{Answer, KEPT, Step};
use crate::statistics::CountReadOut;
use crate::statistics::layout::{CSUM, RX_GSO, TX_GSO, place};
use crate::virtio::features::Negotiated;

/// VIRTIO_NET_CTRL_STATS.
const CLASS: u64 = 8;
/// VIRTIO_NET_CTRL_STATS_QUERY.
const QUERY: usize = 0;
/// VIRTIO_NET_CTRL_STATS_GET.
const GET: usize = 1;
/// Where the types of transmit queues begin in a bitmap and among the types of replies.
const TRANSMIT: u64 = 16;
/// VIRTIO_NET_STATS_TYPE_REPLY_CVQ.
const CONTROL: u64 = 32;
/// `2^ENTRIES` queues can be asked for in one command: as many as its kept bytes are.
const ENTRIES: usize = 5;

/// Types of statistics of one queue: basic, or those of the control queue; checksums; segmentation.
#[hw(value)]
pub struct Types {
    /// VIRTIO_NET_STATS_TYPE_RX_BASIC, TX_BASIC or CVQ.
    pub basic: Bit,
    /// VIRTIO_NET_STATS_TYPE_RX_CSUM or TX_CSUM.
    pub csum: Bit,
    /// VIRTIO_NET_STATS_TYPE_RX_GSO or TX_GSO.
    pub gso: Bit,
}

/// What a command asks for of one queue.
#[hw(value)]
struct Entry {
    /// Its number on the card, the control queue's behind all data queues.
    queue: Bits<5>,
    /// Which statistics.
    types: Types,
}

/// Bytes of a reply with these types, headers included.
#[hw]
fn reply_bytes(types: Types, control: Bit, transmit: Bit) -> Bits<8> {
    let basic = if control { bits::<8>(24) } else { bits::<8>(56) };
    let csum = if transmit { bits::<8>(24) } else { bits::<8>(40) };
    let gso = if transmit { bits::<8>(56) } else { bits::<8>(40) };
    let mut sum = bits::<8>(0);
    if types.basic {
        sum = basic;
    }
    if types.csum {
        sum = sum + csum;
    }
    if types.gso {
        sum = sum + gso;
    }
    sum
}

#[hw]
enum ReplyState {
    Ready,
    Next,
    Type,
    Count,
}

/// Carries out the commands of class STATS for `QUEUES` data queues, receive queues at even places.
///
/// The types are RX_BASIC, TX_BASIC and CVQ, and each of RX_CSUM, TX_CSUM, RX_GSO and TX_GSO for which the feature is
/// negotiated that it needs; QUERY says so. Nothing that the card does depends on the speed: there are no types for that.
///
/// A GET is refused when it names a queue that there is not, a type that the queue has not or that needs a feature, and
/// when it has not whole entries or more than 32. One that is accepted waits until all that happened before it is counted.
/// Its reply is made as it is asked for, eight bytes at a time, each counter read once.
#[hw]
pub struct Statistics<const QUEUES: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Back to the start.
    pub reset: Signal<In, Bit>,
    /// What was negotiated.
    pub negotiated: Signal<In, Negotiated>,
    /// The command at hand.
    pub step: Signal<In, Step>,
    /// What becomes of it.
    pub answer: Signal<Out, Answer>,
    /// Reads of counters.
    pub read: CountReadOut,
    accept: Reg<Bit>,
    /// Something in the command is wrong.
    bad: Reg<Bit>,
    /// The queue that the entry at hand names: on the card, and whether there is none such.
    queue: Reg<Bits<5>>,
    absent: Reg<Bit>,
    /// Types that a receive and a transmit queue has.
    receive: Reg<Types>,
    transmit: Reg<Types>,
    /// The control queue's index as the driver has it.
    control_index: Reg<Bits<5>>,
    entries: LutRam<Entry, ENTRIES>,
    /// Bytes of the reply.
    bytes: Reg<Bits<16>>,
    /// The command is a GET that was accepted, and of what came before it not all is counted.
    settling: Reg<Bits<2>>,
    /// It was carried out: the reply is asked for.
    active: Reg<Bit>,
    state: Reg<ReplyState>,
    /// The eight bytes at hand are these of the reply, counted from -1.
    word_at: Reg<Bits<13>>,
    word: Reg<Bits<64>>,
    /// The entry that is replied to, and what of it comes next.
    entry: Reg<Bits<ENTRIES>>,
    entry_fresh: Reg<Bit>,
    replying: Reg<Entry>,
    /// The counter that comes next, and how many there are.
    count_at: Reg<Bits<4>>,
    counts: Reg<Bits<3>>,
}

#[hw]
impl<const QUEUES: usize> Logic for Statistics<QUEUES> {
    fn update(&mut self) {
        assert!(KEPT == 16 << ENTRIES, "an entry has 16 bytes");
        registers!(self.clock, self.reset => self.accept, self.settling, self.state, self.active);
        registers!(self.clock => self.bad, self.queue, self.absent, self.receive, self.transmit);
        registers!(self.clock => self.control_index, self.bytes, self.word_at, self.word, self.entry);
        registers!(self.clock => self.entry_fresh, self.replying, self.count_at, self.counts);
        clocked!(self.clock => self.entries);
        let step = self.step.val();
        let ours = step.class == bits::<8>(CLASS);
        let get = step.code == bits::<8>(GET as u64);
        let negotiated = self.negotiated.val();
        let several = negotiated.mq || negotiated.rss;
        self.control_index.d.next = if several {
            bits::<5>(QUEUES as u64)
        } else {
            bits::<5>(2)
        };
        self.receive.d.next = Types {
            basic: true,
            csum: negotiated.guest_csum,
            gso: negotiated.guest_tso4 || negotiated.guest_tso6,
        };
        self.transmit.d.next = Types {
            basic: true,
            csum: negotiated.csum,
            gso: negotiated.host_tso4 || negotiated.host_tso6,
        };
        let control_index = self.control_index.q.val();
        let receive = self.receive.q.val();
        let transmit = self.transmit.q.val();

        // An entry: the queue's index first, the bitmap last.
        let within = step.position.get_bits::<4>(0);
        let index = step.tail.get_bits::<16>(80);
        if step.fresh && within == bits::<4>(1) {
            let control = index == control_index.resize::<16>();
            self.queue.d.next = if control {
                bits::<5>(QUEUES as u64)
            } else {
                index.get_bits::<5>(0)
            };
            self.absent.d.next = index > control_index.resize::<16>();
        }
        let bitmap = step.tail.get_bits::<64>(32);
        let queue = self.queue.q.val();
        let of_control = queue == bits::<5>(QUEUES as u64);
        let of_transmit = queue.get_bit(0);
        let mut foreign = bitmap;
        let mut wanted = bitmap.get_bits::<3>(0);
        let mut has = cat::<3>((receive.gso, receive.csum, receive.basic));
        if of_control {
            wanted = bitmap.get_bits::<3>(CONTROL as usize);
            has = bits::<3>(1);
            foreign.set_bits::<3>(CONTROL as usize, bits::<3>(0));
        } else if of_transmit {
            wanted = bitmap.get_bits::<3>(TRANSMIT as usize);
            has = cat::<3>((transmit.gso, transmit.csum, transmit.basic));
            foreign.set_bits::<3>(TRANSMIT as usize, bits::<3>(0));
        } else {
            foreign.set_bits::<3>(0, bits::<3>(0));
        }
        let beyond = foreign.any() || (wanted & !has).any();
        let types = Types {
            basic: wanted.get_bit(0),
            csum: wanted.get_bit(1),
            gso: wanted.get_bit(2),
        };
        self.entries.write_enable.next = false;
        self.entries.write_address.next = step.position.get_bits::<5>(4);
        self.entries.write_data.next = Entry { queue, types };
        if step.start {
            self.bad.d.next = false;
            self.bytes.d.next = bits::<16>(0);
        } else if step.fresh && !step.applying && within.all() {
            if self.absent.q.val() || beyond {
                self.bad.d.next = true;
            }
            self.entries.write_enable.next = true;
            self.bytes.d.next =
                self.bytes.q.val() + reply_bytes(types, of_control, of_transmit).resize::<16>();
        }
        if step.start {
            self.accept.d.next = false;
        } else if step.judge && ours {
            let whole = !step.length.get_bits::<4>(0).any() && step.length <= bits::<16>(KEPT as u64);
            self.accept.d.next = negotiated.device_stats
                && match step.code.index() {
                    QUERY => !step.length.any(),
                    GET => whole && !self.bad.q.val(),
                    _ => false,
                };
        }

        // Two rounds of all counters later, everything is counted.
        let settling = self.settling.q.val();
        if step.commit && ours && get {
            self.settling.d.next = bits::<2>(2);
        } else if settling.any() && self.read.round.val() {
            self.settling.d.next = settling - 1;
        }

        // The reply, eight bytes at a time.
        let wanted_at = step.reply_position.get_bits::<13>(3);
        let late = wanted_at != self.word_at.q.val() || !matches!(self.state.q.val(), ReplyState::Ready);
        let replying = self.replying.q.val();
        let to_control = replying.queue == bits::<5>(QUEUES as u64);
        let to_transmit = replying.queue.get_bit(0);
        self.entries.read_address.next = self.entry.q.val();
        self.read.place.next = place(replying.queue, self.count_at.q.val());
        self.read.valid.next = false;
        let capabilities = cat::<64>((
            bits::<31>(0),
            true,
            bits::<13>(0),
            transmit.gso,
            transmit.csum,
            true,
            bits::<13>(0),
            receive.gso,
            receive.csum,
            true,
        ));
        match self.state.q.val() {
            ReplyState::Ready => {
                if step.commit && ours {
                    self.active.d.next = true;
                    // The byte before the result is the ack.
                    self.word_at.d.next = !bits::<13>(0);
                    self.word.d.next = capabilities;
                    self.entry.d.next = bits::<ENTRIES>(0);
                    self.entry_fresh.d.next = true;
                    self.counts.d.next = bits::<3>(0);
                } else if self.active.q.val() && late {
                    self.word_at.d.next = self.word_at.q.val() + 1;
                    if get {
                        self.state.d.next = if self.counts.q.val().any() {
                            ReplyState::Count
                        } else {
                            ReplyState::Next
                        };
                    }
                }
            }
            ReplyState::Next => {
                // Of the next entry that asks for something, or of the one at hand.
                if self.entry_fresh.q.val() {
                    self.replying.d.next = self.entries.read_data.val();
                    self.entry.d.next = self.entry.q.val() + 1;
                }
                self.entry_fresh.d.next = false;
                self.state.d.next = ReplyState::Type;
            }
            ReplyState::Type => {
                let types = replying.types;
                let mut number = bits::<8>(0);
                let mut first = bits::<4>(0);
                let mut counts = if to_control { bits::<3>(2) } else { bits::<3>(6) };
                if types.basic {
                    self.replying.d.next.types.basic = false;
                } else if types.csum {
                    number = bits::<8>(1);
                    first = bits::<4>(CSUM);
                    counts = if to_transmit { bits::<3>(2) } else { bits::<3>(4) };
                    self.replying.d.next.types.csum = false;
                } else {
                    number = bits::<8>(2);
                    first = if to_transmit {
                        bits::<4>(TX_GSO)
                    } else {
                        bits::<4>(RX_GSO)
                    };
                    counts = if to_transmit { bits::<3>(6) } else { bits::<3>(4) };
                    self.replying.d.next.types.gso = false;
                }
                let base = if to_control {
                    bits::<8>(CONTROL)
                } else if to_transmit {
                    bits::<8>(TRANSMIT)
                } else {
                    bits::<8>(0)
                };
                let size = cat::<16>((bits::<10>(0), counts, bits::<3>(0))) + 8;
                let index = if to_control { control_index } else { replying.queue };
                self.word.d.next = cat::<64>((
                    size,
                    bits::<16>(0),
                    index.resize::<16>(),
                    bits::<8>(0),
                    base | number,
                ));
                self.count_at.d.next = first;
                self.counts.d.next = counts;
                if types.basic || types.csum || types.gso {
                    self.state.d.next = ReplyState::Ready;
                } else {
                    self.counts.d.next = bits::<3>(0);
                    self.entry_fresh.d.next = true;
                    self.state.d.next = ReplyState::Next;
                }
            }
            ReplyState::Count => {
                self.read.valid.next = true;
                if self.read.done.val() {
                    self.word.d.next = self.read.data.val();
                    self.count_at.d.next = self.count_at.q.val() + 1;
                    self.counts.d.next = self.counts.q.val() - 1;
                    self.state.d.next = ReplyState::Ready;
                }
            }
        }
        if step.start {
            // Behind the reply's end it may have gone on looking for more.
            self.active.d.next = false;
            self.state.d.next = ReplyState::Ready;
        }
        let mut byte = bits::<8>(0);
        for n in 0..8 {
            if step.reply_position.get_bits::<3>(0) == bits::<3>(n as u64) {
                byte = self.word.q.val().get_bits::<8>(8 * n);
            }
        }
        let accept = self.accept.q.val();
        self.answer.next = Answer {
            accept,
            busy: settling.any(),
            ahead: bits::<4>(0),
            behind: if !accept {
                bits::<16>(0)
            } else if get {
                self.bytes.q.val()
            } else {
                bits::<16>(8)
            },
            byte: if accept { byte } else { bits::<8>(0) },
            late: self.active.q.val() && late,
        };
    }
}
