//! virtio-net driver: packed virtqueues and NAPI.
//!
//! [`VirtioNet`] drives any modern virtio network device with packed rings behind a
//! [`PciFunction`](hematite_bus::PciFunction), in the shape of Linux's `virtio_net`:
//!
//! | here | Linux |
//! |---|---|
//! | [`transport`] | `virtio_pci_modern_dev.c` |
//! | [`features`] | `virtio.c`, feature negotiation |
//! | [`packed`] | `virtio_ring.c`, the packed half |
//! | [`napi`] | `net/core/dev.c`: `napi_schedule`, `net_rx_action` |
//! | [`rx`], [`tx`], [`net`] | `virtio_net.c` |
//! | [`ethtool`], [`card`], [`device_stats`] | `virtnet_ethtool_ops` |
//!
//! # The device is trusted for nothing
//! Whatever a device writes into a ring is checked before use. What makes no sense is a typed
//! [`DeviceFault`]: the queues stop, the device is reset (by a function-level reset if need be), and
//! [`VirtioNet::reset_and_restore`] brings the interface back. Memory that a device may still know is never
//! reused.
#![forbid(unsafe_code)]

pub mod card;
pub mod channels;
mod ctrl;
pub mod device_stats;
pub mod dim;
pub mod error;
pub mod ethtool;
pub mod features;
mod init;
pub mod napi;
pub mod net;
mod netdev;
pub mod packed;
mod poll;
pub mod port;
mod queue;
pub mod rx;
mod rx_mode;
mod rx_page;
mod selftest;
pub mod transport;
pub mod tx;
mod upper;
mod vnet_hdr;
pub mod xdp;

pub use card::CardCounters;
pub use channels::{Channels, RxFlowHash};
pub use device_stats::{DeviceStats, StatsQueue};
pub use error::{DeviceFault, Error};
pub use ethtool::CoalesceParam;
pub use net::{Options, State, VirtioNet};
pub use port::{Duplex, LinkSettings, PauseParam};
pub use rx::NapiReceive;
pub use upper::StackReceive;
pub use xdp::{XdpAction, XdpBuff, XdpProgram};
