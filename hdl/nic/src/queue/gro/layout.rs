//! Where the fields of a segment's headers lie, beat by beat.
//!
//! IPv4 without options or IPv6 without extension headers, behind Ethernet with or without a VLAN tag: four
//! layouts, in which every field is at a known place. The tests count it out from the field's offsets.

use hematite_lang::prelude::*;

/// The fields in one beat of eight bytes, as masks of its bytes or of its four 16-bit words.
#[hw(value)]
pub struct Fields {
    /// Bytes that differ between segments of one packet: IP length, identification and header checksum, TCP
    /// sequence number and checksum. The flags, of which FIN and PSH may differ, are not among them.
    pub varying: Bits<8>,
    /// The byte with TCP's flags.
    pub flags: Bits<8>,
    /// Words of the IP addresses.
    pub addresses: Bits<4>,
    /// The word of IPv4's total length or IPv6's payload length.
    pub length: Bits<4>,
    /// The word of IPv4's header checksum.
    pub header_checksum: Bits<4>,
    /// The word of TCP's checksum.
    pub tcp_checksum: Bits<4>,
}

/// The fields in beat `index` of a frame.
#[hw]
pub fn fields(ipv6: Bit, vlan: Bit, index: Bits<4>) -> Fields {
    let varying = match (ipv6, vlan, index.index()) {
        (false, false, 2) => bits::<8>(0x0f),
        (false, false, 3) => bits::<8>(0x03),
        (false, false, 4) => bits::<8>(0xc0),
        (false, false, 5) => bits::<8>(0x03),
        (false, false, 6) => bits::<8>(0x0c),
        (false, true, 2) => bits::<8>(0xf0),
        (false, true, 3) => bits::<8>(0x30),
        (false, true, 5) => bits::<8>(0x3c),
        (false, true, 6) => bits::<8>(0xc0),
        (true, false, 2) => bits::<8>(0x0c),
        (true, false, 7) => bits::<8>(0x3c),
        (true, false, 8) => bits::<8>(0xc0),
        (true, true, 2) => bits::<8>(0xc0),
        (true, true, 7) => bits::<8>(0xc0),
        (true, true, 8) => bits::<8>(0x03),
        (true, true, 9) => bits::<8>(0x0c),
        _ => bits::<8>(0),
    };
    let flags = match (ipv6, vlan, index.index()) {
        (false, false, 5) => bits::<8>(0x80),
        (false, true, 6) => bits::<8>(0x08),
        (true, false, 8) => bits::<8>(0x08),
        (true, true, 8) => bits::<8>(0x80),
        _ => bits::<8>(0),
    };
    let addresses = match (ipv6, vlan, index.index()) {
        (false, false, 3) => bits::<4>(0b1110),
        (false, false, 4) => bits::<4>(0b0001),
        (false, true, 3) => bits::<4>(0b1000),
        (false, true, 4) => bits::<4>(0b0111),
        (true, false, 2) => bits::<4>(0b1000),
        (true, true, 3) => bits::<4>(0b1110),
        (true, _, 3..=5) => bits::<4>(0b1111),
        (true, false, 6) => bits::<4>(0b0111),
        (true, true, 6) => bits::<4>(0b1111),
        (true, true, 7) => bits::<4>(0b0001),
        _ => bits::<4>(0),
    };
    let length = match (ipv6, vlan, index.index()) {
        (false, false, 2) => bits::<4>(0b0001),
        (false, true, 2) => bits::<4>(0b0100),
        (true, false, 2) => bits::<4>(0b0010),
        (true, true, 2) => bits::<4>(0b1000),
        _ => bits::<4>(0),
    };
    let header_checksum = match (ipv6, vlan, index.index()) {
        (false, false, 3) => bits::<4>(0b0001),
        (false, true, 3) => bits::<4>(0b0100),
        _ => bits::<4>(0),
    };
    let tcp_checksum = match (ipv6, vlan, index.index()) {
        (false, false, 6) => bits::<4>(0b0010),
        (false, true, 6) => bits::<4>(0b1000),
        (true, false, 8) => bits::<4>(0b1000),
        (true, true, 9) => bits::<4>(0b0010),
        _ => bits::<4>(0),
    };
    Fields {
        varying,
        flags,
        addresses,
        length,
        header_checksum,
        tcp_checksum,
    }
}

/// Beats that `headers` bytes of headers reach into: at most 15.
#[hw]
pub fn beats(headers: Bits<8>) -> Bits<4> {
    (headers + 7).get_bits::<4>(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(field: Bits<4>) -> u8 {
        (0..4)
            .filter(|&n| field.get_bit(n))
            .fold(0, |mask, n| mask | 3 << (2 * n))
    }

    #[test]
    fn every_field_is_where_its_offset_says() {
        for (ipv6, vlan) in [(false, false), (false, true), (true, false), (true, true)] {
            let ip = if vlan { 18 } else { 14 };
            let tcp = ip + if ipv6 { 40 } else { 20 };
            let bytes = |ranges: &[std::ops::Range<usize>]| {
                let mut at = [0u8; 16];
                for byte in ranges.iter().cloned().flatten() {
                    at[byte / 8] |= 1 << (byte % 8);
                }
                at
            };
            let (length, addresses, checksum, id) = if ipv6 {
                (ip + 4..ip + 6, ip + 8..ip + 40, 0..0, 0..0)
            } else {
                (ip + 2..ip + 4, ip + 12..ip + 20, ip + 10..ip + 12, ip + 4..ip + 6)
            };
            let (sequence, tcp_checksum) = (tcp + 4..tcp + 8, tcp + 16..tcp + 18);
            let flags = tcp + 13..tcp + 14;
            let varying = [
                length.clone(),
                id,
                checksum.clone(),
                sequence,
                tcp_checksum.clone(),
            ];
            for index in 0..16 {
                let fields = fields(ipv6, vlan, bits(index as u64));
                let byte = |field: Bits<8>| (0..8).fold(0u8, |m, n| m | u8::from(field.get_bit(n)) << n);
                let expect = |ranges: &[_]| bytes(ranges)[index];
                assert_eq!(byte(fields.varying), expect(&varying), "{ipv6} {vlan} {index}");
                assert_eq!(byte(fields.flags), expect(std::slice::from_ref(&flags)));
                assert_eq!(words(fields.addresses), expect(std::slice::from_ref(&addresses)));
                assert_eq!(words(fields.length), expect(std::slice::from_ref(&length)));
                assert_eq!(
                    words(fields.header_checksum),
                    expect(std::slice::from_ref(&checksum))
                );
                assert_eq!(
                    words(fields.tcp_checksum),
                    expect(std::slice::from_ref(&tcp_checksum))
                );
            }
        }
    }

    #[test]
    fn headers_reach_into_the_beat_of_their_last_byte() {
        for headers in 54..=118u64 {
            assert_eq!(beats(bits(headers)), bits(headers.div_ceil(8)));
        }
    }
}
