//! Completions, from TLP to reassembly memory.

use hematite_lang::prelude::*;

use super::tags::Progress;

/// What the parser waits for.
#[hw]
pub enum CompletionState {
    /// DW 0 and 1.
    Header,
    /// DW 2, with the first payload DW.
    Requester,
    /// The tag table.
    Lookup,
    /// The comparison with what is expected.
    Check,
    /// The rest of the payload.
    Payload,
}

/// What a whole TLP turned out to be.
#[hw(value)]
pub struct Verdict {
    /// A completion.
    pub completion: Bit,
    /// Of a read that waited when it began to arrive.
    pub known: Bit,
    /// As expected, with data.
    pub advance: Bit,
    /// Nothing more will come.
    pub done: Bit,
    /// The read has failed.
    pub failed: Bit,
    /// It breaks the rules.
    pub malformed: Bit,
    /// It is right, but poisoned.
    pub poisoned: Bit,
    /// It is right and says Completer Abort.
    pub aborted: Bit,
    /// It is right and says Unsupported Request.
    pub unsupported: Bit,
}

/// Completion Status: Successful Completion.
const SUCCESSFUL: u64 = 0;
/// Completion Status: Configuration Request Retry Status.
const RETRY: u64 = 2;
/// Completion Status: Completer Abort.
const ABORT: u64 = 4;

/// Takes completion TLPs, judges every field of each against the tag table and writes payload into the
/// reassembly memory (PCI Express Base Specification, sections 2.2.9 and 2.3.2).
///
/// A completion takes as many cycles as it has beats, and 2 more in which `tlp_ready` is low; there is no
/// other back-pressure. The verdict falls in the second cycle after the last beat:
/// - a TLP whose last beat has `error` never was (the link layer will bring it again);
/// - not a completion: `malformed`, dropped;
/// - a tag that no read waits on, or not our Requester ID: `unexpected`, dropped;
/// - more or less payload than its Length, a Byte Count, Lower Address or Length that is not what this read
///   lacks, success without data: `malformed`; the read has failed, and keeps its tag until it times out,
///   since nobody knows what else may come for it;
/// - Unsupported Request (or a reserved status), Completer Abort, retry status (`malformed` here): the read
///   has failed, nothing more comes;
/// - poisoned: the read has failed, and ends when all its data has come.
///
/// Payload goes to memory before the verdict, but only into the buffer of a read that still waits, and never
/// beyond what that read lacks.
#[hw]
pub struct CompletionParser {
    /// Core clock.
    pub clock: Signal<In, Clock>,
    /// Forgets the TLP in progress.
    pub reset: Signal<In, Bit>,
    /// Completions as they arrive.
    pub tlp: StreamIn,
    /// Bus, device and function.
    pub requester_id: Signal<In, Bits<16>>,

    /// To the tag table: the tag to look up.
    pub look_tag: Signal<Out, Bits<8>>,
    /// See the tag table.
    pub look_known: Signal<In, Bit>,
    /// See the tag table.
    pub look: Signal<In, Progress>,
    /// The verdict concerns a read.
    pub commit: Signal<Out, Bit>,
    /// See the tag table.
    pub commit_tag: Signal<Out, Bits<8>>,
    /// See the tag table.
    pub commit_advance: Signal<Out, Bit>,
    /// See the tag table.
    pub commit_progress: Signal<Out, Progress>,
    /// See the tag table.
    pub commit_done: Signal<Out, Bit>,
    /// See the tag table.
    pub commit_failed: Signal<Out, Bit>,

    /// Writes a DW of the lower and of the upper half of a row.
    pub write_enable: [Signal<Out, Bit>; 2],
    /// `{slot, row}`.
    pub write_address: [Signal<Out, Bits<10>>; 2],
    /// The DW.
    pub write_data: [Signal<Out, Bits<32>>; 2],

    /// A read was answered with Unsupported Request.
    pub unsupported: Signal<Out, Bit>,
    /// A read was answered with Completer Abort.
    pub aborted: Signal<Out, Bit>,
    /// A completion was poisoned.
    pub poisoned: Signal<Out, Bit>,
    /// A completion that nobody waits for.
    pub unexpected: Signal<Out, Bit>,
    /// A completion that breaks the rules.
    pub malformed: Signal<Out, Bit>,

