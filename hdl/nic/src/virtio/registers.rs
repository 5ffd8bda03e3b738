//! The virtio structures in BAR 0: common configuration, notification, ISR status, device configuration.

use hematite_lang::prelude::*;

use super::areas::{self, Areas};
use super::features::{self, Negotiated};
use super::ports::{InterruptOut, LocateIn, QueueConfigOut};
use crate::control::multiqueue::HASH_TYPES;
use crate::mac::PhyStatus;
use crate::parse::steering::TABLE;
use crate::parse::toeplitz::KEY_BYTES;
use crate::pcie::ports::{RegisterIn, merge16, merge32};

/// Largest queue size the engines take, which is what `queue_size` reads after a reset (virtio 1.3 section
/// 4.1.4.3).
pub const QUEUE_SIZE_MAX: u64 = 4096;
/// What the speed reads while it is not known (5.1.4).
const SPEED_UNKNOWN: u64 = 0xffff_ffff;
/// Smallest queue size that is accepted.
pub const QUEUE_SIZE_MIN: u64 = 32;

/// The number of the word at a byte offset.
const fn word(offset: usize) -> usize {
    offset / 4
}

// Words of the common configuration.
const DEVICE_FEATURE_SELECT: usize = word(0x00);
const DEVICE_FEATURE: usize = word(0x04);
const DRIVER_FEATURE_SELECT: usize = word(0x08);
const DRIVER_FEATURE: usize = word(0x0c);
const MSIX_AND_QUEUES: usize = word(0x10);
const STATUS_AND_SELECT: usize = word(0x14);
const QUEUE_SIZE: usize = word(0x18);
const QUEUE_ENABLE: usize = word(0x1c);
const QUEUE_DESC_LOW: usize = word(0x20);
const QUEUE_DEVICE_HIGH: usize = word(0x34);
const QUEUE_RESET: usize = word(0x38);

/// No MSI-X vector, in the six bits that are kept of one: there are at most 32.
const NO_VECTOR: u64 = 0x3f;

/// A vector as the driver knows it, 0xffff for none.
#[hw]
fn wide_vector(kept: Bits<6>) -> Bits<16> {
    if kept.get_bit(5) {
        bits::<16>(0xffff)
    } else {
        kept.resize::<16>()
    }
}

/// What is kept of a vector: none if there is no such.
#[hw]
fn kept_vector(vector: Bits<16>, vectors: Bits<6>) -> Bits<6> {
    if !vector.get_bits::<11>(5).any() && vector.get_bits::<6>(0) < vectors {
        vector.get_bits::<6>(0)
    } else {
        bits::<6>(NO_VECTOR)
    }
}

/// The lower or upper word of an address with `new` written into it.
#[hw]
fn merge64(old: Bits<64>, new: Bits<32>, enables: Bits<4>, high: Bit) -> Bits<64> {
    let low_word = old.get_bits::<32>(0);
    let high_word = old.get_bits::<32>(32);
    if high {
        cat::<64>((merge32(high_word, new, enables), low_word))
    } else {
        cat::<64>((high_word, merge32(low_word, new, enables)))
    }
}

