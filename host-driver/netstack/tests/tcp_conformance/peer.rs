//! A peer made of crafted segments.

use std::time::Duration;

use crate::common::frames::{ethernet, ipv4};
use crate::common::tcp::{A, B};
use crate::common::{Host, seed};
use etherparse::{TcpHeader, TcpOptionElement, TcpSlice};
use hematite_netstack::{Instant, StackConfig, TcpListener, TcpStream};

pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const MS: Duration = Duration::from_millis(1);

/// A segment as the peer sees it.
#[derive(Debug, Clone)]
pub struct Seg {
    pub header: TcpHeader,
    pub payload: Vec<u8>,
}

impl Seg {
    pub fn options(&self) -> &[u8] {
        self.header.options.as_slice()
    }

    pub fn sacks(&self) -> Vec<(u32, u32)> {
        self.header
            .options_iterator()
            .filter_map(|o| match o.unwrap() {
                TcpOptionElement::SelectiveAcknowledgement(first, rest) => Some((first, rest)),
                _ => None,
            })
            .flat_map(|(first, rest)| std::iter::once(first).chain(rest.into_iter().flatten()))
            .collect()
    }
}

/// Our host and a peer that is us.
pub struct Peer {
    pub host: Host,
    pub now: Instant,
    pub port: u16,
    pub our_port: u16,
    /// The peer's next sequence number, and what it expects.
    pub seq: u32,
    pub ack: u32,
}

impl Peer {
    pub fn new(config: StackConfig) -> Self {
        let now = Instant::from_secs(1000);
        let mut host = Host::new(1, config, seed(1));
        host.stack.poll(now);
        host.stack
            .add_neighbour(host.ifindex, B, PEER_MAC.into())
            .unwrap();
        Self {
            host,
            now,
            port: 4000,
            our_port: 80,
            seq: 10_000,
            ack: 0,
        }
    }

    pub fn send(&mut self, edit: impl FnOnce(&mut TcpHeader), payload: &[u8]) {
        let mut header = TcpHeader::new(self.port, self.our_port, self.seq, 60_000);
        (header.ack, header.acknowledgment_number) = (true, self.ack);
        edit(&mut header);
        header.checksum = header
            .calc_checksum_ipv4_raw(B.octets(), A.octets(), payload)
            .unwrap();
        let segment = [&header.to_bytes()[..], payload].concat();
        let frame = ethernet(OUR_MAC, PEER_MAC, 0x0800, &ipv4(B, A, 6, &segment, |_| {}));
        self.host.receive(&frame, self.now);
    }

    /// What our host has sent.
    pub fn sent(&mut self) -> Vec<Seg> {
        let frames = self.host.transmit(self.now);
        frames
            .iter()
            .filter_map(|f| {
                let ip = etherparse::Ipv4Slice::from_slice(f.get(14..)?).ok()?;
                let tcp = TcpSlice::from_slice(ip.payload().payload).ok()?;
                let sum = tcp.calc_checksum_ipv4(A.octets(), B.octets()).unwrap();
                assert_eq!(tcp.checksum(), sum, "checksum of what we send");
                Some(Seg {
                    header: tcp.to_header(),
                    payload: tcp.payload().to_vec(),
                })
            })
            .collect()
    }

    pub fn only(&mut self) -> Seg {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    pub fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.host.stack.poll(self.now);
    }

    /// The peer connects with these options.
    pub fn connect(&mut self, listener: &TcpListener, options: &[u8]) -> TcpStream {
        self.send(
            |h| {
                (h.syn, h.ack, h.acknowledgment_number) = (true, false, 0);
                h.set_options_raw(options).unwrap();
            },
            b"",
        );
        let synack = self.only();
        assert!(synack.header.syn && synack.header.ack);
        assert_eq!(synack.header.acknowledgment_number, self.seq + 1);
        self.seq += 1;
        self.ack = synack.header.sequence_number.wrapping_add(1);
        self.send(|_| {}, b"");
        listener.accept(&mut self.host.stack).unwrap().0
    }
}

pub fn established(options: &[u8]) -> (Peer, TcpListener, TcpStream) {
    let mut peer = Peer::new(StackConfig::default());
    let listener = TcpListener::bind(&mut peer.host.stack, (A, 80)).unwrap();
    let stream = peer.connect(&listener, options);
    assert!(peer.sent().is_empty());
    (peer, listener, stream)
}

pub const MSS_SACK: [u8; 8] = [2, 4, 5, 0xb4, 1, 1, 4, 2];
