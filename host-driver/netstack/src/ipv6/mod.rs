//! IPv6 and what runs on it, as in the kernel's net/ipv6.

pub mod addrconf;
pub(crate) mod exthdrs;
pub mod icmp;
mod ip6_input;
mod ip6_output;
mod mcast;
mod ndisc;
mod reassembly;
pub mod route;
