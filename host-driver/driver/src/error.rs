//! What the driver reports: set-up errors, and the ways in which a device breaks the protocol.

use hematite_bus::{AllocError, BusError, OutOfBounds};
use hematite_netstack::MacAddr;
use virtio_spec::net;

/// Anything that stops the device from being brought up or kept running.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An access to the function failed.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// No memory for rings or buffers.
    #[error(transparent)]
    Dma(#[from] AllocError),
    /// The driver touched a ring or buffer outside of its bounds: a bug here, not in the device.
    #[error("internal: {0}")]
    Internal(#[from] OutOfBounds),
    /// The function isn't a virtio network device.
    #[error("PCI function {vendor:04x}:{device:04x} is not a virtio network device")]
    NotVirtioNet {
        /// PCI vendor ID.
        vendor: u16,
        /// PCI device ID.
        device: u16,
    },
    /// A virtio PCI capability that is required is absent or doesn't fit its BAR (virtio 1.3, 4.1.4).
    #[error("virtio PCI capability {0} is missing or unusable")]
    Capability(&'static str),
    /// The device doesn't offer what this driver can't do without.
    #[error("the device does not offer {0:?}")]
    MissingFeatures(net::F),
    /// The device cleared `FEATURES_OK` (virtio 1.3, 3.1.1 step 6).
    #[error("the device refused the features {0:?}")]
    FeaturesRefused(net::F),
    /// A virtqueue is absent (its size reads as 0).
    #[error("virtqueue {queue} is not available")]
    QueueMissing {
        /// Queue index.
        queue: u16,
    },
    /// The ring size asked for isn't possible.
    #[error("ring size {size} is not possible: {min} to {max}")]
    RingSize {
        /// Descriptors asked for.
        size: u16,
        /// Least possible.
        min: u16,
        /// Most that driver and device allow.
        max: u16,
    },
    /// The queue was enabled before the driver set it up.
    #[error("virtqueue {queue} is already enabled")]
    QueueEnabled {
        /// Queue index.
        queue: u16,
    },
    /// The device had no resources for an MSI-X vector (it read back as `VIRTIO_MSI_NO_VECTOR`).
    #[error("MSI-X vector {vector} was refused")]
    VectorRefused {
        /// The vector.
        vector: u16,
    },
    /// The MTU asked for isn't possible.
    #[error("MTU {mtu} is not possible: 68 to {max}")]
    Mtu {
        /// Bytes asked for.
        mtu: u16,
        /// Most that the device allows, bytes.
        max: u16,
    },
    /// It addresses a group, or nobody.
    #[error("{0} can't be a station's address")]
    MacAddress(MacAddr),
    /// No VLAN has this identifier.
    #[error("VLAN {0} is not possible: 0 to 4095")]
    VlanId(u16),
    /// The device (or a queue) didn't finish its reset.
    #[error("the device did not finish its reset")]
    ResetTimeout,
    /// The device's configuration kept changing while it was read.
    #[error("the device configuration does not settle")]
    ConfigUnstable,
    /// The device broke the protocol; the queues are stopped and the device was reset.
    #[error("virtqueue {queue}: {fault}")]
    Device {
        /// Queue index; the last one for faults of the whole device.
        queue: u16,
        /// What it did.
        fault: DeviceFault,
    },
    /// The device answered a control command with `VIRTIO_NET_ERR` (virtio 1.3, 5.1.6.5).
    #[error("the device refused control command {class}.{command}")]
    ControlRefused {
        /// Class of the command.
        class: u8,
        /// The command in its class.
        command: u8,
    },
    /// What the device says of its counters makes no sense (virtio 1.4, 5.1.9.5.11).
    #[error("the device's statistics make no sense: {0}")]
    Statistics(&'static str),
    /// The device doesn't offer it.
    #[error("the device does not offer {0}")]
    NotSupported(&'static str),
    /// The device merges received segments, which a program on the XDP hook can't be shown.
    #[error(
        "the device merges segments and can't be told to stop: turn rx-gro-hw off and reset the device first"
    )]
    MergesForXdp,
    /// The call isn't possible now.
    #[error("not possible while the interface is {0}")]
    State(&'static str),
}

/// How a device broke the protocol. Nothing that it wrote was followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceFault {
    /// A used descriptor's buffer ID isn't below the queue size.
    #[error("used id {id} is out of range")]
    UsedIdRange {
        /// The ID.
        id: u16,
    },
    /// A used descriptor's buffer ID isn't that of an outstanding buffer.
    #[error("used id {id} is not a head")]
    UsedIdNotHead {
        /// The ID.
        id: u16,
    },
    /// A used length is larger than what the device may write.
    #[error("used length {len} is larger than the buffer's {capacity}")]
    UsedLength {
        /// The length.
        len: u32,
        /// Device-writable bytes of the chain.
        capacity: u32,
    },
    /// A received buffer doesn't even hold the `virtio_net_hdr`.
    #[error("received {len} bytes, less than the header")]
    ShortHeader {
        /// The length.
        len: u32,
    },
    /// `num_buffers` is 0, or more than there are.
    #[error("num_buffers is {claimed}, {available} are there")]
    NumBuffers {
        /// What the header says.
        claimed: u16,
        /// Buffers that were used.
        available: u16,
    },
    /// No answer to a control command.
    #[error("no answer to a control command")]
    ControlTimeout,
    /// The device set `DEVICE_NEEDS_RESET` (virtio 1.3, 2.1.1).
    #[error("the device asks for a reset")]
    NeedsReset,
    /// The device answers with all ones: it was removed.
    #[error("the device is gone")]
    Gone,
}
