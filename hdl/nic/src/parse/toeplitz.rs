//! The receive-side scaling hash (virtio 1.3 section 5.1.6.4.3).

use hematite_lang::prelude::*;

/// Bytes of the key: as many as the longest input, two IPv6 addresses and two ports, and four more.
pub const KEY_BYTES: usize = 40;
/// The key in 16-bit words, as it is held.
const KEY_WORDS: usize = KEY_BYTES / 2;
/// The key after reset: that of Microsoft's specification of receive-side scaling, which most cards have.
pub const DEFAULT_KEY: [u8; KEY_BYTES] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
    0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
    0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// Bytes `8 * n` to `8 * n + 7` of the default key.
const fn default_part(n: usize) -> u64 {
    let mut part = 0;
    let mut i = 0;
    while i < 8 {
        part = part << 8 | DEFAULT_KEY[8 * n + i] as u64;
        i += 1;
    }
    part
}
const PART_0: u64 = default_part(0);
const PART_1: u64 = default_part(1);
const PART_2: u64 = default_part(2);
const PART_3: u64 = default_part(3);
const PART_4: u64 = default_part(4);

/// Word `n` of the default key.
#[hw]
fn default_word(n: Bits<5>) -> Bits<16> {
    let part = match n.get_bits::<3>(2).index() {
        0 => bits::<64>(PART_0),
        1 => bits::<64>(PART_1),
        2 => bits::<64>(PART_2),
        3 => bits::<64>(PART_3),
        _ => bits::<64>(PART_4),
    };
    match n.get_bits::<2>(0).index() {
        0 => part.get_bits::<16>(48),
        1 => part.get_bits::<16>(32),
        2 => part.get_bits::<16>(16),
        _ => part.get_bits::<16>(0),
    }
}

/// What four bits of the input, their first the highest, do to the hash: each that is set adds the 32 bits
/// of the key from its own place on.
#[hw]
fn nibble(input: Bits<4>, key: Bits<35>) -> Bits<32> {
    let mut sum = bits::<32>(0);
    for i in 0..4 {
        if input.get_bit(3 - i) {
            sum = sum ^ key.get_bits::<32>(3 - i);
        }
    }
    sum
}

/// The hash of an input that goes on with the 16 bits `input`, their first the highest; `key` are the 48 bits
/// of the key from the place of the first on.
#[hw]
pub fn step(hash: Bits<32>, input: Bits<16>, key: Bits<48>) -> Bits<32> {
    let high = nibble(input.get_bits::<4>(12), key.get_bits::<35>(13))
        ^ nibble(input.get_bits::<4>(8), key.get_bits::<35>(9));
    let low = nibble(input.get_bits::<4>(4), key.get_bits::<35>(5))
        ^ nibble(input.get_bits::<4>(0), key.get_bits::<35>(1));
    hash ^ (high ^ low)
}

/// Writes of the key, sixteen bits at a time, in the order in which the driver gives its bytes.
#[hw(interface)]
#[join(KeyIn)]
pub struct KeyOut {
    /// Which pair of bytes: 0 to 19.
    pub index: Signal<Out, Bits<5>>,
    /// The pair, its first byte in bits 15..8.
    pub data: Signal<Out, Bits<16>>,
    /// Write it now.
    pub valid: Signal<Out, Bit>,
}

/// Writes of the key, at its reader. A frame that is hashed meanwhile gets a hash of either key or of a mixture.
#[hw(interface)]
#[join(KeyOut)]
pub struct KeyIn {
    /// Which pair of bytes: 0 to 19.
    pub index: Signal<In, Bits<5>>,
    /// The pair, its first byte in bits 15..8.
    pub data: Signal<In, Bits<16>>,
    /// Write it now.
    pub valid: Signal<In, Bit>,
}

