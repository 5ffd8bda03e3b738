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
/// every cycle: each has an eight-bit accumulator, one of which is added to its counter in each cycle in which there is
/// nothing else to do. `read.round` says that all have been. A read takes six cycles and more and never splits a
/// counter. 512 cycles after `reset` all are 0; what is told before that waits.
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
    notifications: [Reg<Bits<8>>; QUEUES],
    interrupts: [Reg<Bits<8>>; QUEUES],
    drops: [Reg<Bits<8>>; QUEUES],
    special_drops: [Reg<Bits<8>>; QUEUES],
    commands: Reg<Bits<8>>,
    commands_ok: Reg<Bits<8>>,
    /// The accumulator that is added next.
    turn_queue: Reg<Bits<5>>,
    turn: Reg<Bits<2>>,
    rounded: Reg<Bit>,
    /// Bytes of the frames that a merged packet was: its own, and headers as often as frames joined.
    wire_bytes: Reg<Bits<24>>,
    addend: Reg<Bits<24>>,
    factor: Reg<Bits<8>>,
    /// The word that is read next, what is to be added to it, and whether the sum is written.
    at: Reg<Bits<9>>,
    amount: Reg<Bits<24>>,
    adds: Reg<Bit>,
    /// The same of the word that the memory puts out.
    read_at: Reg<Bits<9>>,
    read_amount: Reg<Bits<24>>,
    read_adds: Reg<Bit>,
    /// And of the word in `old`.
    old: Reg<Bits<64>>,
    old_at: Reg<Bits<9>>,
    old_amount: Reg<Bits<24>>,
    old_adds: Reg<Bit>,
}

/// Packets dropped of a queue in this cycle, by either of two.
#[hw]
fn both(first: Bit, second: Bit) -> Bits<8> {
    cat::<8>((bits::<6>(0), first && second, first ^ second))
}

