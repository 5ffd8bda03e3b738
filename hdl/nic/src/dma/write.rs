//! The write engine.

use hematite_lang::prelude::*;

use super::header::{low_address, memory_request, memory_request_ids};
use super::ports::{DmaConfigIn, WriteRequestIn};
use super::rows::{Rows, WriteOrder};
use super::split::Splitter;

/// A beat of a TLP.
#[hw(value)]
pub struct WriteBeat {
    /// Two DWs.
    pub data: Bits<64>,
    /// Which bytes are meant.
    pub keep: Bits<8>,
    /// Ends the TLP.
    pub last: Bit,
    /// Ends the request.
    pub ends_request: Bit,
    /// Whose.
    pub client: Bits<3>,
}

/// What the TLP builder waits for.
#[hw]
pub enum WriteState {
    /// A segment.
    Header,
    /// The row that goes beside the address.
    Address,
    /// The rest of the payload.
    Payload,
}

/// Writes host memory for N clients (at most 8).
///
/// Requests are taken in turn, cut at Max_Payload_Size (512 bytes at most) and 4 KiB, and leave as posted
/// writes in the order in which they were taken. `done` pulses when the last TLP of a request has been taken
/// in full: whatever is requested after that is behind it in posted order.
///
/// Throughput: a TLP in its beats, the first beat of the next follows at once; at most one request every 5
/// cycles. Up to 4 requests and 16 rows of data are taken ahead.
///
/// **Once a request is accepted its data must come without waiting for anything else from the DMA engines or
/// the host**: its TLP may have begun, and holds the way to the host until it ends. A packet that is not as
/// long as its request is padded or cut (`write_length_mismatch`); no TLP is ever malformed by it.
#[hw]
pub struct WriteEngine<const N: usize> {
    /// Core clock.
    pub clock: Signal<In, Clock>,
    /// Forgets everything, also the rest of a TLP that has begun.
    pub reset: Signal<In, Bit>,
    /// What the clients want.
    pub requests: [WriteRequestIn; N],
    /// What is to be written.
    pub data: [StreamIn; N],
    /// A request's TLPs have all left.
    pub done: [Signal<Out, Bit>; N],
    /// Memory write TLPs.
    pub tlp: StreamOut,
    /// From the PCI function.
    pub config: DmaConfigIn,
    /// No request, data or TLP inside.
    pub idle: Signal<Out, Bit>,
    /// A client's packet was not as long as its request said.
    pub write_length_mismatch: Signal<Out, Bit>,
    splitter: Splitter<N>,
    rows: Rows<N>,
    state: Reg<WriteState>,
    /// DWs still to come.
    left: Reg<Bits<8>>,
    /// It is one.
    left_one: Reg<Bit>,
    /// It is one or two.
    at_end: Reg<Bit>,
    /// A row's upper half goes in front of the next row's lower half.
    shifted: Reg<Bit>,
    upper: Reg<Bits<32>>,
    output: Skid<WriteBeat>,
    done_event: [Reg<Bit>; N],
}

