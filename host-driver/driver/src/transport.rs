//! virtio over PCI, modern interface (virtio 1.3, 4.1); Linux's `virtio_pci_modern_dev.c`.

use hematite_bus::pci::{self, VirtioCapability};
use hematite_bus::{BusError, PciFunction, Width};
use virtio_spec::{DeviceStatus, net};

use crate::error::{DeviceFault, Error};

/// `struct virtio_pci_common_cfg` (4.1.4.3): offsets in bytes.
mod common {
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub const DEVICE_FEATURE: u64 = 0x04;
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub const DRIVER_FEATURE: u64 = 0x0c;
    pub const CONFIG_MSIX_VECTOR: u64 = 0x10;
    pub const NUM_QUEUES: u64 = 0x12;
    pub const DEVICE_STATUS: u64 = 0x14;
    pub const CONFIG_GENERATION: u64 = 0x15;
    pub const QUEUE_SELECT: u64 = 0x16;
    pub const QUEUE_SIZE: u64 = 0x18;
    pub const QUEUE_MSIX_VECTOR: u64 = 0x1a;
    pub const QUEUE_ENABLE: u64 = 0x1c;
    pub const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub const QUEUE_DESC: u64 = 0x20;
    pub const QUEUE_DRIVER: u64 = 0x28;
    pub const QUEUE_DEVICE: u64 = 0x30;
    pub const QUEUE_RESET: u64 = 0x3a;
    /// Up to `queue_device`; what every device has.
    pub const MIN_LEN: u64 = 0x38;
}

/// `VIRTIO_MSI_NO_VECTOR`.
pub const NO_VECTOR: u16 = 0xffff;
/// virtio's PCI vendor ID (4.1.2).
const VENDOR: u16 = 0x1af4;
/// A network device: modern, and the transitional ID that QEMU gives it on a conventional bus.
const DEVICES: [u16; 2] = [0x1041, 0x1000];
/// How often a reset is polled. Each poll is a read across the bus, about a microsecond.
const RESET_POLLS: u32 = 10_000;
/// How often device configuration is read again because its generation moved.
const CONFIG_RETRIES: u32 = 32;

/// A structure in a BAR, checked to lie within it.
#[derive(Debug, Clone, Copy)]
struct Area {
    bar: u8,
    offset: u64,
    length: u64,
}

/// Where to tell the device about a queue (4.1.4.4); checked to lie within the notify capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doorbell {
    bar: u8,
    offset: u64,
    queue: u16,
}

/// Addresses of a virtqueue's three areas, as the device sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueAreas {
    /// Descriptor ring.
    pub desc: u64,
    /// Driver event suppression.
    pub driver: u64,
    /// Device event suppression.
    pub device: u64,
}

/// A modern virtio PCI function: the accessors of its structures, without policy.
pub struct VirtioPci<F> {
    function: F,
    common: Area,
    notify: Area,
    notify_off_multiplier: u32,
    isr: Area,
    device: Option<Area>,
}

