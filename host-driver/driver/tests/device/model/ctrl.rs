//! The control queue: notification coalescing, offloads on receive, receive filtering, several pairs of queues and
//! receive-side scaling (virtio 1.3, 5.1.6.5), and VIRTIO_NET_ERR for all else.

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

/// `struct virtio_net_rss_config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rss {
    pub types: u32,
    pub table: Vec<u16>,
    pub unclassified: u16,
    pub max_tx_vq: u16,
    pub key: Vec<u8>,
}

impl Rss {
    /// None for what is not well-formed.
    fn read(data: &[u8]) -> Option<Self> {
        let le16 = |at: usize| Some(u16::from_le_bytes(data.get(at..at + 2)?.try_into().ok()?));
        let entries = usize::from(le16(4)?) + 1;
        let end = 8 + 2 * entries;
        let key = data.get(end + 3..)?;
        (usize::from(*data.get(end + 2)?) == key.len()).then_some(())?;
        Some(Self {
            types: u32::from_le_bytes(data.get(..4)?.try_into().ok()?),
            table: (0..entries).map(|n| le16(8 + 2 * n)).collect::<Option<_>>()?,
            unclassified: le16(6)?,
            max_tx_vq: le16(end)?,
            key: key.to_vec(),
        })
    }
}

impl Model {
    /// Index of the control queue (5.1.2).
    pub(super) fn ctrl_queue(&self) -> usize {
        if self.has(F::MQ) || self.has(F::RSS) {
            2 * self.settings.pairs
        } else {
            2
        }
    }

    /// The pair whose receive queue gets a frame: told apart by the number that it begins with.
    pub(super) fn steer(&self, frame: &[u8]) -> usize {
        let n = usize::from(frame.first().copied().unwrap_or_default());
        match &self.rss {
            Some(rss) => usize::from(rss.table[n % rss.table.len()]),
            None => n % self.channels,
        }
    }

    /// What the header says of a frame's hash, and of what it is: nothing until the driver says what is to be hashed.
    /// Odd frames are of no kind that is.
    pub fn hash_of(&self, frame: &[u8]) -> (u32, u8) {
        let stamp = frame.first_chunk().copied().map_or(0, u32::from_le_bytes);
        match self.hash_types {
            0 => (0, 0),
            _ if stamp % 2 != 0 => (0, 0),
            types => (stamp.wrapping_mul(0x9e37_79b9), types.trailing_zeros() as u8 + 1),
        }
    }

    /// `struct virtio_net_hash_config`.
    fn set_hash_config(&mut self, data: &[u8]) -> bool {
        let Some((types, rest)) = data.split_first_chunk() else {
            return false;
        };
        let types = u32::from_le_bytes(*types);
        // Of the device's own hash types, and a key of its length.
        let good = self.has(F::HASH_REPORT)
            && types & !0x3f == 0
            && rest.len() == 8 + 1 + 40
            && rest[..8] == [0; 8]
            && rest[8] == 40;
        if !good {
            self.violations
                .push(format!("a bad command for hash reports: {data:?}"));
            return false;
        }
        self.hash_types = types;
        true
    }

    fn set_rss(&mut self, data: &[u8]) -> bool {
        let Some(rss) = Rss::read(data) else {
            self.violations.push("a malformed command for RSS".into());
            return false;
        };
        let pairs = self.settings.pairs as u16;
        let enabled = |pair: &u16| *pair < pairs && self.queues[2 * usize::from(*pair)].enabled;
        // 5.1.6.5.7.2.
        if !rss.table.iter().all(enabled)
            || !rss.table.len().is_power_of_two()
            || rss.table.len() > 128
            || rss.types & !0x3f != 0
        {
            self.violations.push(format!("a bad command for RSS: {rss:?}"));
            return false;
        }
        self.hash_types = rss.types;
        self.rss = Some(rss);
        true
    }

    /// Carries out what is in the ring; the driver waits for it.
    pub(super) fn control(&mut self) {
        let dma = self.settings.dma.clone();
        let ctrl = self.ctrl_queue();
        if let Err(fault) = self.queues[ctrl].fetch(&dma, &mut self.violations) {
            self.violations.push(format!("{fault}"));
        }
        if self.mute {
            return;
        }
        for chain in std::mem::take(&mut self.queues[ctrl].held) {
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
            // Of statistics it may have more than the driver knows of (5.1.9.5.11.12).
            if !rest.is_empty() && command.first() != Some(&8) {
                self.violations
                    .push(format!("no room for {} bytes of a reply", rest.len()));
            }
            let written = reply.len() - rest.len();
            if let Err(fault) = self.complete(ctrl, &[UsedElem::of(&chain, written as u32)]) {
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
                for queue in (1 - usize::from(*to)..self.queues.len() - 1).step_by(2) {
                    self.coalesce[queue] = (word(2), word(6));
                }
                vec![OK]
            }
            ([4, 0, pairs, 0], _) if self.has(F::MQ) => {
                // 5.1.6.5.6.1.
                let pairs = usize::from(*pairs);
                let ready = self.queues.iter().take(2 * pairs).all(|queue| queue.enabled);
                if !(1..=self.settings.pairs).contains(&pairs) || !ready {
                    self.violations.push(format!("{pairs} pairs asked for"));
                    return vec![ERR];
                }
                (self.channels, self.rss) = (pairs, None);
                vec![OK]
            }
            ([4, 1, data @ ..], _) => {
                // 5.1.6.5.7.2.
                if !self.has(F::RSS) {
                    self.violations.push("a command for RSS without it".into());
                }
                vec![if self.set_rss(data) { OK } else { ERR }]
            }
            ([4, 2, data @ ..], _) => vec![if self.set_hash_config(data) { OK } else { ERR }],
            ([6, 2, queue, 0, ..], 14) if each && usize::from(*queue) < self.queues.len() - 1 => {
                self.coalesce[usize::from(*queue)] = (word(6), word(10));
                vec![OK]
            }
            ([6, 3, queue, 0, ..], 6) if each && usize::from(*queue) < self.queues.len() - 1 => {
                let (packets, usecs) = self.coalesce[usize::from(*queue)];
                let mut reply = packets.to_le_bytes().to_vec();
                reply.extend(usecs.to_le_bytes());
                reply.push(OK);
                reply
            }
            ([8, 0], _) if self.has(F::DEVICE_STATS) => self.query_stats(),
            ([8, 1, data @ ..], _) if self.has(F::DEVICE_STATS) => self.get_stats(data),
            ([8, ..], _) => {
                self.violations
                    .push("a command for statistics without them".into());
                vec![ERR]
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
