//! Which segments may be merged: plain functions of what is known, the RTL and its model in one.
//!
//! A segment joins a packet exactly when cutting the packet again gives back the frames (`tcp_gro_receive`,
//! net/ipv4/tcp_offload.c). The rules are the stack's own (`hematite_netstack`'s `core/gro`), so that both merge
//! the same: what `FrameMeta::gro` asks of a segment alone, headers that are the same but for the bytes in
//! [`Fields::varying`](super::layout::Fields), and [`continues`].

use hematite_lang::prelude::*;

use crate::parse::FrameMeta;

/// How the identifications of a packet's IPv4 headers run.
#[hw]
pub enum Ids {
    /// One segment tells nothing yet; IPv6 has none.
    Unknown,
    /// One more each time.
    Counting,
    /// Always the same, which DF allows (RFC 6864 section 4.1).
    Fixed,
    /// Neither: it cannot go on like that.
    Broken,
}

/// The bits of TCP's flags that matter here.
#[hw(value)]
pub struct TcpFlags {
    /// FIN.
    pub fin: Bit,
    /// PSH.
    pub push: Bit,
    /// ECE: the peer has seen congestion (RFC 3168).
    pub congestion: Bit,
}

/// A merged packet, as its headers tell of it.
#[hw(value)]
pub struct Packet {
    /// Bytes from the IP header to the end of the payload.
    pub length: Bits<16>,
    /// Bytes of payload of the first segment, which no other exceeds: `gso_size`.
    pub size: Bits<16>,
    /// Segments.
    pub segments: Bits<16>,
    /// Bytes of headers, Ethernet's included.
    pub headers: Bits<8>,
    /// IPv6, not IPv4.
    pub ipv6: Bit,
    /// There is a VLAN tag.
    pub vlan: Bit,
    /// Of all segments.
    pub flags: TcpFlags,
    /// Hash of the flow, as the driver asked for it.
    pub hash: Bits<32>,
    /// VIRTIO_NET_HASH_REPORT_*.
    pub hash_report: Bits<8>,
}

/// What a context knows of the packet that is being made in it.
#[hw(value)]
pub struct Held {
    /// The packet.
    pub packet: Packet,
    /// Sequence number of what would continue it.
    pub next_sequence: Bits<32>,
    /// Identification of the last segment's IPv4 header.
    pub id: Bits<16>,
    /// How identifications run.
    pub ids: Ids,
    /// Which half of the context's place in the header store has the first segment's headers.
    pub half: Bit,
    /// Bytes that still fit in the packet's last buffer.
    pub room: Bits<16>,
}

/// Identifications with one segment more.
#[hw]
pub fn ids_with(held: Held, meta: FrameMeta) -> Ids {
    let counting = meta.ip_id == held.id + 1;
    let fixed = meta.ip_id == held.id && meta.dont_fragment;
    if meta.ipv6 {
        Ids::Unknown
    } else if counting && held.ids != Ids::Fixed {
        Ids::Counting
    } else if fixed && held.ids != Ids::Counting {
        Ids::Fixed
    } else {
        Ids::Broken
    }
}

/// Whether a segment continues what is held. `same_headers`: but for the bytes that differ from segment to
/// segment its headers are those of the first.
#[hw]
pub fn continues(held: Held, meta: FrameMeta, same_headers: Bit) -> Bit {
    let length = held.packet.length.resize::<17>() + meta.payload_length.resize::<17>();
    same_headers
        && meta.sequence == held.next_sequence
        && meta.payload_length <= held.packet.size
        && !length.get_bit(16)
        && ids_with(held, meta) != Ids::Broken
}

/// Whether nothing may follow a segment that joins: FIN or PSH, or less payload than the first segment's.
#[hw]
pub fn completes(held: Held, meta: FrameMeta) -> Bit {
    meta.closes || meta.payload_length < held.packet.size
}

/// A segment as the first of a packet.
#[hw]
pub fn first(meta: FrameMeta, flags: TcpFlags, half: Bit, room: Bits<16>) -> Held {
    Held {
        packet: Packet {
            length: (meta.payload - meta.network).resize::<16>() + meta.payload_length,
            size: meta.payload_length,
            segments: bits::<16>(1),
            headers: meta.payload,
            ipv6: meta.ipv6,
            vlan: has_vlan(meta),
            flags: flags,
            hash: meta.hash_value,
            hash_report: meta.hash_report,
        },
        next_sequence: meta.sequence + meta.payload_length.resize::<32>(),
        id: meta.ip_id,
        ids: Ids::Unknown,
        half: half,
        room: room,
    }
}

