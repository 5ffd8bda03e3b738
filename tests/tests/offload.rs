//! Checksums and segments of the card, from the driver's network device to the wire: against the stack's own software.

use anyhow::{Context, Result, ensure};
use etherparse::PacketBuilder;
use hematite_abi::counter;
use hematite_netstack::{
    DeviceFlags, Features, GroFlush, IfIndex, Instant, MacAddr, NetDevice, QdiscState, RtnlLinkStats64,
    SkBuff, Stack, StackConfig, TcpStream, TxBusy,
};
use hematite_sim::SimTime;
use hematite_tests::lab::{Lab, LabConfig, no_violations};
use hematite_tests::peer;
use hematite_tests::seed;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::io::ErrorKind::{NotConnected, WouldBlock};
use std::net::IpAddr;

const NOW: Instant = Instant::from_secs(10);
const ROUTER: [u8; 6] = [2, 0, 0, 0, 1, 1];
const SENDER: [u8; 6] = [2, 0, 0, 0, 1, 7];
/// Nobody on the wire has it, so the peer's stack leaves the frames alone.
const RECEIVER: [u8; 6] = [2, 0, 0, 0, 2, 7];
const ALL: Features = Features::HW_CSUM
    .union(Features::TSO)
    .union(Features::TSO6)
    .union(Features::TSO_ECN);

/// A device that keeps what the stack gives it to send.
struct Recorder {
    features: Features,
    taken: Vec<SkBuff>,
}

impl NetDevice for Recorder {
    fn name(&self) -> &str {
        "recorder"
    }
    fn mac_address(&self) -> MacAddr {
        MacAddr(ROUTER)
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
        self.taken.push(skb);
        Ok(())
    }
    fn stats(&self) -> RtnlLinkStats64 {
        RtnlLinkStats64::default()
    }
}

/// A router: what it merges of the traffic on its first link, it sends on the second as that device can.
struct Router {
    stack: Stack,
    links: [IfIndex; 2],
    devices: [Recorder; 2],
}

impl Router {
    fn new(features: Features) -> Result<Self> {
        let config = StackConfig {
            ip_forward: true,
            ipv6_forwarding: true,
            disable_ipv6: false,
            ..StackConfig::default()
        };
        let mut stack = Stack::new(config, 1);
        let devices = [Features::empty(), features].map(|features| Recorder {
            features,
            taken: vec![],
        });
        let links = [0, 1].map(|n| stack.add_interface(&devices[n]));
        for (n, link) in links.into_iter().enumerate() {
            let n = n + 1;
            stack.add_address(link, format!("10.0.{n}.1/24").parse().context("address")?)?;
            stack.add_ipv6_address(link, format!("2001:db8:{n}::1/64").parse().context("address")?)?;
        }
        for ms in (0..=10_000).step_by(50) {
            stack.poll(Instant::from_millis(ms));
        }
        for ip in ["10.0.2.7", "2001:db8:2::7"] {
            let ip: IpAddr = ip.parse()?;
            stack.add_neighbour(links[1], ip, RECEIVER.into())?;
        }
        let mut router = Router {
            stack,
            links,
            devices,
        };
        router.sent();
        Ok(router)
    }

    fn sent(&mut self) -> Vec<SkBuff> {
        for (link, device) in self.links.into_iter().zip(&mut self.devices) {
            while self.stack.qdisc_run(link, device, NOW).state == QdiscState::Quota {}
        }
        std::mem::take(&mut self.devices[1].taken)
    }

    /// What it makes of segments that came in together.
    fn forward(&mut self, segments: &[Vec<u8>]) -> Vec<SkBuff> {
        for segment in segments {
            self.stack
                .napi_gro_receive(self.links[0], SkBuff::from_slice(segment), NOW);
        }
        self.stack.napi_gro_flush(self.links[0], 0, GroFlush::All, NOW);
        self.sent()
    }
}

/// The segments of one packet: IPv4 with identifications counting up, or IPv6.
fn segments(rng: &mut ChaCha8Rng) -> Vec<Vec<u8>> {
    let ipv6: bool = rng.random();
    let (id, sequence, ack): (u16, u32, u32) = (rng.random(), rng.random(), rng.random());
    let options: Vec<u8> = if rng.random() {
        // Timestamps, which are the same in all.
        [&[1, 1, 8, 10][..], &rng.random::<[u8; 8]>()].concat()
    } else {
        vec![]
    };
    let most = 1500 - if ipv6 { 40 } else { 20 } - 20 - options.len();
    let size = [most, rng.random_range(1..most), rng.random_range(1..40)][rng.random_range(0..3)];
    let count = rng.random_range(1..=(60_000 / size).min(44));
    (0..count)
        .map(|n| {
            let last = n + 1 == count;
            let len = if last { rng.random_range(1..=size) } else { size };
            let payload: Vec<u8> = (0..len).map(|_| rng.random()).collect();
            let builder = PacketBuilder::ethernet2(SENDER, ROUTER);
            let builder = if ipv6 {
                builder.ip(etherparse::IpHeaders::Ipv6(
                    etherparse::Ipv6Header {
                        source: "2001:db8:1::7"
                            .parse::<std::net::Ipv6Addr>()
                            .expect("valid")
                            .octets(),
                        destination: "2001:db8:2::7"
                            .parse::<std::net::Ipv6Addr>()
                            .expect("valid")
                            .octets(),
                        hop_limit: 60,
                        ..Default::default()
                    },
                    Default::default(),
                ))
            } else {
                builder.ip(etherparse::IpHeaders::Ipv4(
                    etherparse::Ipv4Header {
                        source: [10, 0, 1, 7],
                        destination: [10, 0, 2, 7],
                        time_to_live: 60,
                        dont_fragment: true,
                        identification: id.wrapping_add(n as u16),
                        ..Default::default()
                    },
                    Default::default(),
                ))
            };
            let mut builder = builder
                .tcp(5000, 80, sequence.wrapping_add((n * size) as u32), 1000)
                .ack(ack)
                .options_raw(&options)
                .expect("they fit");
            if last {
                builder = builder.psh();
            }
            let mut frame = vec![];
            builder.write(&mut frame, &payload).expect("it fits");
            frame
        })
        .collect()
}

