//! What a received frame is, and whether it is for this host.

use hematite_lang::prelude::*;
use virtio_spec::net::HashReport;

use crate::mac::frame_fifo::top_of;

use super::checksum::Checksums;
use super::filter::{Filter, FilterConfigIn};
use super::meta::FrameMeta;
use super::network::{DESTINATION, HOP_BY_HOP, NetworkWalk, Place, ROUTING};
use super::realign::Realigner;
use super::toeplitz::{KeyIn, Toeplitz};
use super::transport::TransportFields;

const TCP: u64 = 6;
const UDP: u64 = 17;
const FRAGMENT: u64 = 44;
const AUTHENTICATION: u64 = 51;
const REPORT_NONE: u64 = HashReport::None as u64;
const REPORT_IPV4: u64 = HashReport::Ipv4 as u64;
const REPORT_TCPV4: u64 = HashReport::Tcpv4 as u64;
const REPORT_UDPV4: u64 = HashReport::Udpv4 as u64;
const REPORT_IPV6: u64 = HashReport::IPv6 as u64;
const REPORT_TCPV6: u64 = HashReport::Tcpv6 as u64;
const REPORT_UDPV6: u64 = HashReport::Udpv6 as u64;
/// Cycles from the one after the last beat to the verdict: one word, the sums' six, less one.
const SETTLE: u64 = 7;

/// Which headers are hashed: VIRTIO_NET_HASH_TYPE_* (virtio 1.3 section 5.1.6.4.3.1), without those that look into
/// IPv6 extension headers.
#[hw(value)]
pub struct HashTypes {
    /// IPv4 addresses.
    pub ipv4: Bit,
    /// And TCP ports.
    pub tcpv4: Bit,
    /// And UDP ports.
    pub udpv4: Bit,
    /// IPv6 addresses.
    pub ipv6: Bit,
    /// And TCP ports.
    pub tcpv6: Bit,
    /// And UDP ports.
    pub udpv6: Bit,
}

#[hw]
enum Waiting {
    Last,
    Settle,
    Taken,
}

/// Looks into frames on their way from the MAC: finds the headers, verifies the checksums, hashes the flow,
/// judges by the filters. The frame goes on as it came, its last beat with `meta`, and with `error` when a filter
/// says that it is not for this host.
///
/// A beat a cycle; the last one waits for the verdict, nine cycles, or until 16 address entries are searched or
/// the hash is made, if that takes longer: it takes a byte of its input a cycle. So a frame of n beats takes n + 9 cycles,
/// but no less than 22 with IPv4 and 46 with IPv6; a gigabit wire brings one of 64 bytes in 84. `input` waits meanwhile;
/// on `output` back-pressure passes through.
///
/// No frame is refused for what is in it. A checksum counts as verified only where it can be: TCP or UDP right behind
/// IPv4 or IPv6 (with the extension headers that [`NetworkWalk`] knows, unless one names another destination), not a
/// fragment, the whole packet in the frame, UDP's length the packet's and its checksum there. Bytes beyond the
/// packet's end are padding. A frame whose last beat comes with `error` passes unseen and uncounted.
#[hw]
pub struct Classifier {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Drops the frame under way: the next beat starts one. The VLAN table is emptied and the key is the default.
    pub reset: Signal<In, Bit>,
    /// The writer of frames was reset: the next beat starts one.
    pub restart: Signal<In, Bit>,
    /// Frames without frame check sequence, of less than 64 KiB.
    pub input: StreamIn,
    /// The same.
    pub output: StreamOut,
    /// What was learned of the frame, right while its last beat is offered and in the cycle after.
    pub meta: Signal<Out, FrameMeta>,
    /// Which frames are wanted.
    pub filter: FilterConfigIn,
    /// A hash key.
    pub key: KeyIn,
    /// What `hash_value` is made of.
    pub hash_types: Signal<In, HashTypes>,
    /// Counter event: every checksum was verified and right.
    pub checksum_good: Signal<Out, Bit>,
    /// Counter event: a checksum was wrong. The frame is delivered.
    pub checksum_bad: Signal<Out, Bit>,
    /// Counter event: there was no checksum to verify, or not every one could be.
    pub checksum_unknown: Signal<Out, Bit>,
    /// Counter event: a frame was dropped for its destination address.
    pub filtered_address: Signal<Out, Bit>,
    /// Counter event: a frame was dropped for its VLAN.
    pub filtered_vlan: Signal<Out, Bit>,
    anew: Signal<Local, Bit>,
    realigner: Realigner,
    walk: NetworkWalk,
    fields: TransportFields,
    checksums: Checksums,
    toeplitz: Toeplitz,
    judge: Filter,
    /// A word, and what of it counts for what.
    placed: Reg<Place>,
    placed_word: Reg<Bits<64>>,
    placed_valid: Reg<Bit>,
    waiting: Reg<Waiting>,
    settle: Reg<Bits<3>>,
    beat: Reg<Beat>,
    beat_valid: Reg<Bit>,
    in_frame: Reg<Bit>,
    /// The verdict of the filter.
    wrong_address: Reg<Bit>,
    wrong_vlan: Reg<Bit>,
    /// Beats of the frame, then its bytes.
    beats: Reg<Bits<13>>,
    length: Reg<Bits<16>>,
    /// The next are results a step behind the fields that they are made of.
    packet_end: Reg<Bits<17>>,
    inside: Reg<Bit>,
    /// No padding behind it.
    filled: Reg<Bit>,
    /// Bytes from the transport header to the end of the packet; bit 16 when that is before it.
    transport_length: Reg<Bits<17>>,
    pseudo: Reg<Bits<17>>,
    data_bytes: Reg<Bits<17>>,
    tcp: Reg<Bit>,
    udp: Reg<Bit>,
    udp_checked: Reg<Bit>,
    joinable: Reg<Bit>,
    /// There may be TCP that was not found.
    opaque: Reg<Bit>,
    payload: Reg<Bits<8>>,
    transport: Reg<Bits<8>>,
}

