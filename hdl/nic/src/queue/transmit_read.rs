//! From the elements of packets to transmit to reads of host memory.

use hematite_lang::prelude::*;

use super::fetch::Element;
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
    Request,
}

/// Asks for the bytes of packets ahead of time: up to 32 reads of any number of packets in flight, so
/// long as the frame FIFO has room for all that was asked for; three cycles an element, and one request
/// waits for the read engine meanwhile.
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
    /// Bytes of the packet up to this element.
    sum: Reg<Bits<17>>,
    /// They are too many.
    over: Reg<Bit>,
    /// Beats to keep free for this element.
    beats: Reg<Bits<16>>,
    /// Beats of a part that has come.
    released: Reg<Bits<16>>,
    /// The request offered.
    address: Reg<Bits<64>>,
    length: Reg<Bits<16>>,
    requesting: Reg<Bit>,
    parts: Fifo<Part, 5>,
    oldest: Skid<Part>,
}

#[hw]
impl Logic for TransmitReader {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.total, self.in_packet, self.long, self.reserved);
        registers!(self.clock, self.reset => self.released, self.requesting);
        registers!(self.clock => self.limit, self.current, self.sum, self.over, self.beats);
        registers!(self.clock => self.address, self.length);
        clocked!(self.clock, self.reset => self.parts, self.oldest);
        self.oldest.write_data.next = self.parts.read_data.val();
        self.oldest.write_valid.next = self.parts.read_valid.val();
        self.parts.read_ready.next = self.oldest.write_ready.val();
        self.part.next = self.oldest.read_data.val();
        self.part_valid.next = self.oldest.read_valid.val();
        self.oldest.read_ready.next = self.part_ready.val();
        self.request.address.next = self.address.q.val();
        self.request.length.next = self.length.q.val();
        self.request.valid.next = self.requesting.q.val();
        if self.request.ready.val() {
            self.requesting.d.next = false;
        }

        self.limit.d.next = self.max_frame.val() + HEADER;
        let element = self.element.val();
        let current = self.current.q.val();
        let sum = self.sum.q.val();
        let beats = self.beats.q.val();
        let mut reserve = false;
        self.released.d.next = if self.oldest.read_valid.val() && self.part_ready.val() {
            self.oldest.read_data.val().beats
        } else {
            bits::<16>(0)
        };
        self.element_ready.next = false;
        self.parts.write_valid.next = false;
        // A packet that ends without being read.
        self.parts.write_data.next = Part {
            read: false,
            last: true,
            bad: true,
            used: true,
            id: current.id,
            slots: current.slots,
            beats: bits::<16>(0),
        };
        self.quiet.next = false;
        match self.state.q.val() {
            ReadState::Element => {
                self.quiet.next = !self.in_packet.q.val()
                    && !self.parts.read_valid.val()
                    && !self.oldest.read_valid.val()
                    && !self.requesting.q.val();
                self.current.d.next = element;
                // Any alignment of the bytes before: one beat more than they fill alone.
                self.beats.d.next = (element.length >> 3) + 2;
                self.sum.d.next = self.total.q.val().resize::<17>() + element.length.resize::<17>();
                if self.stop.val() && self.in_packet.q.val() && self.parts.write_ready.val() {
                    self.parts.write_valid.next = true;
                    self.parts.write_data.next.used = false;
                    self.in_packet.d.next = false;
                    self.long.d.next = false;
                    self.total.d.next = 0.into();
                } else if !self.stop.val() && self.element_valid.val() {
                    self.element_ready.next = true;
                    self.in_packet.d.next = !element.last;
                    self.state.d.next = ReadState::Room;
                }
            }
            ReadState::Room => {
                let over = self.long.q.val() || sum > self.limit.q.val().resize::<17>();
                self.over.d.next = over;
                let needed = self.reserved.q.val().resize::<17>() + beats.resize::<17>();
                if over || needed <= self.space.val().resize::<17>() {
                    self.state.d.next = ReadState::Request;
                }
            }
            ReadState::Request => {
                if !self.requesting.q.val() {
                    self.address.d.next = current.address;
                    self.length.d.next = current.length;
                }
                if self.parts.write_ready.val() && self.over.q.val() {
                    self.parts.write_valid.next = current.last;
                    self.long.d.next = !current.last;
                    self.total.d.next = 0.into();
                    self.state.d.next = ReadState::Element;
                } else if self.parts.write_ready.val() && !self.requesting.q.val() {
                    self.requesting.d.next = true;
                    self.parts.write_valid.next = true;
                    self.parts.write_data.next = Part {
                        read: true,
                        last: current.last,
                        bad: sum < bits::<17>(HEADER + MIN_FRAME),
                        used: true,
                        id: current.id,
                        slots: current.slots,
                        beats: beats,
                    };
                    reserve = true;
                    self.total.d.next = if current.last {
                        bits::<16>(0)
                    } else {
                        sum.get_bits::<16>(0)
                    };
                    self.state.d.next = ReadState::Element;
                }
            }
        }
        let added = if reserve { beats } else { bits::<16>(0) };
        self.reserved.d.next = self.reserved.q.val() + added - self.released.q.val();
    }
}
