use super::*;
use std::os::fd::FromRawFd;

const BOTH: Access = Access {
    read: true,
    write: true,
};

fn memfd(len: u64, flags: libc::c_uint) -> File {
    // SAFETY: a name and flags; the descriptor that comes back is new.
    let file = unsafe { File::from_raw_fd(libc::memfd_create(c"test".as_ptr(), flags)) };
    file.set_len(len).expect("memory");
    file
}

fn shared(file: &File) -> File {
    file.try_clone().expect("a descriptor")
}

#[test]
fn accesses_cross_maps_and_stop_at_holes() {
    let file = memfd(64 << 10, libc::MFD_ALLOW_SEALING);
    let mut table = MapTable::default();
    // Pages in reverse order in the file.
    for page in 0..8u64 {
        let at = 0x1_0000_0000 + page * 4096;
        table
            .map(at, 4096, Some((shared(&file), (7 - page) * 4096)), BOTH)
            .expect("mapped");
    }
    let bytes: Vec<u8> = (0..10_000u32).map(|i| (i * 7 + i / 256) as u8).collect();
    for skip in [0, 1, 7, 8, 15, 60] {
        let at = 0x1_0000_0000 + 100 + skip;
        table.device_write(at, &bytes).expect("all mapped");
        let mut back = vec![0; bytes.len()];
        table.device_read(at, &mut back).expect("all mapped");
        assert_eq!(back, bytes, "at {at:#x}");
    }
    // The end of the last map, and a hole in the middle.
    assert!(table.device_read(0x1_0000_7ff8, &mut [0; 9]).is_err());
    table.unmap(0x1_0000_3000, 4096).expect("one map");
    assert_eq!(table.len(), 7);
    assert!(table.device_write(0x1_0000_2ff8, &[1; 16]).is_err());
    let mut untouched = [0; 8];
    table.device_read(0x1_0000_2ff8, &mut untouched).expect("mapped");
    assert_ne!(untouched, [1; 8], "a write that faults writes nothing");
}

#[test]
fn what_can_not_be_is_refused() {
    let file = memfd(8192, libc::MFD_ALLOW_SEALING);
    let mut table = MapTable::default();
    let mut map = |iova, size, offset| {
        table
            .map(iova, size, Some((shared(&file), offset)), BOTH)
            .map_err(|error| error.kind())
    };
    assert_eq!(map(0x1000, 0, 0), Err(io::ErrorKind::InvalidInput));
    assert_eq!(map(u64::MAX - 10, 4096, 0), Err(io::ErrorKind::InvalidInput));
    assert_eq!(map(0x1000, 8192, 4096), Err(io::ErrorKind::InvalidInput));
    assert_eq!(map(0x1000, 4096, u64::MAX), Err(io::ErrorKind::InvalidInput));
    assert_eq!(map(0x1000, 8192, 0), Ok(()));
    assert_eq!(map(0x2000, 4096, 0), Err(io::ErrorKind::AlreadyExists));
    assert_eq!(map(0x0, 0x1001, 0), Err(io::ErrorKind::AlreadyExists));
    let cut = table.unmap(0x1000, 4096).map_err(|error| error.kind());
    assert_eq!(cut, Err(io::ErrorKind::InvalidInput));
    let cut = table.unmap(0x2000, 4096).map_err(|error| error.kind());
    assert_eq!(cut, Err(io::ErrorKind::InvalidInput));
    table
        .unmap(1 << 63, 1 << 63)
        .expect("the upper half, where nothing is");
    assert_eq!(table.len(), 1);
    table.unmap(0, u64::MAX).expect("everything");
    assert!(table.is_empty());
    let wraps = table.unmap(1 << 63, (1 << 63) + 1).map_err(|error| error.kind());
    assert_eq!(wraps, Err(io::ErrorKind::InvalidInput));
}

#[test]
fn rights_are_kept_and_memory_that_may_vanish_is_not_used() {
    let file = memfd(4096, libc::MFD_ALLOW_SEALING);
    let mut table = MapTable::default();
    let read_only = Access {
        read: true,
        write: false,
    };
    table
        .map(0x1000, 4096, Some((shared(&file), 0)), read_only)
        .expect("mapped");
    assert!(table.device_read(0x1000, &mut [0; 4]).is_ok());
    assert!(table.device_write(0x1000, &[0; 4]).is_err());
    // No sealing allowed, and no file at all: holes.
    let unsealed = memfd(4096, 0);
    table
        .map(0x2000, 4096, Some((shared(&unsealed), 0)), BOTH)
        .expect("accepted");
    table.map(0x3000, 4096, None, BOTH).expect("accepted");
    assert!(table.device_read(0x2000, &mut [0; 4]).is_err());
    assert!(table.device_read(0x3000, &mut [0; 4]).is_err());
    // The client can't shrink what is mapped.
    assert!(file.set_len(0).is_err());
}
