//! Code that rust-hdl's own `#[hdl_gen]` turns into Verilog of another meaning, or refuses, one test each.
//!
//! Each compares three results on corner and random inputs: arithmetic on machine integers (what the
//! line must mean), the block run as plain Rust, and the Verilator model of its Verilog.
#![allow(missing_docs)]

use std::sync::OnceLock;

use hematite_lang::core::{
    atom::Atom,
    prelude::{Probe, ToBits},
};
use hematite_lang::prelude::*;
use hematite_testbench::{Rng, seed};
use hematite_verilator::{Verilate, Verilated};
use rand::{RngExt, SeedableRng};

/// A `const` item as Rust code has them: no Verilog parameter of this name exists.
const STEP: u64 = 0x35;

#[hw]
pub enum Op {
    Add,
    Sub,
    Xor,
    Keep,
}

#[hw(value)]
pub struct Inner {
    pub low: Bits<3>,
    pub high: Bits<5>,
}

#[hw(value)]
pub struct Outer {
    pub flag: Bit,
    pub inner: Inner,
    pub rest: Bits<7>,
}

/// A generic helper with a generic helper inside.
#[hw]
pub fn fold<const N: usize>(x: Bits<N>, rounds: usize) -> Bits<N> {
    let mut sum = x;
    for _round in 0..rounds {
        sum = rotate::<N>(sum) + 1;
    }
    sum
}

#[hw]
pub fn rotate<const N: usize>(x: Bits<N>) -> Bits<N> {
    (x << 1) | (x >> ((N - 1) as u64))
}

/// One output for each construct.
#[hw]
pub struct Constructs<const N: usize> {
    pub a: Signal<In, Bits<8>>,
    pub b: Signal<In, Bits<8>>,
    pub c: Signal<In, Bits<8>>,
    pub at: Signal<In, Bits<3>>,
    pub by: Signal<In, Bits<3>>,
    pub f: Signal<In, Bit>,
    pub g: Signal<In, Bit>,
    pub op: Signal<In, Op>,
    pub record: Signal<In, Outer>,
    pub grid: [[Signal<In, Bits<8>>; 3]; 2],
    pub precedence: Signal<Out, Bit>,
    pub wrap: Signal<Out, Bit>,
    pub ring: Signal<Out, Bit>,
    pub cast: Signal<Out, Bits<16>>,
    pub complement: Signal<Out, Bit>,
    pub carry: Signal<Out, Bits<8>>,
    pub generic: Signal<Out, Bits<8>>,
    pub item: Signal<Out, Bits<8>>,
    pub slice: Signal<Out, Bits<4>>,
    pub dynamic_bit: Signal<Out, Bit>,
    pub field: Signal<Out, Bits<5>>,
    pub fields: Signal<Out, Outer>,
    pub sum: Signal<Out, Bits<8>>,
    pub cell_at: Signal<Out, Bits<8>>,
    pub hex: Signal<Out, Bits<2>>,
    pub value: Signal<Out, Bits<8>>,
    pub helper: Signal<Out, Bits<8>>,
    pub helper_wide: Signal<Out, Bits<16>>,
    pub accumulate: Signal<Out, Bits<8>>,
    pub tuple: Signal<Out, Bits<3>>,
    pub alternatives: Signal<Out, Bits<8>>,
    pub concat: Signal<Out, Bits<20>>,
    pub signed_less: Signal<Out, Bit>,
    pub shifts: Signal<Out, Bits<8>>,
    pub shifts_right: Signal<Out, Bits<8>>,
    pub order: Signal<Out, Bits<8>>,
    pub so_far: Signal<Out, Bits<8>>,
    pub settled: Signal<Out, Bits<8>>,
    pub constant: Signal<Out, Bits<8>>,
    middle: Signal<Local, Bits<8>>,
}

