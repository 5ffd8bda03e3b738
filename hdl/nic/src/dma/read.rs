//! The read engine.

use hematite_lang::prelude::*;

use super::completion::CompletionParser;
use super::drain::Drain;
use super::header::{low_address, memory_request, memory_request_ids};
use super::ports::{DmaConfigIn, ReadRequestIn};
use super::split::Splitter;
use super::tags::TagTable;

/// TIMEOUT of a card at 125 MHz: 8.4 ms, within the default range of 50 us to 50 ms (PCI Express Base
/// Specification, section 7.5.3.16).
pub const COMPLETION_TIMEOUT: usize = 1 << 20;

/// What the header builder waits for.
#[hw]
pub enum ReadHeaderState {
    /// A segment, a tag and a free output.
    Header,
    /// The output again, for the address.
    Address,
    /// Nothing: the read is entered in the tag table.
    Entry,
}

/// Reads host memory for N clients (at most 8).
///
/// Requests are taken in turn, cut at Max_Read_Request_Size (512 bytes at most) and 4 KiB, and up to 16 reads
/// are outstanding, each with 512 bytes of reassembly memory; completions may come in any order between
/// tags and in any pieces. Responses leave in the order in which requests were taken, so a client's come in its
/// own order, and **a client that does not take its response holds up the others: reserve room before
/// asking**. A response starts when its first read has been answered in full.
///
/// Throughput: a request of up to 512 bytes every 4 cycles, each further read of a long one every 3; a
/// completion in its beats and 2 cycles; a row of 8 bytes each cycle to the clients. A request waits for tags,
/// for `config_bus_master`, and for its turn behind whole requests of others.
///
/// An answer that cannot be used (see `CompletionParser`) or that does not come within TIMEOUT cycles of the
/// request's leaving (within a quarter less) ends that one response with `error` on its last beat; it still
/// has the length that was asked for. Each event pulses once per read or completion.
#[hw]
pub struct ReadEngine<const N: usize, const TIMEOUT: usize> {
    /// Core clock.
    pub clock: Signal<In, Clock>,
    /// Forgets everything; completions of before are unexpected then.
    pub reset: Signal<In, Bit>,
    /// What the clients want.
    pub requests: [ReadRequestIn; N],
    /// What they get.
    pub responses: [StreamOut; N],
    /// Memory read TLPs.
    pub tlp: StreamOut,
    /// Completion TLPs as they arrive.
    pub completion: StreamIn,
    /// From the PCI function.
    pub config: DmaConfigIn,
    /// Completion Timeout Disable (Device Control 2): reads wait for ever.
    pub completion_timeout_disable: Signal<In, Bit>,
    /// A read has left and waits for completions.
    pub outstanding: Signal<Out, Bit>,
    /// No request, read or response inside.
    pub idle: Signal<Out, Bit>,
    /// A read was answered with Unsupported Request.
    pub read_unsupported: Signal<Out, Bit>,
    /// A read was answered with Completer Abort.
    pub read_aborted: Signal<Out, Bit>,
    /// A read was answered with a poisoned completion.
    pub read_poisoned: Signal<Out, Bit>,
    /// A read was not answered in time.
    pub read_timeout: Signal<Out, Bit>,
    /// A completion came that no read waits for.
    pub completion_unexpected: Signal<Out, Bit>,
    /// A completion came that breaks the rules.
    pub completion_malformed: Signal<Out, Bit>,
    splitter: Splitter<N>,
    tags: TagTable<TIMEOUT>,
    parser: CompletionParser,
    /// The halves of the rows.
    low: Ram<Bits<32>, 10>,
    high: Ram<Bits<32>, 10>,
    drain: Drain<N>,
    state: Reg<ReadHeaderState>,
    output_data: Reg<Bits<64>>,
    output_keep: Reg<Bits<8>>,
    output_last: Reg<Bit>,
    output_valid: Reg<Bit>,
}

