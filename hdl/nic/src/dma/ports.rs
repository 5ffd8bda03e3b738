//! The channels by which the card's blocks ask for host memory.

use hematite_lang::prelude::*;

/// A request to read host memory, leaving a client.
///
/// One response packet answers each request, in request order: the bytes packed from bit 0 of the
/// first beat, whatever the address. A response whose last beat has `error` set could not be read
/// (Unsupported Request, Completer Abort, poison or timeout); its data means nothing.
#[hw(interface)]
#[join(ReadRequestIn)]
pub struct ReadRequestOut {
    /// First byte, any alignment.
    pub address: Signal<Out, Bits<64>>,
    /// Bytes, 1..=65535.
    pub length: Signal<Out, Bits<16>>,
    /// A request is offered.
    pub valid: Signal<Out, Bit>,
    /// The request is taken.
    pub ready: Signal<In, Bit>,
}

/// A request to read host memory, entering the read engine.
#[hw(interface)]
#[join(ReadRequestOut)]
pub struct ReadRequestIn {
    /// First byte, any alignment.
    pub address: Signal<In, Bits<64>>,
    /// Bytes, 1..=65535.
    pub length: Signal<In, Bits<16>>,
    /// A request is offered.
    pub valid: Signal<In, Bit>,
    /// The request is taken.
    pub ready: Signal<Out, Bit>,
}

/// A request to write host memory, leaving a client; a packet of exactly `length` bytes, packed
/// from bit 0 of its first beat, follows on the client's data stream.
#[hw(interface)]
#[join(WriteRequestIn)]
pub struct WriteRequestOut {
    /// First byte, any alignment.
    pub address: Signal<Out, Bits<64>>,
    /// Bytes, 1..=65535.
    pub length: Signal<Out, Bits<16>>,
    /// A request is offered.
    pub valid: Signal<Out, Bit>,
    /// The request is taken.
    pub ready: Signal<In, Bit>,
}

/// A request to write host memory, entering the write engine.
#[hw(interface)]
#[join(WriteRequestOut)]
pub struct WriteRequestIn {
    /// First byte, any alignment.
    pub address: Signal<In, Bits<64>>,
    /// Bytes, 1..=65535.
    pub length: Signal<In, Bits<16>>,
    /// A request is offered.
    pub valid: Signal<In, Bit>,
    /// The request is taken.
    pub ready: Signal<Out, Bit>,
}

/// What the PCI function's configuration tells the DMA engines.
#[hw(interface)]
#[join(DmaConfigIn)]
pub struct DmaConfigOut {
    /// Bus, device and function, for the Requester ID.
    pub requester_id: Signal<Out, Bits<16>>,
    /// Max_Payload_Size as in Device Control: 128 bytes << code.
    pub max_payload: Signal<Out, Bits<3>>,
    /// Max_Read_Request_Size as in Device Control: 128 bytes << code.
    pub max_read_request: Signal<Out, Bits<3>>,
    /// Bus Master Enable: no request may start while it is low.
    pub bus_master: Signal<Out, Bit>,
}

/// What the PCI function's configuration tells the DMA engines, at their side.
#[hw(interface)]
#[join(DmaConfigOut)]
pub struct DmaConfigIn {
    /// Bus, device and function, for the Requester ID.
    pub requester_id: Signal<In, Bits<16>>,
    /// Max_Payload_Size as in Device Control: 128 bytes << code.
    pub max_payload: Signal<In, Bits<3>>,
    /// Max_Read_Request_Size as in Device Control: 128 bytes << code.
    pub max_read_request: Signal<In, Bits<3>>,
    /// Bus Master Enable: no request may start while it is low.
    pub bus_master: Signal<In, Bit>,
}