/// Sends packets through the driver and the card; the frames that came out at the far end, without their padding.
fn send(lab: &mut Lab, packets: Vec<SkBuff>) -> Result<Vec<Vec<u8>>> {
    lab.host.machine().borrow_mut().wire.endpoint.record = Some(vec![]);
    for skb in packets {
        let mut refused = lab.host.net.start_xmit(skb).err();
        while let Some(TxBusy(skb)) = refused {
            let until = lab.host.now() + SimTime::from_us(50);
            lab.host.run_until(until)?;
            refused = lab.host.net.start_xmit(skb).err();
        }
    }
    lab.host.net.xmit_flush();
    let mut before = usize::MAX;
    loop {
        let until = lab.host.now() + SimTime::from_us(100);
        lab.host.run_until(until)?;
        let machine = lab.host.machine().borrow();
        let frames = machine.wire.endpoint.record.as_ref().context("recorded")?.len();
        if frames == before {
            break;
        }
        before = frames;
    }
    let record = lab.host.machine().borrow_mut().wire.endpoint.record.take();
    let to_receiver = |frame: &Vec<u8>| frame[..6] == RECEIVER;
    Ok(record
        .context("recorded")?
        .into_iter()
        .filter(to_receiver)
        .collect())
}

#[test]
fn the_card_cuts_as_the_stack_does() -> Result<()> {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut lab = LabConfig::new(seed).bring_up()?;
    ensure!(
        lab.host.net.features().contains(ALL),
        "{:?}",
        lab.host.net.features()
    );
    let (mut by_software, mut by_card) = (Router::new(Features::empty())?, Router::new(ALL)?);
    let (mut cut, mut frames) = (0, 0);
    for _ in 0..25 {
        let segments = segments(&mut rng);
        let expected: Vec<_> = by_software.forward(&segments);
        let packets = by_card.forward(&segments);
        cut += packets.iter().filter(|skb| skb.gso().is_some()).count() as u64;
        let got = send(&mut lab, packets)?;
        ensure!(
            got.len() == expected.len(),
            "{} of {} frames",
            got.len(),
            expected.len()
        );
        for (n, (got, expected)) in got.iter().zip(&expected).enumerate() {
            let (got, padding) = got.split_at(expected.len());
            ensure!(got == expected.data(), "frame {n} of {}", segments.len());
            ensure!(padding.iter().all(|&byte| byte == 0), "padding");
        }
        frames += got.len() as u64;
    }
    let counters = lab.counters()?;
    ensure!(
        cut > 5 && counters.get(counter::TX_TSO_PACKETS) == cut,
        "{counters:?}"
    );
    ensure!(counters.get(counter::TX_BAD_OFFLOAD) == 0, "{counters:?}");
    ensure!(counters.get(counter::TX_GOOD) >= frames, "{counters:?}");
    no_violations(lab.host.machine())
}

#[test]
fn datagrams_leave_their_checksums_to_the_card_until_it_is_told_otherwise() -> Result<()> {
    let mut lab = LabConfig::new(seed()).bring_up()?;
    lab.exchange(200)?;
    let with = lab.counters()?.get(counter::TX_CSUM);
    ensure!(with >= 200, "{with}");
    lab.host.net.set_features(Features::empty())?;
    let ifindex = lab.host.ifindex();
    lab.host.stack.netdev_change(ifindex, &lab.host.net)?;
    lab.exchange(200)?;
    let without = lab.counters()?.get(counter::TX_CSUM);
    ensure!(without == with, "{without}");
    lab.check()
}

#[test]
fn a_stream_leaves_in_packets_that_the_card_cuts() -> Result<()> {
    const TOTAL: u64 = 300_000;
    let mut lab = LabConfig::new(seed()).bring_up()?;
    let stream = TcpStream::connect(&mut lab.host.stack, (peer::ADDRESS, peer::DISCARD_PORT))?;
    let end = lab.host.now() + SimTime::from_ms(200);
    let received = |lab: &Lab| lab.host.machine().borrow().wire.endpoint.discard().received;
    let mut sent = 0;
    while received(&lab) < TOTAL {
        let chunk: Vec<u8> = (sent..TOTAL.min(sent + 32_768)).map(peer::stream_byte).collect();
        match stream.write(&mut lab.host.stack, &chunk) {
            Ok(len) => sent += len as u64,
            Err(error) if error.kind() == WouldBlock => {}
            // Not connected yet.
            Err(error) if error.kind() == NotConnected => {}
            Err(error) => return Err(error.into()),
        }
        lab.host.flush()?;
        let until = lab.host.now() + SimTime::from_us(50);
        lab.host.advance(until)?;
        ensure!(lab.host.now() < end, "{} of {TOTAL} octets", received(&lab));
    }
    let counters = lab.counters()?;
    let [packets, segments] =
        [counter::TX_TSO_PACKETS, counter::TX_TSO_SEGMENTS].map(|index| counters.get(index));
    ensure!(
        segments * 1460 > TOTAL / 2,
        "{segments} segments of {packets} packets"
    );
    ensure!(lab.host.machine().borrow().wire.endpoint.discard().corrupt == 0);
    stream.close(&mut lab.host.stack);
    lab.check()
}
