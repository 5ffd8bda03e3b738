//! A queue of whole frames.

use hematite_lang::prelude::*;

/// Bits of a pointer: more than the largest memory needs, so that full and empty differ.
const POINTER: usize = 13;

/// A beat as the memory holds it: 68 bits, of which a block RAM of nine-bit lanes wastes four.
#[hw(value)]
pub struct StoredBeat {
    /// Eight bytes, the first in bits 7..0.
    pub data: Bits<64>,
    /// Bytes meant, less one.
    pub top: Bits<3>,
    /// Ends the frame.
    pub last: Bit,
}

/// The position of the last byte that `keep` marks.
#[hw]
pub fn top_of(keep: Bits<8>) -> Bits<3> {
    let mut top = bits::<3>(0);
    for i in 1..8 {
        if keep.get_bit(i) {
            top = bits::<3>(i as u64);
        }
    }
    top
}

/// The `keep` whose last byte is at `top`.
#[hw]
pub fn keep_of(top: Bits<3>) -> Bits<8> {
    let mut keep = bits::<8>(1);
    for i in 1..8 {
        keep = keep.replace_bit(i, top >= bits::<3>(i as u64));
    }
    keep
}

/// Store-and-forward FIFO of `2^A` beats in block RAM for at most `2^L` frames: a frame is readable once it is
/// complete and good, and any other leaves no trace but a count.
///
/// - `error` on the last beat: the frame is dropped, `discarded` pulses.
/// - no room: with `WAIT` the writer is held back; without, the frame is dropped and `missed` pulses when it
///   ends (not for one that ends with `error`: that is its own cause). A frame of more than `2^A` beats is
///   dropped in either case.
///
/// Throughput: one beat in and one out each cycle, in frames of two beats or more. Latency: the first beat is offered five cycles after
/// the last one was taken. Back-pressure: without `WAIT` the input is always ready.
/// A note of type `T` goes with each frame: taken with its last beat, and offered no later than its first. A reader
/// that doesn't take the notes gets no more than `2^L` frames.
#[hw]
pub struct FrameFifo<T: Synth, const A: usize, const L: usize, const WAIT: bool> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Drops everything. The next beat taken starts a frame.
    pub reset: Signal<In, Bit>,
    /// Drops the frame being written; its writer was reset. The next beat taken starts a frame.
    pub abandon: Signal<In, Bit>,
    /// Any frames.
    pub input: StreamIn,
    /// Goes with the frame whose last beat is offered.
    pub input_note: Signal<In, T>,
    /// Good frames; `error` is never set.
    pub output: StreamOut,
    /// What came with the next frame.
    pub note_data: Signal<Out, T>,
    /// There is a frame.
    pub note_valid: Signal<Out, Bit>,
    /// The note is taken.
    pub note_ready: Signal<In, Bit>,
    /// Beats that there is room for: every beat taken is counted at once, one that was read a cycle or two
    /// later.
    pub space: Signal<Out, Bits<16>>,
    /// A good frame was dropped for lack of room.
    pub missed: Signal<Out, Bit>,
    /// A frame ended with `error`.
    pub discarded: Signal<Out, Bit>,
    memory: Ram<StoredBeat, A>,
    notes: SlowFifo<T, L>,
    prefetch: Prefetch<StoredBeat>,
    /// Where the next beat goes. Pointers count beats modulo `2^POINTER`.
    write: Reg<Bits<POINTER>>,
    /// Where the frame being written starts.
    start: Reg<Bits<POINTER>>,
    /// Where the reader must stop: `start` a cycle later, when the memory has been written.
    commit: Reg<Bits<POINTER>>,
    read: Reg<Bits<POINTER>>,
    /// Places that are free, as of the cycle before.
    #[reset(bits::<POINTER>(1 << A))]
    free: Reg<Bits<POINTER>>,
    /// Beats of the frame taken so far.
    beats: Reg<Bits<POINTER>>,
    /// The rest of the frame is thrown away.
    dropping: Reg<Bit>,
    notes_room: Reg<Bit>,
    stored: Reg<StoredBeat>,
    stored_at: Reg<Bits<A>>,
    stored_valid: Reg<Bit>,
    frame_note: Reg<T>,
    frame_done: Reg<Bit>,
    was_missed: Reg<Bit>,
    was_discarded: Reg<Bit>,
}

