//! What `ethtool` shows: `-S` counters, `-g`/`-G` ring sizes, `-i`.

use crate::napi::SoftnetStats;
use crate::rx::RxStats;
use crate::tx::TxStats;

/// Interrupts by cause, and how the device was looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IrqStats {
    /// MSI-X interrupts taken, all vectors.
    pub total: u64,
    /// For the receive queue.
    pub rx: u64,
    /// For the transmit queue.
    pub tx: u64,
    /// For a configuration change.
    pub config: u64,
    /// For a context that was scheduled already, or a vector that nobody asked for.
    pub spurious: u64,
}

/// All counters of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EthtoolStats {
    /// Receive queue.
    pub rx: RxStats,
    /// Transmit queue.
    pub tx: TxStats,
    /// Interrupts.
    pub irq: IrqStats,
    /// NAPI.
    pub napi: SoftnetStats,
    /// Rings that were looked at again after their interrupt was re-armed and had work: races closed.
    pub rearm_races: u64,
    /// Device faults: each stopped the queues and reset the device.
    pub device_faults: u64,
    /// Resets with the interface restored.
    pub restores: u64,
    /// Link changes.
    pub link_changes: u64,
}

impl EthtoolStats {
    /// Names (in the style of the kernel's virtio_net) and values, as `ethtool -S` lists them.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("rx_queue_0_packets", self.rx.packets),
            ("rx_queue_0_bytes", self.rx.bytes),
            ("rx_queue_0_drops", self.rx.drops),
            ("rx_queue_0_length_errors", self.rx.length_errors),
            ("rx_queue_0_frame_errors", self.rx.frame_errors),
            ("rx_queue_0_csum_unnecessary", self.rx.csum_unnecessary),
            ("rx_queue_0_merged", self.rx.merged),
            ("rx_queue_0_lent", self.rx.lent),
            ("rx_queue_0_hw_gro_packets", self.rx.hw_gro_packets),
            ("rx_queue_0_hw_gro_wire_packets", self.rx.hw_gro_wire_packets),
            ("rx_queue_0_kicks", self.rx.kicks),
            ("tx_queue_0_packets", self.tx.packets),
            ("tx_queue_0_bytes", self.tx.bytes),
            ("tx_queue_0_drops", self.tx.drops),
            ("tx_queue_0_csum", self.tx.csum),
            ("tx_queue_0_tso", self.tx.tso),
            ("tx_queue_0_busy", self.tx.busy),
            ("tx_queue_0_completed", self.tx.completed),
            ("tx_queue_0_kicks", self.tx.kicks),
            ("irq_total", self.irq.total),
            ("irq_rx", self.irq.rx),
            ("irq_tx", self.irq.tx),
            ("irq_config", self.irq.config),
            ("irq_spurious", self.irq.spurious),
            ("napi_processed", self.napi.processed),
            ("napi_polls", self.napi.polls),
            ("napi_rounds", self.napi.rounds),
            ("napi_time_squeeze", self.napi.time_squeeze),
            ("rearm_races", self.rearm_races),
            ("device_faults", self.device_faults),
            ("restores", self.restores),
            ("link_changes", self.link_changes),
        ]
        .into_iter()
    }
}

/// Ring sizes, `struct ethtool_ringparam`, in descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingParam {
    /// Largest receive ring.
    pub rx_max: u16,
    /// Largest transmit ring.
    pub tx_max: u16,
    /// Receive ring now.
    pub rx: u16,
    /// Transmit ring now.
    pub tx: u16,
}

/// Interrupt moderation, `struct ethtool_coalesce`: an interrupt waits for the time or the frames, whichever is first;
/// with either at 0 there is no waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CoalesceParam {
    /// Microseconds between receive interrupts.
    pub rx_usecs: u32,
    /// Received frames that cause an interrupt earlier than that.
    pub rx_max_frames: u32,
    /// Microseconds between transmit interrupts.
    pub tx_usecs: u32,
    /// Sent frames that cause an interrupt earlier than that.
    pub tx_max_frames: u32,
    /// The driver searches for the receive queue's values itself.
    pub adaptive_rx: bool,
}

/// `ethtool -i`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DriverInfo {
    /// Name of the driver.
    pub driver: &'static str,
    /// Its version.
    pub version: &'static str,
}

/// This driver.
pub const DRIVER_INFO: DriverInfo = DriverInfo {
    driver: "hematite_virtio_net",
    version: env!("CARGO_PKG_VERSION"),
};
