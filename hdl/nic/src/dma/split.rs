//! Requests cut into pieces that fit one TLP.

use hematite_lang::prelude::*;

/// A piece of a request: what one memory request TLP asks for. Never crosses 4 KiB, never more than 512
/// bytes; every piece but the first starts at a multiple of 8, every piece but the last ends at one.
#[hw(value)]
pub struct Segment {
    /// First byte.
    pub address: Bits<64>,
    /// DWs touched, 1..=128: the TLP's Length.
    pub dwords: Bits<8>,
    /// Bytes, 1..=512.
    pub bytes: Bits<10>,
    /// Rows of eight bytes touched, 1..=64.
    pub rows: Bits<7>,
    /// First DW Byte Enable.
    pub first_enable: Bits<4>,
    /// Last DW Byte Enable, zero with one DW.
    pub last_enable: Bits<4>,
    /// The address needs 64 bits.
    pub wide: Bit,
    /// The request's last piece.
    pub last: Bit,
    /// Whose request.
    pub client: Bits<3>,
    /// The request's address modulo 8.
    pub offset: Bits<3>,
    /// The request's length modulo 8.
    pub tail: Bits<3>,
}

/// What a splitter waits for.
#[hw]
pub enum SplitState {
    /// A request.
    Request,
    /// How far the next piece may go.
    Room,
    /// How far it goes.
    Cut,
    /// A free output, with the piece described.
    Output,
}

/// The piece's size limit in bytes for a code of Device Control, at most 512.
#[hw]
fn size_limit(code: Bits<3>) -> Bits<10> {
    if code == bits::<3>(0) {
        bits::<10>(128)
    } else if code == bits::<3>(1) {
        bits::<10>(256)
    } else {
        bits::<10>(512)
    }
}

/// The enabled bytes of a last DW that ends at byte `end` modulo 4.
#[hw]
fn enable_below(end: Bits<2>) -> Bits<4> {
    bits::<4>(0xf) >> (bits::<2>(0) - end)
}

/// The enabled bytes of a first DW that starts at byte `start` modulo 4.
#[hw]
fn enable_from(start: Bits<2>) -> Bits<4> {
    bits::<4>(0xf) << start
}

/// Takes requests of N clients (at most 8) in turn and cuts each into segments, in address order.
///
/// A request of one segment takes 4 cycles, each further segment 3 more; one segment waits at
/// the output. A request is cut wholly before the next is taken. Length 0 counts as 1; addresses
/// wrap at 2^64. Nothing is accepted while `enable` is low. A request that is offered stays offered until it
/// is taken: whose turn it is was decided the cycle before.
#[hw]
pub struct Splitter<const N: usize> {
    /// Core clock.
    pub clock: Signal<In, Clock>,
    /// Forgets the request.
    pub reset: Signal<In, Bit>,
    /// First byte.
    pub address: [Signal<In, Bits<64>>; N],
    /// Bytes.
    pub length: [Signal<In, Bits<16>>; N],
    /// A request is offered.
    pub valid: [Signal<In, Bit>; N],
    /// The request is taken.
    pub ready: [Signal<Out, Bit>; N],
    /// Largest TLP: 128 bytes << code.
    pub size_code: Signal<In, Bits<3>>,
    /// Requests may be accepted.
    pub enable: Signal<In, Bit>,
    /// A request was accepted in the cycle before, with what follows.
    pub accepted: Signal<Out, Bit>,
    /// Whose.
    pub accepted_client: Signal<Out, Bits<3>>,
    /// Its address modulo 8.
    pub accepted_offset: Signal<Out, Bits<3>>,
    /// Its length, at least 1.
    pub accepted_length: Signal<Out, Bits<16>>,
    /// The next segment.
    pub segment: Signal<Out, Segment>,
    /// There is one.
    pub segment_valid: Signal<Out, Bit>,
    /// It is taken.
    pub segment_ready: Signal<In, Bit>,
    /// No request and no segment inside.
    pub idle: Signal<Out, Bit>,
    state: Reg<SplitState>,
    turn: Reg<Bits<3>>,
    /// The client that goes next.
    pick: Reg<Bits<3>>,
    picked: Reg<Bit>,
    accepting: Reg<Bit>,
    client: Reg<Bits<3>>,
    offset: Reg<Bits<3>>,
    tail: Reg<Bits<3>>,
    place: Reg<Bits<64>>,
    remaining: Reg<Bits<16>>,
    wide: Reg<Bit>,
    room: Reg<Bits<10>>,
    bytes: Reg<Bits<10>>,
    last: Reg<Bit>,
    out: Reg<Segment>,
    out_valid: Reg<Bit>,
}

