//! Hardware and software GRO have the same rules: the oracle that the card's receive engine is held against
//! (`hdl/nic/tests/queue_gro`) says of thousands of traffic sets what the stack makes of them. `gro` compares the card itself
//! with the stack, on fewer frames.

#[allow(dead_code)] // More is for the engine's own tests.
#[path = "../../hdl/nic/tests/queue_gro/frames.rs"]
mod frames;
#[path = "../../hdl/nic/tests/queue_gro/oracle.rs"]
mod oracle;

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver};

use frames::{Flow, Frame, Headers};
use hematite_netstack::{
    DeviceFlags, GroFlush, IfIndex, Instant, MacAddr, NetDevice, PktType, RtnlLinkStats64, SkBuff, Stack,
    StackConfig, TapPacket, TxBusy,
};
use hematite_testbench::{Rng, cases};
use oracle::Oracle;
use rand::RngExt;

/// Traffic sets.
const SETS: usize = 2000;
/// Contexts of the card. The stack has more.
const CONTEXTS: usize = 8;
/// Next header, protocol.
const TCP: u8 = 6;

/// A device that only has to be there.
struct Idle;

impl NetDevice for Idle {
    fn name(&self) -> &str {
        "idle"
    }
    fn mac_address(&self) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, 1])
    }
    fn mtu(&self) -> u32 {
        1500
    }
    fn flags(&self) -> DeviceFlags {
        DeviceFlags::UP | DeviceFlags::LOWER_UP
    }
    fn start_xmit(&mut self, _: SkBuff) -> Result<(), TxBusy> {
        Ok(())
    }
    fn stats(&self) -> RtnlLinkStats64 {
        RtnlLinkStats64::default()
    }
}

/// A stack and what it takes up, merged.
struct Software {
    stack: Stack,
    link: IfIndex,
    packets: Receiver<Vec<u8>>,
}

impl Software {
    fn new() -> Self {
        let mut stack = Stack::new(StackConfig::default(), 1);
        let link = stack.add_interface(&Idle);
        let (give, packets) = mpsc::channel();
        stack.add_tap(move |packet: &TapPacket<'_>| {
            if packet.pkt_type != PktType::Outgoing {
                let _ = give.send(packet.data.to_vec());
            }
        });
        Self { stack, link, packets }
    }

    /// The packets of frames that come in one poll.
    fn merge(&mut self, frames: &[Frame]) -> Vec<Vec<u8>> {
        let now = Instant::from_secs(1);
        for frame in frames {
            self.stack
                .napi_gro_receive(self.link, SkBuff::from_slice(&frame.bytes), now);
        }
        self.stack.napi_gro_flush(self.link, 0, GroFlush::All, now);
        self.packets.try_iter().collect()
    }
}

/// What tells flows apart: addresses and ports.
fn key(frame: &[u8]) -> Vec<u8> {
    let headers = Headers::of(frame);
    frame[headers.addresses().start..headers.transport + 4].to_vec()
}

/// Frames that break every rule of merging, but for what the two are to see differently: no VLAN tags, no frames that
/// may be of any flow, no flows beyond the contexts; and but for the one checksum that the card takes for none.
fn traffic(rng: &mut Rng) -> Vec<Frame> {
    let longest = [8, 100, 300][rng.random_range(0..3)];
    let mut flows: Vec<Flow> = (0..rng.random_range(1..=6))
        .map(|n| Flow::random(n, longest, rng))
        .collect();
    let trouble = [0.0, 0.1, 0.3, 1.0][rng.random_range(0..4)];
    let burst = rng.random_range(1..8);
    let mut frames: Vec<Frame> = vec![];
    let mut numbers = BTreeMap::new();
    for _ in 0..rng.random_range(4..24) {
        let at = rng.random_range(0..flows.len());
        for _ in 0..rng.random_range(1..=burst) {
            let mut frame = flows[at].frame(trouble, longest, rng);
            let headers = Headers::of(&frame.bytes);
            let protocol = frame.bytes[headers.network + if headers.ipv6 { 6 } else { 9 }];
            let checksum = &frame.bytes[headers.transport + 16..][..2];
            if headers.network != 14 || frame.flow.is_none() || protocol != TCP || checksum == [0xff; 2] {
                continue;
            }
            // Trouble with an address makes another flow.
            let number = numbers.len();
            let number = *numbers.entry(key(&frame.bytes)).or_insert(number);
            if number < CONTEXTS {
                frame.flow = Some(number);
                frames.push(frame);
            }
        }
    }
    frames
}

#[test]
fn n14_card_and_stack_have_the_same_rules() {
    let mut software = Software::new();
    let (mut sets, mut merged) = (0, 0);
    cases(SETS, |rng| {
        let frames = traffic(rng);
        let mut oracle = Oracle::new(true, true, true);
        for number in 0..frames.len() {
            oracle.frame(&frames, number);
        }
        // What is still open is complete when the poll ends.
        let expected = oracle.finish();
        let mut got = BTreeMap::<_, Vec<Vec<u8>>>::new();
        for packet in software.merge(&frames) {
            got.entry(key(&packet)).or_default().push(packet);
        }
        let mut left = got.values().map(Vec::len).sum::<usize>();
        assert_eq!(left, expected.len(), "packets of {} frames", frames.len());
        let mut next = BTreeMap::<_, usize>::new();
        for numbers in expected {
            let sent: Vec<&[u8]> = numbers.iter().map(|&n| &frames[n].bytes[..]).collect();
            let flow = key(sent[0]);
            let place = next.entry(flow.clone()).or_default();
            let packet = got.get(&flow).and_then(|packets| packets.get(*place));
            let packet = packet.expect("a packet of that flow");
            *place += 1;
            left -= 1;
            if let [frame] = sent[..] {
                assert_eq!(packet, frame, "a frame by itself");
                continue;
            }
            let payload = |bytes: &[u8]| bytes[Headers::of(bytes).payload..].to_vec();
            let joined: Vec<u8> = sent.iter().flat_map(|frame| payload(frame)).collect();
            assert_eq!(payload(packet), joined, "{} segments", sent.len());
            merged += 1;
        }
        assert_eq!(left, 0);
        sets += 1;
        Ok(())
    });
    println!("{sets} sets, {merged} packets of several segments");
    assert!(sets < SETS || merged > SETS);
}
