//! The card's side: its writes, messages and reads as they arrive, and the completions of the reads.

use super::DOWN_QUEUE;
use super::{MESSAGE_BASE, MESSAGE_LEN, NON_POSTED, POSTED, RootComplex, class_of, message};
use crate::pcie::completer::PendingRead;
use crate::pcie::faults::CompletionFault;
use crate::pcie::memory::HostMemory;
use crate::pcie::rules::Violation;
use crate::pcie::tlp::{Bdf, Direction, Header, Kind, Status, enabled_span};
use crate::time::SimTime;
use hematite_netstack::core::trace;
use rand::RngExt;

impl<M: HostMemory> RootComplex<M> {
    /// A packet of the card has reached the root complex.
    pub(super) fn arrive(&mut self, now: SimTime, words: &[u32]) {
        if class_of(words[0]) == POSTED {
            self.posted_bytes -= words.len() as u64 * 4;
        }
        let (header, payload) = match Header::parse(words) {
            Ok(parsed) => parsed,
            Err(error) => {
                self.non_posted -= usize::from(class_of(words[0]) == NON_POSTED);
                return self.violations.push(now, error.into());
            }
        };
        self.counters.up.add(&header, words.len());
        let violations = &mut self.violations;
        self.function
            .check(&header, |violation| violations.push(now, violation));
        match header.kind {
            Kind::Memory {
                direction: Direction::Write,
                first_be,
                last_be,
                address,
                ..
            } => {
                self.memory_write(now, &header, address, first_be, last_be, payload);
            }
            Kind::Memory {
                direction: Direction::Read,
                requester,
                tag,
                first_be,
                last_be,
                address,
            } => {
                self.memory_read(now, &header, requester, tag, (address, first_be, last_be));
            }
            Kind::Completion { tag, .. } => {
                if self.bus_master_off == Some(tag) {
                    self.bus_master_off = None;
                    self.function.bus_master = false;
                }
                self.requester
                    .complete(&header, payload, |violation| violations.push(now, violation));
            }
            Kind::Config { .. } => self.non_posted -= 1, // reported by the check
        }
    }

    fn memory_write(
        &mut self,
        now: SimTime,
        header: &Header,
        address: u64,
        first_be: u8,
        last_be: u8,
        payload: &[u32],
    ) {
        if (MESSAGE_BASE..MESSAGE_BASE + MESSAGE_LEN).contains(&address) {
            return self.message_write(now, header, address, payload[0]);
        }
        trace::packet(0, trace::Stage::Dma, now.ns());
        self.scratch.clear();
        self.scratch
            .extend(payload.iter().flat_map(|dw| dw.to_le_bytes()));
        let last_index = payload.len() - 1;
        let enabled = |byte: usize| match byte / 4 {
            0 => first_be >> (byte % 4) & 1 != 0,
            dw if dw == last_index => last_be >> (byte % 4) & 1 != 0,
            _ => true,
        };
        // Runs of enabled bytes; more than one only for requests of one or two DWs (PCIe 2.2.5).
        let mut at = 0;
        while at < self.scratch.len() {
            if !enabled(at) {
                at += 1;
                continue;
            }
            let end = (at..self.scratch.len())
                .find(|&i| !enabled(i))
                .unwrap_or(self.scratch.len());
            let target = address + at as u64;
            if self.memory.device_write(target, &self.scratch[at..end]).is_err() {
                let len = (end - at) as u32;
                self.violations
                    .push(now, Violation::WriteFault { address: target, len });
            }
            at = end;
        }
    }

    fn message_write(&mut self, now: SimTime, header: &Header, address: u64, data: u32) {
        let vector = ((address - MESSAGE_BASE) / 4) as u16;
        if header.length != 1 || vector >= self.vectors || message(vector) != (address, data) {
            return self
                .violations
                .push(now, Violation::UnknownMessage { address, data });
        }
        self.counters.interrupts += 1;
        self.raised.push_back((now, vector));
    }

    fn memory_read(
        &mut self,
        now: SimTime,
        header: &Header,
        requester: Bdf,
        tag: u8,
        (address, first_be, last_be): (u64, u8, u8),
    ) {
        let (skip, len) = enabled_span(first_be, last_be, header.length);
        // Nothing lives in the top quarter of the address space: folding it keeps the arithmetic below from wrapping.
        const FOLD: u64 = 1 << 62;
        let start = if address < FOLD {
            address
        } else {
            FOLD | address & (FOLD - 1)
        } + u64::from(skip);
        let end = start + u64::from(len);
        let index = self.read_index;
        self.read_index += 1;
        let fault = self.faults.draw(index, start..end, &mut self.rng);
        let late = matches!(fault, Some(CompletionFault::Late(_)));
        if self
            .reads
            .iter()
            .any(|read| read.tag == tag && !matches!(read.fault, Some(CompletionFault::Late(_))))
        {
            self.violations.push(now, Violation::TagReused(tag));
        }
        let jitter = self.config.read_latency_jitter.ps();
        let mut ready_at = now + self.config.read_latency;
        if jitter > 0 {
            ready_at += SimTime::from_ps(self.rng.random_range(0..jitter));
        }
        if late && let Some(CompletionFault::Late(by)) = fault {
            ready_at += by;
        }
        self.next_ready = self.next_ready.min(ready_at);
        self.reads.push(PendingRead {
            requester,
            tag,
            attributes: header.attributes,
            traffic_class: header.traffic_class,
            next: start,
            end,
            ready_at,
            fault,
            started: false,
        });
    }