#[hw]
impl<const N: usize> Logic for Splitter<N> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.turn);
        registers!(self.clock, self.reset => self.picked, self.accepting, self.out_valid);
        registers!(self.clock => self.pick, self.out);
        registers!(self.clock => self.client, self.offset, self.tail, self.place, self.remaining, self.wide);
        registers!(self.clock => self.room, self.bytes, self.last);

        // Round robin: the first client after the one served last, else the first of all.
        let mut found = false;
        let mut choice = bits::<3>(0);
        for i in 1..N {
            if self.valid[i].val() && bits::<3>(i as u64) > self.turn.q.val() && !found {
                found = true;
                choice = bits::<3>(i as u64);
            }
        }
        for i in 0..N {
            if self.valid[i].val() && !found {
                found = true;
                choice = bits::<3>(i as u64);
            }
        }
        let pick = self.pick.q.val();
        let picked_one = self.picked.q.val();
        let accept = picked_one && self.enable.val() && self.state.q.val() == SplitState::Request;
        if !picked_one {
            self.pick.d.next = choice;
            self.picked.d.next = found;
        } else if accept {
            self.picked.d.next = false;
        }
        self.accepting.d.next = accept;
        let mut address = bits::<64>(0);
        let mut length = bits::<16>(0);
        for i in 0..N {
            let picked = pick == bits::<3>(i as u64);
            self.ready[i].next = accept && picked;
            if picked {
                address = address | self.address[i].val();
                length = length | self.length[i].val();
            }
        }
        let length_or_one = if self.remaining.q.val().any() {
            self.remaining.q.val()
        } else {
            bits::<16>(1)
        };
        self.accepted.next = self.accepting.q.val();
        self.accepted_client.next = self.client.q.val();
        self.accepted_offset.next = self.place.q.val().get_bits::<3>(0);
        self.accepted_length.next = length_or_one;

        // Up to the page's end when that is near, else up to the limit, cut at a multiple of 8.
        let place = self.place.q.val();
        let to_limit = size_limit(self.size_code.val()) - place.get_bits::<3>(0).resize::<10>();
        let to_page_end = bits::<10>(512) - place.get_bits::<9>(0).resize::<10>();
        let near_page_end = place.get_bits::<3>(9).all();

        let bytes = self.bytes.q.val();
        let end = place.get_bits::<2>(0) + bytes.get_bits::<2>(0);
        // Rounded up to whole DWs and rows; one addition each.
        let dwords_end = bytes + (place.get_bits::<2>(0).resize::<3>() + 3).resize::<10>();
        let dwords = dwords_end.get_bits::<8>(2);
        let rows_end = bytes + (place.get_bits::<3>(0).resize::<4>() + 7).resize::<10>();
        let rows = rows_end.get_bits::<7>(3);
        let few = place.get_bits::<2>(0).resize::<4>() + bytes.get_bits::<3>(0).resize::<4>();
        let one = !bytes.get_bits::<7>(3).any() && few <= bits::<4>(4);
        let above = enable_from(place.get_bits::<2>(0));
        let below = enable_below(end);

        let segment = Segment {
            address: place,
            dwords,
            bytes,
            rows,
            first_enable: if one { above & below } else { above },
            last_enable: if one { bits::<4>(0) } else { below },
            wide: self.wide.q.val(),
            last: self.last.q.val(),
            client: self.client.q.val(),
            offset: self.offset.q.val(),
            tail: self.tail.q.val(),
        };
        let free = !self.out_valid.q.val();
        if self.segment_ready.val() {
            self.out_valid.d.next = false;
        }
        if free {
            self.out.d.next = segment;
        }
        match self.state.q.val() {
            SplitState::Request => {
                if accept {
                    self.turn.d.next = pick;
                    self.client.d.next = pick;
                    self.place.d.next = address;
                    self.remaining.d.next = length;
                    self.offset.d.next = address.get_bits::<3>(0);
                    self.state.d.next = SplitState::Room;
                }
            }
            SplitState::Room => {
                if self.accepting.q.val() {
                    self.remaining.d.next = length_or_one;
                    self.tail.d.next = length_or_one.get_bits::<3>(0);
                }
                self.wide.d.next = place.get_bits::<32>(32).any();
                self.room.d.next = if near_page_end && to_page_end < to_limit {
                    to_page_end
                } else {
                    to_limit
                };
                self.state.d.next = SplitState::Cut;
            }
            SplitState::Cut => {
                let fits = self.remaining.q.val() <= self.room.q.val().resize::<16>();
                self.last.d.next = fits;
                self.bytes.d.next = if fits {
                    self.remaining.q.val().get_bits::<10>(0)
                } else {
                    self.room.q.val()
                };
                self.state.d.next = SplitState::Output;
            }
            SplitState::Output => {
                if free {
                    self.out_valid.d.next = true;
                    self.place.d.next = place + bytes.resize::<64>();
                    self.remaining.d.next = self.remaining.q.val() - bytes.resize::<16>();
                    self.state.d.next = if self.last.q.val() {
                        SplitState::Request
                    } else {
                        SplitState::Room
                    };
                }
            }
        }
        self.segment.next = self.out.q.val();
        self.segment_valid.next = self.out_valid.q.val();
        self.idle.next = self.state.q.val() == SplitState::Request && free;
    }
}
