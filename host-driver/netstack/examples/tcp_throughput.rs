//! Throughput of one TCP connection in memory, MTU 1500, both ends on one core: this stack and smoltcp.
//!
//! ```text
//! cargo run --release --example tcp_throughput                   both, and their ratio
//! cargo run --release --example tcp_throughput ours 64           64 MiB, no clock: for callgrind
//! cargo run --release --example tcp_throughput ours-offload 64   the device makes and verifies checksums
//! cargo run --release --example tcp_throughput smoltcp 64
//! cargo run --release --example tcp_throughput idle 10000        with so many idle connections beside
//! ```
//! Instructions for a data segment are the difference of two runs of different size, divided by the
//! difference of their segments (`valgrind --tool=callgrind`): start-up cancels out.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant as WallClock};

use hematite_netstack::{
    DeviceFlags, Features, GroFlush, IfIndex, Instant, IpSummed, MacAddr, NetDevice, QdiscState,
    RtnlLinkStats64, SkBuff, SkbPool, Stack, StackConfig, TcpListener, TcpStream, TxBusy,
};

const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const CHUNK: usize = 64 * 1024;

/// A card whose ring the other host's driver reads: nothing is copied, as with DMA.
struct Card {
    mac: MacAddr,
    features: Features,
    ring: VecDeque<SkBuff>,
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
        self.ring.push_back(skb);
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
            ring: VecDeque::new(),
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

/// Moves what one host sends to the other; frames moved.
fn wire(from: &mut Host, to: &mut Host, now: Instant, offload: bool) -> usize {
    let mut moved = 0;
    loop {
        let run = from.stack.qdisc_run(from.ifindex, &mut from.card, now);
        while let Some(mut skb) = from.card.ring.pop_front() {
            skb.orphan();
            // The driver of the other host has a buffer for each one that the wire takes from this.
            if let Some(buffer) = to.stack.skb_pool().alloc(skb.capacity()) {
                from.card.done.push(buffer);
            }
            let summed = if offload {
                IpSummed::Unnecessary
            } else {
                IpSummed::None
            };
            let mut received = skb;
            received.set_ip_summed(summed);
            to.stack.napi_gro_receive(to.ifindex, received, now);
            moved += 1;
        }
        to.stack.napi_gro_flush(to.ifindex, 0, GroFlush::All, now);
        if run.state == QdiscState::Empty {
            return moved;
        }
    }
}

fn ours(total: usize, offload: bool, idle: usize) -> Duration {
    let features = if offload {
        Features::HW_CSUM
    } else {
        Features::empty()
    };
    let (mut a, mut b) = (Host::new(1, features), Host::new(2, features));
    let mut now = Instant::from_secs(1);
    let mut tick = |a: &mut Host, b: &mut Host| {
        now = now + Duration::from_micros(10);
        a.stack.poll(now);
        b.stack.poll(now);
        while wire(a, b, now, offload) + wire(b, a, now, offload) > 0 {}
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
    let (data, mut buf) = (vec![0x5a; CHUNK], vec![0; CHUNK]);
    let (mut sent, mut got) = (0, 0);
    let start = WallClock::now();
    while got < total {
        // One piece at a time, as an application writes, so that what is in flight stays in the cache.
        if sent < total {
            sent += client
                .write(&mut a.stack, &data[..CHUNK.min(total - sent)])
                .unwrap_or(0);
        }
        tick(&mut a, &mut b);
        while let Ok(n) = server.read(&mut b.stack, &mut buf) {
            got += n;
        }
    }
    let elapsed = start.elapsed();
    let (tx, rx) = (a.stack.snmp(), b.stack.snmp());
    eprintln!(
        "  segments out {} in {}, fast path {} + {}, retransmitted {}",
        tx.tcp.out_segs, tx.tcp.in_segs, rx.tcp_ext.hp_hits, tx.tcp_ext.hp_acks, tx.tcp.retrans_segs
    );
    elapsed
}

mod smol {
    use super::*;
    use smoltcp::iface::{Config, Interface, SocketSet};
    use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
    use smoltcp::socket::tcp;
    use smoltcp::time::Instant;
    use smoltcp::wire::{EthernetAddress, IpCidr};

    #[derive(Default)]
    struct Port {
        rx: VecDeque<Vec<u8>>,
        tx: VecDeque<Vec<u8>>,
        free: Vec<Vec<u8>>,
    }

    struct Rx<'a>(Vec<u8>, &'a mut Vec<Vec<u8>>);
    impl RxToken for Rx<'_> {
        fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
            let result = f(&self.0);
            self.1.push(self.0);
            result
        }
    }
    struct Tx<'a>(Option<Vec<u8>>, &'a mut VecDeque<Vec<u8>>);
    impl TxToken for Tx<'_> {
        fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
            let mut frame = self.0.unwrap_or_default();
            frame.resize(len, 0);
            let result = f(&mut frame);
            self.1.push_back(frame);
            result
        }
    }
    impl Device for Port {
        type RxToken<'a> = Rx<'a>;
        type TxToken<'a> = Tx<'a>;
        fn receive(&mut self, _: Instant) -> Option<(Rx<'_>, Tx<'_>)> {
            let frame = self.rx.pop_front()?;
            let spare = self.free.pop();
            Some((Rx(frame, &mut self.free), Tx(spare, &mut self.tx)))
        }
        fn transmit(&mut self, _: Instant) -> Option<Tx<'_>> {
            Some(Tx(self.free.pop(), &mut self.tx))
        }
        fn capabilities(&self) -> DeviceCapabilities {
            let mut caps = DeviceCapabilities::default();
            caps.max_transmission_unit = 1514;
            caps.medium = Medium::Ethernet;
            caps
        }
    }

    pub fn run(total: usize) -> Duration {
        let mut ports = [Port::default(), Port::default()];
        let mut ifaces = [1u8, 2].map(|n| {
            let config = Config::new(EthernetAddress([2, 0, 0, 0, 0, n]).into());
            let mut iface = Interface::new(config, &mut ports[0], Instant::ZERO);
            iface.update_ip_addrs(|a| {
                a.push(IpCidr::new(Ipv4Addr::new(10, 0, 0, n).into(), 24))
                    .expect("room")
            });
            iface
        });
        let ring = || tcp::SocketBuffer::new(vec![0; 1 << 20]);
        let mut sets = [SocketSet::new(vec![]), SocketSet::new(vec![])];
        let handles = [0, 1].map(|n| sets[n].add(tcp::Socket::new(ring(), ring())));
        sets[1]
            .get_mut::<tcp::Socket>(handles[1])
            .listen(80)
            .expect("a port");
        let cx = ifaces[0].context();
        sets[0]
            .get_mut::<tcp::Socket>(handles[0])
            .connect(cx, (B, 80), 40_000)
            .expect("a route");
        let (data, mut buf) = (vec![0x5a; CHUNK], vec![0; CHUNK]);
        let (mut sent, mut got, mut us) = (0, 0, 0);
        let start = WallClock::now();
        while got < total {
            us += 10;
            let socket = sets[0].get_mut::<tcp::Socket>(handles[0]);
            while socket.can_send() && sent < total {
                sent += socket.send_slice(&data[..CHUNK.min(total - sent)]).expect("open");
            }
            for n in 0..2 {
                ifaces[n].poll(Instant::from_micros(us), &mut ports[n], &mut sets[n]);
                let frames: Vec<_> = ports[n].tx.drain(..).collect();
                ports[1 - n].rx.extend(frames);
                let spare = ports[1 - n].free.split_off(0);
                ports[n].free.extend(spare);
            }
            let socket = sets[1].get_mut::<tcp::Socket>(handles[1]);
            while socket.can_recv() {
                got += socket.recv_slice(&mut buf).expect("open");
            }
        }
        start.elapsed()
    }
}

