//! The headers of the packets that are being made.

use hematite_lang::prelude::*;

/// Two places of 16 beats for each of eight contexts: one has the headers of the packet's first segment, the other
/// takes those of the segment that has just come, which may become the first of the context's next packet.
///
/// One beat is written and one read each cycle. `start` begins to read: three cycles later the first word is
/// offered; words of an earlier start that were not taken are forgotten.
#[hw]
pub struct HeaderStore {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Nothing is read.
    pub reset: Signal<In, Bit>,
    /// Writes a beat.
    pub write_enable: Signal<In, Bit>,
    /// To this place: context and half.
    pub write_place: Signal<In, Bits<4>>,
    /// As this beat of it.
    pub write_beat: Signal<In, Bits<4>>,
    /// Eight bytes.
    pub write_data: Signal<In, Bits<64>>,
    /// Reads from here on.
    pub start: Signal<In, Bit>,
    /// This place.
    pub place: Signal<In, Bits<4>>,
    /// From this beat.
    pub from: Signal<In, Bits<4>>,
    /// So many.
    pub beats: Signal<In, Bits<4>>,
    /// The next word.
    pub word: Signal<Out, Bits<64>>,
    /// There is one.
    pub word_valid: Signal<Out, Bit>,
    /// It is taken.
    pub word_ready: Signal<In, Bit>,
    memory: Ram<Bits<64>, 8>,
    address: Reg<Bits<8>>,
    left: Reg<Bits<4>>,
    prefetch: Prefetch<Bits<64>>,
}

#[hw]
impl Logic for HeaderStore {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.left);
        registers!(self.clock => self.address);
        clocked!(self.clock => self.memory, self.prefetch);
        self.memory.write_enable.next = self.write_enable.val();
        self.memory.write_address.next = cat::<8>((self.write_place.val(), self.write_beat.val()));
        self.memory.write_data.next = self.write_data.val();
        self.memory.read_address.next = self.address.q.val();
        self.prefetch.reset.next = self.reset.val() || self.start.val();
        self.prefetch.available.next = self.left.q.val().any();
        self.prefetch.word.next = self.memory.read_data.val();
        self.prefetch.read_ready.next = self.word_ready.val();
        self.word.next = self.prefetch.read_data.val();
        self.word_valid.next = self.prefetch.read_valid.val();
        if self.start.val() {
            self.address.d.next = cat::<8>((self.place.val(), self.from.val()));
            self.left.d.next = self.beats.val();
        } else if self.prefetch.fetch.val() {
            self.address.d.next = self.address.q.val() + 1;
            self.left.d.next = self.left.q.val() - 1;
        }
    }
}
