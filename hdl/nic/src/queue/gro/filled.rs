//! The buffers of packets that are not complete.

use hematite_lang::prelude::*;

use crate::queue::used::UsedBuffer;

/// When the driver may have a buffer back.
#[hw]
pub enum BufferUse {
    /// With the packet whose bytes just went by.
    Now,
    /// When the context's packet is complete.
    Later,
    /// It is the last of the context's packet, which is complete.
    Completes,
}

/// A buffer whose bytes are all requested to be written.
#[hw(value)]
pub struct FilledBuffer {
    /// It, with `first` and `last` as for [`BufferUse::Now`].
    pub used: UsedBuffer,
    /// When it is used.
    pub when: BufferUse,
    /// For the context's packet.
    pub context: Bits<3>,
    /// Of which queue it is.
    pub queue: Bits<3>,
}

#[hw]
enum FilledState {
    Buffer,
    List,
}

/// Keeps the filled buffers of each context until its packet is complete and then hands all of them on, in order:
/// so all used descriptors of a packet are written together, whatever came between its segments.
///
/// A buffer of a packet that is not merged passes in the same cycle. A list of n buffers takes n + 4 cycles where each is taken at once. No list
/// may grow beyond 127; its buffers are of one ring slot each.
#[hw]
pub struct FilledBuffers {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Forgets all lists.
    pub reset: Signal<In, Bit>,
    /// A filled buffer.
    pub filled: Signal<In, FilledBuffer>,
    /// There is one.
    pub filled_valid: Signal<In, Bit>,
    /// It is taken.
    pub filled_ready: Signal<Out, Bit>,
    /// A used buffer.
    pub used: Signal<Out, UsedBuffer>,
    /// Of this queue.
    pub queue: Signal<Out, Bits<3>>,
    /// There is one.
    pub used_valid: Signal<Out, Bit>,
    /// It is taken.
    pub used_ready: Signal<In, Bit>,
    state: Reg<FilledState>,
    counts: [Reg<Bits<7>>; 8],
    /// ID and bytes, by context and place in its list.
    lists: Ram<Bits<32>, 10>,
    /// Read next, and how many are left to read.
    at: Reg<Bits<7>>,
    left: Reg<Bits<7>>,
    prefetch: Prefetch<Bits<32>>,
    /// Buffers of the list that are still to be handed on.
    to_go: Reg<Bits<7>>,
    /// There are some.
    more: Reg<Bit>,
    /// None was yet.
    first: Reg<Bit>,
}

#[hw]
impl Logic for FilledBuffers {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.left);
        registers!(self.clock => self.at, self.to_go, self.more, self.first);
        for i in 0..8 {
            registers!(self.clock, self.reset => self.counts[i]);
        }
        clocked!(self.clock => self.lists);
        clocked!(self.clock, self.reset => self.prefetch);
        let filled = self.filled.val();
        let mut count = bits::<7>(0);
        for i in 0..8 {
            if filled.context == bits::<3>(i as u64) {
                count = self.counts[i].q.val();
            }
        }
        let mut count_with = count;
        let mut used = filled.used;

        self.lists.write_enable.next = false;
        self.lists.write_address.next = cat::<10>((filled.context, count));
        self.lists.write_data.next = cat::<32>((filled.used.id, filled.used.length));
        self.lists.read_address.next = cat::<10>((filled.context, self.at.q.val()));
        self.prefetch.available.next = self.left.q.val().any();
        self.prefetch.word.next = self.lists.read_data.val();
        self.prefetch.read_ready.next = false;
        if self.prefetch.fetch.val() {
            self.at.d.next = self.at.q.val() + 1;
            self.left.d.next = self.left.q.val() - 1;
        }
        self.filled_ready.next = false;
        self.used_valid.next = false;
        match self.state.q.val() {
            FilledState::Buffer => {
                self.at.d.next = 0.into();
                self.first.d.next = true;
                self.to_go.d.next = count;
                self.more.d.next = count.any();
                match filled.when {
                    BufferUse::Now => {
                        self.used_valid.next = self.filled_valid.val();
                        self.filled_ready.next = self.used_ready.val();
                    }
                    BufferUse::Later => {
                        self.filled_ready.next = true;
                        self.lists.write_enable.next = self.filled_valid.val();
                        count_with = count + 1;
                    }
                    BufferUse::Completes => {
                        if self.filled_valid.val() {
                            self.left.d.next = count;
                            self.state.d.next = FilledState::List;
                        }
                    }
                }
            }
            FilledState::List => {
                let some = self.more.q.val();
                let listed = self.prefetch.read_data.val();
                if some {
                    used = UsedBuffer {
                        id: listed.get_bits::<16>(16),
                        length: listed.get_bits::<16>(0),
                        slots: bits::<8>(1),
                        first: self.first.q.val(),
                        last: false,
                    };
                } else {
                    used.first = self.first.q.val();
                    used.last = true;
                }
                self.used_valid.next = !some || self.prefetch.read_valid.val();
                self.prefetch.read_ready.next = some && self.used_ready.val();
                if self.used_valid.val() && self.used_ready.val() {
                    self.first.d.next = false;
                    self.to_go.d.next = self.to_go.q.val() - 1;
                    self.more.d.next = self.to_go.q.val() != bits::<7>(1);
                    if !some {
                        self.filled_ready.next = true;
                        count_with = bits::<7>(0);
                        self.state.d.next = FilledState::Buffer;
                    }
                }
            }
        }
        self.used.next = used;
        self.queue.next = filled.queue;
        for i in 0..8 {
            if self.filled_valid.val() && self.filled_ready.val() && filled.context == bits::<3>(i as u64) {
                self.counts[i].d.next = count_with;
            }
        }
    }
}
