//! Against a model that knows frames and the rules, and by cutting every packet again.

use super::*;
use crate::core::netdevice::Features;
use crate::core::skb::test_page::TestPage;
use crate::core::skb::{Frag, GsoType, IpSummed, Page, PktType};
use crate::wire::ethernet::EtherType;
use etherparse::{PacketBuilder, TcpHeader};
use proptest::prelude::*;

/// One frame of a flow, as it can be varied.
#[derive(Debug, Clone)]
struct Frame {
    flow: u8,
    v6: bool,
    seq: u32,
    id: u16,
    df: bool,
    ttl: u8,
    tos: u8,
    ack: u32,
    window: u16,
    ts: Option<u32>,
    fin: bool,
    psh: bool,
    syn: bool,
    ece: bool,
    cwr: bool,
    urg: bool,
    bad_checksum: bool,
    padding: usize,
    src_mac: u8,
    payload: Vec<u8>,
}

impl Frame {
    fn bytes(&self) -> Vec<u8> {
        let mut tcp = TcpHeader::new(1000 + u16::from(self.flow), 80, self.seq, self.window);
        (tcp.ack, tcp.acknowledgment_number) = (true, self.ack);
        (tcp.fin, tcp.psh, tcp.syn, tcp.ece, tcp.cwr, tcp.urg) =
            (self.fin, self.psh, self.syn, self.ece, self.cwr, self.urg);
        if let Some(ts) = self.ts {
            let options = [1, 1, 8, 10]
                .into_iter()
                .chain(ts.to_be_bytes())
                .chain([0, 0, 0, 7]);
            tcp.set_options_raw(&options.collect::<Vec<u8>>()).unwrap();
        }
        let eth = PacketBuilder::ethernet2([2, 0, 0, 0, 0, self.src_mac], [2, 0, 0, 0, 0, 1]);
        let mut out = Vec::new();
        if self.v6 {
            let ip = etherparse::Ipv6Header {
                traffic_class: self.tos,
                hop_limit: self.ttl,
                source: [1; 16],
                destination: [2; 16],
                ..Default::default()
            };
            eth.ip(etherparse::IpHeaders::Ipv6(ip, Default::default()))
                .tcp_header(tcp)
                .write(&mut out, &self.payload)
                .unwrap();
        } else {
            let mut ip = etherparse::Ipv4Header::new(
                0,
                self.ttl,
                etherparse::ip_number::TCP,
                [10, 0, 0, 1],
                [10, 0, 0, 2],
            )
            .unwrap();
            ip.identification = self.id;
            ip.dont_fragment = self.df;
            ip.dscp = etherparse::IpDscp::try_new(self.tos >> 2).unwrap();
            ip.ecn = etherparse::IpEcn::try_new(self.tos & 3).unwrap();
            eth.ip(etherparse::IpHeaders::Ipv4(ip, Default::default()))
                .tcp_header(tcp)
                .write(&mut out, &self.payload)
                .unwrap();
        }
        if self.bad_checksum {
            let at = if self.v6 { 54 } else { 34 } + 16;
            out[at] ^= 0x55;
        }
        out.resize(out.len() + self.padding, 0);
        out
    }

    /// The rules again, from DESIGN's list, on what the frame was made from.
    fn alone(&self) -> bool {
        self.syn || self.urg || self.cwr || self.bad_checksum || self.padding > 0 || self.payload.is_empty()
    }

    fn closes(&self) -> bool {
        self.fin || self.psh
    }
}

