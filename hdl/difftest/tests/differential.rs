//! Plain Rust against the Verilator model, bit for bit.
#![allow(missing_docs)]

use hematite_difftest::generated::{Inputs, State, groups};
use hematite_lang::core::prelude::{Bits, Synth};
use hematite_verilator::{Model, Optimization, PortAny, Verilate, WidePort};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const VECTORS: usize = 40;

fn bits<const N: usize>(rng: &mut ChaCha8Rng) -> Bits<N> {
    // Corners come up often: all zeros, all ones, one bit.
    let corner = rng.random_range(0..8);
    (0..N).fold(Bits::<N>::default(), |v, n| {
        let b = match corner {
            0 => false,
            1 => true,
            2 => n == N - 1,
            _ => rng.random(),
        };
        v.replace_bit(n, b)
    })
}

fn number<T: Synth>(v: T) -> u128 {
    let text = v.verilog().to_string();
    let digits = text.split_once('\'').map_or("", |(_, d)| d);
    u128::from_str_radix(&digits[1..], if digits.starts_with('b') { 2 } else { 16 }).unwrap()
}

fn set(model: &mut Model, name: &str, value: u128) {
    match model.any(name) {
        Ok(port) => model.set_any(port, value as u64),
        Err(_) => {
            let port = model.wide(name).unwrap();
            let words: Vec<u32> = (0..port.words()).map(|w| (value >> (32 * w)) as u32).collect();
            model.set_wide(port, &words);
        }
    }
}

/// An output of a model.
#[derive(Clone, Copy)]
enum Output {
    Narrow(PortAny),
    Wide(WidePort),
}

impl Output {
    fn of(model: &Model, name: &str) -> Output {
        match model.any(name) {
            Ok(port) => Output::Narrow(port),
            Err(_) => Output::Wide(model.wide(name).unwrap()),
        }
    }
    fn get(self, model: &Model) -> u128 {
        match self {
            Output::Narrow(port) => model.get_any(port).into(),
            Output::Wide(port) => {
                let words = model.get_wide(port).iter().rev();
                words.fold(0, |v, w| (v << 32) | u128::from(*w))
            }
        }
    }
}

/// A group of cases is one large value that is built on the stack.
const STACK: usize = 1 << 29;

#[test]
fn plain_rust_and_verilog_agree() {
    let thread = std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(compare)
        .unwrap();
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn compare() {
    let seed: u64 = std::env::var("HEMATITE_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(1);
    println!(
        "HEMATITE_SEED={seed} (code generated with {})",
        hematite_difftest::SEED
    );
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut compared, mut wrong) = (0, vec![]);
    for (g, mut group) in groups().into_iter().enumerate() {
        let name = format!("group{g}");
        let design = hematite_lang::elaborate(&*group, &name).unwrap();
        let mut model = Verilate::new(&name)
            .text(format!("{name}.v"), design.verilog())
            .optimization(Optimization::Fast)
            .build_shared()
            .unwrap_or_else(|e| panic!("{name}: {e}"))
            .instantiate(seed.max(1))
            .unwrap();
        // Ports in the order in which the cases list them, looked up once.
        let mut ports: Vec<Output> = vec![];
        for _ in 0..VECTORS {
            let mut at = 0;
            let i = inputs(&mut rng, &mut model);
            model.eval().unwrap();
            for (n, case) in group.cases().into_iter().enumerate() {
                case.ports().0.drive(&i);
                case.update();
                case.ports().1.each(&mut |port, want| {
                    if at == ports.len() {
                        ports.push(Output::of(&model, &format!("o_{n}_{port}")));
                    }
                    let got = ports[at].get(&model);
                    at += 1;
                    if got != want {
                        wrong.push(format!("{name} c{n} o.{port}: Verilog {got:x}, Rust {want:x}"));
                    }
                    compared += 1;
                });
            }
        }
    }
    println!(
        "{compared} comparisons of {} expressions and blocks",
        compared / VECTORS
    );
    assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
    assert!(compared / VECTORS >= 10_000);
}

/// Random inputs, driven into the model.
fn inputs(rng: &mut ChaCha8Rng, model: &mut Model) -> Inputs {
    let mut i = Inputs::default();
    for n in 0..3 {
        i.flag[n] = rng.random();
        i.state[n] = [State::Wait, State::Load, State::Send, State::Done][rng.random_range(0..4)];
        (i.w3[n], i.w8[n], i.w16[n]) = (bits(rng), bits(rng), bits(rng));
        (i.w17[n], i.w32[n], i.w64[n]) = (bits(rng), bits(rng), bits(rng));
        i.w96[n] = bits(rng);
        set(model, &format!("i_flag{n}"), i.flag[n] as u128);
        set(model, &format!("i_state{n}"), number(i.state[n]));
        set(model, &format!("i_w3_{n}"), number(i.w3[n]));
        set(model, &format!("i_w8_{n}"), number(i.w8[n]));
        set(model, &format!("i_w16_{n}"), number(i.w16[n]));
        set(model, &format!("i_w17_{n}"), number(i.w17[n]));
        set(model, &format!("i_w32_{n}"), number(i.w32[n]));
        set(model, &format!("i_w64_{n}"), number(i.w64[n]));
        set(model, &format!("i_w96_{n}"), number(i.w96[n]));
    }
    i
}
