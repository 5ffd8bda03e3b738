//! From the elements of packets to transmit to reads of host memory.

use hematite_lang::prelude::*;

use super::fetch::Element;
use crate::dma::ports::ReadRequestOut;
use crate::slice::Slice;

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
    /// Buffer ID.
    pub id: Bits<16>,
    /// Ring slots of the buffer.
    pub slots: Bits<8>,
    /// Beats kept free for it in the frame FIFO.
    pub beats: Bits<16>,
}

/// `struct virtio_net_hdr_v1` (virtio 1.3 section 5.1.6): bytes before each frame.
const HEADER: u64 = 12;
/// The shortest frame: two addresses and a type.
const MIN_FRAME: u64 = 14;

#[hw]
enum ReadState {
    Element,
    Room,
    Grant,
}

/// Asks for the bytes of packets ahead of time: up to 32 reads of any number of packets in flight, so
/// long as the frame FIFO has room for all that was asked for; three cycles an element.
///
/// A packet that would become longer than `max_frame` is read no further and marked bad, and so is one
/// too short to hold a header and a 14-byte frame; their buffers are used all the same. When `stop`
/// rises inside a packet, it ends as bad and its buffer is not used.
#[hw]
pub struct TransmitReader {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Back to the start.
    pub reset: Signal<In, Bit>,
    /// Ask for nothing more.
    pub stop: Signal<In, Bit>,
    /// Bytes of the longest frame, without FCS.
    pub max_frame: Signal<In, Bits<16>>,
    /// Free beats in the frame FIFO; it must hold the longest frame and two beats.
    pub space: Signal<In, Bits<16>>,
    /// The next element of an available buffer.
    pub element: Signal<In, Element>,
    /// There is one.
    pub element_valid: Signal<In, Bit>,
    /// It is taken.
    pub element_ready: Signal<Out, Bit>,
    /// Reads of packets.
    pub request: ReadRequestOut,
    /// What comes next.
    pub part: Signal<Out, Part>,
    /// There is something.
    pub part_valid: Signal<Out, Bit>,
    /// It has come.
    pub part_ready: Signal<In, Bit>,
    /// No packet is half asked for, and nothing is to come.
    pub quiet: Signal<Out, Bit>,
    state: Reg<ReadState>,
    /// Bytes of this packet asked for.
    total: Reg<Bits<16>>,
    /// Elements of this packet came before.
    in_packet: Reg<Bit>,
    /// This packet is too long.
    long: Reg<Bit>,
    /// Beats kept free for parts to come.
    reserved: Reg<Bits<16>>,
    limit: Reg<Bits<16>>,
    current: Reg<Element>,
    parts: Fifo<Part, 5>,
    oldest: Slice<Part>,
}

#[hw]
impl Logic for TransmitReader {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.total, self.in_packet, self.long, self.reserved);
        registers!(self.clock => self.limit, self.current);
        clocked!(self.clock, self.reset => self.parts, self.oldest);
        self.oldest.write_data.next = self.parts.read_data.val();
        self.oldest.write_valid.next = self.parts.read_valid.val();
        self.parts.read_ready.next = self.oldest.write_ready.val();
        self.part.next = self.oldest.read_data.val();
        self.part_valid.next = self.oldest.read_valid.val();
        self.oldest.read_ready.next = self.part_ready.val();

        self.limit.d.next = self.max_frame.val() + HEADER;
        let element = self.element.val();
        let current = self.current.q.val();
        // Any alignment of the bytes before: one beat more than they fill alone.
        let beats = (current.length >> 3) + 2;
        let needed = self.reserved.q.val().resize::<17>() + beats.resize::<17>();
        let mut reserve = false;
        let release = self.oldest.read_valid.val() && self.part_ready.val();
        let released = self.oldest.read_data.val().beats;
        self.element_ready.next = false;
        self.request.address.next = current.address;
        self.request.length.next = current.length;
        self.request.valid.next = false;
        self.parts.write_valid.next = false;
        self.parts.write_data.next = Part {
            read: true,
            last: current.last,
            bad: self.total.q.val() < bits::<16>(HEADER + MIN_FRAME),
            used: true,
            id: current.id,
            slots: current.slots,
            beats: beats,
        };
        self.quiet.next = false;
        match self.state.q.val() {
            ReadState::Element => {
                self.quiet.next =
                    !self.in_packet.q.val() && !self.parts.read_valid.val() && !self.oldest.read_valid.val();
                self.current.d.next = element;
                let total = self.total.q.val().resize::<17>() + element.length.resize::<17>();
                if self.stop.val() && self.in_packet.q.val() && self.parts.write_ready.val() {
                    self.parts.write_valid.next = true;
                    self.parts.write_data.next = Part {
                        read: false,
                        last: true,
                        bad: true,
                        used: false,
                        id: bits::<16>(0),
                        slots: bits::<8>(0),
                        beats: bits::<16>(0),
                    };
                    self.in_packet.d.next = false;
                    self.long.d.next = false;
                    self.total.d.next = 0.into();
                } else if !self.stop.val() && self.element_valid.val() && self.parts.write_ready.val() {
                    self.element_ready.next = true;
                    self.in_packet.d.next = !element.last;
                    if self.long.q.val() || total > self.limit.q.val().resize::<17>() {
                        self.long.d.next = !element.last;
                        if element.last {
                            self.total.d.next = 0.into();
                            self.parts.write_valid.next = true;
                            self.parts.write_data.next = Part {
                                read: false,
                                last: true,
                                bad: true,
                                used: true,
                                id: element.id,
                                slots: element.slots,
                                beats: bits::<16>(0),
                            };
                        }
                    } else {
                        self.total.d.next = total.get_bits::<16>(0);
                        self.state.d.next = ReadState::Room;
                    }
                }
            }
            ReadState::Room => {
                if needed <= self.space.val().resize::<17>() && self.parts.write_ready.val() {
                    self.state.d.next = ReadState::Grant;
                }
            }
            ReadState::Grant => {
                self.request.valid.next = true;
                if self.request.ready.val() {
                    self.parts.write_valid.next = true;
                    reserve = true;
                    if current.last {
                        self.total.d.next = 0.into();
                    }
                    self.state.d.next = ReadState::Element;
                }
            }
        }
        let added = if reserve { beats } else { bits::<16>(0) };
        let removed = if release { released } else { bits::<16>(0) };
        self.reserved.d.next = self.reserved.q.val() + added - removed;
    }
}
