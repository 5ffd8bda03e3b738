//! The transmitter's pins led back to the receiver's, for a self-test without a wire.

use hematite_lang::prelude::*;

/// What is on one direction of a GMII or MII in one cycle.
#[hw(value)]
pub struct Symbol {
    /// RXD or TXD.
    pub data: Bits<8>,
    /// RX_DV or TX_EN.
    pub valid: Bit,
    /// RX_ER or TX_ER.
    pub error: Bit,
}

/// Symbols that are collected before a frame begins, so that clocks that differ by 300 ppm carry the longest one,
/// also in nibbles.
const LEAD: u64 = 10;

/// With `enable`, what is sent is received, and nothing goes to the PHY or comes from it; else it is a wire each way.
/// A switch in mid-frame leaves parts of frames in both directions.
///
/// A symbol a cycle. To and from the PHY in the same cycle; around the loop some 16 cycles later. The clocks' difference is
/// taken up by a buffer of 32 symbols, which starts anew in each gap; clocks that differ by more cut a frame short, and the
/// receiver counts it as bad.
#[hw]
pub struct Loopback {
    /// Rising edge: the transmitter's clock.
    pub tx_clock: Signal<In, Clock>,
    /// Drops what is on its way; in `tx_clock`.
    pub tx_reset: Signal<In, Bit>,
    /// Rising edge: the receiver's clock.
    pub rx_clock: Signal<In, Clock>,
    /// Close the loop; of any clock.
    pub enable: Signal<In, Bit>,
    /// From the transmitter.
    pub sent: Signal<In, Symbol>,
    /// To the PHY.
    pub to_phy: Signal<Out, Symbol>,
    /// From the PHY.
    pub from_phy: Signal<In, Symbol>,
    /// To the receiver.
    pub received: Signal<Out, Symbol>,
    resets: ResetCrossing,
    tx_enable: Synchronizer<Bit>,
    rx_enable: Synchronizer<Bit>,
    buffer: AsyncFifo<Symbol, 5, 6>,
    /// The symbol before was one of a frame.
    in_frame: Reg<Bit>,
    running: Reg<Bit>,
    lead: Reg<Bits<4>>,
}

#[hw]
impl Logic for Loopback {
    fn update(&mut self) {
        clocked!(self.tx_clock, self.tx_reset => self.resets);
        self.resets.far_clock.next = self.rx_clock.val();
        self.tx_enable.clock.next = self.tx_clock.val();
        self.tx_enable.d.next = self.enable.val();
        self.rx_enable.clock.next = self.rx_clock.val();
        self.rx_enable.d.next = self.enable.val();
        registers!(self.tx_clock, self.resets.near_reset => self.in_frame);
        registers!(self.rx_clock, self.resets.far_reset => self.running, self.lead);

        // Frames, each with one symbol behind it that ends it.
        let sent = self.sent.val();
        let looped = self.tx_enable.q.val();
        self.in_frame.d.next = sent.valid;
        self.buffer.write_clock.next = self.tx_clock.val();
        self.buffer.write_reset.next = self.resets.near_reset.val();
        self.buffer.write_data.next = sent;
        self.buffer.write_valid.next = looped && (sent.valid || self.in_frame.q.val());
        let nothing = Symbol {
            data: bits::<8>(0),
            valid: false,
            error: false,
        };
        self.to_phy.next = if looped { nothing } else { sent };

        self.buffer.read_clock.next = self.rx_clock.val();
        self.buffer.read_reset.next = self.resets.far_reset.val();
        let symbol = self.buffer.read_data.val();
        let there = self.buffer.read_valid.val();
        let running = self.running.q.val();
        self.buffer.read_ready.next = running;
        if running {
            self.running.d.next = there && symbol.valid;
            self.lead.d.next = bits::<4>(0);
        } else if there {
            self.lead.d.next = self.lead.q.val() + 1;
            self.running.d.next = self.lead.q.val() == bits::<4>(LEAD);
        }
        let mut back = nothing;
        if running && there {
            back = symbol;
        }
        self.received.next = if self.rx_enable.q.val() {
            back
        } else {
            self.from_phy.val()
        };
    }
}
