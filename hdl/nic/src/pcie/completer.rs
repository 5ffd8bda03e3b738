//! Requests that want a completion: performed, and answered.

use hematite_abi::pci;
use hematite_lang::prelude::*;

use super::ports::RegisterOut;

#[hw]
enum State {
    Request,
    Address,
    Decision,
    Config,
    Window,
    Split,
    Header,
    Word,
    Store,
    NoData,
}

/// The configuration register behind which the PCI access window lies.
const WINDOW_DATA: u64 = pci::PCI_ACCESS_CAPABILITY as u64 + 16;

/// Bytes that byte enables leave out below the first enabled one.
#[hw]
fn below(enables: Bits<4>) -> Bits<2> {
    if enables.get_bit(0) || !enables.any() {
        bits::<2>(0)
    } else if enables.get_bit(1) {
        bits::<2>(1)
    } else if enables.get_bit(2) {
        bits::<2>(2)
    } else {
        bits::<2>(3)
    }
}

/// Bytes that byte enables leave out above the last enabled one.
#[hw]
fn above(enables: Bits<4>) -> Bits<2> {
    if enables.get_bit(3) || !enables.any() {
        bits::<2>(0)
    } else if enables.get_bit(2) {
        bits::<2>(1)
    } else if enables.get_bit(1) {
        bits::<2>(2)
    } else {
        bits::<2>(3)
    }
}

/// The first bytes of a word, as many as the window has, at every place where they may have to go.
#[hw]
fn to_lanes(word: Bits<32>, length: Bits<3>) -> Bits<32> {
    let byte0 = word.get_bits::<8>(0);
    let byte1 = if length.get_bit(0) {
        byte0
    } else {
        word.get_bits::<8>(8)
    };
    if length.get_bit(2) {
        word
    } else {
        cat::<32>((byte1, byte0, byte1, byte0))
    }
}

/// The bytes of a word from `lane` on, as many as are aligned there; behind them anything.
#[hw]
fn from_lanes(word: Bits<32>, lane: Bits<2>) -> Bits<32> {
    let half = if lane.get_bit(1) {
        word.get_bits::<16>(16)
    } else {
        word.get_bits::<16>(0)
    };
    let byte0 = if lane.get_bit(0) {
        half.get_bits::<8>(8)
    } else {
        half.get_bits::<8>(0)
    };
    cat::<32>((word.get_bits::<16>(16), half.get_bits::<8>(8), byte0))
}

/// The first beat of a request, decoded.
#[hw(value)]
struct Request {
    /// Type 0 configuration request.
    configuration: Bit,
    /// Memory read, not locked.
    memory: Bit,
    /// The request carries data.
    write: Bit,
    /// Locked memory read: its completion is a locked one.
    locked: Bit,
    /// Poisoned (EP).
    poisoned: Bit,
    /// Traffic class.
    traffic_class: Bits<3>,
    /// Attr[1:0]: Relaxed Ordering, No Snoop.
    attributes: Bits<2>,
    /// Attr[2]: ID-Based Ordering.
    id_ordering: Bit,
    /// Length in DW; 0 means 1024.
    length: Bits<10>,
    /// First DW byte enables.
    first_enables: Bits<4>,
    /// Last DW byte enables.
    last_enables: Bits<4>,
    /// Requester ID.
    requester: Bits<16>,
    /// Tag.
    tag: Bits<8>,
    /// The address has two DWs.
    four: Bit,
}

#[hw]
fn decode(beat: Bits<64>) -> Request {
    let kind = beat.get_bits::<5>(24);
    Request {
        configuration: kind == bits::<5>(4),
        memory: kind == bits::<5>(0),
        write: beat.get_bit(30),
        locked: kind == bits::<5>(1),
        poisoned: beat.get_bit(14),
        traffic_class: beat.get_bits::<3>(20),
        attributes: beat.get_bits::<2>(12),
        id_ordering: beat.get_bit(18),
        length: beat.get_bits::<10>(0),
        first_enables: beat.get_bits::<4>(32),
        last_enables: beat.get_bits::<4>(36),
        requester: beat.get_bits::<16>(48),
        tag: beat.get_bits::<8>(40),
        four: beat.get_bit(29),
    }
}

