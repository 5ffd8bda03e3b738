//! The card: one Ethernet port, pairs of virtqueues, one PCI function.

use hematite_abi::{counter, port, vendor};
use hematite_lang::prelude::*;

use crate::control::Commands;
use crate::dma::read::ReadEngine;
use crate::dma::write::WriteEngine;
use crate::mac::port::GigabitPort;
use crate::mac::{LostFrames, Management, PhyStatus};
use crate::offload::TransmitOffload;
use crate::parse::Steering;
use crate::pcie::Function;
use crate::queue::gro::coalesce::{CLOSE_REASONS, GroEnable};
use crate::queue::{ControlEngine, ReceiveEngine, TransmitEngine};
use crate::statistics::{DroppedPacket, QueueCounts};

pub use crate::dma::read::COMPLETION_TIMEOUT as READ_TIMEOUT;
/// Cycles that a receive queue's used descriptor waits for others to share its write.
pub const USED_HOLD: usize = 512;
/// The same for transmit, where nothing but the buffer waits: 16 descriptors at line rate.
pub const TRANSMIT_USED_HOLD: usize = 2048;
/// Cycles between two looks at the driver's event suppression structure.
pub const EVENT_INTERVAL: usize = 1024;
/// Cycles for which a packet that is being merged waits for another segment while other frames come: ten frames of
/// 1518 bytes, so that eight flows in turn are merged.
pub const GRO_TIMEOUT: u64 = 16_384;
/// Cycles with nothing of a frame after which it waits no longer, 33 us: two frames of 1518 bytes and a bit, so that
/// segments are merged down to a quarter of the line rate, and the end of a burst without PSH comes up soon after.
pub const GRO_IDLE: u64 = 4096;
/// Longest frame on the wire, without a VLAN tag: header, an MTU of 9000 and frame check sequence. A tag may add 4 bytes.
pub const MAX_FRAME: u64 = vendor::MAX_FRAME_VALUE as u64;

/// Core cycles in a microsecond.
pub const CYCLES_PER_MICROSECOND: u64 = 125;

/// Who asks the read engine.
mod read {
    pub const RECEIVE: usize = 0;
    pub const TRANSMIT: usize = 1;
    pub const TRANSMIT_DATA: usize = 2;
    pub const CONTROL: usize = 3;
    pub const CLIENTS: usize = 4;
}

/// Who asks the write engine.
mod write {
    pub const RECEIVE: usize = 0;
    pub const TRANSMIT: usize = 1;
    pub const MESSAGE: usize = 2;
    pub const CONTROL: usize = 3;
    pub const CLIENTS: usize = 4;
}

/// What becomes of a good frame, if no reset meets it.
mod receive_end {
    pub const MISSED: usize = 0;
    pub const WRONG_ADDRESS: usize = 1;
    pub const WRONG_VLAN: usize = 2;
    pub const STOPPED: usize = 3;
    pub const TOO_LONG: usize = 4;
    pub const STARVED: usize = 5;
    pub const DELIVERED: usize = 6;
    pub const PAUSE: usize = 7;
    pub const COUNT: usize = 8;
}

/// A card: `card!(MAC, PAIRS)`, the pairs of queues as a literal.
#[macro_export]
macro_rules! card {
    ($mac:expr, $pairs:literal) => {
        $crate::card::Card<
            { $mac },
            $pairs,
            { 2 * $pairs },
            { 2 * $pairs + 1 },
            { 2 * $pairs + 2 },
            { $crate::card::vector_bits($pairs) },
        >
    };
}

/// Bits of a vector's number on a card with so many pairs of queues.
#[must_use]
pub const fn vector_bits(pairs: usize) -> usize {
    (2 * pairs + 1).next_power_of_two().ilog2() as usize
}

