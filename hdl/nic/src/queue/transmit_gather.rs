//! From the responses of reads to frames.

use hematite_lang::prelude::*;

use super::bytes::{count_bytes, keep_bytes, mask_bytes};
use super::transmit_read::Part;
use super::used::UsedBuffer;

/// A beat of a response, its bytes counted.
#[hw(value)]
pub struct CountedBeat {
    /// The bytes, the others zero.
    pub data: Bits<64>,
    /// How many, 0..=8.
    pub count: Bits<4>,
    /// Ends the response.
    pub last: Bit,
    /// The response is useless.
    pub error: Bit,
}

#[hw]
enum PackState {
    Part,
    Flush,
    Used,
}

/// Joins the parts of each packet, of any length and alignment, into full beats, and says which buffer
/// is used when all its bytes have come. One beat in and at most one out each cycle; a packet takes one
/// cycle more for its used buffer and sometimes one for its last bytes.
///
/// The last beat of a packet may be empty; its `error` says that the packet must not be sent. After a
/// read error it fails, until cleared, and hands on no more used buffers.
#[hw]
pub struct PacketPacker {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Back to the start.
    pub reset: Signal<In, Bit>,
    /// Forgets a failure; only while nothing is in flight.
    pub clear: Signal<In, Bit>,
    /// What comes next.
    pub part: Signal<In, Part>,
    /// There is something.
    pub part_valid: Signal<In, Bit>,
    /// It has come.
    pub part_ready: Signal<Out, Bit>,
    /// The bytes of parts.
    pub response: StreamIn,
    /// Packets, header first.
    pub packet: StreamOut,
    /// A buffer that is no longer needed.
    pub used: Signal<Out, UsedBuffer>,
    /// There is one.
    pub used_valid: Signal<Out, Bit>,
    /// It is taken.
    pub used_ready: Signal<In, Bit>,
    /// Nothing is held.
    pub quiet: Signal<Out, Bit>,
    /// A read failed; high until cleared.
    pub failed: Signal<Out, Bit>,
    counted: Skid<CountedBeat>,
    state: Reg<PackState>,
    /// 0..=7 bytes that do not fill a beat.
    carry: Reg<Bits<64>>,
    carried: Reg<Bits<4>>,
    /// The packet must not be sent.
    bad: Reg<Bit>,
    broken: Reg<Bit>,
    buffer: Reg<UsedBuffer>,
    uses: Reg<Bit>,
    beat: Reg<Beat>,
    beat_valid: Reg<Bit>,
}

