//! The rings of several queues on one client channel of the DMA engines.

use hematite_lang::prelude::*;

use super::fetch::{Answer, answer};
use super::slots::SlotsIn;
use crate::dma::ports::{ReadRequestOut, WriteRequestIn, WriteRequestOut};
use crate::virtio::ports::LocateOut;

/// Bytes of the driver event suppression structure.
const EVENTS: u64 = 4;

/// Who asked for a read.
#[hw(value)]
struct Reader {
    /// The ring.
    ring: Bits<3>,
    /// For its event suppression structure, not for descriptors.
    second: Bit,
}

/// Descriptor reads and event reads of `N` rings, at most 8, on one client channel of the read engine. Rings say which
/// descriptors they want; where those are is asked for here, once it is known whose turn it is: eight cycles more, one
/// request every ten cycles. Rings go in turn; within one, the event read goes first when both are asked for. A request
/// that is offered stays offered until it is taken. Up to ten responses are outstanding; each goes back to who asked, who
/// always takes it.
#[hw]
pub struct ReadMux<const N: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Forgets outstanding requests: only while there are none.
    pub reset: Signal<In, Bit>,
    /// Ring `n` is virtqueue `2n`, or `2n + 1` with this: where there are pairs, those of one direction.
    pub odd: Signal<In, Bit>,
    /// Where things of a queue are.
    pub locate: LocateOut,
    /// Descriptors wanted, a ring each.
    pub first: [SlotsIn; N],
    /// The driver event suppression structure is wanted, and that is taken.
    pub second_valid: [Signal<In, Bit>; N],
    /// The request is taken.
    pub second_ready: [Signal<Out, Bit>; N],
    /// A beat of a response.
    pub answer: Signal<Out, Answer>,
    /// It answers descriptors that this ring wanted.
    pub first_answered: [Signal<Out, Bit>; N],
    /// It answers an event read of this ring.
    pub second_answered: [Signal<Out, Bit>; N],
    /// To the read engine.
    pub request: ReadRequestOut,
    /// From the read engine.
    pub response: StreamIn,
    turn: RoundRobin<N, 3>,
    /// Who goes next.
    pick: Reg<Reader>,
    picked: Reg<Bit>,
    /// That request was taken in the cycle before, which its ring hears now.
    taken: Reg<Bit>,
    address: Reg<Bits<64>>,
    length: Reg<Bits<9>>,
    held: Reg<Bit>,
    order: Fifo<Reader, 3>,
    owner: Skid<Reader>,
    answer_at_hand: Reg<Answer>,
    first_due: [Reg<Bit>; N],
    second_due: [Reg<Bit>; N],
}

#[hw]
impl<const N: usize> Logic for ReadMux<N> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.held, self.picked, self.taken);
        registers!(self.clock => self.address, self.length, self.pick, self.answer_at_hand);
        clocked!(self.clock, self.reset => self.turn, self.order, self.owner);
        self.request.address.next = self.address.q.val();
        self.request.length.next = self.length.q.val().resize::<16>();
        self.request.valid.next = self.held.q.val();
        if self.held.q.val() && self.request.ready.val() {
            self.held.d.next = false;
        }
        let pick = self.pick.q.val();
        let picked = self.picked.q.val();
        let taken = self.taken.q.val();
        let asks = picked && !taken && !self.held.q.val() && self.order.write_ready.val();
        let take = self.locate.found.val() && asks;
        let mut requests = bits::<N>(0);
        let mut second = false;
        for i in 0..N {
            let wants = self.first[i].valid.val() || self.second_valid[i].val();
            requests = requests.replace_bit(i, wants);
            if self.turn.grant.val().get_bit(i) {
                second = self.second_valid[i].val();
            }
        }
        self.turn.requests.next = requests;
        self.turn.advance.next = !picked;
        if !picked {
            self.pick.d.next = Reader {
                ring: self.turn.index.val(),
                second,
            };
            self.picked.d.next = requests.any();
        } else if taken {
            self.picked.d.next = false;
        }
        self.taken.d.next = take;
        let mut slot = bits::<12>(0);
        let mut count = bits::<5>(0);
        for i in 0..N {
            let mine = pick.ring == bits::<3>(i as u64);
            self.second_ready[i].next = taken && mine && pick.second;
            self.first[i].ready.next = taken && mine && !pick.second;
            if mine && !pick.second {
                slot = self.first[i].slot.val();
                count = self.first[i].count.val();
            }
        }
        self.locate.queue.next = cat::<5>((bits::<1>(0), pick.ring, self.odd.val()));
        self.locate.driver.next = pick.second;
        self.locate.slot.next = slot;
        self.locate.valid.next = asks;
        if !self.held.q.val() {
            self.address.d.next = self.locate.address.val();
            self.length.d.next = if pick.second {
                bits::<9>(EVENTS)
            } else {
                cat::<9>((count, bits::<4>(0)))
            };
        }
        if take {
            self.held.d.next = true;
        }
        self.order.write_valid.next = take;
        self.order.write_data.next = pick;

        self.owner.write_data.next = self.order.read_data.val();
        self.owner.write_valid.next = self.order.read_valid.val();
        self.order.read_ready.next = self.owner.write_ready.val();
        let owner = self.owner.read_data.val();
        let known = self.owner.read_valid.val();
        // By way of a register: what a descriptor says decides much.
        self.answer_at_hand.d.next = answer(
            self.response.data.val(),
            self.response.last.val(),
            self.response.error.val(),
        );
        self.answer.next = self.answer_at_hand.q.val();
        self.response.ready.next = known;
        let some = self.response.valid.val() && known;
        for i in 0..N {
            registers!(self.clock, self.reset => self.first_due[i], self.second_due[i]);
            let mine = owner.ring == bits::<3>(i as u64);
            self.first_due[i].d.next = some && mine && !owner.second;
            self.second_due[i].d.next = some && mine && owner.second;
            self.first_answered[i].next = self.first_due[i].q.val();
            self.second_answered[i].next = self.second_due[i].q.val();
        }
        self.owner.read_ready.next = some && self.response.last.val();
    }
}

