//! The commands of the control virtqueue: one file a class of commands.
//!
//! `ControlEngine` (in `queue`) brings a command's bytes, [`Commands`] keeps them as a [`Command`] and offers that to
//! every class for one cycle; a class that accepts it has applied it a cycle later, and one that nobody accepts is
//! answered with VIRTIO_NET_ERR and has changed nothing.

pub mod coalescing;
pub mod command;
pub mod commands;

pub use command::Command;
pub use commands::Commands;