/// Hematite: a virtio network device (virtio 1.3 section 5.1) between GMII and PCIe TLPs.
///
/// Receive: GMII, `GigabitPort` (check, cross, store whole frames), `Steering` (queue), `ReceiveEngine` (buffers, header),
/// `WriteEngine`, `Function` (TLPs to the link). Transmit: `Function` (doorbell), `TransmitEngine`
/// (descriptors, bytes), `ReadEngine`, `TransmitOffload` (segments, checksums), `GigabitPort` (store, pad, FCS,
/// gap), GMII.
///
/// The GMII clocks are 125 MHz, or at 10 and 100 Mb/s an MII's 2.5 and 25 MHz; `core_clock` is unrelated to them and at
/// least 125 MHz for line rate in both directions at 64 bytes. `MAC` is the address as a number, its first octet lowest; `PAIRS` of queues there are,
/// 1 to 8. The other numbers follow from that: name the type with [`card!`](crate::card!).
#[hw]
pub struct Card<
    const MAC: u64,
    const PAIRS: usize,
    const DATA_QUEUES: usize,
    const QUEUES: usize,
    const SOURCES: usize,
    const A: usize,
> {
    /// Rising edge: everything but the MAC.
    pub core_clock: Signal<In, Clock>,
    /// Fundamental reset, synchronous to `core_clock`.
    pub core_reset: Signal<In, Bit>,
    /// RX_CLK of the PHY.
    pub gmii_rx_clock: Signal<In, Clock>,
    /// RXD.
    pub gmii_rxd: Signal<In, Bits<8>>,
    /// RX_DV.
    pub gmii_rx_dv: Signal<In, Bit>,
    /// RX_ER.
    pub gmii_rx_er: Signal<In, Bit>,
    /// GTX_CLK.
    pub gmii_tx_clock: Signal<In, Clock>,
    /// TXD.
    pub gmii_txd: Signal<Out, Bits<8>>,
    /// TX_EN.
    pub gmii_tx_en: Signal<Out, Bit>,
    /// TX_ER.
    pub gmii_tx_er: Signal<Out, Bit>,
    /// The PHY's link status, of no clock.
    pub phy: Signal<In, PhyStatus>,
    /// TLPs from the link.
    pub pcie_rx: StreamIn,
    /// TLPs to the link.
    pub pcie_tx: StreamOut,
    /// The data link layer is up; low resets the function.
    pub pcie_link_up: Signal<In, Bit>,
    /// The link has room for one more posted TLP.
    pub pcie_credit_posted: Signal<In, Bit>,
    /// The link has room for one more non-posted TLP.
    pub pcie_credit_nonposted: Signal<In, Bit>,
    /// The link has room for one more completion.
    pub pcie_credit_completion: Signal<In, Bit>,
    /// The card holds an interrupt back for a time that its driver set, and then acts by itself. For whoever would stop
    /// its clock when nothing is on its pins.
    pub holding: Signal<Out, Bit>,
    port: GigabitPort,
    management: Management,
    lost_frames: LostFrames<{ receive_end::COUNT }>,
    steering: Steering<PAIRS>,
    function: Function<QUEUES, SOURCES, A>,
    read_engine: ReadEngine<{ read::CLIENTS }, READ_TIMEOUT>,
    write_engine: WriteEngine<{ write::CLIENTS }>,
    receive_queues: ReceiveEngine<PAIRS, USED_HOLD, EVENT_INTERVAL>,
    transmit_queues: TransmitEngine<PAIRS, TRANSMIT_USED_HOLD, EVENT_INTERVAL>,
    control_queue: ControlEngine,
    commands: Commands<PAIRS, DATA_QUEUES>,
    queue_counts: QueueCounts<DATA_QUEUES>,
    /// What is left of a microsecond.
    prescaler: Reg<Bits<8>>,
    microsecond: Reg<Bit>,
    transmit_offload: TransmitOffload,
    /// Fundamental reset or no link.
    down: Reg<Bit>,
    held: Reg<Bit>,
    /// That, or the function says so.
    data_path_reset: Reg<Bit>,
    /// That, or the device is reset; it goes far.
    control_anew: Reg<Bit>,
}

#[hw]
impl<
    const MAC: u64,
    const PAIRS: usize,
    const DATA_QUEUES: usize,
    const QUEUES: usize,
    const SOURCES: usize,
    const A: usize,