/// Frames that go up as one packet.
fn model(frames: &[Frame]) -> Vec<Vec<usize>> {
    let mut done: Vec<Vec<usize>> = Vec::new();
    let mut open: Vec<Vec<usize>> = Vec::new();
    for (n, f) in frames.iter().enumerate() {
        let same_flow = |g: &Vec<usize>| frames[g[0]].flow == f.flow && frames[g[0]].v6 == f.v6;
        if let Some(at) = open.iter().position(same_flow) {
            let group = &open[at];
            let (first, last) = (&frames[group[0]], &frames[*group.last().unwrap()]);
            let count = group.len() as u16;
            let counting = |len: u16| {
                group
                    .iter()
                    .zip(0..len)
                    .all(|(&g, i)| frames[g].id == first.id.wrapping_add(i))
                    && f.id == first.id.wrapping_add(len)
            };
            let fixed = f.df && group.iter().all(|&g| frames[g].id == first.id) && f.id == first.id;
            let headers = 40 + if f.v6 { 20 } else { 0 } + if f.ts.is_some() { 12 } else { 0 };
            let total: usize =
                headers + f.payload.len() + group.iter().map(|&g| frames[g].payload.len()).sum::<usize>();
            let joins = !f.alone()
                && f.seq == last.seq.wrapping_add(last.payload.len() as u32)
                && f.payload.len() <= first.payload.len()
                && (f.ttl, f.tos, f.ack, f.window, f.ts, f.ece, f.src_mac)
                    == (
                        first.ttl,
                        first.tos,
                        first.ack,
                        first.window,
                        first.ts,
                        first.ece,
                        first.src_mac,
                    )
                && (f.v6 || f.df == first.df && (counting(count) || fixed))
                && total <= 65_535;
            if joins {
                open[at].push(n);
                if f.closes() || f.payload.len() < first.payload.len() {
                    done.push(open.remove(at));
                }
                continue;
            }
            done.push(open.remove(at));
        }
        if f.alone() || f.closes() {
            done.push(vec![n]);
        } else {
            open.push(vec![n]);
        }
    }
    done.extend(open);
    done
}

fn skb(frame: &[u8]) -> SkBuff {
    let mut skb = SkBuff::with_capacity(66 + frame.len());
    skb.reserve(66).unwrap();
    skb.put_slice(frame).unwrap();
    to_network_header(skb)
}

fn to_network_header(mut skb: SkBuff) -> SkBuff {
    let frame = skb.data();
    let ether_type = u16::from_be_bytes([frame[12], frame[13]]);
    skb.reset_mac_header();
    skb.set_protocol(EtherType(ether_type));
    skb.set_pkt_type(PktType::Host);
    skb.pull(14).unwrap();
    skb
}

