//! From GMII or MII to a packet stream, in the receive clock of the PHY.

use hematite_lang::prelude::*;

use super::crc;
use super::mii::ReceiveBytes;

/// What the receiver waits for.
#[hw]
pub enum Waiting {
    /// The end of what is on the wire now, which is no frame or no longer one.
    Silence,
    /// The first byte of a preamble.
    Carrier,
    /// The start frame delimiter.
    Delimiter,
    /// The end of the frame.
    End,
}

/// Receiver (IEEE 802.3 clauses 35 and 22): finds the frame behind preamble and start frame delimiter, checks
/// it, and passes it on as packet stream without its frame check sequence.
///
/// Throughput: a byte a cycle by GMII, at any gap of one byte or more; one beat in eight bytes, and one more
/// at the end of a frame. Latency: a byte leaves at most 13 byte times after it came.
/// Back-pressure: the wire cannot wait. A beat that finds `ready` low is lost; the frame then ends at once
/// with `error` and, if it was good otherwise, is counted by `rx_overrun`. As an offer is not held, the reader
/// has to be a FIFO.
///
/// Each bad frame is counted once, by the first that applies:
/// - `rx_symbol_error`: RX_ER inside the frame or its preamble, or a preamble byte other than 0x55;
/// - `rx_oversize`: more than `max_frame` bytes, or four more when a VLAN tag (802.1Q or 802.1ad) is among
///   them; the rest of such a frame is not passed on;
/// - `rx_runt`: less than 64 bytes, or a carrier that ends before the start frame delimiter;
/// - `rx_bad_fcs`: the frame check sequence doesn't match.
///
/// A frame that `reset` cuts, or that begins during it, is counted by `rx_cut` alone.
///
/// Of a bad frame nothing is passed on, or a packet with `error`. Any number of preamble bytes is accepted,
/// also none, as PHYs may lose them. RX_ER without RX_DV (carrier extension, false carrier) is ignored.
#[hw]
pub struct Receive {
    /// Rising edge: gmii_rx_clk.
    pub clock: Signal<In, Clock>,
    /// Forgets the frame under way, but for its count, and waits for the next.
    pub reset: Signal<In, Bit>,
    /// The pins are an MII's.
    pub mii: Signal<In, Bit>,
    /// RXD.
    pub gmii_rxd: Signal<In, Bits<8>>,
    /// RX_DV.
    pub gmii_rx_dv: Signal<In, Bit>,
    /// RX_ER.
    pub gmii_rx_er: Signal<In, Bit>,
    /// Longest frame without a VLAN tag, in bytes from the destination address through the frame check
    /// sequence; at least 64.
    pub max_frame: Signal<In, Bits<16>>,
    /// Frames without frame check sequence.
    pub output: StreamOut,
    /// A good frame has ended.
    pub rx_good: Signal<Out, Bit>,
    /// See above.
    pub rx_bad_fcs: Signal<Out, Bit>,
    /// See above.
    pub rx_runt: Signal<Out, Bit>,
    /// See above.
    pub rx_oversize: Signal<Out, Bit>,
    /// See above.
    pub rx_symbol_error: Signal<Out, Bit>,
    /// A good frame (counted by `rx_good` too) was lost as its reader was too slow.
    pub rx_overrun: Signal<Out, Bit>,
    /// A frame, good or bad, has ended that a reset cut.
    pub rx_cut: Signal<Out, Bit>,
    bytes: ReceiveBytes,
    waiting: Reg<Waiting>,
    /// The last five bytes: four may be the frame check sequence, the fifth may be the last of the data.
    delay: Reg<Bits<40>>,
    delayed: Reg<Bits<3>>,
    crc: Reg<Bits<32>>,
    length: Reg<Bits<16>>,
    /// The first octet of the type may be that of a VLAN tag.
    tag_begins: [Reg<Bit>; 2],
    /// What this frame may have.
    limit: Reg<Bits<16>>,
    long_enough: Reg<Bit>,
    too_long: Reg<Bit>,
    symbol_error: Reg<Bit>,
    /// Where the next byte goes in `word`.
    lane: Reg<Bits<3>>,
    word: Reg<Bits<64>>,
    keep: Reg<Bits<8>>,
    last: Reg<Bit>,
    error: Reg<Bit>,
    valid: Reg<Bit>,
    /// Nothing more of this frame is passed on.
    discard: Reg<Bit>,
    /// A beat that ends the packet with `error` waits to be taken.
    abort: Reg<Bit>,
    good: Reg<Bit>,
    bad_fcs: Reg<Bit>,
    runt: Reg<Bit>,
    oversize: Reg<Bit>,
    symbol: Reg<Bit>,
    overrun: Reg<Bit>,
    /// RX_DV a cycle before.
    dv_before: Reg<Bit>,
    /// What is on the wire was cut.
    cutting: Reg<Bit>,
    cut: Reg<Bit>,
}