#[hw]
impl Logic for PacketPacker {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.carry, self.carried, self.bad);
        registers!(self.clock, self.reset => self.broken, self.beat_valid);
        registers!(self.clock => self.buffer, self.uses, self.beat);
        clocked!(self.clock, self.reset => self.counted);
        self.counted.write_data.next = CountedBeat {
            data: mask_bytes(self.response.data.val(), self.response.keep.val()),
            count: count_bytes(self.response.keep.val()),
            last: self.response.last.val(),
            error: self.response.error.val(),
        };
        self.counted.write_valid.next = self.response.valid.val();
        self.response.ready.next = self.counted.write_ready.val();
        let response = self.counted.read_data.val();
        let some = self.counted.read_valid.val();
        let part = self.part.val();
        let beat = self.beat.q.val();
        self.packet.data.next = beat.data;
        self.packet.keep.next = beat.keep;
        self.packet.last.next = beat.last;
        self.packet.error.next = beat.error;
        self.packet.valid.next = self.beat_valid.q.val();
        // The reader's word alone: it does not depend on `beat_valid`, and comes from a register.
        let free = self.packet.ready.val();
        if free {
            self.beat_valid.d.next = false;
        }
        self.used.next = self.buffer.q.val();
        self.used_valid.next = false;
        self.part_ready.next = false;
        self.counted.read_ready.next = false;

        let carried = self.carried.q.val();
        let fresh = if part.read { response.data } else { bits::<64>(0) };
        let count = if part.read { response.count } else { bits::<4>(0) };
        let window =
            self.carry.q.val().resize::<128>() | (fresh.resize::<128>() << cat::<7>((carried, bits::<3>(0))));
        let held = carried.resize::<5>() + count.resize::<5>();
        match self.state.q.val() {
            PackState::Part => {
                let go = self.part_valid.val() && free && (!part.read || some);
                self.counted.read_ready.next = self.part_valid.val() && free && part.read;
                if go {
                    let part_ends = !part.read || response.last;
                    let error = part.read && response.last && response.error;
                    let ends = part_ends && part.last;
                    let bad = self.bad.q.val() || error || (ends && part.bad);
                    self.bad.d.next = bad;
                    self.part_ready.next = part_ends;
                    if error {
                        self.broken.d.next = true;
                    }
                    let overflows = held > bits::<5>(8);
                    let fills = held >= bits::<5>(8);
                    self.beat_valid.d.next = fills || ends;
                    self.beat.d.next = Beat {
                        data: window.get_bits::<64>(0),
                        keep: keep_bytes(if fills {
                            bits::<4>(8)
                        } else {
                            held.get_bits::<4>(0)
                        }),
                        last: ends && !overflows,
                        error: bad,
                    };
                    if fills {
                        self.carry.d.next = window.get_bits::<64>(64);
                        self.carried.d.next = (held - 8).get_bits::<4>(0);
                    } else {
                        self.carry.d.next = window.get_bits::<64>(0);
                        self.carried.d.next = held.get_bits::<4>(0);
                    }
                    self.buffer.d.next = UsedBuffer {
                        id: part.id,
                        length: bits::<16>(0),
                        slots: part.slots,
                        first: true,
                        last: true,
                    };
                    let uses = part.used && !error && !self.broken.q.val();
                    self.uses.d.next = uses;
                    if ends {
                        if overflows {
                            self.state.d.next = PackState::Flush;
                        } else {
                            self.carry.d.next = 0.into();
                            self.carried.d.next = 0.into();
                            self.bad.d.next = false;
                            if uses {
                                self.state.d.next = PackState::Used;
                            }
                        }
                    }
                }
            }
            PackState::Flush => {
                if free {
                    self.beat_valid.d.next = true;
                    self.beat.d.next = Beat {
                        data: self.carry.q.val(),
                        keep: keep_bytes(carried),
                        last: true,
                        error: self.bad.q.val(),
                    };
                    self.carry.d.next = 0.into();
                    self.carried.d.next = 0.into();
                    self.bad.d.next = false;
                    self.state.d.next = if self.uses.q.val() {
                        PackState::Used
                    } else {
                        PackState::Part
                    };
                }
            }
            PackState::Used => {
                self.used_valid.next = true;
                if self.used_ready.val() {
                    self.state.d.next = PackState::Part;
                }
            }
        }
        if self.clear.val() {
            self.broken.d.next = false;
        }
        self.failed.next = self.broken.q.val();
        self.quiet.next = matches!(self.state.q.val(), PackState::Part) && !self.beat_valid.q.val();
    }
}

#[hw]
enum StripState {
    Header,
    Second,
    Frame,
    Tail,
}

/// Takes the 12-byte header off each packet. A header that asks for an offload (NEEDS_CSUM in flags, or gso_type
/// not zero, virtio 1.3 section 5.1.6.2: none is offered) makes the packet bad; the other flags mean nothing to
/// a device (5.1.6.2.2). A bad packet ends with `error`, or leaves nothing when it ends within 12 bytes. One beat each cycle; a frame of n bytes
/// takes ceil(n/8) cycles and two.
#[hw]
pub struct HeaderStripper {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Back to the start.
    pub reset: Signal<In, Bit>,
    /// Packets, header first.
    pub packet: StreamIn,
    /// Frames.
    pub frame: StreamOut,
    /// Inside no packet.
    pub quiet: Signal<Out, Bit>,
    /// Counter event: a frame was handed on.
    pub tx_sent: Signal<Out, Bit>,
    /// Counter event: a packet was dropped.
    pub tx_bad_frame: Signal<Out, Bit>,
    state: Reg<StripState>,
    carry: Reg<Bits<32>>,
    carried: Reg<Bits<4>>,
    bad: Reg<Bit>,
    beat: Reg<Beat>,
    beat_valid: Reg<Bit>,
}