/// Everything that goes up, in order.
fn run(napi: &mut NapiGro, frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<SkBuff> {
    let mut up = Vec::new();
    for frame in frames {
        let mut next = Some(SkBuff::from_slice(&frame));
        while let Some(skb) = next.take() {
            // As `napi_gro_receive`, and from the network header on if another packet had to leave first.
            let at_link = skb.mac_header().is_none();
            let gro = match if at_link { napi.receive_next(skb) } else { Err(skb) } {
                Ok(packet) => packet.map_or(Gro::Held, Gro::Deliver),
                Err(skb) if at_link => napi.receive(to_network_header(skb), Instant::ZERO),
                Err(skb) => napi.receive(skb, Instant::ZERO),
            };
            match gro {
                Gro::Held => {}
                Gro::Deliver(skb) => up.push(skb),
                Gro::Before { held, skb } => {
                    up.push(held);
                    next = Some(skb);
                }
            }
        }
    }
    while let Some(skb) = napi.flush_one(GroFlush::All, Instant::ZERO) {
        up.push(skb);
    }
    assert_eq!(napi.held, 0);
    up
}

/// Cuts a packet by the rules of segmentation (`tcp_gso_segment`), with etherparse making the headers.
fn cut(skb: &SkBuff) -> Vec<Vec<u8>> {
    let mut frame = skb.mac_header().unwrap()[..14].to_vec();
    skb.for_each_piece(|piece| frame.extend_from_slice(piece));
    let Some(gso) = skb.gso() else {
        return vec![frame];
    };
    // The packet as it stands must be whole but for the transport checksum, which is a sum of the pseudo header.
    let packet = etherparse::PacketHeaders::from_ethernet_slice(&frame).unwrap();
    let Some(etherparse::TransportHeader::Tcp(tcp)) = packet.transport else {
        panic!()
    };
    let payload = packet.payload.slice();
    assert_eq!(
        payload.len().div_ceil(usize::from(gso.size)),
        usize::from(gso.segs)
    );
    assert!(matches!(skb.ip_summed(), IpSummed::Partial { .. }));
    let pseudo = |saddr: std::net::IpAddr, daddr: std::net::IpAddr| {
        crate::core::checksum::Sum::ZERO
            .add_pseudo_header(saddr, daddr, 6, (tcp.header_len() + payload.len()) as u16)
            .folded()
    };
    let mut frames = Vec::new();
    let chunks: Vec<&[u8]> = payload.chunks(usize::from(gso.size)).collect();
    for (n, chunk) in chunks.iter().enumerate() {
        let mut tcp = tcp.clone();
        tcp.sequence_number = tcp
            .sequence_number
            .wrapping_add((n * usize::from(gso.size)) as u32);
        let last = n + 1 == chunks.len();
        (tcp.fin, tcp.psh) = (tcp.fin && last, tcp.psh && last);
        let ip = match packet.net.clone().unwrap() {
            etherparse::NetHeaders::Ipv4(mut ip, ext) => {
                assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                assert_eq!(tcp.checksum, pseudo(ip.source.into(), ip.destination.into()));
                assert_ne!(gso.kind, GsoType::TcpV6);
                if gso.kind == GsoType::TcpV4 {
                    ip.identification = ip.identification.wrapping_add(n as u16);
                }
                etherparse::IpHeaders::Ipv4(ip, ext)
            }
            etherparse::NetHeaders::Ipv6(ip, ext) => {
                assert_eq!(tcp.checksum, pseudo(ip.source.into(), ip.destination.into()));
                assert_eq!(gso.kind, GsoType::TcpV6);
                etherparse::IpHeaders::Ipv6(ip, ext)
            }
            _ => panic!(),
        };
        let Some(etherparse::LinkHeader::Ethernet2(eth)) = packet.link.clone() else {
            panic!()
        };
        let mut out = Vec::new();
        PacketBuilder::ethernet2(eth.source, eth.destination)
            .ip(ip)
            .tcp_header(tcp)
            .write(&mut out, chunk)
            .unwrap();
        frames.push(out);
    }
    frames
}

fn plain(flow: u8, seq: u32, id: u16, len: usize) -> Frame {
    Frame {
        flow,
        v6: false,
        seq,
        id,
        df: true,
        ttl: 64,
        tos: 0,
        ack: 7,
        window: 500,
        ts: Some(99),
        fin: false,
        psh: false,
        syn: false,
        ece: false,
        cwr: false,
        urg: false,
        bad_checksum: false,
        padding: 0,
        src_mac: 2,
        payload: vec![flow; len],
    }
}

/// Streams of a few flows, one after the other or interleaved, with a change here and there.
fn traffic() -> impl Strategy<Value = Vec<Frame>> {
    let step = (
        0u8..3,
        0u8..44,
        any::<u8>(),
        prop_oneof![4 => Just(1448usize), 1 => 1usize..1448, 1 => 0usize..3],
    );
    (
        any::<[(bool, bool, bool, u32, u16); 3]>(),
        proptest::collection::vec(step, 1..120),
    )
        .prop_map(|(flows, steps)| {
            let mut state = flows.map(|f| (f.3, f.4));
            let mut frames = Vec::new();
            for (flow, change, by, len) in steps {
                let (v6, df, fixed, ..) = flows[usize::from(flow)];
                let (seq, id) = &mut state[usize::from(flow)];
                let mut f = plain(flow, *seq, *id, len);
                (f.v6, f.df) = (v6, df);
                for (i, byte) in f.payload.iter_mut().enumerate() {
                    *byte = (i as u8).wrapping_mul(by);
                }
                *seq = seq.wrapping_add(len as u32);
                *id = if df && fixed { *id } else { id.wrapping_add(1) };
                match change {
                    0 => f.seq = f.seq.wrapping_add(u32::from(by)),
                    1 => f.id = f.id.wrapping_add(u16::from(by)),
                    2 => f.df = !f.df,
                    3 => f.ttl -= by % 2,
                    4 => f.tos = by,
                    5 => f.ack += u32::from(by % 2),
                    6 => f.window += u16::from(by % 2),
                    7 => f.ts = [None, Some(100)][usize::from(by % 2)],
                    8 => f.fin = true,
                    9..=11 => f.psh = true,
                    12 => f.syn = true,
                    13 => f.ece = true,
                    14 => f.cwr = true,
                    15 => f.urg = true,
                    16 => f.bad_checksum = true,
                    17 => f.padding = usize::from(by % 8),
                    18 => f.src_mac = 2 + by % 2,
                    _ => {}
                }
                frames.push(f);
            }
            frames
        })
}

/// Where the payload of a packet is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Payload {
    Buffers,
    Pages,
    Device,
}

