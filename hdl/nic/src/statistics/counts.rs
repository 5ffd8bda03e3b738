//! The counters of all queues: one memory, one adder.

use hematite_lang::prelude::*;

use super::layout::{
    BYTES, COMMANDS, COMMANDS_OK, DROPS, INTERRUPTS, NOTIFICATIONS, PACKETS, PLACE_BITS, RX_CSUM_BAD,
    RX_CSUM_NONE, RX_CSUM_VALID, RX_GSO, RX_NEEDS_CSUM, SPECIAL_DROPS, TX_CSUM_NONE, TX_GSO, TX_NEEDS_CSUM,
    place,
};
use super::record::{CountReadIn, DroppedPacket, ReceivedPacket, SentFrame, Verdict};

/// `2^RECORDS` packets of each direction may wait to be counted.
const RECORDS: usize = 3;
/// Bits in which pulses of one kind are counted between two visits.
const PULSES: usize = 6;
/// A packet or frame that is counted is at this step when the product is there.
const PRODUCT: usize = 8;

#[hw]
enum CountState {
    Clear,
    Idle,
    Received,
    Sent,
    Read,
}

/// Counts what is told of `QUEUES` data queues, receive queues at even places, and of the control queue: 64 bits a
/// counter, which wrap, in one block RAM with one adder.
///
/// A received packet takes four cycles, a merged one ten; a sent frame four, one of a packet that was cut six or ten:
/// less than the engines take for it. Up to eight of each wait meanwhile; any beyond would be lost. Pulses may come
/// every cycle: each kind has six bits that count on and on, and one of them is looked at in each cycle in which there is
/// nothing else to do: what it has grown by since its counter was written, less than 64, is added. `read.round` says that
/// all have been. A read takes seven cycles and more and never splits a counter. 512 cycles after `reset` all are 0; what
/// is told before that waits.
#[hw]
pub struct QueueCounts<const QUEUES: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// All counters to 0: a device reset.
    pub reset: Signal<In, Bit>,
    /// A packet passed to the driver.
    pub received: Signal<In, ReceivedPacket>,
    /// There is one; high for one cycle.
    pub received_valid: Signal<In, Bit>,
    /// A frame handed to the MAC.
    pub sent: Signal<In, SentFrame>,
    /// There is one; high for one cycle.
    pub sent_valid: Signal<In, Bit>,
    /// Packets that a receive queue loses.
    pub receive_drops: [Signal<In, DroppedPacket>; 2],
    /// Packets that a transmit queue loses.
    pub transmit_drops: [Signal<In, DroppedPacket>; 2],
    /// A doorbell of each queue.
    pub notified: [Signal<In, Bit>; QUEUES],
    /// An interrupt is generated.
    pub interrupted: Signal<In, Bit>,
    /// For this queue.
    pub interrupted_queue: Signal<In, Bits<5>>,
    /// A command came.
    pub command: Signal<In, Bit>,
    /// And is carried out.
    pub command_ok: Signal<In, Bit>,
    /// Reads of words.
    pub read: CountReadIn,
    received_packets: Fifo<ReceivedPacket, RECORDS>,
    sent_frames: Fifo<SentFrame, RECORDS>,
    counters: Ram<Bits<64>, PLACE_BITS>,
    #[reset(CountState::Clear)]
    state: Reg<CountState>,
    step: Reg<Bits<4>>,
    clearing: Reg<Bits<9>>,
    notifications: [Reg<Bits<PULSES>>; QUEUES],
    interrupts: [Reg<Bits<PULSES>>; QUEUES],
    drops: [Reg<Bits<PULSES>>; QUEUES],
    special_drops: [Reg<Bits<PULSES>>; QUEUES],
    commands: Reg<Bits<PULSES>>,
    commands_ok: Reg<Bits<PULSES>>,
    /// The kind of pulses that is looked at next.
    turn_queue: Reg<Bits<5>>,
    turn: Reg<Bits<2>>,
    rounded: Reg<Bit>,
    /// Headers times frames that joined, a bit a cycle.
    product: Reg<Bits<24>>,
    addend: Reg<Bits<24>>,
    factor: Reg<Bits<8>>,
    /// The word that is read next, what is to be added to it, and whether the sum is written. Of pulses, the amount is
    /// what their count is now, of either half of the kinds.
    at: Reg<Bits<9>>,
    amount: Reg<Bits<24>>,
    pulses: [Reg<Bits<PULSES>>; 2],
    adds: Reg<Bit>,
    counted: Reg<Bit>,
    /// The same of the word that the memory puts out.
    read_at: Reg<Bits<9>>,
    read_amount: Reg<Bits<24>>,
    read_adds: Reg<Bit>,
    read_counted: Reg<Bit>,
    /// Of the word in `old`.
    old: Reg<Bits<64>>,
    old_at: Reg<Bits<9>>,
    old_amount: Reg<Bits<24>>,
    old_adds: Reg<Bit>,
    old_counted: Reg<Bit>,
    /// And of the sum that is written.
    base: Reg<Bits<64>>,
    clears: Signal<Local, Bit>,
    base_at: Reg<Bits<9>>,
    base_amount: Reg<Bits<24>>,
    base_adds: Reg<Bit>,
}

