//! The control virtqueue: one command after the other, without haste.

use hematite_lang::prelude::*;

use super::bytes::{count_bytes, keep_bytes};
use super::lifecycle::Lifecycle;
use crate::dma::ports::{ReadRequestOut, WriteRequestOut};
use crate::virtio::ports::{CommandOut, InterruptOut, LocateOut, QueueConfigIn};

/// RING_EVENT_FLAGS_DISABLE (virtio 1.3 section 2.8.14).
const DISABLE: u64 = 1;
/// The queue has no MSI-X vector (section 4.1.5.1.2).
const NO_VECTOR: u64 = 0xffff;
/// Elements in the longest chain.
const MAX_CHAIN: u64 = 64;
/// Bytes of a descriptor.
const DESCRIPTOR: u64 = 16;

#[hw]
enum ControlState {
    Doorbell,
    DescriptorGrant,
    Descriptor,
    Element,
    DataGrant,
    Data,
    Bytes,
    Verdict,
    Reply,
    ReplyGrant,
    ReplyByte,
    ReplyEnd,
    ReplyBeat,
    Next,
    UsedGrant,
    UsedBeat,
    Done,
    EventGrant,
    Event,
    Interrupt,
    Failed,
}

/// Takes chains from a packed ring one descriptor at a time, hands the bytes of their device-readable elements to
/// whoever carries out commands, and writes its reply over their device-writable ones (virtio 1.3 section
/// 5.1.6.5).
///
/// A descriptor is read only when the one before it was seen available, so a chain is believed as far as its head
/// was. The command is carried out when the first device-writable element is met; a chain without one is used
/// and nothing is done. A reply longer than the writable bytes is cut. Then the used descriptor, then, unless the
/// driver disabled it, the interrupt.
///
/// About a cycle a byte of the command, and six memory round trips a command. `run` falling: what is in flight ends, a command that
/// was carried out is replied to and used, any other is abandoned. Fails, until `run` falls, on: the
/// INDIRECT flag, an element without bytes, a readable one behind a writable one, a chain longer than 64 or than
/// the ring or that ends at an unavailable element, and a read error.
#[hw]
pub struct ControlEngine {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Stops at once, whatever is in flight: for power-on, with the DMA engines.
    pub reset: Signal<In, Bit>,
    /// The virtqueue.
    pub config: QueueConfigIn,
    /// Commands, and their replies.
    pub command: CommandOut,
    /// Reads of host memory.
    pub read_request: ReadRequestOut,
    /// Their responses.
    pub read_response: StreamIn,
    /// Writes to host memory.
    pub write_request: WriteRequestOut,
    /// Their bytes.
    pub write_data: StreamOut,
    /// The oldest write that is not done is now ahead of anything sent to the host from now on.
    pub write_done: Signal<In, Bit>,
    /// Where descriptors and the driver event suppression structure are. The card fills in the queue.
    pub locate: LocateOut,
    /// The queue's interrupt.
    pub interrupt: InterruptOut,
    life: Lifecycle,
    state: Reg<ControlState>,
    /// Look at the ring: true from the start, so that no early doorbell is missed.
    #[reset(true)]
    wanted: Reg<Bit>,
    /// The slot of the next descriptor.
    position: Reg<Bits<12>>,
    #[reset(true)]
    wrap: Reg<Bit>,
    /// The slot of the chain's head, and its wrap counter.
    head: Reg<Bits<12>>,
    head_wrap: Reg<Bit>,
    /// Elements of the chain so far.
    slots: Reg<Bits<8>>,
    /// The command of this chain was carried out.
    replying: Reg<Bit>,
    /// Bytes of the reply written.
    replied: Reg<Bits<16>>,
    /// Bytes of the reply that remain.
    remaining: Reg<Bits<16>>,
    /// The second half of the descriptor comes.
    second: Reg<Bit>,
    /// The element at hand, or what else is read or written.
    address: Reg<Bits<64>>,
    length: Reg<Bits<16>>,
    /// That is where it is asked for.
    located: Reg<Bit>,
    id: Reg<Bits<16>>,
    more: Reg<Bit>,
    writable: Reg<Bit>,
    available: Reg<Bit>,
    /// The descriptor is one that no driver may write.
    bad: Reg<Bit>,
    /// Bytes on their way from a beat, or into one.
    word: Reg<Bits<64>>,
    bytes: Reg<Bits<4>>,
    /// So many more, modulo 8, would fill it.
    turns: Reg<Bits<3>>,
    last: Reg<Bit>,
    /// Bytes of this write that have no place in a beat yet.
    unplaced: Reg<Bits<16>>,
    /// Writes that are not done.
    undone: Reg<Bits<8>>,
    clear: Signal<Local, Bit>,
}

