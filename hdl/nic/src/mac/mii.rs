//! Bytes on the wire: whole ones by GMII at 1000 Mb/s, in two nibbles by MII at 10 and 100 Mb/s (IEEE 802.3 clauses 35
//! and 22).

use hematite_lang::prelude::*;

/// What MII's first nibbles are: the low one is sent first.
const PREAMBLE: u64 = 0x5;
/// The high nibble of the start frame delimiter.
const DELIMITER: u64 = 0xd;

/// Makes bytes of what the PHY receives. By MII the delimiter says which nibbles belong together, as the preamble may
/// have any number of them; one that is left over at the end of a frame is dropped.
///
/// A byte a cycle, or one in two cycles; two cycles later. A nibble that is no preamble before the delimiter becomes a byte that
/// is none either.
#[hw]
pub struct ReceiveBytes {
    /// Rising edge: RX_CLK.
    pub clock: Signal<In, Clock>,
    /// RXD carries nibbles, in its low half.
    pub mii: Signal<In, Bit>,
    /// RXD.
    pub gmii_rxd: Signal<In, Bits<8>>,
    /// RX_DV.
    pub gmii_rx_dv: Signal<In, Bit>,
    /// RX_ER.
    pub gmii_rx_er: Signal<In, Bit>,
    /// The byte.
    pub octet: Signal<Out, Bits<8>>,
    /// It is one of a frame or its preamble.
    pub dv: Signal<Out, Bit>,
    /// The PHY reports an error in it.
    pub er: Signal<Out, Bit>,
    /// A byte time has passed: the rest is new.
    pub strobe: Signal<Out, Bit>,
    rxd: Reg<Bits<8>>,
    rx_dv: Reg<Bit>,
    rx_er: Reg<Bit>,
    /// The nibble before, and whether it is the low one of a byte.
    before: Reg<Bits<4>>,
    low: Reg<Bit>,
    low_er: Reg<Bit>,
    /// The delimiter has come.
    delimited: Reg<Bit>,
    /// What comes of the cycle before: much hangs on it.
    octet_made: Reg<Bits<8>>,
    dv_made: Reg<Bit>,
    er_made: Reg<Bit>,
    strobe_made: Reg<Bit>,
}

#[hw]
impl Logic for ReceiveBytes {
    fn update(&mut self) {
        registers!(self.clock => self.rxd, self.rx_dv, self.rx_er);
        registers!(self.clock => self.before, self.low, self.low_er, self.delimited);
        registers!(self.clock => self.octet_made, self.dv_made, self.er_made, self.strobe_made);
        self.rxd.d.next = self.gmii_rxd.val();
        self.rx_dv.d.next = self.gmii_rx_dv.val();
        self.rx_er.d.next = self.gmii_rx_er.val();
        let dv = self.rx_dv.q.val();
        let er = self.rx_er.q.val();
        let nibble = self.rxd.q.val().get_bits::<4>(0);
        let before = self.before.q.val();
        self.before.d.next = nibble;
        self.octet.next = self.octet_made.q.val();
        self.dv.next = self.dv_made.q.val();
        self.er.next = self.er_made.q.val();
        self.strobe.next = self.strobe_made.q.val();
        self.octet_made.d.next = self.rxd.q.val();
        self.dv_made.d.next = dv;
        self.er_made.d.next = er;
        self.strobe_made.d.next = true;
        self.low.d.next = false;
        self.low_er.d.next = er;
        if !dv {
            self.delimited.d.next = false;
        } else if self.mii.val() {
            let delimits =
                !self.delimited.q.val() && nibble == bits::<4>(DELIMITER) && before == bits::<4>(PREAMBLE);
            let whole = self.low.q.val() || delimits;
            self.octet_made.d.next = cat::<8>((nibble, before));
            self.er_made.d.next = er || self.low_er.q.val();
            self.strobe_made.d.next = whole;
            self.low.d.next = !whole;
            if delimits {
                self.delimited.d.next = true;
            }
        }
    }
}

/// Puts the transmitter's bytes onto TXD, and gives it the time: at each `enable` it goes on by a byte.
///
/// A byte a cycle, or one in two cycles; on the pins a cycle later.
#[hw]
pub struct TransmitBytes {
    /// Rising edge: GTX_CLK, or TX_CLK of an MII.
    pub clock: Signal<In, Clock>,
    /// Nothing is sent.
    pub reset: Signal<In, Bit>,
    /// TXD carries nibbles, in its low half.
    pub mii: Signal<In, Bit>,
    /// The byte; with `en` and `er` it changes in the cycle after `enable`.
    pub octet: Signal<In, Bits<8>>,
    /// TX_EN.
    pub en: Signal<In, Bit>,
    /// TX_ER.
    pub er: Signal<In, Bit>,
    /// A byte time ends.
    pub enable: Signal<Out, Bit>,
    /// TXD.
    pub gmii_txd: Signal<Out, Bits<8>>,
    /// TX_EN.
    pub gmii_tx_en: Signal<Out, Bit>,
    /// TX_ER.
    pub gmii_tx_er: Signal<Out, Bit>,
    /// The high nibble is due.
    high: Reg<Bit>,
    txd: Reg<Bits<8>>,
    tx_en: Reg<Bit>,
    tx_er: Reg<Bit>,
}

#[hw]
impl Logic for TransmitBytes {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.high, self.txd, self.tx_en, self.tx_er);
        let high = self.high.q.val();
        let mii = self.mii.val();
        self.high.d.next = mii && !high;
        self.enable.next = !mii || high;
        let byte = self.octet.val();
        let nibble = if high {
            byte.get_bits::<4>(4)
        } else {
            byte.get_bits::<4>(0)
        };
        self.txd.d.next = if mii { nibble.resize::<8>() } else { byte };
        self.tx_en.d.next = self.en.val();
        self.tx_er.d.next = self.er.val();
        self.gmii_txd.next = self.txd.q.val();
        self.gmii_tx_en.next = self.tx_en.q.val();
        self.gmii_tx_er.next = self.tx_er.q.val();
    }
}