#[hw]
impl<const QUEUES: usize> Logic for QueueCounts<QUEUES> {
    fn update(&mut self) {
        assert!(QUEUES % 2 == 0 && QUEUES <= 16, "pairs of queues, at most 8");
        registers!(self.clock, self.reset => self.state, self.clearing, self.commands, self.commands_ok);
        registers!(self.clock, self.reset => self.turn_queue, self.turn, self.rounded);
        registers!(self.clock, self.reset => self.adds, self.read_adds, self.old_adds);
        registers!(self.clock => self.step, self.wire_bytes, self.addend, self.factor);
        registers!(self.clock => self.at, self.amount, self.read_at, self.read_amount);
        registers!(self.clock => self.old, self.old_at, self.old_amount);
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
        let mut pulses = bits::<8>(0);
        let turn = self.turn.q.val();
        for q in 0..QUEUES {
            registers!(self.clock, self.reset => self.notifications[q], self.interrupts[q]);
            registers!(self.clock, self.reset => self.drops[q], self.special_drops[q]);
            let mine = scans && self.turn_queue.q.val() == bits::<5>(q as u64);
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
            let drops = both(first_here, second_here);
            let special = both(first_here && first.special, second_here && second.special);
            let notified = both(self.notified[q].val(), false);
            let interrupted = both(
                self.interrupted.val() && self.interrupted_queue.val() == bits::<5>(q as u64),
                false,
            );
            self.notifications[q].d.next = self.notifications[q].q.val() + notified;
            self.interrupts[q].d.next = self.interrupts[q].q.val() + interrupted;
            self.drops[q].d.next = self.drops[q].q.val() + drops;
            self.special_drops[q].d.next = self.special_drops[q].q.val() + special;
            if mine {
                match turn.index() {
                    0 => {
                        pulses = self.notifications[q].q.val();
                        self.notifications[q].d.next = notified;
                    }
                    1 => {
                        pulses = self.interrupts[q].q.val();
                        self.interrupts[q].d.next = interrupted;
                    }
                    2 => {
                        pulses = self.drops[q].q.val();
                        self.drops[q].d.next = drops;
                    }
                    _ => {
                        pulses = self.special_drops[q].q.val();
                        self.special_drops[q].d.next = special;
                    }
                }
            }
        }
        let command = both(self.command.val(), false);
        let command_ok = both(self.command_ok.val(), false);
        self.commands.d.next = self.commands.q.val() + command;
        self.commands_ok.d.next = self.commands_ok.q.val() + command_ok;
        let mut word = match turn.index() {
            0 => bits::<4>(NOTIFICATIONS),
            1 => bits::<4>(INTERRUPTS),
            2 => bits::<4>(DROPS),
            _ => bits::<4>(SPECIAL_DROPS),
        };
        if control {
            if turn.get_bit(0) {
                word = bits::<4>(COMMANDS_OK);
                if scans {
                    pulses = self.commands_ok.q.val();
                    self.commands_ok.d.next = command_ok;
                }
            } else {
                word = bits::<4>(COMMANDS);
                if scans {
                    pulses = self.commands.q.val();
                    self.commands.d.next = command;
                }
            }
        }
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

        // One counter a cycle.
        let mut queue = self.turn_queue.q.val();
        let mut amount = pulses.resize::<24>();
        let mut adds = scans;
        let mut end = false;
        let step = self.step.q.val();
        self.step.d.next = step + 1;
        self.read.done.next = false;
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
            CountState::Received => {
                let merged = packet.joined.any();
                queue = cat::<5>((bits::<1>(0), packet.queue, bits::<1>(0)));
                adds = true;
                amount = bits::<24>(1);
                match step.index() {
                    0 => word = bits::<4>(PACKETS),
                    1 => {
                        word = bits::<4>(BYTES);
                        amount = packet.bytes.resize::<24>();
                    }
                    2 => {
                        word = match packet.verdict {
                            Verdict::Valid => bits::<4>(RX_CSUM_VALID),
                            Verdict::Partial => bits::<4>(RX_NEEDS_CSUM),
                            Verdict::Unknown => bits::<4>(RX_CSUM_NONE),
                            Verdict::Bad => bits::<4>(RX_CSUM_BAD),
                        };
                        end = !merged;
                    }
                    3 => word = bits::<4>(RX_GSO),
                    4 => {
                        word = bits::<4>(RX_GSO + 1);
                        amount = packet.bytes.resize::<24>();
                    }
                    5 => {
                        word = bits::<4>(RX_GSO + 2);
                        amount = packet.joined.resize::<24>() + 1;
                    }
                    8 => {
                        word = bits::<4>(RX_GSO + 3);
                        amount = self.wire_bytes.q.val();
                        end = true;
                    }
                    _ => adds = false,
                }
                self.received_packets.read_ready.next = end;
            }
            CountState::Sent => {
                let alone = frame.first && frame.last;
                queue = cat::<5>((bits::<1>(0), frame.queue, bits::<1>(1)));
                adds = true;
                amount = bits::<24>(1);
                match step.index() {
                    0 => word = bits::<4>(PACKETS),
                    1 => {
                        word = bits::<4>(BYTES);
                        amount = frame.bytes.resize::<24>();
                    }
                    2 => {
                        word = if frame.checksum {
                            bits::<4>(TX_NEEDS_CSUM)
                        } else {
                            bits::<4>(TX_CSUM_NONE)
                        };
                        adds = frame.last;
                        end = !frame.segment;
                    }
                    3 => {
                        word = bits::<4>(TX_GSO + 2);
                        adds = !alone;
                    }
                    4 => {
                        word = bits::<4>(TX_GSO + 3);
                        amount = frame.bytes.resize::<24>();
                        adds = !alone;
                        end = !frame.last;
                    }
                    5 => word = bits::<4>(TX_GSO),
                    6 => {
                        word = bits::<4>(TX_GSO + 1);
                        amount = frame.packet_bytes.resize::<24>();
                        end = !alone;
                    }
                    7 => word = bits::<4>(TX_GSO + 4),
                    _ => {
                        word = bits::<4>(TX_GSO + 5);
                        amount = frame.packet_bytes.resize::<24>();
                        end = true;
                    }
                }
                self.sent_frames.read_ready.next = end;
            }
            CountState::Read => {
                // The word is read in the third cycle, when whatever was added before is written.
                if step == bits::<4>(4) {
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
        self.amount.d.next = amount;
        self.adds.d.next = adds;

        // Headers times frames that joined, a bit a cycle.
        if idle {
            self.wire_bytes.d.next = packet.bytes.resize::<24>();
            self.addend.d.next = packet.joined.resize::<24>();
            self.factor.d.next = packet.headers;
        } else {
            if self.factor.q.val().get_bit(0) {
                self.wire_bytes.d.next = self.wire_bytes.q.val() + self.addend.q.val();
            }
            self.addend.d.next = self.addend.q.val() << 1;
            self.factor.d.next = self.factor.q.val() >> 1;
        }

        // Read, add, write: a word comes again after four cycles at the earliest.
        self.counters.read_address.next = self.at.q.val();
        self.read_at.d.next = self.at.q.val();
        self.read_amount.d.next = self.amount.q.val();
        self.read_adds.d.next = self.adds.q.val();
        self.old.d.next = self.counters.read_data.val();
        self.old_at.d.next = self.read_at.q.val();
        self.old_amount.d.next = self.read_amount.q.val();
        self.old_adds.d.next = self.read_adds.q.val();
        self.read.data.next = self.old.q.val();
        if matches!(self.state.q.val(), CountState::Clear) {
            self.counters.write_address.next = self.clearing.q.val();
            self.counters.write_data.next = bits::<64>(0);
            self.counters.write_enable.next = true;
        } else {
            self.counters.write_address.next = self.old_at.q.val();
            self.counters.write_data.next = self.old.q.val() + self.old_amount.q.val().resize::<64>();
            self.counters.write_enable.next = self.old_adds.q.val();
        }
    }
}
