//! Used buffer notifications: whether the driver wants an interrupt, and asking for it.

use hematite_lang::prelude::*;

use super::fetch::Answer;
use crate::virtio::ports::{Coalesce, InterruptOut};

/// RING_EVENT_FLAGS_DISABLE (virtio 1.3 section 2.8.14).
const DISABLE: u64 = 1;
/// The queue has no MSI-X vector (section 4.1.5.1.2).
const NO_VECTOR: u64 = 0xffff;

#[hw]
enum NotifyState {
    Written,
    Grant,
    Response,
    Interrupt,
    Failed,
}

/// After used descriptors have reached host memory, asks for the queue's interrupt unless the driver event
/// suppression structure says DISABLE. DESC and the reserved value count as ENABLE: EVENT_IDX is not offered.
///
/// Moderation: the first packet after a quiet time asks at once. From then on a notification waits until
/// `max_usecs` have passed since the last one or `max_packets` have been used, whichever is first.
///
/// The structure is read, its four bytes in one read, ahead of need: from an interrupt on, again and again at
/// intervals that double from `INTERVAL` cycles to `INTERVAL << BACKOFF`, until it says ENABLE; an idle queue then asks
/// for its interrupt without a round trip. A driver that disables notifications between that and the next
/// used buffer hears of that buffer all the same, once: it only costs it a look at a ring that has one.
///
/// Never lost: ENABLE alone is believed from an earlier read. A DISABLE counts only if the read was requested after
/// the descriptors were visible, and a driver that enables notifications looks at the ring once more. Never
/// without new descriptors. One read is in flight at a time, and a read starts at least `INTERVAL` cycles after the last
/// read or interrupt. A queue without a vector reads nothing. A read error fails, until reset.
#[hw]
pub struct Notifier<const INTERVAL: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Forgets what was written; low only while nothing is in flight.
    pub reset: Signal<In, Bit>,
    /// Start nothing more.
    pub stop: Signal<In, Bit>,
    /// MSI-X vector of the queue, 0xffff for none.
    pub vector: Signal<In, Bits<16>>,
    /// Moderation.
    pub coalesce: Signal<In, Coalesce>,
    /// High for one cycle each microsecond.
    pub microsecond: Signal<In, Bit>,
    /// The last buffer of a packet is on its way to the ring.
    pub packet: Signal<In, Bit>,
    /// New used descriptors are in host memory, where the driver sees them.
    pub written: Signal<In, Bit>,
    /// A read of the structure is wanted.
    pub request: Signal<Out, Bit>,
    /// It is taken.
    pub taken: Signal<In, Bit>,
    /// A beat of some response, which is always taken.
    pub answer: Signal<In, Answer>,
    /// It is of the structure's.
    pub answered: Signal<In, Bit>,
    /// The interrupt asked for.
    pub interrupt: InterruptOut,
    /// Nothing is in flight.
    pub quiet: Signal<Out, Bit>,
    /// The structure could not be read; high until reset.
    pub failed: Signal<Out, Bit>,
    state: Reg<NotifyState>,
    /// Descriptors were written of which the driver was not told.
    pending: Reg<Bit>,
    /// The read in flight was requested with some pending.
    asked: Reg<Bit>,
    /// The structure said ENABLE, and no interrupt was sent since.
    enabled: Reg<Bit>,
    /// Cycles of this interval, and intervals that are over since the last read.
    cycles: Reg<Bits<12>>,
    intervals: Reg<Bits<7>>,
    /// One bit, its place the doublings: so many intervals to the next read ahead.
    #[reset(bits::<7>(1))]
    wait: Reg<Bits<7>>,
    /// Enough cycles have passed for a read, and for a read ahead.
    #[reset(true)]
    rested: Reg<Bit>,
    ahead: Reg<Bit>,
    /// Microseconds since the last interrupt.
    #[reset(bits::<16>(0xffff))]
    since_interrupt: Reg<Bits<16>>,
    /// Packets since then.
    packets: Reg<Bits<16>>,
    /// Moderation lets an interrupt through.
    due: Reg<Bit>,
}

/// Doublings of the interval between reads ahead.
const BACKOFF: usize = 6;

