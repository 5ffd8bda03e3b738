//! smoltcp in the same place: frames change hands without a copy, and their buffers go back to where they are sent
//! from.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::ours::{CHUNK, SEND_BUFFER};
use crate::{Meter, Transfer};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr};

const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// An acknowledgment is shorter, a segment with payload longer.
const SHORT: usize = 100;

#[derive(Default)]
struct Port {
    rx: VecDeque<Vec<u8>>,
    tx: VecDeque<Vec<u8>>,
    free: Vec<Vec<u8>>,
    used: Vec<Vec<u8>>,
    segments: u64,
}

struct Rx<'a>(Vec<u8>, &'a mut Vec<Vec<u8>>);
impl RxToken for Rx<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let result = f(&self.0);
        self.1.push(self.0);
        result
    }
}
struct Tx<'a> {
    free: &'a mut Vec<Vec<u8>>,
    tx: &'a mut VecDeque<Vec<u8>>,
    segments: &'a mut u64,
}
impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = self.free.pop().unwrap_or_else(|| Vec::with_capacity(2048));
        frame.resize(len, 0);
        let result = f(&mut frame);
        *self.segments += u64::from(len > SHORT);
        self.tx.push_back(frame);
        result
    }
}

impl Device for Port {
    type RxToken<'a> = Rx<'a>;
    type TxToken<'a> = Tx<'a>;
    fn receive(&mut self, _: Instant) -> Option<(Rx<'_>, Tx<'_>)> {
        let frame = self.rx.pop_front()?;
        let tx = Tx {
            free: &mut self.free,
            tx: &mut self.tx,
            segments: &mut self.segments,
        };
        Some((Rx(frame, &mut self.used), tx))
    }
    fn transmit(&mut self, _: Instant) -> Option<Tx<'_>> {
        Some(Tx {
            free: &mut self.free,
            tx: &mut self.tx,
            segments: &mut self.segments,
        })
    }
    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.max_transmission_unit = 1514;
        caps.medium = Medium::Ethernet;
        caps
    }
}

/// A transfer beside idle listeners.
pub fn run(bytes: usize, idle: usize) -> Transfer {
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
    let ring = || tcp::SocketBuffer::new(vec![0; SEND_BUFFER]);
    let mut sets = [SocketSet::new(vec![]), SocketSet::new(vec![])];
    let handles = [0, 1].map(|n| sets[n].add(tcp::Socket::new(ring(), ring())));
    sets[1]
        .get_mut::<tcp::Socket>(handles[1])
        .listen(80)
        .expect("a port");
    // Behind the connection, which is so found first.
    for set in &mut sets {
        for _ in 0..idle {
            let buffer = || tcp::SocketBuffer::new(vec![0; 64]);
            let mut socket = tcp::Socket::new(buffer(), buffer());
            socket.listen(81).expect("a port");
            set.add(socket);
        }
    }
    let cx = ifaces[0].context();
    sets[0]
        .get_mut::<tcp::Socket>(handles[0])
        .connect(cx, (B, 80), 40_000)
        .expect("a route");
    let (data, mut buf) = (vec![0x5a; CHUNK], vec![0; CHUNK]);
    let (mut sent, mut got, mut us) = (0, 0, 0);
    let mut meter = Meter::new();
    while got < bytes {
        us += 10;
        let socket = sets[0].get_mut::<tcp::Socket>(handles[0]);
        if socket.can_send() && sent < bytes {
            sent += socket.send_slice(&data[..CHUNK.min(bytes - sent)]).expect("open");
        }
        for n in 0..2 {
            ifaces[n].poll(Instant::from_micros(us), &mut ports[n], &mut sets[n]);
            let [a, b] = &mut ports;
            let (from, to) = if n == 0 { (a, b) } else { (b, a) };
            to.rx.append(&mut from.tx);
            // What was received goes back to where frames are sent from.
            to.free.append(&mut from.used);
        }
        let socket = sets[1].get_mut::<tcp::Socket>(handles[1]);
        while socket.can_recv() {
            got += socket.recv_slice(&mut buf).expect("open");
        }
        meter.progress(got, Duration::ZERO);
    }
    meter.finish(ports[0].segments)
}
