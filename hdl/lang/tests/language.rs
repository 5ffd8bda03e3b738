#![allow(missing_docs)]
//! The language end to end: what the README of the language promises elaborates to sane Verilog.
use hematite_lang::prelude::*;

#[hw]
pub fn fold16(x: Bits<32>) -> Bits<16> {
    let s = x.get_bits::<16>(0).resize::<17>() + x.get_bits::<16>(16).resize::<17>();
    let r = s.get_bits::<16>(0);
    if s.get_bit(16) { r + 1 } else { r }
}

#[hw]
enum State {
    Idle,
    Run,
    Done,
}

#[hw(value)]
pub struct Pair {
    pub low: Bits<4>,
    pub high: Bits<8>,
    pub flag: Bit,
}

/// Adds.
#[hw]
pub struct Child<const W: usize> {
    pub a: Signal<In, Bits<W>>,
    pub y: Signal<Out, Bits<W>>,
}

#[hw]
impl<const W: usize> Logic for Child<W> {
    fn update(&mut self) {
        self.y.next = self.a.val() + 1;
    }
}

/// Uses the whole language.
///
/// Second paragraph.
#[hw]
pub struct Everything<const N: usize> {
    pub clock: Signal<In, Clock>,
    pub reset: Signal<In, Bit>,
    pub req: [Signal<In, Bit>; N],
    pub data: [Signal<In, Bits<32>>; N],
    pub pick: Signal<In, Bits<2>>,
    pub out: Signal<Out, Bits<16>>,
    pub busy: Signal<Out, Bit>,
    pub grant: [Signal<Out, Bit>; N],
    pub pair: Signal<Out, Pair>,
    state: Reg<State>,
    #[reset(bits::<8>(7))]
    count: Reg<Bits<8>>,
    child: Child<8>,
    other: Child<8>,
}

#[hw]
impl<const N: usize> Logic for Everything<N> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.count);
        let chosen = self.data[self.pick.val().index()].val();
        let mut found = false;
        let mut which = bits::<8>(0);
        for i in 0..N {
            self.grant[i].next = false;
            if self.req[i].val() && !found {
                found = true;
                which = bits::<8>(i as u64);
                self.grant[i].next = true;
            }
        }
        self.out.next = fold16(chosen);
        match self.state.q.val() {
            State::Idle => {
                if found {
                    self.state.d.next = State::Run;
                }
            }
            State::Run => {
                self.count.d.next = self.count.q.val() + which;
                self.state.d.next = State::Done;
            }
            State::Done => self.state.d.next = State::Idle,
        }
        self.busy.next = !matches!(self.state.q.val(), State::Idle);
        self.child.a.next = self.count.q.val();
        self.other.a.next = self.child.y.val() ^ which;
        let code = match (found, self.state.q.val()) {
            (true, State::Idle | State::Done) => bits::<4>(1),
            (false, _) => bits::<4>(2),
            _ => bits::<4>(3),
        };
        self.pair.next = Pair {
            low: code,
            high: self.other.y.val(),
            flag: found,
        };
    }
}

#[test]
fn the_whole_language_elaborates() {
    let d = hematite_lang::elaborate(&Everything::<3>::default(), "everything").unwrap();
    println!("{}", d.verilog());
    assert_eq!(d.modules.len(), 2, "identical children are merged");
    assert!(d.verilog().contains("// Second paragraph."));
}

#[test]
fn fifos_elaborate() {
    for d in [
        hematite_lang::elaborate(&Fifo::<Beat, 4>::default(), "fifo").unwrap(),
        hematite_lang::elaborate(&BlockFifo::<Beat, 9>::default(), "block_fifo").unwrap(),
    ] {
        std::fs::write(std::env::temp_dir().join(format!("{}.v", d.top)), d.verilog()).unwrap();
    }
}
