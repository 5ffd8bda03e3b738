//! DNS messages (RFC 1035 section 4), as much as a stub resolver needs. Everything that is read is bounded.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest name on the wire (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 255;
const MAX_LABEL: usize = 63;
/// Most compression pointers that a name is followed through.
const MAX_POINTERS: usize = 16;
/// Most records of an answer that are read, and most addresses that are kept.
const MAX_RECORDS: usize = 64;
pub(crate) const MAX_ADDRS: usize = 16;
/// Longest chain of aliases in one answer.
const MAX_ALIASES: usize = 8;

const TYPE_CNAME: u16 = 5;
const CLASS_IN: u16 = 1;

/// Bytes of the header.
const HEADER: usize = 12;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordType {
    /// IPv4 addresses (RFC 1035 section 3.4.1).
    A,
    /// IPv6 addresses (RFC 3596).
    Aaaa,
}

impl RecordType {
    pub(crate) const fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
        }
    }
}

/// A name in wire form, in lower case (RFC 4343 section 3).
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Name(Vec<u8>);

impl Name {
    /// A name from text, with or without the final dot. None if it is not one.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.split('.') {
            let plain = label.bytes().all(|b| b.is_ascii_graphic());
            if label.is_empty() || label.len() > MAX_LABEL || !plain {
                return None;
            }
            wire.push(label.len() as u8);
            wire.extend(label.bytes().map(|b| b.to_ascii_lowercase()));
        }
        wire.push(0);
        (wire.len() <= MAX_NAME).then_some(Self(wire))
    }

    /// The name at `at` of a message and where what follows it starts. Pointers only go back, so it ends
    /// (section 4.1.4).
    fn parse(message: &[u8], at: usize) -> Option<(Self, usize)> {
        let (mut pos, mut end, mut limit) = (at, None, at);
        let mut wire = Vec::new();
        for _ in 0..=MAX_POINTERS {
            loop {
                let len = usize::from(*message.get(pos)?);
                match len {
                    0 => {
                        wire.push(0);
                        return (wire.len() <= MAX_NAME).then_some((Self(wire), end.unwrap_or(pos + 1)));
                    }
                    1..=MAX_LABEL => {
                        let label = message.get(pos + 1..pos + 1 + len)?;
                        wire.push(len as u8);
                        wire.extend(label.iter().map(u8::to_ascii_lowercase));
                        if wire.len() > MAX_NAME {
                            return None;
                        }
                        pos += 1 + len;
                    }
                    0xc0.. => break,
                    _ => return None,
                }
            }
            let target =
                usize::from(u16::from_be_bytes([*message.get(pos)?, *message.get(pos + 1)?]) & 0x3fff);
            end.get_or_insert(pos + 2);
            if target >= limit {
                return None;
            }
            (pos, limit) = (target, target);
        }
        None
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = &self.0[..];
        while let [len, tail @ ..] = rest
            && *len > 0
        {
            let (label, tail) = tail.split_at_checked(usize::from(*len)).unwrap_or((tail, &[]));
            write!(f, "{}.", label.escape_ascii())?;
            rest = tail;
        }
        Ok(())
    }
}

/// A question for a recursive server (section 4.1.1).
pub(crate) fn emit_query(id: u16, name: &Name, kind: RecordType) -> Vec<u8> {
    let mut m = Vec::with_capacity(HEADER + name.0.len() + 4);
    m.extend_from_slice(&id.to_be_bytes());
    // A standard query, recursion desired; one question.
    m.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    m.extend_from_slice(&name.0);
    m.extend_from_slice(&kind.number().to_be_bytes());
    m.extend_from_slice(&CLASS_IN.to_be_bytes());
    m
}

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The addresses of the name, none if it has none of this type, and whether the message was cut short.
    Addresses {
        addrs: Vec<IpAddr>,
        ttl: u32,
        truncated: bool,
    },
    /// The name is an alias, and the message does not tell of what has addresses.
    Alias(Name),
    /// There is no such name (NXDOMAIN).
    NoName,
    /// The server cannot or will not tell (any other code).
    Failed(u8),
}