/// Packets dropped of a queue in this cycle, by either of two.
#[hw]
fn both(first: Bit, second: Bit) -> Bits<PULSES> {
    cat::<2>((first && second, first ^ second)).resize::<PULSES>()
}

/// `value` or nothing.
#[hw]
fn only(wanted: Bit, value: Bits<24>) -> Bits<24> {
    if wanted { value } else { bits::<24>(0) }
}

#[hw]
impl<const QUEUES: usize> Logic for QueueCounts<QUEUES> {
    fn update(&mut self) {
        assert!(QUEUES % 2 == 0 && QUEUES <= 16, "pairs of queues, at most 8");
        registers!(self.clock, self.reset => self.state, self.clearing, self.commands, self.commands_ok);
        registers!(self.clock, self.reset => self.turn_queue, self.turn, self.rounded);
        registers!(self.clock, self.reset => self.adds, self.read_adds, self.old_adds, self.base_adds);
        registers!(self.clock => self.step, self.product, self.addend, self.factor);
        registers!(self.clock => self.at, self.amount, self.pulses[0], self.pulses[1], self.counted);
        registers!(self.clock => self.read_at, self.read_amount, self.read_counted);
        registers!(self.clock => self.old, self.old_at, self.old_amount, self.old_counted);
        registers!(self.clock, self.clears => self.base, self.base_amount);
        registers!(self.clock => self.base_at);
        self.clears.next = matches!(self.state.q.val(), CountState::Clear);
        clocked!(self.clock, self.reset => self.received_packets, self.sent_frames);
        clocked!(self.clock => self.counters);
        self.received_packets.write_data.next = self.received.val();
        self.received_packets.write_valid.next = self.received_valid.val();
        self.received_packets.read_ready.next = false;
        self.sent_frames.write_data.next = self.sent.val();
        self.sent_frames.write_valid.next = self.sent_valid.val();
        self.sent_frames.read_ready.next = false;
        let packet = self.received_packets.read_data.val();
        let frame = self.sent_frames.read_data.val();

        // Pulses.
        let control = self.turn_queue.q.val() == bits::<5>(QUEUES as u64);
        let idle = matches!(self.state.q.val(), CountState::Idle);
        let busy = self.received_packets.read_valid.val()
            || self.sent_frames.read_valid.val()
            || self.read.valid.val();
        let scans = idle && !busy;
        let turn = self.turn.q.val();
        let mut pulses = bits::<PULSES>(0);
        let mut special_pulses = bits::<PULSES>(0);
        for q in 0..QUEUES {
            registers!(self.clock, self.reset => self.notifications[q], self.interrupts[q]);
            registers!(self.clock, self.reset => self.drops[q], self.special_drops[q]);
            let pair = bits::<3>(q as u64 / 2);
            let first = if q % 2 == 0 {
                self.receive_drops[0].val()
            } else {
                self.transmit_drops[0].val()
            };
            let second = if q % 2 == 0 {
                self.receive_drops[1].val()
            } else {
                self.transmit_drops[1].val()
            };
            let first_here = first.valid && first.queue == pair;
            let second_here = second.valid && second.queue == pair;
            let interrupted = self.interrupted.val() && self.interrupted_queue.val() == bits::<5>(q as u64);
            self.notifications[q].d.next =
                self.notifications[q].q.val() + both(self.notified[q].val(), false);
            self.interrupts[q].d.next = self.interrupts[q].q.val() + both(interrupted, false);
            self.drops[q].d.next = self.drops[q].q.val() + both(first_here, second_here);
            self.special_drops[q].d.next = self.special_drops[q].q.val()
                + both(first_here && first.special, second_here && second.special);
            let here = self.turn_queue.q.val() == bits::<5>(q as u64);
            for kind in 0..2 {
                let mine = here && turn == bits::<2>(kind);
                let special = here && turn == bits::<2>(kind + 2);
                if mine {
                    pulses = pulses
                        | if kind == 0 {
                            self.notifications[q].q.val()
                        } else {
                            self.interrupts[q].q.val()
                        };
                }
                if special {
                    special_pulses = special_pulses
                        | if kind == 0 {
                            self.drops[q].q.val()
                        } else {
                            self.special_drops[q].q.val()
                        };
                }
            }
        }
        self.commands.d.next = self.commands.q.val() + both(self.command.val(), false);
        self.commands_ok.d.next = self.commands_ok.q.val() + both(self.command_ok.val(), false);
        let mut word = match turn.index() {
            0 => bits::<4>(NOTIFICATIONS),
            1 => bits::<4>(INTERRUPTS),
            2 => bits::<4>(DROPS),
            _ => bits::<4>(SPECIAL_DROPS),
        };
        if control {
            if turn.get_bit(0) {
                word = bits::<4>(COMMANDS_OK);
                pulses = self.commands_ok.q.val();
            } else {
                word = bits::<4>(COMMANDS);
                pulses = self.commands.q.val();
            }
        }
        self.pulses[0].d.next = pulses;
        self.pulses[1].d.next = special_pulses;
        let last_turn = if control { turn.get_bit(0) } else { turn.all() };
        self.rounded.d.next = scans && control && last_turn;
        self.read.round.next = self.rounded.q.val();
        if scans {
            self.turn.d.next = if last_turn { bits::<2>(0) } else { turn + 1 };
            if last_turn {
                self.turn_queue.d.next = if control {
                    bits::<5>(0)
                } else {
                    self.turn_queue.q.val() + 1
                };
            }
        }

        // One counter a cycle. A word comes again after four cycles at the earliest.
        let mut queue = self.turn_queue.q.val();
        let mut adds = scans;
        let mut end = false;
        let step = self.step.q.val();
        self.step.d.next = step + 1;
        self.read.done.next = false;
        let sending = matches!(self.state.q.val(), CountState::Sent);
        let counting = sending || matches!(self.state.q.val(), CountState::Received);
        let product = !sending && step == bits::<4>(PRODUCT as u64);
        let mut one = false;
        let mut bytes = false;
        let mut packet_bytes = false;
        let mut joined = false;
        match self.state.q.val() {
            CountState::Clear => {
                self.clearing.d.next = self.clearing.q.val() + 1;
                end = self.clearing.q.val().all();
            }
            CountState::Idle => {
                self.step.d.next = bits::<4>(0);
                if self.received_packets.read_valid.val() {
                    self.state.d.next = CountState::Received;
                } else if self.sent_frames.read_valid.val() {
                    self.state.d.next = CountState::Sent;
                } else if self.read.valid.val() {
                    self.state.d.next = CountState::Read;
                }
            }
            CountState::Received | CountState::Sent => {
                let merged = packet.joined.any();
                let alone = frame.first && frame.last;
                queue = if sending {
                    cat::<5>((bits::<1>(0), frame.queue, bits::<1>(1)))
                } else {
                    cat::<5>((bits::<1>(0), packet.queue, bits::<1>(0)))
                };
                adds = true;
                match step.index() {
                    0 => {
                        word = bits::<4>(PACKETS);
                        one = true;
                    }
                    1 => {
                        word = bits::<4>(BYTES);
                        bytes = true;
                    }
                    2 => {
                        one = true;
                        if !sending {
                            word = match packet.verdict {
                                Verdict::Valid => bits::<4>(RX_CSUM_VALID),
                                Verdict::Partial => bits::<4>(RX_NEEDS_CSUM),
                                Verdict::Unknown => bits::<4>(RX_CSUM_NONE),
                                Verdict::Bad => bits::<4>(RX_CSUM_BAD),
                            };
                            end = !merged;
                        } else {
                            word = if frame.checksum {
                                bits::<4>(TX_NEEDS_CSUM)
                            } else {
                                bits::<4>(TX_CSUM_NONE)
                            };
                            adds = frame.last;
                            end = !frame.segment;
                        }
                    }
                    3 => {
                        one = true;
                        word = if sending {
                            bits::<4>(TX_GSO + 2)
                        } else {
                            bits::<4>(RX_GSO + 2)
                        };
                        adds = !sending || !alone;
                    }
                    4 => {
                        bytes = true;
                        word = if sending {
                            bits::<4>(TX_GSO + 3)
                        } else {
                            bits::<4>(RX_GSO + 3)
                        };
                        adds = !sending || !alone;
                        end = sending && !frame.last;
                    }
                    5 => {
                        one = true;
                        word = if sending {
                            bits::<4>(TX_GSO)
                        } else {
                            bits::<4>(RX_GSO)
                        };
                    }
                    6 => {
                        packet_bytes = sending;
                        bytes = !sending;
                        word = if sending {
                            bits::<4>(TX_GSO + 1)
                        } else {
                            bits::<4>(RX_GSO + 1)
                        };
                        end = sending && !alone;
                    }
                    7 => {
                        one = sending;
                        joined = !sending;
                        word = if sending {
                            bits::<4>(TX_GSO + 4)
                        } else {
                            bits::<4>(RX_GSO + 2)
                        };
                    }
                    _ => {
                        packet_bytes = sending;
                        word = if sending {
                            bits::<4>(TX_GSO + 5)
                        } else {
                            bits::<4>(RX_GSO + 3)
                        };
                        end = true;
                    }
                }
                self.received_packets.read_ready.next = end && !sending;
                self.sent_frames.read_ready.next = end && sending;
            }
            CountState::Read => {
                // The word is read in the fourth cycle, when whatever was added before is written.
                if step == bits::<4>(5) {
                    self.read.done.next = true;
                    end = true;
                }
            }
        }
        if end {
            self.state.d.next = CountState::Idle;
        }
        self.at.d.next = if matches!(self.state.q.val(), CountState::Read) {
            self.read.place.val()
        } else {
            place(queue, word)
        };
        let frame_bytes = if sending {
            frame.bytes.resize::<17>()
        } else {
            packet.bytes
        };
        self.amount.d.next = only(one, bits::<24>(1))
            | only(bytes, frame_bytes.resize::<24>())
            | only(packet_bytes, frame.packet_bytes.resize::<24>())
            | only(joined, packet.joined.resize::<24>())
            | only(counting && product, self.product.q.val());
        self.adds.d.next = adds;
        self.counted.d.next = !counting;

        if idle {
            self.product.d.next = bits::<24>(0);
            self.addend.d.next = packet.joined.resize::<24>();
            self.factor.d.next = packet.headers;
        } else {
            if self.factor.q.val().get_bit(0) {
                self.product.d.next = self.product.q.val() + self.addend.q.val();
            }
            self.addend.d.next = self.addend.q.val() << 1;
            self.factor.d.next = self.factor.q.val() >> 1;
        }

        // Read, tell what is to be added, add and write.
        self.counters.read_address.next = self.at.q.val();
        self.read_at.d.next = self.at.q.val();
        let pulses = (self.pulses[0].q.val() | self.pulses[1].q.val()).resize::<24>();
        self.read_amount.d.next = self.amount.q.val() | only(self.counted.q.val(), pulses);
        self.read_adds.d.next = self.adds.q.val();
        self.read_counted.d.next = self.counted.q.val();
        self.old.d.next = self.counters.read_data.val();
        self.old_at.d.next = self.read_at.q.val();
        self.old_amount.d.next = self.read_amount.q.val();
        self.old_adds.d.next = self.read_adds.q.val();
        self.old_counted.d.next = self.read_counted.q.val();
        self.read.data.next = self.old.q.val();
        let old = self.old.q.val();
        let old_amount = self.old_amount.q.val();
        self.base.d.next = old;
        self.base_at.d.next = self.old_at.q.val();
        self.base_adds.d.next = self.old_adds.q.val();
        self.base_amount.d.next = if self.old_counted.q.val() {
            (old_amount.get_bits::<PULSES>(0) - old.get_bits::<PULSES>(0)).resize::<24>()
        } else {
            old_amount
        };
        self.counters.write_address.next = self.base_at.q.val();
        self.counters.write_data.next = self.base.q.val() + self.base_amount.q.val().resize::<64>();
        self.counters.write_enable.next = self.base_adds.q.val();
        // What is in `base` is 0 from the first cycle of clearing on.
        if self.clears.val() {
            self.base_adds.d.next = true;
            self.base_at.d.next = self.clearing.q.val();
        }
    }
}
