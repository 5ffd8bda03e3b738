//! Several pairs of queues: how many are used (`ethtool -l`, `-L`), and which frames go where (`-x`, `-X`; virtio 1.3,
//! 5.1.6.5.6 and 5.1.6.5.7).

use hematite_bus::PciFunction;
use virtio_spec::net::F as VirtioFeatures;

use crate::error::Error;
use crate::net::{State, VirtioNet};

/// `VIRTIO_NET_CTRL_MQ` and its commands.
mod mq {
    pub const CLASS: u8 = 4;
    pub const VQ_PAIRS_SET: u8 = 0;
    pub const RSS_CONFIG: u8 = 1;
    pub const HASH_CONFIG: u8 = 2;
}

/// What a device can do with `RSS` and `HASH_REPORT`; all zeros without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RssLimits {
    /// Bytes of the longest key.
    pub(crate) key: usize,
    /// Entries of the longest table.
    pub(crate) table: usize,
    /// `VIRTIO_NET_HASH_TYPE_*`.
    pub(crate) types: u32,
}

/// A hash key for who has none of his own: that of Microsoft's specification of receive-side scaling.
pub const DEFAULT_HASH_KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
    0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
    0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// What a device takes for receive-side scaling (`get_rxfh_key_size`, `get_rxfh_indir_size`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RxfhSizes {
    /// Bytes of a key: so many, no fewer.
    pub key: usize,
    /// Entries of the longest table.
    pub table: usize,
    /// All hash types that there are: bits of `VIRTIO_NET_HASH_TYPE_*`.
    pub types: u32,
}

/// Pairs of queues, `struct ethtool_channels`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channels {
    /// That the device has.
    pub max_combined: usize,
    /// In use.
    pub combined: usize,
}

/// Receive-side scaling, `struct ethtool_rxfh`: a hash of each frame, whose lowest bits choose an entry of the table, whose
/// content is the receive queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RxFlowHash {
    /// What is hashed: bits of `VIRTIO_NET_HASH_TYPE_*` (5.1.6.4.3.1).
    pub types: u32,
    /// The key of the Toeplitz hash.
    pub key: Vec<u8>,
    /// Receive queues; a power of two of them.
    pub table: Vec<u16>,
    /// The receive queue of frames that are not hashed.
    pub unclassified: u16,
}

impl<F: PciFunction> VirtioNet<F> {
    /// Pairs of queues (`ethtool -l`).
    pub fn channels(&self) -> Channels {
        Channels {
            max_combined: self.info.pairs,
            combined: self.channels,
        }
    }

    /// Changes how many pairs of queues are used (`ethtool -L combined`, `virtnet_set_queues`). The device chooses among
    /// them by itself again, whatever [`set_rxfh`](Self::set_rxfh) said.
    ///
    /// # Errors
    /// [`Error::NotSupported`] for none, for more than the device has, or without `MQ`; [`Error::State`] after a
    /// failure; else as [`set_coalesce`](Self::set_coalesce).
    pub fn set_channels(&mut self, combined: usize) -> Result<(), Error> {
        if matches!(self.state, State::Failed(_)) {
            return Err(Error::State("failed"));
        }
        if !self.features.contains(VirtioFeatures::MQ) {
            return Err(Error::NotSupported("another number of queues"));
        }
        if !(1..=self.info.pairs).contains(&combined) {
            return Err(Error::NotSupported("that number of queues"));
        }
        self.fill_channels(combined)?;
        let [low, high] = (combined as u16).to_le_bytes();
        self.command(mq::CLASS, mq::VQ_PAIRS_SET, &[low, high], &mut [])?;
        self.channels = combined;
        self.options.channels = Some(combined);
        self.rxfh = None;
        self.set_hash_config()
    }

    /// Has the device hash whatever it can, for what it tells of packets while it spreads them by itself (5.1.6.5.6.4).
    fn set_hash_config(&mut self) -> Result<(), Error> {
        if !self.features.contains(VirtioFeatures::HASH_REPORT) {
            return Ok(());
        }
        let limits = self.info.rss;
        // struct virtio_net_hash_config, its `reserved` in the middle. A key of any length that the device takes.
        let len = limits.key.min(u8::MAX.into());
        let key = DEFAULT_HASH_KEY.iter().copied().cycle().take(len);
        let mut data = limits.types.to_le_bytes().to_vec();
        data.extend([0; 8]);
        data.push(len as u8);
        data.extend(key);
        self.command(mq::CLASS, mq::HASH_CONFIG, &data, &mut [])
    }