impl<F: PciFunction> VirtioPci<F> {
    /// Finds the structures of a virtio network device and lets the function answer and send requests.
    /// Touches neither its status nor its queues.
    ///
    /// # Errors
    /// [`Error::NotVirtioNet`], [`Error::Capability`], or what the bus reported.
    pub fn probe(mut function: F) -> Result<Self, Error> {
        let id = pci::identity(&mut function)?;
        if id.vendor != VENDOR || !DEVICES.contains(&id.device) {
            return Err(Error::NotVirtioNet {
                vendor: id.vendor,
                device: id.device,
            });
        }
        pci::enable(&mut function)?;
        let caps = VirtioCapability::all(&mut function)?;
        // The first capability of a type that the driver can use is the device's preference (4.1.4.1).
        let find = |cfg_type: u8, min: u64, align: u32| -> Result<Option<(Area, VirtioCapability)>, Error> {
            for cap in caps.iter().filter(|cap| cap.cfg_type == cfg_type) {
                let area = Area {
                    bar: cap.bar,
                    offset: cap.offset.into(),
                    length: cap.length.into(),
                };
                let fits = area.offset + area.length <= function.bar_size(cap.bar)?;
                if fits && area.length >= min && cap.offset.is_multiple_of(align) {
                    return Ok(Some((area, *cap)));
                }
            }
            Ok(None)
        };
        let (common, _) =
            find(VirtioCapability::COMMON_CFG, common::MIN_LEN, 4)?.ok_or(Error::Capability("common"))?;
        let (notify, cap) = find(VirtioCapability::NOTIFY_CFG, 2, 2)?.ok_or(Error::Capability("notify"))?;
        let notify_off_multiplier = cap.notify_off_multiplier.ok_or(Error::Capability("notify"))?;
        let (isr, _) = find(VirtioCapability::ISR_CFG, 1, 1)?.ok_or(Error::Capability("ISR"))?;
        let device = find(VirtioCapability::DEVICE_CFG, 1, 4)?.map(|(area, _)| area);
        Ok(Self {
            function,
            common,
            notify,
            notify_off_multiplier,
            isr,
            device,
        })
    }

    /// The PCI function underneath.
    pub fn function(&mut self) -> &mut F {
        &mut self.function
    }

    /// The PCI function underneath, read only.
    pub fn function_ref(&self) -> &F {
        &self.function
    }

    /// Gives the function back.
    pub fn into_function(self) -> F {
        self.function
    }

    /// BAR and offset of the common, notify, ISR and device structures.
    pub fn layout(&self) -> [Option<(u8, u64)>; 4] {
        let place = |area: Area| (area.bar, area.offset);
        [
            Some(place(self.common)),
            Some(place(self.notify)),
            Some(place(self.isr)),
            self.device.map(place),
        ]
    }

    /// `device_status`.
    ///
    /// # Errors
    /// [`DeviceFault::Gone`] when it reads as all ones; what the bus reported.
    pub fn status(&mut self) -> Result<DeviceStatus, Error> {
        match self.read(common::DEVICE_STATUS, Width::U8)? as u8 {
            0xff => Err(self.gone()),
            bits => Ok(DeviceStatus::from_bits_retain(bits)),
        }
    }

    /// Sets further bits of `device_status` (`virtio_add_status`).
    ///
    /// # Errors
    /// As [`status`](Self::status).
    pub fn add_status(&mut self, bits: DeviceStatus) -> Result<(), Error> {
        let status = self.status()?;
        self.write(common::DEVICE_STATUS, Width::U8, status.union(bits).bits().into())
    }

    /// Resets the device and waits until it is done: then nothing of it touches memory any more (4.1.4.3.2,
    /// `vp_reset`).
    ///
    /// # Errors
    /// [`Error::ResetTimeout`], [`DeviceFault::Gone`], or what the bus reported.
    pub fn reset(&mut self) -> Result<(), Error> {
        self.write(common::DEVICE_STATUS, Width::U8, 0)?;
        for _ in 0..RESET_POLLS {
            if self.status()?.is_empty() {
                return Ok(());
            }
        }
        Err(Error::ResetTimeout)
    }

    /// What the device offers: the first 64 feature bits.
    ///
    /// # Errors
    /// What the bus reported.
    pub fn device_features(&mut self) -> Result<net::F, Error> {
        let mut bits = 0;
        for word in 0..2u8 {
            self.write(common::DEVICE_FEATURE_SELECT, Width::U32, word.into())?;
            bits |= u128::from(self.read(common::DEVICE_FEATURE, Width::U32)?) << (32 * word);
        }
        Ok(net::F::from_bits_retain(bits.into()))
    }