    state: Reg<CompletionState>,
    header: Reg<Bits<64>>,
    requester: Reg<Bits<16>>,
    tag: Reg<Bits<8>>,
    lower_address: Reg<Bits<7>>,
    first: Reg<Bits<32>>,
    has_first: Reg<Bit>,
    /// The TLP has ended.
    ended: Reg<Bit>,
    /// With `error`.
    discarded: Reg<Bit>,
    known: Reg<Bit>,
    expected: Reg<Progress>,
    /// DWs after the header that are still to come, digest included.
    left: Reg<Bits<11>>,
    /// DWs that the read lacks and this TLP has not written.
    room: Reg<Bits<8>>,
    position: Reg<Bits<7>>,
    /// The fields are those that the read lacks.
    fields_match: Reg<Bit>,
    /// The read lacks nothing after this.
    is_final: Reg<Bit>,
    /// As many DWs as Length says.
    exact: Reg<Bit>,
    progress: Reg<Progress>,
    /// The TLP is whole: it is judged now.
    finish: Reg<Bit>,
    /// The verdict falls now.
    verdict: Reg<Verdict>,
    verdict_tag: Reg<Bits<8>>,
    verdict_progress: Reg<Progress>,
    judged: Reg<Bit>,
    /// The read still waits.
    live: Reg<Bit>,
    low: Reg<Bits<32>>,
    low_write: Reg<Bit>,
    high: Reg<Bits<32>>,
    high_write: Reg<Bit>,
    at: Reg<Bits<7>>,
    unsupported_event: Reg<Bit>,
    aborted_event: Reg<Bit>,
    poisoned_event: Reg<Bit>,
    unexpected_event: Reg<Bit>,
    malformed_event: Reg<Bit>,
}

