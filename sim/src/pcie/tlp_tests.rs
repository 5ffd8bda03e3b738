use super::*;
use proptest::prelude::*;

fn round_trip(header: Header, payload: &[u32]) {
    let mut words = Vec::new();
    header.emit(&mut words);
    words.extend_from_slice(payload);
    assert_eq!(Header::parse(&words), Ok((header, payload)));
}

proptest! {
    #![proptest_config(crate::random::cases(256))]
    #[test]
    fn memory_requests_round_trip(address in any::<u64>(), bytes in 0u32..=4096, write: bool, tag: u8, id: u16,
                                  tc in 0u8..8, attributes in 0u8..8, poisoned: bool) {
        let bytes = bytes.min(4096 - (address & 0xfff) as u32).max(1);
        let direction = if write { Direction::Write } else { Direction::Read };
        let mut header = Header::memory(direction, Bdf(id), tag, address, bytes);
        header.traffic_class = tc;
        header.attributes = attributes;
        header.poisoned = poisoned;
        let payload: Vec<u32> = if write { (0..u32::from(header.length)).collect() } else { Vec::new() };
        round_trip(header, &payload);
        let Kind::Memory { first_be, last_be, .. } = header.kind else { unreachable!() };
        prop_assert_eq!(enabled_span(first_be, last_be, header.length), ((address & 3) as u32, bytes));
    }

    #[test]
    fn completions_round_trip(completer: u16, requester: u16, tag: u8, count in 1u16..=4096, low in 0u8..128,
                              length in 1u16..=1024) {
        let kind = Kind::Completion {
            completer: Bdf(completer), status: Status::Success, byte_count: count, requester: Bdf(requester), tag,
            lower_address: low, with_data: true,
        };
        let header = Header { kind, traffic_class: 0, attributes: 0, poisoned: false, length };
        round_trip(header, &vec![7; length.into()]);
    }

    #[test]
    fn config_requests_round_trip(register in 0u16..1024, be in 0u8..16, target: u16, write: bool) {
        let direction = if write { Direction::Write } else { Direction::Read };
        let kind = Kind::Config {
            direction, requester: Bdf(0), tag: 3, first_be: be, target: Bdf(target), register: register * 4,
            type1: false,
        };
        let header = Header { kind, traffic_class: 0, attributes: 0, poisoned: false, length: 1 };
        round_trip(header, if write { &[0x1234] } else { &[] });
    }

    #[test]
    fn any_words_parse_or_fail_without_panic(words in prop::collection::vec(any::<u32>(), 0..20)) {
        if let Ok((header, payload)) = Header::parse(&words) {
            let mut again = Vec::new();
            header.emit(&mut again);
            again.extend_from_slice(payload);
            prop_assert_eq!(Header::parse(&again), Ok((header, payload)));
        }
    }

    #[test]
    fn payload_bytes_undo_pack(address in 0u64..64, bytes in prop::collection::vec(any::<u8>(), 1..100)) {
        let mut words = Vec::new();
        pack_payload(address, &bytes, &mut words);
        let back: Vec<u8> = payload_bytes(&words, (address & 3) as usize, bytes.len()).collect();
        prop_assert_eq!(back, bytes);
    }
}

#[test]
fn header_words_match_the_specification() {
    let mut words = Vec::new();
    Header::memory(Direction::Write, Bdf::new(1, 0, 0), 0x5a, 0x1_0000_0104, 8).emit(&mut words);
    assert_eq!(words, [0x6000_0002, 0x0100_5aff, 0x0000_0001, 0x0000_0104]);
    words.clear();
    Header::memory(Direction::Read, Bdf::new(1, 0, 0), 1, 0x1003, 1).emit(&mut words);
    assert_eq!(words, [0x0000_0001, 0x0100_0108, 0x0000_1000]);
}

#[test]
fn each_rule_is_reported() {
    let parse = |words: &[u32]| Header::parse(words).map(|_| ());
    assert_eq!(parse(&[0x4000_0001]), Err(TlpError::ShortHeader(1)));
    assert_eq!(
        parse(&[0x0000_0002, 0x0100_000f, 0x1000]),
        Err(TlpError::ByteEnables {
            first: 15,
            last: 0,
            length: 2
        })
    );
    assert_eq!(
        parse(&[0x0000_0001, 0x0100_00ff, 0x1000]),
        Err(TlpError::ByteEnables {
            first: 15,
            last: 15,
            length: 1
        })
    );
    assert_eq!(
        parse(&[0x0000_0003, 0x0100_00f5, 0x1000]),
        Err(TlpError::ByteEnables {
            first: 5,
            last: 15,
            length: 3
        })
    );
    assert_eq!(
        parse(&[0x0000_0002, 0x0100_00ff, 0x1ffc]),
        Err(TlpError::Crosses4KiB {
            address: 0x1ffc,
            length: 2
        })
    );
    assert_eq!(
        parse(&[0x2000_0001, 0x0100_000f, 0, 0x1000]),
        Err(TlpError::WideHeaderLowAddress(0x1000))
    );
    assert_eq!(
        parse(&[0x4000_0002, 0x0100_00ff, 0x1000, 1]),
        Err(TlpError::LengthMismatch {
            length: 2,
            payload: 1
        })
    );
    assert_eq!(
        parse(&[0x0000_8001, 0x0100_000f, 0x1000]),
        Err(TlpError::ReservedBits(0x8000))
    );
    assert_eq!(
        parse(&[0x4a00_0001, 0x0100_2004, 0, 0]),
        Err(TlpError::DataWithError(Status::UnsupportedRequest))
    );
    assert_eq!(
        parse(&[0x4000_0001, 0x0100_000f, 0x1002, 0]),
        Err(TlpError::UnalignedAddress)
    );
}