#[hw]
impl Logic for HeaderStripper {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.beat_valid);
        registers!(self.clock => self.carry, self.carried, self.bad, self.beat);
        let beat = self.beat.q.val();
        self.frame.data.next = beat.data;
        self.frame.keep.next = beat.keep;
        self.frame.last.next = beat.last;
        self.frame.error.next = beat.error;
        self.frame.valid.next = self.beat_valid.q.val();
        let free = !self.beat_valid.q.val() || self.frame.ready.val();
        if self.frame.ready.val() {
            self.beat_valid.d.next = false;
        }
        self.packet.ready.next = false;
        self.tx_sent.next = false;
        self.tx_bad_frame.next = false;
        let data = self.packet.data.val();
        let keep = self.packet.keep.val();
        let some = self.packet.valid.val();
        match self.state.q.val() {
            StripState::Header => {
                self.packet.ready.next = true;
                if some {
                    self.bad.d.next = data.get_bit(0) || data.get_bits::<8>(8).any();
                    if self.packet.last.val() {
                        self.tx_bad_frame.next = true;
                    } else {
                        self.state.d.next = StripState::Second;
                    }
                }
            }
            StripState::Second => {
                self.packet.ready.next = free;
                if some && free {
                    self.carry.d.next = data.get_bits::<32>(32);
                    self.carried.d.next = count_bytes(keep.get_bits::<4>(4).resize::<8>());
                    if !self.packet.last.val() {
                        self.state.d.next = StripState::Frame;
                    } else if keep.get_bit(4) {
                        self.bad.d.next = self.bad.q.val() || self.packet.error.val();
                        self.state.d.next = StripState::Tail;
                    } else {
                        self.tx_bad_frame.next = true;
                        self.state.d.next = StripState::Header;
                    }
                }
            }
            StripState::Frame => {
                self.packet.ready.next = free;
                if some && free {
                    let ends = self.packet.last.val() && !keep.get_bit(4);
                    let bad = self.bad.q.val() || (self.packet.last.val() && self.packet.error.val());
                    self.bad.d.next = bad;
                    self.carry.d.next = data.get_bits::<32>(32);
                    self.carried.d.next = count_bytes(keep.get_bits::<4>(4).resize::<8>());
                    self.beat_valid.d.next = true;
                    self.beat.d.next = Beat {
                        data: cat::<64>((data.get_bits::<32>(0), self.carry.q.val())),
                        keep: cat::<8>((keep.get_bits::<4>(0), bits::<4>(15))),
                        last: ends,
                        error: bad && ends,
                    };
                    if ends {
                        self.tx_sent.next = !bad;
                        self.tx_bad_frame.next = bad;
                        self.state.d.next = StripState::Header;
                    } else if self.packet.last.val() {
                        self.state.d.next = StripState::Tail;
                    }
                }
            }
            StripState::Tail => {
                if free {
                    self.beat_valid.d.next = true;
                    self.beat.d.next = Beat {
                        data: self.carry.q.val().resize::<64>(),
                        keep: keep_bytes(self.carried.q.val()),
                        last: true,
                        error: self.bad.q.val(),
                    };
                    self.tx_sent.next = !self.bad.q.val();
                    self.tx_bad_frame.next = self.bad.q.val();
                    self.state.d.next = StripState::Header;
                }
            }
        }
        self.quiet.next = matches!(self.state.q.val(), StripState::Header) && !self.beat_valid.q.val();
    }
}
