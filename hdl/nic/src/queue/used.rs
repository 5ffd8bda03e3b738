//! Used descriptors: back to the packed ring, in order, several in one write.

use hematite_lang::prelude::*;

use super::slots::SlotsOut;

/// A buffer that the device has used.
#[hw(value)]
pub struct UsedBuffer {
    /// Buffer ID.
    pub id: Bits<16>,
    /// Bytes written to it, 0 for a device-readable buffer.
    pub length: Bits<16>,
    /// Ring slots of its chain.
    pub slots: Bits<8>,
    /// First buffer of its packet.
    pub first: Bit,
    /// Last buffer of its packet.
    pub last: Bit,
}

/// What is kept of a used buffer until it is written.
#[hw(value)]
struct Kept {
    id: Bits<16>,
    length: Bits<16>,
    /// The wrap counter at its slot.
    wrap: Bit,
}

#[hw]
enum UsedState {
    Buffers,
    Grant,
    Data,
}

/// Writes used descriptors (virtio 1.3 section 2.8.9): the address is 0, AVAIL and USED equal the wrap
/// counter, WRITE says that `length` means something. Buffers of one slot that follow each other go
/// out in one write of up to `2^A`, which ends at the ring's end.
///
/// A write starts at once when none has started in the last `HOLD` cycles, else when the batch is full
/// or those cycles are over: no latency when idle, few bytes under load. The first descriptor of a
/// packet with several buffers is written after all the others of the packet, in a write of its own,
/// so the driver sees a whole packet or none.
///
/// Takes a buffer each cycle while collecting; a write of n takes 2n+2 cycles, during which it takes
/// none. `written` pulses when a write that shows the driver a packet will be seen by the host before anything sent from
/// then on; the writes before the first descriptor of a packet with several buffers show nothing.
#[hw]
pub struct UsedWriter<const A: usize, const HOLD: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Forgets the ring position; low only while nothing is in flight.
    pub reset: Signal<In, Bit>,
    /// Write what there is without waiting for more.
    pub stop: Signal<In, Bit>,
    /// Descriptors in the ring.
    pub size: Signal<In, Bits<13>>,
    /// A used buffer, in the order in which buffers were made available.
    pub used: Signal<In, UsedBuffer>,
    /// There is one.
    pub used_valid: Signal<In, Bit>,
    /// It is taken.
    pub used_ready: Signal<Out, Bit>,
    /// Writes of used descriptors.
    pub request: SlotsOut,
    /// Their bytes.
    pub data: StreamOut,
    /// The write that is requested shows the driver something.
    pub shows: Signal<Out, Bit>,
    /// The oldest write that is not done is now done.
    pub done: Signal<In, Bit>,
    /// It was requested with `shows`.
    pub done_shows: Signal<In, Bit>,
    /// The last buffer of a packet was taken.
    pub packet: Signal<Out, Bit>,
    /// New used descriptors are in host memory, where the driver sees them.
    pub written: Signal<Out, Bit>,
    /// Nothing is waiting or in flight.
    pub quiet: Signal<Out, Bit>,
    state: Reg<UsedState>,
    /// The slot of the next used buffer.
    position: Reg<Bits<12>>,
    #[reset(true)]
    wrap: Reg<Bit>,
    batch: LutRam<Kept, A>,
    /// Descriptors in the batch.
    count: Reg<Bits<5>>,
    /// There are some, and there is no room for more.
    some: Reg<Bit>,
    full: Reg<Bit>,
    /// The slot of its first one.
    start: Reg<Bits<12>>,
    /// Nothing more can join it.
    closed: Reg<Bit>,
    /// The first descriptor of a packet of several buffers, and its slot.
    held: Reg<Kept>,
    held_at: Reg<Bits<12>>,
    held_valid: Reg<Bit>,
    /// The others are out of the way.
    held_due: Reg<Bit>,
    /// The descriptor whose bytes go out.
    index: Reg<Bits<A>>,
    second: Reg<Bit>,
    /// Cycles until a write need not wait for more.
    hold: Reg<Bits<12>>,
    #[reset(true)]
    due: Reg<Bit>,
    in_flight: Reg<Bits<6>>,
}

