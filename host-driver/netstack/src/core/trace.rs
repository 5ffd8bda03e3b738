//! Trace points: where one packet is, as `tracing` events with the packet's identity.
//!
//! Each event has the target [`PACKET`], the level `TRACE`, and the fields `id` ([`packet_id`] of the frame as
//! it was on the wire; 0 where the stage does not know the packet), `stage` ([`Stage::name`]) and `at`
//! (nanoseconds of the stack's clock; 0 where the stage has no clock). With no subscriber that wants them an
//! event costs a load and a branch, and no identity is computed.

use super::skb::SkBuff;
use crate::stack::Stack;

/// Target of the events.
pub const PACKET: &str = "hematite::packet";

macro_rules! stages {
    ($( $(#[$doc:meta])* $variant:ident = $name:literal, )*) => {
        /// A place on the way of a received packet.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Stage { $( $(#[$doc])* $variant, )* }

        impl Stage {
            /// All stages, in the order in which a packet passes them.
            pub const ALL: &[Self] = &[ $( Self::$variant, )* ];

            /// The name in events.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }
        }
    };
}

stages! {
    /// The first octet is on the wire.
    Wire = "wire",
    /// The last octet, that of the FCS, is on the wire.
    WireEnd = "wire end",
    /// The card writes to host memory.
    Dma = "DMA",
    /// The interrupt message arrives.
    Irq = "IRQ",
    /// The interrupt handler runs.
    IrqHandler = "IRQ handler",
    /// The driver's poll takes the packet from its ring.
    Napi = "NAPI",
    /// The stack gets it, to be merged or not.
    Gro = "GRO",
    /// Past the taps, on to the protocol.
    NetifReceive = "netif_receive_skb",
    /// The IP header is good.
    PreRouting = "PRE_ROUTING",
    /// It is for this host.
    LocalIn = "LOCAL_IN",
    /// TCP, UDP or ICMP.
    Transport = "transport",
    /// In the receive queue of its socket.
    Socket = "socket",
    /// The program has it.
    Recv = "recv",
}

/// The identity of a frame, from its Ethernet header on and without FCS (64-bit FNV-1a). Never zero.
pub fn packet_id(frame: &[u8]) -> u64 {
    let hash = frame.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    hash.max(1)
}

/// Whether somebody listens.
pub fn enabled() -> bool {
    tracing::enabled!(target: PACKET, tracing::Level::TRACE)
}

/// Tells that a packet is somewhere.
pub fn packet(id: u64, stage: Stage, at_nanos: u64) {
    tracing::trace!(target: PACKET, id, stage = stage.name(), at = at_nanos);
}

impl Stack {
    /// Tells that a packet is somewhere now.
    pub(crate) fn trace_packet(&self, skb: &SkBuff, stage: Stage) {
        tracing::trace!(target: PACKET, id = skb.packet_id(), stage = stage.name(), at = self.now.as_nanos());
    }
}
