//! What the device counts for each of its queues (virtio 1.4, 5.1.9.5.11; `virtnet_get_hw_stats`).

use hematite_bus::PciFunction;
use virtio_spec::net::F as VirtioFeatures;

use crate::error::Error;
use crate::net::{RX_QUEUE, TX_QUEUE, VirtioNet};

/// `VIRTIO_NET_CTRL_STATS` and its commands.
mod stats {
    pub const CLASS: u8 = 8;
    pub const QUERY: u8 = 0;
    pub const GET: u8 = 1;
}

/// Bytes of `struct virtio_net_stats_reply_hdr`.
const HEADER: usize = 8;
/// The longest reply that is asked for.
const MAX_REPLY: usize = 1 << 16;

/// A queue that the device counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatsQueue {
    /// The receive queue of a pair.
    Rx(usize),
    /// The transmit queue of a pair.
    Tx(usize),
    /// The control queue.
    Control,
}

impl std::fmt::Display for StatsQueue {
    /// As `ethtool -S` begins its counters' names.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rx(pair) => write!(f, "rx{pair}"),
            Self::Tx(pair) => write!(f, "tx{pair}"),
            Self::Control => f.write_str("cq"),
        }
    }
}

/// A type of statistics: what of it the device counts, in its structure's order, by Linux's names.
struct Kind {
    /// Its bit in bitmaps, and `type` of its replies: those of receive queues are below 16, of transmit queues below 32.
    number: u8,
    /// It needs one of these.
    needs: VirtioFeatures,
    fields: &'static [&'static str],
}

const fn kind(number: u8, needs: VirtioFeatures, fields: &'static [&'static str]) -> Kind {
    Kind {
        number,
        needs,
        fields,
    }
}

const KINDS: [Kind; 9] = [
    kind(
        0,
        VirtioFeatures::DEVICE_STATS,
        &[
            "notifications",
            "packets",
            "bytes",
            "interrupts",
            "drops",
            "drop_overruns",
        ],
    ),
    kind(
        1,
        VirtioFeatures::GUEST_CSUM,
        &["csum_valid", "needs_csum", "csum_none", "csum_bad"],
    ),
    kind(
        2,
        VirtioFeatures::GUEST_TSO4.union(VirtioFeatures::GUEST_TSO6),
        &[
            "gso_packets",
            "gso_bytes",
            "gso_packets_coalesced",
            "gso_bytes_coalesced",
        ],
    ),
    kind(
        3,
        VirtioFeatures::DEVICE_STATS,
        &["ratelimit_packets", "ratelimit_bytes"],
    ),
    kind(
        16,
        VirtioFeatures::DEVICE_STATS,
        &[
            "notifications",
            "packets",
            "bytes",
            "interrupts",
            "drops",
            "drop_malformed",
        ],
    ),
    kind(17, VirtioFeatures::CSUM, &["csum_none", "needs_csum"]),
    kind(
        18,
        VirtioFeatures::HOST_TSO4.union(VirtioFeatures::HOST_TSO6),
        &[
            "gso_packets",
            "gso_bytes",
            "gso_segments",
            "gso_segments_bytes",
            "gso_packets_noseg",
            "gso_bytes_noseg",
        ],
    ),
    kind(
        19,
        VirtioFeatures::DEVICE_STATS,
        &["ratelimit_packets", "ratelimit_bytes"],
    ),
    kind(32, VirtioFeatures::DEVICE_STATS, &["command_num", "ok_num"]),
];

impl Kind {
    fn is_of(&self, queue: StatsQueue) -> bool {
        match queue {
            StatsQueue::Rx(_) => self.number < 16,
            StatsQueue::Tx(_) => (16..32).contains(&self.number),
            StatsQueue::Control => self.number == 32,
        }
    }

    /// Bytes of its structure.
    fn len(&self) -> usize {
        HEADER + 8 * self.fields.len()
    }
}

/// The statistics of one queue and one type, in the device's words.
struct Asked {
    queue: StatsQueue,
    index: u16,
    kind: &'static Kind,
}

/// A snapshot of the device's counters. They count from the device's last reset and wrap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceStats {
    counters: Vec<(StatsQueue, &'static str, u64)>,
}

impl DeviceStats {
    /// A counter by its queue and Linux's name for it without prefix: `packets`, `gso_segments`, `command_num`. `None`
    /// for one that the device doesn't have.
    pub fn get(&self, queue: StatsQueue, name: &str) -> Option<u64> {
        let found = self
            .counters
            .iter()
            .find(|(of, field, _)| (*of, *field) == (queue, name));
        found.map(|(.., value)| *value)
    }

