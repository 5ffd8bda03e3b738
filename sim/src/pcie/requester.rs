//! The host's own requests to the card: configuration and BAR accesses, their tags and timeouts.

use super::rules::Violation;
use super::tlp::{Bdf, Direction, Header, Kind, Status, payload_bytes};
use crate::time::SimTime;
use thiserror::Error;

/// How a non-posted request of the host can end badly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// The card answered with something else than success.
    #[error("completion status {0:?}")]
    Status(Status),
    /// No completion within the completion timeout (PCIe 2.8).
    #[error("no completion within the completion timeout")]
    Timeout,
    /// The completion was poisoned.
    #[error("poisoned completion")]
    Poisoned,
    /// All 32 tags are outstanding.
    #[error("no free tag")]
    NoTag,
}

/// A request under way; ask [`super::RootComplex::take_result`] for its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    tag: u8,
}

#[derive(Debug)]
enum Slot {
    Free,
    /// Waiting; `first_byte` and `len` say which bytes of the payload count (0 for writes).
    Outstanding {
        first_byte: u64,
        len: u32,
        attributes: u8,
        deadline: SimTime,
        config: bool,
    },
    Done(Result<u64, RequestError>),
}

/// The host's outstanding requests, one slot a tag.
#[derive(Debug)]
pub(crate) struct Requester {
    slots: [Slot; 32],
    next_tag: u8,
    outstanding: usize,
    next_deadline: SimTime,
}

impl Requester {
    pub(crate) fn new() -> Self {
        Requester {
            slots: std::array::from_fn(|_| Slot::Free),
            next_tag: 0,
            outstanding: 0,
            next_deadline: SimTime::NEVER,
        }
    }

    /// Takes the next free tag, round robin so that a stale completion meets a different tag.
    pub(crate) fn open(
        &mut self,
        first_byte: u64,
        len: u32,
        config: bool,
        deadline: SimTime,
    ) -> Result<Transaction, RequestError> {
        let count = self.slots.len() as u8;
        let tag = (0..count)
            .map(|i| (self.next_tag + i) % count)
            .find(|&t| matches!(self.slots[usize::from(t)], Slot::Free))
            .ok_or(RequestError::NoTag)?;
        self.next_tag = (tag + 1) % count;
        self.slots[usize::from(tag)] = Slot::Outstanding {
            first_byte,
            len,
            attributes: 0,
            deadline,
            config,
        };
        self.outstanding += 1;
        self.next_deadline = self.next_deadline.min(deadline);
        Ok(Transaction { tag })
    }

    /// A completion of the card arrived.
    pub(crate) fn complete(&mut self, header: &Header, payload: &[u32], mut report: impl FnMut(Violation)) {
        let Kind::Completion {
            status,
            byte_count,
            tag,
            lower_address,
            with_data,
            ..
        } = header.kind
        else {
            return;
        };
        let slot = self.slots.get_mut(usize::from(tag));
        let Some(slot @ Slot::Outstanding { .. }) = slot else {
            return report(Violation::UnexpectedCompletion(tag));
        };
        let Slot::Outstanding {
            first_byte,
            len,
            attributes,
            config,
            ..
        } = *slot
        else {
            return;
        };
        let mut expect = |field, got: u32, expected: u32| {
            if got != expected {
                report(Violation::CompletionField {
                    tag,
                    field,
                    got,
                    expected,
                });
            }
        };
        expect("Attr", header.attributes.into(), attributes.into());
        let wants_data = len > 0 && status == Status::Success;
        expect("Fmt (with data)", with_data.into(), wants_data.into());
        // PCIe 2.3.1.1: configuration completions, and all without data, have byte count 4, lower address 0.
        let memory = !config && wants_data;
        if memory {
            expect("Byte Count", byte_count.into(), len);
            expect("Lower Address", lower_address.into(), (first_byte & 0x7f) as u32);
            let dwords = (first_byte + u64::from(len)).div_ceil(4) - first_byte / 4;
            expect("Length", header.length.into(), dwords as u32);
        } else if config || status == Status::Success {
            expect("Byte Count", byte_count.into(), 4);
            expect("Lower Address", lower_address.into(), 0);
        }
        let result = match status {
            Status::Success if header.poisoned => Err(RequestError::Poisoned),
            Status::Success => {
                let mut value = [0; 8];
                let bytes = payload_bytes(payload, (first_byte & 3) as usize, (len as usize).min(8));
                for (to, from) in value.iter_mut().zip(bytes) {
                    *to = from;
                }
                Ok(u64::from_le_bytes(value))
            }
            other => Err(RequestError::Status(other)),
        };
        *slot = Slot::Done(result);
        self.outstanding -= 1;
    }

    /// Ends what has waited too long.
    pub(crate) fn expire(&mut self, now: SimTime) {
        if now < self.next_deadline {
            return;
        }
        self.next_deadline = SimTime::NEVER;
        for slot in &mut self.slots {
            if let Slot::Outstanding { deadline, .. } = *slot {
                if deadline <= now {
                    *slot = Slot::Done(Err(RequestError::Timeout));
                    self.outstanding -= 1;
                } else {
                    self.next_deadline = self.next_deadline.min(deadline);
                }
            }
        }
    }

    /// The outcome, once; afterwards the tag is free again.
    pub(crate) fn take(&mut self, transaction: Transaction) -> Option<Result<u64, RequestError>> {
        let slot = &mut self.slots[usize::from(transaction.tag)];
        match *slot {
            Slot::Done(result) => {
                *slot = Slot::Free;
                Some(result)
            }
            _ => None,
        }
    }
}

impl Transaction {
    pub(crate) fn tag(self) -> u8 {
        self.tag
    }
}

/// The header of a configuration request to the function at the card's end of the link.
pub(crate) fn config_header(
    direction: Direction,
    requester: Bdf,
    target: Bdf,
    tag: u8,
    register: u16,
    first_be: u8,
) -> Header {
    Header {
        kind: Kind::Config {
            direction,
            requester,
            tag,
            first_be,
            target,
            register,
            type1: false,
        },
        traffic_class: 0,
        attributes: 0,
        poisoned: false,
        length: 1,
    }
}
