//! PAUSE frames (IEEE 802.3 annex 31B), both ways.

use hematite_lang::prelude::*;

/// The group address of MAC control, its first octet lowest: 01-80-c2-00-00-01.
const ADDRESS: u64 = 0x0100_00c2_8001;
/// Type and opcode of a PAUSE frame, as its octets 12 to 15 come, the first lowest: 88 08 00 01.
const PAUSE: u64 = 0x0100_0888;
/// Longest pause that a frame can ask for.
const LONGEST: u64 = 0xffff;

/// Finds PAUSE frames to the group address among received frames; those to the port's own address, which the annex allows
/// too, are frames like any other. With `obey`, such a frame ends with `error`, so that it goes nowhere, and `received`
/// pulses a cycle after its last beat. A frame that ends with `error` by itself asks for nothing.
///
/// A beat a cycle, passed on in the same cycle; back-pressure passes through.
#[hw]
pub struct PauseReceive {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// The next beat starts a frame.
    pub reset: Signal<In, Bit>,
    /// PAUSE frames are for the port.
    pub obey: Signal<In, Bit>,
    /// Frames without frame check sequence.
    pub input: StreamIn,
    /// The same.
    pub output: StreamOut,
    /// For how long the latest one wants nothing to be sent, in quanta of 512 bit times, 0 to end a pause; stable until
    /// the next.
    pub quanta: Signal<Out, Bits<16>>,
    /// There was one: high for one cycle.
    pub received: Signal<Out, Bit>,
    /// Beats of the frame, up to three.
    beat: Reg<Bits<2>>,
    /// So far it is a PAUSE frame.
    matches: Reg<Bit>,
    asked: Reg<Bits<16>>,
    latest: Reg<Bits<16>>,
    due: Reg<Bit>,
}

#[hw]
impl Logic for PauseReceive {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.beat, self.due);
        registers!(self.clock => self.matches, self.asked, self.latest);
        let data = self.input.data.val();
        let last = self.input.last.val();
        let ours = self.obey.val() && self.matches.q.val() && self.beat.q.val().all();
        self.output.data.next = self.input.data.val();
        self.output.keep.next = self.input.keep.val();
        self.output.last.next = last;
        self.output.valid.next = self.input.valid.val();
        self.input.ready.next = self.output.ready.val();
        self.output.error.next = self.input.error.val() || (last && ours);
        self.due.d.next = false;
        if self.input.valid.val() && self.output.ready.val() {
            if !self.beat.q.val().all() {
                self.beat.d.next = self.beat.q.val() + 1;
            }
            match self.beat.q.val().index() {
                0 => self.matches.d.next = data.get_bits::<48>(0) == bits::<48>(ADDRESS),
                1 => {
                    self.matches.d.next =
                        self.matches.q.val() && data.get_bits::<32>(32) == bits::<32>(PAUSE);
                }
                2 => self.asked.d.next = cat::<16>((data.get_bits::<8>(0), data.get_bits::<8>(8))),
                _ => {}
            }
            if last {
                self.beat.d.next = bits::<2>(0);
                if ours && !self.input.error.val() {
                    self.latest.d.next = self.asked.q.val();
                    self.due.d.next = true;
                }
            }
        }
        self.quanta.next = self.latest.q.val();
        self.received.next = self.due.q.val();
    }
}

#[hw]
enum PauseState {
    /// The end of the frame before; nothing is on its way to the transmitter.
    Between,
    /// The last beat of a frame.
    FrameEnd,
    /// The last beat of a PAUSE frame.
    PauseEnd,
}

