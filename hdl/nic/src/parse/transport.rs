//! The first bytes of the transport header.

use hematite_lang::prelude::*;

use super::network::Place;
use super::realign::number;

/// The first 18 bytes of a transport header, as far as anybody wants them. None was compared with a length.
#[hw(value)]
pub struct Transport {
    /// Source and destination port, as one big-endian number.
    pub ports: Bits<32>,
    /// `ports` and `sequence` are there.
    pub ports_valid: Bit,
    /// TCP: sequence number. UDP: length and checksum.
    pub sequence: Bits<32>,
    /// TCP: header length in four bytes.
    pub data_offset: Bits<4>,
    /// TCP: reserved bits and AE.
    pub reserved: Bits<4>,
    /// TCP: CWR, ECE, URG, ACK, PSH, RST, SYN, FIN, from the highest bit.
    pub flags: Bits<8>,
    /// TCP: the checksum is 0xffff. Right only if there is payload.
    pub all_ones: Bit,
}

/// The big-endian number in bytes 0 to 3.
#[hw]
fn number32(bytes: Bits<32>) -> Bits<32> {
    cat::<32>((number(bytes.get_bits::<16>(0)), number(bytes.get_bits::<16>(16))))
}

/// Keeps what it wants of the transport header, which starts in either half of a word. A word a cycle.
#[hw]
pub struct TransportFields {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// A frame starts: no word of it is there yet.
    pub start: Signal<In, Bit>,
    /// Eight bytes from the network header on.
    pub word: Signal<In, Bits<64>>,
    /// What they are.
    pub place: Signal<In, Place>,
    /// They count.
    pub valid: Signal<In, Bit>,
    /// What the words before tell.
    pub transport: Signal<Out, Transport>,
    /// The header starts in the high half.
    odd: Reg<Bit>,
    /// The high half of the word before.
    high: Reg<Bits<32>>,
    /// Pairs of four bytes kept, counted to three.
    pairs: Reg<Bits<2>>,
    ports: Reg<Bits<32>>,
    sequence: Reg<Bits<32>>,
    control: Reg<Bits<16>>,
    all_ones: Reg<Bit>,
}

#[hw]
impl Logic for TransportFields {
    fn update(&mut self) {
        registers!(self.clock, self.start => self.pairs, self.odd);
        registers!(self.clock => self.high, self.ports, self.sequence, self.control);
        registers!(self.clock => self.all_ones);
        let word = self.word.val();
        let place = self.place.val();
        let odd = self.odd.q.val();
        let first = if odd {
            self.high.q.val()
        } else {
            word.get_bits::<32>(0)
        };
        let second = if odd {
            word.get_bits::<32>(0)
        } else {
            word.get_bits::<32>(32)
        };
        if self.valid.val() {
            self.high.d.next = word.get_bits::<32>(32);
            if place.transport_high && !place.transport_low {
                self.odd.d.next = true;
            }
            if place.transport_low {
                match self.pairs.q.val().index() {
                    0 => {
                        self.ports.d.next = number32(first);
                        self.sequence.d.next = number32(second);
                        self.pairs.d.next = bits::<2>(1);
                    }
                    1 => {
                        self.control.d.next = number(second.get_bits::<16>(0));
                        self.pairs.d.next = bits::<2>(2);
                    }
                    2 => {
                        self.all_ones.d.next = first.get_bits::<16>(0).all();
                        self.pairs.d.next = bits::<2>(3);
                    }
                    _ => {}
                }
            }
        }
        let control = self.control.q.val();
        self.transport.next = Transport {
            ports: self.ports.q.val(),
            ports_valid: self.pairs.q.val().any(),
            sequence: self.sequence.q.val(),
            data_offset: control.get_bits::<4>(12),
            reserved: control.get_bits::<4>(8),
            flags: control.get_bits::<8>(0),
            all_ones: self.all_ones.q.val(),
        };
    }
}
