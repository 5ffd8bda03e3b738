//! What tests of two hosts on one wire say often.

use std::io::ErrorKind;
use std::net::Ipv4Addr;

use hematite_netstack::{NeighKey, NudState};

use super::Host;

pub const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 99);
pub const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

pub fn payload(len: usize, salt: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i.wrapping_mul(31) ^ salt.wrapping_mul(7)) as u8)
        .collect()
}

pub fn neighbour(host: &Host, addr: Ipv4Addr) -> Option<NudState> {
    host.stack
        .neighbours()
        .get(NeighKey {
            ifindex: host.ifindex,
            addr: addr.into(),
        })
        .map(|e| e.state)
}

pub fn kind<T>(result: std::io::Result<T>) -> Result<T, ErrorKind> {
    result.map_err(|e| e.kind())
}