/// A beat of a completion: a DW, or two, the last one or not.
#[hw(value)]
struct Part {
    data: Bits<64>,
    two: Bit,
    last: Bit,
}

/// Performs configuration requests and memory reads, one at a time, and answers everything.
///
/// Memory reads of any length, 1..=1024 DW, are answered by completions split at every 128-byte boundary,
/// which no Max_Payload_Size and no requester can object to (PCI Express 2.3.1.1). Whatever is not
/// supported or misses BAR 0 gets a completion with status Unsupported Request. A completion is offered
/// only when it is stored whole.
///
/// Throughput: a DW of a read takes about 7 cycles, and a beat of a completion leaves every other cycle. Captures bus and device number from configuration
/// writes (PCI Express 2.2.9).
#[hw]
pub struct Completer {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Drops everything.
    pub reset: Signal<In, Bit>,
    /// Requests, two beats each, from the receiver. There is room for 16.
    pub request: StreamIn,
    /// Memory Space Enable, in D0.
    pub enable: Signal<In, Bit>,
    /// BAR 0.
    pub base: Signal<In, Bits<64>>,
    /// Where in BAR 0 the PCI access window is.
    pub window_offset: Signal<In, Bits<16>>,
    /// Bytes of the PCI access window: 1, 2 or 4; 0 while it is not set up rightly.
    pub window_length: Signal<In, Bits<3>>,
    /// Bus, device and function number.
    pub function_id: Signal<Out, Bits<16>>,
    /// Configuration space.
    pub config: RegisterOut,
    /// The register bus.
    pub bus: RegisterOut,
    /// Completion TLPs.
    pub completion: StreamOut,
    /// A request was answered with Unsupported Request.
    pub unsupported: Signal<Out, Bit>,
    /// A poisoned request was refused.
    pub poisoned: Signal<Out, Bit>,
    queue: SlowFifo<Bits<64>, 5>,
    /// A beat on its way to `outgoing`.
    made: Reg<Part>,
    made_valid: Reg<Bit>,
    outgoing: SlowFifo<Part, 5>,
    /// The completion in `outgoing` is whole.
    complete: Reg<Bit>,
    state: Reg<State>,
    current: Reg<Request>,
    /// The second beat: of memory requests the address, of others the header's third DW, and what is to be written.
    beyond: Reg<Bits<64>>,
    id: Reg<Bits<16>>,
    refused: Reg<Bit>,
    /// The completion carries data.
    data: Reg<Bit>,
    /// The value of Byte Count in the next header.
    bytes: Reg<Bits<13>>,
    /// DWs still to be read.
    words: Reg<Bits<11>>,
    /// DWs still to come in this completion.
    chunk: Reg<Bits<11>>,
    address: Reg<Bits<14>>,
    first: Reg<Bit>,
    word: Reg<Bits<32>>,
    /// The lower half of the beat being made.
    low: Reg<Bits<32>>,
    half: Reg<Bit>,
}

