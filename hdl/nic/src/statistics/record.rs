//! What the engines tell of packets, and how words are read.

use hematite_lang::prelude::*;

/// What the driver is told of a received packet's checksums.
#[hw]
pub enum Verdict {
    /// VIRTIO_NET_HDR_F_DATA_VALID.
    Valid,
    /// VIRTIO_NET_HDR_F_NEEDS_CSUM.
    Partial,
    /// Nothing: there is none that the card knows, or the offload is off.
    Unknown,
    /// Nothing: one is wrong.
    Bad,
}

/// A packet that is passed to the driver.
#[hw(value)]
pub struct ReceivedPacket {
    /// By which pair's receive queue.
    pub queue: Bits<3>,
    /// From the Ethernet header to its end, padding included, frame check sequence not.
    pub bytes: Bits<17>,
    /// What is said of its checksums.
    pub verdict: Verdict,
    /// Frames that joined the first: 0 for a packet that is not merged.
    pub joined: Bits<16>,
    /// Bytes of headers, which each of them had; for a merged packet.
    pub headers: Bits<8>,
}

/// A frame that goes to the wire.
#[hw(value)]
pub struct SentFrame {
    /// From which pair's transmit queue.
    pub queue: Bits<3>,
    /// From the Ethernet header to its end, neither padding nor frame check sequence.
    pub bytes: Bits<14>,
    /// The card filled in its checksum.
    pub checksum: Bit,
    /// It is of a packet that was to be cut into segments.
    pub segment: Bit,
    /// It is the first frame of its packet.
    pub first: Bit,
    /// It is the last, which is always so without `segment`.
    pub last: Bit,
    /// With `segment` and `last`: bytes of the packet as the driver had it.
    pub packet_bytes: Bits<17>,
}

/// A packet that is dropped, in the cycle when it is.
#[hw(value)]
pub struct DroppedPacket {
    /// There is one.
    pub valid: Bit,
    /// Of which pair's queue, receive or transmit.
    pub queue: Bits<3>,
    /// On receive: no descriptor was available. On transmit: the driver is to blame, its descriptors or its header.
    pub special: Bit,
}

/// Reads of words, leaving who wants them.
#[hw(interface)]
#[join(CountReadIn)]
pub struct CountReadOut {
    /// Address of the word, see [`layout`](super::layout).
    pub place: Signal<Out, Bits<9>>,
    /// It is wanted; stays until `done`.
    pub valid: Signal<Out, Bit>,
    /// The word, with `done`.
    pub data: Signal<In, Bits<64>>,
    /// Here it is: high for one cycle.
    pub done: Signal<In, Bit>,
    /// Whatever happened before the pulse before last is counted.
    pub round: Signal<In, Bit>,
}

/// Reads of words, entering the memory.
#[hw(interface)]
#[join(CountReadOut)]
pub struct CountReadIn {
    /// Address of the word, see [`layout`](super::layout).
    pub place: Signal<In, Bits<9>>,
    /// It is wanted; stays until `done`.
    pub valid: Signal<In, Bit>,
    /// The word, with `done`.
    pub data: Signal<Out, Bits<64>>,
    /// Here it is: high for one cycle.
    pub done: Signal<Out, Bit>,
    /// Whatever happened before the pulse before last is counted.
    pub round: Signal<Out, Bit>,
}
