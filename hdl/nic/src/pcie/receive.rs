//! TLPs from the link: checked, stored, and sorted into completions, memory writes and other requests.

use hematite_lang::prelude::*;

use super::buffer::{CommitFifo, TlpBeat};

#[hw]
enum State {
    Header,
    Completion,
    Posted,
    RequestHeader,
    RequestAddress,
    Rest,
}

/// Types of non-posted requests beside memory reads: MRdLk, I/O, configuration 0 and 1, FetchAdd, Swap, CAS,
/// deferrable memory write.
#[hw]
fn other_request(class: Bits<5>) -> Bit {
    matches!(class.index(), 1 | 2 | 4 | 5 | 12 | 13 | 14 | 27)
}

/// Types that exist: requests, completions and messages (PCI Express 2.2.1).
#[hw]
fn defined(class: Bits<5>) -> Bit {
    let message = class.get_bits::<2>(3) == bits::<2>(0b10);
    let completion = class.get_bits::<4>(1) == bits::<4>(0b0101);
    !class.any() || message || completion || other_request(class)
}

/// Sorts incoming TLPs.
///
/// Every TLP is stored whole before anything of it moves on; one that the link nullified (`error`), whose
/// length disagrees with its header or exceeds Max_Payload_Size, or whose type is undefined, is dropped
/// and counted. A TLP digest is removed and its TD bit cleared. Poisoned memory writes are dropped and
/// counted (PCI Express 2.7.2.1); other poisoned requests go to the completer. Messages are ignored.
///
/// Throughput: a TLP of n beats takes n + 1 cycles. Latency: its length plus 5 cycles.
/// Ordering: a non-posted request waits until every memory write before it was performed
/// (`posted_idle`), so it never passes one; writes and completions pass it in the request queue.
/// Back-pressure: memory writes are always performed in bounded time; the request queue behind `request`
/// is full only when the back end lets more than 16 non-posted requests in.
#[hw]
pub struct Receive {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Drops everything.
    pub reset: Signal<In, Bit>,
    /// TLPs from the link.
    pub tlp: StreamIn,
    /// Max_Payload_Size as in Device Control: 128 bytes << code; at most 2.
    pub max_payload: Signal<In, Bits<3>>,
    /// Start no further TLP.
    pub hold: Signal<In, Bit>,
    /// No TLP is under way.
    pub held: Signal<Out, Bit>,
    /// No memory write is being performed.
    pub posted_idle: Signal<In, Bit>,
    /// Completions, as they came.
    pub completion: StreamOut,
    /// Memory writes, as they came.
    pub posted: StreamOut,
    /// The two first beats of each non-posted request: its header, and a DW of data if there is one.
    pub request: StreamOut,
    /// A TLP was dropped because the link nullified it.
    pub tlp_nullified: Signal<Out, Bit>,
    /// A TLP was dropped because it was malformed.
    pub tlp_malformed: Signal<Out, Bit>,
    /// A memory write was dropped because it was poisoned.
    pub write_poisoned: Signal<Out, Bit>,
    buffer: CommitFifo<9>,
    /// The next beat continues a TLP.
    started: Reg<Bit>,
    /// The TLP being stored is malformed.
    bad: Reg<Bit>,
    /// DWs still to come, digest included.
    expected: Reg<Bits<12>>,
    /// DWs still to be stored.
    wanted: Reg<Bits<12>>,
    state: Reg<State>,
}

