//! `struct virtio_net_rss_config` (virtio 1.3 section 5.1.6.5.7), whatever it says.

/// `VIRTIO_NET_CTRL_MQ`.
const MQ: u8 = 4;
/// `VIRTIO_NET_CTRL_MQ_RSS_CONFIG`.
const RSS_CONFIG: u8 = 1;

/// The fields, in their order.
#[derive(Clone, Debug)]
pub struct RssConfig {
    /// `hash_types`.
    pub types: u32,
    /// `indirection_table_mask`: entries less one.
    pub mask: u16,
    /// `unclassified_queue`.
    pub unclassified: u16,
    /// `indirection_table`.
    pub table: Vec<u16>,
    /// `max_tx_vq`.
    pub max_tx: u16,
    /// `hash_key_data`.
    pub key: Vec<u8>,
}

impl RssConfig {
    /// The command that sets it: class, command, structure.
    #[must_use]
    pub fn command(&self) -> Vec<u8> {
        let mut bytes = vec![MQ, RSS_CONFIG];
        bytes.extend(self.types.to_le_bytes());
        let words = [self.mask, self.unclassified];
        for word in words.iter().chain(&self.table).chain([&self.max_tx]) {
            bytes.extend(word.to_le_bytes());
        }
        bytes.push(self.key.len() as u8);
        bytes.extend(&self.key);
        bytes
    }
}
