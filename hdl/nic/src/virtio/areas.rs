//! Where the parts of each virtqueue are.

use hematite_lang::prelude::*;

use super::ports::LocateIn;
use crate::pcie::ports::merge32;

/// Who asks where things are: reads and writes of the receive queues, of the transmit queues, the control queue.
pub const CLIENTS: usize = 5;

/// Words of a queue's areas: low and high of descriptor area, driver area and device area, in this order.
const WORDS: usize = 6;

#[hw]
enum Lookup {
    Question,
    Place,
    Memory,
    Base,
    Sum,
    Answer,
}

/// `queue_desc`, `queue_driver` and `queue_device` of every queue (virtio 1.3 section 4.1.4.3), up to 32 of them, in
/// block RAM: once for the driver that reads them back, once for the engines, which ask for the address of a descriptor
/// or of the driver event suppression structure. No engine writes the device area.
///
/// An engine has its answer six cycles after it asked; several are answered in turn, one every six cycles. What comes to one
/// that asks no more, because it was reset, is no answer.
///
/// `number` and `word` must be the same in the cycle before a `write` or a look at `read`, and writes of a word two
/// cycles apart.
#[hw]
pub struct Areas<const QUEUES: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// All areas at 0.
    pub reset: Signal<In, Bit>,
    /// Of a queue.
    pub number: Signal<In, Bits<5>>,
    /// A word of its areas, 0..=5.
    pub word: Signal<In, Bits<3>>,
    /// Write to that word.
    pub write: Signal<In, Bit>,
    /// What.
    pub data: Signal<In, Bits<32>>,
    /// Which bytes of it.
    pub byte_enables: Signal<In, Bits<4>>,
    /// What the word is.
    pub read: Signal<Out, Bits<32>>,
    /// All areas of this queue at 0.
    pub clear: [Signal<In, Bit>; QUEUES],
    /// The engines. No queue's areas are written while one of them asks for it.
    pub locate: [LocateIn; CLIENTS],
    memory: Ram<Bits<32>, 8>,
    /// The words of descriptor and driver areas, low and high.
    low: Ram<Bits<32>, 6>,
    high: Ram<Bits<32>, 6>,
    /// Words that were written since `clear`; the others are 0, whatever the memory says.
    written: [Reg<Bits<6>>; QUEUES],
    /// The word at hand was.
    known: Reg<Bit>,
    turn: RoundRobin<CLIENTS, 3>,
    state: Reg<Lookup>,
    /// Who asked in the cycle before: engines are far away.
    asking: Reg<Bits<CLIENTS>>,
    /// Whom it is for, and what that one asks for.
    pick: Reg<Bits<3>>,
    asked: Reg<Bits<5>>,
    driver: Reg<Bit>,
    slot: Reg<Bits<12>>,
    low_known: Reg<Bit>,
    high_known: Reg<Bit>,
    base: Reg<Bits<64>>,
    address: Reg<Bits<64>>,
}

#[hw]
impl<const QUEUES: usize> Logic for Areas<QUEUES> {
    fn update(&mut self) {
        assert!(QUEUES <= 32);
        registers!(self.clock => self.known);
        clocked!(self.clock => self.memory, self.low, self.high);
        clocked!(self.clock, self.reset => self.turn);
        registers!(self.clock, self.reset => self.state, self.asking);
        registers!(self.clock => self.pick, self.asked, self.driver, self.slot);
        registers!(self.clock => self.low_known, self.high_known, self.base, self.address);
        let queue = self.number.val();
        let word = self.word.val();
        let old = if self.known.q.val() {
            self.memory.read_data.val()
        } else {
            bits::<32>(0)
        };
        let new = merge32(old, self.data.val(), self.byte_enables.val());
        self.read.next = old;
        self.memory.read_address.next = cat::<8>((queue, word));
        self.memory.write_address.next = cat::<8>((queue, word));
        self.memory.write_data.next = new;
        self.memory.write_enable.next = self.write.val();
        let half = cat::<6>((queue, word.get_bit(1)));
        let engines = self.write.val() && !word.get_bit(2);
        self.low.write_address.next = half;
        self.low.write_data.next = new;
        self.low.write_enable.next = engines && !word.get_bit(0);
        self.high.write_address.next = half;
        self.high.write_data.next = new;
        self.high.write_enable.next = engines && word.get_bit(0);

        // What is asked for by the engine whose turn it is.
        let asked = self.asked.q.val();
        let driver = self.driver.q.val();
        let mut asks = false;
        let mut requests = bits::<CLIENTS>(0);
        let answer = matches!(self.state.q.val(), Lookup::Answer);
        for c in 0..CLIENTS {
            let mine = self.pick.q.val() == bits::<3>(c as u64);
            if mine {
                self.asked.d.next = self.locate[c].queue.val();
                self.driver.d.next = self.locate[c].driver.val();
                self.slot.d.next = self.locate[c].slot.val();
                asks = self.locate[c].valid.val();
            }
            requests = requests.replace_bit(c, self.locate[c].valid.val() && !(answer && mine));
            self.locate[c].address.next = self.address.q.val();
            self.locate[c].found.next = answer && mine;
        }
        self.asking.d.next = requests;
        let requests = self.asking.q.val();
        let place = cat::<6>((asked, driver));
        self.low.read_address.next = place;
        self.high.read_address.next = place;
        self.turn.requests.next = requests;
        self.turn.advance.next = false;
        self.base.d.next = cat::<64>((
            if self.high_known.q.val() {
                self.high.read_data.val()
            } else {
                bits::<32>(0)
            },
            if self.low_known.q.val() {
                self.low.read_data.val()
            } else {
                bits::<32>(0)
            },
        ));
        self.address.d.next = self.base.q.val() + cat::<16>((self.slot.q.val(), bits::<4>(0))).resize::<64>();
        self.state.d.next = if asks {
            match self.state.q.val() {
                Lookup::Place => Lookup::Memory,
                Lookup::Memory => Lookup::Base,
                Lookup::Base => Lookup::Sum,
                Lookup::Sum => Lookup::Answer,
                _ => Lookup::Question,
            }
        } else {
            Lookup::Question
        };
        if matches!(self.state.q.val(), Lookup::Question) {
            self.turn.advance.next = true;
            self.pick.d.next = self.turn.index.val();
            self.state.d.next = if requests.any() {
                Lookup::Place
            } else {
                Lookup::Question
            };
        }

        let mut known = false;
        let mut low_known = false;
        let mut high_known = false;
        for q in 0..QUEUES {
            let chosen = queue == bits::<5>(q as u64);
            registers!(self.clock, self.reset => self.written[q]);
            let mut written = self.written[q].q.val();
            if asked == bits::<5>(q as u64) {
                low_known = if driver {
                    written.get_bit(2)
                } else {
                    written.get_bit(0)
                };
                high_known = if driver {
                    written.get_bit(3)
                } else {
                    written.get_bit(1)
                };
            }
            for w in 0..WORDS {
                let here = chosen && word == bits::<3>(w as u64);
                known = known || (here && written.get_bit(w));
                if here && self.write.val() {
                    written = written.replace_bit(w, true);
                }
            }
            if self.clear[q].val() {
                written = bits::<6>(0);
            }
            self.written[q].d.next = written;
        }
        self.known.d.next = known;
        self.low_known.d.next = low_known;
        self.high_known.d.next = high_known;
    }
}
