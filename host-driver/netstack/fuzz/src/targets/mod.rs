//! The bodies of the fuzz targets, and inputs to begin with. `tests/fuzz_targets.rs` runs them on any toolchain.

mod socket;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use etherparse::{IcmpEchoHeader, Icmpv4Type, TcpHeader};
use hematite_netstack::core::checksum::{Sum, checksum};
use hematite_netstack::wire::icmpv6::nd_options;
use hematite_netstack::wire::tcp::{MAX_TCP_OPTION_SPACE, TcpOptions};
use hematite_netstack::{
    BpfProgram, Domain, GroFlush, Instant, PingSocket, RawSocket, SockFilter, StackConfig, TcpListener,
    UdpSocket,
};

use crate::common::Host;
use crate::common::frames::{
    arp as arp_packet, ethernet as frame, icmp as icmp_message, ipv4 as packet, udp as datagram,
};
pub use socket::{tcp_socket, tcp_socket_seeds};

/// Hands all targets to a macro: the function, its first inputs, and how many mutations of them a bounded run takes.
macro_rules! for_all_targets {
    ($callback:ident) => {
        $callback! {
            ethernet ethernet_seeds 300,
            arp arp_seeds 300,
            ipv4 ipv4_seeds 600,
            icmp icmp_seeds 300,
            igmp igmp_seeds 300,
            udp udp_seeds 300,
            tcp tcp_seeds 600,
            gro gro_seeds 600,
            ipv6 ipv6_seeds 600,
            icmpv6 icmpv6_seeds 600,
            tcp_socket tcp_socket_seeds 3000,
            tcp_options tcp_options_seeds 20_000,
            ndisc_options ndisc_options_seeds 20_000,
            cbpf cbpf_seeds 20_000,
            checksums checksums_seeds 5000,
        }
    };
}
pub(crate) use for_all_targets;

const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const US6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const LINK6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Input that is eaten from the front.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// The next byte; zeros when there is nothing left.
    fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn u16(&mut self) -> u16 {
        u16::from(self.u8()) << 8 | u16::from(self.u8())
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(len.min(self.0.len()));
        self.0 = tail;
        head
    }

    /// The next piece, with its length in front of it.
    fn piece(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let len = usize::from(self.u16()) % 1500;
        Some(self.take(len))
    }
}

/// Pieces as [`Input::piece`] reads them.
fn pieces(pieces: &[Vec<u8>]) -> Vec<u8> {
    let piece = |p: &Vec<u8>| [&(p.len() as u16).to_be_bytes()[..], p].concat();
    pieces.iter().flat_map(piece).collect()
}