    /// Names, as `ethtool -S` shows them (`rx0_hw_packets`), and values.
    pub fn iter(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        self.counters
            .iter()
            .map(|(queue, name, value)| (format!("{queue}_hw_{name}"), *value))
    }
}

impl<F: PciFunction> VirtioNet<F> {
    /// Asks the device what it counted for each queue; `None` for a device without `DEVICE_STATS`. Of types of statistics
    /// that this driver doesn't know, and those whose feature is not negotiated, nothing is asked.
    ///
    /// # Errors
    /// [`Error::Statistics`] for a reply that makes no sense and [`Error::ControlRefused`], which change nothing; any
    /// other failure stops the device.
    pub fn device_stats(&mut self) -> Result<Option<DeviceStats>, Error> {
        if !self.features.contains(VirtioFeatures::DEVICE_STATS) {
            return Ok(None);
        }
        let mut supported = [0; 8];
        let told = self.query_command(stats::CLASS, stats::QUERY, &[], &mut supported)?;
        if told != supported.len() {
            return Err(Error::Statistics("its list of types is too short"));
        }
        let asked = self.stats_asked(u64::from_le_bytes(supported));
        let mut command = Vec::new();
        let mut queues: Vec<u16> = asked.iter().map(|asked| asked.index).collect();
        queues.dedup();
        for index in queues {
            let kinds = asked.iter().filter(|asked| asked.index == index);
            let bitmap = kinds.fold(0u64, |bitmap, asked| bitmap | 1 << asked.kind.number);
            command.extend(index.to_le_bytes());
            command.extend([0; 6]);
            command.extend(bitmap.to_le_bytes());
        }
        if asked.is_empty() {
            return Ok(Some(DeviceStats::default()));
        }
        // A device of later days may tell more of each.
        let mut room = asked.iter().map(|asked| asked.kind.len()).sum();
        loop {
            let mut reply = vec![0; room];
            let told = self.query_command(stats::CLASS, stats::GET, &command, &mut reply)?;
            match parse(&asked, &reply[..told]) {
                Err(Error::Statistics(_)) if told == room && 2 * room <= MAX_REPLY => room *= 2,
                result => return result.map(Some),
            }
        }
    }

    /// What is asked of a device that supports these types, queue by queue.
    fn stats_asked(&self, supported: u64) -> Vec<Asked> {
        let pairs = (0..self.info.pairs).flat_map(|pair| {
            let at = 2 * pair as u16;
            [
                (StatsQueue::Rx(pair), RX_QUEUE + at),
                (StatsQueue::Tx(pair), TX_QUEUE + at),
            ]
        });
        let queues = pairs.chain([(StatsQueue::Control, self.info.ctrl_queue)]);
        queues
            .flat_map(|(queue, index)| {
                KINDS
                    .iter()
                    .filter(move |kind| kind.is_of(queue))
                    .map(move |kind| Asked { queue, index, kind })
            })
            .filter(|asked| supported >> asked.kind.number & 1 != 0)
            .filter(|asked| self.features.intersects(asked.kind.needs))
            .collect()
    }
}

/// Takes a reply apart: all that was asked for, each once, in any order, and of each at least what is known.
fn parse(asked: &[Asked], mut reply: &[u8]) -> Result<DeviceStats, Error> {
    let mut answers: Vec<Option<&[u8]>> = vec![None; asked.len()];
    while !reply.is_empty() {
        // u8 type, u8 reserved, le16 vq_index, le16 reserved1, le16 size.
        let Some(&[number, _, q0, q1, _, _, s0, s1]) = reply.first_chunk::<HEADER>() else {
            return Err(Error::Statistics("a header is cut off"));
        };
        let (index, size) = (u16::from_le_bytes([q0, q1]), u16::from_le_bytes([s0, s1]));
        let Some((whole, rest)) = reply.split_at_checked(size.into()) else {
            return Err(Error::Statistics("a structure is cut off"));
        };
        let at = asked
            .iter()
            .position(|asked| (asked.index, asked.kind.number) == (index, number))
            .ok_or(Error::Statistics("it tells what was not asked for"))?;
        if whole.len() < asked[at].kind.len() {
            return Err(Error::Statistics("a structure is too short"));
        }
        if answers[at].replace(&whole[HEADER..]).is_some() {
            return Err(Error::Statistics("it tells something twice"));
        }
        reply = rest;
    }
    let mut counters = Vec::new();
    for (asked, answer) in asked.iter().zip(answers) {
        let answer = answer.ok_or(Error::Statistics("it does not tell all that was asked for"))?;
        for (name, value) in asked.kind.fields.iter().zip(answer.as_chunks().0) {
            counters.push((asked.queue, *name, u64::from_le_bytes(*value)));
        }
    }
    Ok(DeviceStats { counters })
}