#[hw]
impl Logic for CompletionParser {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.finish, self.judged, self.low_write, self.high_write);
        registers!(self.clock => self.verdict, self.verdict_tag, self.verdict_progress, self.live);
        registers!(self.clock => self.header, self.requester, self.tag, self.lower_address, self.first);
        registers!(self.clock => self.has_first, self.ended, self.discarded, self.known, self.expected);
        registers!(self.clock => self.left, self.room, self.position, self.fields_match, self.is_final);
        registers!(self.clock => self.exact, self.progress, self.low, self.high, self.at);
        registers!(self.clock, self.reset => self.unsupported_event, self.aborted_event, self.poisoned_event);
        registers!(self.clock, self.reset => self.unexpected_event, self.malformed_event);

        // Header fields, DW 1 in the upper half.
        let header = self.header.q.val();
        let with_data = header.get_bit(30);
        let is_completion =
            !header.get_bit(31) && !header.get_bit(29) && header.get_bits::<5>(24) == bits::<5>(0b01010);
        let digest = header.get_bit(15);
        let poison = header.get_bit(14);
        let length = header.get_bits::<10>(0);
        let status = header.get_bits::<3>(45);
        let byte_count = header.get_bits::<12>(32);

        let data = self.tlp.data.val();
        let two = self.tlp.keep.val().get_bit(4);
        let left = self.left.q.val();
        let room = self.room.q.val();
        let expected = self.expected.q.val();
        let low_bits = self.lower_address.q.val().get_bits::<2>(0);

        self.tlp.ready.next = false;
        self.look_tag.next = self.tag.q.val();
        self.finish.d.next = false;
        self.low_write.d.next = false;
        self.high_write.d.next = false;
        self.low.d.next = data.get_bits::<32>(0);
        self.high.d.next = data.get_bits::<32>(32);
        self.at.d.next = self.position.q.val();

        match self.state.q.val() {
            CompletionState::Header => {
                self.tlp.ready.next = true;
                self.header.d.next = data;
                if self.tlp.valid.val() && !self.tlp.last.val() {
                    self.state.d.next = CompletionState::Requester;
                }
            }
            CompletionState::Requester => {
                self.tlp.ready.next = true;
                self.lower_address.d.next = data.get_bits::<7>(0);
                self.tag.d.next = data.get_bits::<8>(8);
                self.requester.d.next = data.get_bits::<16>(16);
                self.first.d.next = data.get_bits::<32>(32);
                self.has_first.d.next = two;
                self.ended.d.next = self.tlp.last.val();
                self.discarded.d.next = self.tlp.error.val();
                if self.tlp.valid.val() {
                    self.state.d.next = CompletionState::Lookup;
                }
            }
            CompletionState::Lookup => {
                self.known.d.next = self.look_known.val()
                    && self.requester.q.val() == self.requester_id.val()
                    && is_completion;
                self.expected.d.next = self.look.val();
                // Length 0 stands for 1024.
                let payload = if with_data {
                    cat::<11>((!length.any(), length))
                } else {
                    bits::<11>(0)
                };
                self.left.d.next = payload + cat::<11>((bits::<10>(0), digest));
                self.state.d.next = CompletionState::Check;
            }
            CompletionState::Check => {
                let fits = length.any() && length <= expected.dwords.resize::<10>();
                self.fields_match.d.next = with_data
                    && fits
                    && byte_count == expected.bytes.resize::<12>()
                    && self.lower_address.q.val() == expected.lower_address;
                self.is_final.d.next = length == expected.dwords.resize::<10>();
                // Only matters if this is not the last one, which then ends at a whole DW.
                let next_address = expected.lower_address.get_bits::<5>(2) + length.get_bits::<5>(0);
                self.progress.d.next = Progress {
                    position: expected.position + length.get_bits::<7>(0),
                    dwords: expected.dwords - length.get_bits::<8>(0),
                    bytes: expected.bytes + low_bits.resize::<10>()
                        - cat::<10>((length.get_bits::<8>(0), bits::<2>(0))),
                    lower_address: cat::<7>((next_address, bits::<2>(0))),
                };
                self.exact.d.next = left == cat::<11>((bits::<10>(0), self.has_first.q.val()));
                self.left.d.next = left - cat::<11>((bits::<10>(0), self.has_first.q.val()));
                self.low.d.next = self.first.q.val();
                self.low_write.d.next = self.known.q.val() && with_data && self.has_first.q.val();
                self.at.d.next = expected.position;
                self.position.d.next = expected.position + 1;
                self.room.d.next = if with_data {
                    expected.dwords - 1
                } else {
                    bits::<8>(0)
                };
                self.finish.d.next = self.ended.q.val();
                self.state.d.next = if self.ended.q.val() {
                    CompletionState::Header
                } else {
                    CompletionState::Payload
                };
            }
            CompletionState::Payload => {
                self.tlp.ready.next = true;
                if self.tlp.valid.val() {
                    self.low_write.d.next = self.known.q.val() && room.any();
                    self.high_write.d.next = self.known.q.val() && two && room > bits::<8>(1);
                    self.position.d.next = self.position.q.val() + 2;
                    self.room.d.next = if room > bits::<8>(1) {
                        room - 2
                    } else {
                        bits::<8>(0)
                    };
                    self.left.d.next = left - 2;
                    self.exact.d.next = left == if two { bits::<11>(2) } else { bits::<11>(1) };
                    self.discarded.d.next = self.tlp.error.val();
                    if self.tlp.last.val() {
                        self.finish.d.next = true;
                        self.state.d.next = CompletionState::Header;
                    }
                }
            }
        }

        // The verdict. The header stays until the end of this cycle.
        self.judged.d.next = self.finish.q.val() && !self.discarded.q.val();
        let as_expected = self.exact.q.val() && self.fields_match.q.val();
        let successful = status == bits::<3>(SUCCESSFUL);
        let wrong = !self.exact.q.val() || (successful && !self.fields_match.q.val());
        let ends = self.exact.q.val() && (!successful || (as_expected && self.is_final.q.val()));
        let retry = status == bits::<3>(RETRY);
        let abort = status == bits::<3>(ABORT);
        self.live.d.next = self.look_known.val();
        self.verdict_tag.d.next = self.tag.q.val();
        self.verdict_progress.d.next = self.progress.q.val();
        self.verdict.d.next = Verdict {
            completion: is_completion,
            known: is_completion && self.known.q.val(),
            advance: successful && as_expected,
            done: ends,
            failed: wrong || !successful || poison,
            malformed: wrong || retry,
            poisoned: !wrong && successful && poison,
            aborted: !wrong && abort,
            unsupported: !wrong && !successful && !retry && !abort,
        };
        let verdict = self.verdict.q.val();
        let judged = self.judged.q.val();
        let found = judged && verdict.known && self.live.q.val();
        self.commit.next = found;
        self.commit_tag.next = self.verdict_tag.q.val();
        self.commit_progress.next = self.verdict_progress.q.val();
        self.commit_advance.next = verdict.advance;
        self.commit_done.next = verdict.done;
        self.commit_failed.next = verdict.failed;
        self.unexpected_event.d.next = judged && verdict.completion && !found;
        self.malformed_event.d.next = (judged && !verdict.completion)
            || (found && verdict.malformed)
            || (self.state.q.val() == CompletionState::Header
                && self.tlp.valid.val()
                && self.tlp.last.val()
                && !self.tlp.error.val());
        self.poisoned_event.d.next = found && verdict.poisoned;
        self.aborted_event.d.next = found && verdict.aborted;
        self.unsupported_event.d.next = found && verdict.unsupported;
        self.unsupported.next = self.unsupported_event.q.val();
        self.aborted.next = self.aborted_event.q.val();
        self.poisoned.next = self.poisoned_event.q.val();
        self.unexpected.next = self.unexpected_event.q.val();
        self.malformed.next = self.malformed_event.q.val();

        // Two DWs to consecutive positions: the halves of one row, or the end of one and the start of the next.
        let slot = self.tag.q.val().get_bits::<4>(0);
        let at = self.at.q.val();
        let odd = at.get_bit(0);
        let row = at.get_bits::<6>(1);
        self.write_enable[0].next = if odd {
            self.high_write.q.val()
        } else {
            self.low_write.q.val()
        };
        self.write_enable[1].next = if odd {
            self.low_write.q.val()
        } else {
            self.high_write.q.val()
        };
        self.write_address[0].next = cat::<10>((slot, row + cat::<6>((bits::<5>(0), odd))));
        self.write_address[1].next = cat::<10>((slot, row));
        self.write_data[0].next = if odd { self.high.q.val() } else { self.low.q.val() };
        self.write_data[1].next = if odd { self.low.q.val() } else { self.high.q.val() };
    }
}
