//! Segments merged into packets (GUEST_TSO4, GUEST_TSO6): what a device does that is not the card, so the rules are written
//! anew, over bytes.

use rand::RngExt;
use virtio_spec::net::F;

use super::Model;

const FIN: u8 = 1;
const PSH: u8 = 8;
const ECE: u8 = 0x40;
/// SYN, RST, URG, CWR.
const NEVER: u8 = 0x02 | 0x04 | 0x20 | 0x80;

/// What goes into buffers, and the beginning of the header before it.
pub struct Packet {
    pub header: [u8; 10],
    pub bytes: Vec<u8>,
    /// Frames in it.
    pub count: usize,
}

/// Where the parts of a TCP frame are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    pub ipv6: bool,
    pub l4: usize,
    pub payload: usize,
}

impl Tcp {
    /// Of a frame without VLAN tag, options and extension headers, fragments and padding.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let (ipv6, l4) = match frame.get(12..15)? {
            [0x08, 0x00, 0x45] => (false, 34),
            [0x86, 0xdd, class] if class >> 4 == 6 => (true, 54),
            _ => return None,
        };
        let (protocol, len) = if ipv6 {
            (frame.get(20)?, 54 + usize::from(word(frame, 18)?))
        } else {
            (frame.get(23)?, 14 + usize::from(word(frame, 16)?))
        };
        let fragment = !ipv6 && word(frame, 20)? & 0x3fff != 0;
        let payload = l4 + usize::from(frame.get(l4 + 12)? >> 4) * 4;
        let whole = *protocol == 6 && len == frame.len() && !fragment && payload >= l4 + 20;
        (whole && frame.len() > payload).then_some(Self { ipv6, l4, payload })
    }

    pub fn flags(self, frame: &[u8]) -> u8 {
        frame[self.l4 + 13]
    }

    fn sequence(self, frame: &[u8]) -> u32 {
        let bytes = frame[self.l4 + 4..self.l4 + 8].try_into();
        u32::from_be_bytes(bytes.expect("four bytes"))
    }

    /// The headers with everything blank that differs from segment to segment.
    fn template(self, frame: &[u8]) -> Vec<u8> {
        let mut headers = frame[..self.payload].to_vec();
        if self.ipv6 {
            headers[18..20].fill(0);
        } else {
            headers[16..20].fill(0);
            headers[24..26].fill(0);
        }
        headers[self.l4 + 4..self.l4 + 8].fill(0);
        headers[self.l4 + 13] &= !(FIN | PSH);
        headers[self.l4 + 16..self.l4 + 18].fill(0);
        headers
    }

    /// Gives lengths and checksums to a frame of any length: TCP's only that of the pseudo header if it is `open`.
    pub fn finish(self, frame: &mut [u8], open: bool) {
        let len = (frame.len() - self.l4) as u16;
        if self.ipv6 {
            frame[18..20].copy_from_slice(&len.to_be_bytes());
        } else {
            frame[16..18].copy_from_slice(&(len + 20).to_be_bytes());
            frame[24..26].fill(0);
            let sum = !ones_sum(&[&frame[14..34]]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        let addresses = if self.ipv6 { 22..54 } else { 26..34 };
        let pseudo = ones_sum(&[&frame[addresses], &[0, 6], &len.to_be_bytes()]);
        let check = self.l4 + 16..self.l4 + 18;
        frame[check.clone()].copy_from_slice(&pseudo.to_be_bytes());
        if !open {
            let sum = !ones_sum(&[&frame[self.l4..]]);
            frame[check].copy_from_slice(&sum.to_be_bytes());
        }
    }

    /// The frames that a packet is cut into again.
    pub fn cut(self, packet: &[u8], size: usize) -> Vec<Vec<u8>> {
        let (headers, payload) = packet.split_at(self.payload);
        let count = payload.len().div_ceil(size);
        let parts = payload.chunks(size).enumerate();
        parts
            .map(|(n, part)| {
                let mut frame = [headers, part].concat();
                if !self.ipv6 {
                    let id = word(headers, 18).expect("a header").wrapping_add(n as u16);
                    frame[18..20].copy_from_slice(&id.to_be_bytes());
                }
                let sequence = self.sequence(headers).wrapping_add((n * size) as u32);
                frame[self.l4 + 4..self.l4 + 8].copy_from_slice(&sequence.to_be_bytes());
                if n + 1 < count {
                    frame[self.l4 + 13] &= !(FIN | PSH);
                }
                self.finish(&mut frame, false);
                frame
            })
            .collect()
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn ones_sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for word in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

impl Model {
    /// The offloads on receive that the driver agreed to.
    pub fn negotiated_offloads(&self) -> u64 {
        let all = F::GUEST_CSUM | F::GUEST_TSO4 | F::GUEST_TSO6 | F::GUEST_ECN;
        self.driver_features & u128::from(all.bits()) as u64
    }

    fn may(&self, offload: F) -> bool {
        let allowed = self.offloads.unwrap_or(self.negotiated_offloads());
        allowed & u128::from(offload.bits()) as u64 != 0
    }

    /// The next frame from the wire, with those behind it that continue it; any number of them, so that a packet ends
    /// anywhere.
    pub(super) fn next_packet(&mut self) -> Option<Packet> {
        let first = self.from_wire.front()?;
        let mut packet = Packet {
            header: [2 * u8::from(self.verified), 0, 0, 0, 0, 0, 0, 0, 0, 0],
            bytes: first.clone(),
            count: 1,
        };
        let Some(tcp) = Tcp::of(first) else {
            return Some(packet);
        };
        let ece = tcp.flags(first) & ECE != 0;
        let family = if tcp.ipv6 { F::GUEST_TSO6 } else { F::GUEST_TSO4 };
        if !self.may(family) || ece && !self.may(F::GUEST_ECN) {
            return Some(packet);
        }
        let (template, size) = (tcp.template(first), first.len() - tcp.payload);
        let most = self.rng.random_range(self.merge_least..=self.merge_most);
        // Identifications count, or stay as DF allows.
        let ids = |frame: &[u8]| {
            word(frame, 18)
                .unwrap_or(0)
                .wrapping_sub(word(first, 18).unwrap_or(0))
        };
        let fixed = first[20] & 0x40 != 0 && self.from_wire.get(1).is_some_and(|next| ids(next) == 0);
        let (mut flags, mut last) = (tcp.flags(first), first);
        for (n, next) in self.from_wire.iter().enumerate().take(most).skip(1) {
            let continues = Tcp::of(next) == Some(tcp)
                && tcp.template(next) == template
                && tcp.sequence(next) == tcp.sequence(last).wrapping_add((last.len() - tcp.payload) as u32)
                && (tcp.ipv6 || ids(next) == if fixed { 0 } else { n as u16 })
                && next.len() <= first.len()
                && last.len() == first.len()
                && (flags & (FIN | PSH | NEVER) == 0 && tcp.flags(next) & NEVER == 0)
                && packet.bytes.len() + size < 65_000;
            if !continues {
                break;
            }
            packet.bytes.extend(&next[tcp.payload..]);
            packet.count += 1;
            flags |= tcp.flags(next);
            last = next;
        }
        if packet.count == 1 {
            return Some(packet);
        }
        packet.bytes[tcp.l4 + 13] = flags;
        tcp.finish(&mut packet.bytes, true);
        let kind = if tcp.ipv6 { 4 } else { 1 } | if ece { 0x80 } else { 0 };
        let (mut said, mut start, mut offset) = (1, tcp.l4, 16);
        if self.driver_features & u128::from(F::RSC_EXT.bits()) as u64 != 0 {
            // QEMU leaves NEEDS_CSUM away.
            said = 4 | self.rng.random_range(0..2);
            (start, offset) = (packet.count, self.rng.random_range(0..5));
        }
        let [size, start] = [size, start].map(|n| (n as u16).to_le_bytes());
        // No driver may rely on the length of the headers.
        let len = self.rng.random_range(0..2) * tcp.payload as u16;
        let len = len.to_le_bytes();
        packet.header = [
            said, kind, len[0], len[1], size[0], size[1], start[0], start[1], offset, 0,
        ];
        Some(packet)
    }
}