#[hw]
impl Logic for Completer {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.complete, self.id, self.made_valid);
        registers!(self.clock => self.beyond);
        registers!(self.clock => self.current, self.refused, self.data, self.bytes, self.words, self.chunk);
        registers!(self.clock => self.address, self.first, self.word, self.low, self.half, self.made);
        clocked!(self.clock, self.reset => self.queue, self.outgoing);
        self.queue.write_data.next = self.request.data.val();
        self.queue.write_valid.next = self.request.valid.val();
        self.request.ready.next = self.queue.write_ready.val();
        self.queue.read_ready.next = false;
        let front = self.queue.read_data.val();
        self.function_id.next = self.id.q.val();
        self.unsupported.next = false;
        self.poisoned.next = false;

        let current = self.current.q.val();
        let low = self.beyond.q.val().get_bits::<32>(0);
        let high = self.beyond.q.val().get_bits::<32>(32);
        let config_address = cat::<12>((low.get_bits::<10>(2), bits::<2>(0)));
        self.config.address.next = config_address.resize::<16>();
        self.config.write_data.next = high;
        self.config.byte_enables.next = current.first_enables;
        self.config.write.next = current.write;
        self.config.valid.next = false;

        let single = current.length == bits::<10>(1);
        let final_word = self.words.q.val() == bits::<11>(1);
        let enables = if self.first.q.val() {
            current.first_enables
        } else if final_word {
            current.last_enables
        } else {
            bits::<4>(0xf)
        };
        // The window's bytes are the first ones of its data register.
        let window_mask = match self.window_length.val().index() {
            1 => bits::<4>(1),
            2 => bits::<4>(3),
            4 => bits::<4>(15),
            _ => bits::<4>(0),
        };
        let lane = self.window_offset.val().get_bits::<2>(0);
        let in_window = matches!(self.state.q.val(), State::Window);
        self.bus.write_data.next = to_lanes(high, self.window_length.val());
        self.bus.write.next = in_window && current.write;
        self.bus.valid.next = false;
        if in_window {
            self.bus.address.next = cat::<16>((self.window_offset.val().get_bits::<14>(2), bits::<2>(0)));
            self.bus.byte_enables.next = (current.first_enables & window_mask) << lane;
        } else {
            self.bus.address.next = cat::<16>((self.address.q.val(), bits::<2>(0)));
            self.bus.byte_enables.next = enables;
        }

        // The header.
        let skip = below(current.first_enables);
        let type_low = current.locked;
        let dw0 = cat::<32>((
            bits::<1>(0),
            self.data.q.val(),
            bits::<5>(0b00101),
            type_low,
            cat::<9>((
                bits::<1>(0),
                current.traffic_class,
                bits::<1>(0),
                current.id_ordering,
                bits::<3>(0),
            )),
            bits::<1>(0),
            current.attributes,
            bits::<2>(0),
            if self.data.q.val() {
                self.chunk.q.val().get_bits::<10>(0)
            } else {
                bits::<10>(0)
            },
        ));
        let status = if self.refused.q.val() {
            bits::<3>(1)
        } else {
            bits::<3>(0)
        };
        let dw1 = cat::<32>((
            self.id.q.val(),
            status,
            bits::<1>(0),
            self.bytes.q.val().get_bits::<12>(0),
        ));
        let lower_address = if current.memory {
            let byte = if self.first.q.val() { skip } else { bits::<2>(0) };
            cat::<7>((self.address.q.val().get_bits::<5>(0), byte))
        } else {
            bits::<7>(0)
        };
        let dw2 = cat::<32>((current.requester, current.tag, bits::<1>(0), lower_address));

        let mut push = false;
        let mut last = false;
        let mut beat = cat::<64>((self.word.q.val(), self.low.q.val()));
        let mut two = true;
        match self.state.q.val() {
            State::Request => {
                self.queue.read_ready.next = true;
                self.current.d.next = decode(front);
                if self.queue.read_valid.val() {
                    self.state.d.next = State::Address;
                }
            }
            State::Address => {
                self.queue.read_ready.next = true;
                self.beyond.d.next = front;
                if self.queue.read_valid.val() {
                    self.state.d.next = State::Decision;
                }
            }
            State::Decision => {
                let length = if current.length.any() {
                    current.length.resize::<11>()
                } else {
                    bits::<11>(1024)
                };
                let end = if single {
                    above(current.first_enables)
                } else {
                    above(current.last_enables)
                };
                let total = cat::<13>((length, bits::<2>(0))) - skip.resize::<13>() - end.resize::<13>();
                self.bytes.d.next = if !current.memory {
                    bits::<13>(4)
                } else if single && !current.first_enables.any() {
                    bits::<13>(1)
                } else {
                    total
                };
                self.words.d.next = length;
                self.chunk.d.next = bits::<11>(1);
                let within = if current.four { high } else { low };
                self.address.d.next = within.get_bits::<14>(2);
                self.first.d.next = true;
                self.refused.d.next = false;
                self.data.d.next = !current.write;
                let above = if current.four { low } else { bits::<32>(0) };
                let page = cat::<48>((above, within.get_bits::<16>(16)));
                let hit = self.enable.val() && page == self.base.val().get_bits::<48>(16);
                let ours = current.configuration && low.get_bits::<3>(16) == bits::<3>(0);
                if current.poisoned {
                    self.poisoned.next = true;
                    self.refused.d.next = true;
                    self.data.d.next = false;
                    self.state.d.next = State::Header;
                } else if ours {
                    if current.write {
                        self.id.d.next = low.get_bits::<16>(16);
                    }
                    let window = config_address == bits::<12>(WINDOW_DATA)
                        && self.window_length.val().any()
                        && current.first_enables.any();
                    self.words.d.next = bits::<11>(1);
                    self.state.d.next = if window { State::Window } else { State::Config };
                } else if current.memory && hit {
                    self.state.d.next = State::Split;
                } else {
                    self.unsupported.next = true;
                    self.refused.d.next = true;
                    self.data.d.next = false;
                    self.state.d.next = State::Header;
                }
            }
            State::Config => {
                self.config.valid.next = true;
                self.word.d.next = self.config.read_data.val();
                if self.config.ready.val() {
                    self.state.d.next = State::Header;
                }
            }
            State::Window => {
                self.bus.valid.next = true;
                self.word.d.next = from_lanes(self.bus.read_data.val(), lane);
                if self.bus.ready.val() {
                    self.state.d.next = State::Header;
                }
            }
            State::Split => {
                let room = bits::<11>(32) - self.address.q.val().get_bits::<5>(0).resize::<11>();
                self.chunk.d.next = if self.words.q.val() < room {
                    self.words.q.val()
                } else {
                    room
                };
                self.state.d.next = State::Header;
            }
            State::Header => {
                beat = cat::<64>((dw1, dw0));
                self.low.d.next = dw2;
                self.half.d.next = true;
                if !self.complete.q.val() {
                    push = true;
                    self.state.d.next = if !self.data.q.val() {
                        State::NoData
                    } else if current.memory {
                        State::Word
                    } else {
                        State::Store
                    };
                }
            }
            State::Word => {
                self.bus.valid.next = true;
                self.word.d.next = self.bus.read_data.val();
                if self.bus.ready.val() {
                    self.state.d.next = State::Store;
                }
            }
            State::Store => {
                last = self.chunk.q.val() == bits::<11>(1);
                push = self.half.q.val() || last;
                self.half.d.next = !self.half.q.val();
                self.low.d.next = self.word.q.val();
                if !self.half.q.val() {
                    beat = cat::<64>((bits::<32>(0), self.word.q.val()));
                    two = false;
                }
                let taken = if self.first.q.val() {
                    bits::<13>(4) - skip.resize::<13>()
                } else {
                    bits::<13>(4)
                };
                self.bytes.d.next = self.bytes.q.val() - taken;
                self.chunk.d.next = self.chunk.q.val() - 1;
                self.words.d.next = self.words.q.val() - 1;
                self.address.d.next = self.address.q.val() + 1;
                self.first.d.next = false;
                self.state.d.next = if !last {
                    State::Word
                } else if final_word {
                    State::Request
                } else {
                    State::Split
                };
            }
            State::NoData => {
                push = true;
                last = true;
                beat = cat::<64>((bits::<32>(0), self.low.q.val()));
                two = false;
                self.state.d.next = State::Request;
            }
        }

        self.made_valid.d.next = push;
        self.made.d.next = Part {
            data: beat,
            two,
            last,
        };
        let made = self.made.q.val();
        self.outgoing.write_valid.next = self.made_valid.q.val();
        self.outgoing.write_data.next = made;
        let front = self.outgoing.read_data.val();
        self.completion.data.next = front.data;
        self.completion.keep.next = if front.two {
            bits::<8>(0xff)
        } else {
            bits::<8>(0x0f)
        };
        self.completion.last.next = front.last;
        self.completion.error.next = false;
        self.completion.valid.next = self.complete.q.val() && self.outgoing.read_valid.val();
        self.outgoing.read_ready.next = self.complete.q.val() && self.completion.ready.val();
        if self.complete.q.val()
            && self.outgoing.read_valid.val()
            && self.completion.ready.val()
            && front.last
        {
            self.complete.d.next = false;
        }
        // Two cycles before the next header at the earliest.
        if self.made_valid.q.val() && made.last {
            self.complete.d.next = true;
        }
    }
}
