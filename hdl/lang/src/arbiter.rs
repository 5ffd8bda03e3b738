//! Fair choice between requesters.

use crate::prelude::*;

/// The lowest bit that is set, alone.
#[hw]
pub fn lowest<const N: usize>(x: Bits<N>) -> Bits<N> {
    x & (bits::<N>(0) - x)
}

/// Round-robin arbiter for `N` requesters; `W` is the width of an index. The grant is combinational
/// from the requests; each `advance` moves the one granted to the end of the line, so a requester waits for
/// at most `N - 1` others.
#[hw]
pub struct RoundRobin<const N: usize, const W: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Puts requester 0 first in the line.
    pub reset: Signal<In, Bit>,
    /// Bit `i`: requester `i` wants the resource.
    pub requests: Signal<In, Bits<N>>,
    /// One bit, or none without a request.
    pub grant: Signal<Out, Bits<N>>,
    /// The requester granted; 0 without a request.
    pub index: Signal<Out, Bits<W>>,
    /// The grant was used.
    pub advance: Signal<In, Bit>,
    /// The requesters after the one served last.
    after: Reg<Bits<N>>,
}

#[hw]
impl<const N: usize, const W: usize> Logic for RoundRobin<N, W> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.after);
        let requests = self.requests.val();
        let later = requests & self.after.q.val();
        let grant = if later.any() {
            lowest::<N>(later)
        } else {
            lowest::<N>(requests)
        };
        let mut index = bits::<W>(0);
        for i in 0..N {
            if grant.get_bit(i) {
                index = bits::<W>(i as u64);
            }
        }
        self.grant.next = grant;
        self.index.next = index;
        if self.advance.val() && requests.any() {
            self.after.d.next = !(grant | (grant - 1));
        }
    }
}

/// Merges `N` packet streams into one, round robin by packet; `W` is the width of an index. One beat a
/// cycle without a gap between packets, one cycle of latency; the output is a [`Skid`], so no path
/// leads through the block.
#[hw]
pub struct StreamArbiter<const N: usize, const W: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Drops what is held.
    pub reset: Signal<In, Bit>,
    /// The streams to merge.
    pub inputs: [StreamIn; N],
    /// Whole packets of each in turn.
    pub output: StreamOut,
    arbiter: RoundRobin<N, W>,
    /// A packet is under way: its input keeps the grant.
    busy: Reg<Bit>,
    held: Reg<Bits<W>>,
    skid: Skid<Beat>,
}

#[hw]
impl<const N: usize, const W: usize> Logic for StreamArbiter<N, W> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.busy, self.held);
        clocked!(self.clock, self.reset => self.arbiter, self.skid);
        let mut requests = bits::<N>(0);
        for i in 0..N {
            requests = requests.replace_bit(i, self.inputs[i].valid.val());
        }
        self.arbiter.requests.next = requests;
        let chosen = if self.busy.q.val() {
            self.held.q.val()
        } else {
            self.arbiter.index.val()
        };
        let mut data = bits::<64>(0);
        let mut keep = bits::<8>(0);
        let mut last = false;
        let mut error = false;
        let mut valid = false;
        for i in 0..N {
            let mine = chosen == bits::<W>(i as u64);
            self.inputs[i].ready.next = mine && self.skid.write_ready.val();
            if mine {
                data = self.inputs[i].data.val();
                keep = self.inputs[i].keep.val();
                last = self.inputs[i].last.val();
                error = self.inputs[i].error.val();
                valid = self.inputs[i].valid.val();
            }
        }
        self.skid.write_data.next = Beat {
            data,
            keep,
            last,
            error,
        };
        self.skid.write_valid.next = valid;
        let moves = valid && self.skid.write_ready.val();
        self.arbiter.advance.next = moves && !self.busy.q.val();
        if moves {
            self.busy.d.next = !last;
            self.held.d.next = chosen;
        }
        let beat = self.skid.read_data.val();
        self.output.data.next = beat.data;
        self.output.keep.next = beat.keep;
        self.output.last.next = beat.last;
        self.output.error.next = beat.error;
        self.output.valid.next = self.skid.read_valid.val();
        self.skid.read_ready.next = self.output.ready.val();
    }
}
