//! What the classifier has to say of a frame, in plain Rust.

use hematite_testbench::toeplitz::toeplitz;

/// VIRTIO_NET_HASH_TYPE_* in the order of `HashTypes`.
pub const ALL_TYPES: u8 = 0x3f;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    pub flow: u32,
    pub ipv6: bool,
    pub dont_fragment: bool,
    pub closes: bool,
    pub network: u8,
    pub transport: u8,
    pub payload: u8,
    pub payload_length: u16,
    /// IPv4 only.
    pub ip_id: Option<u16>,
    pub sequence: u32,
    pub gro: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    #[default]
    Unknown,
    Good,
    Bad,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    pub length: u16,
    pub verdict: Verdict,
    pub hash_value: u32,
    pub hash_report: u8,
    /// TCP that was not found may be in it.
    pub any_flow: bool,
    pub tcp: Option<Segment>,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The one's complement sum of big-endian numbers, an odd byte before a zero.
pub fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2);
    let total: u32 = words
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    fold(total)
}

pub fn fold(mut total: u32) -> u32 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total
}

/// The network header of a packet, and where its transport header starts.
struct Ip<'a> {
    version: u8,
    /// The packet without padding.
    packet: &'a [u8],
    addresses: Vec<u8>,
    /// The transport header's place and protocol, if the walk gets there.
    transport: Option<(usize, u8)>,
    plain: bool,
    fragment: bool,
    routed: bool,
}

fn ipv4(bytes: &[u8]) -> Option<Ip<'_>> {
    let header = usize::from(bytes.first()? & 15) * 4;
    let total = usize::from(u16_at(bytes, 2)?);
    if bytes[0] >> 4 != 4 || header < 20 || total < header || total > bytes.len() {
        return None;
    }
    let packet = &bytes[..total];
    Some(Ip {
        version: 4,
        packet,
        addresses: packet[12..20].to_vec(),
        transport: Some((header, packet[9])),
        plain: header == 20,
        fragment: u16_at(packet, 6)? & 0x3fff != 0,
        routed: false,
    })
}

fn ipv6(bytes: &[u8]) -> Option<Ip<'_>> {
    let total = usize::from(u16_at(bytes, 4)?) + 40;
    if bytes[0] >> 4 != 6 || total > bytes.len() {
        return None;
    }
    let packet = &bytes[..total];
    let (mut at, mut next, mut routed) = (40, packet[6], false);
    let transport = loop {
        let extension = (next == 0 && at == 40) || next == 43 || next == 60;
        if !extension {
            // Of 128 bytes of extension headers at most.
            break (at <= 40 + 128).then_some((at, next));
        }
        let Some(header) = packet.get(at..at + 8) else {
            break None;
        };
        routed |= next == 43 && header[3] != 0;
        (at, next) = (at + 8 + 8 * usize::from(header[1]), header[0]);
        if at > packet.len() {
            break None;
        }
    };
    Some(Ip {
        version: 6,
        packet,
        addresses: packet[8..40].to_vec(),
        transport,
        plain: at == 40,
        fragment: false,
        routed,
    })
}

/// Judges a frame; `types` are the hash types in the order of `HashTypes`, lowest first.
pub fn classify(frame: &[u8], types: u8, key: &[u8]) -> Meta {
    let mut meta = Meta {
        length: frame.len() as u16,
        ..Meta::default()
    };
    let tagged = u16_at(frame, 12) == Some(0x8100);
    let network = if tagged { 18 } else { 14 };
    let bytes = frame.get(network..).unwrap_or_default();
    let ip = match u16_at(frame, network - 2) {
        Some(0x0800) => ipv4(bytes),
        Some(0x86dd) => ipv6(bytes),
        _ => None,
    };
    let Some(ip) = ip else {
        return meta;
    };
    let header = ip.transport.map_or(0, |t| t.0);
    let header_right = ip.version == 6 || sum(&ip.packet[..header]) == 0xffff;
    if !header_right {
        meta.verdict = Verdict::Bad;
    }
    let type_of = |n: u8| types >> (n + if ip.version == 6 { 3 } else { 0 }) & 1 != 0;
    let report_of = |n: u8| n + 1 + if ip.version == 6 { 3 } else { 0 };
    if type_of(0) {
        meta.hash_report = report_of(0);
        meta.hash_value = toeplitz(key, &ip.addresses);
    }
    meta.any_flow = true;
    let Some((at, protocol)) = ip.transport.filter(|_| !ip.fragment) else {
        return meta;
    };
    meta.any_flow = [6, 0, 43, 44, 51, 60].contains(&protocol);
    let transport = &ip.packet[at..];
    let (kind, least) = match protocol {
        6 => (1, 20),
        17 => (2, 8),
        _ => return meta,
    };
    if transport.len() < least {
        return meta;
    }
    let tuple = [&ip.addresses, &transport[..4]].concat();
    let flow = toeplitz(key, &tuple);
    if type_of(kind) {
        (meta.hash_report, meta.hash_value) = (report_of(kind), flow);
    }
    let pseudo = sum(&ip.addresses) + u32::from(protocol) + transport.len() as u32;
    let right = header_right && fold(pseudo + sum(transport)) == 0xffff;
    let data = usize::from(transport[if protocol == 6 { 12 } else { 0 }] >> 4) * 4;
    let whole = match protocol {
        6 => data >= 20 && data <= transport.len(),
        _ => {
            usize::from(u16_at(transport, 4).unwrap_or(0)) == transport.len()
                && u16_at(transport, 6) != Some(0)
        }
    };
    if whole && !ip.routed {
        meta.verdict = if right { Verdict::Good } else { Verdict::Bad };
    }
    if protocol == 6 && whole {
        let flags = transport[13];
        let payload = transport.len() - data;
        meta.any_flow = false;
        meta.tcp = Some(Segment {
            flow,
            ipv6: ip.version == 6,
            dont_fragment: ip.version == 4 && ip.packet[6] & 0x40 != 0,
            closes: flags & 0x09 != 0,
            network: network as u8,
            transport: (network + at) as u8,
            payload: (network + at + data) as u8,
            payload_length: payload as u16,
            ip_id: (ip.version == 4).then(|| u16_at(ip.packet, 4).unwrap_or(0)),
            sequence: u32::from_be_bytes(transport[4..8].try_into().expect("four bytes")),
            gro: meta.verdict == Verdict::Good
                && ip.plain
                && payload > 0
                && network + ip.packet.len() == frame.len()
                && (ip.version == 6 || ip.packet[6] & 0x80 == 0)
                && transport[16..18] != [0xff, 0xff]
                && transport[12] & 15 == 0
                && flags & 0b1011_0110 == 0b0001_0000,
        });
    }
    meta
}
