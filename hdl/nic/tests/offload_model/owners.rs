//! Whose packets go in, and what is told of frames and drops for the counters of queues.

use std::collections::VecDeque;

use hematite_nic::statistics::{DroppedPacket, SentFrame};
use hematite_testbench::{Agent, Bench, Error, Handle, Pin, slice_of};
use hematite_verilator::Model;

use super::{Refusal, Request};

/// The queue of a packet, and whether its error is not its driver's fault.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    pub queue: u8,
    pub lost: bool,
}

/// Queue, bytes, checksum, segment, first, last; and with the last two of a segment the packet's bytes.
type Frame = (u64, u64, bool, bool, bool, bool, Option<u64>);

/// Says whose packet the next beat is of, and collects what is told.
pub struct Owners {
    queue: Pin,
    lost: Pin,
    /// `valid`, `ready` and `last` of the packets.
    packet: [Pin; 3],
    sends: Pin,
    sent: Pin,
    drops: [Pin; 2],
    next: VecDeque<Owner>,
    frames: Vec<Frame>,
    dropped: Vec<(u64, bool)>,
    expected: Vec<Frame>,
    expected_drops: Vec<(u64, bool)>,
}

/// A field of a value of a struct: where it lies is what [`slice_of`] says.
fn field(value: u128, slice: &str) -> u64 {
    let (high, low) = slice.trim_matches(['[', ']']).split_once(':').expect("two ends");
    let (high, low): (u32, u32) = (high.parse().expect("a bit"), low.parse().expect("a bit"));
    (value >> low) as u64 & ((1 << (high - low + 1)) - 1)
}

impl Owners {
    pub fn attach(bench: &mut Bench) -> Result<Handle<Self>, Error> {
        let owners = Owners {
            queue: bench.pin("packet_queue")?,
            lost: bench.pin("packet_lost")?,
            packet: [
                bench.pin("packet_valid")?,
                bench.pin("packet_ready")?,
                bench.pin("packet_last")?,
            ],
            sends: bench.pin("tx_sent")?,
            sent: bench.pin("sent")?,
            drops: [bench.pin("dropped_0")?, bench.pin("dropped_1")?],
            next: VecDeque::new(),
            frames: vec![],
            dropped: vec![],
            expected: vec![],
            expected_drops: vec![],
        };
        bench.attach("clock", owners)
    }

    /// The packet after those so far is this queue's: `frames` come of its `length` bytes without header, of which a
    /// frame may have `most`.
    pub fn expect(
        &mut self,
        owner: Owner,
        (length, most): (usize, usize),
        request: &Request,
        frames: &[Vec<u8>],
        refused: Option<Refusal>,
    ) {
        self.next.push_back(owner);
        let (queue, segment) = (u64::from(owner.queue), request.gso_type != 0);
        for (n, frame) in frames.iter().enumerate() {
            let last = n + 1 == frames.len() && refused.is_none();
            self.expected.push((
                queue,
                frame.len() as u64,
                request.flags & 1 != 0,
                segment,
                n == 0,
                last,
                (segment && last).then_some(length as u64),
            ));
        }
        if let Some(why) = refused {
            // What is too long is so before it ends.
            let long = !segment && length > most;
            let blamed = matches!(why, Refusal::Offload) || long || !owner.lost;
            self.expected_drops.push((queue, blamed));
        }
    }

    /// All that was to be told was, and nothing else. Drops before the last step and in it may change places.
    pub fn check(&mut self) {
        assert_eq!(self.frames, self.expected);
        self.dropped.sort_unstable();
        self.expected_drops.sort_unstable();
        assert_eq!(self.dropped, self.expected_drops);
    }
}

impl Agent for Owners {
    fn sample(&mut self, model: &Model, _: u64) -> Result<(), Error> {
        if self.packet.iter().all(|pin| pin.get(model) != 0) {
            self.next.pop_front();
        }
        if self.sends.get(model) != 0 {
            let sent = self.sent.get(model);
            let of = |name| field(sent, &slice_of::<SentFrame>(name));
            let flag = |name| of(name) != 0;
            let (segment, last) = (flag("segment"), flag("last"));
            self.frames.push((
                of("queue"),
                of("bytes"),
                flag("checksum"),
                segment,
                flag("first"),
                last,
                (segment && last).then_some(of("packet_bytes")),
            ));
        }
        for pin in self.drops {
            let drop = pin.get(model);
            let of = |name| field(drop, &slice_of::<DroppedPacket>(name));
            if of("valid") != 0 {
                self.dropped.push((of("queue"), of("special") != 0));
            }
        }
        Ok(())
    }

    fn drive(&mut self, model: &mut Model, _: bool) {
        if let Some(owner) = self.next.front() {
            self.queue.set(model, owner.queue.into());
            self.lost.set(model, owner.lost.into());
        }
    }
}