fn gbits(total: usize, time: Duration) -> f64 {
    total as f64 * 8.0 / time.as_secs_f64() / 1e9
}

fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let number = args.get(1).and_then(|n| n.parse::<usize>().ok());
    let mib = |n: Option<usize>| n.unwrap_or(64) << 20;
    match args.first().map(String::as_str) {
        Some("ours") => _ = ours(mib(number), false, 0),
        Some("ours-offload") => _ = ours(mib(number), true, 0),
        Some("smoltcp") => _ = smol::run(mib(number)),
        Some("idle") => {
            let (total, idle) = (1 << 30, number.unwrap_or(10_000));
            let (alone, beside) = (ours(total, false, 0), ours(total, false, idle));
            println!(
                "alone {:.2} Gbit/s, beside {idle} idle connections {:.2} Gbit/s",
                gbits(total, alone),
                gbits(total, beside)
            );
        }
        _ => {
            let total = 1 << 30;
            let best = |f: &dyn Fn() -> Duration| (0..3).map(|_| f()).min().unwrap_or_default();
            let (we, smoltcp) = (best(&|| ours(total, false, 0)), best(&|| smol::run(total)));
            let offload = best(&|| ours(total, true, 0));
            println!("this stack {:.2} Gbit/s", gbits(total, we));
            println!(
                "this stack, checksums offloaded {:.2} Gbit/s",
                gbits(total, offload)
            );
            println!("smoltcp {:.2} Gbit/s", gbits(total, smoltcp));
            println!("ratio {:.2}", smoltcp.as_secs_f64() / we.as_secs_f64());
        }
    }
}
