//! IPv4 and what runs on it, as in the kernel's net/ipv4.

mod arp;
pub mod devinet;
pub mod fib;
pub mod fib_trie;
pub mod icmp;
mod igmp;
pub(crate) mod inet_fragment;
mod ip_forward;
mod ip_fragment;
mod ip_input;
pub(crate) mod ip_options;
pub(crate) mod ip_output;
pub mod ping;
pub mod raw;
pub mod route;
pub mod snmp;
pub mod udp;
