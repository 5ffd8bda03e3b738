//! Hardware GRO: segments of a TCP flow become one packet while they are written to host memory.
//!
//! # The life of a merged packet
//! 1. The parser offers a segment's [`FrameMeta`](crate::parse::FrameMeta) on `meta`. [`coalesce::Coalescer`] looks
//!    `flow` up in [`table::FlowTable`]; `hits` is empty, so it takes a free context (or has the oldest completed
//!    first), and gives the planner the job `Examine`.
//! 2. [`PacketSource`](super::receive_source::PacketSource) takes the beats with headers from `frame` into one half of the
//!    context's place in [`store::HeaderStore`] and says `examined_valid`.
//! 3. The coalescer gives the job `Open`. The planner takes buffers for virtio header and frame as for any frame, but
//!    notes in `places` where in the last one the next byte goes, and in `beginnings` where the packet starts.
//!    The source makes the packet of the stored headers and the rest of the frame; the writer writes it. The
//!    coalescer notes in `contexts` what would continue it ([`rules::Held`]). If nothing ever does, the packet is right
//!    as it is: an ordinary frame, with no byte written twice.
//! 4. The next segment of the flow hits the context. It is examined: its headers go to the other half, and
//!    [`compare::HeaderComparer`] compares them with the first half on the way. [`rules::continues`] says that it joins;
//!    the job is `Append`. Of the frame only the payload is written, from where `places` says, into further buffers
//!    when the last is full. A buffer that is full goes to [`filled::FilledBuffers`], which keeps it: the
//!    driver must not see it yet. Frames of other flows come and go in between.
//! 5. Something completes the packet ([`coalesce`] lists what). The job `Close` writes the virtio header, now with
//!    `gso_type`, `gso_size`, `num_buffers` and what else there is to tell
//!    ([`virtio_header`](super::receive_source::virtio_header)), and the stored headers with new lengths, checksums
//!    and flags ([`patch::HeaderPatcher`]) over those at the packet's beginning. Behind that write, the last buffer
//!    makes `FilledBuffers` hand on the whole list; `UsedWriter` writes the used descriptors, the first of them last,
//!    and `Notifier` tells the driver. Descriptors are used in another order than they were made available: packed
//!    rings without VIRTIO_F_IN_ORDER allow it, the ID says which is meant.
//!
//! # Why nothing waits for ever, and nothing is overtaken
//! - Everything behind the coalescer works in order. A segment that does not join completes its flow's packet
//!   first, so does a frame that may belong to any flow, and the first whose flow was hashed with another key.
//! - A frame is planned only when there are buffers for all of it: the planner waits for nobody. If its queue has run dry,
//!   packets of that queue are completed until there are, or the driver has all other buffers.
//! - Interrupts do not complete packets. The driver is told of a packet when it is complete; a flow that
//!   goes on is not cut to pieces by the interrupts of others, and one that does not is complete after `timeout`,
//!   or after the shorter `idle` when no other frames come either.
//!
//! # What is not merged although it could be
//! Beside the rules: a packet whose first buffer is shorter than 256 bytes, what would follow a buffer of several ring slots,
//! or 64 buffers.

pub mod coalesce;
pub mod compare;
pub mod filled;
pub mod layout;
pub mod patch;
pub mod rules;
pub mod store;
pub mod table;
