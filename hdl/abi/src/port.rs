//! The registers of the Ethernet port in BAR 0: byte offsets from [`crate::bar0::PORT`], each 32 bits. Since version 1.1
//! of the vendor registers. A device reset gives them their start values.

/// What the port does, read and written: [`OBEY_PAUSE`], [`SEND_PAUSE`], [`LOOPBACK`]; starts as 0.
pub const CONTROL: u32 = 0x00;
/// In [`CONTROL`]: a PAUSE frame (IEEE 802.3 annex 31B) stops transmission and goes no further. Without, it is a frame
/// like any other, and a pause that lasts ends.
pub const OBEY_PAUSE: u32 = 1 << 0;
/// In [`CONTROL`]: the far end is stopped by PAUSE frames when the receive FIFO fills up.
pub const SEND_PAUSE: u32 = 1 << 1;
/// In [`CONTROL`]: what the card sends it receives; nothing goes to the wire or comes from it.
pub const LOOPBACK: u32 = 1 << 2;

/// What the PHY says, and whether the far end has stopped transmission; read-only.
pub const STATUS: u32 = 0x04;
/// In [`STATUS`]: the link is up.
pub const LINK_UP: u32 = 1 << 0;
/// In [`STATUS`]: full duplex.
pub const FULL_DUPLEX: u32 = 1 << 1;
/// In [`STATUS`]: a PAUSE frame holds transmission.
pub const PAUSED: u32 = 1 << 2;
/// In [`STATUS`]: where the speed is, two bits wide: one of `SPEED_*`.
pub const SPEED_SHIFT: u32 = 8;
/// 10 Mb/s.
pub const SPEED_10: u32 = 0;
/// 100 Mb/s.
pub const SPEED_100: u32 = 1;
/// 1000 Mb/s.
pub const SPEED_1000: u32 = 2;

/// Cycles of the core clock since power-on, 64 bits. Reading the low word holds the high one for the read that follows.
pub const TIME: u32 = 0x08;
/// The same at the end of the latest frame that was received without error, a few cycles late; read like [`TIME`].
pub const RX_TIME: u32 = 0x10;