#[hw]
impl<const N: usize> Logic for Constructs<N> {
    fn update(&mut self) {
        self.settled.next = self.middle.val() + 1;
        let a = self.a.val();
        let b = self.b.val();
        let c = self.c.val();
        let at = self.at.val();
        let by = self.by.val();
        let record = self.record.val();

        // In Verilog == binds tighter than &.
        self.precedence.next = a & b == c;
        self.wrap.next = a + 1 == b;
        self.ring.next = (a - b) < 4;
        self.cast.next = bit_cast::<16, 8>(a + b);
        self.complement.next = !a == 0xF0;
        self.carry.next = (a + b + 0) >> 1;

        self.generic.next = a + bits::<8>(N as u64);
        self.item.next = a ^ STEP;

        self.slice.next = (a + b).get_bits::<4>(2);
        self.dynamic_bit.next = (a ^ b).get_bit(at.index());

        self.field.next = record.inner.high;
        self.fields.next = record;
        self.fields.next.inner.low = at;
        self.fields.next.flag = !record.flag;

        let mut sum = bits::<8>(0);
        for i in 0..2 {
            for j in 0..3 {
                sum = sum + self.grid[i][j].val();
            }
        }
        self.sum.next = sum;
        let column = at.get_bits::<1>(0);
        self.cell_at.next = self.grid[1][column.index()].val();

        self.hex.next = match a.index() {
            0x0F | 0xF0 => bits::<2>(1),
            0x10..=0x1F => bits::<2>(2),
            0xfe => bits::<2>(3),
            _ => bits::<2>(0),
        };

        let larger = if a > b {
            let distance = a - b;
            distance + 1
        } else {
            b - a
        };
        self.value.next = match self.op.val() {
            Op::Add => larger + c,
            Op::Sub => {
                let back = larger - c;
                back ^ 1
            }
            Op::Xor => larger ^ c,
            Op::Keep => larger,
        };
        self.helper.next = fold::<8>(a, 3);
        self.helper_wide.next = fold::<16>(cat::<16>((a, b)), N);

        let mut total = a;
        if self.f.val() {
            total = total + b;
        }
        total.set_bits::<3>(2, at);
        if self.g.val() {
            total = total - c;
        }
        self.accumulate.next = total;

        self.tuple.next = match (self.f.val(), self.op.val(), at) {
            (true, Op::Add | Op::Sub, _) => bits::<3>(1),
            (false, Op::Keep, _) => bits::<3>(2),
            (_, Op::Xor, _) => bits::<3>(3),
            _ => bits::<3>(4),
        };
        self.alternatives.next = match self.op.val() {
            Op::Add | Op::Keep => a,
            Op::Sub | Op::Xor => b,
        };
        self.concat.next = cat::<20>((a, self.f.val(), at, b));
        self.signed_less.next = a.signed_lt(b);

        // Verilator 5.048 adds the amounts at their own width.
        self.shifts.next = (a << at) << by;
        self.shifts_right.next = (a >> at) >> by;

        // `always @(*)` over constants alone would never run.
        self.constant.next = bits::<8>(0x12);
        if bits::<3>(4) > 2 {
            self.constant.next = bits::<8>(0x34);
        }

        // The last write in program order wins.
        self.order.next = a;
        if self.f.val() {
            self.order.next = b;
        }
        if self.g.val() {
            self.order.next = c;
        }
        // A signal reads as driven so far, and as settled above all its drivers.
        self.middle.next = a;
        self.so_far.next = self.middle.val() + 1;
        if self.f.val() {
            self.middle.next = b;
        }
    }
}

/// The inputs, as machine integers.
#[derive(Clone, Copy, Debug)]
struct Given {
    a: u8,
    b: u8,
    c: u8,
    at: u8,
    by: u8,
    f: bool,
    g: bool,
    op: Op,
    record: u16,
    grid: [[u8; 3]; 2],
}

impl Given {
    fn random(rng: &mut Rng) -> Given {
        let byte = |rng: &mut Rng| -> u8 {
            match rng.random_range(0..6) {
                0 => [0, 1, 3, 4, 0x0f, 0x7f, 0x80, 0xf0, 0xfe, 0xff][rng.random_range(0..10)],
                _ => rng.random(),
            }
        };
        let a = byte(rng);
        // Equal and adjacent operands are where compares go wrong.
        let near = |rng: &mut Rng| match rng.random_range(0..4) {
            0 => a.wrapping_add(rng.random_range(0..4)),
            1 => a.wrapping_sub(rng.random_range(0..4)),
            _ => byte(rng),
        };
        let b = near(rng);
        let c = if rng.random() { a & b } else { near(rng) };
        Given {
            a,
            b,
            c,
            at: rng.random_range(0..8),
            by: rng.random_range(0..8),
            f: rng.random(),
            g: rng.random(),
            op: [Op::Add, Op::Sub, Op::Xor, Op::Keep][rng.random_range(0..4)],
            record: rng.random(),
            grid: rng.random(),
        }
    }

    fn outer(&self) -> Outer {
        let field = |lo: u32, width: u32| u64::from(self.record >> lo) & ((1 << width) - 1);
        Outer {
            flag: field(0, 1) != 0,
            inner: Inner {
                low: bits::<3>(field(1, 3)),
                high: bits::<5>(field(4, 5)),
            },
            rest: bits::<7>(field(9, 7)),
        }
    }
}

