//! Descriptor prefetch: from a packed ring in host memory to validated elements.
//!
//! # What a prefetcher may believe (virtio 1.3 sections 2.8.6 and 2.8.20)
//! A driver makes a chain available by writing the flags of its *head* last; the flags of the other
//! elements are written earlier, in Linux even before their addresses. So:
//! - nothing behind an unavailable head is looked at;
//! - an element of a chain is taken only from a read that was *requested after* a response had shown
//!   the chain's head available. What came in the same read as the head is fetched again;
//! - one descriptor of 16 aligned bytes is read at once, so an available head is whole.
//!
//! To not pay a read per chain, a pass that stops at a chained head goes on to count how many
//! descriptors behind it look available in one piece: of those, the ones that turn out to be heads
//! in the next pass were *sighted* before that pass was requested, so their chains are taken at once.

use hematite_lang::prelude::*;

use super::elements::ElementsOut;
use super::slots::SlotsOut;

/// The NEXT flag's bit in a descriptor's second eight bytes (virtio 1.3 section 2.8.13).
const NEXT: usize = 48;
/// The WRITE flag's bit there.
const WRITE: usize = 49;
/// The INDIRECT flag's bit there.
const INDIRECT: usize = 50;
/// The AVAIL flag's bit there.
const AVAIL: usize = 55;
/// The USED flag's bit there.
const USED: usize = 63;

/// Descriptors in the longest read: 256 bytes.
const BURST: u64 = 16;
/// Descriptors in the shortest read, when little was available the last time: one cache line.
const SHORT_BURST: u64 = 4;
/// Elements in the longest chain.
const MAX_CHAIN: u64 = 64;

/// One element of an available buffer.
#[hw(value)]
pub struct Element {
    /// First byte in host memory.
    pub address: Bits<64>,
    /// Bytes; anything longer than 65535 reads as 65535.
    pub length: Bits<16>,
    /// Buffer ID; the one that counts is the last element's (virtio 1.3 section 2.8.6).
    pub id: Bits<16>,
    /// Place in its chain, from 1: with `last`, the ring slots of the chain.
    pub slots: Bits<8>,
    /// Ends its chain.
    pub last: Bit,
}

/// A beat of a response, and what it says if it is a descriptor's second half.
#[hw(value)]
pub struct Answer {
    /// Eight bytes.
    pub data: Bits<64>,
    /// The response ends here.
    pub last: Bit,
    /// It could not be read.
    pub error: Bit,
    /// The descriptor's length, as [`Element`] has it.
    pub length: Bits<16>,
    /// That is 0.
    pub empty: Bit,
}

/// Looks at a beat.
#[hw]
pub fn answer(data: Bits<64>, last: Bit, error: Bit) -> Answer {
    Answer {
        data,
        last,
        error,
        length: if data.get_bits::<16>(16).any() {
            bits::<16>(0xffff)
        } else {
            data.get_bits::<16>(0)
        },
        empty: !data.get_bits::<32>(0).any(),
    }
}

/// Whether a descriptor's second half says that its chain ends there.
#[hw]
pub fn ends_chain(half: Bits<64>) -> Bit {
    !half.get_bit(NEXT)
}

#[hw]
enum FetchState {
    Doorbell,
    Grant,
    Response,
    Failed,
}

/// How far the pass over one response has come.
#[hw]
enum Scan {
    /// Taking elements.
    Take,
    /// Past a chained head that was not sighted before: counting what looks available.
    Sight,
    /// Past that.
    Sighted,
    /// Past an unavailable head.
    Unavailable,
}

