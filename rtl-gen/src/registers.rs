//! What software sees of the card: the windows of BAR 0.

use hematite_abi::{bar0, counter, vendor};

use crate::{Field, RegisterBlock};

/// Fields of a structure without gaps, from their sizes: `(bytes, name, access, meaning)`.
fn packed(fields: &[(u32, &str, &'static str, &str)]) -> Vec<Field> {
    let mut offset = 0;
    let place = |&(size, name, access, meaning): &(u32, &str, &'static str, &str)| {
        let field = Field {
            offset,
            size,
            name: name.into(),
            access,
            meaning: meaning.into(),
        };
        offset += size;
        field
    };
    fields.iter().map(place).collect()
}

fn bar_0(offset: u32, length: u32) -> String {
    format!("BAR 0, 0x{offset:04x} to 0x{:04x}.", offset + length - 1)
}

/// Everything in BAR 0 of a card, by address.
#[must_use]
pub fn bar_0_blocks() -> Vec<RegisterBlock> {
    vec![common(), notify(), isr(), device(), vendor_block(), msix_table()]
}

fn common() -> RegisterBlock {
    RegisterBlock {
        title: "Common configuration (virtio 1.3 section 4.1.4.3)".into(),
        place: bar_0(bar0::COMMON, bar0::COMMON_LENGTH),
        fields: packed(&[
            (
                4,
                "device_feature_select",
                "RW",
                "which 32 feature bits `device_feature` shows",
            ),
            (4, "device_feature", "RO", "features offered"),
            (
                4,
                "driver_feature_select",
                "RW",
                "which 32 feature bits `driver_feature` shows",
            ),
            (4, "driver_feature", "RW", "features accepted"),
            (2, "config_msix_vector", "RW", "vector of configuration changes"),
            (2, "num_queues", "RO", "virtqueues there are"),
            (1, "device_status", "RW", "device status; 0 resets the device"),
            (
                1,
                "config_generation",
                "RO",
                "changes with the device configuration",
            ),
            (
                2,
                "queue_select",
                "RW",
                "which virtqueue the fields below are about",
            ),
            (2, "queue_size", "RW", "entries; at reset the most there can be"),
            (2, "queue_msix_vector", "RW", "vector of the virtqueue"),
            (2, "queue_enable", "RW", "1 enables the virtqueue"),
            (2, "queue_notify_off", "RO", "place of the virtqueue's doorbell"),
            (8, "queue_desc", "RW", "physical address of the descriptor ring"),
            (
                8,
                "queue_driver",
                "RW",
                "physical address of the driver event suppression structure",
            ),
            (
                8,
                "queue_device",
                "RW",
                "physical address of the device event suppression structure",
            ),
            (
                2,
                "queue_notif_config_data",
                "RO",
                "unused: NOTIF_CONFIG_DATA is not offered",
            ),
            (2, "queue_reset", "RW", "1 resets the virtqueue"),
            (
                2,
                "admin_queue_index",
                "RO",
                "unused: there is no administration virtqueue",
            ),
            (
                2,
                "admin_queue_num",
                "RO",
                "unused: there is no administration virtqueue",
            ),
        ]),
    }
}

fn notify() -> RegisterBlock {
    RegisterBlock {
        title: "Notification (virtio 1.3 section 4.1.4.4)".into(),
        place: format!(
            "BAR 0, from 0x{:04x}: {} bytes for each virtqueue.",
            bar0::NOTIFY,
            bar0::NOTIFY_MULTIPLIER
        ),
        fields: packed(&[(2, "vqn", "WO", "doorbell: the number of the virtqueue")]),
    }
}

fn isr() -> RegisterBlock {
    RegisterBlock {
        title: "ISR status (virtio 1.3 section 4.1.4.5)".into(),
        place: bar_0(bar0::ISR, bar0::ISR_LENGTH),
        fields: packed(&[(
            1,
            "isr",
            "RC",
            "bit 0 virtqueue, bit 1 configuration; reading clears",
        )]),
    }
}

fn device() -> RegisterBlock {
    RegisterBlock {
        title: "Network device configuration (virtio 1.3 section 5.1.4)".into(),
        place: bar_0(bar0::DEVICE, bar0::DEVICE_LENGTH),
        fields: packed(&[
            (6, "mac", "RO", "the card's address, first byte first"),
            (2, "status", "RO", "bit 0: link up"),
            (2, "max_virtqueue_pairs", "RO", "pairs of data queues"),
            (2, "mtu", "RO", "unused: MTU is not offered"),
            (4, "speed", "RO", "unused: SPEED_DUPLEX is not offered"),
            (1, "duplex", "RO", "unused: SPEED_DUPLEX is not offered"),
            (1, "rss_max_key_size", "RO", "bytes of a hash key"),
            (
                2,
                "rss_max_indirection_table_length",
                "RO",
                "entries of the largest one",
            ),
            (4, "supported_hash_types", "RO", "bits of VIRTIO_NET_HASH_TYPE_*"),
        ]),
    }
}

fn vendor_block() -> RegisterBlock {
    let register = |offset, name: &str, meaning: String| Field {
        offset,
        size: 4,
        name: name.into(),
        access: "RO",
        meaning,
    };
    let mut fields = vec![
        register(vendor::MAGIC, "magic", format!("0x{:08x}", vendor::MAGIC_VALUE)),
        register(
            vendor::VERSION,
            "version",
            format!("0x{:08x}", vendor::VERSION_VALUE),
        ),
        register(vendor::COUNTER_COUNT, "counter_count", counter::COUNT.to_string()),
        register(
            vendor::MAX_FRAME,
            "max_frame",
            format!(
                "{}: bytes of the longest frame with its check sequence, without a VLAN tag",
                vendor::MAX_FRAME_VALUE
            ),
        ),
    ];
    let counters = counter::ALL.iter().enumerate().map(|(index, counter)| Field {
        offset: vendor::counter_offset(index) - bar0::VENDOR,
        size: vendor::COUNTER_STRIDE,
        name: counter.name.into(),
        access: "RO",
        meaning: counter.meaning.into(),
    });
    fields.extend(counters);
    RegisterBlock {
        title: "Vendor registers and counters".into(),
        place: format!(
            "BAR 0, from 0x{:04x}. Counters have {} bits and wrap; reading the low word holds the high one.",
            bar0::VENDOR,
            vendor::COUNTER_BITS
        ),
        fields,
    }
}

fn msix_table() -> RegisterBlock {
    RegisterBlock {
        title: "MSI-X table (PCI Express 5.0 section 6.1.4)".into(),
        place: format!(
            "BAR 0, from 0x{:04x}: 16 bytes for each vector; pending bits from 0x{:04x}.",
            bar0::MSIX_TABLE,
            bar0::MSIX_PENDING
        ),
        fields: packed(&[
            (8, "message_address", "RW", "where the message is written"),
            (4, "message_data", "RW", "what is written"),
            (4, "vector_control", "RW", "bit 0: masked"),
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_their_lengths() {
        let end = |block: RegisterBlock| block.fields.iter().map(|field| field.offset + field.size).max();
        assert_eq!(end(common()), Some(bar0::COMMON_LENGTH));
        assert_eq!(end(device()), Some(bar0::DEVICE_LENGTH));
        assert_eq!(end(msix_table()), Some(16));
    }

    #[test]
    fn fields_do_not_overlap() {
        for block in bar_0_blocks() {
            for pair in block.fields.windows(2) {
                assert!(
                    pair[0].offset + pair[0].size <= pair[1].offset,
                    "{}: {}",
                    block.title,
                    pair[1].name
                );
            }
        }
    }
}
