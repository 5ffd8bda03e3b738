//! Inputs of a whole run, for a loop in C++.

use crate::{Model, Port, PortValue, port::Raw};
use std::ffi::c_void;

/// Takes values for a model's inputs: the model itself, or a [`Stimulus`] that keeps them for later.
pub trait Drive {
    /// Sets an input.
    fn set<T: PortValue>(&mut self, port: Port<T>, value: T);
}

impl Drive for Model {
    fn set<T: PortValue>(&mut self, port: Port<T>, value: T) {
        Model::set(self, port, value);
    }
}

/// One change of an input; `HematiteWrite` of the shim.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Write {
    at: u64,
    port: *mut c_void,
    value: u64,
    bytes: u32,
}

/// What is driven into a model's inputs over a number of evaluations; see [`Model::replay`].
///
/// Clocks are low in even evaluations and high in odd ones. Values set between two [`Stimulus::eval`] hold from the
/// next evaluation on.
#[derive(Debug, Default)]
pub struct Stimulus {
    clocks: Vec<Raw>,
    writes: Vec<Write>,
    driven: Vec<Raw>,
    evaluations: u64,
}

impl Stimulus {
    /// One without changes, over no evaluation.
    #[must_use]
    pub fn new(clocks: &[Port<u8>]) -> Self {
        Stimulus {
            clocks: clocks.iter().map(|port| port.raw).collect(),
            ..Self::default()
        }
    }

    /// One evaluation more.
    pub fn eval(&mut self) {
        self.evaluations += 1;
    }

    /// How many evaluations it spans.
    #[must_use]
    pub fn evaluations(&self) -> u64 {
        self.evaluations
    }

    pub(crate) fn clock_addresses(&self) -> Vec<*mut u8> {
        self.clocks
            .iter()
            .map(|raw| raw.address.as_ptr().cast())
            .collect()
    }

    pub(crate) fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// Every port that is driven.
    pub(crate) fn ports(&self) -> impl Iterator<Item = &Raw> {
        self.clocks.iter().chain(&self.driven)
    }
}

impl Drive for Stimulus {
    fn set<T: PortValue>(&mut self, port: Port<T>, value: T) {
        if !self.driven.iter().any(|raw| raw.address == port.raw.address) {
            self.driven.push(port.raw);
        }
        self.writes.push(Write {
            at: self.evaluations,
            port: port.raw.address.as_ptr(),
            value: value.and(port.mask).widen(),
            bytes: T::BITS / 8,
        });
    }
}
