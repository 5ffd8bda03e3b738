//! Trace points: where one packet is, as `tracing` events with the packet's identity.
//!
//! Each event has the target [`PACKET`], the level `TRACE`, and the fields `id` ([`packet_id`] of the frame as
//! it was on the wire; 0 where the stage does not know the packet), `stage` ([`Stage::name`]) and `at`
//! (nanoseconds of the stack's clock; 0 where the stage has no clock). With no subscriber that wants them an
//! event costs a load and a branch, and no identity is computed.
//!
//! A packet of ours has no frame before the device gets it: until then its identity is one that the stack gave it, and
//! stays so for its completion. The event of [`Stage::StartXmit`] has the field `frame` beside, the identity of the
//! frame that the wire will see; for a packet that the device cuts into segments that is the identity of none.

use std::hash::BuildHasher;

use super::skb::SkBuff;
use super::time::Instant;
use crate::stack::Stack;

/// Target of the events.
pub const PACKET: &str = "hematite::packet";

macro_rules! stages {
    ($( $(#[$doc:meta])* $variant:ident = $name:literal, )*) => {
        /// A place on the way of a packet: received up to [`Stage::Recv`], sent from [`Stage::Send`] on.
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
    /// The program's call has copied it.
    Send = "send",
    /// It has its transport header.
    TransportOut = "transport output",
    /// It has its IP header.
    LocalOut = "LOCAL_OUT",
    /// Its route is settled.
    PostRouting = "POST_ROUTING",
    /// The neighbour is known; it enters the queueing discipline.
    Qdisc = "qdisc",
    /// The driver gets it.
    StartXmit = "start_xmit",
    /// Its last octet, that of the FCS, left the card.
    WireTx = "wire tx",
    /// The driver has its buffer back.
    Completion = "completion",
}

/// The identity of a frame, from its Ethernet header on and without FCS (64-bit FNV-1a). Never zero.
pub fn packet_id(frame: &[u8]) -> u64 {
    let hash = frame.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    hash.max(1)
}

/// Whether somebody listens.
#[inline(always)]
pub fn enabled() -> bool {
    // The first is one load.
    tracing::level_filters::LevelFilter::current() == tracing::Level::TRACE && target_enabled()
}

#[cold]
fn target_enabled() -> bool {
    tracing::enabled!(target: PACKET, tracing::Level::TRACE)
}

/// Tells that a packet is somewhere.
pub fn packet(id: u64, stage: Stage, at_nanos: u64) {
    tracing::trace!(target: PACKET, id, stage = stage.name(), at = at_nanos);
}

/// Tells that a packet goes to the device, and which frame it will be.
fn start_xmit(id: u64, frame: u64, at_nanos: u64) {
    let stage = Stage::StartXmit.name();
    tracing::trace!(target: PACKET, id, stage, at = at_nanos, frame);
}

/// Bytes of the shortest frame without its FCS: shorter ones are padded.
const ETH_ZLEN: usize = 60;

/// The identity of the frame that a packet will be on the wire: with its checksum, and padded.
fn wire_id(skb: &SkBuff) -> u64 {
    let mut frame = SkBuff::with_capacity(skb.headroom() + skb.len().max(ETH_ZLEN));
    // A copy that fits; what cannot be summed is sent as it is.
    let _ = frame.copy_packet(skb);
    let _ = frame.checksum_help();
    let padding = ETH_ZLEN.saturating_sub(frame.len());
    let _ = frame.put_slice(&[0; ETH_ZLEN][..padding]);
    packet_id(frame.data())
}

/// A packet about to be handed to the device, if somebody listens.
pub(crate) struct Leaving {
    id: u64,
    frame: u64,
}

impl Leaving {
    pub(crate) fn of(skb: &SkBuff) -> Option<Self> {
        enabled().then(|| Self {
            id: skb.packet_id(),
            frame: wire_id(skb),
        })
    }

    /// The device has it.
    pub(crate) fn gone(self, now: Instant) {
        start_xmit(self.id, self.frame, now.as_nanos());
    }
}

impl Stack {
    /// Gives a packet of ours an identity, if somebody listens, and tells where it is.
    pub(crate) fn trace_own_packet(&mut self, skb: &mut SkBuff, stage: Stage) {
        if !enabled() {
            return;
        }
        if skb.packet_id() == 0 {
            self.traced += 1;
            // Its own in each stack, as far as 64 bits go.
            skb.set_packet_id(self.hash.hash_one(self.traced).max(1));
        }
        self.trace_packet(skb, stage);
    }

    /// Tells that a packet is somewhere now.
    pub(crate) fn trace_packet(&self, skb: &SkBuff, stage: Stage) {
        tracing::trace!(target: PACKET, id = skb.packet_id(), stage = stage.name(), at = self.now.as_nanos());
    }
}
