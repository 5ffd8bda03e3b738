//! The port's registers, and what the PHY says.

use hematite_abi::{bar0, port};
use hematite_lang::prelude::*;

use crate::pcie::ports::{RegisterIn, merge32, only};

/// The link as the PHY sees it, in the code of RGMII's in-band status (version 2.0, table 4).
#[hw(value)]
pub struct PhyStatus {
    /// The link is up.
    pub link_up: Bit,
    /// 10, 100, 1000 Mb/s: 0, 1, 2.
    pub speed: Bits<2>,
    /// Full duplex.
    pub full_duplex: Bit,
}

/// The registers of the Ethernet port (`hematite_abi::port`). Three cycles an access; unknown ones read 0.
///
/// The pins of the PHY belong to no clock; `phy` follows them once they have been the same for a few cycles.
#[hw]
pub struct Management {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// As `clear`, and ends the access under way.
    pub reset: Signal<In, Bit>,
    /// Settings to their start values.
    pub clear: Signal<In, Bit>,
    /// The register bus.
    pub access: RegisterIn,
    /// The PHY's pins.
    pub phy_pins: Signal<In, PhyStatus>,
    /// What they say.
    pub phy: Signal<Out, PhyStatus>,
    /// Transmission is held by a PAUSE frame.
    pub paused: Signal<In, Bit>,
    /// PAUSE frames are for the port.
    pub obey_pause: Signal<Out, Bit>,
    /// The far end is to be stopped when the receive FIFO fills up.
    pub send_pause: Signal<Out, Bit>,
    /// What is sent is received.
    pub loopback: Signal<Out, Bit>,
    /// A good frame has arrived.
    pub rx_good: Signal<In, Bit>,
    /// Cycles since the start, and at the latest good frame.
    time: Reg<Bits<64>>,
    rx_time: Reg<Bits<64>>,
    /// The high word of the time that was read last.
    high: Reg<Bits<32>>,
    pins: Synchronizer<PhyStatus>,
    before: Reg<PhyStatus>,
    settled: Reg<PhyStatus>,
    control: Reg<Bits<32>>,
    /// What the access at hand is of, found out in the cycle before: the address comes from afar.
    at_control: Reg<Bit>,
    at_status: Reg<Bit>,
    at_time: Reg<Bit>,
    at_rx_time: Reg<Bit>,
    at_high: Reg<Bit>,
    active: Reg<Bit>,
    done: Reg<Bit>,
    read: Reg<Bits<32>>,
}

const CONTROL: usize = port::CONTROL as usize;
const STATUS: usize = port::STATUS as usize;
const TIME: usize = port::TIME as usize;
const TIME_HIGH: usize = TIME + 4;
const RX_TIME: usize = port::RX_TIME as usize;
const RX_TIME_HIGH: usize = RX_TIME + 4;
/// The bits of CONTROL that there are.
const SETTINGS: u64 = (port::OBEY_PAUSE | port::SEND_PAUSE | port::LOOPBACK) as u64;

#[hw]
impl Logic for Management {
    fn update(&mut self) {
        assert!(bar0::PORT % 0x1000 == 0);
        registers!(self.clock, self.reset => self.control, self.active, self.done);
        registers!(self.clock, self.reset => self.time, self.rx_time);
        registers!(self.clock => self.before, self.settled, self.read, self.high);
        registers!(self.clock => self.at_control, self.at_status, self.at_time, self.at_rx_time, self.at_high);
        let time = self.time.q.val();
        self.time.d.next = time + 1;
        if self.rx_good.val() {
            self.rx_time.d.next = time;
        }
        self.pins.clock.next = self.clock.val();
        self.pins.d.next = self.phy_pins.val();
        let pins = self.pins.q.val();
        self.before.d.next = pins;
        if pins == self.before.q.val() {
            self.settled.d.next = pins;
        }
        let phy = self.settled.q.val();
        self.phy.next = phy;

        let active = self.active.q.val();
        self.active.d.next = self.access.valid.val() && !active && !self.done.q.val();
        self.done.d.next = active;
        self.access.ready.next = self.done.q.val();
        self.access.read_data.next = self.read.q.val();
        let register = self.access.address.val().get_bits::<12>(0);
        self.at_control.d.next = register == bits::<12>(CONTROL as u64);
        self.at_status.d.next = register == bits::<12>(STATUS as u64);
        self.at_time.d.next = register == bits::<12>(TIME as u64);
        self.at_rx_time.d.next = register == bits::<12>(RX_TIME as u64);
        self.at_high.d.next =
            register == bits::<12>(TIME_HIGH as u64) || register == bits::<12>(RX_TIME_HIGH as u64);
        let control = self.control.q.val();
        if active {
            let status = cat::<32>((
                bits::<22>(0),
                phy.speed,
                bits::<5>(0),
                self.paused.val(),
                phy.full_duplex,
                phy.link_up,
            ));
            self.read.d.next = only(self.at_control.q.val(), control)
                | only(self.at_status.q.val(), status)
                | only(self.at_time.q.val(), time.get_bits::<32>(0))
                | only(self.at_rx_time.q.val(), self.rx_time.q.val().get_bits::<32>(0))
                | only(self.at_high.q.val(), self.high.q.val());
            if !self.access.write.val() {
                if self.at_time.q.val() {
                    self.high.d.next = time.get_bits::<32>(32);
                } else if self.at_rx_time.q.val() {
                    self.high.d.next = self.rx_time.q.val().get_bits::<32>(32);
                }
            }
            if self.access.write.val() && self.at_control.q.val() {
                let new = merge32(
                    control,
                    self.access.write_data.val(),
                    self.access.byte_enables.val(),
                );
                self.control.d.next = new & bits::<32>(SETTINGS);
            }
        }
        if self.clear.val() {
            self.control.d.next = bits::<32>(0);
        }
        self.obey_pause.next = control.get_bit(0);
        self.send_pause.next = control.get_bit(1);
        self.loopback.next = control.get_bit(2);
    }
}
