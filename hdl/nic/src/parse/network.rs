//! The IPv4 or IPv6 header and what lies between it and the transport header.

use hematite_lang::prelude::*;

use super::realign::number;

/// Protocol numbers of the extension headers that are walked (RFC 8200 section 4): all others end the walk.
pub const HOP_BY_HOP: u64 = 0;
/// The same.
pub const ROUTING: u64 = 43;
/// The same.
pub const DESTINATION: u64 = 60;
/// The last word in which a transport header may start: at most 128 bytes of extension headers.
const LAST_START: u64 = 5 + 16;

/// From this payload length on, an IPv6 packet has more bytes than 16 bits count.
const LONGEST: u64 = 0x1_0000 - 40;

/// What is known of the network header. Nothing here was compared with the length of the frame.
#[hw(value)]
pub struct Network {
    /// A version 4 header of at least 20 bytes.
    pub ipv4: Bit,
    /// A version 6 header.
    pub ipv6: Bit,
    /// A fragment of an IPv4 datagram. One of IPv6 ends with protocol 44.
    pub fragment: Bit,
    /// A routing header says that the destination is not the last one.
    pub routed: Bit,
    /// DF.
    pub dont_fragment: Bit,
    /// The reserved bit beside DF.
    pub reserved: Bit,
    /// Identification (IPv4).
    pub id: Bits<16>,
    /// Where the packet ends by its header, bytes from the start of the header.
    pub end: Bits<16>,
    /// The transport header was reached.
    pub started: Bit,
    /// Where it starts, in four bytes from the start of the network header.
    pub start: Bits<6>,
    /// Its protocol, or that of the header at which the walk ended.
    pub protocol: Bits<8>,
}

/// Which parts of a word mean what.
#[hw(value)]
pub struct Place {
    /// Its low half, bytes 0 to 3, is of the transport header or payload.
    pub transport_low: Bit,
    /// Its high half is.
    pub transport_high: Bit,
    /// The low half counts for the transport checksum: that, or an address.
    pub sum_low: Bit,
    /// The high half does.
    pub sum_high: Bit,
    /// The bytes before the end of the packet.
    pub keep: Bits<8>,
}

/// Walks from the network header to the transport header, a word a cycle.
///
/// IPv4 with options (RFC 791), IPv6 (RFC 8200) with hop-by-hop options (first only), routing and destination
/// options headers, at most 128 bytes of them. Any other header, a fragment header too, counts as the transport
/// header of an unknown protocol. Lengths in the headers are believed only to find the next one: whoever uses
/// the result compares them with the frame. No back-pressure, and no bad input: what isn't IP sets neither
/// `ipv4` nor `ipv6`.
#[hw]
pub struct NetworkWalk {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// A frame starts: no word of it is there yet.
    pub start: Signal<In, Bit>,
    /// The EtherType is IPv4's.
    pub ipv4: Signal<In, Bit>,
    /// The EtherType is IPv6's.
    pub ipv6: Signal<In, Bit>,
    /// Eight bytes from the network header on.
    pub word: Signal<In, Bits<64>>,
    /// They count.
    pub valid: Signal<In, Bit>,
    /// Of the word, while `valid`.
    pub place: Signal<Out, Place>,
    /// The number of the word, counted to 31.
    pub at: Signal<Out, Bits<5>>,
    /// What the words before tell.
    pub network: Signal<Out, Network>,
    count: Reg<Bits<5>>,
    is_ipv4: Reg<Bit>,
    is_ipv6: Reg<Bit>,
    fragment: Reg<Bit>,
    routed: Reg<Bit>,
    dont_fragment: Reg<Bit>,
    reserved: Reg<Bit>,
    id: Reg<Bits<16>>,
    end: Reg<Bits<16>>,
    started: Reg<Bit>,
    start_at: Reg<Bits<6>>,
    protocol: Reg<Bits<8>>,
    /// `protocol` is an extension header's.
    extension: Reg<Bit>,
    /// Whole words of the extension header that are still to be skipped.
    skip: Reg<Bits<8>>,
    /// Whole words before the end of the packet.
    left: Reg<Bits<13>>,
    /// The end of the packet is behind.
    beyond: Reg<Bit>,
}

