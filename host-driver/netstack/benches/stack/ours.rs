//! This stack: two hosts, and a wire between their cards.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant as WallClock};

use hematite_netstack::{
    DeviceFlags, Features, GroFlush, IfIndex, Instant, IpSummed, MacAddr, NetDevice, QdiscState,
    RtnlLinkStats64, SkBuff, SkbPool, Stack, StackConfig, TcpListener, TcpStream, TxBusy,
};

use crate::{Meter, Transfer};

const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// Bytes that the program writes at once: what is in flight stays in the cache.
pub const CHUNK: usize = 64 * 1024;
/// What a socket may have on its way, in bytes.
pub const SEND_BUFFER: usize = 256 * 1024;
/// In front of a received frame, so that the IP header is aligned (`NET_IP_ALIGN`).
const NET_IP_ALIGN: usize = 2;

/// What the cards do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offload {
    /// They gather packets from pieces.
    None,
    /// They also make and verify checksums.
    Checksum,
    /// They also cut packets into segments (TSO) and merge segments into packets (receive offload).
    Segmentation,
}

impl Offload {
    fn features(self) -> Features {
        let checksum = Features::SG | Features::HW_CSUM | Features::RXCSUM;
        match self {
            Self::None => Features::SG,
            Self::Checksum => checksum,
            Self::Segmentation => checksum | Features::TSO,
        }
    }
}

/// A card and its driver.
struct Card {
    mac: MacAddr,
    features: Features,
    ring: Vec<SkBuff>,
    done: Vec<SkBuff>,
}

impl NetDevice for Card {
    fn name(&self) -> &str {
        "mem0"
    }
    fn mac_address(&self) -> MacAddr {
        self.mac
    }
    fn mtu(&self) -> u32 {
        1500
    }
    fn flags(&self) -> DeviceFlags {
        DeviceFlags::UP | DeviceFlags::LOWER_UP | DeviceFlags::BROADCAST | DeviceFlags::MULTICAST
    }
    fn features(&self) -> Features {
        self.features
    }
    fn start_xmit(&mut self, skb: SkBuff) -> Result<(), TxBusy> {
        self.ring.push(skb);
        Ok(())
    }
    fn reclaim(&mut self, pool: &mut SkbPool) {
        for skb in self.done.drain(..) {
            pool.recycle(skb);
        }
    }
    fn stats(&self) -> RtnlLinkStats64 {
        RtnlLinkStats64::default()
    }
}

struct Host {
    stack: Stack,
    card: Card,
    ifindex: IfIndex,
}

impl Host {
    fn new(n: u8, features: Features) -> Self {
        let mut stack = Stack::new(StackConfig::default(), n.into());
        let card = Card {
            mac: [2, 0, 0, 0, 0, n].into(),
            features,
            ring: Vec::new(),
            done: Vec::new(),
        };
        let ifindex = stack.add_interface(&card);
        let address = format!("10.0.0.{n}/24");
        stack
            .add_address(ifindex, address.parse().expect("an address"))
            .expect("a new address");
        Self { stack, card, ifindex }
    }
}

/// What hardware does: reads the pieces of packets from one host's memory, writes them to buffers of the other's.
#[inline(never)]
fn dma(from: &[SkBuff], to: &mut [SkBuff]) -> Duration {
    let start = WallClock::now();
    for (from, to) in from.iter().zip(to) {
        let room = to.put(from.len()).expect("a buffer that is large enough");
        from.copy_bits(0, room);
    }
    start.elapsed()
}

/// The wire, both ways.
struct Wire {
    offload: Offload,
    /// Buffers that the receiver has posted.
    posted: Vec<SkBuff>,
    /// Time that was the hardware's.
    dma: Duration,
}

impl Wire {
    /// Moves what one host sends to the other; frames moved.
    fn carry(&mut self, from: &mut Host, to: &mut Host, now: Instant) -> usize {
        let mut moved = 0;
        loop {
            let run = from.stack.qdisc_run(from.ifindex, &mut from.card, now);
            if from.card.ring.is_empty() {
                return moved;
            }
            for skb in &from.card.ring {
                let buffer = to.stack.skb_pool().alloc(NET_IP_ALIGN + skb.len());
                let mut buffer = buffer.expect("memory");
                buffer.reserve(NET_IP_ALIGN).expect("an empty buffer");
                self.posted.push(buffer);
            }
            self.dma += dma(&from.card.ring, &mut self.posted);
            for (skb, mut received) in from.card.ring.drain(..).zip(self.posted.drain(..)) {
                if self.offload != Offload::None {
                    received.set_ip_summed(IpSummed::Unnecessary);
                    received.set_gso(skb.gso());
                }
                from.card.done.push(skb);
                to.stack.napi_gro_receive(to.ifindex, received, now);
                moved += 1;
            }
            to.stack.napi_gro_flush(to.ifindex, 0, GroFlush::All, now);
            if run.state == QdiscState::Empty {
                return moved;
            }
        }
    }
}

/// A transfer beside idle connections.
pub fn run(bytes: usize, offload: Offload, idle: usize) -> Transfer {
    let features = offload.features();
    let (mut a, mut b) = (Host::new(1, features), Host::new(2, features));
    let mut now = Instant::from_secs(1);
    let mut wire = Wire {
        offload,
        posted: Vec::new(),
        dma: Duration::ZERO,
    };
    let mut tick = |a: &mut Host, b: &mut Host| {
        now = now + Duration::from_micros(10);
        a.stack.poll(now);
        b.stack.poll(now);
        while wire.carry(a, b, now) + wire.carry(b, a, now) > 0 {}
        wire.dma
    };
    let listener = TcpListener::bind(&mut b.stack, (B, 80)).expect("a free port");
    let mut connections = Vec::new();
    for _ in 0..=idle {
        connections.push(TcpStream::connect(&mut a.stack, (B, 80)).expect("a route"));
        tick(&mut a, &mut b);
        tick(&mut a, &mut b);
        connections.push(listener.accept(&mut b.stack).expect("a connection").0);
    }
    let (server, client) = (connections.pop().expect("ours"), connections.pop().expect("ours"));
    // No more than smoltcp's: with its own measure, which knows no end where there is no wire, both would not be compared
    // by the same use of caches.
    client
        .set_send_buffer_size(&mut a.stack, SEND_BUFFER)
        .expect("ours");
    let (data, mut buf) = (vec![0x5a; CHUNK], vec![0; CHUNK]);
    let (mut sent, mut got) = (0, 0);
    let before = a.stack.snmp().tcp.out_segs;
    let before_dma = tick(&mut a, &mut b);
    let mut meter = Meter::new();
    while got < bytes {
        // As much as the send buffer takes: what ends a write is no full segment.
        while sent < bytes
            && let Ok(n) = client.write(&mut a.stack, &data[..CHUNK.min(bytes - sent)])
        {
            sent += n;
        }
        let dma = tick(&mut a, &mut b);
        while let Ok(n) = server.read(&mut b.stack, &mut buf) {
            got += n;
        }
        meter.progress(got, dma - before_dma);
    }
    meter.finish(a.stack.snmp().tcp.out_segs - before)
}
