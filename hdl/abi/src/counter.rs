//! The event counters: one table for the RTL, the driver, the register report and the simulation.

/// One counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Its name, as `ethtool -S` shows it.
    pub name: &'static str,
    /// What it counts.
    pub meaning: &'static str,
}

macro_rules! counters {
    ($($constant:ident $name:literal $meaning:literal,)+) => {
        #[expect(non_camel_case_types)]
        enum Index { $($constant,)+ End }
        $(
            #[doc = concat!("Index of `", $name, "`: ", $meaning, ".")]
            pub const $constant: usize = Index::$constant as usize;
        )+
        /// Number of counters.
        pub const COUNT: usize = Index::End as usize;
        /// All counters; a counter's place is its index.
        pub const ALL: [Counter; COUNT] = [$(Counter { name: $name, meaning: $meaning },)+];
    };
}

counters! {
    RX_GOOD "rx_good" "frames received without error",
    RX_BAD_FCS "rx_bad_fcs" "frames dropped for a wrong frame check sequence",
    RX_RUNT "rx_runt" "frames dropped because they were shorter than 64 bytes",
    RX_OVERSIZE "rx_oversize" "frames dropped because they were longer than the MAC takes",
    RX_SYMBOL_ERROR "rx_symbol_error" "frames dropped because the PHY reported an error in them",
    RX_MISSED "rx_missed" "frames dropped because the receive FIFO was full",
    RX_NO_BUFFER "rx_no_buffer" "frames that had to wait because the driver had posted no buffer",
    RX_DROPPED_TOO_LONG "rx_dropped_too_long" "frames dropped because they did not fit the posted buffers",
    RX_DELIVERED "rx_delivered" "frames written to host memory",
    TX_GOOD "tx_good" "frames sent",
    TX_DISCARDED "tx_discarded" "frames dropped before the wire, for a failed read or a bad length",
    TX_UNDERRUN "tx_underrun" "frames cut short on the wire because data came too late",
    TX_BAD_CHAIN "tx_bad_chain" "transmit descriptor chains refused",
    TX_BAD_OFFLOAD "tx_bad_offload" "packets dropped because the checksum or segmentation asked for is impossible",
    TX_CSUM "tx_csum" "frames sent whose checksum the card filled in, segments not counted",
    TX_TSO_PACKETS "tx_tso_packets" "TCP packets that the card cut into segments",
    TX_TSO_SEGMENTS "tx_tso_segments" "segments sent of them",
    DMA_READ_UR "dma_read_ur" "read completions with status Unsupported Request",
    DMA_READ_CA "dma_read_ca" "read completions with status Completer Abort or a reserved status",
    DMA_READ_POISONED "dma_read_poisoned" "poisoned read completions",
    DMA_READ_TIMEOUT "dma_read_timeout" "reads that the host never completed",
    DMA_UNEXPECTED_COMPLETION "dma_unexpected_completion" "completions that no outstanding read asked for",
    DMA_MALFORMED "dma_malformed" "completions whose length or address does not fit their read",
    DMA_WRITE_MISMATCH "dma_write_mismatch" "writes whose data was not as long as announced",
    QUEUE_FAILED "queue_failed" "virtqueue errors that need a device reset",
    TLP_NULLIFIED "tlp_nullified" "TLPs dropped because the link marked them bad",
    TLP_MALFORMED "tlp_malformed" "TLPs dropped because their length is wrong or more than Max_Payload_Size",
    TLP_POISONED "tlp_poisoned" "requests other than memory writes refused because they were poisoned",
    TLP_UNSUPPORTED "tlp_unsupported" "requests answered with Unsupported Request",
    DOORBELL_ABSENT_QUEUE "doorbell_absent_queue" "doorbells of queues that are absent or not enabled",
    IRQ_SENT "irq_sent" "MSI-X messages sent",
    IRQ_MASKED "irq_masked" "interrupts held back by a mask",
    IRQ_DROPPED "irq_dropped" "interrupts without a vector",
    FUNCTION_RESET "function_reset" "function-level and power-state resets",
    WRITE_POISONED "write_poisoned" "memory writes dropped because they were poisoned",
    CONTROL_REFUSED "control_refused" "control commands answered with VIRTIO_NET_ERR",
    WRITE_UNSUPPORTED "write_unsupported" "memory writes dropped because they missed BAR 0 or it was not enabled",
    RX_FILTERED_ADDRESS "rx_filtered_address" "frames dropped because their destination address is not wanted",
    RX_FILTERED_VLAN "rx_filtered_vlan" "frames dropped because their VLAN is not wanted",
    RX_CSUM_GOOD "rx_csum_good" "frames whose IP and TCP or UDP checksums were verified and right",
    RX_CSUM_BAD "rx_csum_bad" "frames with a wrong IP, TCP or UDP checksum, delivered all the same",
    RX_CSUM_UNKNOWN "rx_csum_unknown" "frames without a checksum that the card could verify",
    RX_STOPPED "rx_stopped" "good frames dropped because the receive queue did not run",
    RX_RESET "rx_reset" "good frames dropped by a reset, and frames of any kind that were on the wire during it",
    RX_PAUSE "rx_pause" "PAUSE frames obeyed",
    TX_PAUSE "tx_pause" "PAUSE frames sent",
    RX_STARVED "rx_starved" "good frames dropped because their receive queue had no buffer while others were in use",
    RX_GRO_PACKETS "rx_gro_packets" "packets written to host memory that the card made of several frames",
    RX_GRO_JOINED "rx_gro_joined" "frames that joined the packet of one before them",
    RX_GRO_FLUSH_IDLE "rx_gro_flush_idle" "packets closed to further frames because none came for a while, or merging was switched off",
    RX_GRO_FLUSH_TIMEOUT "rx_gro_flush_timeout" "packets closed because nothing joined for too long",
    RX_GRO_FLUSH_ORDER "rx_gro_flush_order" "packets closed because a frame of their flow, or of any flow, did not join",
    RX_GRO_FLUSH_END "rx_gro_flush_end" "packets closed by a segment with PSH or FIN or less payload",
    RX_GRO_FLUSH_FULL "rx_gro_flush_full" "packets closed because their buffers take no more",
    RX_GRO_FLUSH_OLDEST "rx_gro_flush_oldest" "packets closed for a ninth flow",
    RX_GRO_FLUSH_QUEUE "rx_gro_flush_queue" "packets closed because their queue stopped or needed the buffers",
}

/// What can become of a frame on the wire: each is counted by exactly one of these, once it has met its end.
pub const RX_ENDS: [usize; 13] = [
    RX_BAD_FCS,
    RX_RUNT,
    RX_OVERSIZE,
    RX_SYMBOL_ERROR,
    RX_MISSED,
    RX_FILTERED_ADDRESS,
    RX_FILTERED_VLAN,
    RX_DROPPED_TOO_LONG,
    RX_STOPPED,
    RX_STARVED,
    RX_RESET,
    RX_PAUSE,
    RX_DELIVERED,
];

/// The index of the counter called `name`.
#[must_use]
pub fn index(name: &str) -> Option<usize> {
    ALL.iter().position(|counter| counter.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_indices_match() {
        for (n, counter) in ALL.iter().enumerate() {
            assert_eq!(index(counter.name), Some(n));
        }
        assert_eq!(ALL[IRQ_SENT].name, "irq_sent");
    }
}
