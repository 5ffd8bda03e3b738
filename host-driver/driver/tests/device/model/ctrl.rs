//! The control queue: notification coalescing, offloads on receive, receive filtering (virtio 1.3, 5.1.6.5), and
//! VIRTIO_NET_ERR for all else.

use std::collections::BTreeSet;

use virtio_spec::net::F;

use super::Model;
use super::ring::UsedElem;

const OK: u8 = 0;
const ERR: u8 = 1;

/// Which frames come in. After a reset everything does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub promisc: bool,
    pub allmulti: bool,
    pub unicast: Vec<[u8; 6]>,
    pub multicast: Vec<[u8; 6]>,
    pub vlans: BTreeSet<u16>,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            promisc: true,
            allmulti: false,
            unicast: vec![],
            multicast: vec![],
            vlans: BTreeSet::new(),
        }
    }
}

/// A `struct virtio_net_ctrl_mac`, and what is behind it.
fn address_list(bytes: &[u8]) -> Option<(Vec<[u8; 6]>, &[u8])> {
    let (count, rest) = bytes.split_first_chunk()?;
    let len = usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(6)?;
    let (list, rest) = rest.split_at_checked(len)?;
    Some((list.as_chunks().0.to_vec(), rest))
}

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
            _ => vec![self.filter_command(command).map_or(ERR, |()| OK)],
        }
    }

    fn filter_command(&mut self, command: &[u8]) -> Option<()> {
        self.filter_commands.push(command.to_vec());
        match *command {
            [0, mode @ (0 | 1), on @ (0 | 1)] if self.has(F::CTRL_RX) => match mode {
                0 => self.filter.promisc = on == 1,
                _ => self.filter.allmulti = on == 1,
            },
            [1, 0, ref lists @ ..] if self.has(F::CTRL_RX) && !self.small_table => {
                let (unicast, rest) = address_list(lists)?;
                let (multicast, rest) = address_list(rest)?;
                rest.is_empty().then_some(())?;
                (self.filter.unicast, self.filter.multicast) = (unicast, multicast);
            }
            [1, 1, ref mac @ ..] if self.has(F::CTRL_MAC_ADDR) => self.mac = mac.try_into().ok()?,
            [2, 0, low, high] if self.has(F::CTRL_VLAN) => {
                self.filter.vlans.insert(u16::from_le_bytes([low, high]));
            }
            [2, 1, low, high] if self.has(F::CTRL_VLAN) => {
                self.filter.vlans.remove(&u16::from_le_bytes([low, high]));
            }
            [3, 0] if self.has(F::GUEST_ANNOUNCE) => self.announce = false,
            _ => return None,
        }
        Some(())
    }

    /// Whether a frame from the wire passes.
    pub(super) fn wants(&self, frame: &[u8]) -> bool {
        let (Some(to), filter) = (frame.first_chunk::<6>(), &self.filter) else {
            return true;
        };
        let listed = filter.unicast.contains(to) || filter.multicast.contains(to);
        let address = *to == self.mac || *to == [0xff; 6] || listed || filter.allmulti && to[0] & 1 != 0;
        let vlan = match *frame {
            [_, _, _, _, _, _, _, _, _, _, _, _, 0x81, 0, high, low, ..] if self.has(F::CTRL_VLAN) => {
                filter.vlans.contains(&(u16::from_be_bytes([high, low]) & 0xfff))
            }
            _ => true,
        };
        filter.promisc || address && vlan
    }
}
