//! One Ethernet port: MAC, clock crossings and frame FIFOs.

use hematite_lang::prelude::*;

use super::frame_fifo::FrameFifo;
use super::loopback::Symbol;
use super::{Loopback, PauseReceive, PauseTransmit, Receive, Transmit};
use crate::parse::classifier::HashTypes;
use crate::parse::filter::FilterConfigIn;
use crate::parse::toeplitz::KeyIn;
use crate::parse::{Classifier, FrameMeta, MetaOut};

/// A gigabit port: 32 KiB of receive FIFO for up to 508 frames, 16 KiB of transmit FIFO. Beyond the level from which on the
/// far end is told to stop there is room for what still comes: two frames of 9018 bytes, one that ours waits for and
/// one that the far end has begun, and two pause quanta.
pub type GigabitPort = Port<12, 9, 11>;

/// An Ethernet port between GMII and the core clock. The receive FIFO holds `2^RX` beats and `2^FRAMES`
/// frames, the transmit FIFO `2^TX` beats.
///
/// Receive: good frames that the filters let pass, without frame check sequence; `rx_meta` says what [`Classifier`]
/// found in each no later than its first beat is offered. Line rate at every frame size as long as the core clock has an eighth of the wire's
/// frequency and the reader keeps up; when the FIFO is full, whole frames are dropped and counted by `rx_missed`.
/// Latency: from the last byte on GMII to the first beat about 30 core cycles (at equal clocks).
///
/// Transmit: whole frames without padding and frame check sequence, stored before they are sent. A frame whose
/// last beat has `error`, or of more than `2^TX` beats, is dropped and counted by `tx_discarded`. `tx_space` is
/// the room in beats; a client that asks for no more never meets back-pressure.
///
/// `clock` and the GMII clocks are unrelated. `reset` is in `clock`; what belongs to a GMII clock stays in
/// reset until that clock runs. The outputs that count are pulses of one cycle of `clock`; see
/// [`Receive`] for which cause a bad frame is counted under. Events of one kind that are less than two core
/// cycles apart (possible only for fragments without a frame, on a core clock slower than the wire's) may be
/// counted as none.
#[hw]
pub struct Port<const RX: usize, const FRAMES: usize, const TX: usize> {
    /// Rising edge: the core clock.
    pub clock: Signal<In, Clock>,
    /// Drops everything, also what is on the wire.
    pub reset: Signal<In, Bit>,
    /// Reader and writer are reset: drops all frames received and the one being handed over for transmission. Frames
    /// handed over whole are still sent.
    pub restart: Signal<In, Bit>,
    /// Rising edge: RX_CLK.
    pub gmii_rx_clock: Signal<In, Clock>,
    /// RXD.
    pub gmii_rxd: Signal<In, Bits<8>>,
    /// RX_DV.
    pub gmii_rx_dv: Signal<In, Bit>,
    /// RX_ER.
    pub gmii_rx_er: Signal<In, Bit>,
    /// Rising edge: GTX_CLK.
    pub gmii_tx_clock: Signal<In, Clock>,
    /// TXD.
    pub gmii_txd: Signal<Out, Bits<8>>,
    /// TX_EN.
    pub gmii_tx_en: Signal<Out, Bit>,
    /// TX_ER.
    pub gmii_tx_er: Signal<Out, Bit>,
    /// 10 or 100 Mb/s: the pins are an MII's, the clocks the PHY's with 2.5 or 25 MHz. Full duplex only.
    pub mii: Signal<In, Bit>,
    /// What is sent is received, and the pins rest (see [`Loopback`]).
    pub loopback: Signal<In, Bit>,
    /// Longest frame to receive, in bytes from the destination address through the frame check sequence, not
    /// counting a VLAN tag: 1518 for an MTU of 1500. A frame under way when it changes is measured by either value or by a mixture.
    pub max_frame: Signal<In, Bits<16>>,
    /// PAUSE frames are for the port: they stop transmission and are not received. Low ends a pause.
    pub obey_pause: Signal<In, Bit>,
    /// Send PAUSE frames when the receive FIFO is three eighths full, until it is down to an eighth.
    pub send_pause: Signal<In, Bit>,
    /// Transmission is held by a PAUSE frame.
    pub paused: Signal<Out, Bit>,
    /// Some of a frame came from the wire, good or bad.
    pub rx_arriving: Signal<Out, Bit>,
    /// Frames received.
    pub rx: StreamOut,
    /// What is known of the next frame of `rx`.
    pub rx_meta: MetaOut,
    /// Which frames are wanted.
    pub filter: FilterConfigIn,
    /// A hash key.
    pub hash_key: KeyIn,
    /// What the frames' hash is made of.
    pub hash_types: Signal<In, HashTypes>,
    /// Frames to send.
    pub tx: StreamIn,
    /// Beats that `tx` has room for; counts each beat taken at once.
    pub tx_space: Signal<Out, Bits<16>>,
    /// A frame arrived intact, whether there is room for it or not.
    pub rx_good: Signal<Out, Bit>,
    /// A frame had a wrong frame check sequence.
    pub rx_bad_fcs: Signal<Out, Bit>,
    /// A frame had less than 64 bytes, or a carrier no frame.
    pub rx_runt: Signal<Out, Bit>,
    /// A frame had more than `max_frame` bytes, besides a VLAN tag.
    pub rx_oversize: Signal<Out, Bit>,
    /// The PHY signalled an error in a frame, or the preamble was damaged.
    pub rx_symbol_error: Signal<Out, Bit>,
    /// A frame was dropped for its destination address.
    pub rx_filtered_address: Signal<Out, Bit>,
    /// A frame was dropped for its VLAN.
    pub rx_filtered_vlan: Signal<Out, Bit>,
    /// Every checksum of a frame was verified and right.
    pub rx_csum_good: Signal<Out, Bit>,
    /// A checksum of a frame was wrong.
    pub rx_csum_bad: Signal<Out, Bit>,
    /// A frame had no checksum that could be verified.
    pub rx_csum_unknown: Signal<Out, Bit>,
    /// There was no room for a frame that arrived intact.
    pub rx_missed: Signal<Out, Bit>,
    /// A PAUSE frame was obeyed; `rx_good` counts it too.
    pub rx_pause: Signal<Out, Bit>,
    /// A PAUSE frame was sent; `tx_good` counts it too.
    pub tx_pause: Signal<Out, Bit>,
    /// A frame, good or bad, was on the wire during a reset; `rx_good` does not count it.
    pub rx_cut: Signal<Out, Bit>,
    /// A reset is dropping the frames received.
    pub rx_restarting: Signal<Out, Bit>,
    /// A frame was sent.
    pub tx_good: Signal<Out, Bit>,
    /// A frame was dropped as its last beat said so, or as it was longer than the FIFO.
    pub tx_discarded: Signal<Out, Bit>,
    /// A frame was cut short on the wire: the core clock is too slow.
    pub tx_underrun: Signal<Out, Bit>,
    any_reset: Signal<Local, Bit>,
    wires: Loopback,
    rx_mii: Synchronizer<Bit>,
    tx_mii: Synchronizer<Bit>,
    rx_resets: ResetCrossing,
    rx_limit: Synchronizer<Bits<16>>,
    receiver: Receive,
    rx_crossing: AsyncFifo<Beat, 4, 5>,
    pause_receive: PauseReceive,
    classifier: Classifier,
    rx_frames: FrameFifo<FrameMeta, RX, FRAMES, false>,
    tx_resets: ResetCrossing,
    tx_frames: FrameFifo<Bit, TX, 3, true>,
    tx_crossing: AsyncFifo<Beat, 4, 5>,
    sent: Skid<Beat>,
    pause_transmit: PauseTransmit,
    transmitter: Transmit,
    arriving: Reg<Bit>,
    /// The far end is to stop.
    congested: Reg<Bit>,
    congestion: Synchronizer<Bit>,
    pause_quanta: Synchronizer<Bits<16>>,
    pause_mac: Synchronizer<Bits<48>>,
    pause_received: PulseCrossing,
    pause_sent: PulseCrossing,
    pause_obeyed: Synchronizer<Bit>,
    pausing: Synchronizer<Bit>,
    good_event: PulseCrossing,
    bad_fcs_event: PulseCrossing,
    runt_event: PulseCrossing,
    oversize_event: PulseCrossing,
    symbol_error_event: PulseCrossing,
    overrun_event: PulseCrossing,
    cut_event: PulseCrossing,
    sent_event: PulseCrossing,
    underrun_event: PulseCrossing,
    /// Two frames were missed in one cycle, and one is still to be told.
    missed_later: Reg<Bit>,
}