#[hw]
impl Logic for ControlEngine {
    fn update(&mut self) {
        clocked!(self.clock, self.reset => self.life);
        self.clear.next = self.reset.val() || self.life.clear.val();
        registers!(self.clock, self.clear => self.state, self.wanted, self.position, self.wrap);
        registers!(self.clock, self.clear => self.located);
        registers!(self.clock, self.reset => self.undone);
        registers!(self.clock => self.head, self.head_wrap, self.slots, self.replying, self.replied);
        registers!(self.clock => self.remaining, self.second, self.address, self.length, self.id, self.more);
        registers!(self.clock => self.writable, self.available, self.bad, self.word, self.bytes, self.last);
        registers!(self.clock => self.unplaced, self.turns);
        let stop = self.life.stop.val();
        self.life.run.next = self.config.run.val();
        self.life.fault.next = matches!(self.state.q.val(), ControlState::Failed);
        self.life.quiet.next = matches!(self.state.q.val(), ControlState::Doorbell | ControlState::Failed)
            && !self.undone.q.val().any();
        self.config.idle.next = self.life.idle.val();
        self.config.failed.next = self.life.failed.val();

        let position = self.position.q.val();
        self.read_request.address.next = self.address.q.val();
        self.read_request.length.next = self.length.q.val();
        self.read_request.valid.next = false;
        self.read_response.ready.next = false;
        self.write_request.address.next = self.address.q.val();
        self.write_request.length.next = self.unplaced.q.val();
        self.write_request.valid.next = false;
        self.write_data.data.next = self.word.q.val();
        self.write_data.keep.next = keep_bytes(self.bytes.q.val());
        self.write_data.last.next = self.last.q.val();
        self.write_data.error.next = false;
        self.write_data.valid.next = false;
        self.interrupt.vector.next = self.config.vector.val();
        self.interrupt.valid.next = false;
        self.interrupt.held.next = false;
        self.command.start.next = false;
        self.command.byte.next = self.word.q.val().get_bits::<8>(0);
        self.command.byte_valid.next = false;
        self.command.execute.next = false;
        self.command.reply_ready.next = false;
        let shifted = self.word.q.val() >> 8;
        let located = self.located.q.val();
        self.locate.queue.next = bits::<5>(0);
        self.locate.driver.next = false;
        self.locate.slot.next = position;
        self.locate.valid.next = false;
        let mut starts = false;

        let data = self.read_response.data.val();
        let some = self.read_response.valid.val();
        let ends = some && self.read_response.last.val();
        let error = self.read_response.error.val();
        let remaining = self.remaining.q.val();
        match self.state.q.val() {
            ControlState::Doorbell => {
                self.slots.d.next = 0.into();
                self.replying.d.next = false;
                self.replied.d.next = 0.into();
                self.head.d.next = position;
                self.head_wrap.d.next = self.wrap.q.val();
                self.length.d.next = bits::<16>(DESCRIPTOR);
                if self.wanted.q.val() && !stop {
                    self.command.start.next = true;
                    self.state.d.next = ControlState::DescriptorGrant;
                }
            }
            ControlState::DescriptorGrant => {
                self.second.d.next = false;
                self.locate.valid.next = !located;
                self.read_request.valid.next = located;
                if located && self.read_request.ready.val() {
                    self.wanted.d.next = false;
                    self.state.d.next = ControlState::Descriptor;
                }
            }
            ControlState::Descriptor => {
                self.read_response.ready.next = true;
                if some {
                    self.second.d.next = true;
                    if self.second.q.val() {
                        let wrap = self.wrap.q.val();
                        let long = data.get_bits::<16>(16).any();
                        self.length.d.next = if long {
                            bits::<16>(0xffff)
                        } else {
                            data.get_bits::<16>(0)
                        };
                        self.id.d.next = data.get_bits::<16>(32);
                        self.more.d.next = data.get_bit(48);
                        self.writable.d.next = data.get_bit(49);
                        self.available.d.next = data.get_bit(55) == wrap && data.get_bit(63) != wrap;
                        self.bad.d.next = data.get_bit(50)
                            || !data.get_bits::<32>(0).any()
                            || (self.replying.q.val() && !data.get_bit(49))
                            || self.slots.q.val() >= bits::<8>(MAX_CHAIN)
                            || self.slots.q.val().resize::<13>() >= self.config.size.val();
                    } else {
                        self.address.d.next = data;
                    }
                    if ends {
                        self.state.d.next = if error {
                            ControlState::Failed
                        } else {
                            ControlState::Element
                        };
                    }
                }
            }
            ControlState::Element => {
                let first = !self.slots.q.val().any();
                if !self.available.q.val() {
                    self.state.d.next = if first {
                        ControlState::Doorbell
                    } else {
                        ControlState::Failed
                    };
                } else if self.bad.q.val() {
                    self.state.d.next = ControlState::Failed;
                } else if stop && !self.replying.q.val() {
                    self.state.d.next = ControlState::Doorbell;
                } else {
                    self.slots.d.next = self.slots.q.val() + 1;
                    let next = position.resize::<13>() + 1;
                    if next == self.config.size.val() {
                        self.position.d.next = 0.into();
                        self.wrap.d.next = !self.wrap.q.val();
                    } else {
                        self.position.d.next = next.get_bits::<12>(0);
                    }
                    if !self.writable.q.val() {
                        self.state.d.next = ControlState::DataGrant;
                    } else if self.replying.q.val() {
                        self.state.d.next = ControlState::Reply;
                    } else {
                        self.command.execute.next = true;
                        self.state.d.next = ControlState::Verdict;
                    }
                }
            }
            ControlState::DataGrant => {
                self.read_request.valid.next = true;
                if self.read_request.ready.val() {
                    self.state.d.next = ControlState::Data;
                }
            }
            ControlState::Data => {
                self.read_response.ready.next = true;
                self.word.d.next = data;
                self.bytes.d.next = count_bytes(self.read_response.keep.val());
                self.last.d.next = self.read_response.last.val();
                if some {
                    self.state.d.next = if ends && error {
                        ControlState::Failed
                    } else {
                        ControlState::Bytes
                    };
                }
            }
            ControlState::Bytes => {
                self.command.byte_valid.next = true;
                self.word.d.next = shifted;
                self.bytes.d.next = self.bytes.q.val() - 1;
                if self.bytes.q.val() == bits::<4>(1) {
                    self.state.d.next = if self.last.q.val() {
                        ControlState::Next
                    } else {
                        ControlState::Data
                    };
                }
            }
            ControlState::Verdict => {
                self.replying.d.next = true;
                self.remaining.d.next = self.command.reply_length.val();
                if self.command.executed.val() {
                    self.state.d.next = ControlState::Reply;
                }
            }
            ControlState::Reply => {
                let part = if self.length.q.val() < remaining {
                    self.length.q.val()
                } else {
                    remaining
                };
                self.unplaced.d.next = part;
                self.remaining.d.next = remaining - part;
                self.state.d.next = if remaining.any() {
                    ControlState::ReplyGrant
                } else {
                    ControlState::Next
                };
            }
            ControlState::ReplyGrant => {
                self.write_request.valid.next = true;
                self.bytes.d.next = 0.into();
                self.turns.d.next = bits::<3>(0);
                if self.write_request.ready.val() {
                    starts = true;
                    self.replied.d.next = self.replied.q.val() + self.unplaced.q.val();
                    self.state.d.next = ControlState::ReplyByte;
                }
            }
            ControlState::ReplyByte => {
                if self.command.reply_valid.val() {
                    self.command.reply_ready.next = true;
                    self.word.d.next = cat::<64>((self.command.reply.val(), shifted.get_bits::<56>(0)));
                    self.turns.d.next = self.turns.q.val() - 1;
                    self.bytes.d.next = self.bytes.q.val() + 1;
                    self.unplaced.d.next = self.unplaced.q.val() - 1;
                    let last = self.unplaced.q.val() == bits::<16>(1);
                    self.last.d.next = last;
                    if self.bytes.q.val() == bits::<4>(7) {
                        self.state.d.next = ControlState::ReplyBeat;
                    } else if last {
                        self.state.d.next = ControlState::ReplyEnd;
                    }
                }
            }
            ControlState::ReplyEnd => {
                // Bytes come in at the top; the first is to be at the bottom.
                self.word.d.next = shifted;
                self.turns.d.next = self.turns.q.val() - 1;
                if self.turns.q.val() == bits::<3>(1) {
                    self.state.d.next = ControlState::ReplyBeat;
                }
            }
            ControlState::ReplyBeat => {
                self.write_data.valid.next = true;
                self.turns.d.next = bits::<3>(0);
                if self.write_data.ready.val() {
                    self.bytes.d.next = 0.into();
                    self.state.d.next = if self.last.q.val() {
                        ControlState::Next
                    } else {
                        ControlState::ReplyByte
                    };
                }
            }
            ControlState::Next => {
                self.length.d.next = bits::<16>(DESCRIPTOR);
                self.unplaced.d.next = bits::<16>(DESCRIPTOR);
                self.state.d.next = if self.more.q.val() {
                    ControlState::DescriptorGrant
                } else {
                    ControlState::UsedGrant
                };
            }
            ControlState::UsedGrant => {
                self.locate.slot.next = self.head.q.val();
                self.locate.valid.next = !located;
                self.write_request.valid.next = located;
                self.word.d.next = 0.into();
                self.bytes.d.next = bits::<4>(8);
                self.last.d.next = false;
                if located && self.write_request.ready.val() {
                    starts = true;
                    self.state.d.next = ControlState::UsedBeat;
                }
            }
            ControlState::UsedBeat => {
                self.write_data.valid.next = true;
                if self.write_data.ready.val() {
                    // Flags from bit 48: WRITE is bit 1, AVAIL bit 7, USED bit 15.
                    let wrap = self.head_wrap.q.val();
                    let wrote = self.replied.q.val().any();
                    self.word.d.next = cat::<64>((
                        cat::<16>((wrap, bits::<7>(0), wrap, bits::<5>(0), wrote, false)),
                        self.id.q.val(),
                        bits::<16>(0),
                        self.replied.q.val(),
                    ));
                    self.last.d.next = true;
                    if self.last.q.val() {
                        self.state.d.next = ControlState::Done;
                    }
                }
            }
            ControlState::Done => {
                self.wanted.d.next = true;
                self.length.d.next = bits::<16>(4);
                if !self.undone.q.val().any() {
                    self.state.d.next = if stop || self.config.vector.val() == bits::<16>(NO_VECTOR) {
                        ControlState::Doorbell
                    } else {
                        ControlState::EventGrant
                    };
                }
            }
            ControlState::EventGrant => {
                self.locate.driver.next = true;
                self.locate.slot.next = bits::<12>(0);
                self.locate.valid.next = !located;
                self.read_request.valid.next = located;
                if located && self.read_request.ready.val() {
                    self.state.d.next = ControlState::Event;
                }
            }
            ControlState::Event => {
                self.read_response.ready.next = true;
                if ends {
                    self.state.d.next = if error {
                        ControlState::Failed
                    } else if data.get_bits::<2>(16) == bits::<2>(DISABLE) {
                        ControlState::Doorbell
                    } else {
                        ControlState::Interrupt
                    };
                }
            }
            ControlState::Interrupt => {
                self.interrupt.valid.next = true;
                if self.interrupt.ready.val() {
                    self.state.d.next = ControlState::Doorbell;
                }
            }
            ControlState::Failed => {}
        }
        if self.locate.found.val() && self.locate.valid.val() {
            self.address.d.next = self.locate.address.val();
            self.located.d.next = true;
        }
        let taken = (self.read_request.valid.val() && self.read_request.ready.val())
            || (self.write_request.valid.val() && self.write_request.ready.val());
        if taken {
            self.located.d.next = false;
        }
        if starts && !self.write_done.val() {
            self.undone.d.next = self.undone.q.val() + 1;
        }
        if !starts && self.write_done.val() {
            self.undone.d.next = self.undone.q.val() - 1;
        }
        if self.config.notify.val() {
            self.wanted.d.next = true;
        }
    }
}
