//! The way of the packets: out of transmit chains, into receive buffers.

use std::collections::VecDeque;

use hematite_bus::DmaFault;
use rand::RngExt;
use virtio_spec::net::F;

use super::ring::{Chain, UsedElem};
use super::{Malice, Model, QUEUES, gro};

impl Model {
    /// Completes transmissions in any order; each frame goes out when its chain is completed.
    pub(super) fn transmit(&mut self, queue: usize) -> Result<(), DmaFault> {
        let dma = self.settings.dma.clone();
        let mut batch = Vec::new();
        let mut at = 0;
        while at < self.queues[queue].held.len() {
            if self.rng.random_range(0..100) < self.hold_tx {
                at += 1;
                continue;
            }
            // Not `remove(at)`: later ones overtake earlier ones.
            let chain = self.queues[queue].held.swap_remove(at);
            if queue / 2 >= self.channels {
                self.violations
                    .push(format!("sent by queue {queue} of {} pairs", self.channels));
            }
            self.sent_by[queue / 2] += 1;
            let mut bytes = Vec::new();
            for segment in &chain.segments {
                if segment.write {
                    self.violations
                        .push("a device-writable element on the transmit queue".into());
                }
                let mut part = vec![0; segment.len as usize];
                dma.device_read(segment.addr, &mut part)?;
                bytes.extend(part);
            }
            // The rest of a longer header is for what is received.
            let frame = self.header_len().min(bytes.len());
            bytes.drain(12.min(bytes.len())..frame);
            match bytes.split_first_chunk() {
                Some((hdr, frame)) if *hdr == [0; 12] => self.to_wire.push(frame.to_vec()),
                Some((hdr, frame)) if self.asks_rightly(hdr) => {
                    self.to_complete.push((*hdr, frame.to_vec()));
                }
                _ => self
                    .violations
                    .push(format!("bad virtio_net_hdr on transmit: {:?}", bytes.get(..12))),
            }
            let mut used = UsedElem::of(&chain, 0);
            match self.malice.take_if(|malice| malice.is_for_transmit()) {
                Some(Malice::TxUsedLength) => {
                    used = UsedElem {
                        len: 1,
                        write: true,
                        ..used
                    }
                }
                // The driver's ids are handed out again last in, first out: the farthest one is free.
                Some(Malice::UsedIdNotHead) => used.id = self.queues[queue].size - 1,
                Some(Malice::UsedTwice) => batch.push(used),
                _ => {}
            }
            batch.push(used);
        }
        self.complete(queue, &batch)
    }

    /// Bytes of the header before a packet (5.1.6).
    fn header_len(&self) -> usize {
        if self.has(F::HASH_REPORT) { 20 } else { 12 }
    }

    /// Whether everything that the header of a transmission asks for was negotiated (5.1.6.2).
    fn asks_rightly(&self, hdr: &[u8; 12]) -> bool {
        let segments = match hdr[1] & 0x7f {
            0 => hdr[1] == 0,
            1 => self.has(F::HOST_TSO4),
            4 => self.has(F::HOST_TSO6),
            _ => false,
        };
        let ecn = hdr[1] & 0x80 == 0 || self.has(F::HOST_ECN);
        hdr[0] == 1 && self.has(F::CSUM) && segments && ecn && hdr[10..] == [0; 2]
    }

    pub(super) fn receive(&mut self) -> Result<(), DmaFault> {
        let from_wire = std::mem::take(&mut self.from_wire);
        self.from_wire = from_wire.into_iter().filter(|frame| self.wants(frame)).collect();
        let mut full = [false; QUEUES];
        let mut waiting = VecDeque::new();
        while let Some(packet) = self.next_packet() {
            let pair = self.steer(&self.from_wire[0]);
            // What is behind another in its queue does not overtake.
            let placed = !full[pair] && self.place_frame(&packet, 2 * pair)?;
            let frames = self.from_wire.drain(..packet.count);
            if placed {
                drop(frames);
                self.merged += u64::from(packet.count > 1);
                self.next_header = None;
            } else {
                full[pair] = true;
                waiting.extend(frames);
            }
        }
        self.from_wire = waiting;
        Ok(())
    }

