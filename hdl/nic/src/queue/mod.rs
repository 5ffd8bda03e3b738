//! Packed virtqueues: descriptor fetch, receive, transmit, used write-back, notification.

pub mod bytes;
pub mod control;
pub mod draft;
pub mod elements;
pub mod fetch;
pub mod gro;
pub mod lifecycle;
pub mod mux;
pub mod notify;
pub mod receive;
pub mod receive_count;
pub mod receive_plan;
pub mod receive_source;
pub mod receive_write;
pub mod ring;
pub mod slots;
pub mod transmit;
pub mod transmit_gather;
pub mod transmit_read;
pub mod used;

pub use control::ControlEngine;
pub use receive::ReceiveEngine;
pub use transmit::TransmitEngine;
