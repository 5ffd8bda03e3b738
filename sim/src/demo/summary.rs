//! What `summary.json` holds.

use super::timeline::TimelineEntry;
use crate::pcie::PcieCounters;
use crate::wire::WireCounters;
use serde::Serialize;
use std::collections::BTreeMap;

/// `ping.*`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PingSummary {
    /// Echo requests.
    pub sent: u64,
    /// Echo replies with the right content.
    pub received: u64,
}

/// `udp.*`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UdpSummary {
    /// Datagrams sent to the echo program.
    pub sent: u64,
    /// Datagrams that came back whole.
    pub received: u64,
    /// Datagrams with a wrong byte, at either end.
    pub corrupt: u64,
    /// Payload bytes that came back.
    pub bytes: u64,
}

/// `tcp.*` and `tcp_impaired.*`
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct TcpSummary {
    /// Bytes that the host was to write, and the peer.
    pub bytes_wanted: u64,
    /// Bytes that the host's program wrote.
    pub bytes_tx: u64,
    /// Bytes that the host's program read.
    pub bytes_rx: u64,
    /// Bytes that were wrong, missing or too many, at either end.
    pub corrupt: u64,
    /// Segments sent again, by both ends (`RetransSegs`).
    pub retransmits: u64,
    /// Frames of a packet that GRO handed to the host's stack, on average.
    pub gro_segments_per_skb: f64,
    /// Payload that arrived, both directions, over twice the line's capacity.
    pub goodput_share: f64,
    /// Frames that the wire lost, duplicated, reordered or corrupted.
    pub impaired_frames: u64,
}

impl TcpSummary {
    /// Whether every byte arrived once, in order and right.
    pub fn is_success(&self) -> bool {
        self.bytes_tx == self.bytes_wanted && self.bytes_rx == self.bytes_wanted && self.corrupt == 0
    }
}

/// `mac.*`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MacSummary {
    /// Frames with a wrong FCS sent to the card.
    pub bad_fcs_injected: u64,
    /// And counted by it.
    pub bad_fcs_counted: u64,
    /// Runts sent.
    pub runt_injected: u64,
    /// Runts counted.
    pub runt_counted: u64,
    /// Frames with RX_ER sent.
    pub symbol_error_injected: u64,
    /// And counted.
    pub symbol_error_counted: u64,
    /// Injected frames that reached the host's stack.
    pub bad_delivered: u64,
}

/// `irq.*`
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct IrqSummary {
    /// MSI-X interrupts taken by the driver.
    pub count: u64,
    /// Packets, both directions, per interrupt.
    pub packets_per_interrupt: f64,
}

/// `rx.*` and `tx.*`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QueueSummary {
    /// Frames.
    pub packets: u64,
    /// Their bytes without FCS.
    pub bytes: u64,
    /// Descriptors of the ring.
    pub ring: u64,
    /// Descriptors in use at most, as the driver saw them; the transmit ring's only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring_peak: Option<u64>,
    /// Doorbells.
    pub kicks: u64,
}

/// `sim.*`
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct SimSummary {
    /// Core cycles.
    pub cycles: u64,
    /// Virtual time in nanoseconds.
    pub time_ns: u64,
    /// Of the UDP phase: octets on the line, gaps included, both directions, over twice the line's capacity.
    pub line_share: f64,
    /// Core cycles per second of the machine that ran it; 0 until somebody with a clock fills it in.
    pub cycles_per_second: f64,
    /// PCIe, GMII and DMA rules that the card broke.
    pub violations: u64,
}

/// What `summary.json` holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// The run's seed.
    pub seed: u64,
    /// Echo.
    pub ping: PingSummary,
    /// Datagrams.
    pub udp: UdpSummary,
    /// The TCP exchange over a good wire.
    pub tcp: TcpSummary,
    /// And over one that loses, duplicates, reorders and corrupts frames.
    pub tcp_impaired: TcpSummary,
    /// Bad frames.
    pub mac: MacSummary,
    /// Interrupts.
    pub irq: IrqSummary,
    /// Receive queue.
    pub rx: QueueSummary,
    /// Transmit queue.
    pub tx: QueueSummary,
    /// The run.
    pub sim: SimSummary,
    /// The wire.
    pub wire: WireCounters,
    /// The link.
    pub pcie: PcieCounters,
    /// Packets dropped by the host's stack, by reason.
    pub drops: BTreeMap<&'static str, u64>,
    /// The driver's counters.
    pub ethtool: BTreeMap<&'static str, u64>,
    /// The card's own counters that are not zero; empty until somebody who knows its registers fills it in.
    pub card: BTreeMap<&'static str, u64>,
    /// Packets that each of the host's CPUs received.
    pub cpus: Vec<u64>,
    /// The way of the last echo reply, stage by stage.
    pub timeline: Vec<TimelineEntry>,
    /// The way of the last echo request.
    pub timeline_tx: Vec<TimelineEntry>,
    /// The first broken rules.
    pub broken_rules: Vec<String>,
}

impl Summary {
    /// Whether everything that was sent came back right, and everything bad was counted and dropped.
    pub fn is_success(&self) -> bool {
        let mac = &self.mac;
        self.ping.received == self.ping.sent
            && self.udp.received == self.udp.sent
            && self.udp.corrupt == 0
            && self.tcp.is_success()
            && self.tcp_impaired.is_success()
            && mac.bad_fcs_counted == mac.bad_fcs_injected
            && mac.runt_counted == mac.runt_injected
            && mac.symbol_error_counted == mac.symbol_error_injected
            && mac.bad_delivered == 0
            && self.sim.violations == 0
    }
}
