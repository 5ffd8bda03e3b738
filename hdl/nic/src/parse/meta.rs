//! What travels beside a received frame.

use hematite_lang::prelude::*;

/// What the card learned of a frame while its bytes passed.
#[hw(value)]
pub struct FrameMeta {
    /// Bytes of the frame, padding included, frame check sequence not.
    pub length: Bits<16>,
    /// Every checksum of the frame was verified and right: VIRTIO_NET_HDR_F_DATA_VALID (virtio 1.3 section
    /// 5.1.6.4.1). Clear for whatever the card doesn't understand.
    pub checksum_good: Bit,
    /// A checksum of the frame is wrong.
    pub checksum_bad: Bit,
    /// Toeplitz hash, 0 when `hash_report` is 0 (section 5.1.6.4.3).
    pub hash_value: Bits<32>,
    /// VIRTIO_NET_HASH_REPORT_*.
    pub hash_report: Bits<8>,
    /// Eight bits of a hash of addresses, and of ports where there are some, whatever hash the driver asked for; 0 for
    /// whatever is not an IP packet.
    pub spread: Bits<8>,
    /// A TCP segment, not a fragment; `flow` and all below mean something.
    pub tcp: Bit,
    /// Hash of addresses and ports, whatever hash the driver asked for: equal for segments of one
    /// connection and direction, and seldom for others.
    pub flow: Bits<32>,
    /// Which key `flow` was made with: equal hashes of different keys say nothing, nor do different ones. It comes
    /// round after 51 keys; if no frame came meanwhile, the idle wire has completed all packets.
    pub key: Bits<10>,
    /// An IP packet that may belong to any flow: a fragment, TCP behind headers that the card doesn't look behind, or a
    /// packet in whose midst the hash key changed. Clear with `tcp`.
    pub any_flow: Bit,
    /// The segment may join others: payload with no padding behind it, right checksums, IPv4 without options
    /// and reserved bit or IPv6 without extension headers, flags ACK and perhaps PSH, FIN, ECE and no other,
    /// and a TCP checksum that is not 0xffff, because whoever cuts the packet again would write 0.
    pub gro: Bit,
    /// IPv6, not IPv4.
    pub ipv6: Bit,
    /// The IPv4 header has DF.
    pub dont_fragment: Bit,
    /// PSH or FIN: nothing may join behind it.
    pub closes: Bit,
    /// Offset of the IP header in the frame: 14, or 18 behind a VLAN tag.
    pub network: Bits<8>,
    /// Offset of the TCP header.
    pub transport: Bits<8>,
    /// Offset of the TCP payload.
    pub payload: Bits<8>,
    /// Bytes of TCP payload by the IP header's length; padding may follow them in the frame.
    pub payload_length: Bits<16>,
    /// Identification of the IPv4 header.
    pub ip_id: Bits<16>,
    /// Sequence number.
    pub sequence: Bits<32>,
}

/// The meta data of frames, beside their stream: offered no later than the first beat of the frame.
#[hw(interface)]
#[join(MetaIn)]
pub struct MetaOut {
    /// Of the next frame.
    pub data: Signal<Out, FrameMeta>,
    /// There is one.
    pub valid: Signal<Out, Bit>,
    /// It is taken.
    pub ready: Signal<In, Bit>,
}

/// The meta data of frames, at their reader.
#[hw(interface)]
#[join(MetaOut)]
pub struct MetaIn {
    /// Of the next frame.
    pub data: Signal<In, FrameMeta>,
    /// There is one.
    pub valid: Signal<In, Bit>,
    /// It is taken.
    pub ready: Signal<Out, Bit>,
}