/// Gives frames that are made of the pieces of the input to a host with everything open.
fn deliver(data: &[u8], gro: bool, make: impl Fn(&[u8]) -> Vec<u8>) {
    let mut host = Host::new(1, StackConfig::default(), 1);
    let mut now = Instant::from_secs(1000);
    let stack = &mut host.stack;
    stack.poll(now);
    stack.enable_ipv6(host.ifindex).unwrap();
    stack
        .add_ipv6_address(host.ifindex, format!("{US6}/64").parse().unwrap())
        .unwrap();
    let udp = UdpSocket::bind(stack, (Ipv6Addr::UNSPECIFIED, 9)).unwrap();
    let udp4 = UdpSocket::bind(stack, (Ipv4Addr::UNSPECIFIED, 10)).unwrap();
    udp4.join_multicast_v4(stack, Ipv4Addr::new(224, 1, 2, 3), US)
        .unwrap();
    let ping = PingSocket::bind(stack, Some(3)).unwrap();
    let raw = RawSocket::new(stack, Domain::Ipv4, 1);
    let listener = TcpListener::bind(stack, (US, 80)).unwrap();
    let mut input = Input(data);
    for _ in 0..20 {
        let Some(piece) = input.piece() else { break };
        let frame = make(piece);
        if frame.len() < 14 {
            continue;
        }
        if gro {
            let mut skb = host.stack.skb_pool().alloc(frame.len()).unwrap();
            skb.put_slice(&frame).unwrap();
            host.stack.napi_gro_receive(host.ifindex, skb, now);
        } else {
            host.receive(&frame, now);
        }
        now = now + Duration::from_millis(7);
    }
    host.stack.napi_gro_flush(host.ifindex, 0, GroFlush::All, now);
    let mut buf = [0; 2000];
    let stack = &mut host.stack;
    _ = udp.recv_from(stack, &mut buf);
    _ = ping.recv_from(stack, &mut buf);
    if let Ok((stream, _)) = listener.accept(stack) {
        _ = stream.read(stack, &mut buf);
        stream.close(stack);
    }
    for socket in [udp, udp4] {
        socket.close(stack);
    }
    ping.close(stack);
    raw.close(stack);
    listener.close(stack);
    for _ in 0..500 {
        host.transmit(now);
        now = now + Duration::from_secs(3);
        host.stack.poll(now);
    }
    assert_eq!(host.stack.tcp_socket_count(), (0, 0));
    assert_eq!(host.stack.tcp_timer_count(), 0);
    assert_eq!(host.stack.frag_memory(), 0);
}

