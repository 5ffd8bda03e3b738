//! The packed virtqueue, driver side (virtio 1.3, 2.8); the packed half of Linux's `virtio_ring.c`.
//!
//! # Ownership
//! Buffers go in as `DmaBuf<Cpu>` and stay here as `DmaBuf<Device>` in the slot of their buffer ID; the only
//! ways out are a used descriptor that names them ([`get_buf`](PackedQueue::get_buf)) and
//! [`detach`](PackedQueue::detach) after a reset.
//!
//! # Ordering
//! A chain becomes available when its head's flags are stored, last and with release. A chain is used when
//! flags loaded with acquire say so. A full fence stands between publishing and reading the other side's
//! event suppression, in both directions: else both sides may wait for each other.
//!
//! # The device is not trusted
//! Descriptors are only ever written here; what a used descriptor says is checked against the slots before
//! use.

use std::sync::atomic::{Ordering, fence};

use hematite_bus::{Cpu, Device, DmaBuf, DmaRegion, DmaSpace, OutOfBounds};
use virtio_spec::RingEventFlags;
use virtio_spec::virtq::DescF;

use crate::error::{DeviceFault, Error};
use crate::transport::QueueAreas;

/// `struct pvirtq_desc` (2.8.13): offsets in bytes.
mod desc {
    pub const ADDR: usize = 0;
    /// Length, ID and flags in one word.
    pub const LEN: usize = 8;
    pub const FLAGS: usize = 14;
    pub const SIZE: usize = 16;

    /// The word at [`LEN`].
    pub fn word(len: u32, id: u16, flags: u16) -> u64 {
        u64::from(len) | u64::from(id) << 32 | u64::from(flags) << 48
    }
}

/// `struct pvirtq_event_suppress` (2.8.14): offsets in bytes.
mod event {
    pub const OFF_WRAP: usize = 0;
    pub const FLAGS: usize = 2;
    pub const SIZE: usize = 4;
}

const NEXT: u16 = DescF::NEXT.bits().to_ne();
const WRITE: u16 = DescF::WRITE.bits().to_ne();
const AVAIL: u16 = DescF::AVAIL.bits().to_ne();
const USED: u16 = DescF::USED.bits().to_ne();

/// Who moves the bytes of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Device-readable: transmit.
    ToDevice,
    /// Device-writable: receive.
    FromDevice,
}

/// One element of a chain: part of a buffer and what the device does with it.
#[derive(Debug)]
pub struct Element {
    buffer: DmaBuf<Cpu>,
    offset: u32,
    len: u32,
    direction: Direction,
}

impl Element {
    /// `len` bytes of `buffer` from `offset`.
    ///
    /// # Errors
    /// Gives the buffer back when that isn't within it, or nothing.
    pub fn new(
        buffer: DmaBuf<Cpu>,
        offset: u32,
        len: u32,
        direction: Direction,
    ) -> Result<Self, DmaBuf<Cpu>> {
        match offset.checked_add(len) {
            Some(end) if len > 0 && end as usize <= buffer.len() => Ok(Self {
                buffer,
                offset,
                len,
                direction,
            }),
            _ => Err(buffer),
        }
    }

    /// The buffer, not sent.
    pub fn into_buffer(self) -> DmaBuf<Cpu> {
        self.buffer
    }
}

/// Why a chain wasn't added. The elements stay with the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// Not enough free descriptors now.
    #[error("the ring is full")]
    Full,
    /// No elements, or more than the ring has descriptors, or device-writable ones before device-readable
    /// ones (2.8.6).
    #[error("impossible chain")]
    Chain,
    /// A bug here: the ring's memory is smaller than the ring.
    #[error(transparent)]
    Internal(#[from] OutOfBounds),
}

/// What the device said about a chain that it has used.
#[derive(Debug, PartialEq, Eq)]
pub struct Used<C> {
    /// What was given with the chain.
    pub cookie: C,
    /// Bytes written by the device; at most the chain's device-writable bytes. 0 for a chain without any.
    pub len: u32,
}

/// A place in the ring with its wrap counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    index: u16,
    wrap: bool,
}

impl Position {
    const START: Self = Self { index: 0, wrap: true };

