//! The card's boundary: what the machine drives and samples, independent of what plays the card.

use thiserror::Error;

/// One 64-bit transfer of a TLP stream. DW `2n` of the packet is in bits 31:0, DW `2n + 1` in 63:32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// Two double words.
    pub data: u64,
    /// Byte lanes in use: `0x0f` or `0xff`.
    pub keep: u8,
    /// Ends the packet.
    pub last: bool,
    /// On the last transfer: discard the packet.
    pub error: bool,
}

/// Flow-control credit the link has for the card's packets, one bit a class (PCIe 2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credits {
    /// Memory writes may start.
    pub posted: bool,
    /// Memory reads may start.
    pub non_posted: bool,
    /// Completions may start.
    pub completion: bool,
}

/// PCIe pins that the machine drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcieInputs {
    /// Host to card stream, `None` is not valid.
    pub rx: Option<Beat>,
    /// Back-pressure on the card to host stream.
    pub tx_ready: bool,
    /// The data link layer is up.
    pub link_up: bool,
    /// Credit.
    pub credits: Credits,
}

/// PCIe pins that the card drives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PcieOutputs {
    /// Card to host stream.
    pub tx: Option<Beat>,
    /// Back-pressure on the host to card stream.
    pub rx_ready: bool,
}

/// One GMII byte time (IEEE 802.3 clause 35).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GmiiSymbol {
    /// RXD or TXD.
    pub data: u8,
    /// RX_DV or TX_EN.
    pub valid: bool,
    /// RX_ER or TX_ER.
    pub error: bool,
}

impl GmiiSymbol {
    /// Between frames.
    pub const IDLE: GmiiSymbol = GmiiSymbol {
        data: 0,
        valid: false,
        error: false,
    };

    /// A byte of a frame.
    pub const fn byte(data: u8) -> Self {
        GmiiSymbol {
            data,
            valid: true,
            error: false,
        }
    }
}

/// What the PHY says of the Ethernet link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhyStatus {
    /// The link is up.
    pub link_up: bool,
    /// One of `hematite_abi::port::SPEED_*`.
    pub speed: u32,
    /// Full duplex.
    pub full_duplex: bool,
}

impl PhyStatus {
    /// A link with 1000 Mb/s, full duplex.
    pub const GIGABIT: PhyStatus = PhyStatus {
        link_up: true,
        speed: hematite_abi::port::SPEED_1000,
        full_duplex: true,
    };
    /// No link.
    pub const DOWN: PhyStatus = PhyStatus {
        link_up: false,
        ..PhyStatus::GIGABIT
    };
}

/// The card's clock inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clock {
    /// `core_clock`.
    Core,
    /// `gmii_rx_clock`.
    GmiiRx,
    /// `gmii_tx_clock`.
    GmiiTx,
}

/// The model of the card stopped: `$fatal`, `$stop`, or a failed assertion in the RTL.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the card's model stopped: {0}")]
pub struct CardFault(pub String);

/// Something with the card's pins: the verilated card, or a software endpoint in tests.
///
/// All pins belong to rising edges. The machine lowers a clock, drives the inputs of its domain, evaluates,
/// samples the domain's outputs (so combinational paths from input to output have settled), raises the clock and
/// evaluates.
pub trait CardPins {
    /// `core_reset`, synchronous to the core clock, active high.
    fn set_core_reset(&mut self, asserted: bool);
    /// Sets the level of one clock; takes effect at the next [`CardPins::eval`].
    fn set_clock(&mut self, clock: Clock, high: bool);
    /// Sets all three clocks at once.
    fn set_clocks(&mut self, high: bool) {
        self.set_clock(Clock::Core, high);
        self.set_clock(Clock::GmiiRx, high);
        self.set_clock(Clock::GmiiTx, high);
    }
    /// Drives the core-clock inputs. Called only when they change.
    fn drive_pcie(&mut self, inputs: &PcieInputs);
    /// The core-clock outputs.
    fn sample_pcie(&self) -> PcieOutputs;
    /// Drives the receive GMII. Called only when it changes.
    fn drive_gmii(&mut self, symbol: GmiiSymbol);
    /// The transmit GMII.
    fn sample_gmii(&self) -> GmiiSymbol;
    /// Drives the PHY's status pins; a card begins with [`PhyStatus::GIGABIT`].
    fn drive_phy(&mut self, status: PhyStatus);
    /// The card will act by itself, later.
    fn is_holding(&self) -> bool {
        false
    }
    /// Lets the model settle; `now` in picoseconds stamps waves.
    fn eval(&mut self, now: u64) -> Result<(), CardFault>;
}
