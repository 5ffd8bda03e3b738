//! The host's side: configuration and BAR accesses that the root complex sends to the card.

use super::RootComplex;
use crate::pcie::memory::HostMemory;
use crate::pcie::requester::{RequestError, Transaction, config_header};
use crate::pcie::rules::FunctionState;
use crate::pcie::tlp::{Direction, Header, pack_payload};
use crate::time::SimTime;

impl<M: HostMemory> RootComplex<M> {
    /// Starts a configuration read of the double word at `register`.
    pub fn start_config_read(&mut self, now: SimTime, register: u16) -> Result<Transaction, RequestError> {
        let transaction = self
            .requester
            .open(0, 4, true, now + self.config.request_timeout)?;
        let header = config_header(
            Direction::Read,
            self.id,
            self.function.id,
            transaction.tag(),
            register,
            0xf,
        );
        self.send(now, &header, &[]);
        Ok(transaction)
    }

    /// Starts a configuration write of the bytes of `value` that `byte_enables` selects.
    pub fn start_config_write(
        &mut self,
        now: SimTime,
        register: u16,
        value: u32,
        byte_enables: u8,
    ) -> Result<Transaction, RequestError> {
        let transaction = self
            .requester
            .open(0, 0, true, now + self.config.request_timeout)?;
        let (target, tag) = (self.function.id, transaction.tag());
        let header = config_header(Direction::Write, self.id, target, tag, register, byte_enables);
        self.send(now, &header, &[value]);
        self.follow_config_write(register, value, byte_enables, tag);
        Ok(transaction)
    }

    fn follow_config_write(&mut self, register: u16, value: u32, byte_enables: u8, tag: u8) {
        self.function.id_captured = true;
        const COMMAND: u16 = 4;
        const BUS_MASTER: u32 = 1 << 2;
        if register == COMMAND && byte_enables & 1 != 0 {
            // What the card sent before it saw the write may still be on its way; the write's completion is behind it.
            if value & BUS_MASTER != 0 {
                self.function.bus_master = true;
                self.bus_master_off = None;
            } else {
                self.bus_master_off = Some(tag);
            }
        }
        // Device Control is 8 bytes into the capability.
        if self.express_capability.is_some_and(|at| at + 8 == register) && byte_enables & 3 == 3 {
            self.function.device_control(value as u16);
        }
    }

    /// After a function-level reset: the card's registers are back at their defaults, but for Max_Payload_Size
    /// (PCIe 6.6.2).
    pub fn function_was_reset(&mut self) {
        self.function = FunctionState {
            max_payload: self.function.max_payload,
            ..FunctionState::reset(self.function.id)
        };
        self.bus_master_off = None;
        self.set_vectors(0);
    }

    /// Starts a memory read of `len` bytes (1..=8, not crossing 4 KiB) in a BAR.
    pub fn start_memory_read(
        &mut self,
        now: SimTime,
        address: u64,
        len: u32,
    ) -> Result<Transaction, RequestError> {
        let transaction = self
            .requester
            .open(address, len, false, now + self.config.request_timeout)?;
        let header = Header::memory(Direction::Read, self.id, transaction.tag(), address, len);
        self.send(now, &header, &[]);
        Ok(transaction)
    }

    /// Posts a memory write of `bytes` (1..=128, not crossing 4 KiB) to a BAR.
    pub fn post_memory_write(&mut self, now: SimTime, address: u64, bytes: &[u8]) {
        let header = Header::memory(Direction::Write, self.id, 0, address, bytes.len() as u32);
        let mut payload = Vec::with_capacity(bytes.len() / 4 + 2);
        pack_payload(address, bytes, &mut payload);
        self.send(now, &header, &payload);
    }

    /// Packets for the card that it has not taken yet.
    pub fn backlog(&self) -> usize {
        self.down.len()
    }

    /// Sends any packet to the card, legal or not: for tests of bad input.
    pub fn send_raw(&mut self, now: SimTime, words: &[u32]) {
        let mut packet = self.pool.pop().unwrap_or_default();
        packet.extend_from_slice(words);
        self.enqueue_down(now, packet);
    }

    /// The outcome of a request, once.
    pub fn take_result(&mut self, transaction: Transaction) -> Option<Result<u64, RequestError>> {
        self.requester.take(transaction)
    }
}
