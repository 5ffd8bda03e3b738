//! What the engine tells of packets, for the counters of queues.

use std::collections::VecDeque;

use hematite_nic::statistics::ReceivedPacket;
use hematite_testbench::{Agent, Bench, Error, Handle, Pin, slice_of};
use hematite_verilator::Model;

use super::frames::Frame;

/// Packets that the engine told of and the host has not taken.
pub struct Told {
    valid: Pin,
    packet: Pin,
    packets: VecDeque<u128>,
}

fn field(packet: u128, name: &str) -> u64 {
    let slice = slice_of::<ReceivedPacket>(name);
    let ends = slice.trim_matches(['[', ']']).split_once(':');
    let (high, low) = ends.expect("two ends");
    let (high, low): (u32, u32) = (high.parse().expect("a bit"), low.parse().expect("a bit"));
    (packet >> low) as u64 & ((1 << (high - low + 1)) - 1)
}

impl Told {
    pub fn attach(bench: &mut Bench) -> Result<Handle<Self>, Error> {
        let told = Told {
            valid: bench.pin("passed_valid")?,
            packet: bench.pin("passed")?,
            packets: VecDeque::new(),
        };
        bench.attach("clock", told)
    }

    /// What was told of the packet that the host took next: header and bytes, made of the frames `sent`.
    pub fn check(&mut self, packet: &[u8], sent: &[&[u8]], first: &Frame) {
        let told = self.packets.pop_front().expect("it was told");
        let (bytes, joined) = (packet.len() as u64 - 12, sent.len() as u64 - 1);
        assert_eq!((field(told, "bytes"), field(told, "joined")), (bytes, joined));
        let verdict = match packet[0] & 3 {
            2 => 0,
            1 => 1,
            _ if first.meta.checksum_bad => 3,
            _ => 2,
        };
        assert_eq!(field(told, "verdict"), verdict);
        if joined > 0 {
            let wire: usize = sent.iter().map(|frame| frame.len()).sum();
            assert_eq!(bytes + joined * field(told, "headers"), wire as u64);
        }
    }
}

impl Agent for Told {
    fn sample(&mut self, model: &Model, _: u64) -> Result<(), Error> {
        if self.valid.get(model) != 0 {
            self.packets.push_back(self.packet.get(model));
        }
        Ok(())
    }

    fn drive(&mut self, _: &mut Model, _: bool) {}
}
