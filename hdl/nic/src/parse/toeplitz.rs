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

/// The hash of an input that goes on with the byte `input`, its first bit the highest; `key` are the 40 bits
/// of the key from the place of that on.
#[hw]
pub fn step(hash: Bits<32>, input: Bits<8>, key: Bits<40>) -> Bits<32> {
    hash ^ nibble(input.get_bits::<4>(4), key.get_bits::<35>(5))
        ^ nibble(input.get_bits::<4>(0), key.get_bits::<35>(1))
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

/// Hashes addresses and ports of a packet, a byte a cycle, as fast as they come from a gigabit wire: twelve cycles for
/// IPv4, 36 for IPv6, beginning while the packet passes, and five for the key. `busy` is low when nothing more can be
/// done with what came so far.
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
    /// Words of keys that have been written: hashes beside the same number are of one key, unless `mixed`.
    pub key_words: Signal<Out, Bits<10>>,
    /// A word of a key was written in the cycle of the start or since: the hash may be of two keys.
    pub mixed: Signal<Out, Bit>,
    /// The hash of the addresses.
    pub addresses_hash: Signal<Out, Bits<32>>,
    /// That of addresses and ports, if these are there.
    pub hash: Signal<Out, Bits<32>>,
    keys: Ram<Bits<16>, 7>,
    /// The next word of the default key to be loaded.
    load: Reg<Bits<5>>,
    written: Reg<Bits<10>>,
    /// One since the frame started.
    rewritten: Reg<Bit>,
    address_words: Ram<Bits<64>, 5>,
    /// Words stored, and those that may be read.
    stored: Reg<Bits<3>>,
    readable: Reg<Bits<3>>,
    /// The next byte of the input to be taken.
    next: Reg<Bits<6>>,
    /// The next byte of the key to enter `window`.
    next_key: Reg<Bits<6>>,
    /// Bytes that are still missing in `window`.
    #[reset(bits::<3>(5))]
    missing: Reg<Bits<3>>,
    /// The key from the place of `taken` on.
    window: Reg<Bits<40>>,
    /// A byte of the input.
    taken: Reg<Bits<8>>,
    taken_valid: Reg<Bit>,
    taken_address: Reg<Bit>,
    sum: Reg<Bits<32>>,
    addresses_sum: Reg<Bits<32>>,
}

#[hw]
impl Logic for Toeplitz {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.load, self.written);
        registers!(self.clock, self.start => self.stored, self.readable, self.next, self.next_key, self.missing);
        registers!(self.clock, self.start => self.taken_valid, self.sum, self.addresses_sum);
        registers!(self.clock => self.window, self.taken, self.taken_address, self.rewritten);
        clocked!(self.clock => self.keys, self.address_words);

        // The key: the default one first.
        let load = self.load.q.val();
        let loading = load < bits::<5>(KEY_WORDS as u64);
        if loading {
            self.load.d.next = load + 1;
        }
        self.keys.write_enable.next = loading || self.key.valid.val();
        let key_word = if loading { load } else { self.key.index.val() };
        self.keys.write_address.next = key_word.resize::<7>();
        self.keys.write_data.next = if loading {
            default_word(load)
        } else {
            self.key.data.val()
        };

        // The first word is read in the cycle of the start: one that is written then comes too late for it.
        self.rewritten.d.next = self.key.valid.val() || (self.rewritten.q.val() && !self.start.val());
        if self.key.valid.val() {
            self.written.d.next = self.written.q.val() + 1;
        }
        self.key_words.next = self.written.q.val();
        self.mixed.next = self.rewritten.q.val();

        // The addresses.
        let stored = self.stored.q.val();
        let ipv4 = self.ipv4.val();
        let address = self.at.val() != bits::<5>(0) && self.at.val() <= bits::<5>(4);
        let some = ipv4 || self.ipv6.val();
        self.address_words.write_enable.next = self.valid.val() && address;
        self.address_words.write_address.next = stored.get_bits::<2>(0).resize::<5>();
        self.address_words.write_data.next = self.word.val();
        if self.valid.val() && address && some {
            self.stored.d.next = stored + 1;
        }
        self.readable.d.next = stored;

        // A byte of the input: of the addresses, then of the ports. The memories show a byte's word when it is next.
        let next = self.next.q.val();
        let addresses = if ipv4 { bits::<6>(8) } else { bits::<6>(32) };
        let in_addresses = next < addresses;
        let skipped = if ipv4 { bits::<6>(4) } else { bits::<6>(0) };
        let place = next + skipped;
        let word = self.address_words.read_data.val();
        let mut byte = bits::<8>(0);
        let mut port_byte = bits::<8>(0);
        for n in 0..8 {
            if place.get_bits::<3>(0) == bits::<3>(n as u64) {
                byte = byte | word.get_bits::<8>(8 * n);
            }
        }
        for n in 0..4 {
            if next.get_bits::<2>(0) == bits::<2>(3 - n as u64) {
                port_byte = port_byte | self.ports.val().get_bits::<8>(8 * n);
            }
        }
        let there = if in_addresses {
            place.get_bits::<3>(3) < self.readable.q.val()
        } else {
            self.ports_valid.val() && next < addresses + 4
        };
        let filling = self.missing.q.val().any();
        let take = some && there && !filling;
        self.taken.d.next = if in_addresses { byte } else { port_byte };
        self.taken_valid.d.next = take;
        self.taken_address.d.next = in_addresses;
        if take {
            self.next.d.next = next + 1;
        }
        // Both places are known before it is, whether this one is taken.
        let place_after = place + 1;
        let next_place = if take { place_after } else { place };
        self.address_words.read_address.next = next_place.get_bits::<2>(3).resize::<5>();

        // The key beside it.
        if filling {
            self.missing.d.next = self.missing.q.val() - 1;
        }
        if filling || self.taken_valid.q.val() {
            let pair = self.keys.read_data.val();
            let key_byte = if self.next_key.q.val().get_bit(0) {
                pair.get_bits::<8>(0)
            } else {
                pair.get_bits::<8>(8)
            };
            self.window.d.next = cat::<40>((self.window.q.val().get_bits::<32>(0), key_byte));
            self.next_key.d.next = self.next_key.q.val() + 1;
        }
        self.keys.read_address.next = if self.start.val() {
            bits::<7>(0)
        } else {
            self.next_key.d.val().get_bits::<5>(1).resize::<7>()
        };
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