type Block = Constructs<5>;

/// Runs the block as plain Rust until its wires settle.
fn run(block: &mut Block, given: &Given) {
    block.a.next = given.a.to_bits();
    block.b.next = given.b.to_bits();
    block.c.next = given.c.to_bits();
    block.at.next = given.at.to_bits();
    block.by.next = given.by.to_bits();
    (block.f.next, block.g.next, block.op.next) = (given.f, given.g, given.op);
    block.record.next = given.outer();
    for (row, values) in block.grid.iter_mut().zip(given.grid) {
        for (signal, value) in row.iter_mut().zip(values) {
            signal.next = value.to_bits();
        }
    }
    for _ in 0..3 {
        hematite_lang::core::block::Block::update_all(block);
    }
}

/// The value of the output `name` of a block.
fn output(block: &Block, name: &str) -> u64 {
    struct Find<'a>(&'a str, Option<u64>);
    impl Probe for Find<'_> {
        fn visit_atom(&mut self, name: &str, atom: &dyn Atom) {
            if name == self.0 {
                let text = atom.verilog().to_string();
                let (_, digits) = text.split_once('\'').expect("a sized literal");
                let radix = if digits.starts_with('b') { 2 } else { 16 };
                self.1 = Some(u64::from_str_radix(&digits[1..], radix).expect("digits"));
            }
        }
    }
    let mut find = Find(name, None);
    hematite_lang::core::block::Block::accept(block, "top", &mut find);
    find.1.unwrap_or_else(|| panic!("no output {name}"))
}

fn verilated() -> &'static Verilated {
    static MODEL: OnceLock<Verilated> = OnceLock::new();
    MODEL.get_or_init(|| {
        let design = hematite_lang::elaborate(&Block::default(), "constructs").expect("elaborates");
        let source = Verilate::new("constructs").text("constructs.v", design.verilog());
        source.lint().expect("clean of -Wall");
        source.build_shared().expect("builds")
    })
}

/// `expected`, plain Rust and the model agree on the output `name`.
fn agree(name: &str, expected: impl Fn(&Given) -> u64) {
    let seed = seed();
    let mut rng = Rng::seed_from_u64(seed);
    let mut model = verilated().instantiate(seed.max(1)).unwrap();
    let mut block = Block::default();
    for _ in 0..1000 {
        let given = Given::random(&mut rng);
        let mut set = |name: &str, value: u64| {
            let port = model.any(name).unwrap();
            model.set_any(port, value);
        };
        set("a", given.a.into());
        set("b", given.b.into());
        set("c", given.c.into());
        set("at", given.at.into());
        set("by", given.by.into());
        set("f", given.f.into());
        set("g", given.g.into());
        set("op", given.op as u64);
        set("record", given.record.into());
        for (i, row) in given.grid.iter().enumerate() {
            for (j, value) in row.iter().enumerate() {
                set(&format!("grid_{i}_{j}"), (*value).into());
            }
        }
        model.eval().unwrap();
        run(&mut block, &given);
        let want = expected(&given);
        let verilog = model.get_any(model.any(name).unwrap());
        assert_eq!(verilog, want, "seed {seed}: Verilog's {name} of {given:x?}");
        let rust = output(&block, name);
        assert_eq!(rust, want, "seed {seed}: plain Rust's {name} of {given:x?}");
    }
}

#[test]
fn and_binds_tighter_than_equals() {
    agree("precedence", |i| (i.a & i.b == i.c).into());
}

#[test]
fn an_increment_wraps_at_its_width_before_a_compare() {
    agree("wrap", |i| (i.a.wrapping_add(1) == i.b).into());
}

#[test]
fn a_difference_wraps_before_it_is_compared() {
    agree("ring", |i| (i.a.wrapping_sub(i.b) < 4).into());
}

#[test]
fn a_widened_sum_has_lost_its_carry() {
    agree("cast", |i| i.a.wrapping_add(i.b).into());
}

#[test]
fn a_complement_keeps_its_width() {
    agree("complement", |i| (!i.a == 0xf0).into());
}

#[test]
fn no_carry_leaks_into_a_right_shift() {
    agree("carry", |i| (i.a.wrapping_add(i.b) >> 1).into());
}

#[test]
fn const_generics_become_numbers() {
    agree("generic", |i| i.a.wrapping_add(5).into());
}

