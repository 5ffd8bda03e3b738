//! From a packet stream to GMII or MII, in the transmit clock.

use hematite_lang::prelude::*;

use super::crc;
use super::mii::TransmitBytes;

/// What goes onto the wire.
#[hw]
pub enum Sending {
    /// Nothing: waits for a frame.
    Idle,
    /// Preamble and start frame delimiter.
    Preamble,
    /// The frame.
    Data,
    /// Zeros up to the smallest frame.
    Padding,
    /// The frame check sequence.
    CheckSequence,
    /// Nothing, after a frame that could not be sent whole: waits for its end.
    Remains,
    /// Nothing, as long as the gap between frames takes.
    Gap,
}

/// Bytes from the destination address to the padding of the smallest frame (IEEE 802.3 clause 4.4.2).
pub const MIN_FRAME: u64 = 60;

/// Bytes between two frames (interPacketGap, IEEE 802.3 clause 4.4.2).
pub const GAP: u64 = 12;

/// Transmitter (IEEE 802.3 clauses 35 and 22): preamble, frame, padding to 60 bytes, frame check sequence, and
/// a gap of at least 12 bytes.
///
/// Throughput: one byte a cycle by GMII, frames back to back at the smallest gap. Latency: the preamble starts in
/// the byte time after the first beat is offered.
/// The input must not pause inside a frame for longer than the beat before lasts (put a store-and-forward
/// FIFO before it). If it does, or if the last beat has `error`, the frame is spoiled with one byte of
/// TX_ER and without a frame check sequence, the rest of the packet is thrown away and `tx_underrun` counts it.
#[hw]
pub struct Transmit {
    /// Rising edge: gmii_tx_clk.
    pub clock: Signal<In, Clock>,
    /// Stops at once.
    pub reset: Signal<In, Bit>,
    /// Frames without padding and frame check sequence; `keep` of 0 counts as one byte.
    pub input: StreamIn,
    /// The pins are an MII's.
    pub mii: Signal<In, Bit>,
    /// TXD.
    pub gmii_txd: Signal<Out, Bits<8>>,
    /// TX_EN.
    pub gmii_tx_en: Signal<Out, Bit>,
    /// TX_ER.
    pub gmii_tx_er: Signal<Out, Bit>,
    /// A byte time ends.
    pub byte_time: Signal<Out, Bit>,
    /// A frame was sent whole.
    pub tx_good: Signal<Out, Bit>,
    /// A frame was spoiled.
    pub tx_underrun: Signal<Out, Bit>,
    bytes: TransmitBytes,
    sending: Reg<Sending>,
    txd: Reg<Bits<8>>,
    tx_en: Reg<Bit>,
    tx_er: Reg<Bit>,
    good: Reg<Bit>,
    underrun: Reg<Bit>,
    /// The beat being sent, its next byte lowest.
    word: Reg<Bits<64>>,
    /// Bit `i`: byte `i` of `word` is there and is not the last one.
    more: Reg<Bits<7>>,
    last: Reg<Bit>,
    error: Reg<Bit>,
    crc: Reg<Bits<32>>,
    /// Bytes sent in this state; in the frame, up to the smallest frame.
    count: Reg<Bits<6>>,
}

