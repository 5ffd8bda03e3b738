use hematite_lang::prelude::*;

#[hw]
struct Block {
    a: Signal<In, Bits<8>>,
    b: Signal<In, Bits<8>>,
    y: Signal<Out, Bits<8>>,
}

#[hw]
impl Logic for Block {
    fn update(&mut self) {
        let sum: Bits<8>;
        sum = self.a.val() + self.b.val();
        self.y.next = sum;
    }
}

fn main() {}
