//! A plug that returns what the card sends.

use super::{Frame, WireEndpoint};
use crate::time::SimTime;
use std::collections::VecDeque;

/// Returns every frame, unchanged or with source and destination address exchanged.
#[derive(Debug, Default)]
pub struct Loopback {
    queue: VecDeque<Vec<u8>>,
    swap_addresses: bool,
}

impl Loopback {
    /// Returns frames as they are.
    pub fn new() -> Self {
        Self::default()
    }

    /// Exchanges the MAC addresses, so that an address filter lets the frame in.
    pub fn swapping() -> Self {
        Loopback {
            queue: VecDeque::new(),
            swap_addresses: true,
        }
    }
}

impl WireEndpoint for Loopback {
    fn transmit(&mut self, _now: SimTime, frame: &mut Frame) -> bool {
        let Some(bytes) = self.queue.pop_front() else {
            return false;
        };
        frame.bytes = bytes;
        true
    }

    fn receive(&mut self, _now: SimTime, frame: &[u8]) {
        let mut bytes = frame.to_vec();
        if self.swap_addresses
            && let Some((destination, source)) = bytes
                .get_mut(..12)
                .and_then(|addresses| addresses.split_at_mut_checked(6))
        {
            destination.swap_with_slice(source);
        }
        self.queue.push_back(bytes);
    }
}
