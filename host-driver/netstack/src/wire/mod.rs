//! Typed views of headers on the wire, in place and without copies.
//!
//! Each view is a `zerocopy` struct: getting one from bytes checks the length and nothing else; what the
//! fields may hold is checked by the layer that uses them.

pub mod arp;
pub mod ethernet;
pub mod icmp;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod tcp;
pub mod udp;
