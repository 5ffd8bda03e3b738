//! The headers of a merged packet, made from those of its first segment.

use hematite_lang::prelude::*;

use super::layout::fields;
use super::rules::Packet;

/// IPPROTO_TCP.
const TCP: u64 = 6;

/// The one's complement sum (RFC 1071).
#[hw]
pub fn ones_add(a: Bits<16>, b: Bits<16>) -> Bits<16> {
    let sum = a.resize::<17>() + b.resize::<17>();
    sum.get_bits::<16>(0) + cat::<16>((bits::<15>(0), sum.get_bit(16)))
}

/// A 16-bit word with its bytes swapped: from network order, or to it.
#[hw]
pub fn swap(word: Bits<16>) -> Bits<16> {
    cat::<16>((word.get_bits::<8>(0), word.get_bits::<8>(8)))
}

/// Makes the headers of a packet from those of its first segment, word by word in frame order: IPv4's total length
/// and header checksum (RFC 1624), or IPv6's payload length; FIN and PSH of the last segment; in TCP's checksum
/// field the sum of the pseudo header, as VIRTIO_NET_HDR_F_NEEDS_CSUM wants it (virtio 1.3 section 5.1.6.4.1).
///
/// `patched` is the word now at `word`. A word must stay for two cycles at least, and the first may come three
/// cycles after `packet` at the earliest: sums take that long.
#[hw]
pub struct HeaderPatcher {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Begin with another packet.
    pub start: Signal<In, Bit>,
    /// The packet; stable from the cycle after `start`.
    pub packet: Signal<In, Packet>,
    /// `word` is there: high for one cycle of those in which it is.
    pub valid: Signal<In, Bit>,
    /// Its number in the frame.
    pub index: Signal<In, Bits<4>>,
    /// Eight bytes of the first segment's headers.
    pub word: Signal<In, Bits<64>>,
    /// The same of the packet's.
    pub patched: Signal<Out, Bits<64>>,
    /// Bytes of IP and TCP headers.
    headers: Reg<Bits<16>>,
    /// IP length of the first segment, and how far the packet's differs from it.
    single: Reg<Bits<16>>,
    longer: Reg<Bits<16>>,
    /// TCP header and payload.
    tcp_length: Reg<Bits<16>>,
    /// The address words of a beat, their sums in each half of it, the sum of the pseudo header so far, and that with
    /// carries added.
    counted: [Reg<Bits<16>>; 4],
    lanes: [Reg<Bits<17>>; 2],
    sum: Reg<Bits<21>>,
    folded: Reg<Bits<16>>,
    starting: Reg<Bits<3>>,
}

#[hw]
impl Logic for HeaderPatcher {
    fn update(&mut self) {
        registers!(self.clock => self.headers, self.single, self.longer, self.tcp_length);
        registers!(self.clock => self.lanes[0], self.lanes[1], self.sum, self.folded, self.starting);
        let packet = self.packet.val();
        let place = fields(packet.ipv6, packet.vlan, self.index.val());
        let word = self.word.val();
        self.starting.d.next = cat::<3>((self.starting.q.val().get_bits::<2>(0), self.start.val()));

        let link = if packet.vlan { bits::<8>(18) } else { bits::<8>(14) };
        let ip = if packet.ipv6 {
            bits::<16>(40)
        } else {
            bits::<16>(20)
        };
        self.headers.d.next = (packet.headers - link).resize::<16>();
        self.single.d.next = self.headers.q.val() + packet.size;
        self.longer.d.next = ones_add(packet.length, !self.single.q.val());
        self.tcp_length.d.next = packet.length - ip;

        for i in 0..4 {
            registers!(self.clock => self.counted[i]);
            self.counted[i].d.next = if place.addresses.get_bit(i) && self.valid.val() {
                swap(word.get_bits::<16>(16 * i))
            } else {
                bits::<16>(0)
            };
        }
        for half in 0..2 {
            self.lanes[half].d.next = self.counted[2 * half].q.val().resize::<17>()
                + self.counted[2 * half + 1].q.val().resize::<17>();
        }
        let lanes = self.lanes[0].q.val().resize::<18>() + self.lanes[1].q.val().resize::<18>();
        self.sum.d.next = if self.starting.q.val().get_bit(2) {
            self.tcp_length.q.val().resize::<21>() + TCP
        } else {
            self.sum.q.val() + lanes.resize::<21>()
        };
        let sum = self.sum.q.val();
        self.folded.d.next = ones_add(sum.get_bits::<16>(0), sum.get_bits::<5>(16).resize::<16>());

        let length = if packet.ipv6 {
            self.tcp_length.q.val()
        } else {
            packet.length
        };
        let mut patched = word;
        for i in 0..4 {
            let old = swap(word.get_bits::<16>(16 * i));
            if place.length.get_bit(i) {
                patched.set_bits::<16>(16 * i, swap(length));
            }
            if place.header_checksum.get_bit(i) {
                patched.set_bits::<16>(16 * i, swap(!ones_add(!old, self.longer.q.val())));
            }
            if place.tcp_checksum.get_bit(i) {
                patched.set_bits::<16>(16 * i, swap(self.folded.q.val()));
            }
        }
        for i in 0..8 {
            if place.flags.get_bit(i) {
                patched = patched.replace_bit(8 * i, word.get_bit(8 * i) || packet.flags.fin);
                patched = patched.replace_bit(8 * i + 3, word.get_bit(8 * i + 3) || packet.flags.push);
            }
        }
        self.patched.next = patched;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_come_around() {
        let sum = |a, b| u64::from(ones_add(bits(a), bits(b)));
        assert_eq!(sum(0xffff, 1), 1);
        assert_eq!(sum(0xffff, 0xffff), 0xffff);
        assert_eq!(sum(0x1234, 0x4321), 0x5555);
        assert_eq!(u64::from(swap(bits(0x1234))), 0x3412);
    }
}