/// Who asked for a write.
#[hw(value)]
struct Writer {
    /// A ring, for used descriptors; else it is packet data.
    used: Bit,
    /// Which one.
    ring: Bits<3>,
}

/// Who waits for a write to be done.
#[hw(value)]
struct Waiter {
    writer: Writer,
    /// It asked with `used_shows`.
    shows: Bit,
}

/// Packet writes and used descriptor writes of `N` rings, at most 8, on one client channel of the write engine, so that
/// the order in which they are granted is the order in which the host sees them. One request every two cycles. Rings go in
/// turn; for the one whose turn it is, it is asked where its descriptors are, eight cycles more, while packets go on, and
/// then it goes first. A request that is offered stays offered until it is taken. Up to six requests run ahead of their
/// data and up to 32 are not done.
#[hw]
pub struct WriteMux<const N: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Forgets outstanding requests: only while there are none.
    pub reset: Signal<In, Bit>,
    /// Ring `n` is virtqueue `2n`, or `2n + 1` with this: where there are pairs, those of one direction.
    pub odd: Signal<In, Bit>,
    /// Where things of a queue are.
    pub locate: LocateOut,
    /// Packet writes.
    pub packet: WriteRequestIn,
    /// Their bytes.
    pub packet_data: StreamIn,
    /// Writes of used descriptors, a ring each.
    pub used: [SlotsIn; N],
    /// Their bytes.
    pub used_data: [StreamIn; N],
    /// The ring's request shows the driver something; the ring hears of that when the write is done.
    pub used_shows: [Signal<In, Bit>; N],
    /// The ring's oldest write that is not done is now done.
    pub used_done: [Signal<Out, Bit>; N],
    /// That write was requested with `used_shows`.
    pub done_shows: Signal<Out, Bit>,
    /// To the write engine.
    pub request: WriteRequestOut,
    /// To the write engine.
    pub data: StreamOut,
    /// The oldest write that is not done is now done.
    pub done: Signal<In, Bit>,
    turn: RoundRobin<N, 3>,
    /// The ring that goes next, and where it wants to write.
    pick: Reg<Bits<3>>,
    picked: Reg<Bit>,
    place: Reg<Bits<64>>,
    count: Reg<Bits<5>>,
    placed: Reg<Bit>,
    address: Reg<Bits<64>>,
    length: Reg<Bits<16>>,
    held: Reg<Bit>,
    /// Whose bytes come next.
    order: Fifo<Writer, 2>,
    owner: Skid<Writer>,
    /// Whose write is done next.
    undone: Fifo<Waiter, 5>,
    beats: Skid<Beat>,
}

