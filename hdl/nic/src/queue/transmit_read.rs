//! From the elements of packets to transmit to reads of host memory.

use hematite_lang::prelude::*;

use super::fetch::Element;
use super::receive_plan::{HASH_HEADER, HEADER};
use crate::dma::ports::ReadRequestOut;

/// What a response brings, or (without `read`) the end of a packet of which nothing more is read.
#[hw(value)]
pub struct Part {
    /// A response comes for this.
    pub read: Bit,
    /// The packet ends here.
    pub last: Bit,
    /// With `last`: the packet must not be sent.
    pub bad: Bit,
    /// With `last`: its buffer is used then.
    pub used: Bit,
    /// By this queue.
    pub queue: Bits<3>,
    /// Buffer ID.
    pub id: Bits<16>,
    /// Ring slots of the buffer.
    pub slots: Bits<8>,
    /// Beats kept free for it in the packet FIFO.
    pub beats: Bits<8>,
}

/// The shortest frame: two addresses and a type.
const MIN_FRAME: u64 = 14;
/// The longest frame: an IP packet of 65535 bytes behind an Ethernet header with a VLAN tag, which the card is to cut
/// into segments.
const MAX_FRAME: u64 = 18 + 0xffff;
/// Bytes asked for at a time.
const PIECE: u64 = 1024;

#[hw]
enum ReadState {
    Packet,
    Element,
    Piece,
    Room,
    Request,
}

/// Asks for the bytes of packets of `N` queues ahead of time, a packet of each queue in turn, however long: up to 66 reads of any number of packets in flight, so
/// long as the packet FIFO has room for all that was asked for. Elements of more than about 1 KiB are asked
/// for in pieces of that, cut where a TLP ends; four cycles for each read, one more for a packet, and one request
/// waits for the read engine meanwhile.
///
/// A packet whose frame would become longer than 65553 bytes, or that has an element of 65535 or more, is read no further
/// and marked bad, and so is one too short to hold a header and a 14-byte frame; their buffers are used all the
/// same. When its queue stops inside a packet, it ends as bad and its buffer is not used.
#[hw]
pub struct TransmitReader<const N: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Back to the start.
    pub reset: Signal<In, Bit>,
    /// Ask for nothing more of the queue.
    pub stop: [Signal<In, Bit>; N],
    /// VIRTIO_NET_F_HASH_REPORT was negotiated: the header is that much longer.
    pub hash_report: Signal<In, Bit>,
    /// Free beats in the packet FIFO, less those that may be on their way to it; must become more than what a
    /// piece takes, 130.
    pub space: Signal<In, Bits<10>>,
    /// The next element of an available buffer of each queue.
    pub element: [Signal<In, Element>; N],
    /// There is one.
    pub element_valid: [Signal<In, Bit>; N],
    /// It is taken.
    pub element_ready: [Signal<Out, Bit>; N],
    /// Reads of packets.
    pub request: ReadRequestOut,
    /// What comes next.
    pub part: Signal<Out, Part>,
    /// There is something.
    pub part_valid: Signal<Out, Bit>,
    /// It has come.
    pub part_ready: Signal<In, Bit>,
    /// A packet of the queue is at hand.
    pub busy: [Signal<Out, Bit>; N],
    /// The last part of a packet of the queue is there to come: high for one cycle.
    pub packet: [Signal<Out, Bit>; N],
    state: Reg<ReadState>,
    turn: RoundRobin<N, 3>,
    /// Whose packet is at hand.
    queue: Reg<Bits<3>>,
    /// Bytes of this packet asked for, once its elements are.
    total: Reg<Bits<17>>,
    /// More elements of this packet are to come.
    in_packet: Reg<Bit>,
    /// Something of this packet was asked for.
    asked: Reg<Bit>,
    /// This packet is too long.
    long: Reg<Bit>,
    /// Beats kept free for parts to come.
    reserved: Reg<Bits<10>>,
    /// The element in hand, or what of it was not asked for yet.
    current: Reg<Element>,
    /// Bytes of the packet up to this element's end.
    sum: Reg<Bits<18>>,
    /// They are too many, or too few for a packet that ends here.
    over: Reg<Bit>,
    under: Reg<Bit>,
    /// What to ask for, and whether it is the element's end.
    piece: Reg<Bits<16>>,
    whole: Reg<Bit>,
    /// Beats to keep free for it.
    beats: Reg<Bits<8>>,
    /// Beats of a part that has come.
    released: Reg<Bits<8>>,
    /// The request offered.
    address: Reg<Bits<64>>,
    length: Reg<Bits<16>>,
    requesting: Reg<Bit>,
    parts: BlockFifo<Part, 6>,
}

