//! Two clients on one channel of the DMA engines.

use hematite_lang::prelude::*;

use crate::dma::ports::{ReadRequestIn, ReadRequestOut, WriteRequestIn, WriteRequestOut};

/// Descriptor reads and event reads of a queue on one client channel of the read engine. `second` goes
/// first when both ask. A request passes through a register: one cycle more, one request every two
/// cycles. Up to six responses are outstanding; each goes back to who asked.
#[hw]
pub struct ReadMux {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Forgets outstanding requests: only while there are none.
    pub reset: Signal<In, Bit>,
    /// Requests of one client.
    pub first: ReadRequestIn,
    /// Responses to it.
    pub first_response: StreamOut,
    /// Requests of the other.
    pub second: ReadRequestIn,
    /// Responses to it.
    pub second_response: StreamOut,
    /// To the read engine.
    pub request: ReadRequestOut,
    /// From the read engine.
    pub response: StreamIn,
    address: Reg<Bits<64>>,
    length: Reg<Bits<16>>,
    held: Reg<Bit>,
    /// Who asked: true for the second client.
    order: Fifo<Bit, 2>,
    owner: Skid<Bit>,
    beats: Skid<Beat>,
}

#[hw]
impl Logic for ReadMux {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.held);
        registers!(self.clock => self.address, self.length);
        clocked!(self.clock, self.reset => self.order, self.owner, self.beats);
        self.request.address.next = self.address.q.val();
        self.request.length.next = self.length.q.val();
        self.request.valid.next = self.held.q.val();
        if self.held.q.val() && self.request.ready.val() {
            self.held.d.next = false;
        }
        let free = !self.held.q.val() && self.order.write_ready.val();
        let pick = self.second.valid.val();
        self.second.ready.next = free;
        self.first.ready.next = free && !pick;
        let take = free && (pick || self.first.valid.val());
        self.order.write_valid.next = take;
        self.order.write_data.next = pick;
        if take {
            self.held.d.next = true;
            self.address.d.next = if pick {
                self.second.address.val()
            } else {
                self.first.address.val()
            };
            self.length.d.next = if pick {
                self.second.length.val()
            } else {
                self.first.length.val()
            };
        }

        self.owner.write_data.next = self.order.read_data.val();
        self.owner.write_valid.next = self.order.read_valid.val();
        self.order.read_ready.next = self.owner.write_ready.val();
        let owner = self.owner.read_data.val();
        let known = self.owner.read_valid.val();
        let ready = known
            && if owner {
                self.second_response.ready.val()
            } else {
                self.first_response.ready.val()
            };
        self.beats.write_data.next = Beat {
            data: self.response.data.val(),
            keep: self.response.keep.val(),
            last: self.response.last.val(),
            error: self.response.error.val(),
        };
        self.beats.write_valid.next = self.response.valid.val();
        self.response.ready.next = self.beats.write_ready.val();
        self.beats.read_ready.next = ready;
        let beat = self.beats.read_data.val();
        let some = self.beats.read_valid.val();
        self.owner.read_ready.next = ready && some && beat.last;
        self.first_response.data.next = beat.data;
        self.first_response.keep.next = beat.keep;
        self.first_response.last.next = beat.last;
        self.first_response.error.next = beat.error;
        self.first_response.valid.next = some && known && !owner;
        self.second_response.data.next = beat.data;
        self.second_response.keep.next = beat.keep;
        self.second_response.last.next = beat.last;
        self.second_response.error.next = beat.error;
        self.second_response.valid.next = some && known && owner;
    }
}

/// Packet writes and used descriptor writes of a queue on one client channel of the write engine, so
/// that the order in which they are granted is the order in which the host sees them. `second` goes
/// first when both ask. Up to six requests run ahead of their data and up to 32 are not done.
#[hw]
pub struct WriteMux {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Forgets outstanding requests: only while there are none.
    pub reset: Signal<In, Bit>,
    /// Requests of one client.
    pub first: WriteRequestIn,
    /// Its bytes.
    pub first_data: StreamIn,
    /// Requests of the other.
    pub second: WriteRequestIn,
    /// Its bytes.
    pub second_data: StreamIn,
    /// The oldest write of the second client that is not done is now done.
    pub second_done: Signal<Out, Bit>,
    /// To the write engine.
    pub request: WriteRequestOut,
    /// To the write engine.
    pub data: StreamOut,
    /// The oldest write that is not done is now done.
    pub done: Signal<In, Bit>,
    /// Nothing is in flight.
    pub quiet: Signal<Out, Bit>,
    address: Reg<Bits<64>>,
    length: Reg<Bits<16>>,
    held: Reg<Bit>,
    /// Whose bytes come next: true for the second client.
    order: Fifo<Bit, 2>,
    owner: Skid<Bit>,
    /// Whose write is done next.
    undone: Fifo<Bit, 5>,
    beats: Skid<Beat>,
}

#[hw]
impl Logic for WriteMux {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.held);
        registers!(self.clock => self.address, self.length);
        clocked!(self.clock, self.reset => self.order, self.owner, self.undone, self.beats);
        self.request.address.next = self.address.q.val();
        self.request.length.next = self.length.q.val();
        self.request.valid.next = self.held.q.val();
        if self.held.q.val() && self.request.ready.val() {
            self.held.d.next = false;
        }
        let free = !self.held.q.val() && self.order.write_ready.val() && self.undone.write_ready.val();
        let pick = self.second.valid.val();
        self.second.ready.next = free;
        self.first.ready.next = free && !pick;
        let take = free && (pick || self.first.valid.val());
        self.order.write_valid.next = take;
        self.order.write_data.next = pick;
        self.undone.write_valid.next = take;
        self.undone.write_data.next = pick;
        if take {
            self.held.d.next = true;
            self.address.d.next = if pick {
                self.second.address.val()
            } else {
                self.first.address.val()
            };
            self.length.d.next = if pick {
                self.second.length.val()
            } else {
                self.first.length.val()
            };
        }

        self.owner.write_data.next = self.order.read_data.val();
        self.owner.write_valid.next = self.order.read_valid.val();
        self.order.read_ready.next = self.owner.write_ready.val();
        let owner = self.owner.read_data.val();
        let known = self.owner.read_valid.val();
        let valid = known
            && if owner {
                self.second_data.valid.val()
            } else {
                self.first_data.valid.val()
            };
        let last = if owner {
            self.second_data.last.val()
        } else {
            self.first_data.last.val()
        };
        self.beats.write_data.next = Beat {
            data: if owner {
                self.second_data.data.val()
            } else {
                self.first_data.data.val()
            },
            keep: if owner {
                self.second_data.keep.val()
            } else {
                self.first_data.keep.val()
            },
            last: last,
            error: if owner {
                self.second_data.error.val()
            } else {
                self.first_data.error.val()
            },
        };
        self.beats.write_valid.next = valid;
        let ready = self.beats.write_ready.val();
        self.owner.read_ready.next = valid && last && ready;
        self.first_data.ready.next = known && !owner && ready;
        self.second_data.ready.next = known && owner && ready;
        let beat = self.beats.read_data.val();
        self.data.data.next = beat.data;
        self.data.keep.next = beat.keep;
        self.data.last.next = beat.last;
        self.data.error.next = beat.error;
        self.data.valid.next = self.beats.read_valid.val();
        self.beats.read_ready.next = self.data.ready.val();

        self.undone.read_ready.next = self.done.val();
        self.second_done.next = self.done.val() && self.undone.read_data.val();
        self.quiet.next = !self.undone.read_valid.val();
    }
}
