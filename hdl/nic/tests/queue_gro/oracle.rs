//! What a host gets of given frames, by the rules alone: written from DESIGN's words, over bytes.

use super::frames::{ECE, FIN, Frame, Headers, PSH};
use hematite_lang::prelude::{Bits, bits};

/// Contexts of the engine.
const CONTEXTS: usize = 8;

/// A packet under way.
#[derive(Clone, Debug)]
struct Open {
    flow: usize,
    frames: Vec<usize>,
    touched: usize,
}

/// Frames in, packets out: each the numbers of the frames in it.
pub struct Oracle {
    open: [Option<Open>; CONTEXTS],
    pub packets: Vec<Vec<usize>>,
    /// The hash key of the frame before.
    key: Bits<10>,
    pub ecn: bool,
    pub ipv4: bool,
    pub ipv6: bool,
}

/// A frame with everything blanked that may differ between the segments of a packet.
fn template(frame: &[u8]) -> Vec<u8> {
    let h = Headers::of(frame);
    let mut bytes = frame[..h.payload].to_vec();
    if h.ipv6 {
        bytes[h.network + 4..][..2].fill(0);
    } else {
        bytes[h.network + 2..][..4].fill(0);
        bytes[h.network + 10..][..2].fill(0);
    }
    bytes[h.transport + 4..][..4].fill(0);
    bytes[h.transport + 13] &= !(FIN | PSH);
    bytes[h.transport + 16..][..2].fill(0);
    bytes
}

fn payload(frame: &[u8]) -> usize {
    frame.len() - Headers::of(frame).payload
}

fn sequence(frame: &[u8]) -> u32 {
    let at = Headers::of(frame).transport + 4;
    u32::from_be_bytes(frame[at..at + 4].try_into().expect("four bytes"))
}

fn id(frame: &[u8]) -> u16 {
    let at = Headers::of(frame).network + 4;
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

/// Whether a frame continues a packet of those frames.
fn continues(packet: &[&[u8]], frame: &[u8]) -> bool {
    let (first, last) = (packet[0], packet[packet.len() - 1]);
    let h = Headers::of(frame);
    let total: usize = packet.iter().map(|frame| payload(frame)).sum();
    let ids: Vec<u16> = packet.iter().copied().chain([frame]).map(id).collect();
    let counting = ids.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1));
    let fixed = ids.windows(2).all(|pair| pair[1] == pair[0]) && frame[h.network + 6] & 0x40 != 0;
    template(first) == template(frame)
        && sequence(frame) == sequence(last).wrapping_add(payload(last) as u32)
        && payload(frame) <= payload(first)
        && h.payload - h.network + total + payload(frame) <= 65_535
        && (h.ipv6 || counting || fixed)
}

impl Oracle {
    pub fn new(ipv4: bool, ipv6: bool, ecn: bool) -> Self {
        Self {
            open: [const { None }; CONTEXTS],
            packets: vec![],
            key: bits(0),
            ecn,
            ipv4,
            ipv6,
        }
    }

    fn close(&mut self, at: usize) {
        self.packets.extend(self.open[at].take().map(|open| open.frames));
    }

    /// All packets, with those that are open.
    pub fn finish(mut self) -> Vec<Vec<usize>> {
        (0..CONTEXTS).for_each(|at| self.close(at));
        self.packets
    }

    /// The frame of that number comes in.
    pub fn frame(&mut self, frames: &[Frame], number: usize) {
        let frame = &frames[number];
        if frame.meta.any_flow || frame.meta.key != self.key {
            (0..CONTEXTS).for_each(|at| self.close(at));
        }
        self.key = frame.meta.key;
        let Some(flow) = frame.flow else {
            return self.packets.push(vec![number]);
        };
        let hit = |open: &Option<Open>| open.as_ref().is_some_and(|open| open.flow == flow);
        let enabled = if frame.meta.ipv6 { self.ipv6 } else { self.ipv4 };
        let mergeable = frame.meta.gro && enabled;
        let own = self.open.iter().position(hit);
        if let Some(at) = own {
            let open = self.open[at].as_mut().expect("it was found");
            let packet: Vec<&[u8]> = open.frames.iter().map(|&n| &frames[n].bytes[..]).collect();
            if mergeable && continues(&packet, &frame.bytes) {
                let shorter = payload(&frame.bytes) < payload(packet[0]);
                open.frames.push(number);
                open.touched = number;
                if frame.meta.closes || shorter {
                    self.close(at);
                }
                return;
            }
            self.close(at);
        }
        let congestion = mergeable && frame.bytes[Headers::of(&frame.bytes).transport + 13] & ECE != 0;
        if !mergeable || frame.meta.closes {
            return self.packets.push(vec![number]);
        }
        if self.open.iter().all(Option::is_some) {
            let oldest = (0..CONTEXTS).min_by_key(|&at| self.open[at].as_ref().map(|open| open.touched));
            self.close(oldest.expect("eight"));
        }
        if congestion && !self.ecn {
            return self.packets.push(vec![number]);
        }
        // Which place it is matters for the order in which all are completed.
        let free = own
            .or_else(|| self.open.iter().position(Option::is_none))
            .expect("made room");
        self.open[free] = Some(Open {
            flow,
            frames: vec![number],
            touched: number,
        });
    }
}
