//! Memory writes from the host, performed on the registers.

use hematite_lang::prelude::*;

use super::buffer::TlpBeat;
use super::ports::RegisterOut;

#[hw]
enum State {
    Header,
    Address,
    Decision,
    Word,
    Rest,
}

/// Performs memory write TLPs on the register bus, a DW at a time with its byte enables.
///
/// Throughput: one DW per register access, about 5 cycles. A write that misses BAR 0, or comes while
/// `enable` is low, is dropped and counted as unsupported.
#[hw]
pub struct Writer {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Drops everything.
    pub reset: Signal<In, Bit>,
    /// Memory write TLPs, well-formed.
    pub tlp: StreamIn,
    /// Memory Space Enable, in D0.
    pub enable: Signal<In, Bit>,
    /// BAR 0.
    pub base: Signal<In, Bits<64>>,
    /// Nothing was left to be performed, nor coming, in the cycle before.
    pub idle: Signal<Out, Bit>,
    /// The register bus.
    pub bus: RegisterOut,
    /// A write was dropped.
    pub unsupported: Signal<Out, Bit>,
    queue: SlowFifo<TlpBeat, 5>,
    state: Reg<State>,
    four: Reg<Bit>,
    length: Reg<Bits<10>>,
    first_enables: Reg<Bits<4>>,
    last_enables: Reg<Bits<4>>,
    address: Reg<Bits<14>>,
    /// The next DW is the upper one of the beat.
    upper: Reg<Bit>,
    first: Reg<Bit>,
    /// The address is in BAR 0.
    hit: Reg<Bit>,
    quiet: Reg<Bit>,
}

#[hw]
impl Logic for Writer {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.upper, self.first, self.quiet);
        registers!(self.clock => self.four, self.length, self.first_enables, self.last_enables, self.address);
        registers!(self.clock => self.hit);
        clocked!(self.clock, self.reset => self.queue);
        self.queue.write_data.next = TlpBeat {
            data: self.tlp.data.val(),
            two: self.tlp.keep.val().get_bit(4),
            last: self.tlp.last.val(),
        };
        self.queue.write_valid.next = self.tlp.valid.val();
        self.tlp.ready.next = self.queue.write_ready.val();
        let beat = self.queue.read_data.val();
        let some = self.queue.read_valid.val();
        let low = beat.data.get_bits::<32>(0);
        let high = beat.data.get_bits::<32>(32);
        let mut pop = false;
        self.unsupported.next = false;
        // A beat in the queue may not have come to its output yet.
        let empty = !self.queue.level.val().any();
        self.quiet.d.next = matches!(self.state.q.val(), State::Header) && empty && !self.tlp.valid.val();
        self.idle.next = self.quiet.q.val();

        let final_word = self.length.q.val() == bits::<10>(1);
        self.bus.address.next = cat::<16>((self.address.q.val(), bits::<2>(0)));
        self.bus.write_data.next = if self.upper.q.val() { high } else { low };
        self.bus.byte_enables.next = if self.first.q.val() {
            self.first_enables.q.val()
        } else if final_word {
            self.last_enables.q.val()
        } else {
            bits::<4>(0xf)
        };
        self.bus.write.next = true;
        self.bus.valid.next = false;

        let address = if self.four.q.val() {
            cat::<64>((low, high))
        } else {
            cat::<64>((bits::<32>(0), low))
        };
        let hit = self.enable.val() && address.get_bits::<48>(16) == self.base.val().get_bits::<48>(16);
        match self.state.q.val() {
            State::Header => {
                pop = true;
                self.four.d.next = beat.data.get_bit(29);
                self.length.d.next = beat.data.get_bits::<10>(0);
                self.first_enables.d.next = beat.data.get_bits::<4>(32);
                self.last_enables.d.next = beat.data.get_bits::<4>(36);
                self.first.d.next = true;
                if some {
                    self.state.d.next = State::Address;
                }
            }
            State::Address => {
                self.address.d.next = address.get_bits::<14>(2);
                self.upper.d.next = !self.four.q.val();
                self.hit.d.next = hit;
                if some {
                    self.state.d.next = State::Decision;
                }
            }
            State::Decision => {
                if self.hit.q.val() {
                    // With three header DWs, the first data DW shares this beat.
                    pop = self.four.q.val();
                    self.state.d.next = State::Word;
                } else {
                    self.unsupported.next = true;
                    self.state.d.next = State::Rest;
                }
            }
            State::Word => {
                self.bus.valid.next = some;
                if self.bus.ready.val() {
                    self.first.d.next = false;
                    self.address.d.next = self.address.q.val() + 1;
                    self.length.d.next = self.length.q.val() - 1;
                    self.upper.d.next = !self.upper.q.val();
                    pop = self.upper.q.val() || final_word;
                    if final_word {
                        self.state.d.next = State::Header;
                    }
                }
            }
            State::Rest => {
                pop = true;
                if some && beat.last {
                    self.state.d.next = State::Header;
                }
            }
        }
        self.queue.read_ready.next = pop;
    }
}