/// Makes a checksum at `at` right.
fn mend(message: &mut [u8], at: usize, pseudo: Sum) {
    if let Some(field) = message.get_mut(at..at + 2) {
        field.fill(0);
        let sum = pseudo.add_bytes(message).finish();
        message[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Any frames.
pub fn ethernet(data: &[u8]) {
    deliver(data, false, <[u8]>::to_vec);
}

pub fn ethernet_seeds() -> Vec<Vec<u8>> {
    let all = [arp_seeds(), icmp_seeds(), udp_seeds()].concat();
    let udp = frame(
        OUR_MAC,
        PEER_MAC,
        0x0800,
        &packet(PEER, US, 17, &datagram((PEER, 7), (US, 9), b"x"), |_| {}),
    );
    [all, vec![pieces(&[udp.clone(), udp])]].concat()
}

/// ARP packets.
pub fn arp(data: &[u8]) {
    deliver(data, false, |piece| frame(OUR_MAC, PEER_MAC, 0x0806, piece));
}

pub fn arp_seeds() -> Vec<Vec<u8>> {
    let ask = arp_packet(1, PEER_MAC, PEER, [0; 6], US);
    let tell = arp_packet(2, PEER_MAC, PEER, OUR_MAC, US);
    vec![pieces(&[ask, tell])]
}

/// IPv4 datagrams whose version, addresses and checksum are right: options, fragments, all protocols.
pub fn ipv4(data: &[u8]) {
    deliver(data, false, |piece| {
        let mut ip = piece.to_vec();
        if ip.len() >= 20 {
            ip[0] = 0x40 | ip[0] & 0xf;
            ip[12..16].copy_from_slice(&PEER.octets());
            ip[16..20].copy_from_slice(&US.octets());
            let header = usize::from(ip[0] & 0xf) * 4;
            if (20..=ip.len()).contains(&header) {
                mend(&mut ip[..header], 10, Sum::ZERO);
            }
        }
        frame(OUR_MAC, PEER_MAC, 0x0800, &ip)
    });
}

pub fn ipv4_seeds() -> Vec<Vec<u8>> {
    let whole = packet(PEER, US, 17, &datagram((PEER, 7), (US, 10), &[5; 24]), |_| {});
    let payload = &whole[20..];
    let part = |at: usize, end: usize, more| {
        packet(
            PEER,
            US,
            17,
            &payload[at..end],
            crate::common::frames::fragment(at as u16 / 8, more),
        )
    };
    let options = packet(PEER, US, 17, payload, |h| {
        h.options = [1, 7, 7, 4, 0, 0, 0, 0].into()
    });
    vec![
        pieces(std::slice::from_ref(&whole)),
        pieces(&[part(0, 16, true), part(16, 32, false)]),
        pieces(&[part(16, 32, false), part(8, 24, true), part(0, 16, true)]),
        pieces(&[options]),
    ]
}

/// Messages of a protocol over IPv4, their checksum at `at` mended.
fn over_ipv4(data: &[u8], protocol: u8, at: usize) {
    deliver(data, false, |piece| {
        let mut message = piece.to_vec();
        let pseudo = match protocol {
            1 | 2 => Sum::ZERO,
            _ => Sum::ZERO.add_pseudo_header(PEER, US, protocol, message.len() as u16),
        };
        mend(&mut message, at, pseudo);
        frame(
            OUR_MAC,
            PEER_MAC,
            0x0800,
            &packet(PEER, US, protocol, &message, |_| {}),
        )
    });
}

/// ICMP messages.
pub fn icmp(data: &[u8]) {
    over_ipv4(data, 1, 2);
}

pub fn icmp_seeds() -> Vec<Vec<u8>> {
    let quote = packet(US, PEER, 17, &datagram((US, 10), (PEER, 7), b"q"), |_| {});
    let unreachable = Icmpv4Type::DestinationUnreachable(etherparse::icmpv4::DestUnreachableHeader::Port);
    let echo =
        |kind: fn(IcmpEchoHeader) -> Icmpv4Type| icmp_message(kind(IcmpEchoHeader { id: 3, seq: 4 }), b"abc");
    vec![
        pieces(&[icmp_message(unreachable, &quote)]),
        pieces(&[echo(Icmpv4Type::EchoRequest), echo(Icmpv4Type::EchoReply)]),
        pieces(&[
            [&[5, 1, 0, 0, 10, 0, 0, 3][..], &quote].concat(),
            [&[12, 0, 0, 0, 0, 0, 0, 0][..], &quote].concat(),
        ]),
    ]
}

/// IGMP messages.
pub fn igmp(data: &[u8]) {
    over_ipv4(data, 2, 2);
}

pub fn igmp_seeds() -> Vec<Vec<u8>> {
    let query = vec![0x11, 100, 0, 0, 224, 1, 2, 3];
    let general = vec![0x11, 0x8f, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0];
    vec![pieces(&[query, general, vec![0x16, 0, 0, 0, 224, 1, 2, 3]])]
}

/// UDP datagrams.
pub fn udp(data: &[u8]) {
    over_ipv4(data, 17, 6);
}

pub fn udp_seeds() -> Vec<Vec<u8>> {
    let known = datagram((PEER, 7), (US, 10), b"hello");
    vec![pieces(&[known, datagram((PEER, 7), (US, 11), b"")])]
}

/// TCP segments to a listener and to nobody.
pub fn tcp(data: &[u8]) {
    over_ipv4(data, 6, 16);
}

fn segment(port: u16, options: &[u8], payload: &[u8], edit: impl Fn(&mut TcpHeader)) -> Vec<u8> {
    let mut header = TcpHeader::new(4000, port, 1000, 60_000);
    header.set_options_raw(options).unwrap();
    edit(&mut header);
    [&header.to_bytes()[..], payload].concat()
}

pub fn tcp_seeds() -> Vec<Vec<u8>> {
    let options = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7];
    let syn = segment(80, &options, b"", |h| h.syn = true);
    let ack = segment(80, &[], b"data", |h| (h.ack, h.sequence_number) = (true, 1001));
    let stray = segment(81, &[], b"data", |h| h.ack = true);
    vec![pieces(&[syn.clone(), ack]), pieces(&[syn.clone(), syn, stray])]
}

/// TCP segments of one flow through GRO.
pub fn gro(data: &[u8]) {
    deliver(data, true, |piece| {
        let mut segment = piece.to_vec();
        let pseudo = Sum::ZERO.add_pseudo_header(PEER, US, 6, segment.len() as u16);
        mend(&mut segment, 16, pseudo);
        frame(OUR_MAC, PEER_MAC, 0x0800, &packet(PEER, US, 6, &segment, |_| {}))
    });
}

pub fn gro_seeds() -> Vec<Vec<u8>> {
    let part = |n: u32, len| {
        segment(
            80,
            &[1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8],
            &vec![7; len],
            move |h| (h.ack, h.psh, h.sequence_number) = (true, len < 100, 1000 + n),
        )
    };
    vec![pieces(&[
        part(0, 100),
        part(100, 100),
        part(200, 40),
        part(240, 100),
    ])]
}

/// IPv6 packets whose version, length and addresses are right: extension headers, fragments, all protocols.
pub fn ipv6(data: &[u8]) {
    deliver(data, false, |piece| {
        let mut ip = piece.to_vec();
        if ip.len() >= 40 {
            ip[0] = 0x60 | ip[0] & 0xf;
            let len = (ip.len() - 40) as u16;
            ip[4..6].copy_from_slice(&len.to_be_bytes());
            ip[8..24].copy_from_slice(&LINK6.octets());
            ip[24..40].copy_from_slice(&US6.octets());
        }
        frame(OUR_MAC, PEER_MAC, 0x86dd, &ip)
    });
}

fn packet6(next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    crate::common::frames6::ipv6(LINK6, US6, next, payload, |h| h.hop_limit = hops)
}

pub fn ipv6_seeds() -> Vec<Vec<u8>> {
    let udp = crate::common::frames6::udp6((LINK6, 7), (US6, 9), b"hello, world 123");
    let chain = [&[60, 0, 5, 2, 0, 0, 1, 0, 17, 0, 1, 4, 0, 0, 0, 0][..], &udp].concat();
    let routed = [&[17, 0, 0, 1, 0, 0, 0, 0][..], &udp].concat();
    let part = |at: u16, more: u8, data: &[u8]| {
        let [hi, lo] = at.to_be_bytes();
        packet6(44, 64, &[&[17, 0, hi, lo | more, 0, 0, 0, 7][..], data].concat())
    };
    vec![
        pieces(&[packet6(17, 64, &udp)]),
        pieces(&[packet6(0, 64, &chain), packet6(43, 64, &routed)]),
        pieces(&[part(0, 1, &udp[..16]), part(16, 0, &udp[16..])]),
    ]
}

/// ICMPv6 messages, neighbour discovery and MLD among them.
pub fn icmpv6(data: &[u8]) {
    deliver(data, false, |piece| {
        let mut message = piece.to_vec();
        let pseudo = Sum::ZERO.add_pseudo_header(LINK6, US6, 58, message.len() as u16);
        mend(&mut message, 2, pseudo);
        frame(OUR_MAC, PEER_MAC, 0x86dd, &packet6(58, 255, &message))
    });
}

pub fn icmpv6_seeds() -> Vec<Vec<u8>> {
    let lladdr = [&[1, 1][..], &PEER_MAC].concat();
    let nd = |kind: u8, body: &[u8]| [&[kind, 0, 0, 0, 0, 0, 0, 0][..], body, &lladdr].concat();
    let prefix = [
        &[3, 4, 64, 0xc0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0][..],
        &US6.octets(),
    ]
    .concat();
    let router = [
        &[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..],
        &prefix,
        &lladdr,
        &[5, 1, 0, 0, 0, 0, 5, 0xdc],
    ];
    let quote = packet6(17, 64, &crate::common::frames6::udp6((US6, 9), (LINK6, 7), b"q"));
    vec![
        pieces(&[nd(135, &US6.octets()), nd(136, &LINK6.octets()), router.concat()]),
        pieces(&[nd(137, &[LINK6.octets(), US6.octets()].concat())]),
        pieces(&[[&[130, 0, 0, 0, 0, 100, 0, 0][..], &[0; 16], &[2, 125, 0, 0]].concat()]),
        pieces(&[
            [&[2, 0, 0, 0, 0, 0, 5, 0][..], &quote].concat(),
            vec![128, 0, 0, 0, 0, 3, 0, 4, 1],
        ]),
    ]
}

/// Options of a segment; what is written from what was read is read the same.
pub fn tcp_options(data: &[u8]) {
    let mut input = Input(data);
    let syn = input.u8() & 1 != 0;
    let options = TcpOptions::parse(input.0, syn);
    let mut out = [0; 64];
    let len = options.emit(&mut out);
    assert_eq!(len, options.len());
    assert_eq!(TcpOptions::parse(&out[..len], syn), options);
    if options.sacks.is_empty() {
        assert!(len <= MAX_TCP_OPTION_SPACE);
    }
    TcpOptions::parse_aligned_timestamp(input.0);
}

pub fn tcp_options_seeds() -> Vec<Vec<u8>> {
    vec![
        vec![1, 2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7],
        vec![0, 1, 1, 5, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4],
        vec![0, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
    ]
}

/// Options of neighbour discovery.
pub fn ndisc_options(data: &[u8]) {
    let mut left = data.len() / 8 + 1;
    for option in nd_options(data) {
        left = left.checked_sub(1).expect("no more options than bytes");
        if option.is_err() {
            break;
        }
    }
}

pub fn ndisc_options_seeds() -> Vec<Vec<u8>> {
    let prefix = [&[3, 4, 64, 0xc0][..], &[0; 28]].concat();
    vec![
        [
            &[1, 1, 2, 0, 0, 0, 0, 2][..],
            &prefix,
            &[5, 1, 0, 0, 0, 0, 5, 0xdc],
        ]
        .concat(),
        [&[25, 3, 0, 0, 0, 0, 1, 0][..], &[1; 16]].concat(),
    ]
}

/// A program of classic BPF and a packet for it: it is refused, or it ends.
pub fn cbpf(data: &[u8]) {
    let mut input = Input(data);
    let count = usize::from(input.u8() % 64);
    let insns: Vec<_> = (0..count)
        .map(|_| SockFilter {
            code: input.u16(),
            jt: input.u8(),
            jf: input.u8(),
            k: u32::from(input.u16()) << 16 | u32::from(input.u16()),
        })
        .collect();
    if let Ok(program) = BpfProgram::new(&insns) {
        program.run(input.0, &Default::default());
    }
}

pub fn cbpf_seeds() -> Vec<Vec<u8>> {
    // Load the EtherType, jump, load a byte by X, return.
    let insns: [(u16, u8, u8, u32); 5] = [
        (0x28, 0, 0, 12),
        (0x15, 0, 2, 0x800),
        (0xb1, 0, 0, 14),
        (0x50, 0, 0, 1),
        (0x16, 0, 0, 0),
    ];
    let mut seed = vec![5];
    for (code, jt, jf, k) in insns {
        seed.extend(code.to_be_bytes());
        seed.extend([jt, jf]);
        seed.extend(k.to_be_bytes());
    }
    seed.extend([0; 12]);
    seed.extend([8, 0, 0x45, 1, 2, 3]);
    vec![seed]
}

/// Checksums, piece by piece and as a whole.
pub fn checksums(data: &[u8]) {
    let mut input = Input(data);
    let at = usize::from(input.u8()) & !1;
    let (head, tail) = input.0.split_at(at.min(input.0.len() & !1));
    let parts = Sum::ZERO.add_bytes(head).add_bytes(tail);
    assert_eq!(parts.finish(), checksum(input.0));
}

pub fn checksums_seeds() -> Vec<Vec<u8>> {
    vec![vec![4, 0xff, 0xff, 0, 1, 2, 3, 4], vec![2; 61]]
}