    /// `by` is at most `size`.
    fn advance(&mut self, by: u16, size: u16) {
        let next = u32::from(self.index) + u32::from(by);
        match next.checked_sub(u32::from(size)) {
            Some(wrapped) => {
                *self = Self {
                    index: wrapped as u16,
                    wrap: !self.wrap,
                }
            }
            None => self.index = next as u16,
        }
    }

    /// The AVAIL and USED bits that make a descriptor available here (2.8.1).
    fn avail_bits(self) -> u16 {
        if self.wrap { AVAIL } else { USED }
    }

    /// Whether these flags mark a descriptor here as used.
    fn is_used(self, flags: u16) -> bool {
        (flags & AVAIL != 0) == self.wrap && (flags & USED != 0) == self.wrap
    }

    /// As the event suppression structures hold it.
    fn off_wrap(self) -> u16 {
        self.index | u16::from(self.wrap) << 15
    }
}

/// State of one buffer ID (`vring_desc_state_packed` and `vring_desc_extra`).
struct Slot<C> {
    buffer: Option<DmaBuf<Device>>,
    /// The next free slot, or the next of the chain.
    next: u16,
    /// For the ID that stands for a chain.
    head: Option<Head<C>>,
}

struct Head<C> {
    cookie: C,
    descriptors: u16,
    writable: u32,
}

/// One packed virtqueue. `C` is what the caller keeps with each chain.
pub struct PackedQueue<C> {
    size: u16,
    ring: DmaRegion,
    driver_event: DmaRegion,
    device_event: DmaRegion,
    slots: Box<[Slot<C>]>,
    free_head: u16,
    num_free: u16,
    next_avail: Position,
    next_used: Position,
    /// Descriptors made available since the last [`kick_prepare`](Self::kick_prepare).
    num_added: u16,
    event_idx: bool,
    /// What the driver event structure's flags hold (`event_flags_shadow`).
    flags_shadow: RingEventFlags,
    /// The event moved since the last full fence.
    event_moved: bool,
}

impl<C> PackedQueue<C> {
    /// Largest ring (2.8: 2^15).
    pub const MAX_SIZE: u16 = 1 << 15;

