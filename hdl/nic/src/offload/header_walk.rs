//! A look at the headers that all segments of a packet share.

use hematite_lang::prelude::*;

use super::job::word_at;

/// Longest headers, Ethernet to TCP, in bytes: a VLAN tag or two, IPv4 or IPv6 with up to 142 bytes of options or
/// extension headers, TCP with all its options.
pub const MAX_HEADERS: u64 = 256;
/// Shortest: Ethernet, IPv4, TCP.
pub const MIN_TRANSPORT: u64 = 34;

const ETHER_TYPE: u64 = 12;
const IPV4: u64 = 0x0800;
const IPV6: u64 = 0x86dd;
const VLAN: u64 = 0x8100;
const SERVICE_VLAN: u64 = 0x88a8;
const TCP: u64 = 6;
const HOP_BY_HOP: u64 = 0;
const ROUTING: u64 = 43;
const DESTINATION: u64 = 60;

/// The header that the next word belongs to.
#[hw]
enum Layer {
    /// An Ethernet type.
    Type,
    /// The rest of a VLAN tag.
    Tag,
    Ipv4,
    Ipv6,
    /// An IPv6 extension header.
    Extension,
    Tcp,
}

/// Reads the headers of a packet that is to be cut into TCP segments from the memory that holds them, checks
/// that they are what the request says, and sums up what is the same in all segments.
///
/// Takes up to two VLAN tags; IPv4 with options, no fragment; IPv6 with hop-by-hop options, destination
/// options and routing headers that are used up (with segments left, the pseudo header's address is not the
/// header's). Everything else is `bad`, and so is a TCP header that is not where the driver says, so a length
/// is believed only when two sources agree. 16 bits a cycle: h bytes of headers take h / 2 cycles less 3.
#[hw]
pub struct HeaderWalk {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Stops.
    pub reset: Signal<In, Bit>,
    /// Start over.
    pub start: Signal<In, Bit>,
    /// Where the TCP header is: even, at least `MIN_TRANSPORT`.
    pub transport: Signal<In, Bits<8>>,
    /// Bytes of all headers, at most `MAX_HEADERS`.
    pub length: Signal<In, Bits<9>>,
    /// The beat to read.
    pub read_address: Signal<Out, Bits<5>>,
    /// The beat at the `read_address` of the cycle before.
    pub read_data: Signal<In, Bits<64>>,
    /// From the cycle after `start` until all below is settled.
    pub busy: Signal<Out, Bit>,
    /// The packet cannot be cut.
    pub bad: Signal<Out, Bit>,
    /// IPv6, not IPv4.
    pub ipv6: Signal<Out, Bit>,
    /// Where the IP header is.
    pub network: Signal<Out, Bits<8>>,
    /// Identification of the IPv4 header.
    pub id: Signal<Out, Bits<16>>,
    /// TCP's sequence number.
    pub seq: Signal<Out, Bits<32>>,
    /// TCP's data offset and flags.
    pub flags: Signal<Out, Bits<16>>,
    /// As in `FrameJob`.
    pub ip_sum: Signal<Out, Bits<22>>,
    /// As in `FrameJob`.
    pub tcp_sum: Signal<Out, Bits<22>>,
    running: Reg<Bit>,
    /// The word whose beat is read now; words are counted from the frame's first byte.
    place: Reg<Bits<8>>,
    /// The word in the beat that the memory puts out now.
    looked: Reg<Bit>,
    looked_place: Reg<Bits<8>>,
    /// The word to look at.
    word: Reg<Bits<16>>,
    word_valid: Reg<Bit>,
    /// The word behind it.
    behind: Reg<Bits<7>>,
    /// The TCP header starts behind it.
    tcp_behind: Reg<Bit>,
    layer: Reg<Layer>,
    /// Words of this header before.
    index: Reg<Bits<8>>,
    /// The index of this header's last word.
    last_index: Reg<Bits<8>>,
    tags: Reg<Bits<2>>,
    following: Reg<Bits<8>>,
    routing: Reg<Bit>,
    wrong: Reg<Bit>,
    version_6: Reg<Bit>,
    network_place: Reg<Bits<7>>,
    identification: Reg<Bits<16>>,
    number: Reg<Bits<32>>,
    offset_flags: Reg<Bits<16>>,
    ip: Reg<Bits<22>>,
    tcp: Reg<Bits<22>>,
}

