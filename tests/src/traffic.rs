//! UDP datagrams that either end can check: each tells its number, and its octets follow from number and length.

use crate::peer;
use hematite_netstack::{Stack, UdpSocket};
use hematite_sim::SimTime;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;

/// The shortest datagram: its number and length.
const HEADER: usize = 10;
/// Bytes of an IPv4 and a UDP header.
const HEADERS: usize = 28;

/// Fills `out` with datagram `number` of `len` octets.
fn datagram(out: &mut Vec<u8>, number: u64, len: usize) {
    out.clear();
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&(len as u16).to_be_bytes());
    let mut x = number ^ (len as u64) << 48;
    out.extend((HEADER..len).map(|_| {
        x = x
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (x >> 56) as u8
    }));
}

/// The number of a datagram with room for one.
fn number(bytes: &[u8]) -> Option<u64> {
    (bytes.len() >= HEADER).then_some(())?;
    bytes.first_chunk().map(|n| u64::from_be_bytes(*n))
}

/// Whether all of a datagram's octets are what its number and length say.
pub fn is_right(scratch: &mut Vec<u8>, bytes: &[u8]) -> bool {
    number(bytes).is_some_and(|number| {
        datagram(scratch, number, bytes.len());
        scratch == bytes
    })
}

/// What became of the datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficCounters {
    /// Handed to the socket.
    pub sent: u64,
    /// Echoed, with every octet right.
    pub received: u64,
    /// Not echoed in time.
    pub lost: u64,
    /// Echoed with a wrong octet or length.
    pub corrupt: u64,
    /// Echoed with every octet right after having counted as lost.
    pub late: u64,
    /// Echoed twice, or never sent.
    pub stray: u64,
}

/// The host's side of an echo exchange.
pub struct Traffic {
    socket: UdpSocket,
    rng: ChaCha8Rng,
    /// The largest payload in one frame.
    most: usize,
    /// Number to length and time of sending.
    outstanding: BTreeMap<u64, (usize, SimTime)>,
    /// Number to length of those given up: a card that waits for a completion that never comes sends them late.
    given_up: BTreeMap<u64, usize>,
    counters: TrafficCounters,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
}

impl Traffic {
    /// Opens its socket; sizes, up to what fits in one frame, are drawn from `seed`.
    ///
    /// # Errors
    /// What the stack reports.
    pub fn start(stack: &mut Stack, seed: u64, mtu: u16) -> io::Result<Self> {
        Ok(Traffic {
            socket: UdpSocket::bind(stack, (Ipv4Addr::UNSPECIFIED, 0))?,
            rng: ChaCha8Rng::seed_from_u64(seed),
            most: usize::from(mtu) - HEADERS,
            outstanding: BTreeMap::new(),
            given_up: BTreeMap::new(),
            counters: TrafficCounters::default(),
            buffer: vec![0; mtu.into()],
            scratch: Vec::new(),
        })
    }

    /// The counts so far.
    pub fn counters(&self) -> TrafficCounters {
        self.counters
    }

    /// Datagrams on their way.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// Sends until `window` datagrams are on their way.
    ///
    /// # Errors
    /// What the socket reports, but for a full queue.
    pub fn send(&mut self, stack: &mut Stack, now: SimTime, window: usize) -> io::Result<()> {
        while self.outstanding.len() < window {
            let number = self.counters.sent;
            let len = self.rng.random_range(HEADER..=self.most);
            datagram(&mut self.scratch, number, len);
            match self
                .socket
                .send_to(stack, &self.scratch, (peer::ADDRESS, peer::ECHO_PORT))
            {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            self.outstanding.insert(number, (len, now));
            self.counters.sent += 1;
        }
        Ok(())
    }

    /// Takes what has come back, and gives up what was sent before `deadline`.
    pub fn receive(&mut self, stack: &mut Stack, deadline: SimTime) {
        while let Ok((len, _)) = self.socket.recv_from(stack, &mut self.buffer) {
            let bytes = &self.buffer[..len];
            if !is_right(&mut self.scratch, bytes) {
                self.counters.corrupt += 1;
                continue;
            }
            let number = number(bytes).unwrap_or(u64::MAX);
            let waiting = self.outstanding.remove(&number).map(|(sent, _)| sent);
            match (waiting, self.given_up.remove(&number)) {
                (Some(sent), _) if sent == len => self.counters.received += 1,
                (None, Some(sent)) if sent == len => self.counters.late += 1,
                (None, None) => self.counters.stray += 1,
                _ => self.counters.corrupt += 1,
            }
        }
        let (given_up, counters) = (&mut self.given_up, &mut self.counters);
        self.outstanding.retain(|number, (len, at)| {
            let keep = *at >= deadline;
            if !keep {
                given_up.insert(*number, *len);
                counters.lost += 1;
            }
            keep
        });
    }
}