#[hw]
impl Logic for Transmit {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.sending, self.txd, self.tx_en, self.tx_er);
        registers!(self.clock, self.reset => self.good, self.underrun, self.count);
        registers!(self.clock => self.word, self.more, self.last, self.error, self.crc);
        clocked!(self.clock, self.reset => self.bytes);
        self.bytes.mii.next = self.mii.val();
        self.bytes.octet.next = self.txd.q.val();
        self.bytes.en.next = self.tx_en.q.val();
        self.bytes.er.next = self.tx_er.q.val();
        self.gmii_txd.next = self.bytes.gmii_txd.val();
        self.gmii_tx_en.next = self.bytes.gmii_tx_en.val();
        self.gmii_tx_er.next = self.bytes.gmii_tx_er.val();
        let enable = self.bytes.enable.val();
        self.byte_time.next = enable;
        self.tx_good.next = self.good.q.val();
        self.tx_underrun.next = self.underrun.q.val();
        self.good.d.next = false;
        self.underrun.d.next = false;
        let valid = self.input.valid.val();
        let next = self.word.q.val().get_bits::<8>(0);
        let count = self.count.q.val();
        let short = count < bits::<6>(MIN_FRAME - 1);
        let mut load = false;
        if enable {
            self.txd.d.next = bits::<8>(0);
            self.tx_en.d.next = false;
            self.tx_er.d.next = false;
            match self.sending.q.val() {
                Sending::Idle => {
                    self.count.d.next = bits::<6>(0);
                    if valid {
                        self.tx_en.d.next = true;
                        self.txd.d.next = bits::<8>(0x55);
                        self.sending.d.next = Sending::Preamble;
                    }
                }
                Sending::Preamble => {
                    self.tx_en.d.next = true;
                    self.txd.d.next = bits::<8>(0x55);
                    self.crc.d.next = bits::<32>(crc::START as u64);
                    self.count.d.next = count + 1;
                    if count == bits::<6>(6) {
                        self.txd.d.next = bits::<8>(0xd5);
                        self.count.d.next = bits::<6>(0);
                        load = true;
                        self.sending.d.next = Sending::Data;
                    }
                }
                Sending::Data => {
                    self.tx_en.d.next = true;
                    self.txd.d.next = next;
                    self.crc.d.next = crc::step(self.crc.q.val(), next);
                    if short {
                        self.count.d.next = count + 1;
                    }
                    self.word.d.next = self.word.q.val() >> 8;
                    self.more.d.next = self.more.q.val() >> 1;
                    let ends = !self.more.q.val().get_bit(0);
                    if ends {
                        if !self.last.q.val() {
                            load = true;
                        } else if short {
                            self.sending.d.next = Sending::Padding;
                        } else {
                            self.count.d.next = bits::<6>(0);
                            self.sending.d.next = Sending::CheckSequence;
                        }
                    }
                    // The byte is marked bad, and what follows is not a frame check sequence.
                    if ends && (self.error.q.val() || (!self.last.q.val() && !valid)) {
                        self.tx_er.d.next = true;
                        self.underrun.d.next = true;
                        self.count.d.next = bits::<6>(0);
                        self.sending.d.next = if self.last.q.val() {
                            Sending::Gap
                        } else {
                            Sending::Remains
                        };
                    }
                }
                Sending::Padding => {
                    self.tx_en.d.next = true;
                    self.crc.d.next = crc::step(self.crc.q.val(), bits::<8>(0));
                    self.count.d.next = count + 1;
                    if !short {
                        self.count.d.next = bits::<6>(0);
                        self.sending.d.next = Sending::CheckSequence;
                    }
                }
                Sending::CheckSequence => {
                    self.tx_en.d.next = true;
                    self.txd.d.next = !self.crc.q.val().get_bits::<8>(0);
                    self.crc.d.next = self.crc.q.val() >> 8;
                    self.count.d.next = count + 1;
                    if count == bits::<6>(3) {
                        self.count.d.next = bits::<6>(0);
                        self.good.d.next = true;
                        self.sending.d.next = Sending::Gap;
                    }
                }
                Sending::Remains => {
                    self.count.d.next = bits::<6>(0);
                    if valid && self.input.last.val() {
                        self.sending.d.next = Sending::Gap;
                    }
                }
                Sending::Gap => {
                    self.count.d.next = count + 1;
                    if count == bits::<6>(GAP - 1) {
                        self.sending.d.next = Sending::Idle;
                    }
                }
            }
        }
        if load {
            self.word.d.next = self.input.data.val();
            self.more.d.next = self.input.keep.val().get_bits::<7>(1);
            self.last.d.next = self.input.last.val();
            self.error.d.next = self.input.last.val() && self.input.error.val();
        }
        let remains = matches!(self.sending.q.val(), Sending::Remains);
        self.input.ready.next = load || (remains && enable);
    }
}