/// The driver's view of the device (virtio 1.3 sections 2.1, 2.2, 4.1.4 and 5.1.4).
///
/// * FEATURES_OK stays clear unless VERSION_1, RING_PACKED and ACCESS_PLATFORM were accepted and nothing
///   that was not offered (3.1.1, 6.1). Accepted features are fixed from then on.
/// * Queues run while DRIVER_OK and FEATURES_OK are set, and they are enabled.
/// * Writing 0 to the status stops the queues; the status reads 0, and everything is back at its start
///   value, once they, the MSI-X block and the DMA engines are idle (2.4).
/// * A failing queue sets DEVICE_NEEDS_RESET and raises a configuration change (2.1.2).
/// * `queue_reset` reads 1 until the queue is idle, then it and `queue_enable` read 0 (4.1.4.3.1). Requests that
///   wait for Bus Master Enable keep a queue from that; a reset of the device discards them.
/// * The last of the queues is the control queue. The driver knows it by that index once MQ or RSS is negotiated, and as
///   queue 2 without; then there are no queues behind it (5.1.2).
/// * A queue's size, vector and addresses cannot be changed while it is enabled; a size outside
///   32..=4096 is ignored; a vector that the MSI-X table lacks reads back 0xffff.
/// * The device configuration's speed and duplex are those of the moment when the link came up. A link that comes back
///   asks for an announcement (5.1.4, VIRTIO_NET_S_ANNOUNCE), until `announced`.
/// * A doorbell is the 16-bit index of an enabled queue at that queue's place (4.1.5.2); others are
///   ignored and counted.
///
/// Three cycles an access; unknown registers read 0.
#[hw]
pub struct Registers<const QUEUES: usize, const VECTORS: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Everything to its start value at once; the engines are reset with it.
    pub reset: Signal<In, Bit>,
    /// The register bus.
    pub access: RegisterIn,
    /// To the queue engines.
    pub queues: [QueueConfigOut; QUEUES],
    /// The engines ask where things of a queue are.
    pub locate: [LocateIn; areas::CLIENTS],
    /// Configuration change.
    pub interrupt: InterruptOut,
    /// The MAC address, its first octet in bits 7..0.
    pub mac_address: Signal<In, Bits<48>>,
    /// A command has changed it: high for one cycle. The driver knows that without being told.
    pub mac_set: Signal<In, Bit>,
    /// What the PHY says.
    pub phy: Signal<In, PhyStatus>,
    /// The driver has made the announcement that it was asked for: high for one cycle.
    pub announced: Signal<In, Bit>,
    /// A queue asked for an interrupt while MSI-X was disabled.
    pub unsignaled: Signal<In, Bit>,
    /// No MSI-X message is under way.
    pub msix_idle: Signal<In, Bit>,
    /// The DMA engines hold no request and no data.
    pub dma_idle: Signal<In, Bit>,
    /// A device reset is under way: drop interrupts.
    pub resetting: Signal<Out, Bit>,
    /// What was negotiated.
    pub negotiated: Signal<Out, Negotiated>,
    /// A device reset is complete: high for one cycle, and at `reset`.
    pub device_reset: Signal<Out, Bit>,
    /// A doorbell of a queue that is absent or not enabled.
    pub doorbell_absent_queue: Signal<Out, Bit>,
    /// DEVICE_NEEDS_RESET was set.
    pub queue_failed: Signal<Out, Bit>,
    /// A bit of the ISR status is set.
    pub isr_pending: Signal<Out, Bit>,
    clear: Signal<Local, Bit>,
    /// The device reset is complete.
    finished: Reg<Bit>,
    /// The access is performed.
    active: Reg<Bit>,
    done: Reg<Bit>,
    /// What a write would make of the selected queue's size and vector, and of the device's vector.
    new_size: Reg<Bits<13>>,
    new_vector: Reg<Bits<6>>,
    new_config_vector: Reg<Bits<6>>,
    /// The selected queue may be changed.
    changeable: Reg<Bit>,
    /// The address is in the common configuration.
    in_common: Reg<Bit>,
    /// It is the first word of its window.
    first_word: Reg<Bit>,
    /// The feature selectors name no word of the first two.
    device_beyond: Reg<Bit>,
    driver_beyond: Reg<Bit>,
    areas: Areas<QUEUES>,
    /// The word is one of the areas'.
    in_areas: Reg<Bit>,
    /// The selected queue.
    selected: [Reg<Bit>; QUEUES],
    common: Reg<Bits<32>>,
    device_field: Reg<Bits<32>>,
    read: Reg<Bits<32>>,
    device_select: Reg<Bits<32>>,
    driver_select: Reg<Bits<32>>,
    driver_features: Reg<Bits<64>>,
    /// A feature beyond the first 64 was accepted.
    beyond: Reg<Bit>,
    /// The accepted features are fit for FEATURES_OK.
    acceptable: Reg<Bit>,
    #[reset(bits::<6>(NO_VECTOR))]
    config_vector: Reg<Bits<6>>,
    /// ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK and FAILED at their places.
    status: Reg<Bits<8>>,
    needs_reset: Reg<Bit>,
    in_reset: Reg<Bit>,
    settle: Reg<Bits<3>>,
    generation: Reg<Bits<8>>,
    /// The device configuration has changed since it was last read.
    changed: Reg<Bit>,
    queue_select: Reg<Bits<16>>,
    isr: Reg<Bits<2>>,
    link: Reg<PhyStatus>,
    /// The link was up before.
    was_up: Reg<Bit>,
    announce: Reg<Bit>,
    notify: Reg<Bit>,
    #[reset(bits::<13>(QUEUE_SIZE_MAX))]
    size: [Reg<Bits<13>>; QUEUES],
    #[reset(bits::<6>(NO_VECTOR))]
    vector: [Reg<Bits<6>>; QUEUES],
    enable: [Reg<Bit>; QUEUES],
    queue_reset: [Reg<Bit>; QUEUES],
    queue_settle: [Reg<Bits<3>>; QUEUES],
    run: [Reg<Bit>; QUEUES],
    doorbell: [Reg<Bit>; QUEUES],
}

