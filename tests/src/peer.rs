//! The far end of the wire: a host stack with an echo program that checks what it echoes, and frames of the test's own.

use crate::traffic;
use hematite_netstack::{Errno, Ipv4Cidr, MacAddr, Stack, StackConfig, TcpListener, TcpStream, UdpSocket};
use hematite_sim::SimTime;
use hematite_sim::wire::host::{PeerApplication, StackEndpoint};
use hematite_sim::wire::{Damage, Frame, WireEndpoint};
use std::collections::VecDeque;
use std::net::Ipv4Addr;

/// The peer's address.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// Its link-layer address.
pub const MAC: MacAddr = MacAddr([0x02, 0x70, 0x65, 0x65, 0x72, 0x02]);
/// The echo program's port (RFC 862).
pub const ECHO_PORT: u16 = 7;
/// The port of the program that takes streams (RFC 863).
pub const DISCARD_PORT: u16 = 9;

/// The echo program.
pub struct Echo {
    socket: Option<UdpSocket>,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
    /// Datagrams echoed.
    pub echoed: u64,
    /// Datagrams with a wrong octet: the card sent something that the host did not.
    pub corrupt: u64,
}

impl PeerApplication for Echo {
    fn poll(&mut self, stack: &mut Stack) {
        let Some(socket) = &self.socket else { return };
        while let Ok((len, from)) = socket.recv_from(stack, &mut self.buffer) {
            let bytes = &self.buffer[..len];
            self.corrupt += u64::from(!traffic::is_right(&mut self.scratch, bytes));
            self.echoed += u64::from(socket.send_to(stack, bytes, from).is_ok());
        }
    }
}

/// The byte at `offset` of a stream to [`DISCARD_PORT`].
pub fn stream_byte(offset: u64) -> u8 {
    (offset ^ offset >> 8 ^ offset >> 16) as u8
}

/// The program that takes streams and checks them.
#[derive(Default)]
pub struct Discard {
    listener: Option<TcpListener>,
    streams: Vec<(TcpStream, u64)>,
    buffer: Vec<u8>,
    /// Octets that came.
    pub received: u64,
    /// Those of them that were not what [`stream_byte`] says.
    pub corrupt: u64,
}

impl PeerApplication for Discard {
    fn poll(&mut self, stack: &mut Stack) {
        let Some(listener) = &mut self.listener else {
            return;
        };
        while let Ok((stream, _)) = listener.accept(stack) {
            self.streams.push((stream, 0));
        }
        for (stream, offset) in &mut self.streams {
            while let Ok(len @ 1..) = stream.read(stack, &mut self.buffer) {
                let right = (*offset..).map(stream_byte);
                let wrong = self.buffer[..len].iter().zip(right).filter(|(a, b)| **a != *b);
                self.corrupt += wrong.count() as u64;
                self.received += len as u64;
                *offset += len as u64;
            }
        }
    }
}

/// What runs on the peer.
struct Programs {
    echo: Echo,
    discard: Discard,
}

impl PeerApplication for Programs {
    fn poll(&mut self, stack: &mut Stack) {
        self.echo.poll(stack);
        self.discard.poll(stack);
    }
}

/// The endpoint.
pub struct Peer {
    inner: StackEndpoint<Programs>,
    frames: VecDeque<Frame>,
    /// Frames that came from the card.
    pub received: u64,
    /// What PAUSE frames asked for, in quanta.
    pub pauses: Vec<u16>,
    /// The frames themselves, while they are asked for.
    pub record: Option<Vec<Vec<u8>>>,
    /// When the first and the latest frame came from the card, at their ends; a test that begins anew takes it.
    pub span: Option<[SimTime; 2]>,
}

impl Peer {
    /// A peer whose stack draws from `seed`, with that MTU.
    ///
    /// # Errors
    /// What the stack reports.
    pub fn new(seed: u64, mtu: u16) -> Result<Self, Errno> {
        let address = Ipv4Cidr::new(ADDRESS, 24).map_err(|_| Errno::Inval)?;
        let config = StackConfig {
            disable_ipv6: true,
            ..StackConfig::default()
        };
        let start = |stack: &mut Stack| Programs {
            echo: Echo {
                socket: UdpSocket::bind(stack, (Ipv4Addr::UNSPECIFIED, ECHO_PORT)).ok(),
                buffer: vec![0; mtu.into()],
                scratch: Vec::new(),
                echoed: 0,
                corrupt: 0,
            },
            discard: Discard {
                listener: TcpListener::bind(stack, (Ipv4Addr::UNSPECIFIED, DISCARD_PORT)).ok(),
                buffer: vec![0; 1 << 16],
                ..Discard::default()
            },
        };
        let inner = StackEndpoint::new(config, seed, MAC, mtu, address, start)?;
        Ok(Peer {
            inner,
            frames: VecDeque::new(),
            received: 0,
            pauses: Vec::new(),
            record: None,
            span: None,
        })
    }

    /// Sends a frame before anything else.
    pub fn send(&mut self, bytes: Vec<u8>, damage: Damage) {
        self.frames.push_back(Frame { bytes, damage });
    }

    /// Frames of the test's own that are still to be sent.
    pub fn unsent(&self) -> usize {
        self.frames.len()
    }

    /// The echo program.
    pub fn echo(&self) -> &Echo {
        &self.inner.application().echo
    }

    /// The program that takes streams.
    pub fn discard(&self) -> &Discard {
        &self.inner.application().discard
    }

    /// The stack, for its counters.
    pub fn stack(&self) -> &Stack {
        self.inner.stack()
    }
}

impl WireEndpoint for Peer {
    fn transmit(&mut self, now: SimTime, frame: &mut Frame) -> bool {
        if let Some(own) = self.frames.pop_front() {
            *frame = own;
            return true;
        }
        self.inner.transmit(now, frame)
    }

    fn receive(&mut self, now: SimTime, frame: &[u8]) {
        self.received += 1;
        self.span = Some([self.span.map_or(now, |span| span[0]), now]);
        if let Some(record) = &mut self.record {
            record.push(frame.to_vec());
        }
        match frame {
            // A MAC takes PAUSE frames for itself (IEEE 802.3 annex 31B).
            [
                0x01,
                0x80,
                0xc2,
                0,
                0,
                1,
                _,
                _,
                _,
                _,
                _,
                _,
                0x88,
                0x08,
                0,
                1,
                high,
                low,
                ..,
            ] => {
                self.pauses.push(u16::from_be_bytes([*high, *low]));
            }
            _ => self.inner.receive(now, frame),
        }
    }
}
