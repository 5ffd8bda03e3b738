//! What the virtio registers tell a queue engine, and what they hear from it.

use hematite_lang::prelude::*;

/// When to notify the driver of used buffers (virtio 1.3 section 5.1.6.5.8): with either at 0, after each packet.
#[hw(value)]
pub struct Coalesce {
    /// Packets of which the last causes a notification.
    pub max_packets: Bits<16>,
    /// Microseconds between notifications that fewer packets than that wait for.
    pub max_usecs: Bits<16>,
}

/// One virtqueue's configuration, leaving the virtio registers (virtio 1.3 section 4.1.4.3).
#[hw(interface)]
#[join(QueueConfigIn)]
pub struct QueueConfigOut {
    /// The queue is enabled and the driver is ready (DRIVER_OK). Falling: take no new work, finish
    /// what is in flight; the configuration stays stable until `idle`.
    pub run: Signal<Out, Bit>,
    /// Descriptors in the ring, 1..=4096, not necessarily a power of two.
    pub size: Signal<Out, Bits<13>>,
    /// MSI-X vector, 0xffff for none.
    pub vector: Signal<Out, Bits<16>>,
    /// High for one cycle at each doorbell of this queue.
    pub notify: Signal<Out, Bit>,
    /// The engine has nothing in flight and has forgotten its ring position.
    pub idle: Signal<In, Bit>,
    /// The queue hit an error that needs a device reset; high until `run` falls.
    pub failed: Signal<In, Bit>,
}

/// One virtqueue's configuration, entering its engine.
#[hw(interface)]
#[join(QueueConfigOut)]
pub struct QueueConfigIn {
    /// The queue is enabled and the driver is ready (DRIVER_OK). Falling: take no new work, finish
    /// what is in flight; the configuration stays stable until `idle`.
    pub run: Signal<In, Bit>,
    /// Descriptors in the ring, 1..=4096, not necessarily a power of two.
    pub size: Signal<In, Bits<13>>,
    /// MSI-X vector, 0xffff for none.
    pub vector: Signal<In, Bits<16>>,
    /// High for one cycle at each doorbell of this queue.
    pub notify: Signal<In, Bit>,
    /// The engine has nothing in flight and has forgotten its ring position.
    pub idle: Signal<Out, Bit>,
    /// The queue hit an error that needs a device reset; high until `run` falls.
    pub failed: Signal<Out, Bit>,
}

/// An engine asks where something of a queue is in host memory. What is asked for stays until it is found.
#[hw(interface)]
#[join(LocateIn)]
pub struct LocateOut {
    /// Of this queue.
    pub queue: Signal<Out, Bits<5>>,
    /// In its driver area, else in its descriptor area.
    pub driver: Signal<Out, Bit>,
    /// So many times 16 bytes behind its start.
    pub slot: Signal<Out, Bits<12>>,
    /// It is asked for.
    pub valid: Signal<Out, Bit>,
    /// Its first byte.
    pub address: Signal<In, Bits<64>>,
    /// That is known: high for one cycle. Means nothing to one that asks no more.
    pub found: Signal<In, Bit>,
}

/// An engine asks where something of a queue is, at the side that knows it.
#[hw(interface)]
#[join(LocateOut)]
pub struct LocateIn {
    /// Of this queue.
    pub queue: Signal<In, Bits<5>>,
    /// In its driver area, else in its descriptor area.
    pub driver: Signal<In, Bit>,
    /// So many times 16 bytes behind its start.
    pub slot: Signal<In, Bits<12>>,
    /// It is asked for.
    pub valid: Signal<In, Bit>,
    /// Its first byte.
    pub address: Signal<Out, Bits<64>>,
    /// That is known: high for one cycle. Means nothing to one that asks no more.
    pub found: Signal<Out, Bit>,
}

/// A request for an MSI-X message, leaving a queue or the virtio registers.
#[hw(interface)]
#[join(InterruptIn)]
pub struct InterruptOut {
    /// MSI-X vector; 0xffff is taken and dropped.
    pub vector: Signal<Out, Bits<16>>,
    /// A message is asked for.
    pub valid: Signal<Out, Bit>,
    /// One will be asked for when its time has come, with nothing happening before that.
    pub held: Signal<Out, Bit>,
    /// The request is taken; every write whose `done` was seen before reaches the host first.
    pub ready: Signal<In, Bit>,
}

/// A request for an MSI-X message, entering the MSI-X block.
#[hw(interface)]
#[join(InterruptOut)]
pub struct InterruptIn {
    /// MSI-X vector; 0xffff is taken and dropped.
    pub vector: Signal<In, Bits<16>>,
    /// A message is asked for.
    pub valid: Signal<In, Bit>,
    /// One will be asked for when its time has come, with nothing happening before that.
    pub held: Signal<In, Bit>,
    /// The request is taken; every write whose `done` was seen before reaches the host first.
    pub ready: Signal<Out, Bit>,
}

/// Commands of the control virtqueue, byte by byte, leaving its engine; replies come back.
#[hw(interface)]
#[join(CommandIn)]
pub struct CommandOut {
    /// A command begins: forget the bytes of one that was not carried out.
    pub start: Signal<Out, Bit>,
    /// The next byte: class, command, command-specific data (virtio 1.3 section 5.1.6.5).
    pub byte: Signal<Out, Bits<8>>,
    /// There is one; it is taken at once.
    pub byte_valid: Signal<Out, Bit>,
    /// The command is complete: high for one cycle.
    pub execute: Signal<Out, Bit>,
    /// It is carried out, or refused; the reply stands until `start`.
    pub executed: Signal<In, Bit>,
    /// Bytes of the reply: results and ack, at least 1.
    pub reply_length: Signal<In, Bits<16>>,
    /// The next byte of the reply.
    pub reply: Signal<In, Bits<8>>,
    /// There is one, sooner or later, of the reply's length.
    pub reply_valid: Signal<In, Bit>,
    /// It is taken; only when `reply_valid` is high.
    pub reply_ready: Signal<Out, Bit>,
}

/// Commands of the control virtqueue, entering what carries them out.
#[hw(interface)]
#[join(CommandOut)]
pub struct CommandIn {
    /// A command begins: forget the bytes of one that was not carried out.
    pub start: Signal<In, Bit>,
    /// The next byte: class, command, command-specific data (virtio 1.3 section 5.1.6.5).
    pub byte: Signal<In, Bits<8>>,
    /// There is one; it is taken at once.
    pub byte_valid: Signal<In, Bit>,
    /// The command is complete: high for one cycle.
    pub execute: Signal<In, Bit>,
    /// It is carried out, or refused; the reply stands until `start`.
    pub executed: Signal<Out, Bit>,
    /// Bytes of the reply: results and ack, at least 1.
    pub reply_length: Signal<Out, Bits<16>>,
    /// The next byte of the reply.
    pub reply: Signal<Out, Bits<8>>,
    /// There is one, sooner or later, of the reply's length.
    pub reply_valid: Signal<Out, Bit>,
    /// It is taken; only when `reply_valid` is high.
    pub reply_ready: Signal<In, Bit>,
}
