//! DMA memory: liveness to the byte, guards, ownership, 64-bit windows.

use hematite_bus::{AllocError, DmaBuf, DmaFault, DmaSpace};

#[test]
fn the_device_reaches_exactly_the_live_bytes() {
    let space = DmaSpace::new().unwrap();
    let region = space.alloc(100, 64).unwrap();
    let iova = region.iova();
    assert_eq!(iova % 64, 0);
    for (at, len, ok) in [
        (0, 100, true),
        (99, 1, true),
        (0, 101, false),
        (100, 1, false),
        (64, 36, true),
        (64, 37, false),
    ] {
        assert_eq!(
            space.device_write(iova + at, &vec![7; len]).is_ok(),
            ok,
            "{at}+{len}"
        );
        assert_eq!(
            space.device_read(iova + at, &mut vec![0; len]).is_ok(),
            ok,
            "{at}+{len}"
        );
    }
    assert_eq!(
        space.device_read(iova - 1, &mut [0; 2]),
        Err(DmaFault {
            iova: iova - 1,
            len: 2
        })
    );
    assert!(space.device_read(u64::MAX, &mut [0; 2]).is_err());
    assert!(space.device_read(0, &mut [0]).is_err());
    assert_eq!(space.stats().faults, 9);
}

#[test]
fn faulting_writes_change_nothing() {
    let space = DmaSpace::new().unwrap();
    let region = space.alloc(64, 64).unwrap();
    assert!(space.device_write(region.iova() + 60, &[0xff; 8]).is_err());
    let mut bytes = [1; 64];
    region.copy_to_slice(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 64]);
}

#[test]
fn freed_memory_faults_and_is_reused_late() {
    let space = DmaSpace::with_window(0x10_0000, 64 << 10).unwrap();
    let first = space.alloc(4096, 4096).unwrap();
    let iova = first.iova();
    drop(first);
    assert!(space.device_read(iova, &mut [0]).is_err());
    let second = space.alloc(4096, 4096).unwrap();
    assert_ne!(second.iova(), iova, "next fit");
    drop(second);
    // And it is reused in the end, zeroed.
    for _ in 0..100 {
        let region = space.alloc(4096, 4096).unwrap();
        assert_eq!(region.read_u64(8), Ok(0));
        region.fill(0xaa);
    }
    assert_eq!((space.stats().allocations, space.stats().bytes), (0, 0));
}

#[test]
fn allocations_never_touch_each_other_or_the_window_ends() {
    let space = DmaSpace::with_window(0x4000_0000, 256 << 10).unwrap();
    let mut regions = Vec::new();
    for i in 0.. {
        match space.alloc(1 + i * 37 % 3000, 1 << (i % 13)) {
            Ok(region) => regions.push(region),
            Err(error) => {
                assert!(matches!(error, AllocError::OutOfMemory { .. }));
                break;
            }
        }
    }
    assert!(regions.len() > 50);
    regions.sort_by_key(|region| region.iova());
    for pair in regions.windows(2) {
        assert!(pair[1].iova() - (pair[0].iova() + pair[0].len() as u64) >= 256);
    }
    let window = space.window();
    assert!(regions[0].iova() >= window.start + 256);
    let last = regions.last().unwrap();
    assert!(last.iova() + last.len() as u64 + 256 <= window.end);
}

#[test]
fn windows_above_4_gib() {
    let space = DmaSpace::with_window(0x12_3456_7000, 1 << 20).unwrap();
    let region = space.alloc(16, 16384).unwrap();
    assert!(region.iova() > u64::from(u32::MAX));
    assert_eq!(
        region.iova() % 16384,
        0,
        "alignment holds for the IOVA, not for the offset in the window"
    );
    space
        .device_write(region.iova(), &0x1122_3344_5566_7788_u64.to_le_bytes())
        .unwrap();
    assert_eq!(region.read_u64(0), Ok(0x1122_3344_5566_7788));
    assert!(DmaSpace::with_window(u64::MAX - 4095, 8192).is_err());
    assert!(DmaSpace::with_window(1, 8192).is_err());
}

#[test]
fn scalars_are_little_endian_aligned_and_in_bounds() {
    let space = DmaSpace::new().unwrap();
    let region = space.alloc(16, 16).unwrap();
    region.write_u32(4, 0x0403_0201).unwrap();
    let mut bytes = [0; 4];
    space.device_read(region.iova() + 4, &mut bytes).unwrap();
    assert_eq!(bytes, [1, 2, 3, 4]);
    region.store_release_u16(14, 0x8080).unwrap();
    assert_eq!(region.load_acquire_u16(14), Ok(0x8080));
    assert!(region.read_u16(15).is_err() && region.read_u32(2).is_err() && region.read_u64(16).is_err());
    assert!(region.copy_from_slice(usize::MAX, &[0]).is_err());
    assert!(space.alloc(0, 1).is_err() && space.alloc(1, 3).is_err());
}

#[test]
fn a_buffer_dropped_in_the_devices_hands_is_quarantined() {
    let space = DmaSpace::new().unwrap();
    let mut buffer = DmaBuf::new(&space, 1536).unwrap();
    buffer.copy_from_slice(0, b"frame").unwrap();
    let given = buffer.give();
    let iova = given.iova();
    space.device_write(iova, b"FRAME").unwrap();
    let back = given.take_back();
    let mut bytes = [0; 5];
    back.copy_to_slice(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"FRAME");
    drop(back.give());
    assert_eq!((space.stats().quarantined, space.stats().allocations), (1, 1));
    assert!(
        space.device_write(iova, b"late!").is_ok(),
        "a late write hits nobody else"
    );
}