/// Holds frames back while the far end wants that, and makes PAUSE frames of its own: one of the longest pause when
/// `congested` rises, one more whenever half of it is over, one of 0 when it falls.
///
/// A beat a cycle, in the same cycle; a frame costs a cycle more than its beats, which the gap between frames hides. A frame that has begun is never held; a PAUSE frame waits for its end and
/// goes before all others, also in a pause.
#[hw]
pub struct PauseTransmit {
    /// Rising edge: the transmitter's clock.
    pub clock: Signal<In, Clock>,
    /// No pause, and the far end was told nothing.
    pub reset: Signal<In, Bit>,
    /// A byte time has passed.
    pub byte_time: Signal<In, Bit>,
    /// What a PAUSE frame asked for, in quanta: stable from `received` on.
    pub quanta: Signal<In, Bits<16>>,
    /// One came: high for one cycle.
    pub received: Signal<In, Bit>,
    /// Low ends a pause, and keeps others from beginning.
    pub obey: Signal<In, Bit>,
    /// The far end is to stop.
    pub congested: Signal<In, Bit>,
    /// The port's own address, its first octet in bits 7..0.
    pub mac: Signal<In, Bits<48>>,
    /// Whole frames, without pause inside.
    pub input: StreamIn,
    /// Frames to send.
    pub output: StreamOut,
    /// Frames are held back.
    pub paused: Signal<Out, Bit>,
    /// A PAUSE frame went to the transmitter: high for one cycle.
    pub sent: Signal<Out, Bit>,
    state: Reg<PauseState>,
    /// Byte times that are left of the pause.
    left: Reg<Bits<22>>,
    holding: Reg<Bit>,
    /// The far end was told to stop, and byte times since.
    told: Reg<Bit>,
    since: Reg<Bits<22>>,
    /// What the frame under way says.
    says: Reg<Bits<16>>,
    beat: Reg<Bits<2>>,
    sent_one: Reg<Bit>,
}

#[hw]
impl Logic for PauseTransmit {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.left, self.holding, self.told, self.sent_one);
        registers!(self.clock => self.since, self.says, self.beat);

        let left = self.left.q.val();
        self.holding.d.next = left.any();
        if !self.obey.val() {
            self.left.d.next = bits::<22>(0);
        } else if self.received.val() {
            self.left.d.next = cat::<22>((self.quanta.val(), bits::<6>(0)));
        } else if left.any() && self.byte_time.val() {
            self.left.d.next = left - 1;
        }
        self.paused.next = self.holding.q.val();

        let congested = self.congested.val();
        // Half of 65535 quanta.
        let again = self.since.q.val().get_bit(21);
        let speaks = congested != self.told.q.val() || (congested && again);
        if self.byte_time.val() && !again {
            self.since.d.next = self.since.q.val() + 1;
        }

        self.input.ready.next = false;
        self.sent_one.d.next = false;
        self.sent.next = self.sent_one.q.val();
        self.output.data.next = self.input.data.val();
        self.output.keep.next = self.input.keep.val();
        self.output.last.next = self.input.last.val();
        self.output.error.next = self.input.error.val();
        self.output.valid.next = false;
        match self.state.q.val() {
            PauseState::Between => {
                self.beat.d.next = bits::<2>(0);
                if speaks {
                    self.told.d.next = congested;
                    self.says.d.next = if congested {
                        bits::<16>(LONGEST)
                    } else {
                        bits::<16>(0)
                    };
                    self.since.d.next = bits::<22>(0);
                    self.state.d.next = PauseState::PauseEnd;
                } else if self.input.valid.val() && !self.holding.q.val() {
                    self.state.d.next = PauseState::FrameEnd;
                }
            }
            PauseState::FrameEnd => {
                self.output.valid.next = self.input.valid.val();
                self.input.ready.next = self.output.ready.val();
                if self.input.valid.val() && self.output.ready.val() && self.input.last.val() {
                    self.state.d.next = PauseState::Between;
                }
            }
            PauseState::PauseEnd => {
                let mac = self.mac.val();
                let says = self.says.q.val();
                self.output.valid.next = true;
                self.output.error.next = false;
                // The transmitter pads it.
                let last = self.beat.q.val() == bits::<2>(2);
                self.output.last.next = last;
                self.output.keep.next = 0xff.into();
                self.output.data.next = match self.beat.q.val().index() {
                    0 => cat::<64>((mac.get_bits::<16>(0), bits::<48>(ADDRESS))),
                    1 => cat::<64>((bits::<32>(PAUSE), mac.get_bits::<32>(16))),
                    _ => cat::<64>((bits::<48>(0), says.get_bits::<8>(0), says.get_bits::<8>(8))),
                };
                if self.output.ready.val() {
                    self.beat.d.next = self.beat.q.val() + 1;
                    if last {
                        self.sent_one.d.next = true;
                        self.state.d.next = PauseState::Between;
                    }
                }
            }
        }
    }
}
