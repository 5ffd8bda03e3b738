//! From the reassembly memory to the clients.

use hematite_lang::prelude::*;

use super::align::{bytes_from, last_keep};
use super::tags::Job;

/// A beat on its way to a client.
#[hw(value)]
pub struct ResponseBeat {
    /// Eight bytes.
    pub data: Bits<64>,
    /// Which bytes are meant.
    pub keep: Bits<8>,
    /// Ends the response.
    pub last: Bit,
    /// The response is useless.
    pub error: Bit,
    /// Whose.
    pub client: Bits<3>,
}

/// A row on its way through the aligner.
#[hw(value)]
pub struct RowFlags {
    /// The request's last row.
    pub last: Bit,
    /// With `last`: one of the request's reads has failed.
    pub error: Bit,
    /// Whose.
    pub client: Bits<3>,
    /// Byte of the request's first row where the request starts.
    pub offset: Bits<3>,
    /// The request's length modulo 8.
    pub tail: Bits<3>,
    /// See `is_absorbed`.
    pub absorbed: Bit,
}

/// Reads finished slots from the reassembly memory in the order of the requests, moves the bytes so that each
/// request starts at bit 0, and hands the beats to the clients.
///
/// One row each cycle, across slots and requests; 7 cycles from a finished slot to its first beat. A client
/// that does not take its beats holds up the clients behind it.
#[hw]
pub struct Drain<const N: usize> {
    /// Core clock.
    pub clock: Signal<In, Clock>,
    /// Forgets everything.
    pub reset: Signal<In, Bit>,
    /// A read is finished.
    pub job_valid: Signal<In, Bit>,
    /// It.
    pub job: Signal<In, Job>,
    /// It is taken.
    pub job_ready: Signal<Out, Bit>,
    /// The oldest taken read's buffer is free.
    pub released: Signal<Out, Bit>,
    /// `{slot, row}`.
    pub read_address: Signal<Out, Bits<10>>,
    /// The row of the cycle before's `read_address`.
    pub read_data: Signal<In, Bits<64>>,
    /// One packet per request.
    pub responses: [StreamOut; N],
    /// A read that timed out is being drained.
    pub timeout: Signal<Out, Bit>,
    /// Nothing inside.
    pub idle: Signal<Out, Bit>,
    jobs: Skid<Job>,
    release: Reg<Bit>,
    current: Reg<Job>,
    current_valid: Reg<Bit>,
    row: Reg<Bits<6>>,
    /// It is the slot's last.
    last_row: Reg<Bit>,
    /// An earlier read of the current request has failed.
    failed: Reg<Bit>,
    room: Reg<Bit>,
    /// The row whose data the memory puts out now.
    fetch: Reg<RowFlags>,
    fetch_valid: Reg<Bit>,
    /// The row that enters the aligner.
    enter: Reg<RowFlags>,
    enter_data: Reg<Bits<64>>,
    enter_valid: Reg<Bit>,
    /// The row with further bytes of the beat that comes next.
    hold: Reg<RowFlags>,
    hold_data: Reg<Bits<64>>,
    hold_valid: Reg<Bit>,
    aligned: Reg<ResponseBeat>,
    aligned_valid: Reg<Bit>,
    queue: Fifo<ResponseBeat, 4>,
    out: Stage<ResponseBeat>,
    timeout_event: Reg<Bit>,
}

/// The request's last row holds no byte that is not in the beat of the row before: its bytes end at or below
/// the offset where the request starts.
#[hw]
fn is_absorbed(offset: Bits<3>, tail: Bits<3>) -> Bit {
    let end = offset + tail;
    end.any() && end <= offset
}

