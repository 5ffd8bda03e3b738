//! A whole TCP socket, fed with segments and calls.

use std::net::Shutdown;
use std::time::Duration;

use etherparse::TcpHeader;
use hematite_netstack::{StackConfig, TcpListener, TcpSocket, TcpState, TcpStream};

use super::Input;
use crate::common::tcp::{A, B};
use crate::common::tcp_peer::TcpPeer;

const PORT: u16 = 4000;
const OUR_PORT: u16 = 80;

/// Options of the peer's SYN.
const SYN_OPTIONS: [&[u8]; 4] = [
    &[],
    &[2, 4, 5, 0xb4, 1, 1, 4, 2],
    &[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 100, 0, 0, 0, 0, 1, 3, 3, 7],
    &[2, 4, 0, 64, 1, 3, 3, 14],
];

/// What the peer knows of the connection: its segments are near what is expected more often than not.
struct Connection {
    peer: TcpPeer,
    seq: u32,
    ack: u32,
    our_port: u16,
    /// Our last timestamp, and the peer's clock.
    ts: u32,
    clock: u32,
}

impl Connection {
    fn send(&mut self, options: &[u8], payload: &[u8], edit: impl FnOnce(&mut TcpHeader)) {
        let mut header = TcpHeader::new(PORT, self.our_port, self.seq, 60_000);
        (header.ack, header.acknowledgment_number) = (true, self.ack);
        edit(&mut header);
        let _ = header.set_options_raw(options);
        self.peer.send(header, payload, 0);
    }

    /// Follows what we send.
    fn see(&mut self) {
        for seg in self.peer.sent() {
            let (h, len) = (&seg.header, seg.payload.len() as u32);
            self.our_port = h.source_port;
            if !h.rst {
                let end = h
                    .sequence_number
                    .wrapping_add(len + u32::from(h.syn) + u32::from(h.fin));
                if h.syn || end.wrapping_sub(self.ack) < 1 << 20 {
                    self.ack = end;
                }
            }
            for option in h.options_iterator().flatten() {
                if let etherparse::TcpOptionElement::Timestamp(val, _) = option {
                    self.ts = val;
                }
            }
        }
    }

    /// Options of a segment: timestamps, SACK blocks near what was sent, or any bytes.
    fn options(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let mut options = vec![];
        let kind = input.u8();
        if kind & 1 != 0 {
            self.clock = self.clock.wrapping_add(u32::from(input.u8())).wrapping_sub(16);
            options.extend([1, 1, 8, 10]);
            options.extend(self.clock.to_be_bytes());
            options.extend(self.ts.wrapping_sub(u32::from(kind >> 4)).to_be_bytes());
        }
        if kind & 2 != 0 {
            let blocks = 1 + usize::from(kind >> 2 & 1);
            options.extend([1, 1, 5, 2 + 8 * blocks as u8]);
            for _ in 0..blocks {
                let start = self.ack.wrapping_sub(u32::from(input.u16()));
                options.extend(start.to_be_bytes());
                options.extend(start.wrapping_add(u32::from(input.u16())).to_be_bytes());
            }
        }
        if kind & 8 != 0 {
            options.extend(input.take(8));
        }
        options.resize(options.len().min(40) & !3, 0);
        options
    }

    fn segment(&mut self, input: &mut Input<'_>) {
        let (flags, near) = (input.u8(), input.u8());
        let len = usize::from(input.u16()) % 1500;
        let (seq, ack) = (i32::from(input.u16() as i16), i32::from(input.u16() as i16));
        let window = input.u16();
        let options = self.options(input);
        let advance = near & 1 == 0;
        self.send(&options, &vec![2; len], |h| {
            h.syn = flags & 0xc3 == 1;
            h.fin = flags & 0x1c == 4;
            h.rst = flags & 0xe4 == 0x20;
            h.urg = flags & 0x40 != 0;
            h.psh = flags & 0x80 != 0;
            h.ack = flags & 0x38 != 0;
            if !advance {
                h.sequence_number = h.sequence_number.wrapping_add_signed(seq);
            }
            if near & 2 != 0 {
                h.acknowledgment_number = h.acknowledgment_number.wrapping_add_signed(ack);
            }
            h.window_size = window;
        });
        if advance {
            self.seq = self.seq.wrapping_add(len as u32 + u32::from(flags & 0x1c == 4));
        }
    }
}