> Logic for Card<MAC, PAIRS, DATA_QUEUES, QUEUES, SOURCES, A>
{
    fn update(&mut self) {
        assert!(
            DATA_QUEUES == 2 * PAIRS && QUEUES == DATA_QUEUES + 1,
            "name the type with `card!`"
        );
        registers!(self.core_clock => self.down, self.data_path_reset);
        self.down.d.next = self.core_reset.val() || !self.pcie_link_up.val();
        self.data_path_reset.d.next = self.down.q.val() || self.function.data_path_reset.val();
        clocked!(self.core_clock, self.down.q => self.function);
        clocked!(self.core_clock, self.down.q => self.port, self.lost_frames, self.management);
        clocked!(self.core_clock, self.data_path_reset.q => self.read_engine, self.write_engine);
        clocked!(self.core_clock, self.data_path_reset.q => self.receive_queues, self.transmit_queues);
        clocked!(self.core_clock, self.data_path_reset.q => self.control_queue, self.steering);
        clocked!(self.core_clock => self.commands, self.queue_counts);
        registers!(self.core_clock, self.down.q => self.prescaler, self.microsecond);
        clocked!(self.core_clock, self.data_path_reset.q => self.transmit_offload);

        // The wire.
        self.port.restart.next = self.data_path_reset.q.val();
        self.port.gmii_rx_clock.next = self.gmii_rx_clock.val();
        self.port.gmii_rxd.next = self.gmii_rxd.val();
        self.port.gmii_rx_dv.next = self.gmii_rx_dv.val();
        self.port.gmii_rx_er.next = self.gmii_rx_er.val();
        self.port.gmii_tx_clock.next = self.gmii_tx_clock.val();
        self.gmii_txd.next = self.port.gmii_txd.val();
        self.gmii_tx_en.next = self.port.gmii_tx_en.val();
        self.gmii_tx_er.next = self.port.gmii_tx_er.val();
        self.port.max_frame.next = bits::<16>(MAX_FRAME);

        // Frames.
        self.port.rx.join(&mut self.receive_queues.frame);
        self.port.rx_meta.join(&mut self.steering.meta);
        self.steering.steered.join(&mut self.receive_queues.meta);
        self.receive_queues.meta_queue.next = self.steering.steered_queue.val();
        self.steering.steer.next = self.commands.steer.val();
        self.commands.table.join(&mut self.steering.table);
        for p in 0..PAIRS {
            self.steering.run[p].next = self.function.queues[2 * p].run.val();
        }
        self.receive_queues.patient.next = self.commands.single.val();
        self.receive_queues.negotiated.next = self.commands.active.val();
        self.receive_queues.gro.next = GroEnable {
            ipv4: self.commands.active.val().guest_tso4,
            ipv6: self.commands.active.val().guest_tso6,
            ecn: self.commands.active.val().guest_ecn,
        };
        self.receive_queues.gro_timeout.next = bits::<20>(GRO_TIMEOUT);
        self.receive_queues.gro_idle.next = bits::<16>(GRO_IDLE);
        self.receive_queues.arriving.next = self.port.rx_arriving.val();
        self.transmit_queues.hash_report.next = self.function.negotiated.val().hash_report;
        self.transmit_queues
            .packet
            .join(&mut self.transmit_offload.packet);
        self.transmit_offload.packet_queue.next = self.transmit_queues.packet_queue.val();
        self.transmit_offload.packet_lost.next = self.transmit_queues.packet_lost.val();
        self.transmit_offload.frame.join(&mut self.port.tx);
        self.transmit_offload.negotiated.next = self.function.negotiated.val();
        // Without the check sequence, with a tag.
        self.transmit_offload.max_frame.next = bits::<16>(MAX_FRAME);

        self.commands.filter.join(&mut self.port.filter);
        self.commands.key.join(&mut self.port.hash_key);
        self.port.hash_types.next = self.commands.hash_types.val();

        // Host memory.
        self.receive_queues
            .read_request
            .join(&mut self.read_engine.requests[read::RECEIVE]);
        self.read_engine.responses[read::RECEIVE].join(&mut self.receive_queues.read_response);
        self.transmit_queues
            .read_request
            .join(&mut self.read_engine.requests[read::TRANSMIT]);
        self.read_engine.responses[read::TRANSMIT].join(&mut self.transmit_queues.read_response);
        self.transmit_queues
            .data_request
            .join(&mut self.read_engine.requests[read::TRANSMIT_DATA]);
        self.read_engine.responses[read::TRANSMIT_DATA].join(&mut self.transmit_queues.data_response);
        self.receive_queues
            .write_request
            .join(&mut self.write_engine.requests[write::RECEIVE]);
        self.receive_queues
            .write_data
            .join(&mut self.write_engine.data[write::RECEIVE]);
        self.receive_queues.write_done.next = self.write_engine.done[write::RECEIVE].val();
        self.transmit_queues
            .write_request
            .join(&mut self.write_engine.requests[write::TRANSMIT]);
        self.transmit_queues
            .write_data
            .join(&mut self.write_engine.data[write::TRANSMIT]);
        self.transmit_queues.write_done.next = self.write_engine.done[write::TRANSMIT].val();
        self.control_queue
            .read_request
            .join(&mut self.read_engine.requests[read::CONTROL]);
        self.read_engine.responses[read::CONTROL].join(&mut self.control_queue.read_response);
        self.control_queue
            .write_request
            .join(&mut self.write_engine.requests[write::CONTROL]);
        self.control_queue
            .write_data
            .join(&mut self.write_engine.data[write::CONTROL]);
        self.control_queue.write_done.next = self.write_engine.done[write::CONTROL].val();
        self.function
            .message_request
            .join(&mut self.write_engine.requests[write::MESSAGE]);
        self.function
            .message
            .join(&mut self.write_engine.data[write::MESSAGE]);

        // TLPs.
        self.pcie_rx.link(&mut self.function.tlp_rx);
        self.pcie_tx.link(&mut self.function.tlp_tx);
        self.function.credit_posted.next = self.pcie_credit_posted.val();
        self.function.credit_nonposted.next = self.pcie_credit_nonposted.val();
        self.function.credit_completion.next = self.pcie_credit_completion.val();
        self.function.completion.join(&mut self.read_engine.completion);
        self.read_engine.tlp.join(&mut self.function.read_tlp);
        self.write_engine.tlp.join(&mut self.function.write_tlp);
        self.function.dma_idle.next = self.read_engine.idle.val() && self.write_engine.idle.val();
        self.function.reads_outstanding.next = self.read_engine.outstanding.val();
        self.read_engine.config.requester_id.next = self.function.dma.requester_id.val();
        self.read_engine.config.max_payload.next = self.function.dma.max_payload.val();
        self.read_engine.config.max_read_request.next = self.function.dma.max_read_request.val();
        self.read_engine.config.bus_master.next = self.function.dma.bus_master.val();
        self.function.dma.join(&mut self.write_engine.config);
        self.read_engine.completion_timeout_disable.next = self.function.completion_timeout_disable.val();

        // Queues and interrupts.
        for p in 0..PAIRS {
            self.function.queues[2 * p].join(&mut self.receive_queues.config[p]);
            self.function.queues[2 * p + 1].join(&mut self.transmit_queues.config[p]);
            self.receive_queues.interrupt[p].join(&mut self.function.interrupts[2 * p]);
            self.transmit_queues.interrupt[p].join(&mut self.function.interrupts[2 * p + 1]);
            self.receive_queues.coalesce[p].next = self.commands.coalesce[2 * p].val();
            self.transmit_queues.coalesce[p].next = self.commands.coalesce[2 * p + 1].val();
            self.receive_queues.retire[p].next = self.commands.retire[p].val();
            self.commands.inside[p].next =
                self.receive_queues.inside[p].val() || self.steering.holds[p].val();
        }
        self.function.queues[DATA_QUEUES].join(&mut self.control_queue.config);
        self.receive_queues.locate_read.join(&mut self.function.locate[0]);
        self.receive_queues
            .locate_write
            .join(&mut self.function.locate[1]);
        self.transmit_queues
            .locate_read
            .join(&mut self.function.locate[2]);
        self.transmit_queues
            .locate_write
            .join(&mut self.function.locate[3]);
        self.control_queue.locate.join(&mut self.function.locate[4]);
        self.function.locate[4].queue.next = bits::<5>(DATA_QUEUES as u64);
        self.control_queue
            .interrupt
            .join(&mut self.function.interrupts[DATA_QUEUES]);

        // Commands, and what they set.
        self.control_queue.command.join(&mut self.commands.command);
        registers!(self.core_clock => self.control_anew);
        self.control_anew.d.next = self.data_path_reset.q.val() || self.function.device_reset.val();
        self.commands.reset.next = self.control_anew.q.val();
        self.commands.negotiated.next = self.function.negotiated.val();
        for q in 0..DATA_QUEUES {
            self.commands.enabled[q].next = self.function.queues[q].run.val();
        }
        self.microsecond.d.next = self.prescaler.q.val() == bits::<8>(CYCLES_PER_MICROSECOND - 1);
        self.prescaler.d.next = if self.microsecond.d.val() {
            bits::<8>(0)
        } else {
            self.prescaler.q.val() + 1
        };
        self.receive_queues.microsecond.next = self.microsecond.q.val();
        self.transmit_queues.microsecond.next = self.microsecond.q.val();

        registers!(self.core_clock => self.held);
        self.held.d.next = self.function.interrupt_held.val();
        self.holding.next = self.held.q.val();

        // The port's registers, and what the driver is told of the link.
        self.function.port.join(&mut self.management.access);
        self.management.clear.next = self.commands.reset.val();
        self.management.phy_pins.next = self.phy.val();
        self.management.paused.next = self.port.paused.val();
        self.port.obey_pause.next = self.management.obey_pause.val();
        self.management.rx_good.next = self.port.rx_good.val();
        self.port.loopback.next = self.management.loopback.val();
        self.port.mii.next = self.management.phy.val().speed != bits::<2>(port::SPEED_1000 as u64);
        self.port.send_pause.next = self.management.send_pause.val();
        self.function.phy.next = self.management.phy.val();
        self.function.announced.next = self.commands.announced.val();
        self.commands.permanent_mac.next = bits::<48>(MAC);
        self.function.mac_address.next = self.commands.filter.mac.val();
        self.function.mac_set.next = self.commands.mac_set.val();

        // What is counted for each queue.
        self.queue_counts.reset.next = self.commands.reset.val();
        self.queue_counts.received.next = self.receive_queues.passed.val();
        self.queue_counts.received_valid.next = self.receive_queues.passed_valid.val();
        self.queue_counts.receive_drops[0].next = self.receive_queues.dropped.val();
        // While all frames go to the first queue, those that find no room are lost to it.
        self.queue_counts.receive_drops[1].next = DroppedPacket {
            valid: self.port.rx_missed.val() && self.commands.single.val(),
            queue: bits::<3>(0),
            special: self.receive_queues.waiting.val(),
        };
        self.queue_counts.sent.next = self.transmit_offload.sent.val();
        self.queue_counts.sent_valid.next = self.transmit_offload.tx_sent.val();
        self.queue_counts.transmit_drops[0].next = self.transmit_offload.dropped[0].val();
        self.queue_counts.transmit_drops[1].next = self.transmit_offload.dropped[1].val();
        for q in 0..DATA_QUEUES {
            self.queue_counts.notified[q].next = self.function.queues[q].notify.val();
        }
        self.queue_counts.interrupted.next = self.function.interrupt_generated.val();
        self.queue_counts.interrupted_queue.next = self.function.interrupt_generated_for.val();
        self.queue_counts.command.next = self.commands.received.val();
        self.queue_counts.command_ok.next = self.commands.accepted.val();
        self.commands.counts.join(&mut self.queue_counts.read);

        // What is counted; the function adds its own.
        for n in 0..counter::COUNT {
            self.function.events[n].next = false;
        }
        self.function.events[counter::RX_GOOD].next = self.port.rx_good.val();
        self.function.events[counter::RX_BAD_FCS].next = self.port.rx_bad_fcs.val();
        self.function.events[counter::RX_RUNT].next = self.port.rx_runt.val();
        self.function.events[counter::RX_OVERSIZE].next = self.port.rx_oversize.val();
        self.function.events[counter::RX_SYMBOL_ERROR].next = self.port.rx_symbol_error.val();
        self.function.events[counter::RX_FILTERED_ADDRESS].next = self.port.rx_filtered_address.val();
        self.function.events[counter::RX_FILTERED_VLAN].next = self.port.rx_filtered_vlan.val();
        self.function.events[counter::RX_CSUM_GOOD].next = self.port.rx_csum_good.val();
        self.function.events[counter::RX_CSUM_BAD].next = self.port.rx_csum_bad.val();
        self.function.events[counter::RX_CSUM_UNKNOWN].next = self.port.rx_csum_unknown.val();
        self.function.events[counter::RX_MISSED].next = self.port.rx_missed.val();
        self.function.events[counter::RX_NO_BUFFER].next = self.receive_queues.rx_no_buffer.val();
        self.function.events[counter::RX_DROPPED_TOO_LONG].next = self.receive_queues.rx_too_long.val();
        self.function.events[counter::RX_DELIVERED].next = self.receive_queues.rx_delivered.val();
        self.function.events[counter::RX_STOPPED].next = self.receive_queues.rx_stopped.val();
        self.function.events[counter::RX_STARVED].next = self.receive_queues.rx_starved.val();
        self.function.events[counter::RX_GRO_PACKETS].next = self.receive_queues.rx_gro_packet.val();
        for n in 0..CLOSE_REASONS {
            self.function.events[counter::RX_GRO_FLUSH_IDLE + n].next =
                self.receive_queues.rx_gro_flush[n].val();
        }
        self.function.events[counter::RX_GRO_JOINED].next = self.receive_queues.rx_gro_joined.val();
        self.function.events[counter::RX_RESET].next = self.lost_frames.lost.val();
        self.lost_frames.restart.next = self.port.rx_restarting.val();
        self.lost_frames.cut.next = self.port.rx_cut.val();
        self.lost_frames.arrived.next = self.port.rx_good.val();
        self.lost_frames.ended[receive_end::MISSED].next = self.port.rx_missed.val();
        self.lost_frames.ended[receive_end::WRONG_ADDRESS].next = self.port.rx_filtered_address.val();
        self.lost_frames.ended[receive_end::WRONG_VLAN].next = self.port.rx_filtered_vlan.val();
        self.lost_frames.ended[receive_end::PAUSE].next = self.port.rx_pause.val();
        self.lost_frames.ended[receive_end::STOPPED].next = self.receive_queues.rx_stopped.val();
        self.lost_frames.ended[receive_end::STARVED].next = self.receive_queues.rx_starved.val();
        self.lost_frames.ended[receive_end::TOO_LONG].next = self.receive_queues.rx_too_long.val();
        self.lost_frames.ended[receive_end::DELIVERED].next = self.receive_queues.rx_delivered.val();
        self.function.events[counter::RX_PAUSE].next = self.port.rx_pause.val();
        self.function.events[counter::TX_PAUSE].next = self.port.tx_pause.val();
        self.function.events[counter::TX_GOOD].next = self.port.tx_good.val();
        self.function.events[counter::TX_DISCARDED].next = self.port.tx_discarded.val();
        self.function.events[counter::TX_UNDERRUN].next = self.port.tx_underrun.val();
        self.function.events[counter::TX_BAD_CHAIN].next = self.transmit_offload.tx_bad_frame.val();
        self.function.events[counter::TX_BAD_OFFLOAD].next = self.transmit_offload.tx_bad_offload.val();
        self.function.events[counter::TX_CSUM].next = self.transmit_offload.tx_csum.val();
        self.function.events[counter::TX_TSO_PACKETS].next = self.transmit_offload.tx_tso_packet.val();
        self.function.events[counter::TX_TSO_SEGMENTS].next = self.transmit_offload.tx_tso_segment.val();
        self.function.events[counter::CONTROL_REFUSED].next = self.commands.refused.val();
        self.function.events[counter::DMA_READ_UR].next = self.read_engine.read_unsupported.val();
        self.function.events[counter::DMA_READ_CA].next = self.read_engine.read_aborted.val();
        self.function.events[counter::DMA_READ_POISONED].next = self.read_engine.read_poisoned.val();
        self.function.events[counter::DMA_READ_TIMEOUT].next = self.read_engine.read_timeout.val();
        self.function.events[counter::DMA_UNEXPECTED_COMPLETION].next =
            self.read_engine.completion_unexpected.val();
        self.function.events[counter::DMA_WRITE_MISMATCH].next =
            self.write_engine.write_length_mismatch.val();
        self.function.events[counter::DMA_MALFORMED].next = self.read_engine.completion_malformed.val();
    }
}