#[hw]
impl<const N: usize> Logic for WriteEngine<N> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state);
        registers!(self.clock => self.left_one, self.at_end);
        registers!(self.clock => self.left, self.shifted, self.upper);
        clocked!(self.clock, self.reset => self.splitter, self.rows, self.output);

        for i in 0..N {
            self.splitter.address[i].next = self.requests[i].address.val();
            self.splitter.length[i].next = self.requests[i].length.val();
            self.splitter.valid[i].next = self.requests[i].valid.val();
            self.requests[i].ready.next = self.splitter.ready[i].val();
            self.data[i].link(&mut self.rows.data[i]);
        }
        self.splitter.size_code.next = self.config.max_payload.val();
        self.splitter.enable.next = self.config.bus_master.val() && self.rows.order_ready.val();
        self.rows.order_valid.next = self.splitter.accepted.val();
        self.rows.order.next = WriteOrder {
            client: self.splitter.accepted_client.val(),
            offset: self.splitter.accepted_offset.val(),
            length: self.splitter.accepted_length.val(),
        };
        self.write_length_mismatch.next = self.rows.mismatch.val();

        let segment = self.splitter.segment.val();
        let row = self.rows.row.val();
        let row_low = row.get_bits::<32>(0);
        let row_high = row.get_bits::<32>(32);
        let odd = segment.address.get_bit(2);
        let one = segment.dwords == bits::<8>(1);
        let left = self.left.q.val();
        let left_one = self.left_one.q.val();
        let at_end = self.at_end.q.val();
        let payload_left = if segment.wide {
            segment.dwords
        } else {
            segment.dwords - 1
        };
        let free = self.output.write_ready.val();
        let mut beat = WriteBeat {
            data: bits::<64>(0),
            keep: bits::<8>(0xff),
            last: false,
            ends_request: false,
            client: segment.client,
        };
        let mut made = false;

        self.splitter.segment_ready.next = false;
        self.rows.row_ready.next = false;
        match self.state.q.val() {
            WriteState::Header => {
                if free && self.splitter.segment_valid.val() && self.config.bus_master.val() {
                    let request = memory_request(true, segment.wide, segment.dwords);
                    let ids = memory_request_ids(
                        self.config.requester_id.val(),
                        bits::<8>(0),
                        segment.last_enable,
                        segment.first_enable,
                    );
                    beat.data = cat::<64>((ids, request));
                    made = true;
                    self.state.d.next = WriteState::Address;
                }
            }
            WriteState::Address => {
                // A four-DW header leaves no room for payload here, but if that starts in the upper half of its
                // row, the half must be at hand when the next row comes.
                let with_row = !segment.wide || odd;
                if free && (self.rows.row_valid.val() || !with_row) {
                    let address = low_address(segment.address);
                    self.rows.row_ready.next = with_row;
                    self.upper.d.next = row_high;
                    self.shifted.d.next = segment.wide == odd;
                    made = true;
                    if segment.wide {
                        beat.data = cat::<64>((address, segment.address.get_bits::<32>(32)));
                    } else {
                        let first = if odd { row_high } else { row_low };
                        beat.data = cat::<64>((first, address));
                    }
                    self.left.d.next = payload_left;
                    self.left_one.d.next = payload_left == bits::<8>(1);
                    self.at_end.d.next = payload_left <= bits::<8>(2);
                    if !segment.wide && one {
                        beat.last = true;
                        beat.ends_request = segment.last;
                        self.splitter.segment_ready.next = true;
                        self.state.d.next = WriteState::Header;
                    } else {
                        self.state.d.next = WriteState::Payload;
                    }
                }
            }
            WriteState::Payload => {
                let with_row = !(self.shifted.q.val() && left_one);
                if free && (self.rows.row_valid.val() || !with_row) {
                    self.rows.row_ready.next = with_row;
                    self.upper.d.next = row_high;
                    beat.data = if self.shifted.q.val() {
                        cat::<64>((row_low, self.upper.q.val()))
                    } else {
                        row
                    };
                    if left_one {
                        beat.keep = bits::<8>(0x0f);
                    }
                    made = true;
                    self.left.d.next = left - 2;
                    self.left_one.d.next = left == bits::<8>(3);
                    self.at_end.d.next = left <= bits::<8>(4);
                    if at_end {
                        beat.last = true;
                        beat.ends_request = segment.last;
                        self.splitter.segment_ready.next = true;
                        self.state.d.next = WriteState::Header;
                    }
                }
            }
        }
        self.output.write_data.next = beat;
        self.output.write_valid.next = made;
        self.output.read_ready.next = self.tlp.ready.val();
        let output = self.output.read_data.val();
        let ended = self.output.read_valid.val() && self.tlp.ready.val() && output.ends_request;
        for i in 0..N {
            self.done_event[i].clock.next = self.clock.val();
            self.done_event[i].reset.next = self.reset.val();
            self.done_event[i].d.next = ended && output.client == bits::<3>(i as u64);
            self.done[i].next = self.done_event[i].q.val();
        }
        self.tlp.data.next = output.data;
        self.tlp.keep.next = output.keep;
        self.tlp.last.next = output.last;
        self.tlp.error.next = false;
        self.tlp.valid.next = self.output.read_valid.val();
        self.idle.next = self.splitter.idle.val() && self.rows.idle.val() && !self.output.read_valid.val();
    }
}
