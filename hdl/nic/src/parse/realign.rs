//! From frames to packets.

use hematite_lang::prelude::*;

/// EtherType of an IEEE 802.1Q tag.
const VLAN: u64 = 0x8100;
/// EtherType of IPv4 (RFC 894).
const IPV4: u64 = 0x0800;
/// EtherType of IPv6 (RFC 2464).
const IPV6: u64 = 0x86dd;

/// The big-endian number in bytes 0 and 1.
#[hw]
pub fn number(bytes: Bits<16>) -> Bits<16> {
    cat::<16>((bytes.get_bits::<8>(0), bytes.get_bits::<8>(8)))
}

/// Turns the beats of a frame into words that start with the network header, at byte 14 of an Ethernet frame
/// or at byte 18 behind one 802.1Q tag: a rotation by two or six bytes, never another.
///
/// A word a cycle, one cycle after the beat that completes it; one more word follows the last beat. What it
/// holds beyond the end of the frame means nothing. `ipv4`, `ipv6` and `has_vlan` are right from the first
/// word on. No back-pressure.
#[hw]
pub struct Realigner {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// The next beat starts a frame.
    pub reset: Signal<In, Bit>,
    /// Eight bytes of a frame.
    pub data: Signal<In, Bits<64>>,
    /// They are its last.
    pub last: Signal<In, Bit>,
    /// They count. The cycle after the last beat must be free.
    pub valid: Signal<In, Bit>,
    /// The first word of the frame is yet to come.
    pub start: Signal<Out, Bit>,
    /// Eight bytes from the network header on.
    pub word: Signal<Out, Bits<64>>,
    /// They count.
    pub word_valid: Signal<Out, Bit>,
    /// The EtherType is IPv4's.
    pub ipv4: Signal<Out, Bit>,
    /// The EtherType is IPv6's.
    pub ipv6: Signal<Out, Bit>,
    /// The frame has an 802.1Q tag.
    pub has_vlan: Signal<Out, Bit>,
    /// VLAN identifier of that tag.
    pub vlan: Signal<Out, Bits<12>>,
    /// Beats of the frame so far, counted to three.
    beats: Reg<Bits<2>>,
    /// Bytes 2 to 7 of the beat before.
    rest: Reg<Bits<48>>,
    ether_type: Reg<Bits<16>>,
    tag: Reg<Bits<12>>,
    has_tag: Reg<Bit>,
    is_ipv4: Reg<Bit>,
    is_ipv6: Reg<Bit>,
    made: Reg<Bits<64>>,
    made_valid: Reg<Bit>,
    flush: Reg<Bit>,
    starting: Reg<Bit>,
}

#[hw]
impl Logic for Realigner {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.beats, self.made_valid, self.flush, self.starting);
        registers!(self.clock => self.rest, self.ether_type, self.tag, self.has_tag, self.is_ipv4);
        registers!(self.clock => self.is_ipv6, self.made);
        let data = self.data.val();
        let valid = self.valid.val();
        let beats = self.beats.q.val();
        let tagged = self.has_tag.q.val();
        self.starting.d.next = false;
        if valid {
            self.rest.d.next = data.get_bits::<48>(16);
            self.beats.d.next = if self.last.val() {
                bits::<2>(0)
            } else if beats.all() {
                beats
            } else {
                beats + 1
            };
            match beats.index() {
                0 => {
                    self.starting.d.next = true;
                    self.has_tag.d.next = false;
                    self.ether_type.d.next = bits::<16>(0);
                }
                1 => {
                    let ether_type = number(data.get_bits::<16>(32));
                    self.ether_type.d.next = ether_type;
                    self.has_tag.d.next = ether_type == bits::<16>(VLAN);
                    self.tag.d.next = number(data.get_bits::<16>(48)).get_bits::<12>(0);
                }
                2 => {
                    if tagged {
                        self.ether_type.d.next = number(data.get_bits::<16>(0));
                    }
                }
                _ => {}
            }
        }
        self.flush.d.next = valid && self.last.val();
        let whole = beats.all() || (beats == bits::<2>(2) && !tagged);
        self.made_valid.d.next = (valid && whole) || self.flush.q.val();
        self.made.d.next = if tagged {
            cat::<64>((data.get_bits::<16>(0), self.rest.q.val()))
        } else {
            cat::<64>((data.get_bits::<48>(0), self.rest.q.val().get_bits::<16>(32)))
        };
        self.is_ipv4.d.next = self.ether_type.q.val() == bits::<16>(IPV4);
        self.is_ipv6.d.next = self.ether_type.q.val() == bits::<16>(IPV6);

        self.start.next = self.starting.q.val();
        self.word.next = self.made.q.val();
        self.word_valid.next = self.made_valid.q.val();
        self.ipv4.next = self.is_ipv4.q.val();
        self.ipv6.next = self.is_ipv6.q.val();
        self.has_vlan.next = tagged;
        self.vlan.next = self.tag.q.val();
    }
}