#[test]
fn const_items_become_numbers() {
    agree("item", |i| (i.a ^ 0x35).into());
}

#[test]
fn an_expression_can_be_sliced() {
    agree("slice", |i| u64::from(i.a.wrapping_add(i.b) >> 2) & 15);
}

#[test]
fn an_expression_can_be_indexed_at_run_time() {
    agree("dynamic_bit", |i| u64::from((i.a ^ i.b) >> i.at) & 1);
}

#[test]
fn nested_struct_fields_can_be_read() {
    agree("field", |i| u64::from(i.record >> 4) & 31);
}

#[test]
fn nested_struct_fields_can_be_driven() {
    agree("fields", |i| {
        (u64::from(i.record) & !0b1110 | u64::from(i.at) << 1) ^ 1
    });
}

#[test]
fn arrays_of_arrays_have_a_name_for_each_element() {
    agree("sum", |i| {
        let all = i.grid.iter().flatten();
        all.fold(0u8, |sum, v| sum.wrapping_add(*v)).into()
    });
}

#[test]
fn arrays_of_arrays_can_be_indexed_at_run_time() {
    agree("cell_at", |i| i.grid[1][usize::from(i.at & 1)].into());
}

#[test]
fn hexadecimal_literals_match() {
    agree("hex", |i| match i.a {
        0x0f | 0xf0 => 1,
        0x10..=0x1f => 2,
        0xfe => 3,
        _ => 0,
    });
}

#[test]
fn let_if_and_match_are_values() {
    agree("value", |i| {
        let larger = if i.a > i.b {
            (i.a - i.b).wrapping_add(1)
        } else {
            i.b - i.a
        };
        match i.op {
            Op::Add => larger.wrapping_add(i.c),
            Op::Sub => larger.wrapping_sub(i.c) ^ 1,
            Op::Xor => larger ^ i.c,
            Op::Keep => larger,
        }
        .into()
    });
}

#[test]
fn helper_functions_are_expanded() {
    agree("helper", |i| {
        (0..3).fold(i.a, |x, _| x.rotate_left(1).wrapping_add(1)).into()
    });
}

#[test]
fn a_helper_takes_its_width_and_its_loop_bound_from_the_caller() {
    agree("helper_wide", |i| {
        let x = u16::from_be_bytes([i.a, i.b]);
        (0..5).fold(x, |x, _| x.rotate_left(1).wrapping_add(1)).into()
    });
}

#[test]
fn a_variable_accumulates_in_program_order() {
    agree("accumulate", |i| {
        let mut total = i.a;
        if i.f {
            total = total.wrapping_add(i.b);
        }
        total = total & !0b11100 | i.at << 2;
        if i.g {
            total = total.wrapping_sub(i.c);
        }
        total.into()
    });
}

#[test]
fn tuples_match() {
    agree("tuple", |i| match (i.f, i.op) {
        (true, Op::Add | Op::Sub) => 1,
        (false, Op::Keep) => 2,
        (_, Op::Xor) => 3,
        _ => 4,
    });
}

#[test]
fn or_patterns_match() {
    agree("alternatives", |i| match i.op {
        Op::Add | Op::Keep => i.a.into(),
        Op::Sub | Op::Xor => i.b.into(),
    });
}

#[test]
fn parts_concatenate_high_to_low() {
    agree("concat", |i| {
        u64::from(i.a) << 12 | u64::from(i.f) << 11 | u64::from(i.at) << 8 | u64::from(i.b)
    });
}

#[test]
fn a_signed_compare_is_signed() {
    agree("signed_less", |i| ((i.a as i8) < (i.b as i8)).into());
}

#[test]
fn verilator_does_not_fold_shift_amounts_at_their_own_width() {
    agree("shifts", |i| ((i.a << i.at) << i.by).into());
    agree("shifts_right", |i| ((i.a >> i.at) >> i.by).into());
}

#[test]
fn the_last_write_wins() {
    agree("order", |i| match (i.f, i.g) {
        (_, true) => i.c.into(),
        (true, false) => i.b.into(),
        (false, false) => i.a.into(),
    });
}

#[test]
fn code_over_constants_alone_is_computed() {
    agree("constant", |_| 0x34);
}

#[test]
fn a_wire_reads_as_driven_so_far() {
    agree("so_far", |i| i.a.wrapping_add(1).into());
}

#[test]
fn a_wire_read_above_its_drivers_is_settled() {
    agree("settled", |i| {
        (if i.f { i.b } else { i.a }).wrapping_add(1).into()
    });
}
