//! Designs that must not become Verilog: each is refused with the place and the reason.
//!
//! What the macro can see is refused by the compiler (see the UI tests of `hematite-macros`); here is what only
//! tracing or elaboration knows.
#![allow(missing_docs)]

use hematite_lang::{elaborate, prelude::*};

/// The panic of tracing, or "".
fn panic_of<B: Block + Default>() -> String {
    let outcome = std::panic::catch_unwind(|| elaborate(&B::default(), "top").map(|d| d.verilog()));
    match outcome {
        Ok(design) => panic!("accepted: {design:?}"),
        Err(panic) => match panic.downcast::<String>() {
            Ok(text) => *text,
            Err(_) => panic!("a panic without a text"),
        },
    }
}

/// The errors of elaboration.
fn errors_of<B: Block + Default>() -> String {
    match elaborate(&B::default(), "top") {
        Ok(design) => panic!("accepted: {}", design.verilog()),
        Err(errors) => errors.to_string(),
    }
}

/// Every fragment is in the text.
fn says(text: &str, fragments: &[&str]) {
    for fragment in fragments {
        assert!(text.contains(fragment), "`{fragment}` is not in: {text}");
    }
}

#[hw]
pub struct ShortCat {
    pub a: Signal<In, Bits<8>>,
    pub f: Signal<In, Bit>,
    pub y: Signal<Out, Bits<8>>,
}

#[hw]
impl Logic for ShortCat {
    fn update(&mut self) {
        self.y.next = cat((self.a.val().get_bits::<4>(4), self.f.val()));
    }
}

#[test]
fn a_concatenation_of_another_width_names_the_line_and_the_expression() {
    let text = panic_of::<ShortCat>();
    says(
        &text,
        &[
            "tests/refused.rs:",
            "8 bits are wanted",
            "`{a[7:4], f}` has 5",
            ".resize::<8>()",
        ],
    );
}

#[hw]
pub struct LongNumber {
    pub a: Signal<In, Bits<8>>,
    pub f: Signal<In, Bit>,
    pub y: Signal<Out, Bits<8>>,
}

#[hw]
impl Logic for LongNumber {
    fn update(&mut self) {
        self.y.next = self.a.val() + 256;
    }
}

#[test]
fn a_number_that_does_not_fit_is_refused() {
    says(
        &panic_of::<LongNumber>(),
        &["tests/refused.rs:", "the number 256 does not fit 8 bits"],
    );
}

#[hw]
pub struct SliceBeyond {
    pub a: Signal<In, Bits<8>>,
    pub f: Signal<In, Bit>,
    pub y: Signal<Out, Bits<8>>,
}

#[hw]
impl Logic for SliceBeyond {
    fn update(&mut self) {
        self.y.next = (self.a.val() + 1).get_bits::<8>(1);
    }
}

#[test]
fn a_slice_beyond_the_top_is_refused() {
    says(
        &panic_of::<SliceBeyond>(),
        &["tests/refused.rs:", "bits 1..9 of", "which has 8"],
    );
}

#[hw]
pub struct NoWidth {
    pub a: Signal<In, Bits<8>>,
    pub f: Signal<In, Bit>,
    pub y: Signal<Out, Bits<8>>,
}

#[hw]
impl Logic for NoWidth {
    fn update(&mut self) {
        let n = 3;
        let mut sum = n + 1;
        sum = sum + 1;
        self.y.next = bits::<8>(sum);
    }
}

#[test]
fn a_variable_without_a_width_is_refused() {
    says(
        &panic_of::<NoWidth>(),
        &["tests/refused.rs:", "`sum` needs a width"],
    );
}

#[hw]
pub struct RunTimeBound {
    pub a: Signal<In, Bits<8>>,
    pub f: Signal<In, Bit>,
    pub y: Signal<Out, Bits<8>>,
}