/// Hashes addresses and ports of a packet, 16 bits a cycle: six cycles for IPv4, 18 for IPv6, beginning while
/// the packet passes, and three for the key. `busy` is low when nothing more can be done with what came so far.
#[hw]
pub struct Toeplitz {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Loads the default key, which takes 20 cycles.
    pub reset: Signal<In, Bit>,
    /// A new key.
    pub key: KeyIn,
    /// A frame starts: no word of it is there yet.
    pub start: Signal<In, Bit>,
    /// Words 1 to 4 of the packet, which hold the addresses: an IPv4 packet's from the middle of the first to the
    /// middle of the second.
    pub word: Signal<In, Bits<64>>,
    /// The number of the word.
    pub at: Signal<In, Bits<5>>,
    /// It counts.
    pub valid: Signal<In, Bit>,
    /// The packet is one of IPv4.
    pub ipv4: Signal<In, Bit>,
    /// The packet is one of IPv6.
    pub ipv6: Signal<In, Bit>,
    /// Its ports.
    pub ports: Signal<In, Bits<32>>,
    /// They are there.
    pub ports_valid: Signal<In, Bit>,
    /// Work is left.
    pub busy: Signal<Out, Bit>,
    /// The hash of the addresses.
    pub addresses_hash: Signal<Out, Bits<32>>,
    /// That of addresses and ports, if these are there.
    pub hash: Signal<Out, Bits<32>>,
    keys: LutRam<Bits<16>, 5>,
    /// The next word of the default key to be loaded.
    load: Reg<Bits<5>>,
    address_words: LutRam<Bits<64>, 2>,
    /// Words stored.
    stored: Reg<Bits<3>>,
    /// The next 16 bits of the input to be taken.
    next: Reg<Bits<5>>,
    /// The next word of the key to enter `window`.
    next_key: Reg<Bits<5>>,
    /// Words that are still missing in `window`.
    #[reset(bits::<2>(3))]
    missing: Reg<Bits<2>>,
    /// The key from the place of `taken` on.
    window: Reg<Bits<48>>,
    /// Sixteen bits of the input.
    taken: Reg<Bits<16>>,
    taken_valid: Reg<Bit>,
    taken_address: Reg<Bit>,
    sum: Reg<Bits<32>>,
    addresses_sum: Reg<Bits<32>>,
}

#[hw]
impl Logic for Toeplitz {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.load);
        registers!(self.clock, self.start => self.stored, self.next, self.next_key, self.missing);
        registers!(self.clock, self.start => self.taken_valid, self.sum, self.addresses_sum);
        registers!(self.clock => self.window, self.taken, self.taken_address);
        clocked!(self.clock => self.keys, self.address_words);

        // The key: the default one first.
        let load = self.load.q.val();
        let loading = load < bits::<5>(KEY_WORDS as u64);
        if loading {
            self.load.d.next = load + 1;
        }
        self.keys.write_enable.next = loading || self.key.valid.val();
        self.keys.write_address.next = if loading { load } else { self.key.index.val() };
        self.keys.write_data.next = if loading {
            default_word(load)
        } else {
            self.key.data.val()
        };
        self.keys.read_address.next = self.next_key.q.val();

        // The addresses.
        let stored = self.stored.q.val();
        let ipv4 = self.ipv4.val();
        let address = self.at.val() != bits::<5>(0) && self.at.val() <= bits::<5>(4);
        let some = ipv4 || self.ipv6.val();
        self.address_words.write_enable.next = self.valid.val() && address;
        self.address_words.write_address.next = stored.get_bits::<2>(0);
        self.address_words.write_data.next = self.word.val();
        if self.valid.val() && address && some {
            self.stored.d.next = stored + 1;
        }

        // Sixteen bits of the input: of the addresses, then of the ports.
        let next = self.next.q.val();
        let addresses = if ipv4 { bits::<5>(4) } else { bits::<5>(16) };
        let in_addresses = next < addresses;
        let place = if ipv4 { next + 2 } else { next };
        self.address_words.read_address.next = place.get_bits::<2>(2);
        let word = self.address_words.read_data.val();
        let bytes = match place.get_bits::<2>(0).index() {
            0 => word.get_bits::<16>(0),
            1 => word.get_bits::<16>(16),
            2 => word.get_bits::<16>(32),
            _ => word.get_bits::<16>(48),
        };
        let ports = if next.get_bit(0) {
            self.ports.val().get_bits::<16>(0)
        } else {
            self.ports.val().get_bits::<16>(16)
        };
        let there = if in_addresses {
            place.get_bits::<3>(2) < stored
        } else {
            self.ports_valid.val() && next < addresses + 2
        };
        let take = some && there && !self.missing.q.val().any();
        self.taken.d.next = if in_addresses {
            cat::<16>((bytes.get_bits::<8>(0), bytes.get_bits::<8>(8)))
        } else {
            ports
        };
        self.taken_valid.d.next = take;
        self.taken_address.d.next = in_addresses;
        if take {
            self.next.d.next = next + 1;
        }

        // The key beside it.
        let filling = self.missing.q.val().any();
        if filling {
            self.missing.d.next = self.missing.q.val() - 1;
        }
        if filling || self.taken_valid.q.val() {
            self.window.d.next =
                cat::<48>((self.window.q.val().get_bits::<32>(0), self.keys.read_data.val()));
            self.next_key.d.next = self.next_key.q.val() + 1;
        }
        if self.taken_valid.q.val() {
            let sum = step(self.sum.q.val(), self.taken.q.val(), self.window.q.val());
            self.sum.d.next = sum;
            if self.taken_address.q.val() {
                self.addresses_sum.d.next = sum;
            }
        }
        self.busy.next = (some && there) || self.taken_valid.q.val();
        self.addresses_hash.next = self.addresses_sum.q.val();
        self.hash.next = self.sum.q.val();
    }
}
