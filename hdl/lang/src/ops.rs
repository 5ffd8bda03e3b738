//! Operations on values that rust-hdl lacks, in their plain Rust meaning.

use rust_hdl_core::prelude::*;

/// More methods for [`Bits`].
pub trait BitsExt<const N: usize> {
    /// Zero extension or truncation.
    fn resize<const M: usize>(self) -> Bits<M>;
    /// Two's complement `self < other`.
    fn signed_lt(self, other: Self) -> bool;
}

impl<const N: usize> BitsExt<N> for Bits<N> {
    fn resize<const M: usize>(self) -> Bits<M> {
        bit_cast::<M, N>(self)
    }
    fn signed_lt(self, other: Self) -> bool {
        let (a, b) = (self.get_bit(N - 1), other.get_bit(N - 1));
        if a == b { self < other } else { a }
    }
}

/// A part of a concatenation.
pub trait Part {
    /// Its width.
    const WIDTH: usize;
    /// Its bit at `n`.
    fn bit(&self, n: usize) -> bool;
}

impl<const N: usize> Part for Bits<N> {
    const WIDTH: usize = N;
    fn bit(&self, n: usize) -> bool {
        self.get_bit(n)
    }
}

impl Part for bool {
    const WIDTH: usize = 1;
    fn bit(&self, _: usize) -> bool {
        *self
    }
}

/// A tuple or array of [`Part`]s, highest first.
pub trait Concat {
    /// All bits, lowest first.
    fn bits_low_first(&self) -> Vec<bool>;
}

fn low_first<P: Part>(p: &P) -> impl Iterator<Item = bool> + '_ {
    (0..P::WIDTH).map(|n| p.bit(n))
}

impl<P: Part, const K: usize> Concat for [P; K] {
    fn bits_low_first(&self) -> Vec<bool> {
        self.iter().rev().flat_map(low_first).collect()
    }
}

macro_rules! tuples {
    ($($t:ident),+) => {
        impl<$($t: Part),+> Concat for ($($t,)+) {
            #[allow(non_snake_case)]
            fn bits_low_first(&self) -> Vec<bool> {
                let ($($t,)+) = self;
                let mut parts: Vec<Vec<bool>> = vec![$(low_first($t).collect()),+];
                parts.reverse();
                parts.concat()
            }
        }
    };
}
tuples!(A);
tuples!(A, B);
tuples!(A, B, C);
tuples!(A, B, C, D);
tuples!(A, B, C, D, E);
tuples!(A, B, C, D, E, F);
tuples!(A, B, C, D, E, F, G);
tuples!(A, B, C, D, E, F, G, H);
tuples!(A, B, C, D, E, F, G, H, I);
tuples!(A, B, C, D, E, F, G, H, I, J);
tuples!(A, B, C, D, E, F, G, H, I, J, K);
tuples!(A, B, C, D, E, F, G, H, I, J, K, L);

/// Concatenation, highest part first: Verilog's `{high, low}`. The width is the sum of the parts'.
///
/// # Panics
/// When `N` is not that sum.
pub fn cat<const N: usize>(parts: impl Concat) -> Bits<N> {
    let all = parts.bits_low_first();
    assert_eq!(all.len(), N, "cat makes {} bits where {N} are wanted", all.len());
    let mut v = Bits::<N>::default();
    for (n, b) in all.into_iter().enumerate() {
        v = v.replace_bit(n, b);
    }
    v
}
