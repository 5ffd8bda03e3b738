//! The UDP exchange: an echo program on the peer, its client on the host, and datagrams that either can check.

use super::summary::UdpSummary;
use super::{ECHO_PORT, MAX_DATAGRAM, PEER_ADDRESS};
use crate::wire::host::PeerApplication;
use hematite_netstack::{Stack, UdpSocket};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::VecDeque;
use std::io;
use std::net::Ipv6Addr;

/// Datagrams on their way at once.
const WINDOW: usize = 48;

/// Fills `out` with the datagram of a round: its first byte names the round, so either end can check it.
pub(crate) fn datagram(out: &mut Vec<u8>, round: u8, size: usize) {
    out.clear();
    out.push(round);
    let mut x = u64::from(round) << 32 | size as u64;
    out.extend((1..size).map(|_| {
        x = x
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (x >> 56) as u8
    }));
}

/// Whether all of a datagram's bytes are what its first one and its length say.
pub(crate) fn is_right(scratch: &mut Vec<u8>, bytes: &[u8]) -> bool {
    let Some(&round) = bytes.first() else { return false };
    datagram(scratch, round, bytes.len());
    scratch == bytes
}

/// The echo program (RFC 862) on the peer; checks what it echoes.
pub struct EchoServer {
    socket: UdpSocket,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
    /// Datagrams echoed.
    pub echoed: u64,
    /// Datagrams with a wrong byte.
    pub corrupt: u64,
    /// Echoes that the peer's stack could not send.
    pub unsent: u64,
}

impl EchoServer {
    /// Opens its socket, of IPv6 and IPv4.
    ///
    /// # Errors
    /// What the stack said.
    pub fn start(stack: &mut Stack) -> io::Result<Self> {
        let socket = UdpSocket::bind(stack, (Ipv6Addr::UNSPECIFIED, ECHO_PORT))?;
        Ok(EchoServer {
            socket,
            buffer: vec![0; 2048],
            scratch: Vec::new(),
            echoed: 0,
            corrupt: 0,
            unsent: 0,
        })
    }
}

impl PeerApplication for EchoServer {
    fn poll(&mut self, stack: &mut Stack) {
        while let Ok((len, from)) = self.socket.recv_from(stack, &mut self.buffer) {
            self.corrupt += u64::from(!is_right(&mut self.scratch, &self.buffer[..len]));
            match self.socket.send_to(stack, &self.buffer[..len], from) {
                Ok(_) => self.echoed += 1,
                Err(_) => self.unsent += 1,
            }
        }
    }
}

/// The host's side of the UDP exchange.
pub(super) struct EchoClient {
    total: u64,
    /// Sizes of the current round that are still to be sent.
    sizes: Vec<usize>,
    round: u8,
    /// For each size the rounds that are on their way.
    pending: Vec<VecDeque<u8>>,
    outstanding: usize,
    pub(super) udp: UdpSummary,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
}

impl EchoClient {
    pub(super) fn new(total: u64) -> Self {
        EchoClient {
            total,
            sizes: Vec::new(),
            round: 0,
            pending: vec![VecDeque::new(); MAX_DATAGRAM + 1],
            outstanding: 0,
            udp: UdpSummary::default(),
            buffer: vec![0; 2048],
            scratch: Vec::new(),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.udp.received + self.udp.corrupt >= self.total
    }

    /// Sends until the window is full. Every size once a round, in an order of the seed's.
    pub(super) fn send(
        &mut self,
        socket: &UdpSocket,
        stack: &mut Stack,
        rng: &mut ChaCha8Rng,
    ) -> io::Result<()> {
        while self.outstanding < WINDOW && self.udp.sent < self.total {
            if self.sizes.is_empty() {
                self.sizes.extend(1..=MAX_DATAGRAM);
                self.sizes.shuffle(rng);
                self.round = self.round.wrapping_add(1);
            }
            let Some(&size) = self.sizes.last() else {
                return Ok(());
            };
            datagram(&mut self.scratch, self.round, size);
            match socket.send_to(stack, &self.scratch, (PEER_ADDRESS, ECHO_PORT)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            self.sizes.pop();
            self.pending[size].push_back(self.round);
            self.outstanding += 1;
            self.udp.sent += 1;
        }
        Ok(())
    }

    /// Takes what has come back; true if anything has.
    pub(super) fn receive(&mut self, socket: &UdpSocket, stack: &mut Stack) -> bool {
        let mut any = false;
        while let Ok((len, _)) = socket.recv_from(stack, &mut self.buffer) {
            any = true;
            let bytes = &self.buffer[..len];
            let round = bytes.first().copied();
            let expected = self.pending.get_mut(len).and_then(VecDeque::pop_front);
            self.outstanding -= usize::from(expected.is_some());
            if expected.is_some() && expected == round && is_right(&mut self.scratch, bytes) {
                self.udp.received += 1;
                self.udp.bytes += len as u64;
            } else {
                self.udp.corrupt += 1;
            }
        }
        any
    }
}