    /// Receive-side scaling as it was set (`ethtool -x`); none while the device spreads frames by itself.
    pub fn rxfh(&self) -> Option<&RxFlowHash> {
        self.rxfh.as_ref()
    }

    /// What [`set_rxfh`](Self::set_rxfh) may say; none without `RSS`.
    pub fn rxfh_sizes(&self) -> Option<RxfhSizes> {
        let RssLimits { key, table, types } = self.info.rss;
        self.features
            .contains(VirtioFeatures::RSS)
            .then_some(RxfhSizes { key, table, types })
    }

    /// Says which frames go to which receive queue (`ethtool -X`, `virtnet_commit_rss_command`), until
    /// [`set_channels`](Self::set_channels).
    ///
    /// # Errors
    /// [`Error::NotSupported`] without `RSS`, and for what the device can't do: a key or a table of that length, hash
    /// types, or queues that are not in use; [`Error::State`] after a failure; else as
    /// [`set_coalesce`](Self::set_coalesce).
    pub fn set_rxfh(&mut self, rxfh: RxFlowHash) -> Result<(), Error> {
        if matches!(self.state, State::Failed(_)) {
            return Err(Error::State("failed"));
        }
        let limits = self.info.rss;
        let used = |queue: &u16| usize::from(*queue) < self.channels;
        if !self.features.contains(VirtioFeatures::RSS) {
            return Err(Error::NotSupported("receive-side scaling"));
        }
        if rxfh.key.len() != limits.key || rxfh.key.len() > usize::from(u8::MAX) {
            return Err(Error::NotSupported("a hash key of that length"));
        }
        if !rxfh.table.len().is_power_of_two() || rxfh.table.len() > limits.table {
            return Err(Error::NotSupported("an indirection table of that length"));
        }
        if rxfh.types & !limits.types != 0 {
            return Err(Error::NotSupported("a hash of that type"));
        }
        if !rxfh.table.iter().chain([&rxfh.unclassified]).all(used) {
            return Err(Error::NotSupported("a receive queue that is not in use"));
        }
        // struct virtio_net_rss_config.
        let mut data = rxfh.types.to_le_bytes().to_vec();
        data.extend((rxfh.table.len() as u16 - 1).to_le_bytes());
        data.extend(rxfh.unclassified.to_le_bytes());
        data.extend(rxfh.table.iter().flat_map(|queue| queue.to_le_bytes()));
        data.extend((self.channels as u16).to_le_bytes());
        data.push(rxfh.key.len() as u8);
        data.extend(&rxfh.key);
        self.command(mq::CLASS, mq::RSS_CONFIG, &data, &mut [])?;
        self.rxfh = Some(rxfh);
        Ok(())
    }

    /// Tells a device that was just initialised what it has forgotten.
    pub(crate) fn restore_channels(&mut self) -> Result<(), Error> {
        let wanted = self.options.channels.unwrap_or(self.options.cpus);
        let rxfh = self.rxfh.take();
        // A device uses one pair until it is told otherwise.
        self.channels = 1;
        if self.features.contains(VirtioFeatures::MQ) {
            let wanted = wanted.clamp(1, self.info.pairs);
            if wanted > 1 {
                let [low, high] = (wanted as u16).to_le_bytes();
                self.command(mq::CLASS, mq::VQ_PAIRS_SET, &[low, high], &mut [])?;
                self.channels = wanted;
            }
        }
        match rxfh.filter(|_| self.features.contains(VirtioFeatures::RSS)) {
            Some(rxfh) => self.set_rxfh(rxfh),
            None => self.set_hash_config(),
        }
    }

    /// Posts buffers to the receive queues that come into use.
    fn fill_channels(&mut self, combined: usize) -> Result<(), Error> {
        let len = self.rx_buffer_len();
        if self.state != State::Up {
            return Ok(());
        }
        let Some(queues) = &mut self.queues else {
            return Ok(());
        };
        let mut filled = Ok(());
        for pair in queues.pairs.iter_mut().take(combined).skip(self.channels) {
            filled = filled.and_then(|()| pair.rx.fill(&mut self.transport, len));
        }
        filled.map_err(|error| self.fail(error))
    }
}
