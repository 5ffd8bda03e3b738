//! TLPs to the link: one stream out of three.

use hematite_lang::prelude::*;

#[hw]
enum State {
    Choice,
    Completion,
    Write,
    Read,
}

/// Sends TLPs, one at a time and whole: completions before writes before reads, as credits allow.
///
/// Order: TLPs of one input keep theirs. A read that is offered while a write is, or after it, is sent
/// after it, so a read never passes a write that was offered before (PCI Express 2.4.1), even one that
/// waits for credit. A read that waited while one write was sent goes next, so writes cannot starve
/// reads. A completion may pass a write that is still on its way through the write engine: it carries the
/// state of registers, never a promise about memory; the virtio status, which is one (it reads 0 after a
/// reset), waits for the engines instead.
///
/// A credit input means that one more TLP of any size the function sends is accepted beyond all that left
/// `tlp`; it is looked at only while nothing of another TLP is left inside.
/// Throughput: a TLP of n beats takes n + 2 cycles. Latency: 2 cycles.
#[hw]
pub struct Transmit {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Cuts everything.
    pub reset: Signal<In, Bit>,
    /// Completions.
    pub completion: StreamIn,
    /// Memory writes.
    pub write: StreamIn,
    /// Memory reads.
    pub read: StreamIn,
    /// To the link.
    pub tlp: StreamOut,
    /// Room for a posted TLP.
    pub credit_posted: Signal<In, Bit>,
    /// Room for a non-posted TLP.
    pub credit_nonposted: Signal<In, Bit>,
    /// Room for a completion.
    pub credit_completion: Signal<In, Bit>,
    /// Start no further write or read.
    pub hold: Signal<In, Bit>,
    /// No write or read is under way.
    pub held: Signal<Out, Bit>,
    state: Reg<State>,
    outgoing: Stage<Beat>,
    /// A write was sent while this read waited.
    read_turn: Reg<Bit>,
}

#[hw]
impl Logic for Transmit {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.read_turn);
        clocked!(self.clock, self.reset => self.outgoing);
        let beat = self.outgoing.read_data.val();
        self.tlp.data.next = beat.data;
        self.tlp.keep.next = beat.keep;
        self.tlp.last.next = beat.last;
        self.tlp.error.next = beat.error;
        self.tlp.valid.next = self.outgoing.read_valid.val();
        self.outgoing.read_ready.next = self.tlp.ready.val();
        let moves = self.outgoing.write_ready.val();
        self.completion.ready.next = false;
        self.write.ready.next = false;
        self.read.ready.next = false;
        self.held.next = false;
        let mut some = false;
        let mut take = Beat {
            data: self.completion.data.val(),
            keep: self.completion.keep.val(),
            last: self.completion.last.val(),
            error: self.completion.error.val(),
        };
        match self.state.q.val() {
            State::Choice => {
                self.held.next = self.hold.val();
                if !self.outgoing.read_valid.val() {
                    let read_first = !self.write.valid.val() || self.read_turn.q.val();
                    if self.completion.valid.val() && self.credit_completion.val() {
                        self.state.d.next = State::Completion;
                    } else if self.hold.val() {
                        self.state.d.next = State::Choice;
                    } else if self.read.valid.val() && self.credit_nonposted.val() && read_first {
                        self.read_turn.d.next = false;
                        self.state.d.next = State::Read;
                    } else if self.write.valid.val() && self.credit_posted.val() {
                        self.read_turn.d.next = self.read.valid.val();
                        self.state.d.next = State::Write;
                    }
                }
            }
            State::Completion => {
                self.completion.ready.next = moves;
                some = self.completion.valid.val();
            }
            State::Write => {
                self.write.ready.next = moves;
                some = self.write.valid.val();
                take = Beat {
                    data: self.write.data.val(),
                    keep: self.write.keep.val(),
                    last: self.write.last.val(),
                    error: self.write.error.val(),
                };
            }
            State::Read => {
                self.read.ready.next = moves;
                some = self.read.valid.val();
                take = Beat {
                    data: self.read.data.val(),
                    keep: self.read.keep.val(),
                    last: self.read.last.val(),
                    error: self.read.error.val(),
                };
            }
        }
        self.outgoing.write_data.next = take;
        self.outgoing.write_valid.next = some;
        if moves && some && take.last {
            self.state.d.next = State::Choice;
        }
    }
}
