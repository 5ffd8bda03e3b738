//! At 10 and 100 Mb/s a byte time is two nibbles, the low one first (MII, IEEE 802.3 clause 22).

use crate::pins::GmiiSymbol;

/// Byte times to nibbles, in the low half of the data.
#[derive(Debug, Default)]
pub struct Splitter {
    high: Option<GmiiSymbol>,
}

impl Splitter {
    /// The second nibble of the byte time before, if that is due.
    pub fn rest(&mut self) -> Option<GmiiSymbol> {
        self.high.take()
    }

    /// The first nibble of a byte time.
    pub fn split(&mut self, octet: GmiiSymbol) -> GmiiSymbol {
        let nibble = |data| GmiiSymbol { data, ..octet };
        self.high = Some(nibble(octet.data >> 4));
        nibble(octet.data & 0xf)
    }
}

/// Nibbles to byte times. A frame begins with a low nibble wherever it begins.
#[derive(Debug, Default)]
pub struct Joiner {
    low: Option<GmiiSymbol>,
}

impl Joiner {
    /// Takes a nibble; the byte time that is whole with it. A frame that ends within a byte has an error in that byte.
    pub fn push(&mut self, nibble: GmiiSymbol) -> Option<GmiiSymbol> {
        match self.low.replace(nibble) {
            Some(low) if low.valid && nibble.valid => {
                self.low = None;
                Some(GmiiSymbol {
                    data: nibble.data << 4 | low.data & 0xf,
                    valid: true,
                    error: low.error || nibble.error,
                })
            }
            Some(low) if low.valid => Some(GmiiSymbol { error: true, ..low }),
            Some(_) if !nibble.valid => {
                self.low = None;
                Some(nibble)
            }
            // Half a byte time of the gap is over.
            Some(_) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(nibbles: &[GmiiSymbol]) -> Vec<GmiiSymbol> {
        let mut joiner = Joiner::default();
        nibbles.iter().filter_map(|&nibble| joiner.push(nibble)).collect()
    }

    #[test]
    fn what_is_split_is_joined_wherever_the_frame_begins() {
        let error = GmiiSymbol {
            error: true,
            ..GmiiSymbol::byte(0x42)
        };
        let octets = [
            GmiiSymbol::byte(0x55),
            GmiiSymbol::byte(0xd5),
            error,
            GmiiSymbol::IDLE,
        ];
        let mut splitter = Splitter::default();
        for before in 0..4 {
            let mut nibbles = vec![GmiiSymbol::IDLE; before];
            for octet in octets {
                nibbles.push(splitter.split(octet));
                nibbles.extend(splitter.rest());
            }
            assert!(nibbles.iter().all(|nibble| nibble.data < 16));
            let joined = join(&nibbles);
            assert_eq!(joined[before / 2..], octets);
            assert!(joined[..before / 2].iter().all(|symbol| !symbol.valid));
        }
    }

    #[test]
    fn half_a_byte_at_the_end_of_a_frame_is_an_error() {
        let nibbles = [
            GmiiSymbol::byte(1),
            GmiiSymbol::byte(2),
            GmiiSymbol::byte(3),
            GmiiSymbol::IDLE,
        ];
        let joined = join(&nibbles);
        assert_eq!(joined[0], GmiiSymbol::byte(0x21));
        assert!(joined[1].valid && joined[1].error);
    }
}
