//! Where the parts of each virtqueue are.

use hematite_lang::prelude::*;

use crate::pcie::ports::merge32;

/// Words of a queue's areas: low and high of descriptor area, driver area and device area, in this order.
const WORDS: usize = 6;

/// `queue_desc`, `queue_driver` and `queue_device` of every queue (virtio 1.3 section 4.1.4.3), up to 32 of them: kept
/// in block RAM for the driver that reads them back, and in registers where an engine needs them. No engine writes
/// the device area.
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
    /// The descriptor area.
    pub descriptors: [Signal<Out, Bits<64>>; QUEUES],
    /// The driver area.
    pub driver: [Signal<Out, Bits<64>>; QUEUES],
    memory: Ram<Bits<32>, 8>,
    /// Words that were written since `clear`; the others are 0, whatever the memory says.
    written: [Reg<Bits<6>>; QUEUES],
    /// The word at hand was.
    known: Reg<Bit>,
    /// The words of descriptor and driver areas.
    live: [[Reg<Bits<32>>; 4]; QUEUES],
}

#[hw]
impl<const QUEUES: usize> Logic for Areas<QUEUES> {
    fn update(&mut self) {
        assert!(QUEUES <= 32);
        registers!(self.clock => self.known);
        clocked!(self.clock => self.memory);
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
        let mut known = false;
        for q in 0..QUEUES {
            let chosen = queue == bits::<5>(q as u64);
            registers!(self.clock, self.reset => self.written[q]);
            let mut written = self.written[q].q.val();
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
            for w in 0..4 {
                registers!(self.clock, self.reset => self.live[q][w]);
                if self.clear[q].val() {
                    self.live[q][w].d.next = bits::<32>(0);
                } else if chosen && self.write.val() && word == bits::<3>(w as u64) {
                    self.live[q][w].d.next = new;
                }
            }
            self.descriptors[q].next = cat::<64>((self.live[q][1].q.val(), self.live[q][0].q.val()));
            self.driver[q].next = cat::<64>((self.live[q][3].q.val(), self.live[q][2].q.val()));
        }
        self.known.d.next = known;
    }
}