#[hw]
impl<const RX: usize, const FRAMES: usize, const TX: usize> Logic for Port<RX, FRAMES, TX> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.missed_later, self.congested, self.arriving);

        // Receive, in the clock of the PHY.
        self.any_reset.next = self.reset.val() || self.restart.val();
        clocked!(self.clock, self.any_reset => self.rx_resets);
        self.rx_resets.far_clock.next = self.gmii_rx_clock.val();
        self.rx_limit.clock.next = self.gmii_rx_clock.val();
        self.rx_limit.d.next = self.max_frame.val();
        self.receiver.clock.next = self.gmii_rx_clock.val();
        self.receiver.reset.next = self.rx_resets.far_reset.val();
        self.rx_mii.clock.next = self.gmii_rx_clock.val();
        self.rx_mii.d.next = self.mii.val();
        self.receiver.mii.next = self.rx_mii.q.val();
        let heard = self.wires.received.val();
        self.receiver.gmii_rxd.next = heard.data;
        self.receiver.gmii_rx_dv.next = heard.valid;
        self.receiver.gmii_rx_er.next = heard.error;
        self.receiver.max_frame.next = self.rx_limit.q.val();
        self.rx_crossing.write_clock.next = self.gmii_rx_clock.val();
        self.rx_crossing.write_reset.next = self.rx_resets.far_reset.val();
        self.rx_crossing.write_data.next = Beat {
            data: self.receiver.output.data.val(),
            keep: self.receiver.output.keep.val(),
            last: self.receiver.output.last.val(),
            error: self.receiver.output.error.val(),
        };
        self.rx_crossing.write_valid.next = self.receiver.output.valid.val();
        self.receiver.output.ready.next = self.rx_crossing.write_ready.val();

        // Receive, in the core clock.
        clocked!(self.clock => self.rx_frames);
        self.rx_frames.reset.next = self.any_reset.val() || self.rx_resets.near_reset.val();
        self.rx_restarting.next = self.rx_frames.reset.val();
        self.rx_frames.abandon.next = false;
        self.rx_crossing.read_clock.next = self.clock.val();
        self.rx_crossing.read_reset.next = self.rx_resets.near_reset.val();
        let received = self.rx_crossing.read_data.val();
        self.arriving.d.next = self.rx_crossing.read_valid.val();
        self.rx_arriving.next = self.arriving.q.val();
        clocked!(self.clock, self.reset => self.classifier);
        self.classifier.restart.next = self.restart.val() || self.rx_resets.near_reset.val();
        self.pause_receive.clock.next = self.clock.val();
        self.pause_receive.reset.next = self.classifier.restart.val() || self.reset.val();
        self.pause_receive.obey.next = self.obey_pause.val();
        self.pause_receive.input.data.next = received.data;
        self.pause_receive.input.keep.next = received.keep;
        self.pause_receive.input.last.next = received.last;
        self.pause_receive.input.error.next = received.error;
        self.pause_receive.input.valid.next = self.rx_crossing.read_valid.val();
        self.rx_crossing.read_ready.next = self.pause_receive.input.ready.val();
        self.pause_receive.output.join(&mut self.classifier.input);
        self.rx_pause.next = self.pause_receive.received.val();
        self.classifier.output.join(&mut self.rx_frames.input);
        self.rx_frames.input_note.next = self.classifier.meta.val();
        self.filter.link(&mut self.classifier.filter);
        self.hash_key.link(&mut self.classifier.key);
        self.classifier.hash_types.next = self.hash_types.val();
        self.rx_filtered_address.next = self.classifier.filtered_address.val();
        self.rx_filtered_vlan.next = self.classifier.filtered_vlan.val();
        self.rx_csum_good.next = self.classifier.checksum_good.val();
        self.rx_csum_bad.next = self.classifier.checksum_bad.val();
        self.rx_csum_unknown.next = self.classifier.checksum_unknown.val();
        self.rx.link(&mut self.rx_frames.output);
        self.rx_meta.data.next = self.rx_frames.note_data.val();
        self.rx_meta.valid.next = self.rx_frames.note_valid.val();
        self.rx_frames.note_ready.next = self.rx_meta.ready.val();

        // Transmit, in the core clock.
        clocked!(self.clock, self.reset => self.tx_frames, self.tx_resets);
        self.tx_frames.abandon.next = self.restart.val();
        self.tx.link(&mut self.tx_frames.input);
        self.tx_space.next = self.tx_frames.space.val();
        self.tx_discarded.next = self.tx_frames.discarded.val() || self.tx_frames.missed.val();
        self.tx_frames.input_note.next = false;
        self.tx_frames.note_ready.next = true;
        self.tx_crossing.write_clock.next = self.clock.val();
        self.tx_crossing.write_reset.next = self.tx_resets.near_reset.val();
        self.tx_crossing.write_data.next = Beat {
            data: self.tx_frames.output.data.val(),
            keep: self.tx_frames.output.keep.val(),
            last: self.tx_frames.output.last.val(),
            error: self.tx_frames.output.error.val(),
        };
        self.tx_crossing.write_valid.next = self.tx_frames.output.valid.val();
        self.tx_frames.output.ready.next = self.tx_crossing.write_ready.val();

        // Transmit, in the clock of the wire.
        self.tx_resets.far_clock.next = self.gmii_tx_clock.val();
        self.tx_crossing.read_clock.next = self.gmii_tx_clock.val();
        self.tx_crossing.read_reset.next = self.tx_resets.far_reset.val();
        self.transmitter.clock.next = self.gmii_tx_clock.val();
        self.transmitter.reset.next = self.tx_resets.far_reset.val();
        clocked!(self.gmii_tx_clock, self.tx_resets.far_reset => self.sent);
        self.sent.write_data.next = self.tx_crossing.read_data.val();
        self.sent.write_valid.next = self.tx_crossing.read_valid.val();
        self.tx_crossing.read_ready.next = self.sent.write_ready.val();
        let sent = self.sent.read_data.val();
        clocked!(self.gmii_tx_clock, self.tx_resets.far_reset => self.pause_transmit);
        self.pause_transmit.byte_time.next = self.transmitter.byte_time.val();
        self.pause_transmit.input.data.next = sent.data;
        self.pause_transmit.input.keep.next = sent.keep;
        self.pause_transmit.input.last.next = sent.last;
        self.pause_transmit.input.error.next = sent.error;
        self.pause_transmit.input.valid.next = self.sent.read_valid.val();
        self.sent.read_ready.next = self.pause_transmit.input.ready.val();
        self.pause_transmit.output.join(&mut self.transmitter.input);
        self.tx_mii.clock.next = self.gmii_tx_clock.val();
        self.tx_mii.d.next = self.mii.val();
        self.transmitter.mii.next = self.tx_mii.q.val();

        // The pins.
        self.wires.tx_clock.next = self.gmii_tx_clock.val();
        self.wires.tx_reset.next = self.tx_resets.far_reset.val();
        self.wires.rx_clock.next = self.gmii_rx_clock.val();
        self.wires.enable.next = self.loopback.val();
        self.wires.sent.next = Symbol {
            data: self.transmitter.gmii_txd.val(),
            valid: self.transmitter.gmii_tx_en.val(),
            error: self.transmitter.gmii_tx_er.val(),
        };
        self.wires.from_phy.next = Symbol {
            data: self.gmii_rxd.val(),
            valid: self.gmii_rx_dv.val(),
            error: self.gmii_rx_er.val(),
        };
        let spoken = self.wires.to_phy.val();
        self.gmii_txd.next = spoken.data;
        self.gmii_tx_en.next = spoken.valid;
        self.gmii_tx_er.next = spoken.error;

        // Flow control, between the clocks.
        let free = self.rx_frames.space.val();
        if free < bits::<16>(((1 << RX) / 8 * 5) as u64) {
            self.congested.d.next = self.send_pause.val();
        } else if free >= bits::<16>(((1 << RX) / 8 * 7) as u64) || !self.send_pause.val() {
            self.congested.d.next = false;
        }
        self.congestion.clock.next = self.gmii_tx_clock.val();
        self.congestion.d.next = self.congested.q.val();
        self.pause_transmit.congested.next = self.congestion.q.val();
        self.pause_mac.clock.next = self.gmii_tx_clock.val();
        self.pause_mac.d.next = self.filter.mac.val();
        self.pause_transmit.mac.next = self.pause_mac.q.val();
        self.pause_quanta.clock.next = self.gmii_tx_clock.val();
        self.pause_quanta.d.next = self.pause_receive.quanta.val();
        self.pause_transmit.quanta.next = self.pause_quanta.q.val();
        self.pause_received.write_clock.next = self.clock.val();
        self.pause_received.pulse_in.next = self.pause_receive.received.val();
        self.pause_received.read_clock.next = self.gmii_tx_clock.val();
        self.pause_transmit.received.next = self.pause_received.pulse_out.val();
        self.pause_obeyed.clock.next = self.gmii_tx_clock.val();
        self.pause_obeyed.d.next = self.obey_pause.val();
        self.pause_transmit.obey.next = self.pause_obeyed.q.val();
        self.pause_sent.write_clock.next = self.gmii_tx_clock.val();
        self.pause_sent.pulse_in.next = self.pause_transmit.sent.val();
        self.pause_sent.read_clock.next = self.clock.val();
        self.tx_pause.next = self.pause_sent.pulse_out.val();
        self.pausing.clock.next = self.clock.val();
        self.pausing.d.next = self.pause_transmit.paused.val();
        self.paused.next = self.pausing.q.val();

        // Events.
        self.good_event.write_clock.next = self.gmii_rx_clock.val();
        self.good_event.pulse_in.next = self.receiver.rx_good.val();
        self.good_event.read_clock.next = self.clock.val();
        self.rx_good.next = self.good_event.pulse_out.val();
        self.bad_fcs_event.write_clock.next = self.gmii_rx_clock.val();
        self.bad_fcs_event.pulse_in.next = self.receiver.rx_bad_fcs.val();
        self.bad_fcs_event.read_clock.next = self.clock.val();
        self.rx_bad_fcs.next = self.bad_fcs_event.pulse_out.val();
        self.runt_event.write_clock.next = self.gmii_rx_clock.val();
        self.runt_event.pulse_in.next = self.receiver.rx_runt.val();
        self.runt_event.read_clock.next = self.clock.val();
        self.rx_runt.next = self.runt_event.pulse_out.val();
        self.oversize_event.write_clock.next = self.gmii_rx_clock.val();
        self.oversize_event.pulse_in.next = self.receiver.rx_oversize.val();
        self.oversize_event.read_clock.next = self.clock.val();
        self.rx_oversize.next = self.oversize_event.pulse_out.val();
        self.symbol_error_event.write_clock.next = self.gmii_rx_clock.val();
        self.symbol_error_event.pulse_in.next = self.receiver.rx_symbol_error.val();
        self.symbol_error_event.read_clock.next = self.clock.val();
        self.rx_symbol_error.next = self.symbol_error_event.pulse_out.val();
        self.overrun_event.write_clock.next = self.gmii_rx_clock.val();
        self.overrun_event.pulse_in.next = self.receiver.rx_overrun.val();
        self.overrun_event.read_clock.next = self.clock.val();
        self.cut_event.write_clock.next = self.gmii_rx_clock.val();
        self.cut_event.pulse_in.next = self.receiver.rx_cut.val();
        self.cut_event.read_clock.next = self.clock.val();
        self.rx_cut.next = self.cut_event.pulse_out.val();
        self.sent_event.write_clock.next = self.gmii_tx_clock.val();
        self.sent_event.pulse_in.next = self.transmitter.tx_good.val();
        self.sent_event.read_clock.next = self.clock.val();
        self.tx_good.next = self.sent_event.pulse_out.val();
        self.underrun_event.write_clock.next = self.gmii_tx_clock.val();
        self.underrun_event.pulse_in.next = self.transmitter.tx_underrun.val();
        self.underrun_event.read_clock.next = self.clock.val();
        self.tx_underrun.next = self.underrun_event.pulse_out.val();

        let overrun = self.overrun_event.pulse_out.val();
        let missed = self.rx_frames.missed.val();
        self.rx_missed.next = overrun || missed || self.missed_later.q.val();
        self.missed_later.d.next = (overrun && missed) || (self.missed_later.q.val() && (overrun || missed));
    }
}