#[hw]
impl<T: Synth, const A: usize, const L: usize, const WAIT: bool> Logic for FrameFifo<T, A, L, WAIT> {
    fn update(&mut self) {
        assert!(A < POINTER, "full and empty must differ");
        assert!(L >= 2, "at least four frames");
        registers!(self.clock, self.reset => self.write, self.start, self.commit);
        registers!(self.clock, self.reset => self.read, self.free);
        registers!(self.clock, self.reset => self.beats, self.dropping, self.stored_valid, self.frame_done);
        registers!(self.clock, self.reset => self.was_missed, self.was_discarded, self.notes_room);
        registers!(self.clock => self.stored, self.stored_at, self.frame_note);
        clocked!(self.clock => self.memory);
        clocked!(self.clock, self.reset => self.notes, self.prefetch);

        // Taking a beat: only pointers move; the beat reaches the memory in the next cycle.
        let room = self.free.q.val().any();
        let hopeless = self.dropping.q.val() || self.beats.q.val().get_bit(A);
        let ready = if WAIT { room || hopeless } else { true };
        self.input.ready.next = ready;
        let take = self.input.valid.val() && ready && !self.abandon.val();
        let last = self.input.last.val();
        let error = self.input.error.val();
        let top = top_of(self.input.keep.val());
        let fits = room && !self.dropping.q.val();
        let good = fits && self.notes_room.q.val() && !error;
        let write_next = self.write.q.val() + 1;
        let mut write = self.write.q.val();
        self.was_missed.d.next = false;
        self.was_discarded.d.next = false;
        self.frame_done.d.next = false;
        if take {
            write = write_next;
            self.beats.d.next = self.beats.q.val() + 1;
            if !fits {
                write = self.start.q.val();
                self.dropping.d.next = true;
            }
            if last {
                self.beats.d.next = bits::<POINTER>(0);
                self.dropping.d.next = false;
                if good {
                    self.start.d.next = write_next;
                    self.frame_done.d.next = true;
                } else {
                    write = self.start.q.val();
                    self.was_discarded.d.next = error;
                    self.was_missed.d.next = !error;
                }
            }
        }
        if self.abandon.val() {
            write = self.start.q.val();
            self.beats.d.next = bits::<POINTER>(0);
            self.dropping.d.next = false;
        }
        self.write.d.next = write;
        // The writer must stop where the reader is in the round before.
        self.free.d.next = self.read.q.val() + bits::<POINTER>(1 << A) - write;
        self.space.next = self.free.q.val().resize::<16>();
        self.missed.next = self.was_missed.q.val();
        self.discarded.next = self.was_discarded.q.val();
        self.frame_note.d.next = self.input_note.val();

        self.stored.d.next = StoredBeat {
            data: self.input.data.val(),
            top,
            last,
        };
        self.stored_at.d.next = self.write.q.val().get_bits::<A>(0);
        self.stored_valid.d.next = take && fits;
        self.memory.write_enable.next = self.stored_valid.q.val();
        self.memory.write_address.next = self.stored_at.q.val();
        self.memory.write_data.next = self.stored.q.val();
        self.commit.d.next = self.start.q.val();

        // One note may be on its way into the queue while the next frame ends.
        self.notes_room.d.next = self.notes.level.val() < bits::<16>((1 << L) - 2);
        self.notes.write_data.next = self.frame_note.q.val();
        self.notes.write_valid.next = self.frame_done.q.val();
        self.note_data.next = self.notes.read_data.val();
        self.note_valid.next = self.notes.read_valid.val();
        self.notes.read_ready.next = self.note_ready.val();

        self.memory.read_address.next = self.read.q.val().get_bits::<A>(0);
        self.prefetch.available.next = self.read.q.val() != self.commit.q.val();
        self.prefetch.word.next = self.memory.read_data.val();
        if self.prefetch.fetch.val() {
            self.read.d.next = self.read.q.val() + 1;
        }
        let beat = self.prefetch.read_data.val();
        self.output.data.next = beat.data;
        self.output.keep.next = keep_of(beat.top);
        self.output.last.next = beat.last;
        self.output.error.next = false;
        self.output.valid.next = self.prefetch.read_valid.val();
        self.prefetch.read_ready.next = self.output.ready.val();
    }
}