#[hw]
impl Logic for Classifier {
    fn update(&mut self) {
        self.anew.next = self.reset.val() || self.restart.val();
        registers!(self.clock, self.anew => self.waiting, self.beat_valid, self.beats, self.in_frame);
        registers!(self.clock => self.settle, self.beat, self.length, self.packet_end, self.inside);
        registers!(self.clock => self.filled, self.opaque, self.placed, self.placed_word);
        registers!(self.clock, self.anew => self.placed_valid);
        registers!(self.clock => self.transport_length, self.pseudo, self.data_bytes, self.tcp, self.udp);
        registers!(self.clock => self.wrong_address, self.wrong_vlan);
        registers!(self.clock => self.udp_checked, self.joinable, self.payload, self.transport);
        clocked!(self.clock, self.anew => self.realigner);
        clocked!(self.clock, self.reset => self.toeplitz, self.judge);
        clocked!(self.clock => self.walk, self.fields, self.checksums);

        // The frame passes.
        let open = matches!(self.waiting.q.val(), Waiting::Last);
        let sent = !self.beat_valid.q.val() || self.output.ready.val();
        let beat = self.beat.q.val();
        self.input.ready.next = open && sent;
        let take = self.input.valid.val() && open && sent;
        let last = self.input.last.val();
        let top = top_of(self.input.keep.val());
        if sent {
            self.beat_valid.d.next = take && !last;
        }
        if take {
            self.beat.d.next = Beat {
                data: self.input.data.val(),
                keep: self.input.keep.val(),
                last,
                error: last && self.input.error.val(),
            };
            self.in_frame.d.next = !last;
            self.beats.d.next = if last {
                bits::<13>(0)
            } else {
                self.beats.q.val() + 1
            };
            if last {
                self.length.d.next = cat::<16>((self.beats.q.val(), top)) + 1;
                self.settle.d.next = bits::<3>(0);
                self.waiting.d.next = Waiting::Settle;
            }
        }
        let idle = !self.toeplitz.busy.val() && !self.judge.busy.val();
        match self.waiting.q.val() {
            Waiting::Last => {}
            Waiting::Settle => {
                if self.settle.q.val() != bits::<3>(SETTLE) {
                    self.settle.d.next = self.settle.q.val() + 1;
                } else if idle {
                    self.beat_valid.d.next = true;
                    self.wrong_address.d.next = self.judge.wrong_address.val();
                    self.wrong_vlan.d.next = self.judge.wrong_vlan.val();
                    self.waiting.d.next = Waiting::Taken;
                }
            }
            Waiting::Taken => {
                if self.output.ready.val() {
                    self.waiting.d.next = Waiting::Last;
                }
            }
        }

        // Its words.
        self.realigner.data.next = self.input.data.val();
        self.realigner.last.next = last;
        self.realigner.valid.next = take;
        let start = self.realigner.start.val();
        let word = self.realigner.word.val();
        let word_valid = self.realigner.word_valid.val();
        // What is in a word is found out in a cycle of its own.
        self.placed.d.next = self.walk.place.val();
        self.placed_word.d.next = word;
        self.placed_valid.d.next = word_valid;
        let place = self.placed.q.val();
        let placed_word = self.placed_word.q.val();
        let placed_valid = self.placed_valid.q.val();
        self.walk.start.next = start;
        self.walk.ipv4.next = self.realigner.ipv4.val();
        self.walk.ipv6.next = self.realigner.ipv6.val();
        self.walk.word.next = word;
        self.walk.valid.next = word_valid;
        self.fields.start.next = start;
        self.fields.word.next = placed_word;
        self.fields.place.next = place;
        self.fields.valid.next = placed_valid;
        self.checksums.start.next = start;
        self.checksums.word.next = placed_word;
        self.checksums.place.next = place;
        self.checksums.valid.next = placed_valid;
        self.checksums.pseudo.next = self.pseudo.q.val();
        let network = self.walk.network.val();
        let fields = self.fields.transport.val();
        self.toeplitz.start.next = start;
        self.toeplitz.word.next = word;
        self.toeplitz.at.next = self.walk.at.val();
        self.toeplitz.valid.next = word_valid;
        self.toeplitz.ipv4.next = network.ipv4;
        self.toeplitz.ipv6.next = network.ipv6;
        self.key.link(&mut self.toeplitz.key);
        self.judge.destination.next = self.input.data.val().get_bits::<48>(0);
        self.judge.start.next = take && !self.in_frame.q.val();
        self.judge.has_vlan.next = self.realigner.has_vlan.val();
        self.judge.vlan.next = self.realigner.vlan.val();
        self.filter.link(&mut self.judge.config);

        // The lengths that the headers claim against each other and the frame.
        let tagged = self.realigner.has_vlan.val();
        let begin = cat::<8>((network.start, bits::<2>(0)));
        let offset = if tagged { bits::<8>(18) } else { bits::<8>(14) };
        let header_bytes = cat::<6>((fields.data_offset, bits::<2>(0)));
        self.transport.d.next = begin + offset;
        self.payload.d.next = self.transport.q.val() + header_bytes.resize::<8>();
        self.packet_end.d.next = network.end.resize::<17>() + offset.resize::<17>();
        self.inside.d.next = self.packet_end.q.val() <= self.length.q.val().resize::<17>();
        self.filled.d.next = self.packet_end.q.val() == self.length.q.val().resize::<17>();
        self.transport_length.d.next = network.end.resize::<17>() - begin.resize::<17>();
        let transport_length = self.transport_length.q.val();
        self.pseudo.d.next =
            transport_length.get_bits::<16>(0).resize::<17>() + network.protocol.resize::<17>();
        self.data_bytes.d.next = transport_length - header_bytes.resize::<17>();
        let whole = network.started && !network.fragment && !transport_length.get_bit(16);
        let long = transport_length.get_bits::<12>(4).any();
        let has_tcp = long && transport_length.get_bits::<16>(0) >= bits::<16>(20);
        let has_udp = long || transport_length.get_bit(3);
        self.tcp.d.next = whole && has_tcp && network.protocol == bits::<8>(TCP);
        self.udp.d.next = whole && has_udp && network.protocol == bits::<8>(UDP);
        let udp_length = fields.sequence.get_bits::<16>(16);
        self.udp_checked.d.next =
            udp_length == transport_length.get_bits::<16>(0) && fields.sequence.get_bits::<16>(0).any();
        // ACK and perhaps ECE, PSH, FIN.
        let flags = fields.flags & bits::<8>(0b1011_0110);
        let plain = if network.ipv4 {
            network.start == bits::<6>(5)
        } else {
            network.start == bits::<6>(10)
        };
        self.joinable.d.next =
            flags == bits::<8>(0b0001_0000) && !fields.reserved.any() && plain && !network.reserved;

        let protocol = network.protocol;
        self.opaque.d.next = !whole
            || protocol == bits::<8>(TCP)
            || protocol == bits::<8>(HOP_BY_HOP)
            || protocol == bits::<8>(ROUTING)
            || protocol == bits::<8>(FRAGMENT)
            || protocol == bits::<8>(AUTHENTICATION)
            || protocol == bits::<8>(DESTINATION);

        // The verdict.
        let inside = self.inside.q.val();
        let data_bytes = self.data_bytes.q.val();
        let segment =
            self.tcp.q.val() && inside && fields.data_offset >= bits::<4>(5) && !data_bytes.get_bit(16);
        // Of such a hash nobody can say what else has it.
        let mixed = self.toeplitz.mixed.val();
        let datagram = self.udp.q.val() && inside && self.udp_checked.q.val();
        let header_fits = network.ipv4 && inside && !transport_length.get_bit(16);
        let header_right = !network.ipv4 || self.checksums.header_right.val();
        let verifiable = (segment || datagram) && !network.routed;
        let right = header_right && self.checksums.transport_right.val();
        let good = verifiable && right;
        let bad = (header_fits && !header_right) || (verifiable && !right);

        let addresses = header_fits || (network.ipv6 && inside);
        let ports = inside && (self.tcp.q.val() || self.udp.q.val());
        self.toeplitz.ports.next = fields.ports;
        self.toeplitz.ports_valid.next = fields.ports_valid;
        let types = self.hash_types.val();
        let mut report = bits::<8>(REPORT_NONE);
        if addresses {
            if network.ipv4 {
                if types.ipv4 {
                    report = bits::<8>(REPORT_IPV4);
                }
                if ports && self.tcp.q.val() && types.tcpv4 {
                    report = bits::<8>(REPORT_TCPV4);
                }
                if ports && self.udp.q.val() && types.udpv4 {
                    report = bits::<8>(REPORT_UDPV4);
                }
            } else {
                if types.ipv6 {
                    report = bits::<8>(REPORT_IPV6);
                }
                if ports && self.tcp.q.val() && types.tcpv6 {
                    report = bits::<8>(REPORT_TCPV6);
                }
                if ports && self.udp.q.val() && types.udpv6 {
                    report = bits::<8>(REPORT_UDPV6);
                }
            }
        }
        let with_ports = report != bits::<8>(REPORT_IPV4) && report != bits::<8>(REPORT_IPV6);
        let hash_value = if !report.any() {
            bits::<32>(0)
        } else if with_ports {
            self.toeplitz.hash.val()
        } else {
            self.toeplitz.addresses_hash.val()
        };
        let spread = if ports {
            self.toeplitz.hash.val()
        } else {
            self.toeplitz.addresses_hash.val()
        };
        self.meta.next = FrameMeta {
            length: self.length.q.val(),
            checksum_good: good,
            checksum_bad: bad,
            hash_value,
            hash_report: report,
            spread: if addresses {
                spread.get_bits::<8>(0)
            } else {
                bits::<8>(0)
            },
            tcp: segment && !mixed,
            flow: self.toeplitz.hash.val(),
            key: self.toeplitz.key_words.val(),
            any_flow: addresses && (mixed || (!segment && self.opaque.q.val())),
            gro: segment
                && !mixed
                && good
                && self.joinable.q.val()
                && self.filled.q.val()
                && !fields.all_ones
                && data_bytes.any(),
            ipv6: network.ipv6,
            dont_fragment: network.dont_fragment,
            closes: (fields.flags & bits::<8>(0b0000_1001)).any(),
            network: offset,
            transport: self.transport.q.val(),
            payload: self.payload.q.val(),
            payload_length: data_bytes.get_bits::<16>(0),
            ip_id: network.id,
            sequence: fields.sequence,
        };

        let wrong_address = self.wrong_address.q.val();
        let wrong_vlan = self.wrong_vlan.q.val();
        self.output.data.next = beat.data;
        self.output.keep.next = beat.keep;
        self.output.last.next = beat.last;
        self.output.error.next = beat.last && (beat.error || wrong_address || wrong_vlan);
        self.output.valid.next = self.beat_valid.q.val();
        let judged = matches!(self.waiting.q.val(), Waiting::Taken) && self.output.ready.val() && !beat.error;
        let passed = judged && !wrong_address && !wrong_vlan;
        self.checksum_good.next = passed && good;
        self.checksum_bad.next = passed && bad;
        self.checksum_unknown.next = passed && !good && !bad;
        self.filtered_address.next = judged && wrong_address;
        self.filtered_vlan.next = judged && !wrong_address && wrong_vlan;
    }
}
