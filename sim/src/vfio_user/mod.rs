//! The co-simulated card as a vfio-user device: any client (QEMU, cloud-hypervisor, Hematite's own driver in another
//! process) maps its memory, and the card's RTL does the rest.
//!
//! ```text
//! client -- socket -- Backend --(Command)--> Engine: Machine = card RTL + root complex + wire
//!           door.rs   backend.rs             engine.rs, device.rs
//! ```
//! The server only translates. Region accesses become configuration and memory TLPs, DMA_MAP fills the table that the
//! root complex looks the card's own TLPs up in, MSI-X messages become eventfd writes, and a reset is a function-level
//! reset. What a real root port answers for a failed read, all ones, is answered here.
//!
//! Virtual time passes only while something is under way at the card's pins (or was until a moment ago), or the card says
//! that it holds something back for a time (an interrupt that is moderated, say); then the thread sleeps. The card counts cycles and knows no other time, so it does the
//! same as without the pause. The far end of the wire lives in real time, as the client does.

mod backend;
mod device;
mod door;
mod echo;
mod engine;
mod link;
mod maps;
mod peer;
mod vectors;

pub use door::{ServeError, Server};
pub use echo::Echo;
pub use engine::{Report, Setup};
pub use maps::{Access, MapTable};
pub use peer::{Peer, RealTime, Rest, ServedEndpoint};
