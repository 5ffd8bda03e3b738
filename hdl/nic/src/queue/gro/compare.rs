//! Are these the same headers?

use hematite_lang::prelude::*;

use super::layout::fields;
use super::rules::TcpFlags;
use crate::queue::bytes::keep_bytes;

/// Compares the headers of a segment with those of a packet's first, a beat each cycle, but for the bytes that
/// differ from segment to segment and what follows the headers; and notes the segment's own flags. The result
/// stands two cycles after the last beat.
#[hw]
pub struct HeaderComparer {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Begin.
    pub start: Signal<In, Bit>,
    /// The segment's layout.
    pub ipv6: Signal<In, Bit>,
    /// The segment's layout.
    pub vlan: Signal<In, Bit>,
    /// Bytes of headers in the last beat of them, 1..=8.
    pub tail: Signal<In, Bits<4>>,
    /// A beat is there.
    pub valid: Signal<In, Bit>,
    /// Its number in the frame.
    pub index: Signal<In, Bits<4>>,
    /// It is the last with headers.
    pub last: Signal<In, Bit>,
    /// The segment's.
    pub data: Signal<In, Bits<64>>,
    /// The first segment's.
    pub word: Signal<In, Bits<64>>,
    /// All beats were the same.
    pub same: Signal<Out, Bit>,
    /// The segment's flags.
    pub flags: Signal<Out, TcpFlags>,
    differing: Reg<Bits<8>>,
    different: Reg<Bit>,
    noted: Reg<TcpFlags>,
}

/// FIN in TCP's flags.
const FIN: usize = 0;
/// PSH.
const PSH: usize = 3;
/// ECE.
const ECE: usize = 6;

#[hw]
impl Logic for HeaderComparer {
    fn update(&mut self) {
        registers!(self.clock => self.differing, self.different, self.noted);
        let place = fields(self.ipv6.val(), self.vlan.val(), self.index.val());
        let data = self.data.val();
        let word = self.word.val();
        let meant = if self.last.val() {
            keep_bytes(self.tail.val())
        } else {
            bits::<8>(0xff)
        };
        let mut differing = bits::<8>(0);
        for i in 0..8 {
            let mut byte = data.get_bits::<8>(8 * i) ^ word.get_bits::<8>(8 * i);
            if place.flags.get_bit(i) {
                byte = byte.replace_bit(FIN, false).replace_bit(PSH, false);
            }
            let varies = place.varying.get_bit(i) || !meant.get_bit(i);
            differing = differing.replace_bit(i, byte.any() && !varies);
            if self.valid.val() && place.flags.get_bit(i) {
                self.noted.d.next = TcpFlags {
                    fin: data.get_bit(8 * i + FIN),
                    push: data.get_bit(8 * i + PSH),
                    congestion: data.get_bit(8 * i + ECE),
                };
            }
        }
        self.differing.d.next = if self.valid.val() { differing } else { bits::<8>(0) };
        self.different.d.next = (self.different.q.val() || self.differing.q.val().any()) && !self.start.val();
        self.same.next = !self.different.q.val();
        self.flags.next = self.noted.q.val();
    }
}
