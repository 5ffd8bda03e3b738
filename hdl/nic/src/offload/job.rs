//! What travels beside frames on their way to the wire.

use hematite_lang::prelude::*;

use crate::virtio::features::Negotiated;

/// VIRTIO_NET_HDR_GSO_TCPV4.
const GSO_TCPV4: u64 = 1;
/// VIRTIO_NET_HDR_GSO_TCPV6.
const GSO_TCPV6: u64 = 4;

/// Packets of this `gso_type`, which is not VIRTIO_NET_HDR_GSO_NONE, may be sent.
#[hw]
pub fn segmentation_offered(gso_type: Bits<8>, negotiated: Negotiated) -> Bit {
    let kind = gso_type.get_bits::<7>(0);
    let ipv4 = kind == bits::<7>(GSO_TCPV4) && negotiated.host_tso4;
    let ipv6 = kind == bits::<7>(GSO_TCPV6) && negotiated.host_tso6;
    (ipv4 || ipv6) && (!gso_type.get_bit(7) || negotiated.host_ecn)
}

/// A beat of a packet, and whose it is.
#[hw(value)]
pub struct OwnedBeat {
    /// It.
    pub beat: Beat,
    /// Of this pair's transmit queue.
    pub queue: Bits<3>,
    /// With `error`: not by a fault of its driver.
    pub lost: Bit,
}

/// What is to be filled into a frame once all of it has passed. Positions are bytes from the frame's first.
#[hw(value)]
pub struct FrameJob {
    /// From which pair's transmit queue it is.
    pub queue: Bits<3>,
    /// It is the first of its packet.
    pub first: Bit,
    /// A checksum is to be filled in.
    pub insert: Bit,
    /// The first byte that it covers; in a segment the first byte of payload, for what the headers add is
    /// in `tcp_sum`.
    pub start: Bits<14>,
    /// The second byte of its field.
    pub field_end: Bits<14>,
    /// A sum of zero is sent as 0xffff (RFC 768).
    pub udp: Bit,
    /// A segment of a longer TCP packet, whose headers it repeats: all below means something.
    pub segment: Bit,
    /// IPv6, not IPv4.
    pub ipv6: Bit,
    /// The IP header.
    pub network: Bits<8>,
    /// The TCP header.
    pub transport: Bits<8>,
    /// Identification of the IPv4 header.
    pub id: Bits<16>,
    /// TCP's sequence number.
    pub seq: Bits<32>,
    /// TCP's data offset and flags, with PSH and FIN as in the last segment.
    pub flags: Bits<16>,
    /// Sum of the IPv4 header but for total length, identification and checksum.
    pub ip_sum: Bits<22>,
    /// Sum of pseudo header and TCP header but for length, sequence number, flags and checksum.
    pub tcp_sum: Bits<22>,
}

/// PSH and FIN of TCP's flags: only the last segment has them (RFC 9293 section 3.8.1; `tcp_gso_segment`).
pub const PSH_FIN: u64 = 0x0009;
/// CWR of TCP's flags: only the first segment has it, for the window was reduced once (RFC 3168 section 6.1.2).
pub const CWR: u64 = 0x0080;

/// The 16-bit number at an even byte of a beat, first byte highest; `lane` is that byte's place halved.
#[hw]
pub fn word_at(data: Bits<64>, lane: Bits<2>) -> Bits<16> {
    let half = if lane.get_bit(1) {
        data.get_bits::<32>(32)
    } else {
        data.get_bits::<32>(0)
    };
    let quarter = if lane.get_bit(0) {
        half.get_bits::<16>(16)
    } else {
        half.get_bits::<16>(0)
    };
    cat::<16>((quarter.get_bits::<8>(0), quarter.get_bits::<8>(8)))
}
