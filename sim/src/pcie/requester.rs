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

/// Where an endpoint may end a completion before its request ends: its Read Completion Boundary (PCIe 2.3.1.1).
const BOUNDARY: u64 = 128;

/// The bytes of a read of up to eight.
#[derive(Clone, Copy, Debug, Default)]
struct Value {
    bytes: [u8; 8],
    count: usize,
}

impl Value {
    fn extend(&mut self, bytes: impl Iterator<Item = u8>) {
        for byte in bytes {
            if let Some(place) = self.bytes.get_mut(self.count) {
                *place = byte;
                self.count += 1;
            }
        }
    }
}

#[derive(Debug)]
enum Slot {
    Free,
    /// Waiting; `first_byte` and `len` say which bytes count that are still to come (0 for writes), `value` holds
    /// those that came.
    Outstanding {
        first_byte: u64,
        len: u32,
        value: Value,
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
            value: Value::default(),
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
        let Some(slot) = slot else {
            return report(Violation::UnexpectedCompletion(tag));
        };
        let Slot::Outstanding {
            first_byte,
            len,
            value,
            attributes,
            config,
            ..
        } = slot
        else {
            return report(Violation::UnexpectedCompletion(tag));
        };
        let (first, wanted, config) = (*first_byte, *len, *config);
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
        expect("Attr", header.attributes.into(), (*attributes).into());
        let wants_data = wanted > 0 && status == Status::Success;
        expect("Fmt (with data)", with_data.into(), wants_data.into());
        // PCIe 2.3.1.1: configuration completions, and all without data, have byte count 4, lower address 0.
        let memory = !config && wants_data;
        if memory {
            expect("Byte Count", byte_count.into(), wanted);
            expect("Lower Address", lower_address.into(), (first & 0x7f) as u32);
            let dwords = |end: u64| (end.div_ceil(4) - first / 4) as u32;
            let end = first + u64::from(wanted);
            let boundary = (first / BOUNDARY + 1) * BOUNDARY;
            if boundary < end && u32::from(header.length) == dwords(boundary) && !header.poisoned {
                let part = (boundary - first) as usize;
                value.extend(payload_bytes(payload, (first & 3) as usize, part));
                *first_byte = boundary;
                *len -= part as u32;
                return;
            }
            expect("Length", header.length.into(), dwords(end));
        } else if config || status == Status::Success {
            expect("Byte Count", byte_count.into(), 4);
            expect("Lower Address", lower_address.into(), 0);
        }
        let result = match status {
            Status::Success if header.poisoned => Err(RequestError::Poisoned),
            Status::Success => {
                value.extend(payload_bytes(
                    payload,
                    (first & 3) as usize,
                    (wanted as usize).min(8),
                ));
                Ok(u64::from_le_bytes(value.bytes))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A successful completion of a memory read.
    fn completion(tag: u8, byte_count: u16, lower_address: u8, length: u16) -> Header {
        Header {
            kind: Kind::Completion {
                completer: Bdf(0x100),
                status: Status::Success,
                byte_count,
                requester: Bdf(0),
                tag,
                lower_address,
                with_data: true,
            },
            traffic_class: 0,
            attributes: 0,
            poisoned: false,
            length,
        }
    }

    fn read_of_eight_at_0x107c() -> (Requester, Transaction) {
        let mut requester = Requester::new();
        let transaction = requester.open(0x107d, 7, false, SimTime::from_us(50));
        (requester, transaction.expect("tags are free"))
    }

    #[test]
    fn a_read_across_the_completion_boundary_may_be_answered_in_two() {
        let (mut requester, read) = read_of_eight_at_0x107c();
        let none = |violation| panic!("{violation}");
        requester.complete(&completion(read.tag(), 7, 0x7d, 1), &[0x3322_11ff], none);
        assert_eq!(requester.take(read), None);
        requester.complete(&completion(read.tag(), 4, 0x00, 1), &[0x7766_5544], none);
        assert_eq!(requester.take(read), Some(Ok(0x0077_6655_4433_2211)));
        let (mut requester, read) = read_of_eight_at_0x107c();
        requester.complete(
            &completion(read.tag(), 7, 0x7d, 2),
            &[0x3322_11ff, 0x7766_5544],
            none,
        );
        assert_eq!(requester.take(read), Some(Ok(0x0077_6655_4433_2211)));
    }

    #[test]
    fn a_completion_that_ends_elsewhere_is_reported() {
        let mut requester = Requester::new();
        let read = requester
            .open(0x1000, 8, false, SimTime::from_us(50))
            .expect("tags are free");
        let mut seen = vec![];
        requester.complete(&completion(read.tag(), 8, 0, 1), &[1], |violation| {
            seen.push(violation)
        });
        assert!(matches!(
            seen[..],
            [Violation::CompletionField { field: "Length", .. }]
        ));
        let (mut requester, read) = read_of_eight_at_0x107c();
        requester.complete(&completion(read.tag(), 7, 0x7d, 1), &[0], |violation| {
            panic!("{violation}")
        });
        let mut seen = vec![];
        requester.complete(&completion(read.tag(), 7, 0x7d, 2), &[0, 0], |violation| {
            seen.push(violation)
        });
        assert!(
            !seen.is_empty(),
            "the second completion goes on where the first ended"
        );
    }
}