/// A frame like a merged packet, with its payload in two pieces.
fn frame(skb: &SkBuff, bytes: &[u8], place: Payload) -> SkBuff {
    let mut frame = SkBuff::with_capacity(4000);
    frame.reserve(66).unwrap();
    frame.copy_meta(skb);
    let l4 = if bytes[12] == 8 { 34 } else { 54 };
    let headers = l4 + usize::from(bytes[l4 + 12] >> 4) * 4;
    let (headers, payload) = bytes.split_at(headers);
    frame.put_slice(headers).unwrap();
    let (first, second) = payload.split_at(payload.len() * 2 / 3);
    for part in [first, second].into_iter().filter(|p| !p.is_empty()) {
        match place {
            Payload::Buffers => frame.append_frag(SkBuff::from_slice(part)).unwrap(),
            Payload::Pages => {
                let page = Page::new(part.into());
                frame.add_frag_ref(&Frag::new(page, 0, part.len())).unwrap();
            }
            Payload::Device => frame
                .add_device_page(Box::new(TestPage(part.to_vec())), 0)
                .unwrap(),
        }
    }
    frame
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        ..crate::testing::config()
    })]
    #[test]
    fn exactly_what_can_be_cut_again_is_merged(frames in traffic()) {
        let mut napi = NapiGro::default();
        let up = run(&mut napi, frames.iter().map(Frame::bytes));
        let mut seen = vec![Vec::new(); 6];
        let mut groups = Vec::new();
        let mut pool = crate::core::pool::SkbPool::new(16);
        let index = |f: &Frame| usize::from(f.flow) * 2 + usize::from(f.v6);
        for skb in &up {
            // Which frames they are tells the flow's own order.
            let cut = cut(skb);
            let ports = if cut[0][12] == 8 { 34 } else { 54 };
            let flow = (u16::from_be_bytes([cut[0][ports], cut[0][ports + 1]]) - 1000) as usize * 2 + usize::from(ports == 54);
            groups.push((flow, cut.len()));
            seen[flow].extend(cut);
            // Ours cuts like etherparse.
            if skb.gso().is_some() {
                let bytes = [skb.mac_header().unwrap().to_vec(), skb.to_vec()[skb.headlen()..].to_vec()].concat();
                for (features, place) in [
                    (Features::empty(), Payload::Buffers), (Features::HW_CSUM, Payload::Buffers), (Features::SG, Payload::Pages),
                    (Features::SG | Features::HW_CSUM, Payload::Pages), (Features::empty(), Payload::Pages),
                    (Features::SG, Payload::Device), (Features::SG | Features::HW_CSUM, Payload::Device),
                    (Features::empty(), Payload::Device),
                ] {
                    let frame = frame(skb, &bytes, place);
                    let mut segments = Vec::new();
                    crate::core::gso::skb_gso_segment(frame, features, &mut pool, &mut segments).unwrap();
                    let made = !features.contains(Features::HW_CSUM);
                    prop_assert!(segments.iter().all(|s| (s.ip_summed() == IpSummed::None) == made));
                    prop_assert!(segments.iter().all(|s| s.is_nonlinear() == features.contains(Features::SG)));
                    let ours: Vec<Vec<u8>> = segments.into_iter().map(|mut s| {
                        s.checksum_help().unwrap();
                        let bytes = s.to_vec();
                        pool.recycle(s);
                        bytes
                    }).collect();
                    prop_assert_eq!(ours, super::tests::cut(skb));
                }
            }
        }
        for (flow, seen) in seen.iter().enumerate() {
            let sent: Vec<_> = frames.iter().filter(|f| index(f) == flow).map(Frame::bytes).collect();
            prop_assert_eq!(seen, &sent, "the frames of a flow, bit for bit and in order");
        }
        // Nothing that could be merged is not, and the other way round.
        let mut expect: Vec<_> = model(&frames).iter().map(|g| (index(&frames[g[0]]), g.len())).collect();
        let (mut per_flow, mut expected) = (vec![Vec::new(); 6], vec![Vec::new(); 6]);
        for (flow, n) in groups { per_flow[flow].push(n) }
        for (flow, n) in expect.drain(..) { expected[flow].push(n) }
        prop_assert_eq!(per_flow, expected);
    }
}

