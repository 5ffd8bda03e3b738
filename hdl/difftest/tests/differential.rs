//! Plain Rust against the Verilator model, bit for bit.
#![allow(missing_docs)]

use hematite_difftest::generated::{Inputs, State, cases};
use hematite_lang::core::prelude::{Bits, Synth};
use hematite_verilator::{Model, Verilate};
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
    let info = model
        .ports()
        .iter()
        .find(|p| p.name == name)
        .unwrap_or_else(|| panic!("port {name}"));
    if info.bits > 64 {
        let port = model.wide(name).unwrap();
        let words: Vec<u32> = (0..port.words()).map(|w| (value >> (32 * w)) as u32).collect();
        model.set_wide(port, &words);
    } else {
        let port = model.any(name).unwrap();
        model.set_any(port, value as u64);
    }
}

fn get(model: &Model, name: &str, wide: bool) -> u128 {
    if wide {
        let words = model.get_wide(model.wide(name).unwrap());
        words.iter().rev().fold(0, |v, w| (v << 32) | u128::from(*w))
    } else {
        u128::from(model.get_any(model.any(name).unwrap()))
    }
}

#[test]
fn plain_rust_and_verilog_agree() {
    let seed: u64 = std::env::var("HEMATITE_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(1);
    println!(
        "HEMATITE_SEED={seed} (code generated with {})",
        hematite_difftest::SEED
    );
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut compared = 0;
    for (k, mut case) in cases().into_iter().enumerate() {
        let name = format!("case{k}");
        let design = hematite_lang::elaborate(&*case, &name).unwrap();
        let wide: Vec<bool> = design
            .ports
            .iter()
            .filter(|p| p.output)
            .map(|p| p.width > 64)
            .collect();
        let text = design.verilog();
        let verilated = Verilate::new(&name)
            .text(format!("{name}.v"), text)
            .build_shared();
        let mut model = verilated
            .unwrap_or_else(|e| panic!("{name}: {e}"))
            .instantiate(seed)
            .unwrap();
        for _ in 0..VECTORS {
            let mut i = Inputs::default();
            for n in 0..3 {
                i.flag[n] = rng.random();
                i.state[n] = [State::Wait, State::Load, State::Send, State::Done][rng.random_range(0..4)];
                (i.w3[n], i.w8[n], i.w16[n]) = (bits(&mut rng), bits(&mut rng), bits(&mut rng));
                (i.w17[n], i.w32[n], i.w64[n]) = (bits(&mut rng), bits(&mut rng), bits(&mut rng));
                i.w96[n] = bits(&mut rng);
                set(&mut model, &format!("flag_{n}"), i.flag[n] as u128);
                set(&mut model, &format!("state_{n}"), number(i.state[n]));
                set(&mut model, &format!("w3_{n}"), number(i.w3[n]));
                set(&mut model, &format!("w8_{n}"), number(i.w8[n]));
                set(&mut model, &format!("w16_{n}"), number(i.w16[n]));
                set(&mut model, &format!("w17_{n}"), number(i.w17[n]));
                set(&mut model, &format!("w32_{n}"), number(i.w32[n]));
                set(&mut model, &format!("w64_{n}"), number(i.w64[n]));
                set(&mut model, &format!("w96_{n}"), number(i.w96[n]));
            }
            case.run(&i);
            model.eval().unwrap();
            for (n, want) in case.outputs().into_iter().enumerate() {
                let got = get(&model, &format!("o{n}"), wide[n]);
                assert_eq!(
                    got, want,
                    "seed {seed}: Case{k} output o{n}: Verilog {got:x}, Rust {want:x}"
                );
                compared += 1;
            }
        }
        drop(model);
    }
    println!(
        "{compared} comparisons of {} expressions and blocks",
        compared / VECTORS
    );
    assert!(compared / VECTORS >= 10_000);
}