#[hw]
impl Logic for HeaderWalk {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.running, self.looked, self.word_valid);
        registers!(self.clock => self.place, self.looked_place, self.word, self.behind, self.tcp_behind);
        registers!(self.clock => self.layer, self.index, self.last_index, self.tags, self.following);
        registers!(self.clock => self.routing, self.wrong, self.version_6, self.network_place);
        registers!(self.clock => self.identification, self.number, self.offset_flags, self.ip, self.tcp);

        // One word after the other: read, picked from its beat, looked at.
        let place = self.place.q.val();
        self.read_address.next = place.get_bits::<5>(2);
        self.place.d.next = place + 1;
        if place + 1 == self.length.val().get_bits::<8>(1) {
            self.running.d.next = false;
        }
        self.looked.d.next = self.running.q.val();
        self.looked_place.d.next = place;
        let looked_place = self.looked_place.q.val();
        self.word.d.next = word_at(self.read_data.val(), looked_place.get_bits::<2>(0));
        self.word_valid.d.next = self.looked.q.val();
        let behind = looked_place.get_bits::<7>(0) + 1;
        self.behind.d.next = behind;
        self.tcp_behind.d.next = behind == self.transport.val().get_bits::<7>(1);

        let word = self.word.q.val();
        let high = word.get_bits::<8>(8);
        let low = word.get_bits::<8>(0);
        let index = self.index.q.val();
        let at_last = index == self.last_index.q.val();
        let tcp_behind = self.tcp_behind.q.val();
        let mut wrong = self.wrong.q.val();
        let mut in_ip_sum = false;
        let mut in_tcp_sum = false;
        // An IPv6 header or extension header ends with this word.
        let mut header_ends = false;
        if self.word_valid.q.val() {
            self.index.d.next = index + 1;
            match self.layer.q.val() {
                Layer::Type => {
                    self.index.d.next = bits::<8>(0);
                    self.network_place.d.next = self.behind.q.val();
                    self.version_6.d.next = word == bits::<16>(IPV6);
                    if word == bits::<16>(IPV4) {
                        self.layer.d.next = Layer::Ipv4;
                    } else if word == bits::<16>(IPV6) {
                        self.layer.d.next = Layer::Ipv6;
                        self.last_index.d.next = bits::<8>(19);
                    } else if (word == bits::<16>(VLAN) || word == bits::<16>(SERVICE_VLAN))
                        && !self.tags.q.val().get_bit(1)
                    {
                        self.tags.d.next = self.tags.q.val() + 1;
                        self.layer.d.next = Layer::Tag;
                    } else {
                        wrong = true;
                    }
                }
                Layer::Tag => self.layer.d.next = Layer::Type,
                Layer::Ipv4 => {
                    in_ip_sum = true;
                    match index.index() {
                        0 => {
                            self.last_index.d.next =
                                cat::<8>((bits::<3>(0), high.get_bits::<4>(0), false)) - 1;
                            wrong = wrong
                                || high.get_bits::<4>(4) != bits::<4>(4)
                                || high.get_bits::<4>(0) < bits::<4>(5);
                        }
                        1 | 5 => in_ip_sum = false,
                        2 => {
                            in_ip_sum = false;
                            self.identification.d.next = word;
                        }
                        // More fragments, and the fragment's offset.
                        3 => wrong = wrong || word.get_bits::<14>(0).any(),
                        4 => wrong = wrong || low != bits::<8>(TCP),
                        6..=9 => in_tcp_sum = true,
                        _ => {}
                    }
                    if tcp_behind {
                        wrong = wrong || !at_last;
                        self.layer.d.next = Layer::Tcp;
                        self.index.d.next = bits::<8>(0);
                    }
                }
                Layer::Ipv6 => {
                    if index == bits::<8>(0) {
                        wrong = wrong || high.get_bits::<4>(4) != bits::<4>(6);
                    }
                    if index == bits::<8>(3) {
                        self.following.d.next = high;
                    }
                    in_tcp_sum = index >= bits::<8>(4);
                    header_ends = at_last;
                    if tcp_behind && !at_last {
                        wrong = true;
                    }
                }
                Layer::Extension => {
                    if index == bits::<8>(0) {
                        self.following.d.next = high;
                        // Eight bytes more than eight times the length; a long one misses the TCP header.
                        self.last_index.d.next = cat::<8>((low.get_bits::<6>(0), bits::<2>(3)));
                        wrong = wrong || low.get_bits::<2>(6).any();
                    }
                    if index == bits::<8>(1) {
                        wrong = wrong || (self.routing.q.val() && low.any());
                    }
                    header_ends = at_last && index != bits::<8>(0);
                    if tcp_behind && !header_ends {
                        wrong = true;
                    }
                }
                Layer::Tcp => match index.index() {
                    2 => self.number.d.next = cat::<32>((word, self.number.q.val().get_bits::<16>(0))),
                    3 => self.number.d.next = cat::<32>((self.number.q.val().get_bits::<16>(16), word)),
                    6 => self.offset_flags.d.next = word,
                    8 => {}
                    _ => in_tcp_sum = true,
                },
            }
        }
        if header_ends {
            let following = self.following.q.val();
            self.index.d.next = bits::<8>(0);
            self.routing.d.next = following == bits::<8>(ROUTING);
            let extension = following == bits::<8>(HOP_BY_HOP)
                || following == bits::<8>(ROUTING)
                || following == bits::<8>(DESTINATION);
            if following == bits::<8>(TCP) {
                wrong = wrong || !tcp_behind;
                self.layer.d.next = Layer::Tcp;
            } else {
                wrong = wrong || tcp_behind || !extension;
                self.layer.d.next = Layer::Extension;
            }
        }
        self.wrong.d.next = wrong;
        if in_ip_sum {
            self.ip.d.next = self.ip.q.val() + word.resize::<22>();
        }
        if in_tcp_sum {
            self.tcp.d.next = self.tcp.q.val() + word.resize::<22>();
        }

        if self.start.val() {
            self.running.d.next = true;
            self.place.d.next = bits::<8>(ETHER_TYPE / 2);
            self.layer.d.next = Layer::Type;
            self.tags.d.next = bits::<2>(0);
            self.wrong.d.next = false;
            self.ip.d.next = bits::<22>(0);
            self.tcp.d.next = bits::<22>(TCP);
        }
        self.busy.next = self.running.q.val() || self.looked.q.val() || self.word_valid.q.val();
        self.bad.next = self.wrong.q.val();
        self.ipv6.next = self.version_6.q.val();
        self.network.next = cat::<8>((self.network_place.q.val(), false));
        self.id.next = self.identification.q.val();
        self.seq.next = self.number.q.val();
        self.flags.next = self.offset_flags.q.val();
        self.ip_sum.next = self.ip.q.val();
        self.tcp_sum.next = self.tcp.q.val();
    }
}