#[hw]
impl<const A: usize, const HOLD: usize> Logic for UsedWriter<A, HOLD> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.position, self.wrap, self.count, self.closed);
        assert!(A <= 4 && HOLD < 1 << 12);
        registers!(self.clock, self.reset => self.held_valid, self.held_due, self.due, self.in_flight);
        registers!(self.clock, self.reset => self.some, self.full);
        registers!(self.clock => self.start, self.held, self.held_at, self.hold, self.index, self.second);
        clocked!(self.clock => self.batch);

        let used = self.used.val();
        let wrap = self.wrap.q.val();
        let kept = Kept {
            id: used.id,
            length: used.length,
            wrap,
        };
        // Flags from bit 48: WRITE is bit 1, AVAIL bit 7, USED bit 15.
        let oldest = self.batch.read_data.val();
        let wrote = oldest.length.any();
        let descriptor = cat::<64>((
            cat::<16>((oldest.wrap, bits::<7>(0), oldest.wrap, bits::<5>(0), wrote, false)),
            oldest.id,
            bits::<16>(0),
            oldest.length,
        ));
        let some = self.some.q.val();
        let full = self.full.q.val();
        let due = self.due.q.val() || self.stop.val();
        let opens = used.first && !used.last;
        let after = self.position.q.val().resize::<14>() + used.slots.resize::<14>();
        let beyond = after - self.size.val().resize::<14>();
        let wraps = !beyond.get_bit(13);

        self.hold.d.next = self.hold.q.val() - 1;
        if !self.hold.q.val().any() {
            self.due.d.next = true;
        }
        self.batch.write_enable.next = false;
        self.batch.write_address.next = self.count.q.val().resize::<A>();
        self.batch.write_data.next = kept;
        self.batch.read_address.next = self.index.q.val();
        self.used_ready.next = false;
        self.packet.next = false;
        self.request.slot.next = self.start.q.val();
        self.request.count.next = self.count.q.val();
        self.request.valid.next = false;
        self.data.valid.next = false;
        self.data.data.next = if self.second.q.val() {
            descriptor
        } else {
            bits::<64>(0)
        };
        self.data.keep.next = 0xff.into();
        let final_index = (self.count.q.val() - 1).resize::<A>();
        self.data.last.next = self.second.q.val() && self.index.q.val() == final_index;
        self.data.error.next = false;
        let mut starts = false;
        // What these hold while there is nothing of theirs doesn't matter.
        if !self.held_valid.q.val() {
            self.held.d.next = kept;
            self.held_at.d.next = self.position.q.val();
        }
        if !some {
            self.start.d.next = if self.held_due.q.val() {
                self.held_at.q.val()
            } else {
                self.position.q.val()
            };
        }
        match self.state.q.val() {
            UsedState::Buffers => {
                self.index.d.next = 0.into();
                self.second.d.next = false;
                if self.closed.q.val() || full {
                    self.state.d.next = UsedState::Grant;
                } else if self.held_due.q.val() {
                    // The batch is empty: whatever was in it went out when the packet ended.
                    self.batch.write_enable.next = true;
                    self.batch.write_data.next = self.held.q.val();
                    self.count.d.next = 1.into();
                    self.some.d.next = true;
                    self.full.d.next = false;
                    self.closed.d.next = true;
                    self.held_due.d.next = false;
                    self.held_valid.d.next = false;
                } else if self.used_valid.val() && opens && some {
                    self.closed.d.next = true;
                } else if self.used_valid.val() {
                    self.used_ready.next = true;
                    self.packet.next = used.last;
                    if wraps {
                        self.position.d.next = beyond.get_bits::<12>(0);
                        self.wrap.d.next = !wrap;
                    } else {
                        self.position.d.next = after.get_bits::<12>(0);
                    }
                    if opens {
                        self.held_valid.d.next = true;
                    } else {
                        self.batch.write_enable.next = true;
                        self.count.d.next = self.count.q.val() + 1;
                        self.some.d.next = true;
                        self.full.d.next = self.count.q.val() == bits::<5>((1 << A) - 1);
                        let ends_packet = self.held_valid.q.val() && used.last;
                        self.held_due.d.next = ends_packet;
                        // What follows is not in the next slot, or must not go out with it.
                        self.closed.d.next = ends_packet || used.slots != bits::<8>(1) || wraps;
                    }
                } else if some && due {
                    self.state.d.next = UsedState::Grant;
                }
            }
            UsedState::Grant => {
                self.request.valid.next = true;
                if self.request.ready.val() {
                    starts = true;
                    self.hold.d.next = bits::<12>(HOLD as u64);
                    self.due.d.next = false;
                    self.state.d.next = UsedState::Data;
                }
            }
            UsedState::Data => {
                self.data.valid.next = true;
                if self.data.ready.val() {
                    self.second.d.next = !self.second.q.val();
                    if self.second.q.val() {
                        self.index.d.next = self.index.q.val() + 1;
                        if self.index.q.val() == final_index {
                            self.count.d.next = 0.into();
                            self.some.d.next = false;
                            self.full.d.next = false;
                            self.closed.d.next = false;
                            self.state.d.next = UsedState::Buffers;
                        }
                    }
                }
            }
        }
        if starts && !self.done.val() {
            self.in_flight.d.next = self.in_flight.q.val() + 1;
        }
        if !starts && self.done.val() {
            self.in_flight.d.next = self.in_flight.q.val() - 1;
        }
        // The first descriptor of a packet that is on its way is held back from this write.
        self.shows.next = !self.held_valid.q.val();
        self.written.next = self.done.val() && self.done_shows.val();
        self.quiet.next = matches!(self.state.q.val(), UsedState::Buffers)
            && !some
            && !self.held_valid.q.val()
            && !self.in_flight.q.val().any();
    }
}
