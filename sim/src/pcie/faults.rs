//! Faults injected into the completions of the card's reads, by plan or by seeded chance.

use crate::time::SimTime;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::ops::Range;

/// What goes wrong with one read of the card (rows N21).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompletionFault {
    /// Answered with UR.
    UnsupportedRequest,
    /// Answered with CA, after some of the data when the read is split.
    CompleterAbort,
    /// One completion has EP set.
    Poisoned,
    /// The last completion never comes: the card's completion timeout must fire.
    Lost,
    /// All completions come this much later.
    Late(SimTime),
    /// The last completion comes twice; the second one is unexpected.
    Duplicate,
    /// A completion for a tag that is not outstanding comes first.
    Unexpected,
    /// The first completion carries one double word more than its byte count (PCIe 2.3.2, malformed).
    ExcessData,
    /// The first completion ends one double word before its Length says (PCIe 2.2.2, malformed).
    ShortData,
}

/// Which reads a rule is for.
#[derive(Clone, Debug, PartialEq)]
pub enum FaultMatch {
    /// The n-th read of the run, from 0.
    Nth(u64),
    /// Reads that touch this address range.
    Address(Range<u64>),
    /// Each read with this probability, drawn from the run's seed.
    Chance(f64),
}

/// One entry of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultRule {
    /// Which reads.
    pub reads: FaultMatch,
    /// What happens.
    pub fault: CompletionFault,
    /// How often the rule fires at most.
    pub times: u64,
}

/// Rules in order; the first that matches fires.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    rules: Vec<FaultRule>,
    fired: u64,
}

impl FaultPlan {
    /// Adds a rule behind the others.
    pub fn push(&mut self, rule: FaultRule) {
        self.rules.push(rule);
    }

    /// `fault` on the next read that touches `range`.
    pub fn once_at(&mut self, range: Range<u64>, fault: CompletionFault) {
        self.push(FaultRule {
            reads: FaultMatch::Address(range),
            fault,
            times: 1,
        });
    }

    /// Removes all rules.
    pub fn clear(&mut self) {
        self.rules.clear();
    }

    /// Faults injected so far.
    pub fn fired(&self) -> u64 {
        self.fired
    }

    /// The fault for read number `index` over `range`, if any.
    pub(crate) fn draw(
        &mut self,
        index: u64,
        range: Range<u64>,
        rng: &mut ChaCha8Rng,
    ) -> Option<CompletionFault> {
        for rule in &mut self.rules {
            let hit = rule.times > 0
                && match &rule.reads {
                    FaultMatch::Nth(n) => *n == index,
                    FaultMatch::Address(r) => r.start < range.end && range.start < r.end,
                    FaultMatch::Chance(p) => rng.random_bool(p.clamp(0.0, 1.0)),
                };
            if hit {
                rule.times -= 1;
                self.fired += 1;
                return Some(rule.fault);
            }
        }
        None
    }
}