#[hw]
impl<const N: usize> Logic for Drain<N> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.release, self.current_valid, self.row, self.failed);
        registers!(self.clock, self.reset => self.room, self.fetch_valid, self.enter_valid, self.hold_valid);
        registers!(self.clock, self.reset => self.aligned_valid, self.timeout_event);
        registers!(self.clock => self.current, self.last_row, self.fetch, self.enter, self.enter_data);
        registers!(self.clock => self.hold, self.hold_data, self.aligned);
        clocked!(self.clock, self.reset => self.queue, self.jobs, self.out);

        // At most 8 rows are between here and the queue's level as `room` saw it.
        self.room.d.next = self.queue.level.val() < bits::<16>(8);
        let current = self.current.q.val();
        let issue = self.current_valid.q.val() && self.room.q.val();
        let last_row = self.last_row.q.val();
        let finished = issue && last_row;
        let failed = self.failed.q.val() || current.failed;
        self.read_address.next = cat::<10>((current.slot, self.row.q.val()));
        self.release.d.next = finished;
        self.released.next = self.release.q.val();
        self.fetch_valid.d.next = issue;
        self.fetch.d.next = RowFlags {
            last: last_row && current.last,
            error: failed,
            client: current.client,
            offset: current.offset,
            tail: current.tail,
            absorbed: is_absorbed(current.offset, current.tail),
        };
        self.timeout_event.d.next = finished && current.late;
        self.timeout.next = self.timeout_event.q.val();
        if issue {
            self.last_row.d.next = self.row.q.val().resize::<7>() + 2 == current.rows;
            self.row.d.next = if last_row {
                bits::<6>(0)
            } else {
                self.row.q.val() + 1
            };
        }
        if finished {
            self.failed.d.next = failed && !current.last;
        }
        let vacant = !self.current_valid.q.val() || finished;
        self.jobs.read_ready.next = vacant;
        if finished {
            self.current_valid.d.next = false;
        }
        if vacant && self.jobs.read_valid.val() {
            self.current.d.next = self.jobs.read_data.val();
            self.current_valid.d.next = true;
            self.last_row.d.next = self.jobs.read_data.val().rows == bits::<7>(1);
        }
        self.jobs.write_data.next = self.job.val();
        self.jobs.write_valid.next = self.job_valid.val();
        self.job_ready.next = self.jobs.write_ready.val();

        // The memory's output, once registered, enters the aligner.
        self.enter_valid.d.next = self.fetch_valid.q.val();
        self.enter.d.next = self.fetch.q.val();
        self.enter_data.d.next = self.read_data.val();

        // A row is held until the next one completes its beat; the last one leaves by itself, and by then the
        // next request's first row may come in.
        let enter = self.enter.q.val();
        let hold = self.hold.q.val();
        let entering = self.enter_valid.q.val();
        let absorbed = self.hold_valid.q.val() && !hold.last && enter.last && hold.absorbed;
        let leaving = self.hold_valid.q.val() && (hold.last || entering);
        let last = hold.last || absorbed;
        self.aligned_valid.d.next = leaving;
        self.aligned.d.next = ResponseBeat {
            data: bytes_from(self.hold_data.q.val(), self.enter_data.q.val(), hold.offset),
            keep: if last {
                last_keep(hold.tail)
            } else {
                bits::<8>(0xff)
            },
            last: last,
            error: if hold.last { hold.error } else { enter.error },
            client: hold.client,
        };
        if leaving {
            self.hold_valid.d.next = false;
        }
        if entering && !absorbed {
            self.hold.d.next = enter;
            self.hold_data.d.next = self.enter_data.q.val();
            self.hold_valid.d.next = true;
        }

        // `room` keeps this from overflowing.
        self.queue.write_valid.next = self.aligned_valid.q.val();
        self.queue.write_data.next = self.aligned.q.val();
        let output = self.out.read_data.val();
        let mut taken = false;
        for i in 0..N {
            let mine = output.client == bits::<3>(i as u64);
            self.responses[i].data.next = output.data;
            self.responses[i].keep.next = output.keep;
            self.responses[i].last.next = output.last;
            self.responses[i].error.next = output.error;
            self.responses[i].valid.next = self.out.read_valid.val() && mine;
            if mine && self.responses[i].ready.val() {
                taken = true;
            }
        }
        self.out.read_ready.next = taken;
        self.out.write_data.next = self.queue.read_data.val();
        self.out.write_valid.next = self.queue.read_valid.val();
        self.queue.read_ready.next = self.out.write_ready.val();
        self.idle.next = !(self.jobs.read_valid.val()
            || self.current_valid.q.val()
            || self.fetch_valid.q.val()
            || self.enter_valid.q.val()
            || self.hold_valid.q.val()
            || self.aligned_valid.q.val()
            || self.queue.read_valid.val()
            || self.out.read_valid.val());
    }
}