#[hw]
impl<const N: usize, const TIMEOUT: usize> Logic for ReadEngine<N, TIMEOUT> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.output_valid);
        registers!(self.clock => self.output_data, self.output_keep, self.output_last);
        clocked!(self.clock, self.reset => self.splitter, self.tags, self.parser, self.drain);
        clocked!(self.clock => self.low, self.high);

        for i in 0..N {
            self.splitter.address[i].next = self.requests[i].address.val();
            self.splitter.length[i].next = self.requests[i].length.val();
            self.splitter.valid[i].next = self.requests[i].valid.val();
            self.requests[i].ready.next = self.splitter.ready[i].val();
        }
        self.splitter.size_code.next = self.config.max_read_request.val();
        self.splitter.enable.next = self.config.bus_master.val();

        // Header beats.
        let segment = self.splitter.segment.val();
        let free = !self.output_valid.q.val() || self.tlp.ready.val();
        self.splitter.segment_ready.next = false;
        self.tags.timeout_disable.next = self.completion_timeout_disable.val();
        self.tags.allocate.next = false;
        self.tags.segment.next = segment;
        if self.tlp.ready.val() {
            self.output_valid.d.next = false;
        }
        match self.state.q.val() {
            ReadHeaderState::Header => {
                if free
                    && self.splitter.segment_valid.val()
                    && self.tags.room.val()
                    && self.config.bus_master.val()
                {
                    let request = memory_request(false, segment.wide, segment.dwords);
                    let ids = memory_request_ids(
                        self.config.requester_id.val(),
                        self.tags.tag.val(),
                        segment.last_enable,
                        segment.first_enable,
                    );
                    self.output_data.d.next = cat::<64>((ids, request));
                    self.output_keep.d.next = bits::<8>(0xff);
                    self.output_last.d.next = false;
                    self.output_valid.d.next = true;
                    self.state.d.next = ReadHeaderState::Address;
                }
            }
            ReadHeaderState::Address => {
                if free {
                    let low = low_address(segment.address);
                    self.output_data.d.next = if segment.wide {
                        cat::<64>((low, segment.address.get_bits::<32>(32)))
                    } else {
                        cat::<64>((bits::<32>(0), low))
                    };
                    self.output_keep.d.next = if segment.wide {
                        bits::<8>(0xff)
                    } else {
                        bits::<8>(0x0f)
                    };
                    self.output_last.d.next = true;
                    self.output_valid.d.next = true;
                    // The arbiter has taken the first beat: time starts.
                    self.state.d.next = ReadHeaderState::Entry;
                }
            }
            ReadHeaderState::Entry => {
                self.tags.allocate.next = true;
                self.splitter.segment_ready.next = true;
                self.state.d.next = ReadHeaderState::Header;
            }
        }
        self.tlp.data.next = self.output_data.q.val();
        self.tlp.keep.next = self.output_keep.q.val();
        self.tlp.last.next = self.output_last.q.val();
        self.tlp.error.next = false;
        self.tlp.valid.next = self.output_valid.q.val();

        // Completions.
        self.completion.link(&mut self.parser.tlp);
        self.parser.requester_id.next = self.config.requester_id.val();
        self.tags.look_tag.next = self.parser.look_tag.val();
        self.parser.look_known.next = self.tags.look_known.val();
        self.parser.look.next = self.tags.look.val();
        self.tags.commit.next = self.parser.commit.val();
        self.tags.commit_tag.next = self.parser.commit_tag.val();
        self.tags.commit_advance.next = self.parser.commit_advance.val();
        self.tags.commit_progress.next = self.parser.commit_progress.val();
        self.tags.commit_done.next = self.parser.commit_done.val();
        self.tags.commit_failed.next = self.parser.commit_failed.val();
        self.low.write_enable.next = self.parser.write_enable[0].val();
        self.low.write_address.next = self.parser.write_address[0].val();
        self.low.write_data.next = self.parser.write_data[0].val();
        self.high.write_enable.next = self.parser.write_enable[1].val();
        self.high.write_address.next = self.parser.write_address[1].val();
        self.high.write_data.next = self.parser.write_data[1].val();

        // Responses.
        self.drain.job_valid.next = self.tags.job_valid.val();
        self.drain.job.next = self.tags.job.val();
        self.tags.job_ready.next = self.drain.job_ready.val();
        self.tags.released.next = self.drain.released.val();
        self.low.read_address.next = self.drain.read_address.val();
        self.high.read_address.next = self.drain.read_address.val();
        self.drain.read_data.next = cat::<64>((self.high.read_data.val(), self.low.read_data.val()));
        for i in 0..N {
            self.responses[i].link(&mut self.drain.responses[i]);
        }

        self.outstanding.next = self.tags.outstanding.val();
        self.idle.next = self.splitter.idle.val()
            && !self.output_valid.q.val()
            && self.tags.idle.val()
            && self.drain.idle.val();
        self.read_unsupported.next = self.parser.unsupported.val();
        self.read_aborted.next = self.parser.aborted.val();
        self.read_poisoned.next = self.parser.poisoned.val();
        self.read_timeout.next = self.drain.timeout.val();
        self.completion_unexpected.next = self.parser.unexpected.val();
        self.completion_malformed.next = self.parser.malformed.val();
    }
}