fn word(message: &[u8], at: usize) -> Option<u16> {
    message.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

impl Answer {
    /// Reads an answer to a question. None if it is not one: another identifier, another question, or
    /// malformed (RFC 5452 section 9.1).
    pub(crate) fn parse(message: &[u8], id: u16, name: &Name, kind: RecordType) -> Option<Self> {
        let flags = word(message, 2)?;
        // A response to a standard query with our identifier and one question, which is ours.
        if word(message, 0)? != id || flags & 0xf800 != 0x8000 || word(message, 4)? != 1 {
            return None;
        }
        let (asked, at) = Name::parse(message, HEADER)?;
        if asked != *name || word(message, at)? != kind.number() || word(message, at + 2)? != CLASS_IN {
            return None;
        }
        let truncated = flags & 0x0200 != 0;
        match flags & 0xf {
            0 => {}
            3 => return Some(Self::NoName),
            code => return Some(Self::Failed(code as u8)),
        }
        let records = parse_records(message, at + 4, usize::from(word(message, 6)?));
        // Whole records are believed even if the message was cut short.
        let records = match records {
            Ok(records) => records,
            Err(records) if truncated => records,
            Err(_) => return None,
        };
        let mut current = name.clone();
        for _ in 0..=MAX_ALIASES {
            let alias = records.iter().find(|r| r.name == current && r.kind == TYPE_CNAME);
            let Some(target) = alias.and_then(|r| Name::parse(message, r.data).map(|n| n.0)) else {
                let own = || {
                    records
                        .iter()
                        .filter(|r| r.name == current && r.kind == kind.number())
                };
                let addrs: Vec<_> = own()
                    .filter_map(|r| r.addr(message, kind))
                    .take(MAX_ADDRS)
                    .collect();
                let ttl = own().map(|r| r.ttl).min().unwrap_or(0);
                if addrs.is_empty() && current != *name {
                    return Some(Self::Alias(current));
                }
                return Some(Self::Addresses {
                    addrs,
                    ttl,
                    truncated,
                });
            };
            current = target;
        }
        Some(Self::Failed(2))
    }
}

struct Record {
    name: Name,
    kind: u16,
    ttl: u32,
    data: usize,
    len: usize,
}

impl Record {
    fn addr(&self, message: &[u8], kind: RecordType) -> Option<IpAddr> {
        let data = message.get(self.data..self.data + self.len)?;
        Some(match kind {
            RecordType::A => Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into(),
            RecordType::Aaaa => Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into(),
        })
    }
}

/// The records of the answer section; those before the first that is malformed as an error.
fn parse_records(message: &[u8], mut at: usize, count: usize) -> Result<Vec<Record>, Vec<Record>> {
    let mut records = Vec::new();
    for _ in 0..count.min(MAX_RECORDS) {
        let record = || {
            let (name, at) = Name::parse(message, at)?;
            let (kind, class) = (word(message, at)?, word(message, at + 2)?);
            let ttl = u32::from(word(message, at + 4)?) << 16 | u32::from(word(message, at + 6)?);
            let len = usize::from(word(message, at + 8)?);
            message.get(at + 10..at + 10 + len)?;
            let data = at + 10;
            Some((
                class,
                Record {
                    name,
                    kind,
                    ttl,
                    data,
                    len,
                },
            ))
        };
        let Some((class, record)) = record() else {
            return Err(records);
        };
        at = record.data + record.len;
        if class == CLASS_IN {
            records.push(record);
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::wire::{DnsPacket, DnsQueryType, DnsQuestion};

    fn name(s: &str) -> Name {
        Name::from_text(s).unwrap()
    }

    /// A response: header, question, and records of (name bytes, type, data).
    pub(in crate::dns) fn response(
        id: u16,
        flags: u16,
        q: &Name,
        kind: RecordType,
        records: &[(&[u8], u16, &[u8])],
    ) -> Vec<u8> {
        let mut m = emit_query(id, q, kind);
        m[2..4].copy_from_slice(&flags.to_be_bytes());
        m[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        for (owner, kind, data) in records {
            m.extend_from_slice(owner);
            m.extend_from_slice(&kind.to_be_bytes());
            m.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
            m.extend_from_slice(&(data.len() as u16).to_be_bytes());
            m.extend_from_slice(data);
        }
        m
    }

    const OK: u16 = 0x8180;
    /// A pointer to the question's name.
    const Q: &[u8] = &[0xc0, 12];

    #[test]
    fn names_are_checked() {
        assert_eq!(name("Example.COM."), name("example.com"));
        assert_eq!(format!("{:?}", name("a.b")), "a.b.");
        for bad in [
            "",
            ".",
            "a..b",
            "a b.c",
            &"x".repeat(64),
            &vec!["y".repeat(63); 5].join("."),
        ] {
            assert!(Name::from_text(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn smoltcp_reads_our_questions() {
        let q = emit_query(0xabcd, &name("www.example.org"), RecordType::Aaaa);
        let packet = DnsPacket::new_checked(&q[..]).unwrap();
        assert_eq!((packet.transaction_id(), packet.question_count()), (0xabcd, 1));
        let (rest, question) = DnsQuestion::parse(packet.payload()).unwrap();
        assert!(rest.is_empty());
        assert_eq!(question.type_, DnsQueryType::Aaaa);
        assert_eq!(question.name, b"\x03www\x07example\x03org\x00");
    }

    #[test]
    fn answers_follow_aliases_and_are_about_the_question() {
        let q = name("www.example.org");
        let parse = |m: &[u8]| Answer::parse(m, 1, &q, RecordType::A);
        let got = |addrs: &[[u8; 4]]| Answer::Addresses {
            addrs: addrs.iter().map(|a| IpAddr::from(*a)).collect(),
            ttl: if addrs.is_empty() { 0 } else { 60 },
            truncated: false,
        };
        let plain = response(
            1,
            OK,
            &q,
            RecordType::A,
            &[(Q, 1, &[192, 0, 2, 1]), (Q, 1, &[192, 0, 2, 2])],
        );
        assert_eq!(parse(&plain), Some(got(&[[192, 0, 2, 1], [192, 0, 2, 2]])));
        let real = name("real.example.net");
        let chain = response(
            1,
            OK,
            &q,
            RecordType::A,
            &[(&real.0, 1, &[192, 0, 2, 3]), (Q, 5, &real.0)],
        );
        assert_eq!(parse(&chain), Some(got(&[[192, 0, 2, 3]])));
        let open = response(1, OK, &q, RecordType::A, &[(Q, 5, &real.0)]);
        assert_eq!(parse(&open), Some(Answer::Alias(real.clone())));
        // Addresses of a name that nobody asked about.
        let foreign = response(1, OK, &q, RecordType::A, &[(&real.0, 1, &[6, 6, 6, 6])]);
        assert_eq!(parse(&foreign), Some(got(&[])));
        assert_eq!(
            parse(&response(1, OK, &q, RecordType::A, &[])),
            Some(got(&[])),
            "no data"
        );
        assert_eq!(
            parse(&response(1, 0x8183, &q, RecordType::A, &[])),
            Some(Answer::NoName)
        );
        assert_eq!(
            parse(&response(1, 0x8182, &q, RecordType::A, &[])),
            Some(Answer::Failed(2))
        );
        let around = response(1, OK, &q, RecordType::A, &[(Q, 5, Q)]);
        assert_eq!(parse(&around), Some(Answer::Failed(2)), "an alias of itself");
    }

    #[test]
    fn rfc5452_what_is_not_an_answer_to_us() {
        let q = name("www.example.org");
        let good = response(1, OK, &q, RecordType::A, &[(Q, 1, &[192, 0, 2, 1])]);
        let parse = |m: &[u8]| Answer::parse(m, 1, &q, RecordType::A);
        assert!(parse(&good).is_some());
        let spoilt = |at: usize, value: u8| {
            let mut m = good.clone();
            m[at] = value;
            parse(&m)
        };
        assert_eq!(spoilt(1, 2), None, "another identifier");
        assert_eq!(spoilt(2, 1), None, "a question");
        assert_eq!(spoilt(5, 2), None, "two questions");
        assert_eq!(spoilt(13, b'x'), None, "another name");
        assert_eq!(spoilt(30, 28), None, "another type");
        assert_eq!(parse(&good[..good.len() - 1]), None, "cut short without a word");
        let mut cut = good[..good.len() - 1].to_vec();
        cut[2] |= 2;
        let none = Answer::Addresses {
            addrs: vec![],
            ttl: 0,
            truncated: true,
        };
        assert_eq!(
            parse(&cut),
            Some(none),
            "RFC 2181 section 9: cut short with the TC bit"
        );
    }

    #[test]
    fn pointers_that_do_not_go_back_end_it() {
        let loops = [&[0; 12][..], &[0xc0, 12]].concat();
        assert_eq!(Name::parse(&loops, 12), None);
        let forward = [&[0; 12][..], &[0xc0, 14, 0]].concat();
        assert_eq!(Name::parse(&forward, 12), None);
        let back = [&[0; 12][..], b"\x01a\x00", &[1, b'b', 0xc0, 12, 9]].concat();
        assert_eq!(Name::parse(&back, 15), Some((name("b.a"), 19)));
    }
}