#[hw]
impl Logic for NetworkWalk {
    fn update(&mut self) {
        registers!(self.clock, self.start => self.count, self.is_ipv4, self.is_ipv6, self.routed, self.started);
        registers!(self.clock => self.fragment, self.dont_fragment, self.reserved, self.id, self.end);
        registers!(self.clock => self.start_at, self.protocol, self.extension, self.skip, self.left, self.beyond);
        let word = self.word.val();
        let valid = self.valid.val();
        let count = self.count.q.val();
        let first = count == bits::<5>(0);
        let second = count == bits::<5>(1);
        let third = count == bits::<5>(2);
        let ipv4 = self.is_ipv4.q.val();
        let ipv6 = self.is_ipv6.q.val();
        let started = self.started.q.val();

        let version = word.get_bits::<4>(4);
        let header_words = word.get_bits::<4>(0);
        let is_ipv4 = self.ipv4.val() && version == bits::<4>(4) && header_words >= bits::<4>(5);
        let length = if self.ipv6.val() {
            number(word.get_bits::<16>(32))
        } else {
            number(word.get_bits::<16>(16))
        };
        let is_ipv6 = self.ipv6.val() && version == bits::<4>(6) && length < bits::<16>(LONGEST);
        let fragment = number(word.get_bits::<16>(48));

        // The start of the transport header.
        let begin = self.start_at.q.val();
        let odd = ipv4 && begin.get_bit(0);
        let ipv4_starts = ipv4 && count == begin.get_bits::<5>(1);
        let in_chain = ipv6 && !started && count >= bits::<5>(5);
        let at_header = in_chain && !self.skip.q.val().any();
        let ipv6_starts = at_header && !self.extension.q.val() && count <= bits::<5>(LAST_START);
        let starts = ipv4_starts || ipv6_starts;
        let low = started || (starts && !odd);
        let high = started || starts;

        let addresses = ipv6 && !first && count <= bits::<5>(4);
        let whole = first || self.left.q.val().any();
        let tail = self.end.q.val().get_bits::<3>(0);
        // At most seven bytes of the last word.
        let mut kept = bits::<8>(0);
        for i in 0..7 {
            kept = kept.replace_bit(i, tail > bits::<3>(i as u64));
        }
        let keep = if whole {
            bits::<8>(0xff)
        } else if self.beyond.q.val() {
            bits::<8>(0)
        } else {
            kept
        };
        self.place.next = Place {
            transport_low: low,
            transport_high: high,
            sum_low: low || addresses || (ipv4 && third),
            sum_high: high || addresses || (ipv4 && second),
            keep,
        };
        self.at.next = count;

        if valid {
            if !count.all() {
                self.count.d.next = count + 1;
            }
            self.started.d.next = high;
            if first {
                self.is_ipv4.d.next = is_ipv4;
                self.is_ipv6.d.next = is_ipv6;
                self.fragment.d.next =
                    self.ipv4.val() && (fragment.get_bit(13) || fragment.get_bits::<13>(0).any());
                self.dont_fragment.d.next = self.ipv4.val() && fragment.get_bit(14);
                self.reserved.d.next = self.ipv4.val() && fragment.get_bit(15);
                self.id.d.next = number(word.get_bits::<16>(32));
                self.start_at.d.next = header_words.resize::<6>();
                let next = word.get_bits::<8>(48);
                self.protocol.d.next = next;
                self.extension.d.next = next == bits::<8>(HOP_BY_HOP)
                    || next == bits::<8>(ROUTING)
                    || next == bits::<8>(DESTINATION);
                self.skip.d.next = bits::<8>(0);
                self.end.d.next = if self.ipv6.val() { length + 40 } else { length };
                // Of an IPv6 packet five words more than the length says, and the first is here.
                let more = if self.ipv6.val() {
                    bits::<13>(4)
                } else {
                    bits::<13>(0x1fff)
                };
                self.left.d.next = length.get_bits::<13>(3) + more;
                self.beyond.d.next = false;
            } else {
                if self.left.q.val().any() {
                    self.left.d.next = self.left.q.val() - 1;
                } else {
                    self.beyond.d.next = true;
                }
                if ipv4 && second {
                    self.protocol.d.next = word.get_bits::<8>(8);
                }
                if in_chain {
                    if !at_header {
                        self.skip.d.next = self.skip.q.val() - 1;
                    } else if self.extension.q.val() {
                        let next = word.get_bits::<8>(0);
                        self.protocol.d.next = next;
                        self.extension.d.next = next == bits::<8>(ROUTING) || next == bits::<8>(DESTINATION);
                        self.skip.d.next = word.get_bits::<8>(8);
                        if self.protocol.q.val() == bits::<8>(ROUTING) && word.get_bits::<8>(24).any() {
                            self.routed.d.next = true;
                        }
                    }
                }
                if ipv6_starts {
                    self.start_at.d.next = cat::<6>((count, false));
                }
            }
        }
        self.network.next = Network {
            ipv4,
            ipv6,
            fragment: self.fragment.q.val(),
            routed: self.routed.q.val(),
            dont_fragment: self.dont_fragment.q.val(),
            reserved: self.reserved.q.val(),
            id: self.id.q.val(),
            end: self.end.q.val(),
            started,
            start: begin,
            protocol: self.protocol.q.val(),
        };
    }
}