#[hw]
impl<const INTERVAL: usize> Logic for Notifier<INTERVAL> {
    fn update(&mut self) {
        assert!(INTERVAL < 1 << 12);
        registers!(self.clock, self.reset => self.state, self.pending, self.asked, self.enabled);
        registers!(self.clock, self.reset => self.cycles, self.intervals, self.wait, self.rested, self.ahead);
        registers!(self.clock, self.reset => self.since_interrupt, self.packets, self.due);
        self.request.next = false;
        self.interrupt.vector.next = self.vector.val();
        self.interrupt.valid.next = false;
        self.interrupt.held.next = false;
        self.quiet.next = false;
        self.failed.next = false;

        // Time since the last read or interrupt.
        let over = self.cycles.q.val() == bits::<12>(INTERVAL as u64 - 1);
        self.cycles.d.next = if over {
            bits::<12>(0)
        } else {
            self.cycles.q.val() + 1
        };
        self.rested.d.next = self.rested.q.val() || over;
        // The bit of the count that is looked for stays once it is there, as the count stops.
        let long = (self.intervals.q.val() & self.wait.q.val()).any();
        if over && !long {
            self.intervals.d.next = self.intervals.q.val() + 1;
        }
        self.ahead.d.next = long && !self.enabled.q.val();

        // Moderation.
        let coalesce = self.coalesce.val();
        let off = !coalesce.max_packets.any() || !coalesce.max_usecs.any();
        self.due.d.next = off
            || self.since_interrupt.q.val() >= coalesce.max_usecs
            || self.packets.q.val() >= coalesce.max_packets;
        if self.microsecond.val() && !self.since_interrupt.q.val().all() {
            self.since_interrupt.d.next = self.since_interrupt.q.val() + 1;
        }
        if self.packet.val() && !self.packets.q.val().all() {
            self.packets.d.next = self.packets.q.val() + 1;
        }

        match self.state.q.val() {
            NotifyState::Written => {
                self.quiet.next = true;
                if !self.stop.val() {
                    if self.vector.val() == bits::<16>(NO_VECTOR) {
                        self.pending.d.next = false;
                    } else if self.pending.q.val() && self.due.q.val() && self.enabled.q.val() {
                        self.state.d.next = NotifyState::Interrupt;
                    } else if (self.pending.q.val() && self.due.q.val() && self.rested.q.val())
                        || self.ahead.q.val()
                    {
                        self.state.d.next = NotifyState::Grant;
                    } else {
                        self.interrupt.held.next = self.pending.q.val();
                    }
                }
            }
            NotifyState::Grant => {
                self.request.next = true;
                if self.taken.val() {
                    self.asked.d.next = self.pending.q.val();
                    self.pending.d.next = false;
                    self.cycles.d.next = 0.into();
                    self.intervals.d.next = 0.into();
                    self.rested.d.next = false;
                    self.ahead.d.next = false;
                    if !self.wait.q.val().get_bit(BACKOFF) {
                        self.wait.d.next = self.wait.q.val() << 1;
                    }
                    self.state.d.next = NotifyState::Response;
                }
            }
            NotifyState::Response => {
                let answer = self.answer.val();
                if self.answered.val() && answer.last {
                    let flags = answer.data.get_bits::<2>(16);
                    let enabled = flags != bits::<2>(DISABLE);
                    self.enabled.d.next = enabled;
                    self.state.d.next = if answer.error {
                        NotifyState::Failed
                    } else if enabled && self.asked.q.val() {
                        NotifyState::Interrupt
                    } else {
                        NotifyState::Written
                    };
                }
            }
            NotifyState::Interrupt => {
                self.interrupt.valid.next = true;
                if self.interrupt.ready.val() {
                    // Whatever was written meanwhile is ahead of this interrupt.
                    self.pending.d.next = false;
                    self.enabled.d.next = false;
                    self.wait.d.next = bits::<7>(1);
                    self.cycles.d.next = 0.into();
                    self.intervals.d.next = 0.into();
                    self.rested.d.next = false;
                    self.ahead.d.next = false;
                    self.since_interrupt.d.next = 0.into();
                    self.packets.d.next = 0.into();
                    self.due.d.next = false;
                    self.state.d.next = NotifyState::Written;
                }
            }
            NotifyState::Failed => {
                self.quiet.next = true;
                self.failed.next = true;
            }
        }
        if self.written.val() {
            self.pending.d.next = true;
        }
    }
}
