//! The channels between the parts of the PCI function.

use hematite_lang::prelude::*;

/// A register access, leaving a master. `valid` stays high, and the rest stable, until `ready`; `ready`
/// is high for one cycle. An access without byte enables has no side effect.
#[hw(interface)]
#[join(RegisterIn)]
pub struct RegisterOut {
    /// Byte address in BAR 0, a multiple of 4.
    pub address: Signal<Out, Bits<16>>,
    /// What to write.
    pub write_data: Signal<Out, Bits<32>>,
    /// Which bytes to write, or which of a read are meant.
    pub byte_enables: Signal<Out, Bits<4>>,
    /// Write, else read.
    pub write: Signal<Out, Bit>,
    /// An access is asked for.
    pub valid: Signal<Out, Bit>,
    /// It is done.
    pub ready: Signal<In, Bit>,
    /// With `ready`: what was read.
    pub read_data: Signal<In, Bits<32>>,
}

/// A register access, entering the registers.
#[hw(interface)]
#[join(RegisterOut)]
pub struct RegisterIn {
    /// Byte address in BAR 0, a multiple of 4.
    pub address: Signal<In, Bits<16>>,
    /// What to write.
    pub write_data: Signal<In, Bits<32>>,
    /// Which bytes to write, or which of a read are meant.
    pub byte_enables: Signal<In, Bits<4>>,
    /// Write, else read.
    pub write: Signal<In, Bit>,
    /// An access is asked for.
    pub valid: Signal<In, Bit>,
    /// It is done.
    pub ready: Signal<Out, Bit>,
    /// With `ready`: what was read.
    pub read_data: Signal<Out, Bits<32>>,
}

/// The bytes of `new` where `enables` is set, of `old` elsewhere.
#[hw]
pub fn merge32(old: Bits<32>, new: Bits<32>, enables: Bits<4>) -> Bits<32> {
    let byte0 = if enables.get_bit(0) {
        new.get_bits::<8>(0)
    } else {
        old.get_bits::<8>(0)
    };
    let byte1 = if enables.get_bit(1) {
        new.get_bits::<8>(8)
    } else {
        old.get_bits::<8>(8)
    };
    let byte2 = if enables.get_bit(2) {
        new.get_bits::<8>(16)
    } else {
        old.get_bits::<8>(16)
    };
    let byte3 = if enables.get_bit(3) {
        new.get_bits::<8>(24)
    } else {
        old.get_bits::<8>(24)
    };
    cat::<32>((byte3, byte2, byte1, byte0))
}

/// `value` or nothing: registers are chosen by AND and OR.
#[hw]
pub fn only(wanted: Bit, value: Bits<32>) -> Bits<32> {
    if wanted { value } else { bits::<32>(0) }
}

/// As [`fn@merge32`], for half a word.
#[hw]
pub fn merge16(old: Bits<16>, new: Bits<16>, enables: Bits<2>) -> Bits<16> {
    let byte0 = if enables.get_bit(0) {
        new.get_bits::<8>(0)
    } else {
        old.get_bits::<8>(0)
    };
    let byte1 = if enables.get_bit(1) {
        new.get_bits::<8>(8)
    } else {
        old.get_bits::<8>(8)
    };
    cat::<16>((byte1, byte0))
}
