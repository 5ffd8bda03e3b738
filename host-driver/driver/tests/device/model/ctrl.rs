//! The control queue: notification coalescing and offloads on receive (virtio 1.3, 5.1.6.5), and VIRTIO_NET_ERR for all
//! else.

use virtio_spec::net::F;

use super::Model;
use super::ring::UsedElem;

const OK: u8 = 0;
const ERR: u8 = 1;

impl Model {
    /// Carries out what is in the ring; the driver waits for it.
    pub(super) fn control(&mut self) {
        let dma = self.settings.dma.clone();
        if let Err(fault) = self.queues[2].fetch(&dma, &mut self.violations) {
            self.violations.push(format!("{fault}"));
        }
        if self.mute {
            return;
        }
        for chain in std::mem::take(&mut self.queues[2].held) {
            let mut command = vec![];
            for segment in chain.segments.iter().filter(|s| !s.write) {
                let mut part = vec![0; segment.len as usize];
                if let Err(fault) = dma.device_read(segment.addr, &mut part) {
                    self.violations.push(format!("{fault}"));
                }
                command.extend(part);
            }
            let reply = self.carry_out(&command);
            let mut rest = &reply[..];
            for segment in chain.segments.iter().filter(|s| s.write) {
                let (part, more) = rest.split_at(rest.len().min(segment.len as usize));
                if let Err(fault) = dma.device_write(segment.addr, part) {
                    self.violations.push(format!("{fault}"));
                }
                rest = more;
            }
            if !rest.is_empty() {
                self.violations
                    .push(format!("no room for {} bytes of a reply", rest.len()));
            }
            if let Err(fault) = self.complete(2, &[UsedElem::of(&chain, reply.len() as u32)]) {
                self.violations.push(format!("{fault}"));
            }
        }
    }

    fn carry_out(&mut self, command: &[u8]) -> Vec<u8> {
        let word = |at: usize| -> u32 {
            let bytes = command.get(at..at + 4).and_then(|b| b.try_into().ok());
            u32::from_le_bytes(bytes.unwrap_or([0xff; 4]))
        };
        let (all, each) = (self.has(F::NOTF_COAL), self.has(F::VQ_NOTF_COAL));
        match (command, command.len()) {
            ([6, 3, ..], _) if self.refuse => vec![0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, ERR],
            _ if self.refuse => vec![ERR],
            ([5, 0, ..], 10) if self.has(F::CTRL_GUEST_OFFLOADS) => {
                let offloads = u64::from(word(2)) | u64::from(word(6)) << 32;
                if offloads & !self.negotiated_offloads() != 0 {
                    // 5.1.6.5.9.1.
                    self.violations
                        .push(format!("offloads {offloads:#x} that were not negotiated"));
                    return vec![ERR];
                }
                self.offloads = Some(offloads);
                vec![OK]
            }
            ([6, to @ (0 | 1), ..], 10) if all => {
                self.coalesce[1 - usize::from(*to)] = (word(2), word(6));
                vec![OK]
            }
            ([6, 2, queue @ (0 | 1), 0, ..], 14) if each => {
                self.coalesce[usize::from(*queue)] = (word(6), word(10));
                vec![OK]
            }
            ([6, 3, queue @ (0 | 1), 0, ..], 6) if each => {
                let (packets, usecs) = self.coalesce[usize::from(*queue)];
                let mut reply = packets.to_le_bytes().to_vec();
                reply.extend(usecs.to_le_bytes());
                reply.push(OK);
                reply
            }
            ([6, 3, ..], _) => vec![0, 0, 0, 0, 0, 0, 0, 0, ERR],
            _ => vec![ERR],
        }
    }
}