#[hw]
impl Logic for Receive {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.waiting, self.valid, self.discard, self.abort);
        registers!(self.clock, self.reset => self.good, self.bad_fcs, self.runt);
        registers!(self.clock, self.reset => self.oversize, self.symbol, self.overrun);
        registers!(self.clock => self.delay, self.delayed, self.crc, self.length);
        registers!(self.clock => self.long_enough, self.too_long, self.symbol_error, self.lane, self.word);
        registers!(self.clock => self.keep, self.last, self.error, self.limit);
        registers!(self.clock => self.tag_begins[0], self.tag_begins[1]);
        registers!(self.clock => self.dv_before, self.cutting, self.cut);
        clocked!(self.clock => self.bytes);
        self.bytes.mii.next = self.mii.val();
        self.bytes.gmii_rxd.next = self.gmii_rxd.val();
        self.bytes.gmii_rx_dv.next = self.gmii_rx_dv.val();
        self.bytes.gmii_rx_er.next = self.gmii_rx_er.val();
        let byte = self.bytes.octet.val();
        let dv = self.bytes.dv.val();
        let er = self.bytes.er.val();
        self.valid.d.next = false;
        self.good.d.next = false;
        self.bad_fcs.d.next = false;
        self.runt.d.next = false;
        self.oversize.d.next = false;
        self.symbol.d.next = false;
        self.overrun.d.next = false;

        // A reset leaves its own trace: these have none.
        let in_frame = matches!(self.waiting.q.val(), Waiting::Delimiter | Waiting::End);
        let begins = matches!(self.waiting.q.val(), Waiting::Carrier) && dv;
        let unseen = matches!(self.waiting.q.val(), Waiting::Silence) && dv && !self.dv_before.q.val();
        let cuts = self.reset.val() && (in_frame || begins);
        self.dv_before.d.next = dv;
        self.cutting.d.next = dv && (cuts || unseen || self.cutting.q.val());
        self.cut.d.next = !dv && (cuts || self.cutting.q.val());
        self.rx_cut.next = self.cut.q.val();

        // What leaves: the word filled in the cycle before.
        let whole = self.valid.q.val() && !self.discard.q.val();
        let lost = whole && !self.output.ready.val();
        self.output.data.next = self.word.q.val();
        self.output.keep.next = self.keep.q.val();
        self.output.last.next = self.last.q.val() || self.abort.q.val();
        self.output.error.next = self.error.q.val() || self.abort.q.val();
        self.output.valid.next = whole || self.abort.q.val();
        if self.abort.q.val() && self.output.ready.val() {
            self.abort.d.next = false;
        }
        if lost {
            self.discard.d.next = true;
            self.abort.d.next = true;
        }
        let intact = self.valid.q.val() && self.last.q.val() && !self.error.q.val();
        self.overrun.d.next = intact && (self.discard.q.val() || lost);

        if self.bytes.strobe.val() {
            match self.waiting.q.val() {
                Waiting::Silence => {
                    if !dv {
                        self.waiting.d.next = Waiting::Carrier;
                    }
                }
                Waiting::Carrier | Waiting::Delimiter => {
                    self.delayed.d.next = bits::<3>(0);
                    self.length.d.next = bits::<16>(0);
                    self.limit.d.next = self.max_frame.val();
                    self.long_enough.d.next = false;
                    self.too_long.d.next = false;
                    self.symbol_error.d.next = false;
                    self.lane.d.next = bits::<3>(0);
                    self.crc.d.next = bits::<32>(crc::START as u64);
                    if dv {
                        if er || (byte != bits::<8>(0x55) && byte != bits::<8>(0xd5)) {
                            self.symbol.d.next = true;
                            self.waiting.d.next = Waiting::Silence;
                        } else if byte.get_bit(7) {
                            self.waiting.d.next = Waiting::End;
                            // The end of the packet before may still wait to be taken.
                            self.discard.d.next = self.abort.q.val() || lost;
                        } else {
                            self.waiting.d.next = Waiting::Delimiter;
                        }
                    } else {
                        self.waiting.d.next = Waiting::Carrier;
                        self.runt.d.next = matches!(self.waiting.q.val(), Waiting::Delimiter);
                    }
                }
                Waiting::End => {
                    let data = self.delay.q.val().get_bits::<8>(32);
                    let holds_data = self.delayed.q.val() == bits::<3>(5);
                    let damaged = self.crc.q.val() != bits::<32>(crc::RESIDUE as u64);
                    let bad = self.symbol_error.q.val()
                        || self.too_long.q.val()
                        || !self.long_enough.q.val()
                        || damaged;
                    if holds_data {
                        let lane = self.lane.q.val();
                        let mut word = self.word.q.val();
                        let mut keep = bits::<8>(0xff);
                        for i in 0..8 {
                            if lane == bits::<3>(i as u64) {
                                word.set_bits::<8>(8 * i, data);
                                keep = bits::<8>((2 << i) - 1);
                            }
                        }
                        self.word.d.next = word;
                        self.keep.d.next = keep;
                        self.lane.d.next = lane + 1;
                        self.valid.d.next = !dv || lane.all();
                        self.last.d.next = !dv;
                        self.error.d.next = !dv && bad;
                    }
                    if dv {
                        self.delay.d.next = cat::<40>((self.delay.q.val().get_bits::<32>(0), byte));
                        if !holds_data {
                            self.delayed.d.next = self.delayed.q.val() + 1;
                        }
                        self.crc.d.next = crc::step(self.crc.q.val(), byte);
                        if !self.length.q.val().all() {
                            self.length.d.next = self.length.q.val() + 1;
                        }
                        if self.length.q.val() == bits::<16>(63) {
                            self.long_enough.d.next = true;
                        }
                        if self.length.q.val() == bits::<16>(12) {
                            self.tag_begins[0].d.next = byte == bits::<8>(0x81);
                            self.tag_begins[1].d.next = byte == bits::<8>(0x88);
                        }
                        let tagged = (self.tag_begins[0].q.val() && !byte.any())
                            || (self.tag_begins[1].q.val() && byte == bits::<8>(0xa8));
                        if self.length.q.val() == bits::<16>(13) && tagged {
                            self.limit.d.next = self.max_frame.val() + 4;
                        }
                        if self.length.q.val() >= self.limit.q.val() && !self.too_long.q.val() {
                            self.too_long.d.next = true;
                            self.discard.d.next = true;
                            self.abort.d.next = true;
                        }
                        if er {
                            self.symbol_error.d.next = true;
                        }
                    } else {
                        self.waiting.d.next = Waiting::Carrier;
                        if self.symbol_error.q.val() {
                            self.symbol.d.next = true;
                        } else if self.too_long.q.val() {
                            self.oversize.d.next = true;
                        } else if !self.long_enough.q.val() {
                            self.runt.d.next = true;
                        } else if damaged {
                            self.bad_fcs.d.next = true;
                        } else {
                            self.good.d.next = true;
                        }
                    }
                }
            }
        }
        self.rx_good.next = self.good.q.val();
        self.rx_bad_fcs.next = self.bad_fcs.q.val();
        self.rx_runt.next = self.runt.q.val();
        self.rx_oversize.next = self.oversize.q.val();
        self.rx_symbol_error.next = self.symbol.q.val();
        self.rx_overrun.next = self.overrun.q.val();
    }
}
