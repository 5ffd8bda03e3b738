//! Where the elements of several rings wait.

use hematite_lang::prelude::*;

use super::fetch::{Answer, Element, ends_chain};

/// A ring's elements, at the one who fetches its descriptors.
#[hw(interface)]
#[join(ElementsIn)]
pub struct ElementsOut {
    /// The answer at hand is the second half of a descriptor: it is stored.
    pub write: Signal<Out, Bit>,
    /// At this place of the ring's.
    pub write_place: Signal<Out, Bits<5>>,
    /// As the element of this number in its chain, from 1.
    pub slots: Signal<Out, Bits<7>>,
    /// An element shall be read.
    pub wanted: Signal<Out, Bit>,
    /// From this place of the ring's.
    pub read_place: Signal<Out, Bits<5>>,
    /// It is read now: `element` carries it in the next cycle.
    pub granted: Signal<In, Bit>,
    /// The one that was read in the cycle before.
    pub element: Signal<In, Element>,
}

/// A ring's elements, at their store.
#[hw(interface)]
#[join(ElementsOut)]
pub struct ElementsIn {
    /// The answer at hand is the second half of a descriptor: it is stored.
    pub write: Signal<In, Bit>,
    /// At this place of the ring's.
    pub write_place: Signal<In, Bits<5>>,
    /// As the element of this number in its chain, from 1.
    pub slots: Signal<In, Bits<7>>,
    /// An element shall be read.
    pub wanted: Signal<In, Bit>,
    /// From this place of the ring's.
    pub read_place: Signal<In, Bits<5>>,
    /// It is read now: `element` carries it in the next cycle.
    pub granted: Signal<Out, Bit>,
    /// The one that was read in the cycle before.
    pub element: Signal<Out, Element>,
}

/// The fetched elements of `N` rings, at most 8, 32 of each, in one block RAM. One is written in a cycle, for one
/// answer comes at a time; one is read in a cycle, for the first ring that wants one: a ring is served soon, as no
/// ring wants one more often than every third cycle, and only one of them is drawn from at a time.
#[hw]
pub struct ElementStore<const N: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// The half of a descriptor that has just come, for whichever ring.
    pub answer: Signal<In, Answer>,
    /// It has.
    pub answered: Signal<In, Bit>,
    /// The rings.
    pub rings: [ElementsIn; N],
    /// The half that came before.
    address: Reg<Bits<64>>,
    memory: Ram<Element, 8>,
}

#[hw]
impl<const N: usize> Logic for ElementStore<N> {
    fn update(&mut self) {
        assert!(N > 0 && N <= 8, "rings are numbered with three bits");
        registers!(self.clock => self.address);
        clocked!(self.clock => self.memory);
        let answer = self.answer.val();
        if self.answered.val() {
            self.address.d.next = answer.data;
        }
        let mut write = false;
        let mut write_place = cat::<8>((bits::<3>(0), self.rings[0].write_place.val()));
        let mut slots = self.rings[0].slots.val();
        let mut reads = false;
        let mut read_place = bits::<8>(0);
        for i in 0..N {
            if self.rings[i].write.val() {
                write = true;
                write_place = cat::<8>((bits::<3>(i as u64), self.rings[i].write_place.val()));
                slots = self.rings[i].slots.val();
            }
            let wanted = self.rings[i].wanted.val();
            self.rings[i].granted.next = wanted && !reads;
            self.rings[i].element.next = self.memory.read_data.val();
            if wanted && !reads {
                read_place = cat::<8>((bits::<3>(i as u64), self.rings[i].read_place.val()));
            }
            reads = reads || wanted;
        }
        self.memory.write_enable.next = write;
        self.memory.write_address.next = write_place;
        self.memory.write_data.next = Element {
            address: self.address.q.val(),
            length: answer.length,
            id: answer.data.get_bits::<16>(32),
            slots: slots.resize::<8>(),
            last: ends_chain(answer.data),
        };
        self.memory.read_address.next = read_place;
    }
}