#[hw]
impl<const N: usize> Logic for WriteMux<N> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.held, self.picked, self.placed);
        registers!(self.clock => self.address, self.length, self.pick, self.place, self.count);
        clocked!(self.clock, self.reset => self.turn, self.order, self.owner, self.undone, self.beats);
        self.request.address.next = self.address.q.val();
        self.request.length.next = self.length.q.val();
        self.request.valid.next = self.held.q.val();
        if self.held.q.val() && self.request.ready.val() {
            self.held.d.next = false;
        }
        let free = !self.held.q.val() && self.order.write_ready.val() && self.undone.write_ready.val();
        let pick = self.pick.q.val();
        let picked = self.picked.q.val();
        let placed = self.placed.q.val();
        let mut requests = bits::<N>(0);
        for i in 0..N {
            requests = requests.replace_bit(i, self.used[i].valid.val());
        }
        self.turn.requests.next = requests;
        self.turn.advance.next = !picked;
        if !picked {
            self.pick.d.next = self.turn.index.val();
            self.picked.d.next = requests.any();
        }
        let take = free && (placed || self.packet.valid.val());
        self.packet.ready.next = free && !placed;
        let mut slot = bits::<12>(0);
        let mut count = bits::<5>(0);
        let mut shows = false;
        for i in 0..N {
            let mine = pick == bits::<3>(i as u64);
            self.used[i].ready.next = free && placed && mine;
            if mine {
                shows = self.used_shows[i].val();
                slot = self.used[i].slot.val();
                count = self.used[i].count.val();
            }
        }
        self.locate.queue.next = cat::<5>((bits::<1>(0), pick, self.odd.val()));
        self.locate.driver.next = false;
        self.locate.slot.next = slot;
        self.locate.valid.next = picked && !placed;
        if !placed {
            self.place.d.next = self.locate.address.val();
            self.count.d.next = count;
            self.placed.d.next = self.locate.found.val() && picked;
        } else if free {
            self.placed.d.next = false;
            self.picked.d.next = false;
        }
        if !self.held.q.val() {
            self.address.d.next = if placed {
                self.place.q.val()
            } else {
                self.packet.address.val()
            };
            self.length.d.next = if placed {
                cat::<16>((bits::<7>(0), self.count.q.val(), bits::<4>(0)))
            } else {
                self.packet.length.val()
            };
        }
        if take {
            self.held.d.next = true;
        }
        let writer = Writer {
            used: placed,
            ring: pick,
        };
        self.order.write_valid.next = take;
        self.order.write_data.next = writer;
        self.undone.write_valid.next = take;
        self.undone.write_data.next = Waiter { writer, shows };

        self.owner.write_data.next = self.order.read_data.val();
        self.owner.write_valid.next = self.order.read_valid.val();
        self.order.read_ready.next = self.owner.write_ready.val();
        let owner = self.owner.read_data.val();
        let known = self.owner.read_valid.val();
        let ready = self.beats.write_ready.val() && known;
        let mut valid = self.packet_data.valid.val();
        let mut beat = Beat {
            data: self.packet_data.data.val(),
            keep: self.packet_data.keep.val(),
            last: self.packet_data.last.val(),
            error: self.packet_data.error.val(),
        };
        self.packet_data.ready.next = ready && !owner.used;
        for i in 0..N {
            let mine = owner.used && owner.ring == bits::<3>(i as u64);
            self.used_data[i].ready.next = ready && mine;
            if mine {
                valid = self.used_data[i].valid.val();
                beat = Beat {
                    data: self.used_data[i].data.val(),
                    keep: self.used_data[i].keep.val(),
                    last: self.used_data[i].last.val(),
                    error: self.used_data[i].error.val(),
                };
            }
        }
        self.beats.write_data.next = beat;
        self.beats.write_valid.next = valid && known;
        self.owner.read_ready.next = valid && beat.last && ready;
        let oldest = self.beats.read_data.val();
        self.data.data.next = oldest.data;
        self.data.keep.next = oldest.keep;
        self.data.last.next = oldest.last;
        self.data.error.next = oldest.error;
        self.data.valid.next = self.beats.read_valid.val();
        self.beats.read_ready.next = self.data.ready.val();

        self.undone.read_ready.next = self.done.val();
        let done = self.undone.read_data.val().writer;
        self.done_shows.next = self.undone.read_data.val().shows;
        for i in 0..N {
            self.used_done[i].next = self.done.val() && done.used && done.ring == bits::<3>(i as u64);
        }
    }
}
