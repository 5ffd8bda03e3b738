//! Register slices: cut every combinational path between two blocks without losing throughput.

use crate::prelude::*;

/// Half a register slice: a register for the word, but `write_ready` comes from `read_ready` in the same cycle. One word a
/// cycle, one cycle of latency; for readers whose readiness is known early in the cycle.
#[hw]
pub struct Stage<T: Synth> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Drops the word held.
    pub reset: Signal<In, Bit>,
    /// The word offered.
    pub write_data: Signal<In, T>,
    /// A word is offered.
    pub write_valid: Signal<In, Bit>,
    /// It is taken.
    pub write_ready: Signal<Out, Bit>,
    /// The word held.
    pub read_data: Signal<Out, T>,
    /// There is one.
    pub read_valid: Signal<Out, Bit>,
    /// It is taken.
    pub read_ready: Signal<In, Bit>,
    word: Reg<T>,
    valid: Reg<Bit>,
}

#[hw]
impl<T: Synth> Logic for Stage<T> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.valid);
        registers!(self.clock => self.word);
        let free = self.read_ready.val() || !self.valid.q.val();
        self.write_ready.next = free;
        self.read_data.next = self.word.q.val();
        self.read_valid.next = self.valid.q.val();
        if free {
            self.word.d.next = self.write_data.val();
            self.valid.d.next = self.write_valid.val();
        }
    }
}

/// A valid/ready register slice. One word a cycle, one cycle of latency; both `write_ready` and
/// `read_valid` come from registers. A second register holds the word that was under way when the reader
/// stopped.
#[hw]
pub struct Skid<T: Synth> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Drops the words held.
    pub reset: Signal<In, Bit>,
    /// The word offered.
    pub write_data: Signal<In, T>,
    /// A word is offered.
    pub write_valid: Signal<In, Bit>,
    /// It is taken.
    pub write_ready: Signal<Out, Bit>,
    /// The oldest word.
    pub read_data: Signal<Out, T>,
    /// There is one.
    pub read_valid: Signal<Out, Bit>,
    /// It is taken.
    pub read_ready: Signal<In, Bit>,
    first: Reg<T>,
    first_valid: Reg<Bit>,
    second: Reg<T>,
    second_valid: Reg<Bit>,
}

#[hw]
impl<T: Synth> Logic for Skid<T> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.first_valid, self.second_valid);
        registers!(self.clock => self.first, self.second);
        self.write_ready.next = !self.second_valid.q.val();
        self.read_data.next = self.first.q.val();
        self.read_valid.next = self.first_valid.q.val();
        let push = self.write_valid.val() && !self.second_valid.q.val();
        let free = self.read_ready.val() || !self.first_valid.q.val();
        // What a register holds while it is not valid doesn't matter: one enable and one multiplexer.
        if !self.second_valid.q.val() {
            self.second.d.next = self.write_data.val();
        }
        if free {
            self.first.d.next = if self.second_valid.q.val() {
                self.second.q.val()
            } else {
                self.write_data.val()
            };
            // At most one of the two has a word for the output.
            self.first_valid.d.next = self.second_valid.q.val() || push;
            self.second_valid.d.next = false;
        } else if push {
            self.second_valid.d.next = true;
        }
    }
}

/// A valid/ready register slice of one register, for words that come seldom: one every other cycle at most, one cycle
/// of latency; `write_ready` and `read_valid` come from a register.
#[hw]
pub struct Slice<T: Synth> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Drops the word held.
    pub reset: Signal<In, Bit>,
    /// The word offered.
    pub write_data: Signal<In, T>,
    /// A word is offered.
    pub write_valid: Signal<In, Bit>,
    /// It is taken.
    pub write_ready: Signal<Out, Bit>,
    /// The word held.
    pub read_data: Signal<Out, T>,
    /// There is one.
    pub read_valid: Signal<Out, Bit>,
    /// It is taken.
    pub read_ready: Signal<In, Bit>,
    word: Reg<T>,
    held: Reg<Bit>,
}

#[hw]
impl<T: Synth> Logic for Slice<T> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.held);
        registers!(self.clock => self.word);
        let held = self.held.q.val();
        self.write_ready.next = !held;
        self.read_data.next = self.word.q.val();
        self.read_valid.next = held;
        if !held {
            self.word.d.next = self.write_data.val();
        }
        self.held.d.next = if held {
            !self.read_ready.val()
        } else {
            self.write_valid.val()
        };
    }
}

/// [`Skid`] for a packet stream.
#[hw]
pub struct StreamSkid {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Drops the beats held.
    pub reset: Signal<In, Bit>,
    /// From the writer.
    pub input: StreamIn,
    /// To the reader.
    pub output: StreamOut,
    skid: Skid<Beat>,
}

#[hw]
impl Logic for StreamSkid {
    fn update(&mut self) {
        clocked!(self.clock, self.reset => self.skid);
        self.skid.write_data.next = Beat {
            data: self.input.data.val(),
            keep: self.input.keep.val(),
            last: self.input.last.val(),
            error: self.input.error.val(),
        };
        self.skid.write_valid.next = self.input.valid.val();
        self.input.ready.next = self.skid.write_ready.val();
        let beat = self.skid.read_data.val();
        self.output.data.next = beat.data;
        self.output.keep.next = beat.keep;
        self.output.last.next = beat.last;
        self.output.error.next = beat.error;
        self.output.valid.next = self.skid.read_valid.val();
        self.skid.read_ready.next = self.output.ready.val();
    }
}