#[hw]
impl<const QUEUES: usize, const VECTORS: usize> Logic for Registers<QUEUES, VECTORS> {
    fn update(&mut self) {
        assert!(VECTORS < 32, "one that there is differs from none in a bit");
        assert!(QUEUE_SIZE_MIN == 32 && QUEUE_SIZE_MAX == 4096);
        for c in 0..areas::CLIENTS {
            self.locate[c].link(&mut self.areas.locate[c]);
        }
        // The engines hear of the reset a few cycles before their word is taken.
        let mut idle = self.in_reset.q.val() && self.settle.q.val().all();
        for q in 0..QUEUES {
            idle = idle && self.queues[q].idle.val();
        }
        let finished = idle && self.msix_idle.val() && self.dma_idle.val();
        registers!(self.clock, self.reset => self.finished);
        self.finished.d.next = finished && !self.finished.q.val();
        self.clear.next = self.reset.val() || self.finished.q.val();
        registers!(self.clock, self.clear => self.device_select, self.driver_select, self.driver_features);
        registers!(self.clock, self.clear => self.beyond, self.acceptable, self.config_vector, self.status);
        registers!(self.clock, self.clear => self.needs_reset, self.in_reset, self.settle, self.queue_select);
        registers!(self.clock, self.clear => self.isr, self.notify);
        registers!(self.clock, self.reset => self.active, self.done, self.generation, self.changed);
        registers!(self.clock, self.clear => self.announce);
        registers!(self.clock => self.was_up);
        registers!(self.clock => self.link, self.new_size, self.new_vector, self.new_config_vector);
        registers!(self.clock => self.changeable, self.in_common, self.in_areas, self.common, self.device_field, self.read);
        clocked!(self.clock, self.clear => self.areas);
        registers!(self.clock => self.first_word, self.device_beyond, self.driver_beyond);
        for q in 0..QUEUES {
            registers!(self.clock, self.clear => self.size[q], self.vector[q], self.enable[q], self.run[q]);
            registers!(self.clock, self.clear => self.queue_reset[q], self.queue_settle[q], self.doorbell[q]);
            registers!(self.clock => self.selected[q]);
        }

        let address = self.access.address.val();
        let enables = self.access.byte_enables.val();
        let data = self.access.write_data.val();
        // Address and data stand from `valid` on; what they lead to is prepared in a cycle of its own.
        let active = self.active.q.val();
        self.active.d.next = self.access.valid.val() && !active && !self.done.q.val();
        let write = active && self.access.write.val();
        self.done.d.next = active;
        self.access.ready.next = self.done.q.val();
        self.access.read_data.next = self.read.q.val();
        let window = address.get_bits::<2>(12);
        let word = address.get_bits::<10>(2);
        let common_word = address.get_bits::<4>(2);
        let low_half = enables.get_bits::<2>(0);
        let high_half = enables.get_bits::<2>(2);

        let status = self.status.q.val();
        let features = self.driver_features.q.val();
        let driver_ok = status.get_bit(2) && status.get_bit(3);
        let missing = !features & bits::<64>(features::REQUIRED);
        let offered = if QUEUES > 3 {
            bits::<64>(features::OFFERED | features::MULTIQUEUE)
        } else {
            bits::<64>(features::OFFERED)
        };
        let refused = features & !offered;
        self.acceptable.d.next = !missing.any() && !refused.any() && !self.beyond.q.val();
        self.negotiated.next = features::negotiated(features, status.get_bit(3));
        self.device_reset.next = self.clear.val();
        self.resetting.next = self.in_reset.q.val();
        if self.in_reset.q.val() && !self.settle.q.val().all() {
            self.settle.d.next = self.settle.q.val() + 1;
        }

        // The generation moves when what has changed is read (4.1.4.3.1): however many changes there were, a
        // driver that reads it before and after sees that.
        if active && !self.access.write.val() && window.all() && self.changed.q.val() {
            self.generation.d.next = self.generation.q.val() + 1;
            self.changed.d.next = false;
        }

        // What the device has to tell.
        self.interrupt.vector.next = wide_vector(self.config_vector.q.val());
        self.interrupt.valid.next = self.notify.q.val();
        self.interrupt.held.next = false;
        if self.interrupt.ready.val() {
            self.notify.d.next = false;
        }
        let mut isr = self.isr.q.val();
        let mut change = false;
        let phy = self.phy.val();
        let link = self.link.q.val();
        if self.announced.val() {
            self.announce.d.next = false;
            self.changed.d.next = true;
        }
        if link.link_up != phy.link_up {
            self.link.d.next = phy;
            self.changed.d.next = true;
            change = features.get_bit(features::STATUS);
            if phy.link_up {
                self.was_up.d.next = true;
                self.announce.d.next = self.was_up.q.val() && features.get_bit(features::GUEST_ANNOUNCE);
            }
        }
        if self.mac_set.val() {
            self.changed.d.next = true;
        }
        let mut failed = false;
        for q in 0..QUEUES {
            if self.queues[q].failed.val() {
                failed = true;
            }
        }
        let newly_failed = failed && !self.needs_reset.q.val() && !self.in_reset.q.val() && driver_ok;
        self.queue_failed.next = newly_failed;
        if newly_failed {
            self.needs_reset.d.next = true;
            change = true;
        }

        // Reading.
        let select = self.queue_select.q.val();
        let pairs = features.get_bit(features::MQ) || features.get_bit(features::RSS);
        let several = pairs && status.get_bit(3);
        // The control queue's number.
        let last = if several {
            bits::<5>(QUEUES as u64 - 1)
        } else {
            bits::<5>(2)
        };
        let small = !select.get_bits::<11>(5).any();
        let number = select.get_bits::<5>(0);
        let mut present = false;
        let mut size = bits::<13>(0);
        let mut vector = bits::<6>(NO_VECTOR);
        let mut enabled = false;
        let mut in_queue_reset = false;
        let mut selected_index = bits::<5>(0);
        for q in 0..QUEUES {
            let named = if q + 1 == QUEUES {
                number == last
            } else {
                number == bits::<5>(q as u64) && (q < 2 || several)
            };
            self.selected[q].d.next = small && named;
            if self.selected[q].q.val() {
                present = true;
                size = self.size[q].q.val();
                vector = self.vector[q].q.val();
                enabled = self.enable[q].q.val();
                in_queue_reset = self.queue_reset[q].q.val();
                selected_index = bits::<5>(q as u64);
            }
        }
        let notify_off = if present { select } else { bits::<16>(0) };
        self.device_beyond.d.next = self.device_select.q.val().get_bits::<31>(1).any();
        self.driver_beyond.d.next = self.driver_select.q.val().get_bits::<31>(1).any();
        let driver_high = self.driver_select.q.val().get_bit(0);
        let device_feature = if self.device_beyond.q.val() {
            bits::<32>(0)
        } else if self.device_select.q.val().get_bit(0) {
            offered.get_bits::<32>(32)
        } else {
            offered.get_bits::<32>(0)
        };
        let driver_feature = if self.driver_beyond.q.val() {
            bits::<32>(0)
        } else if driver_high {
            features.get_bits::<32>(32)
        } else {
            features.get_bits::<32>(0)
        };
        let status_byte = cat::<8>((
            status.get_bit(7),
            self.needs_reset.q.val(),
            bits::<2>(0),
            status.get_bits::<4>(0),
        ));
        self.common.d.next = match common_word.index() {
            DEVICE_FEATURE_SELECT => self.device_select.q.val(),
            DEVICE_FEATURE => device_feature,
            DRIVER_FEATURE_SELECT => self.driver_select.q.val(),
            DRIVER_FEATURE => driver_feature,
            MSIX_AND_QUEUES => {
                cat::<32>((bits::<16>(QUEUES as u64), wide_vector(self.config_vector.q.val())))
            }
            STATUS_AND_SELECT => cat::<32>((select, self.generation.q.val(), status_byte)),
            QUEUE_SIZE => cat::<32>((wide_vector(vector), size.resize::<16>())),
            QUEUE_ENABLE => cat::<32>((notify_off, bits::<15>(0), enabled)),
            QUEUE_RESET => cat::<32>((bits::<15>(0), in_queue_reset, notify_off)),
            _ => bits::<32>(0),
        };
        let mac = self.mac_address.val();
        let speed = match link.speed.index() {
            0 => bits::<32>(10),
            1 => bits::<32>(100),
            2 => bits::<32>(1000),
            _ => bits::<32>(SPEED_UNKNOWN),
        };
        self.device_field.d.next = match word.index() {
            0 => mac.get_bits::<32>(0),
            1 => cat::<32>((
                bits::<14>(0),
                self.announce.q.val(),
                link.link_up,
                mac.get_bits::<16>(32),
            )),
            2 => bits::<32>((QUEUES as u64 - 1) / 2),
            3 => speed,
            4 => cat::<32>((
                bits::<16>(TABLE as u64),
                bits::<8>(KEY_BYTES as u64),
                bits::<7>(0),
                link.full_duplex,
            )),
            5 => bits::<32>(HASH_TYPES),
            _ => bits::<32>(0),
        };
        self.read.d.next = match window.index() {
            0 => {
                if self.in_areas.q.val() {
                    self.areas.read.val()
                } else if self.in_common.q.val() {
                    self.common.q.val()
                } else {
                    bits::<32>(0)
                }
            }
            2 => {
                if self.first_word.q.val() {
                    isr.resize::<32>()
                } else {
                    bits::<32>(0)
                }
            }
            3 => self.device_field.q.val(),
            _ => bits::<32>(0),
        };
        // Reading the ISR status clears it (virtio 1.3 section 4.1.4.5).
        if active
            && !self.access.write.val()
            && window == bits::<2>(2)
            && self.first_word.q.val()
            && enables.get_bit(0)
        {
            isr = bits::<2>(0);
        }
        if self.unsignaled.val() {
            isr = isr | bits::<2>(1);
        }
        if change && driver_ok && !self.in_reset.q.val() {
            isr = isr | bits::<2>(2);
            self.notify.d.next = true;
        }
        self.isr.d.next = isr;
        self.isr_pending.next = self.isr.q.val().any();

        // Writing.
        let open = !self.in_reset.q.val();
        let changeable = open && present && !enabled;
        let told_size = merge16(size.resize::<16>(), data.get_bits::<16>(0), low_half);
        // 32..=4096, by the bits that say so.
        let above =
            told_size.get_bits::<3>(13).any() || (told_size.get_bit(12) && told_size.get_bits::<12>(0).any());
        let new_size = if above || !told_size.get_bits::<11>(5).any() {
            size
        } else {
            told_size.get_bits::<13>(0)
        };
        let told_vector = merge16(wide_vector(vector), data.get_bits::<16>(16), high_half);
        let told_config_vector = merge16(
            wide_vector(self.config_vector.q.val()),
            data.get_bits::<16>(0),
            low_half,
        );
        let vectors = bits::<6>(VECTORS as u64);
        let set_enable = low_half.get_bit(0) && data.get_bit(0);
        let set_reset = high_half.get_bit(0) && data.get_bit(16) && features.get_bit(features::RING_RESET);
        self.new_size.d.next = new_size;
        self.new_vector.d.next = kept_vector(told_vector, vectors);
        self.new_config_vector.d.next = kept_vector(told_config_vector, vectors);
        self.changeable.d.next = changeable;
        self.in_common.d.next = !window.any() && !word.get_bits::<6>(4).any();
        self.first_word.d.next = !word.any();
        let areas_word = common_word.index() >= QUEUE_DESC_LOW && common_word.index() <= QUEUE_DEVICE_HIGH;
        self.in_areas.d.next = self.in_common.d.val() && areas_word && present;
        self.areas.number.next = selected_index;
        self.areas.word.next = common_word.get_bits::<3>(0);
        self.areas.data.next = data;
        self.areas.byte_enables.next = enables;
        self.areas.write.next = write && self.in_areas.q.val() && self.changeable.q.val();
        let in_common = self.in_common.q.val();
        if write && open && in_common {
            match common_word.index() {
                DEVICE_FEATURE_SELECT => {
                    self.device_select.d.next = merge32(self.device_select.q.val(), data, enables);
                }
                DRIVER_FEATURE_SELECT => {
                    self.driver_select.d.next = merge32(self.driver_select.q.val(), data, enables);
                }
                DRIVER_FEATURE => {
                    if !status.get_bit(3) {
                        if !self.driver_beyond.q.val() {
                            self.driver_features.d.next = merge64(features, data, enables, driver_high);
                        } else if merge32(bits::<32>(0), data, enables).any() {
                            self.beyond.d.next = true;
                        }
                    }
                }
                MSIX_AND_QUEUES => self.config_vector.d.next = self.new_config_vector.q.val(),
                STATUS_AND_SELECT => {
                    self.queue_select.d.next = merge16(select, data.get_bits::<16>(16), high_half);
                    if enables.get_bit(0) {
                        if data.get_bits::<8>(0).any() {
                            let mut accepted = data.get_bits::<8>(0) & bits::<8>(0x8f);
                            if !self.acceptable.q.val() {
                                accepted = accepted & bits::<8>(0xf7);
                            }
                            // A driver must not clear bits (2.1.1), so it cannot.
                            self.status.d.next = status | accepted;
                        } else {
                            self.in_reset.d.next = true;
                        }
                    }
                }
                _ => {}
            }
        }
        for q in 0..QUEUES {
            self.areas.clear[q].next = false;
            let selected = self.selected[q].q.val();
            if write && self.changeable.q.val() && selected && in_common {
                match common_word.index() {
                    QUEUE_SIZE => {
                        self.size[q].d.next = self.new_size.q.val();
                        self.vector[q].d.next = self.new_vector.q.val();
                    }
                    QUEUE_ENABLE => self.enable[q].d.next = set_enable,
                    _ => {}
                }
            }
            let resets =
                write && open && selected && in_common && common_word == bits::<4>(QUEUE_RESET as u64);
            if resets && set_reset && self.enable[q].q.val() {
                self.queue_reset[q].d.next = true;
            }
            if self.queue_reset[q].q.val() {
                if !self.queue_settle[q].q.val().all() {
                    self.queue_settle[q].d.next = self.queue_settle[q].q.val() + 1;
                } else if self.queues[q].idle.val() {
                    self.queue_reset[q].d.next = false;
                    self.queue_settle[q].d.next = bits::<3>(0);
                    self.enable[q].d.next = false;
                    self.size[q].d.next = bits::<13>(QUEUE_SIZE_MAX);
                    self.vector[q].d.next = bits::<6>(NO_VECTOR);
                    self.areas.clear[q].next = true;
                }
            }
            self.run[q].d.next = driver_ok && self.enable[q].q.val() && open && !self.queue_reset[q].q.val();
            self.queues[q].run.next = self.run[q].q.val();
            self.queues[q].size.next = self.size[q].q.val();
            self.queues[q].vector.next = wide_vector(self.vector[q].q.val());
            self.queues[q].notify.next = self.doorbell[q].q.val();
        }

        // Doorbells.
        let rung = write && window == bits::<2>(1) && enables.any();
        let index = data.get_bits::<5>(0);
        let whole =
            low_half.all() && data.get_bits::<16>(0) == word.resize::<16>() && !word.get_bits::<5>(5).any();
        let mut known = false;
        for q in 0..QUEUES {
            let named = if q + 1 == QUEUES {
                index == last
            } else {
                index == bits::<5>(q as u64) && (q < 2 || several)
            };
            let hit = whole && named && self.enable[q].q.val();
            if hit {
                known = true;
            }
            self.doorbell[q].d.next = rung && hit;
        }
        self.doorbell_absent_queue.next = rung && !known;
    }
}