    /// Accepts features; `FEATURES_OK` is the caller's.
    ///
    /// # Errors
    /// What the bus reported.
    pub fn set_driver_features(&mut self, features: net::F) -> Result<(), Error> {
        let bits = u128::from(features.bits());
        for word in 0..2u8 {
            self.write(common::DRIVER_FEATURE_SELECT, Width::U32, word.into())?;
            self.write(
                common::DRIVER_FEATURE,
                Width::U32,
                u64::from((bits >> (32 * word)) as u32),
            )?;
        }
        Ok(())
    }

    /// Number of virtqueues that the device has.
    ///
    /// # Errors
    /// What the bus reported.
    pub fn num_queues(&mut self) -> Result<u16, Error> {
        Ok(self.read(common::NUM_QUEUES, Width::U16)? as u16)
    }

    /// Sends configuration-change interrupts to `vector`.
    ///
    /// # Errors
    /// [`Error::VectorRefused`], or what the bus reported.
    pub fn set_config_vector(&mut self, vector: u16) -> Result<(), Error> {
        self.write(common::CONFIG_MSIX_VECTOR, Width::U16, vector.into())?;
        self.check_vector(common::CONFIG_MSIX_VECTOR, vector)
    }

    /// The largest size of a queue, in descriptors.
    ///
    /// # Errors
    /// [`Error::QueueMissing`], or what the bus reported.
    pub fn queue_max_size(&mut self, queue: u16) -> Result<u16, Error> {
        self.select(queue)?;
        match self.read(common::QUEUE_SIZE, Width::U16)? as u16 {
            0 => Err(Error::QueueMissing { queue }),
            size => Ok(size),
        }
    }

    /// Programs a queue without enabling it (`vp_active_vq`, `vp_modern_queue_vector`) and says where its
    /// doorbell is.
    ///
    /// # Errors
    /// [`Error::QueueEnabled`], [`Error::VectorRefused`], [`Error::Capability`] when the doorbell would be
    /// outside of the notify structure, or what the bus reported.
    pub fn setup_queue(
        &mut self,
        queue: u16,
        size: u16,
        areas: QueueAreas,
        vector: u16,
    ) -> Result<Doorbell, Error> {
        self.select(queue)?;
        if self.read(common::QUEUE_ENABLE, Width::U16)? != 0 {
            return Err(Error::QueueEnabled { queue });
        }
        self.write(common::QUEUE_SIZE, Width::U16, size.into())?;
        for (offset, iova) in [
            (common::QUEUE_DESC, areas.desc),
            (common::QUEUE_DRIVER, areas.driver),
            (common::QUEUE_DEVICE, areas.device),
        ] {
            // 64-bit fields are written as two 32-bit halves (4.1.3.1).
            self.write(offset, Width::U32, iova & 0xffff_ffff)?;
            self.write(offset + 4, Width::U32, iova >> 32)?;
        }
        self.write(common::QUEUE_MSIX_VECTOR, Width::U16, vector.into())?;
        self.check_vector(common::QUEUE_MSIX_VECTOR, vector)?;
        let notify_off = self.read(common::QUEUE_NOTIFY_OFF, Width::U16)?;
        let at = notify_off * u64::from(self.notify_off_multiplier);
        if at + 2 > self.notify.length || !at.is_multiple_of(2) {
            return Err(Error::Capability("notify"));
        }
        Ok(Doorbell {
            bar: self.notify.bar,
            offset: self.notify.offset + at,
            queue,
        })
    }

    /// Enables a queue that was set up.
    ///
    /// # Errors
    /// What the bus reported.
    pub fn enable_queue(&mut self, queue: u16) -> Result<(), Error> {
        self.select(queue)?;
        self.write(common::QUEUE_ENABLE, Width::U16, 1)
    }