#[hw]
impl Logic for RunTimeBound {
    fn update(&mut self) {
        self.y.next = self.a.val();
        for i in 0..self.a.val().index() {
            self.y.next = bits::<8>(i as u64);
        }
    }
}

#[test]
fn a_loop_bound_of_run_time_is_refused() {
    says(
        &panic_of::<RunTimeBound>(),
        &["tests/refused.rs:", "`a` is not known at generation time"],
    );
}

#[hw]
pub struct BeyondArray {
    pub a: Signal<In, Bits<8>>,
    pub f: Signal<In, Bit>,
    pub y: Signal<Out, Bits<8>>,
    pub lanes: [Signal<In, Bits<8>>; 2],
}

#[hw]
impl Logic for BeyondArray {
    fn update(&mut self) {
        self.y.next = self.lanes[self.lanes.len()].val();
    }
}

#[test]
fn a_constant_index_beyond_the_array_is_refused() {
    says(
        &panic_of::<BeyondArray>(),
        &["tests/refused.rs:", "index 2 of an array of 2"],
    );
}

#[hw]
pub struct Latch {
    pub a: Signal<In, Bits<8>>,
    pub f: Signal<In, Bit>,
    pub y: Signal<Out, Bits<8>>,
}

#[hw]
impl Logic for Latch {
    fn update(&mut self) {
        if self.f.val() {
            self.y.next = self.a.val();
        }
    }
}

#[test]
fn a_latch_is_refused() {
    says(
        &errors_of::<Latch>(),
        &["latch (top): output `y` is not driven on every path", "default"],
    );
}

#[hw]
pub struct MatchLatch {
    pub a: Signal<In, Bits<8>>,
    pub f: Signal<In, Bit>,
    pub y: Signal<Out, Bits<8>>,
}

#[hw]
impl Logic for MatchLatch {
    fn update(&mut self) {
        match self.a.val().index() {
            0 => self.y.next = bits::<8>(1),
            1 | 2 => {}
            _ => self.y.next = self.a.val(),
        }
    }
}

#[test]
fn a_latch_in_one_arm_is_refused() {
    says(
        &errors_of::<MatchLatch>(),
        &["output `y` is not driven on every path"],
    );
}

#[hw]
pub struct Undriven {
    pub a: Signal<In, Bits<8>>,
    pub f: Signal<In, Bit>,
    pub y: Signal<Out, Bits<8>>,
}

#[hw]
impl Logic for Undriven {
    fn update(&mut self) {
        let _sum = self.a.val() + 1;
    }
}

#[test]
fn an_output_that_nothing_drives_is_refused() {
    says(&errors_of::<Undriven>(), &["output `y` is never driven"]);
}

#[hw]
pub struct UndrivenWire {
    pub a: Signal<In, Bits<8>>,
    pub f: Signal<In, Bit>,
    pub y: Signal<Out, Bits<8>>,
    middle: Signal<Local, Bits<8>>,
}

#[hw]
impl Logic for UndrivenWire {
    fn update(&mut self) {
        self.y.next = self.middle.val();
    }
}

#[test]
fn a_wire_that_nothing_drives_is_refused() {
    says(&errors_of::<UndrivenWire>(), &["signal `middle` is never driven"]);
}

#[hw]
pub struct Reserved {
    pub a: Signal<In, Bits<8>>,
    pub f: Signal<In, Bit>,
    pub y: Signal<Out, Bits<8>>,
    pub output: Signal<In, Bits<8>>,
}

#[hw]
impl Logic for Reserved {
    fn update(&mut self) {
        self.y.next = self.output.val();
    }
}

#[test]
fn a_word_of_verilog_is_refused_as_a_name() {
    says(
        &errors_of::<Reserved>(),
        &["`output` is a word of Verilog: rename the field"],
    );
}

#[hw]
pub struct Idle {
    pub a: Signal<In, Bits<8>>,
    pub f: Signal<In, Bit>,
    pub y: Signal<Out, Bits<8>>,
    pub clock: Signal<In, Clock>,
    count: Reg<Bits<8>>,
}

