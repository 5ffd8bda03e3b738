//! The commands of the control virtqueue: one file a class of commands.
//!
//! `ControlEngine` (in `queue`) brings a command's bytes; [`Commands`] shows them to every class as [`class::Step`]s:
//! once to be judged, and when a class accepts the command, once more to be carried out. So a long command is checked
//! to its end before anything changes, and a class needs no copy of it. One that nobody accepts is answered with
//! VIRTIO_NET_ERR and has changed nothing.
//!
//! A new class is a block with a port `step: Signal<In, Step>` and a port `answer: Signal<Out, Answer>`, a field of
//! [`Commands`] and three lines in its `update`.

pub mod address;
pub mod announce;
pub mod class;
pub mod coalescing;
pub mod commands;
pub mod multiqueue;
pub mod offloads;
pub mod receive_mode;
pub mod statistics;
pub mod vlan;

pub use class::{Answer, Step};
pub use commands::Commands;
