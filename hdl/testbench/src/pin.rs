//! A port of up to 128 bits, or that many bits of a wider one.

use hematite_lang::core::prelude::{Synth, TypeDescriptor, TypeKind};
use hematite_verilator::{Error, Model, PortAny, WidePort};

/// A port whose value travels as `u128`, whatever its width.
#[derive(Debug, Clone, Copy)]
pub enum Pin {
    /// Up to 64 bits.
    Narrow(PortAny),
    /// Up to 128 bits.
    Wide(WidePort),
    /// Some bits of a port of more than 64: the lowest, and how many.
    Slice(WidePort, u32, u32),
}

impl Pin {
    /// The port `name` of `model`, or the bits `high` to `low` of a port of more than 64 bits: `name[high:low]`,
    /// see [`slice_of`].
    ///
    /// # Errors
    /// [`Error::UnknownPort`]; [`Error::Width`] beyond 128 bits, or beyond the port.
    pub fn of(model: &Model, name: &str) -> Result<Self, Error> {
        if let Some((port, high, low)) = parse_slice(name) {
            let wide = model.wide(port)?;
            if low > high || high >= wide.bits() || high - low >= 128 {
                return Err(Error::Width {
                    name: name.into(),
                    bits: wide.bits(),
                    wanted: "slice",
                });
            }
            return Ok(Pin::Slice(wide, low, high - low + 1));
        }
        match model.any(name) {
            Err(Error::Width { .. }) => {}
            narrow => return narrow.map(Pin::Narrow),
        }
        let wide = model.wide(name)?;
        if wide.bits() > 128 {
            return Err(Error::Width {
                name: name.into(),
                bits: wide.bits(),
                wanted: "u128",
            });
        }
        Ok(Pin::Wide(wide))
    }

    /// Sets an input; bits beyond its width are dropped.
    pub fn set(self, model: &mut Model, value: u128) {
        match self {
            Pin::Narrow(port) => model.set_any(port, value as u64),
            Pin::Wide(port) => {
                let words = [0, 32, 64, 96].map(|shift| (value >> shift) as u32);
                model.set_wide(port, &words);
            }
            Pin::Slice(port, low, bits) => {
                let mut words = model.get_wide(port).to_vec();
                for n in 0..bits {
                    let at = low + n;
                    let (word, bit) = (&mut words[at as usize / 32], 1 << (at % 32));
                    *word = if value >> n & 1 != 0 {
                        *word | bit
                    } else {
                        *word & !bit
                    };
                }
                model.set_wide(port, &words);
            }
        }
    }

    /// Reads it as of the last evaluation.
    #[must_use]
    pub fn get(self, model: &Model) -> u128 {
        match self {
            Pin::Narrow(port) => model.get_any(port).into(),
            Pin::Wide(port) => {
                let words = model.get_wide(port).iter().rev();
                words.fold(0, |value, &word| value << 32 | u128::from(word))
            }
            Pin::Slice(port, low, bits) => {
                let words = model.get_wide(port);
                let bit = |at: u32| u128::from(words[at as usize / 32] >> (at % 32) & 1);
                (0..bits).fold(0, |value, n| value | bit(low + n) << n)
            }
        }
    }
}

/// `name[high:low]` in its parts.
fn parse_slice(name: &str) -> Option<(&str, u32, u32)> {
    let (port, range) = name.strip_suffix(']')?.split_once('[')?;
    let (high, low) = range.split_once(':')?;
    Some((port, high.parse().ok()?, low.parse().ok()?))
}

/// Bits of a value of this kind.
fn width(kind: &TypeDescriptor) -> usize {
    match &kind.kind {
        TypeKind::Bits(bits) | TypeKind::Signed(bits) => *bits,
        TypeKind::Enum(variants) => (usize::BITS - (variants.len() - 1).leading_zeros()).max(1) as usize,
        TypeKind::Composite(fields) => fields.iter().map(|field| width(&field.kind)).sum(),
    }
}

/// Where the field `name` of the `#[hw(value)]` struct `T` lies in a port of that type: `[high:low]`.
///
/// # Panics
/// When `T` has no such field.
#[must_use]
pub fn slice_of<T: Synth>(name: &str) -> String {
    let TypeKind::Composite(fields) = T::descriptor().kind else {
        panic!("{} has no fields", std::any::type_name::<T>());
    };
    let mut low = 0;
    for field in fields {
        let bits = width(&field.kind);
        if field.fieldname == name {
            return format!("[{}:{low}]", low + bits - 1);
        }
        low += bits;
    }
    panic!("{} has no field {name}", std::any::type_name::<T>());
}
