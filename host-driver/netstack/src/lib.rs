//! A sans-I/O IP stack on Linux's packet path.
//!
//! The modules have the names of the kernel's files, so that whoever knows the way of a packet through
//! Linux finds each stage in its place:
//!
//! ```text
//!   driver (NAPI)                         socket send
//!      | Stack::napi_gro_receive, receive     | udp_sendmsg           ipv4/udp.rs
//!      v                                      v
//!   GRO, RPS, backlogs  core/{gro,rps,softnet}.rs
//!      v                                      v
//!   eth_type_trans, taps, ptype   core/dev.rs ip_route_output         ipv4/route.rs, fib.rs, fib_trie.rs
//!      |                                      v
//!      +-> arp_rcv -> neighbour   ipv4/arp.rs ip_send_skb             ipv4/ip_output.rs
//!      v                 core/neighbour.rs    v
//!   ip_rcv, route       ipv4/ip_input.rs  neigh_output                core/neighbour.rs
//!      v                                      v
//!   ip_local_deliver                      dev_queue_xmit, qdisc       core/dev.rs, sched/
//!      v                                      v Stack::qdisc_run
//!   icmp_rcv, udp_rcv  ipv4/{icmp,udp}.rs taps, NetDevice::start_xmit
//!      v
//!   socket queue, recv_from   socket.rs; who waits for it: eventpoll.rs, wait.rs
//! ```
//!
//! IPv6 goes the same way through [`ipv6`] (`ipv6_rcv`, `ip6_input`, `ip6_forward`, `ip6_output`, `ndisc`), with the
//! same tables of routes, neighbours, fragments and groups; UDP, ping and raw sockets are one for both families
//! ([`Domain`]). It starts when an
//! interface comes up, unless [`StackConfig::disable_ipv6`] says otherwise. [`dhcp`] and [`dns`] are clients on
//! the stack's own sockets.
//!
//! There is no I/O and no clock in here: the owner of a [`Stack`] hands in frames and time and lends the
//! devices. No input makes it panic; every packet that is dropped is counted under a
//! [`SkbDropReason`]; in steady state no packet allocates ([`SkbPool`]).
//!
//! ```
//! use hematite_netstack::{Instant, Stack, StackConfig, UdpSocket};
//! use std::net::Ipv4Addr;
//!
//! let mut stack = Stack::new(StackConfig::default(), 1);
//! let server = UdpSocket::bind(&mut stack, (Ipv4Addr::LOCALHOST, 7))?;
//! let client = UdpSocket::bind(&mut stack, (Ipv4Addr::UNSPECIFIED, 0))?;
//! client.send_to(&mut stack, b"hello", (Ipv4Addr::LOCALHOST, 7))?;
//! stack.poll(Instant::from_millis(1));
//! let mut buf = [0; 16];
//! let (len, from) = server.recv_from(&mut stack, &mut buf)?;
//! assert_eq!(&buf[..len], b"hello");
//! assert_eq!(from.port(), client.local_addr(&stack)?.port());
//! # std::io::Result::Ok(())
//! ```

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod config;
pub mod core;
pub mod dhcp;
pub mod dns;
pub mod errno;
mod eventpoll;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod ipv4;
pub mod ipv6;
#[cfg(test)]
mod mutate;
pub mod netfilter;
mod prandom;
pub mod sched;
mod show;
pub mod socket;
mod stack;
mod sysctl;
pub mod tcp;
#[cfg(test)]
mod testing;
pub mod wait;
pub mod wire;

pub use config::StackConfig;
pub use core::addr::{Cidr, InetAddr, Ipv4Cidr, Ipv6Cidr};
pub use core::af_packet::{PacketMeta, PacketSocket};
pub use core::dev::{QdiscRun, QdiscState};
pub use core::dev_addr_lists::RxMode;
pub use core::drop_reason::{DropCounters, SkbDropReason};
pub use core::dst::PmtuDisc;
pub use core::filter::{BpfError, BpfProgram, SockFilter, SocketFilter};
pub use core::gro::{GroFlush, GroStats};
pub use core::gso::TcpFrame;
pub use core::neighbour::{NeighEntry, NeighKey, NeighParms, NudState};
pub use core::netdevice::{DeviceFlags, Features, IfIndex, NetDevice, RtnlLinkStats64, TxBusy};
pub use core::pool::{SkbPool, SkbPoolStats};
pub use core::rps::CpuMask;
pub use core::skb::{DevicePage, Gso, GsoType, IpSummed, PktType, SkBuff, SkbError};
pub use core::softnet::{BacklogStats, CpuId};
pub use core::tap::{PacketTap, TapHandle, TapPacket};
pub use core::time::Instant;
pub use errno::Errno;
pub use eventpoll::{Epoll, EpollEvent, PollKey, Pollable, Trigger};
pub use ipv4::devinet::{Ipv4DevConf, RpFilter};
pub use ipv4::fib::{Route, RouteTable, RouteType};
pub use ipv4::ping::{EchoReply, PingSocket};
pub use ipv4::raw::RawSocket;
pub use ipv4::snmp::Snmp;
pub use ipv4::udp::UdpMeta;
pub use ipv6::addrconf::{AddrOrigin, AddrState, Inet6IfAddr, Ipv6DevConf};
pub use socket::{Domain, Readiness, UdpSocket};
pub use stack::Stack;
pub use tcp::{
    CongestionAlgorithm, TcpInfo, TcpKeepalive, TcpListener, TcpSocket, TcpState, TcpStream, TcpStreamIo,
};
pub use wire::ethernet::{EtherType, MacAddr};