/// Segments near and far from what is expected, in all states, with calls in between: nothing panics and nothing is
/// left, neither a socket nor a timer nor a buffer.
pub fn tcp_socket(data: &[u8]) {
    let mut input = Input(data);
    let setup = input.u8();
    let mut config = StackConfig {
        tcp_retries2: 5,
        tcp_syncookies: setup >> 6,
        ..StackConfig::default()
    };
    if setup & 4 != 0 {
        (config.tcp_rmem, config.tcp_wmem) = ((4096, 8192, 16_384), (4096, 4096, 8192));
    }
    let peer = TcpPeer::new(config);
    let mut c = Connection {
        peer,
        seq: 10_000,
        ack: 0,
        our_port: OUR_PORT,
        ts: 0,
        clock: 100,
    };
    let listener = TcpListener::bind(&mut c.peer.host.stack, (A, OUR_PORT)).unwrap();
    let syn_options = SYN_OPTIONS[usize::from(setup & 3)];
    let mut stream: Option<TcpStream> = None;
    if setup & 8 == 0 {
        c.send(syn_options, b"", |h| (h.syn, h.ack) = (true, false));
    } else {
        let socket = TcpSocket::new(&mut c.peer.host.stack);
        stream = socket.connect(&mut c.peer.host.stack, (B, PORT)).ok();
        c.see();
        // Both at once, sometimes.
        let ack = setup & 16 == 0;
        c.send(syn_options, b"", |h| (h.syn, h.ack) = (true, ack));
    }
    c.see();
    c.seq += 1;
    if setup & 32 == 0 {
        c.send(&[], b"", |_| {});
    }
    let mut buf = [0; 700];
    for _ in 0..100 {
        if input.0.is_empty() {
            break;
        }
        let op = input.u8();
        let stack = &mut c.peer.host.stack;
        stream = stream.or_else(|| listener.accept(stack).ok().map(|a| a.0));
        match (op % 16, &stream) {
            (0, Some(s)) => _ = s.write(stack, &vec![1; usize::from(input.u16()) % 6000]),
            (1, Some(s)) => _ = s.read(stack, &mut buf),
            (2, _) => c.peer.pass(Duration::from_millis(input.u8().into())),
            (3, _) => c.peer.pass(Duration::from_secs(input.u8().into())),
            (4, Some(s)) if op & 0x30 == 0 => _ = s.shutdown(stack, Shutdown::Write),
            (5, Some(s)) => _ = s.set_nodelay(stack, op & 16 != 0),
            (6, Some(s)) => _ = s.set_cork(stack, op & 16 != 0),
            (7, Some(s)) if op & 0x70 == 0 => {
                _ = s.set_tcp_user_timeout(stack, Some(Duration::from_secs(input.u8().into())));
            }
            (8, _) if op & 0xf0 == 0 => {
                if let Some(s) = stream.take() {
                    s.close(stack);
                }
            }
            _ => c.segment(&mut input),
        }
        c.see();
    }
    let stack = &mut c.peer.host.stack;
    if let Some(s) = stream {
        assert!(s.info(stack).is_ok_and(|i| i.state != TcpState::Listen));
        s.close(stack);
    }
    listener.close(stack);
    c.see();
    finish(&mut c.peer);
}

/// After everything was closed, time ends it all.
fn finish(peer: &mut TcpPeer) {
    for _ in 0..2000 {
        let Some(next) = peer.host.stack.next_deadline() else {
            break;
        };
        let wait = next.saturating_duration_since(peer.now);
        peer.pass(wait.max(Duration::from_millis(1)));
        peer.sent();
        if peer.host.stack.tcp_socket_count() == (0, 0) {
            break;
        }
    }
    assert_eq!(peer.host.stack.tcp_socket_count(), (0, 0));
    assert_eq!(peer.host.stack.tcp_timer_count(), 0);
    peer.sent();
    let host = &mut peer.host;
    hematite_netstack::NetDevice::reclaim(&mut host.dev, host.stack.skb_pool());
    let pool = host.stack.skb_pool().stats();
    assert_eq!(pool.in_use(), (0, 0), "{pool:?}");
}

pub fn tcp_socket_seeds() -> Vec<Vec<u8>> {
    // A write, an acknowledgment, data, a read, an end; with and without options, from both sides.
    let segment = |flags: u8, len: u16| {
        let [hi, lo] = len.to_be_bytes();
        vec![9, flags, 0, hi, lo, 0, 0, 0, 0, 0xea, 0x60, 0]
    };
    let body = [
        vec![0, 0x10, 0],
        segment(0x08, 0),
        segment(0x88, 1000),
        vec![1],
        segment(0x88, 500),
        vec![2, 200, 1, 4],
        segment(0x0c, 0),
        vec![3, 5],
    ]
    .concat();
    [0, 1, 2, 3, 6, 9, 10, 26, 0x82]
        .map(|setup| [&[setup][..], &body].concat())
        .into()
}
