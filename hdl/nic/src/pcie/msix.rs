//! MSI-X: the table, the pending bits, and the messages.

use hematite_lang::prelude::*;

use super::ports::{RegisterIn, merge32};
use crate::dma::ports::WriteRequestOut;
use crate::virtio::ports::InterruptIn;

#[hw]
enum State {
    Idle,
    Load,
    Address,
    Data,
    Request,
    Message,
}

/// Words of the table: four for each of 32 vectors.
const TABLE_BITS: usize = 7;

/// Turns interrupt requests into memory writes (PCI Express 6.1.4).
///
/// A request sets its vector's pending bit; a pending vector that is not masked is sent and its bit cleared.
/// Requests that meet a set bit merge with it; one that comes once the message is under way makes another.
/// So a masked vector is sent once at unmask, and none is lost. A request without a vector of the table, or
/// while MSI-X is disabled, is dropped and counted. Without Bus Master Enable messages wait.
///
/// A request is taken every cycle; the message is offered five cycles later. An access takes three cycles, and waits
/// while a message is read. A message that is already
/// offered to the write engine is not recalled by a mask. `2^A >= VECTORS`; at most 32 vectors. The last
/// of `SOURCES` is for configuration changes, the others are queues.
#[hw]
pub struct Msix<const VECTORS: usize, const A: usize, const SOURCES: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Masks every vector, forgets pending ones.
    pub reset: Signal<In, Bit>,
    /// MSI-X Enable.
    pub enable: Signal<In, Bit>,
    /// MSI-X Function Mask.
    pub mask: Signal<In, Bit>,
    /// The write engine is reset: it will not take the message under way. Pending vectors stay.
    pub cut: Signal<In, Bit>,
    /// Bus Master Enable.
    pub bus_master: Signal<In, Bit>,
    /// Drop requests and pending vectors, begin no message.
    pub discard: Signal<In, Bit>,
    /// Table and pending bits.
    pub access: RegisterIn,
    /// Requests.
    pub interrupts: [InterruptIn; SOURCES],
    /// Where the message goes.
    pub write: WriteRequestOut,
    /// The message.
    pub message: StreamOut,
    /// No message is under way.
    pub idle: Signal<Out, Bit>,
    /// A source will ask when its time has come.
    pub held: Signal<Out, Bit>,
    /// A queue asked for an interrupt while MSI-X was disabled.
    pub unsignaled: Signal<Out, Bit>,
    /// A message was handed to the write engine.
    pub irq_sent: Signal<Out, Bit>,
    /// A request met a mask.
    pub irq_masked: Signal<Out, Bit>,
    /// A message will be sent for a request that merges with none before it: high for one cycle.
    pub generated: Signal<Out, Bit>,
    /// The source of that request.
    pub generated_for: Signal<Out, Bits<5>>,
    /// A request was dropped.
    pub irq_dropped: Signal<Out, Bit>,
    /// The table as the host sees it; vector control is in `masks`.
    table: Ram<Bits<32>, TABLE_BITS>,
    #[reset(true)]
    masks: [Reg<Bit>; VECTORS],
    pending: [Reg<Bit>; VECTORS],
    state: Reg<State>,
    chosen: Reg<Bits<A>>,
    low: Reg<Bits<32>>,
    high: Reg<Bits<32>>,
    payload: Reg<Bits<32>>,
    /// The message's data comes from the table in this cycle.
    fetched: Reg<Bit>,
    cut_or_reset: Signal<Local, Bit>,
    /// A source's request.
    asked: Reg<Bit>,
    asked_vector: Reg<Bits<16>>,
    asked_of_queue: Reg<Bit>,
    asked_by: Reg<Bits<5>>,
    makes_message: Reg<Bit>,
    made_for: Reg<Bits<5>>,
    /// The word of the access at hand is read, and in the next cycle the access done.
    active: Reg<Bit>,
    done: Reg<Bit>,
    read: Reg<Bits<32>>,
}