#[hw]
impl Logic for Receive {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.started, self.bad, self.state);
        registers!(self.clock => self.expected, self.wanted);
        clocked!(self.clock, self.reset => self.buffer);

        // Checking and storing.
        let started = self.started.q.val();
        let data = self.tlp.data.val();
        let take = self.tlp.valid.val() && self.buffer.write_ready.val();
        self.tlp.ready.next = self.buffer.write_ready.val();
        let two = self.tlp.keep.val().get_bit(4);
        let count = if two { bits::<12>(2) } else { bits::<12>(1) };

        let length = data.get_bits::<10>(0);
        let digest = data.get_bit(15);
        let with_data = data.get_bit(30);
        let four = data.get_bit(29);
        let payload = if !with_data {
            bits::<12>(0)
        } else if length.any() {
            length.resize::<12>()
        } else {
            bits::<12>(1024)
        };
        let limit = bits::<12>(32) << self.max_payload.val();
        let header_rest = if four { bits::<12>(2) } else { bits::<12>(1) };
        let rest = payload + header_rest;

        let mut store = TlpBeat {
            data,
            two: true,
            last: false,
        };
        let mut keep_beat = true;
        let mut malformed = self.bad.q.val();
        if started {
            let final_word = self.wanted.q.val() == bits::<12>(1);
            store.last = self.wanted.q.val() <= bits::<12>(2);
            store.two = !final_word;
            keep_beat = self.wanted.q.val().any();
            if self.tlp.last.val() {
                if self.expected.q.val() != count {
                    malformed = true;
                }
            } else if self.expected.q.val() <= count {
                malformed = true;
            }
        } else {
            // The digest is removed, so the header must not promise one.
            store.data = data.replace_bit(15, false);
            malformed = self.tlp.last.val()
                || !two
                || data.get_bit(31)
                || payload > limit
                || !defined(data.get_bits::<5>(24));
        }
        self.buffer.write_data.next = store;
        self.buffer.write_valid.next = take && keep_beat && !self.bad.q.val();
        self.buffer.commit.next = take && self.tlp.last.val() && !malformed && !self.tlp.error.val();
        self.buffer.rollback.next = take && self.tlp.last.val() && (malformed || self.tlp.error.val());
        self.tlp_nullified.next = take && self.tlp.last.val() && self.tlp.error.val();
        self.tlp_malformed.next = take && self.tlp.last.val() && malformed && !self.tlp.error.val();
        if take {
            self.started.d.next = !self.tlp.last.val();
            self.bad.d.next = malformed && !self.tlp.last.val();
            if started {
                self.expected.d.next = self.expected.q.val() - count;
                self.wanted.d.next = if store.last {
                    bits::<12>(0)
                } else {
                    self.wanted.q.val() - 2
                };
            } else {
                self.expected.d.next = if digest { rest + 1 } else { rest };
                self.wanted.d.next = rest;
            }
        }

        // Sorting.
        let beat = self.buffer.read_data.val();
        let some = self.buffer.read_valid.val();
        let keep = if beat.two {
            bits::<8>(0xff)
        } else {
            bits::<8>(0x0f)
        };
        self.completion.data.next = beat.data;
        self.completion.keep.next = keep;
        self.completion.last.next = beat.last;
        self.completion.error.next = false;
        self.completion.valid.next = false;
        self.posted.data.next = beat.data;
        self.posted.keep.next = keep;
        self.posted.last.next = beat.last;
        self.posted.error.next = false;
        self.posted.valid.next = false;
        self.request.data.next = beat.data;
        self.request.keep.next = keep;
        self.request.last.next = matches!(self.state.q.val(), State::RequestAddress);
        self.request.error.next = false;
        self.request.valid.next = false;
        self.write_poisoned.next = false;
        self.held.next = false;
        let mut pop = false;

        let class = beat.data.get_bits::<5>(24);
        let carries_data = beat.data.get_bit(30);
        let is_completion = class.get_bits::<4>(1) == bits::<4>(0b0101);
        let is_memory = class == bits::<5>(0);
        let is_other_request = other_request(class);

        match self.state.q.val() {
            State::Header => {
                self.held.next = self.hold.val();
                if some && !self.hold.val() {
                    if is_completion {
                        self.state.d.next = State::Completion;
                    } else if is_memory && carries_data {
                        self.write_poisoned.next = beat.data.get_bit(14);
                        self.state.d.next = if beat.data.get_bit(14) {
                            State::Rest
                        } else {
                            State::Posted
                        };
                    } else if is_memory || is_other_request {
                        self.state.d.next = State::RequestHeader;
                    } else {
                        self.state.d.next = State::Rest;
                    }
                }
            }
            State::Completion => {
                self.completion.valid.next = some;
                pop = self.completion.ready.val();
                if some && pop && beat.last {
                    self.state.d.next = State::Header;
                }
            }
            State::Posted => {
                self.posted.valid.next = some;
                pop = self.posted.ready.val();
                if some && pop && beat.last {
                    self.state.d.next = State::Header;
                }
            }
            State::RequestHeader => {
                self.request.valid.next = some && self.posted_idle.val();
                pop = self.request.ready.val() && self.posted_idle.val();
                if some && pop {
                    self.state.d.next = State::RequestAddress;
                }
            }
            State::RequestAddress => {
                self.request.valid.next = some;
                pop = self.request.ready.val();
                if some && pop {
                    self.state.d.next = if beat.last { State::Header } else { State::Rest };
                }
            }
            State::Rest => {
                pop = true;
                if some && beat.last {
                    self.state.d.next = State::Header;
                }
            }
        }
        self.buffer.read_ready.next = pop;
    }
}