/// Reads the descriptors of one packed virtqueue ahead of use, in bursts of up to 16 that end at the
/// ring's end, and hands them out as elements once their whole response has arrived without error.
/// Sleeps when it has seen an unavailable head, until the next doorbell; a doorbell that comes while
/// a read is in flight leads to another read. One read is in flight at a time: 16 elements for each
/// memory round trip plus about 45 cycles, more where other queues ask too. Holds up to 32 elements, in the
/// `ElementStore` that it shares with other queues and one at hand, and reads on when half are gone. One element leaves
/// every three cycles at most.
/// Any ring size of 1..=4096, power of two or not.
///
/// Fails, until reset, on: the INDIRECT flag, a zero length, an element of the wrong direction, a
/// chain longer than 64 elements or than the ring, an element that is not available behind a head that
/// is, and a read error. Elements of a burst with any of these are not handed out.
#[hw]
pub struct DescriptorFetch {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Forgets the ring position; low only while nothing is in flight.
    pub reset: Signal<In, Bit>,
    /// Request nothing more.
    pub stop: Signal<In, Bit>,
    /// Descriptors in the ring.
    pub size: Signal<In, Bits<13>>,
    /// A doorbell.
    pub notify: Signal<In, Bit>,
    /// Elements must be device-writable (receive) or device-readable (transmit).
    pub writable: Signal<In, Bit>,
    /// Reads of descriptors.
    pub request: SlotsOut,
    /// A beat of some ring's response, which is always taken.
    pub answer: Signal<In, Answer>,
    /// It is of this one's.
    pub answered: Signal<In, Bit>,
    /// Where elements wait.
    pub elements: ElementsOut,
    /// The oldest element.
    pub element: Signal<Out, Element>,
    /// There is one.
    pub element_valid: Signal<Out, Bit>,
    /// It is taken.
    pub element_ready: Signal<In, Bit>,
    /// Bytes of the elements that are held, up to three cycles late.
    pub stock: Signal<Out, Bits<22>>,
    /// None is on its way: the driver has made nothing more available, or there is no room for more.
    pub stock_final: Signal<Out, Bit>,
    /// There is no room for more, or the whole ring is held.
    pub stock_full: Signal<Out, Bit>,
    /// No read is in flight.
    pub quiet: Signal<Out, Bit>,
    /// The ring is unusable; high until reset.
    pub failed: Signal<Out, Bit>,
    state: Reg<FetchState>,
    /// Look at the ring: true from the start, so that no early doorbell is missed.
    #[reset(true)]
    wanted: Reg<Bit>,
    /// The slot to read next.
    position: Reg<Bits<12>>,
    #[reset(true)]
    wrap: Reg<Bit>,
    /// Descriptors to ask for next.
    #[reset(bits::<5>(SHORT_BURST))]
    burst: Reg<Bits<5>>,
    /// Descriptors asked for.
    asked: Reg<Bits<5>>,
    scan: Reg<Scan>,
    /// The first half of a descriptor has come.
    half: Reg<Bit>,
    /// Descriptors of this response seen.
    index: Reg<Bits<5>>,
    /// Leading descriptors of this response that had been seen available before it was requested.
    presighted: Reg<Bits<5>>,
    sighted: Reg<Bits<5>>,
    /// The next element continues a chain.
    chained: Reg<Bit>,
    /// Elements of that chain so far.
    slots: Reg<Bits<7>>,
    /// The chain, the ring or the sighted part ends before the next descriptor: compared in the cycle in which
    /// that descriptor's first half comes.
    full: Reg<Bit>,
    at_ring_end: Reg<Bit>,
    unsighted: Reg<Bit>,
    broken: Reg<Bit>,
    /// The last response showed an unavailable head.
    dry: Reg<Bit>,
    /// Bytes of the elements in this response, of those committed in the cycle before, and of the one taken then.
    arriving: Reg<Bits<22>>,
    arrived: Reg<Bit>,
    gone: Reg<Bits<16>>,
    stocked: Reg<Bits<22>>,
    /// There is an element in the store, as the pointers said a cycle before.
    some: Reg<Bit>,
    /// It is being read.
    coming: Reg<Bit>,
    oldest: Reg<Element>,
    some_oldest: Reg<Bit>,
    head: Reg<Bits<6>>,
    committed: Reg<Bits<6>>,
    tail: Reg<Bits<6>>,
}

