//! A port of any width up to 128 bits.

use hematite_verilator::{Error, Model, PortAny, WidePort};

/// A port whose value travels as `u128`, whatever its width.
#[derive(Debug, Clone, Copy)]
pub enum Pin {
    /// Up to 64 bits.
    Narrow(PortAny),
    /// Up to 128 bits.
    Wide(WidePort),
}

impl Pin {
    /// The port `name` of `model`.
    ///
    /// # Errors
    /// [`Error::UnknownPort`]; [`Error::Width`] beyond 128 bits.
    pub fn of(model: &Model, name: &str) -> Result<Self, Error> {
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
        }
    }
}
