//! The normative statements of the virtio specification, each with the tests that show it or the reason why it does not
//! apply: the source of `tests/virtio-conformance.md`, and what keeps it true.
//!
//! A statement is a sentence or a list item with a keyword of RFC 2119 in it. Its ordinal counts them within its
//! section, notes and examples left out. What it says is put here in words of our own.
//!
//! A feature that the card begins to offer, or the driver to accept, makes [`check`] fail until every statement that was
//! [`Verdict::NotOffered`] because of it names its tests: a change of one line each.

mod check;
pub mod device;
pub mod driver;
pub mod outline;
mod render;

pub use check::check;
pub use render::markdown;

use virtio_spec::net::F;

/// A test: the file from the root of the repository, and the function's name.
pub type Test = (&'static str, &'static str);

/// What becomes of a statement.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    /// Each of these tests fails when the statement does not hold, or a part of it.
    Tests(&'static [Test]),
    /// It is about a feature that the card does not offer, or that the driver does not accept.
    NotOffered(F),
    /// It does not apply, and why.
    Not(&'static str),
    /// It applies and is not kept, or no test shows that it is; what is missing.
    Open(&'static str),
}

/// A statement: its ordinal in the section, what it says, what becomes of it.
pub type Statement = (u8, &'static str, Verdict);

/// The statements of one section of the specification.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its number.
    pub number: &'static str,
    /// In the specification's order.
    pub statements: &'static [Statement],
}

/// Whom statements bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The card.
    Device,
    /// Our driver.
    Driver,
}

impl Side {
    /// Both, in the order of the table.
    pub const ALL: [Side; 2] = [Side::Device, Side::Driver];

    /// The sections that bind it.
    pub fn sections(self) -> impl Iterator<Item = &'static Section> {
        match self {
            Side::Device => device::SECTIONS,
            Side::Driver => driver::SECTIONS,
        }
        .iter()
        .copied()
        .flatten()
    }

    /// What the card offers or the driver accepts.
    pub fn features(self) -> F {
        match self {
            Side::Device => {
                use hematite_nic::virtio::features::{MULTIQUEUE, OFFERED};
                F::from_bits_retain(u128::from(OFFERED | MULTIQUEUE).into())
            }
            Side::Driver => hematite_driver::features::SUPPORTED,
        }
    }
}
