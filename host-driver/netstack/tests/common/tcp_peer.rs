//! A host, and a peer of it that is made of crafted segments.

use std::time::Duration;

use etherparse::{TcpHeader, TcpSlice};
use hematite_netstack::{Instant, StackConfig};

use super::Host;
use super::frames::{ethernet, ipv4};
use super::tcp::{A, B};

pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A segment as the peer sees it.
#[derive(Debug, Clone)]
pub struct Seg {
    pub header: TcpHeader,
    pub payload: Vec<u8>,
    /// ECN field of the IP header.
    pub ecn: u8,
}

/// Our host at [`A`] and the wire to the peer at [`B`].
pub struct TcpPeer {
    pub host: Host,
    pub now: Instant,
}

impl TcpPeer {
    pub fn new(config: StackConfig) -> Self {
        let now = Instant::from_secs(1000);
        let mut host = Host::new(1, config, 1);
        host.stack.poll(now);
        host.stack
            .add_neighbour(host.ifindex, B, PEER_MAC.into())
            .unwrap();
        Self { host, now }
    }

    /// The peer sends a segment; its checksum is made here and then spoilt with `damage`.
    pub fn send(&mut self, header: TcpHeader, payload: &[u8], damage: u16) {
        self.send_marked(header, payload, damage, 0);
    }

    /// The same with an ECN field in the IP header.
    pub fn send_marked(&mut self, mut header: TcpHeader, payload: &[u8], damage: u16, ecn: u8) {
        header.checksum = header
            .calc_checksum_ipv4_raw(B.octets(), A.octets(), payload)
            .unwrap();
        header.checksum ^= damage;
        let segment = [&header.to_bytes()[..], payload].concat();
        self.send_ip(6, &segment, ecn);
    }

    /// The peer sends a datagram.
    pub fn send_ip(&mut self, protocol: u8, payload: &[u8], ecn: u8) {
        let packet = ipv4(B, A, protocol, payload, |ip| {
            ip.ecn = etherparse::IpEcn::try_new(ecn).unwrap();
        });
        let frame = ethernet(OUR_MAC, PEER_MAC, 0x0800, &packet);
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
                    ecn: ip.header().ecn().value(),
                })
            })
            .collect()
    }

    pub fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.host.stack.poll(self.now);
    }
}
