use hematite_lang::prelude::*;

#[hw]
mod registers {}

#[hw(clocked)]
struct Block {
    a: Signal<In, Bits<8>>,
}

#[hw]
struct Pair(Signal<In, Bit>, Signal<In, Bit>);

#[hw]
enum Payload {
    Empty,
    Word(u32),
}

#[hw]
fn nothing(x: Bits<8>) {}

#[hw]
impl Payload {}

fn main() {}