    /// Sends completions while the downstream lane is free.
    pub(super) fn complete_reads(&mut self, now: SimTime) {
        while self.down_lane.is_free(now) && self.down.len() < DOWN_QUEUE {
            let ready = |read: &PendingRead| read.ready_at <= now;
            let count = self.reads.iter().filter(|read| ready(read)).count();
            if count == 0 {
                self.next_ready = self
                    .reads
                    .iter()
                    .map(|read| read.ready_at)
                    .min()
                    .unwrap_or(SimTime::NEVER);
                return;
            }
            let shuffle =
                count > 1 && self.config.reorder > 0.0 && self.rng.random_bool(self.config.reorder.min(1.0));
            let nth = if shuffle {
                self.rng.random_range(0..count)
            } else {
                0
            };
            let Some(index) = (0..self.reads.len()).filter(|&i| ready(&self.reads[i])).nth(nth) else {
                return;
            };
            if self.complete_one(now, index) {
                self.non_posted -= 1;
                self.reads.remove(index);
            }
        }
    }

    /// Sends one completion of the read at `index`; true when the read is finished.
    fn complete_one(&mut self, now: SimTime, index: usize) -> bool {
        let rcb = u64::from(self.config.read_completion_boundary);
        let max_payload = u64::from(self.function.max_payload);
        let read = &self.reads[index];
        let mut chunk = read.chunk(self.config.split, rcb, max_payload, &mut self.rng);
        let completer = self.id;
        let mut header = read.data_header(completer, &chunk);
        let (fault, first) = (read.fault, !read.started);
        let dword_bytes = usize::from(header.length) * 4;
        // Bytes that were not asked for hold a pattern, so that a card using them is caught.
        self.scratch.clear();
        self.scratch.resize(dword_bytes, 0xa5);
        let skip = (chunk.address & 3) as usize;
        let wanted = skip..skip + (chunk.end - chunk.address) as usize;
        if self
            .memory
            .device_read(chunk.address, &mut self.scratch[wanted])
            .is_err()
        {
            let len = (chunk.end - chunk.address) as u32;
            self.violations.push(
                now,
                Violation::ReadFault {
                    address: chunk.address,
                    len,
                },
            );
            self.counters.read_faults += 1;
            let header = read.error_header(completer, Status::UnsupportedRequest);
            self.send(now, &header, &[]);
            return true;
        }
        match fault {
            Some(CompletionFault::UnsupportedRequest) => {
                let header = read.error_header(completer, Status::UnsupportedRequest);
                self.send(now, &header, &[]);
                return true;
            }
            Some(CompletionFault::CompleterAbort) if chunk.is_last => {
                let header = read.error_header(completer, Status::CompleterAbort);
                self.send(now, &header, &[]);
                return true;
            }
            Some(CompletionFault::Poisoned) if first => header.poisoned = true,
            Some(CompletionFault::Lost) if chunk.is_last => return true,
            Some(CompletionFault::Unexpected) if first => self.send_unexpected(now, header),
            Some(CompletionFault::ExcessData) if first => {
                header.length += 1;
                self.scratch.extend([0x5a; 4]);
                chunk.is_last = true;
            }
            Some(CompletionFault::ShortData) if first => {
                self.scratch.truncate(dword_bytes - 4);
                chunk.is_last = true;
            }
            _ => {}
        }
        let copies = if chunk.is_last && fault == Some(CompletionFault::Duplicate) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let mut words = self.pool.pop().unwrap_or_default();
            header.emit(&mut words);
            let dwords = self.scratch.as_chunks::<4>().0;
            words.extend(dwords.iter().map(|dw| u32::from_le_bytes(*dw)));
            self.counters.down.add(&header, words.len());
            self.enqueue_down(now, words);
        }
        let read = &mut self.reads[index];
        read.next = chunk.end;
        read.started = true;
        chunk.is_last
    }

    /// A completion for a tag that nothing is outstanding for.
    fn send_unexpected(&mut self, now: SimTime, mut header: Header) {
        let limit = if self.function.extended_tags { 256 } else { 32 };
        let free = (0..limit)
            .rev()
            .map(|tag| tag as u8)
            .find(|&t| self.reads.iter().all(|read| read.tag != t));
        let Kind::Completion { tag, .. } = &mut header.kind else {
            return;
        };
        let Some(free) = free else { return };
        *tag = free;
        let payload = vec![0xdead_beef; usize::from(header.length)];
        self.send(now, &header, &payload);
    }
}