#[hw]
impl Logic for DescriptorFetch {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.wanted, self.position, self.wrap, self.burst);
        registers!(self.clock, self.reset => self.chained, self.slots, self.broken, self.presighted);
        registers!(self.clock, self.reset => self.head, self.committed, self.tail, self.half, self.scan);
        registers!(self.clock => self.asked, self.index, self.sighted, self.oldest);
        registers!(self.clock => self.full, self.at_ring_end, self.unsighted);
        registers!(self.clock, self.reset => self.arrived, self.gone, self.stocked, self.dry, self.some);
        registers!(self.clock, self.reset => self.coming, self.some_oldest);
        registers!(self.clock => self.arriving);

        let coming = self.coming.q.val();
        let pop = self.some_oldest.q.val() && self.element_ready.val();
        self.some.d.next = self.head.q.val() != self.committed.q.val();
        self.elements.wanted.next = self.some.q.val() && !self.some_oldest.q.val() && !coming;
        self.elements.read_place.next = self.head.q.val().get_bits::<5>(0);
        self.coming.d.next = self.elements.granted.val();
        if coming {
            self.head.d.next = self.head.q.val() + 1;
            self.oldest.d.next = self.elements.element.val();
            self.some_oldest.d.next = true;
        } else if pop {
            self.some_oldest.d.next = false;
        }
        self.element.next = self.oldest.q.val();
        self.element_valid.next = self.some_oldest.q.val();

        self.stock.next = self.stocked.q.val();
        self.stock_final.next = false;
        self.stock_full.next = false;
        self.gone.d.next = if pop {
            self.element.val().length
        } else {
            bits::<16>(0)
        };
        self.arrived.d.next = false;
        let arrived = if self.arrived.q.val() {
            self.arriving.q.val()
        } else {
            bits::<22>(0)
        };
        self.stocked.d.next = self.stocked.q.val() + arrived - self.gone.q.val().resize::<22>();

        let answer = self.answer.val();
        let answered = self.answered.val();
        let data = answer.data;
        let place = self.slots.q.val() + 1;
        let size = self.size.val();
        let next = self.position.q.val().resize::<13>() + 1;
        let small = !size.get_bits::<6>(7).any();
        self.full.d.next = self.slots.q.val() == bits::<7>(MAX_CHAIN)
            || (small && self.slots.q.val() >= size.get_bits::<7>(0));
        self.at_ring_end.d.next = next == size;
        self.unsighted.d.next = self.index.q.val() >= self.presighted.q.val();
        let length = answer.length;
        // Behind the last element there is room for one that does not count, until the read has ended.
        self.elements.write.next = answered && self.half.q.val();
        self.elements.write_place.next = self.tail.q.val().get_bits::<5>(0);
        self.elements.slots.next = place;

        self.request.slot.next = self.position.q.val();
        self.request.count.next = self.asked.q.val();
        self.request.valid.next = false;
        self.quiet.next = false;
        self.failed.next = false;
        let occupied = self.tail.q.val() - self.head.q.val();
        match self.state.q.val() {
            FetchState::Doorbell => {
                self.quiet.next = true;
                let to_end = size - self.position.q.val().resize::<13>();
                let near = !to_end.get_bits::<8>(5).any();
                self.asked.d.next = if near && to_end.get_bits::<5>(0) < self.burst.q.val() {
                    to_end.get_bits::<5>(0)
                } else {
                    self.burst.q.val()
                };
                let space = occupied <= bits::<6>(32 - BURST);
                // A driver that rings all the time must not look like one that has just posted something.
                let none = self.dry.q.val() || !self.wanted.q.val() || !space;
                let shows = self.some_oldest.q.val() || !self.some.q.val();
                self.stock_final.next = none && !self.arrived.q.val() && shows;
                // One more is in `oldest`.
                let whole = !size.get_bits::<7>(6).any() && occupied + 1 >= size.get_bits::<6>(0);
                self.stock_full.next = !space || whole;
                if self.wanted.q.val() && !self.stop.val() && space {
                    self.state.d.next = FetchState::Grant;
                }
            }
            FetchState::Grant => {
                self.request.valid.next = true;
                self.index.d.next = 0.into();
                self.sighted.d.next = 0.into();
                self.half.d.next = false;
                self.arriving.d.next = 0.into();
                self.scan.d.next = Scan::Take;
                if self.request.ready.val() {
                    self.wanted.d.next = false;
                    self.state.d.next = FetchState::Response;
                }
            }
            FetchState::Response => {
                let mut scan = self.scan.q.val();
                let mut bad = self.broken.q.val();
                let mut sighted = self.sighted.q.val();
                let mut tail = self.tail.q.val();
                if answered {
                    self.half.d.next = !self.half.q.val();
                    if self.half.q.val() {
                        let wrap = self.wrap.q.val();
                        let available = data.get_bit(AVAIL) == wrap && data.get_bit(USED) != wrap;
                        self.index.d.next = self.index.q.val() + 1;
                        match self.scan.q.val() {
                            Scan::Take => {
                                if available {
                                    tail = tail + 1;
                                    self.arriving.d.next = self.arriving.q.val() + length.resize::<22>();
                                    if self.at_ring_end.q.val() {
                                        self.position.d.next = 0.into();
                                        self.wrap.d.next = !wrap;
                                    } else {
                                        self.position.d.next = next.get_bits::<12>(0);
                                    }
                                    if answer.empty
                                        || self.full.q.val()
                                        || data.get_bit(INDIRECT)
                                        || data.get_bit(WRITE) != self.writable.val()
                                    {
                                        bad = true;
                                    }
                                    if ends_chain(data) {
                                        self.slots.d.next = 0.into();
                                        self.chained.d.next = false;
                                    } else {
                                        self.slots.d.next = place;
                                        self.chained.d.next = true;
                                        if !self.chained.q.val() && self.unsighted.q.val() {
                                            scan = Scan::Sight;
                                        }
                                    }
                                } else if self.chained.q.val() {
                                    bad = true;
                                } else {
                                    scan = Scan::Unavailable;
                                }
                            }
                            Scan::Sight => {
                                if available {
                                    sighted = sighted + 1;
                                } else {
                                    scan = Scan::Sighted;
                                }
                            }
                            _ => {}
                        }
                    }
                    self.scan.d.next = scan;
                    self.broken.d.next = bad;
                    self.sighted.d.next = sighted;
                    self.tail.d.next = tail;
                    if answer.last {
                        if bad || answer.error {
                            self.state.d.next = FetchState::Failed;
                        } else {
                            self.committed.d.next = tail;
                            self.arrived.d.next = tail != self.committed.q.val();
                            self.dry.d.next = matches!(scan, Scan::Unavailable);
                            self.presighted.d.next = sighted;
                            self.state.d.next = FetchState::Doorbell;
                        }
                        match scan {
                            Scan::Unavailable => {
                                // The driver adds about as much at a time as it did this time.
                                let taken = tail - self.committed.q.val();
                                self.burst.d.next = if taken >= bits::<6>(SHORT_BURST * 2) {
                                    bits::<5>(BURST)
                                } else if taken >= bits::<6>(SHORT_BURST) {
                                    bits::<5>(SHORT_BURST * 2)
                                } else {
                                    bits::<5>(SHORT_BURST)
                                };
                            }
                            Scan::Take => {
                                self.burst.d.next = bits::<5>(BURST);
                                self.wanted.d.next = true;
                            }
                            _ => self.wanted.d.next = true,
                        }
                    }
                }
            }
            FetchState::Failed => {
                self.quiet.next = true;
                self.failed.next = true;
            }
        }
        if self.notify.val() {
            self.wanted.d.next = true;
        }
    }
}
