//! The checksums of a packet, as its words pass (RFC 1071).

use hematite_lang::prelude::*;

use super::network::Place;
use super::realign::number;
use crate::queue::bytes::mask_bytes;

/// The sum of the two 16-bit numbers in four bytes.
#[hw]
pub fn add_pair(bytes: Bits<32>) -> Bits<17> {
    number(bytes.get_bits::<16>(0)).resize::<17>() + number(bytes.get_bits::<16>(16)).resize::<17>()
}

/// `sum` if `counts`, else nothing.
#[hw]
fn gated(sum: Bits<17>, counts: Bit) -> Bits<18> {
    if counts { sum.resize::<18>() } else { bits::<18>(0) }
}

/// Adds up a packet in 16-bit one's complement, carries kept aside: all that lies before the transport header
/// for the IPv4 header's checksum, addresses, transport header and payload for the transport's. A word a cycle;
/// the results are right six and five cycles after the last word, given `pseudo` three cycles after it.
///
/// A sum is right when it is 0xffff with the checksum in it. It is never zero: there is a version, or a
/// protocol number.
#[hw]
pub struct Checksums {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// A frame starts: no word of it is there yet, and none of another on its way.
    pub start: Signal<In, Bit>,
    /// Eight bytes from the network header on.
    pub word: Signal<In, Bits<64>>,
    /// What they are.
    pub place: Signal<In, Place>,
    /// They count.
    pub valid: Signal<In, Bit>,
    /// Transport length and protocol number, added up.
    pub pseudo: Signal<In, Bits<17>>,
    /// The IPv4 header's checksum is right.
    pub header_right: Signal<Out, Bit>,
    /// The transport checksum is right.
    pub transport_right: Signal<Out, Bit>,
    /// What each half of a word comes to, and where that counts.
    low: Reg<Bits<17>>,
    high: Reg<Bits<17>>,
    header_low: Reg<Bit>,
    header_high: Reg<Bit>,
    sum_low: Reg<Bit>,
    sum_high: Reg<Bit>,
    header_part: Reg<Bits<18>>,
    part: Reg<Bits<18>>,
    header: Reg<Bits<22>>,
    sum: Reg<Bits<32>>,
    header_folded: Reg<Bits<17>>,
    folded: Reg<Bits<18>>,
    folded_again: Reg<Bits<17>>,
    header_is_right: Reg<Bit>,
    sum_is_right: Reg<Bit>,
}

#[hw]
impl Logic for Checksums {
    fn update(&mut self) {
        registers!(self.clock => self.low, self.high, self.header_low, self.header_high, self.sum_low);
        registers!(self.clock => self.sum_high, self.header_part, self.part, self.header_folded, self.folded);
        registers!(self.clock => self.folded_again, self.header_is_right, self.sum_is_right);
        registers!(self.clock, self.start => self.header, self.sum);
        let place = self.place.val();
        let valid = self.valid.val();
        let word = mask_bytes(self.word.val(), place.keep);
        self.low.d.next = add_pair(word.get_bits::<32>(0));
        self.high.d.next = add_pair(word.get_bits::<32>(32));
        self.header_low.d.next = valid && !place.transport_low;
        self.header_high.d.next = valid && !place.transport_high;
        self.sum_low.d.next = valid && place.sum_low;
        self.sum_high.d.next = valid && place.sum_high;

        let low = self.low.q.val();
        let high = self.high.q.val();
        self.header_part.d.next = gated(low, self.header_low.q.val()) + gated(high, self.header_high.q.val());
        self.part.d.next = gated(low, self.sum_low.q.val()) + gated(high, self.sum_high.q.val());
        self.header.d.next = self.header.q.val() + self.header_part.q.val().resize::<22>();
        self.sum.d.next = self.sum.q.val() + self.part.q.val().resize::<32>();

        let header = self.header.q.val();
        self.header_folded.d.next =
            header.get_bits::<16>(0).resize::<17>() + header.get_bits::<6>(16).resize::<17>();
        self.header_is_right.d.next = self.header_folded.q.val() == bits::<17>(0xffff);
        let sum = self.sum.q.val();
        self.folded.d.next = sum.get_bits::<16>(0).resize::<18>()
            + sum.get_bits::<16>(16).resize::<18>()
            + self.pseudo.val().resize::<18>();
        let folded = self.folded.q.val();
        self.folded_again.d.next =
            folded.get_bits::<16>(0).resize::<17>() + folded.get_bits::<2>(16).resize::<17>();
        self.sum_is_right.d.next = self.folded_again.q.val() == bits::<17>(0xffff);
        self.header_right.next = self.header_is_right.q.val();
        self.transport_right.next = self.sum_is_right.q.val();
    }
}