#[hw]
impl<const VECTORS: usize, const A: usize, const SOURCES: usize> Logic for Msix<VECTORS, A, SOURCES> {
    fn update(&mut self) {
        assert!(VECTORS <= 32 && VECTORS <= 1 << A);
        registers!(self.clock, self.reset => self.asked, self.active, self.done, self.makes_message);
        registers!(self.clock => self.asked_by, self.made_for);
        registers!(self.clock => self.asked_vector, self.asked_of_queue, self.chosen, self.low, self.high, self.payload);
        registers!(self.clock => self.read, self.fetched);
        for v in 0..VECTORS {
            registers!(self.clock, self.reset => self.masks[v], self.pending[v]);
        }
        clocked!(self.clock => self.table);
        registers!(self.clock, self.cut_or_reset => self.state);
        self.cut_or_reset.next = self.reset.val() || self.cut.val();
        self.irq_sent.next = false;
        self.idle.next = matches!(self.state.q.val(), State::Idle) && !self.asked.q.val();

        // Messages.
        let allowed = self.enable.val() && !self.mask.val() && self.bus_master.val() && !self.discard.val();
        let mut found = false;
        let mut lowest = bits::<A>(0);
        let mut chosen_masked = true;
        for v in 0..VECTORS {
            if self.pending[v].q.val() && !self.masks[v].q.val() && !found {
                found = true;
                lowest = bits::<A>(v as u64);
            }
            if self.chosen.q.val() == bits::<A>(v as u64) {
                chosen_masked = self.masks[v].q.val();
            }
        }
        let loading = matches!(self.state.q.val(), State::Load);
        self.write.address.next = cat::<64>((
            self.high.q.val(),
            self.low.q.val().get_bits::<30>(2),
            bits::<2>(0),
        ));
        self.write.length.next = bits::<16>(4);
        self.write.valid.next = false;
        self.message.data.next = self.payload.q.val().resize::<64>();
        self.message.keep.next = bits::<8>(0x0f);
        self.message.last.next = true;
        self.message.error.next = false;
        self.message.valid.next = false;
        match self.state.q.val() {
            State::Idle => {
                self.chosen.d.next = lowest;
                if found && allowed {
                    self.state.d.next = State::Load;
                }
            }
            State::Load => {
                if allowed && !chosen_masked {
                    for v in 0..VECTORS {
                        if self.chosen.q.val() == bits::<A>(v as u64) {
                            self.pending[v].d.next = false;
                        }
                    }
                    self.state.d.next = State::Address;
                } else {
                    self.state.d.next = State::Idle;
                }
            }
            State::Address => {
                self.low.d.next = self.table.read_data.val();
                self.state.d.next = State::Data;
            }
            State::Data => {
                self.high.d.next = self.table.read_data.val();
                self.fetched.d.next = true;
                self.state.d.next = State::Request;
            }
            State::Request => {
                self.fetched.d.next = false;
                if self.fetched.q.val() {
                    self.payload.d.next = self.table.read_data.val();
                }
                self.write.valid.next = true;
                if self.write.ready.val() {
                    self.state.d.next = State::Message;
                }
            }
            State::Message => {
                self.message.valid.next = true;
                if self.message.ready.val() {
                    self.irq_sent.next = true;
                    self.state.d.next = State::Idle;
                }
            }
        }

        // Requests: the first source that asks is taken.
        let mut found_source = false;
        let mut held = false;
        self.asked_of_queue.d.next = false;
        self.asked_vector.d.next = bits::<16>(0xffff);
        for s in 0..SOURCES {
            self.interrupts[s].ready.next = !found_source;
            held = held || self.interrupts[s].held.val();
            if self.interrupts[s].valid.val() && !found_source {
                found_source = true;
                self.asked_of_queue.d.next = s + 1 < SOURCES;
                self.asked_vector.d.next = self.interrupts[s].vector.val();
                self.asked_by.d.next = bits::<5>(s as u64);
            }
        }
        self.asked.d.next = found_source;
        self.held.next = held;
        let taken = self.asked.q.val();
        let of_queue = self.asked_of_queue.q.val();
        let vector = self.asked_vector.q.val();
        let valid_vector = vector < bits::<16>(VECTORS as u64);
        self.unsignaled.next = taken && of_queue && !self.enable.val();
        self.irq_dropped.next = taken && !(valid_vector && self.enable.val());
        let mut met_mask = self.mask.val();
        let sends = loading && allowed && !chosen_masked;
        let mut makes_message = false;
        for v in 0..VECTORS {
            if vector == bits::<16>(v as u64) && taken && self.enable.val() {
                let leaves = sends && self.chosen.q.val() == bits::<A>(v as u64);
                makes_message = !self.pending[v].q.val() || leaves;
                self.pending[v].d.next = true;
                met_mask = self.masks[v].q.val() || self.mask.val();
            }
            if self.discard.val() {
                self.pending[v].d.next = false;
            }
        }
        self.makes_message.d.next = makes_message && !self.discard.val();
        self.made_for.d.next = self.asked_by.q.val();
        self.generated.next = self.makes_message.q.val();
        self.generated_for.next = self.made_for.q.val();
        self.irq_masked.next = taken && valid_vector && self.enable.val() && met_mask;

        // The table, a word at a time; the messages go first at its read port.
        let word = self.access.address.val().get_bits::<2>(2);
        let entry = self.access.address.val().get_bits::<8>(4);
        let in_pending = self.access.address.val().get_bit(12);
        let in_table = !self.access.address.val().get_bits::<3>(12).any()
            && entry < bits::<8>(VECTORS as u64)
            && !self.access.address.val().get_bits::<4>(8).any();
        let chosen = self.chosen.q.val().resize::<5>();
        let mut fetches = true;
        let place = cat::<7>((entry.get_bits::<5>(0), word));
        self.table.read_address.next = match self.state.q.val() {
            State::Load => cat::<7>((chosen, bits::<2>(0))),
            State::Address => cat::<7>((chosen, bits::<2>(1))),
            State::Data => cat::<7>((chosen, bits::<2>(2))),
            _ => {
                fetches = false;
                place
            }
        };
        let active = self.active.q.val();
        self.active.d.next = self.access.valid.val() && !active && !self.done.q.val() && !fetches;
        self.done.d.next = active;
        let enables = self.access.byte_enables.val();
        let new = self.access.write_data.val();
        let write = active && self.access.write.val() && in_table;
        self.table.write_address.next = place;
        self.table.write_data.next = merge32(self.table.read_data.val(), new, enables);
        self.table.write_enable.next = write && !word.all();
        let mut control = false;
        let mut pending_bits = bits::<VECTORS>(0);
        for v in 0..VECTORS {
            if entry == bits::<8>(v as u64) {
                control = self.masks[v].q.val();
                if write && word.all() && enables.get_bit(0) {
                    self.masks[v].d.next = new.get_bit(0);
                }
            }
            pending_bits = pending_bits.replace_bit(v, self.pending[v].q.val());
        }
        let in_first_pending = in_pending && !self.access.address.val().get_bits::<10>(2).any();
        let rest = if in_first_pending {
            pending_bits
        } else {
            bits::<VECTORS>(0).replace_bit(0, in_table && control)
        };
        self.read.d.next = if in_table && !word.all() {
            self.table.read_data.val()
        } else {
            rest.resize::<32>()
        };
        self.access.ready.next = self.done.q.val();
        self.access.read_data.next = self.read.q.val();
    }
}