    /// Puts one packet into posted buffers (any of them, in any order); `false` when there are too few.
    fn place_frame(&mut self, of: &gro::Packet, queue: usize) -> Result<bool, DmaFault> {
        let frame = &of.bytes;
        let mergeable = self.has(F::MRG_RXBUF);
        let mut chains: Vec<Chain> = Vec::new();
        let mut room = 0;
        let header_len = self.header_len();
        while room < frame.len() + header_len {
            let held = &mut self.queues[queue].held;
            if held.is_empty() || (!mergeable && !chains.is_empty()) {
                self.queues[queue].held.append(&mut chains);
                return Ok(false);
            }
            let chain = held.swap_remove(self.rng.random_range(0..held.len()));
            room += chain.writable() as usize;
            chains.push(chain);
        }
        let mut packet = vec![0; header_len];
        packet[..10].copy_from_slice(&of.header);
        if self.header_noise && of.count == 1 {
            // All but gso_type, and flags that mean something.
            self.rng.fill(&mut packet[..10]);
            (packet[0], packet[1]) = (packet[0] & 0xf8, 0);
        }
        if let Some(header) = self.next_header {
            packet[..10].copy_from_slice(&header);
        }
        packet[10..12].copy_from_slice(&(chains.len() as u16).to_le_bytes());
        if let Some(hash) = packet.get_mut(12..20) {
            let (value, report) = self.hash_of(frame);
            hash[..4].copy_from_slice(&value.to_le_bytes());
            hash[4] = report;
        }
        packet.extend(frame);
        let mut rest = &packet[..];
        let mut batch = Vec::new();
        for chain in &chains {
            let mut len = 0;
            for segment in chain.segments.iter().filter(|s| s.write) {
                let (part, more) = rest.split_at(rest.len().min(segment.len as usize));
                self.settings.dma.device_write(segment.addr, part)?;
                len += part.len() as u32;
                rest = more;
            }
            batch.push(UsedElem {
                write: self.settings.used_write_flag,
                ..UsedElem::of(chain, len)
            });
        }
        self.misbehave(&mut batch, &chains)?;
        self.complete(queue, &batch)?;
        Ok(true)
    }

    fn misbehave(&mut self, batch: &mut [UsedElem], chains: &[Chain]) -> Result<(), DmaFault> {
        let Some(malice) = self.malice.take_if(|malice| !malice.is_for_transmit()) else {
            return Ok(());
        };
        let num_buffers = chains[0].segments[0].addr + 10;
        let claim = |n: u16| self.settings.dma.device_write(num_buffers, &n.to_le_bytes());
        match malice {
            Malice::UsedIdRange => batch[0].id = self.rng.random_range(self.queues[0].size..=u16::MAX),
            Malice::UsedLength => batch[0].len = chains[0].writable() + 1,
            Malice::ShortHeader => batch[0].len = self.header_len() as u32 - 1,
            Malice::NoBuffers => claim(0)?,
            Malice::TooManyBuffers => claim(self.queues[0].size + 1)?,
            Malice::MissingBuffer => claim(chains.len() as u16 + 1)?,
            Malice::UsedIdNotHead | Malice::UsedTwice | Malice::TxUsedLength => {}
        }
        Ok(())
    }

    pub(super) fn complete(&mut self, queue: usize, batch: &[UsedElem]) -> Result<(), DmaFault> {
        let event_idx = self.has(F::EVENT_IDX);
        if self.queues[queue].push_used(&self.settings.dma, batch, event_idx)? {
            self.raise(self.queues[queue].vector);
        }
        Ok(())
    }
}
