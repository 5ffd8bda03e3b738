//! Protocol-independent networking, as in the kernel's net/core.

pub mod addr;
pub mod af_packet;
pub mod checksum;
pub mod dev;
pub mod dev_addr_lists;
pub mod drop_reason;
pub(crate) mod dst;
mod ethtool;
pub mod filter;
mod flow_limit;
pub(crate) mod fnhe;
pub mod gro;
pub mod gso;
pub(crate) mod mcast;
pub mod neighbour;
pub mod netdevice;
pub mod pool;
pub mod rps;
pub mod skb;
pub(crate) mod sock;
pub mod softnet;
pub mod tap;
pub mod time;
pub mod timer;
pub mod trace;