proptest! {
    #![proptest_config(crate::testing::config())]
    #[test]
    fn any_frames(frames in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 14..90), any::<bool>()), 0..30)) {
        let frames = frames.into_iter().map(|(mut f, ip)| {
            if ip {
                let kind = if f[13] & 1 == 0 { [8, 0] } else { [0x86, 0xdd] };
                f[12..14].copy_from_slice(&kind);
                if f.len() > 40 { f[14] = if f[13] == 0 { 0x45 } else { 0x60 }; f[23] = 6; f[20] = 6; }
            }
            f
        });
        let frames: Vec<_> = frames.collect();
        let total: usize = frames.iter().map(Vec::len).sum();
        let up = run(&mut NapiGro::default(), frames);
        prop_assert_eq!(up.iter().map(|s| s.len() + 14).sum::<usize>(), total);
    }
}

#[test]
fn a_packet_ends_at_64_kib() {
    let frames = (0..50u16).map(|n| plain(0, u32::from(n) * 1448, n, 1448).bytes());
    let up = run(&mut NapiGro::default(), frames);
    let counts: Vec<_> = up.iter().map(|s| s.gso().unwrap().segs).collect();
    // 52 bytes of headers and 45 * 1448 are 65212.
    assert_eq!(counts, [45, 5]);
}

#[test]
fn the_oldest_flow_of_a_full_list_makes_room() {
    let mut napi = NapiGro::default();
    let bucket = |flow: u8| match segment::classify(&mut skb(&plain(flow, 0, 0, 100).bytes())) {
        Class::Segment(key, _) => key.bucket(),
        _ => panic!(),
    };
    let flows: Vec<u8> = (0..=255).filter(|&f| bucket(f) == bucket(0)).take(9).collect();
    assert_eq!(flows.len(), 9);
    let up = run(&mut napi, flows.iter().map(|&f| plain(f, 0, 0, 100).bytes()));
    assert_eq!(napi.stats.evicted, 1);
    let first = u16::from_be_bytes([up[0].data()[20], up[0].data()[21]]);
    assert_eq!(first, 1000 + u16::from(flows[0]));
    assert_eq!(up.len(), 9);
}

#[test]
fn old_packets_are_flushed_by_the_tick() {
    let mut napi = NapiGro::default();
    let ms = Instant::from_millis;
    for (flow, at) in [(0, 1), (1, 2)] {
        assert!(matches!(
            napi.receive(skb(&plain(flow, 0, 0, 100).bytes()), ms(at)),
            Gro::Held
        ));
    }
    assert!(napi.flush_one(GroFlush::Old, ms(2)).is_some());
    assert!(napi.flush_one(GroFlush::Old, ms(2)).is_none());
    assert!(napi.flush_one(GroFlush::All, ms(2)).is_some());
}

#[test]
fn a_fragment_between_two_hosts_makes_their_flows_leave_first() {
    let mut napi = NapiGro::default();
    let mut fragment = plain(9, 0, 0, 100).bytes();
    fragment[20] = 0x20; // More fragments, so of an unknown flow.
    let frames = [plain(0, 0, 0, 100).bytes(), plain(1, 0, 0, 100).bytes(), fragment];
    let up = run(&mut napi, frames);
    assert_eq!(up.len(), 3);
    assert_eq!(up[2].data()[6], 0x20, "the fragment is last");
}

#[test]
fn udp_passes_by() {
    let mut out = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .udp(1, 2)
        .write(&mut out, b"x")
        .unwrap();
    let up = run(&mut NapiGro::default(), [out.clone(), out]);
    assert!(up.len() == 2 && up.iter().all(|s| s.gso().is_none() && !s.is_nonlinear()));
}