#[hw]
impl Logic for Idle {
    fn update(&mut self) {
        self.y.next = self.a.val();
    }
}

#[test]
fn a_register_without_a_clock_is_refused() {
    says(
        &errors_of::<Idle>(),
        &["register `count` has no clock", "registers!"],
    );
}

/// A sub-block.
#[hw]
pub struct Half {
    pub x: Signal<In, Bits<8>>,
    pub y: Signal<Out, Bits<8>>,
}

#[hw]
impl Logic for Half {
    fn update(&mut self) {
        self.y.next = self.x.val() + 1;
    }
}

#[hw]
pub struct Doubled {
    pub a: Signal<In, Bits<8>>,
    pub f: Signal<In, Bit>,
    pub y: Signal<Out, Bits<8>>,
    pub half_x: Signal<In, Bits<8>>,
    half: Half,
}

#[hw]
impl Logic for Doubled {
    fn update(&mut self) {
        self.half.x.next = self.half_x.val();
        self.y.next = self.half.y.val();
    }
}

#[test]
fn two_signals_of_one_name_are_refused() {
    says(&errors_of::<Doubled>(), &["`half_x` names two signals"]);
}

#[hw]
pub struct Unwired {
    pub a: Signal<In, Bits<8>>,
    pub f: Signal<In, Bit>,
    pub y: Signal<Out, Bits<8>>,
    half: Half,
}

#[hw]
impl Logic for Unwired {
    fn update(&mut self) {
        self.y.next = self.half.y.val();
    }
}

#[test]
fn an_input_of_a_sub_block_that_nothing_drives_is_refused() {
    says(
        &errors_of::<Unwired>(),
        &["input of a sub-block `half_x` is never driven"],
    );
}

#[hw]
pub struct Fight {
    pub a: Signal<In, Bits<8>>,
    pub f: Signal<In, Bit>,
    pub y: Signal<Out, Bits<8>>,
    half: Half,
}

#[hw]
impl Logic for Fight {
    fn update(&mut self) {
        self.half.x.next = self.a.val();
        self.half.y.next = self.a.val();
        self.y.next = self.half.y.val();
    }
}

#[test]
fn driving_the_output_of_a_sub_block_is_refused() {
    says(
        &errors_of::<Fight>(),
        &["`half_y` is an output of a sub-block and is driven here too"],
    );
}

#[hw]
pub struct Early {
    pub a: Signal<In, Bits<8>>,
    pub f: Signal<In, Bit>,
    pub y: Signal<Out, Bits<8>>,
    middle: Signal<Local, Bits<8>>,
}

#[hw]
impl Logic for Early {
    fn update(&mut self) {
        let mut sum = self.a.val();
        sum = sum + self.middle.val();
        if self.f.val() {
            sum = sum + 1;
            self.middle.next = bits::<8>(0);
        } else {
            self.middle.next = self.a.val();
        }
        self.y.next = sum;
    }
}

#[test]
fn a_wire_read_above_its_driver_in_one_process_is_refused() {
    says(
        &errors_of::<Early>(),
        &["`middle` is read above the place that drives it"],
    );
}

#[hw]
pub struct Loop {
    pub a: Signal<In, Bits<8>>,
    pub f: Signal<In, Bit>,
    pub y: Signal<Out, Bits<8>>,
    first: Half,
    second: Half,
}

#[hw]
impl Logic for Loop {
    fn update(&mut self) {
        self.first.x.next = self.second.y.val() ^ self.a.val();
        self.second.x.next = self.first.y.val();
        self.y.next = self.second.y.val();
    }
}

#[test]
fn a_combinational_loop_through_modules_does_not_pass_lint() {
    let design = elaborate(&Loop::default(), "top").unwrap();
    let error = hematite_verilator::lint(&design.verilog(), "top").unwrap_err();
    says(&error.to_string(), &["UNOPTFLAT"]);
}