    /// A ring of `size` descriptors, any number from 1 to 32768, with callbacks on. `event_idx`: whether
    /// `VIRTIO_F_EVENT_IDX` was negotiated.
    ///
    /// # Errors
    /// [`Error::RingSize`], [`Error::Dma`].
    pub fn new(space: &DmaSpace, size: u16, event_idx: bool) -> Result<Self, Error> {
        if size == 0 || size > Self::MAX_SIZE {
            return Err(Error::RingSize {
                size,
                min: 1,
                max: Self::MAX_SIZE,
            });
        }
        let slots = (0..size)
            .map(|id| Slot {
                buffer: None,
                next: id.wrapping_add(1),
                head: None,
            })
            .collect();
        Ok(Self {
            size,
            ring: space.alloc(usize::from(size) * desc::SIZE, 16)?,
            driver_event: space.alloc(event::SIZE, 4)?,
            device_event: space.alloc(event::SIZE, 4)?,
            slots,
            free_head: 0,
            num_free: size,
            next_avail: Position::START,
            next_used: Position::START,
            num_added: 0,
            event_idx,
            flags_shadow: RingEventFlags::Enable,
            event_moved: false,
        })
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Descriptors that can be made available now.
    pub fn num_free(&self) -> u16 {
        self.num_free
    }

    /// Descriptors in the device's hands.
    pub fn in_use(&self) -> u16 {
        self.size - self.num_free
    }

    /// Descriptors made available that [`kick_prepare`](Self::kick_prepare) has not been asked about yet.
    pub fn num_added(&self) -> u16 {
        self.num_added
    }

    /// The addresses for the device. From now on the memory counts as the device's until
    /// [`detach`](Self::detach).
    pub fn give_to_device(&mut self) -> QueueAreas {
        for region in [&self.ring, &self.driver_event, &self.device_event] {
            region.set_device_access(true);
        }
        QueueAreas {
            desc: self.ring.iova(),
            driver: self.driver_event.iova(),
            device: self.device_event.iova(),
        }
    }

    /// Makes a chain available (`virtqueue_add_packed`): takes all `elements`, in order. The device may look
    /// at once; whether it wants to be told is [`kick_prepare`](Self::kick_prepare)'s answer.
    ///
    /// # Errors
    /// [`AddError`]; then nothing was taken.
    pub fn add(&mut self, elements: &mut Vec<Element>, cookie: C) -> Result<(), AddError> {
        let count = u16::try_from(elements.len()).map_err(|_| AddError::Chain)?;
        let readable_last = elements.windows(2).any(|pair| {
            pair[0].direction == Direction::FromDevice && pair[1].direction == Direction::ToDevice
        });
        if count == 0 || count > self.size || readable_last {
            return Err(AddError::Chain);
        }
        if count > self.num_free {
            return Err(AddError::Full);
        }
        let id = self.free_head;
        let head_at = self.next_avail;
        let mut head = 0;
        let mut writable = 0u32;
        let mut slot = id;
        for (n, element) in elements.iter().enumerate() {
            let direction = match element.direction {
                Direction::ToDevice => 0,
                Direction::FromDevice => WRITE,
            };
            let more = if n + 1 < usize::from(count) { NEXT } else { 0 };
            let flags = self.next_avail.avail_bits() | direction | more;
            let at = usize::from(self.next_avail.index) * desc::SIZE;
            self.ring
                .write_u64(at + desc::ADDR, element.buffer.iova() + u64::from(element.offset))?;
            let word = desc::word(element.len, id, flags);
            match n {
                0 => head = word,
                _ => self.ring.write_u64(at + desc::LEN, word)?,
            }
            if element.direction == Direction::FromDevice {
                writable = writable.saturating_add(element.len);
            }
            self.next_avail.advance(1, self.size);
        }
        for element in elements.drain(..) {
            let entry = &mut self.slots[usize::from(slot)];
            entry.buffer = Some(element.buffer.give());
            slot = entry.next;
        }
        self.free_head = slot;
        self.num_free -= count;
        self.num_added = self.num_added.saturating_add(count);
        self.slots[usize::from(id)].head = Some(Head {
            cookie,
            descriptors: count,
            writable,
        });
        // Everything else of the chain is visible before the head says so.
        self.ring
            .store_release_u64(usize::from(head_at.index) * desc::SIZE + desc::LEN, head)?;
        Ok(())
    }

    /// Whether the device wants to be told about what was added since the last call
    /// (`virtqueue_kick_prepare_packed`). One doorbell for a batch, none for an empty one.
    ///
    /// # Errors
    /// [`OutOfBounds`] would be a bug here.
    pub fn kick_prepare(&mut self) -> Result<bool, OutOfBounds> {
        let added = std::mem::take(&mut self.num_added);
        if added == 0 {
            return Ok(false);
        }
        fence(Ordering::SeqCst);
        // Off/wrap and flags belong together: one read.
        let suppress = self.device_event.read_u32(event::OFF_WRAP)?;
        let (off_wrap, flags) = (suppress as u16, (suppress >> 16) as u8 & 3);
        Ok(match RingEventFlags::try_from(flags) {
            Ok(RingEventFlags::Disable) => false,
            Ok(RingEventFlags::Desc) if self.event_idx => {
                let mut event = off_wrap & 0x7fff;
                if (off_wrap >> 15 != 0) != self.next_avail.wrap {
                    event = event.wrapping_sub(self.size);
                }
                let new = self.next_avail.index;
                need_event(event, new, new.wrapping_sub(added))
            }
            _ => true,
        })
    }

    /// Whether a used chain waits (`more_used_packed`).
    ///
    /// # Errors
    /// [`OutOfBounds`] would be a bug here.
    pub fn more_used(&self) -> Result<bool, OutOfBounds> {
        let at = usize::from(self.next_used.index) * desc::SIZE;
        Ok(self
            .next_used
            .is_used(self.ring.load_acquire_u16(at + desc::FLAGS)?))
    }

    /// Takes the next used chain (`virtqueue_get_buf_ctx_packed`); its buffers are appended to `returned`, in
    /// order.
    ///
    /// # Errors
    /// [`QueueError::Device`] when the used descriptor makes no sense; then nothing was taken and the queue
    /// is of no more use.
    pub fn get_buf(&mut self, returned: &mut Vec<DmaBuf<Cpu>>) -> Result<Option<Used<C>>, QueueError> {
        let at = usize::from(self.next_used.index) * desc::SIZE;
        let mut flags = self.ring.load_acquire_u16(at + desc::FLAGS)?;
        if !self.next_used.is_used(flags) && std::mem::take(&mut self.event_moved) {
            // Whoever finds nothing counts on an interrupt for the next chain, so the device must see where the event
            // is now before the last look (`virtio_store_mb` in Linux, there for each chain).
            fence(Ordering::SeqCst);
            flags = self.ring.load_acquire_u16(at + desc::FLAGS)?;
        }
        if !self.next_used.is_used(flags) {
            return Ok(None);
        }
        let word = self.ring.read_u64(at + desc::LEN)?;
        let id = (word >> 32) as u16;
        let slot = self
            .slots
            .get_mut(usize::from(id))
            .ok_or(DeviceFault::UsedIdRange { id })?;
        // The length is reserved without the WRITE flag (2.8.10), but QEMU never sets the flag and Linux never asks for
        // it: for a buffer that the device may write to, the length counts in any case.
        let writable = slot.head.as_ref().is_some_and(|head| head.writable > 0);
        let len = if flags & WRITE != 0 || writable {
            word as u32
        } else {
            0
        };
        let head = slot.head.take_if(|head| len <= head.writable);
        let Some(Head {
            cookie, descriptors, ..
        }) = head
        else {
            return Err(match &slot.head {
                Some(head) => DeviceFault::UsedLength {
                    len,
                    capacity: head.writable,
                },
                None => DeviceFault::UsedIdNotHead { id },
            }
            .into());
        };
        let mut last = id;
        for n in 0..descriptors {
            let slot = &mut self.slots[usize::from(last)];
            returned.extend(slot.buffer.take().map(DmaBuf::take_back));
            if n + 1 < descriptors {
                last = slot.next;
            }
        }
        self.slots[usize::from(last)].next = self.free_head;
        self.free_head = id;
        self.num_free += descriptors;
        self.next_used.advance(descriptors, self.size);
        if self.event_idx && self.flags_shadow == RingEventFlags::Desc {
            // The event moves along with every chain taken, as long as callbacks are on.
            self.driver_event
                .write_u16(event::OFF_WRAP, self.next_used.off_wrap())?;
            self.event_moved = true;
        }
        Ok(Some(Used { cookie, len }))
    }

    /// Asks the device not to interrupt (`virtqueue_disable_cb_packed`). A hint: it may still do.
    ///
    /// # Errors
    /// [`OutOfBounds`] would be a bug here.
    pub fn disable_cb(&mut self) -> Result<(), OutOfBounds> {
        if self.flags_shadow != RingEventFlags::Disable {
            self.flags_shadow = RingEventFlags::Disable;
            self.driver_event
                .write_u16(event::FLAGS, RingEventFlags::Disable as u16)?;
        }
        Ok(())
    }

    /// Asks the device to interrupt for the next used chain (`virtqueue_enable_cb_packed`). `false` when one
    /// is there already: no interrupt may come for it, so look again.
    ///
    /// # Errors
    /// [`OutOfBounds`] would be a bug here.
    pub fn enable_cb(&mut self) -> Result<bool, OutOfBounds> {
        if self.event_idx {
            self.driver_event
                .write_u16(event::OFF_WRAP, self.next_used.off_wrap())?;
        }
        if self.flags_shadow == RingEventFlags::Disable {
            self.flags_shadow = if self.event_idx {
                RingEventFlags::Desc
            } else {
                RingEventFlags::Enable
            };
            self.driver_event
                .store_release_u16(event::FLAGS, self.flags_shadow as u16)?;
        }
        fence(Ordering::SeqCst);
        Ok(!self.more_used()?)
    }

    /// Takes the queue apart (`virtqueue_detach_unused_buf` until empty). Only after the queue's or the
    /// device's reset completed: the device must not know the memory any more.
    pub fn detach(mut self, mut each: impl FnMut(DmaBuf<Cpu>), mut cookies: impl FnMut(C)) {
        for slot in &mut self.slots {
            if let Some(buffer) = slot.buffer.take() {
                each(buffer.take_back());
            }
            if let Some(head) = slot.head.take() {
                cookies(head.cookie);
            }
        }
        for region in [&self.ring, &self.driver_event, &self.device_event] {
            region.set_device_access(false);
        }
    }
}

/// `vring_need_event`: whether going from `old` to `new` passed `event`, in 16-bit arithmetic.
fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// Why a used descriptor couldn't be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The device broke the protocol.
    #[error(transparent)]
    Device(#[from] DeviceFault),
    /// A bug here.
    #[error(transparent)]
    Internal(#[from] OutOfBounds),
}