#[hw]
impl<const N: usize> Logic for TransmitReader<N> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.total, self.in_packet, self.asked, self.long);
        registers!(self.clock, self.reset => self.reserved, self.released, self.requesting);
        registers!(self.clock => self.current, self.sum, self.over, self.under, self.piece, self.whole);
        registers!(self.clock => self.beats, self.address, self.length);
        registers!(self.clock => self.queue);
        clocked!(self.clock, self.reset => self.parts, self.turn);
        self.part.next = self.parts.read_data.val();
        self.part_valid.next = self.parts.read_valid.val();
        self.parts.read_ready.next = self.part_ready.val();
        self.request.address.next = self.address.q.val();
        self.request.length.next = self.length.q.val();
        self.request.valid.next = self.requesting.q.val();
        if self.request.ready.val() {
            self.requesting.d.next = false;
        }

        // Whose turn it is, and what that queue has.
        let queue = self.queue.q.val();
        let mut waiting = bits::<N>(0);
        let mut element = self.element[0].val();
        let mut element_valid = false;
        let mut stop = false;
        for q in 0..N {
            let asks = self.element_valid[q].val() && !self.stop[q].val();
            waiting = waiting.replace_bit(q, asks);
            if queue == bits::<3>(q as u64) {
                element = self.element[q].val();
                element_valid = self.element_valid[q].val();
                stop = self.stop[q].val();
            }
        }
        self.turn.requests.next = waiting;
        self.turn.advance.next = false;

        let current = self.current.q.val();
        let piece = self.piece.q.val();
        let whole = self.whole.q.val();
        let beats = self.beats.q.val();
        let last = current.last && whole;
        let mut reserve = false;
        let mut ends = false;
        self.released.d.next = if self.parts.read_valid.val() && self.part_ready.val() {
            self.parts.read_data.val().beats
        } else {
            bits::<8>(0)
        };
        let mut element_ready = false;
        let mut at_hand = true;
        self.parts.write_valid.next = false;
        // A packet that ends without being read.
        self.parts.write_data.next = Part {
            read: false,
            last: true,
            bad: true,
            used: true,
            queue: queue,
            id: current.id,
            slots: current.slots,
            beats: bits::<8>(0),
        };
        match self.state.q.val() {
            ReadState::Packet => {
                at_hand = false;
                self.queue.d.next = self.turn.index.val();
                if waiting.any() {
                    self.turn.advance.next = true;
                    self.state.d.next = ReadState::Element;
                }
            }
            ReadState::Element => {
                self.current.d.next = element;
                self.sum.d.next = self.total.q.val().resize::<18>() + element.length.resize::<18>();
                if stop && !self.in_packet.q.val() {
                    self.state.d.next = ReadState::Packet;
                } else if stop && self.parts.write_ready.val() {
                    self.parts.write_valid.next = true;
                    self.parts.write_data.next.used = false;
                    ends = true;
                    self.state.d.next = ReadState::Packet;
                } else if !stop && element_valid {
                    element_ready = true;
                    self.in_packet.d.next = !element.last;
                    self.state.d.next = ReadState::Piece;
                }
            }
            ReadState::Piece => {
                let sum = self.sum.q.val();
                let small = current.length < bits::<16>(PIECE + 8);
                let hash = self.hash_report.val();
                let longest = if hash {
                    bits::<18>(HASH_HEADER + MAX_FRAME)
                } else {
                    bits::<18>(HEADER + MAX_FRAME)
                };
                let shortest = if hash {
                    bits::<18>(HASH_HEADER + MIN_FRAME)
                } else {
                    bits::<18>(HEADER + MIN_FRAME)
                };
                self.whole.d.next = small;
                // Reads are cut at multiples of 8 (see `Splitter`): a further piece costs no further TLP.
                self.piece.d.next = if small {
                    current.length
                } else {
                    bits::<16>(PIECE) - current.address.get_bits::<3>(0).resize::<16>()
                };
                // Any alignment of the bytes before: one beat more than they fill alone.
                self.beats.d.next = if small {
                    current.length.get_bits::<8>(3) + 2
                } else {
                    bits::<8>(PIECE / 8 + 2)
                };
                // A length of 65535 stands for whatever is longer.
                self.over.d.next = self.long.q.val() || sum > longest || current.length.all();
                self.under.d.next = sum < shortest;
                self.state.d.next = ReadState::Room;
            }
            ReadState::Room => {
                let needed = self.reserved.q.val() + beats.resize::<10>();
                if self.over.q.val() || needed <= self.space.val() {
                    self.state.d.next = ReadState::Request;
                } else if stop {
                    self.in_packet.d.next = self.asked.q.val();
                    self.state.d.next = ReadState::Element;
                }
            }
            ReadState::Request => {
                if !self.requesting.q.val() {
                    self.address.d.next = current.address;
                    self.length.d.next = piece;
                }
                if self.parts.write_ready.val() && self.over.q.val() {
                    self.parts.write_valid.next = current.last;
                    self.long.d.next = true;
                    ends = current.last;
                    self.state.d.next = if ends {
                        ReadState::Packet
                    } else {
                        ReadState::Element
                    };
                } else if self.parts.write_ready.val() && !self.requesting.q.val() {
                    self.requesting.d.next = true;
                    self.parts.write_valid.next = true;
                    self.parts.write_data.next = Part {
                        read: true,
                        last,
                        bad: self.under.q.val(),
                        used: true,
                        queue: queue,
                        id: current.id,
                        slots: current.slots,
                        beats: beats,
                    };
                    reserve = true;
                    self.asked.d.next = true;
                    // As far as the next multiple of 8 behind 1 KiB; behind the last piece it matters no more.
                    self.current.d.next.address = cat::<64>((
                        current.address.get_bits::<54>(10) + 1,
                        current.address.get_bits::<7>(3),
                        bits::<3>(0),
                    ));
                    self.current.d.next.length = current.length - piece;
                    if whole {
                        self.total.d.next = self.sum.q.val().get_bits::<17>(0);
                        ends = current.last;
                        self.state.d.next = if ends {
                            ReadState::Packet
                        } else {
                            ReadState::Element
                        };
                    } else {
                        self.state.d.next = ReadState::Piece;
                    }
                }
            }
        }
        for q in 0..N {
            let mine = queue == bits::<3>(q as u64);
            self.element_ready[q].next = mine && element_ready;
            self.busy[q].next = mine && at_hand;
            self.packet[q].next = mine && ends;
        }
        if ends {
            self.in_packet.d.next = false;
            self.asked.d.next = false;
            self.long.d.next = false;
            self.total.d.next = bits::<17>(0);
        }
        let added = if reserve {
            beats.resize::<10>()
        } else {
            bits::<10>(0)
        };
        self.reserved.d.next = self.reserved.q.val() + added - self.released.q.val().resize::<10>();
    }
}