    /// Resets one queue and waits until it is done (2.6.1, `vp_modern_set_queue_reset`). Needs `RING_RESET`.
    ///
    /// # Errors
    /// [`Error::ResetTimeout`], [`Error::Capability`] when the structure is too short, or what the bus
    /// reported.
    pub fn reset_queue(&mut self, queue: u16) -> Result<(), Error> {
        if self.common.length < common::QUEUE_RESET + 2 {
            return Err(Error::Capability("common"));
        }
        self.select(queue)?;
        self.write(common::QUEUE_RESET, Width::U16, 1)?;
        for _ in 0..RESET_POLLS {
            match self.read(common::QUEUE_RESET, Width::U16)? {
                0xffff => return Err(self.gone()),
                0 if self.read(common::QUEUE_ENABLE, Width::U16)? == 0 => return Ok(()),
                _ => {}
            }
        }
        Err(Error::ResetTimeout)
    }

    /// Rings a doorbell: an available buffer notification (4.1.5.2). Posted.
    ///
    /// # Errors
    /// What the bus reported.
    pub fn notify(&mut self, doorbell: Doorbell) -> Result<(), BusError> {
        self.function
            .mmio_write(doorbell.bar, doorbell.offset, Width::U16, doorbell.queue.into())
    }

    /// Reads and thereby clears the ISR status (4.1.4.5). Not needed with MSI-X.
    ///
    /// # Errors
    /// What the bus reported.
    pub fn isr(&mut self) -> Result<u8, Error> {
        Ok(self
            .function
            .mmio_read(self.isr.bar, self.isr.offset, Width::U8)? as u8)
    }

    /// Reads device configuration so that all of it belongs to one generation (2.5.2): `read` runs again when
    /// the device changed it meanwhile.
    ///
    /// # Errors
    /// [`Error::ConfigUnstable`], [`Error::Capability`] when there is no device configuration, or what the
    /// bus reported.
    pub fn device_config<T>(
        &mut self,
        mut read: impl FnMut(&mut DeviceConfig<'_, F>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let area = self.device.ok_or(Error::Capability("device"))?;
        let mut before = self.read(common::CONFIG_GENERATION, Width::U8)?;
        for _ in 0..CONFIG_RETRIES {
            let value = read(&mut DeviceConfig {
                function: &mut self.function,
                area,
            })?;
            let after = self.read(common::CONFIG_GENERATION, Width::U8)?;
            if after == before {
                return Ok(value);
            }
            before = after;
        }
        Err(Error::ConfigUnstable)
    }

    fn select(&mut self, queue: u16) -> Result<(), Error> {
        self.write(common::QUEUE_SELECT, Width::U16, queue.into())
    }

    fn check_vector(&mut self, offset: u64, vector: u16) -> Result<(), Error> {
        if self.read(offset, Width::U16)? == u64::from(vector) {
            return Ok(());
        }
        Err(Error::VectorRefused { vector })
    }

    fn gone(&self) -> Error {
        Error::Device {
            queue: NO_VECTOR,
            fault: DeviceFault::Gone,
        }
    }

    fn read(&mut self, offset: u64, width: Width) -> Result<u64, Error> {
        Ok(self
            .function
            .mmio_read(self.common.bar, self.common.offset + offset, width)?)
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), Error> {
        Ok(self
            .function
            .mmio_write(self.common.bar, self.common.offset + offset, width, value)?)
    }
}

/// The device-specific configuration, within one attempt of [`VirtioPci::device_config`].
pub struct DeviceConfig<'a, F> {
    function: &'a mut F,
    area: Area,
}

impl<F: PciFunction> DeviceConfig<'_, F> {
    /// Reads one field at its byte offset in `struct virtio_net_config`.
    ///
    /// # Errors
    /// [`Error::Capability`] when the field is beyond the structure's length, or what the bus reported.
    pub fn read(&mut self, offset: u64, width: Width) -> Result<u64, Error> {
        if offset + width.bytes() as u64 > self.area.length {
            return Err(Error::Capability("device"));
        }
        Ok(self
            .function
            .mmio_read(self.area.bar, self.area.offset + offset, width)?)
    }
}
