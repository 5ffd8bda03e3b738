//! Used buffer notifications: whether the driver wants an interrupt, and asking for it.

use hematite_lang::prelude::*;

use crate::dma::ports::ReadRequestOut;
use crate::virtio::ports::InterruptOut;

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

/// After used descriptors have reached host memory, reads the driver event suppression structure (its
/// four bytes in one read) and asks for the queue's interrupt unless the flags say DISABLE. DESC and
/// the reserved value count as ENABLE: EVENT_IDX is not offered.
///
/// Never lost: descriptors written after a read was requested lead to another read, and a driver that
/// enables notifications looks at the ring once more. Never without new descriptors. One read is in
/// flight at a time, and reads start at least `INTERVAL` cycles apart; the first after a quiet time
/// starts at once. A queue without a vector reads nothing. A read error fails, until reset.
#[hw]
pub struct Notifier<const INTERVAL: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Forgets what was written; low only while nothing is in flight.
    pub reset: Signal<In, Bit>,
    /// Start nothing more.
    pub stop: Signal<In, Bit>,
    /// Driver event suppression structure.
    pub events: Signal<In, Bits<64>>,
    /// MSI-X vector of the queue, 0xffff for none.
    pub vector: Signal<In, Bits<16>>,
    /// New used descriptors are in host memory.
    pub written: Signal<In, Bit>,
    /// Reads of the structure.
    pub request: ReadRequestOut,
    /// Their responses.
    pub response: StreamIn,
    /// The interrupt asked for.
    pub interrupt: InterruptOut,
    /// Nothing is in flight.
    pub quiet: Signal<Out, Bit>,
    /// The structure could not be read; high until reset.
    pub failed: Signal<Out, Bit>,
    state: Reg<NotifyState>,
    pending: Reg<Bit>,
    #[reset(bits::<16>(INTERVAL as u64))]
    since: Reg<Bits<16>>,
}

#[hw]
impl<const INTERVAL: usize> Logic for Notifier<INTERVAL> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.pending, self.since);
        self.request.address.next = self.events.val();
        self.request.length.next = 4.into();
        self.request.valid.next = false;
        self.response.ready.next = false;
        self.interrupt.vector.next = self.vector.val();
        self.interrupt.valid.next = false;
        self.quiet.next = false;
        self.failed.next = false;
        let rested = self.since.q.val() == bits::<16>(INTERVAL as u64);
        if !rested {
            self.since.d.next = self.since.q.val() + 1;
        }
        match self.state.q.val() {
            NotifyState::Written => {
                self.quiet.next = true;
                if self.pending.q.val() && rested && !self.stop.val() {
                    if self.vector.val() == bits::<16>(NO_VECTOR) {
                        self.pending.d.next = false;
                    } else {
                        self.state.d.next = NotifyState::Grant;
                    }
                }
            }
            NotifyState::Grant => {
                self.request.valid.next = true;
                if self.request.ready.val() {
                    self.pending.d.next = false;
                    self.since.d.next = 0.into();
                    self.state.d.next = NotifyState::Response;
                }
            }
            NotifyState::Response => {
                self.response.ready.next = true;
                if self.response.valid.val() && self.response.last.val() {
                    let flags = self.response.data.val().get_bits::<2>(16);
                    self.state.d.next = if self.response.error.val() {
                        NotifyState::Failed
                    } else if flags == bits::<2>(DISABLE) {
                        NotifyState::Written
                    } else {
                        NotifyState::Interrupt
                    };
                }
            }
            NotifyState::Interrupt => {
                self.interrupt.valid.next = true;
                if self.interrupt.ready.val() {
                    // Whatever was written meanwhile is ahead of this interrupt.
                    self.pending.d.next = false;
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
