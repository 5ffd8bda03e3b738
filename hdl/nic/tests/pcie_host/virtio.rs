//! The virtio registers, and the way to DRIVER_OK.

use hematite_abi::bar0;
use hematite_nic::virtio::features;
use hematite_testbench::Error;

use super::Host;

pub const STATUS: u32 = bar0::COMMON + 0x14;
pub const QUEUE_SELECT: u32 = bar0::COMMON + 0x16;
pub const QUEUE_SIZE: u32 = bar0::COMMON + 0x18;
pub const QUEUE_VECTOR: u32 = bar0::COMMON + 0x1a;
pub const QUEUE_ENABLE: u32 = bar0::COMMON + 0x1c;
pub const QUEUE_RESET: u32 = bar0::COMMON + 0x3a;

pub fn accept(host: &mut Host, accepted: u64) -> Result<(), Error> {
    for select in 0..2 {
        host.write(bar0::COMMON + 0x08, 4, select);
        host.write(bar0::COMMON + 0x0c, 4, (accepted >> (32 * select)) as u32);
    }
    Ok(())
}

/// Status 0, 1, 3, features, 0xb (3.1.1).
pub fn negotiate(host: &mut Host, accepted: u64) -> Result<u32, Error> {
    for status in [0, 1, 3] {
        host.write(STATUS, 1, status);
    }
    // A reset lasts until the engines are idle.
    while host.read(STATUS, 1)? != 3 {
        host.write(STATUS, 1, 3);
    }
    accept(host, accepted)?;
    host.write(STATUS, 1, 0xb);
    host.read(STATUS, 1)
}

/// What `start` writes as a word of a queue's areas: low and high of each.
pub fn area(queue: u32, word: u32) -> u32 {
    0x1000 * (queue + 1) + 0x10 * word
}

pub fn start(host: &mut Host) -> Result<(), Error> {
    assert_eq!(negotiate(host, features::OFFERED)?, 0xb);
    for queue in 0..2 {
        host.write(QUEUE_SELECT, 2, queue);
        for word in 0..6 {
            host.write(bar0::COMMON + 0x20 + word * 4, 4, area(queue, word));
        }
        host.write(QUEUE_VECTOR, 2, queue + 1);
        host.write(QUEUE_ENABLE, 2, 1);
    }
    host.write(STATUS, 1, 0xf);
    host.flush()
}