/// What is held, with a segment more that continues it.
#[hw]
pub fn joined(held: Held, meta: FrameMeta, flags: TcpFlags, room: Bits<16>) -> Held {
    let packet = held.packet;
    Held {
        packet: Packet {
            length: packet.length + meta.payload_length,
            size: packet.size,
            segments: packet.segments + 1,
            headers: packet.headers,
            ipv6: packet.ipv6,
            vlan: packet.vlan,
            flags: TcpFlags {
                fin: packet.flags.fin || flags.fin,
                push: packet.flags.push || flags.push,
                congestion: packet.flags.congestion,
            },
            hash: packet.hash,
            hash_report: packet.hash_report,
        },
        // `held.next_sequence` is the segment's, as that continues it.
        next_sequence: meta.sequence + meta.payload_length.resize::<32>(),
        id: meta.ip_id,
        ids: ids_with(held, meta),
        half: held.half,
        room: room,
    }
}

/// There is a VLAN tag between the Ethernet addresses and the type.
#[hw]
pub fn has_vlan(meta: FrameMeta) -> Bit {
    meta.network == bits::<8>(18)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(sequence: u64, id: u64, length: u64) -> FrameMeta {
        FrameMeta {
            ip_id: bits(id),
            sequence: bits(sequence),
            payload_length: bits(length),
            network: bits(14),
            payload: bits(54),
            dont_fragment: true,
            ..FrameMeta::default()
        }
    }

    fn held(of: FrameMeta) -> Held {
        first(of, TcpFlags::default(), false, bits(0))
    }

    #[test]
    fn sequence_length_and_total_are_kept_to() {
        let first = held(meta(0xffff_ff00, 7, 1000));
        let next = 0xffff_ff00u32.wrapping_add(1000);
        let with = |sequence: u32, length| meta(u64::from(sequence), 8, length);
        assert!(continues(first, with(next, 1000), true));
        assert!(continues(first, with(next, 1), true));
        assert!(!continues(first, with(next, 1001), true), "longer than the first");
        assert!(!continues(first, with(next + 1, 1000), true), "a hole");
        assert!(!continues(first, with(next - 1, 1000), true), "an overlap");
        assert!(!continues(first, with(next, 1000), false), "other headers");
        let mut full = first;
        full.packet.length = bits(64_535);
        assert!(continues(full, with(next, 1000), true), "65535 bytes");
        full.packet.length = bits(64_536);
        assert!(!continues(full, with(next, 1000), true), "65536 bytes");
    }

    #[test]
    fn identifications_count_or_stay() {
        let first = held(meta(0, 0xffff, 10));
        assert_eq!(ids_with(first, meta(10, 0, 10)), Ids::Counting);
        assert_eq!(ids_with(first, meta(10, 0xffff, 10)), Ids::Fixed);
        assert_eq!(ids_with(first, meta(10, 1, 10)), Ids::Broken);
        let fragmentable = FrameMeta {
            dont_fragment: false,
            ..meta(10, 0xffff, 10)
        };
        assert_eq!(ids_with(first, fragmentable), Ids::Broken, "fixed without DF");
        let counting = joined(first, meta(10, 0, 10), TcpFlags::default(), bits(0));
        assert_eq!(ids_with(counting, meta(20, 1, 10)), Ids::Counting);
        assert_eq!(ids_with(counting, meta(20, 0, 10)), Ids::Broken);
        let fixed = joined(first, meta(10, 0xffff, 10), TcpFlags::default(), bits(0));
        assert_eq!(ids_with(fixed, meta(20, 0xffff, 10)), Ids::Fixed);
        assert_eq!(ids_with(fixed, meta(20, 0, 10)), Ids::Broken);
    }

    #[test]
    fn flags_and_lengths_add_up() {
        let push = TcpFlags {
            push: true,
            ..TcpFlags::default()
        };
        let both = joined(held(meta(0, 1, 10)), meta(10, 2, 4), push, bits(9));
        assert_eq!(both.packet.length, bits(54));
        assert_eq!(both.packet.segments, bits(2));
        assert_eq!(both.next_sequence, bits(14));
        assert_eq!(both.room, bits(9));
        assert!(both.packet.flags.push && !both.packet.flags.fin);
        assert!(completes(held(meta(0, 1, 10)), meta(10, 2, 4)), "shorter");
        assert!(!completes(held(meta(0, 1, 10)), meta(10, 2, 10)));
    }
}
