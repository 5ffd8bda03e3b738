//! Headers of memory requests (PCI Express Base Specification, section 2.2.7).

use hematite_lang::prelude::*;

/// DW 0 of a memory request: `Fmt` and `Type`, Traffic Class 0, no digest, not poisoned, strongly ordered,
/// untranslated. `wide` is a four-DW header.
#[hw]
pub fn memory_request(write: Bit, wide: Bit, dwords: Bits<8>) -> Bits<32> {
    cat::<32>((false, write, wide, bits::<21>(0), dwords))
}

/// DW 1 of a memory request.
#[hw]
pub fn memory_request_ids(
    requester_id: Bits<16>,
    tag: Bits<8>,
    last_enable: Bits<4>,
    first_enable: Bits<4>,
) -> Bits<32> {
    cat::<32>((requester_id, tag, last_enable, first_enable))
}

/// The low DW of the address, which names a DW.
#[hw]
pub fn low_address(address: Bits<64>) -> Bits<32> {
    cat::<32>((address.get_bits::<30>(2), bits::<2>(0)))
}
