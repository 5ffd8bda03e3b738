//! What a broken or hostile client does, one act at a time.

use super::raw::{Answer, NO_REPLY, Raw, access, command, fields};
use hematite_bus::{DmaRegion, DmaSpace};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use vmm_sys_util::eventfd::EventFd;

/// Configuration space's region.
const CONFIG: u32 = 7;
/// Device Control of the PCI Express capability.
const DEVICE_CONTROL: u64 = 0xac + 8;
/// MSI-X among the interrupts.
const MSIX: u32 = 2;
const EVENTFD_TRIGGER: u32 = 1 << 2 | 1 << 5;
const NONE_TRIGGER: u32 = 1 | 1 << 5;
const PAGE: u64 = 4096;
/// Windows of BAR 0 where something answers.
const WINDOWS: [(u64, u64); 6] = [
    (0x0000, 0x40),
    (0x1000, 0x10),
    (0x2000, 0x4),
    (0x3000, 0x10),
    (0x4000, 0x400),
    (0x8000, 0x40),
];

/// Where the rings of the queues lie in the client's memory, and how far apart.
const RINGS: usize = 0x1_0000;
const RING_STRIDE: usize = 0x4000;
/// Receive, transmit, control, and one that may be absent.
const QUEUES: u16 = 4;

/// A client with some memory and no scruples.
pub struct Client<'a> {
    raw: Raw,
    rng: &'a mut ChaCha8Rng,
    memory: DmaSpace,
    /// Where its rings are.
    rings: DmaRegion,
    eventfds: Vec<EventFd>,
}

impl<'a> Client<'a> {
    /// Past the handshake, with its memory mapped.
    pub fn new(mut raw: Raw, rng: &'a mut ChaCha8Rng) -> io::Result<Self> {
        raw.version()?;
        let memory = DmaSpace::shared(DmaSpace::DEFAULT_IOVA_BASE, 1 << 20)?;
        let rings = memory.alloc(RINGS, 4096).map_err(io::Error::other)?;
        let mut client = Client {
            raw,
            rng,
            memory,
            rings,
            eventfds: Vec::new(),
        };
        let window = client.memory.window();
        client.map(window.start, window.end - window.start, 0)?;
        client.enable()?;
        Ok(client)
    }

    /// How many acts there are.
    pub fn acts(&mut self) -> u32 {
        self.rng.random_range(10..40)
    }

    fn map(&mut self, iova: u64, size: u64, offset: u64) -> io::Result<Answer> {
        let file = self.memory.file().ok_or(io::ErrorKind::Unsupported)?;
        let file = File::from(file.try_clone_to_owned()?);
        let rights = if self.rng.random_bool(0.8) {
            3
        } else {
            self.rng.random_range(0..4)
        };
        let body = fields(&[32, rights], &[offset, iova, size]);
        self.raw.call(command::DMA_MAP, &body, &[file.as_raw_fd()])
    }

    fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<Answer> {
        let body = access(region, offset, data.len() as u32, data);
        self.raw.call(command::REGION_WRITE, &body, &[])
    }

    /// BAR 0 at an address, decoding and bus mastering on.
    fn enable(&mut self) -> io::Result<()> {
        self.write(CONFIG, 0x10, &0xe000_0000u32.to_le_bytes())?;
        self.write(CONFIG, 0x14, &[0; 4])?;
        self.write(CONFIG, 0x04, &[0x06, 0])?;
        Ok(())
    }

    /// Somewhere in the client's memory, or a little beyond.
    fn address(&mut self) -> u64 {
        let window = self.memory.window();
        window.start + self.rng.random_range(0..window.end - window.start + 2 * PAGE)
    }

    /// A number that a register may not like.
    fn value(&mut self) -> u64 {
        match self.rng.random_range(0..4) {
            0 => self.rng.random(),
            1 => self.rng.random_range(0..4),
            2 => u64::MAX,
            _ => self.address(),
        }
    }

    /// One act. Errors are the answers that it deserves, but that there is none.
    pub fn act(&mut self) -> io::Result<()> {
        match self.rng.random_range(0..16) {
            0..=4 => self.register(),
            5 | 6 => self.configuration(),
            7 => self.queue(),
            8..=10 => self.descriptors(),
            11 | 12 => self.remap(),
            13 => self.interrupts(),
            14 => self.reset(),
            _ => self.unusual(),
        }
    }

    /// Any width, any alignment, in or outside of what answers.
    fn register(&mut self) -> io::Result<()> {
        let (start, len) = WINDOWS[self.rng.random_range(0..WINDOWS.len())];
        let offset = match self.rng.random_range(0..8) {
            0 => self.rng.random_range(0..0x1_0100),
            _ => start + self.rng.random_range(0..len),
        };
        self.access(0, offset)
    }

    fn configuration(&mut self) -> io::Result<()> {
        let offset = match self.rng.random_range(0..4) {
            0 => self.rng.random_range(0..4200),
            _ => self.rng.random_range(0..0x100),
        };
        self.access(CONFIG, offset)
    }

    fn access(&mut self, region: u32, offset: u64) -> io::Result<()> {
        let len = self.rng.random_range(1..12);
        // Requests that were made before the largest sizes shrink may still leave: the root complex calls it a broken rule.
        let sizes =
            region == CONFIG && offset < DEVICE_CONTROL + 2 && offset + u64::from(len) > DEVICE_CONTROL;
        if sizes || self.rng.random_bool(0.3) {
            let body = access(region, offset, len, &[]);
            self.raw.call(command::REGION_READ, &body, &[])?;
            return Ok(());
        }
        let value = self.value().to_le_bytes();
        let data: Vec<u8> = value.iter().cycle().take(len as usize).copied().collect();
        self.write(region, offset, &data)?;
        Ok(())
    }

    fn read(&mut self, offset: u64) -> io::Result<[u8; 4]> {
        let body = access(0, offset, 4, &[]);
        let answer = self.raw.call(command::REGION_READ, &body, &[])?;
        Ok(match answer {
            Answer::Done(payload) => payload.last_chunk().copied().unwrap_or_default(),
            Answer::Refused(_) => [0xff; 4],
        })
    }

    /// As a driver would, up to DRIVER_OK, but for the addresses, which may be anywhere.
    fn queue(&mut self) -> io::Result<()> {
        self.enable()?;
        for status in [0, 1, 3] {
            self.write(0, 0x14, &[status])?;
        }
        for select in 0..2u8 {
            self.write(0, 0x00, &[select, 0, 0, 0])?;
            let offered = self.read(0x04)?;
            self.write(0, 0x08, &[select, 0, 0, 0])?;
            self.write(0, 0x0c, &offered)?;
        }
        self.write(0, 0x14, &[0x0b])?;
        for queue in 0..QUEUES {
            self.write(0, 0x16, &queue.to_le_bytes())?;
            if self.rng.random_bool(0.8) {
                let size: u16 = self.rng.random_range(0..300);
                self.write(0, 0x18, &size.to_le_bytes())?;
            }
            let vector: u16 = self.rng.random_range(0..6);
            self.write(0, 0x1a, &vector.to_le_bytes())?;
            let ring = self.rings.iova() + u64::from(queue) * RING_STRIDE as u64;
            for (register, area) in [(0x20, ring), (0x28, ring + 0x3000), (0x30, ring + 0x3010)] {
                let at = match self.rng.random_range(0..20) {
                    0 => self.value(),
                    1 => self.address(),
                    _ => area,
                };
                self.write(0, register, &at.to_le_bytes())?;
            }
            self.write(0, 0x1c, &[1, 0])?;
        }
        self.write(0, 0x14, &[0x0f])?;
        Ok(())
    }

    /// Descriptors of all kinds, some of them good, then a doorbell.
    fn descriptors(&mut self) -> io::Result<()> {
        let queue = self.rng.random_range(0..QUEUES);
        let mut ring = Vec::new();
        for id in 0..self.rng.random_range(1..64u16) {
            let good = self.rng.random_bool(0.9);
            let address = if good {
                self.memory.window().start + 2 * RINGS as u64 + 2048 * u64::from(id)
            } else {
                self.value()
            };
            let len = match self.rng.random_range(0..8) {
                0 => self.rng.random_range(0..5000),
                _ => self.rng.random_range(72..1500),
            };
            // The first round's availability; a receive buffer is the device's to write.
            let flags = if good {
                0x80 | if queue == 0 { 2 } else { 0 }
            } else {
                self.rng.random::<u16>()
            };
            ring.extend_from_slice(&address.to_le_bytes());
            ring.extend_from_slice(&u32::to_le_bytes(len));
            ring.extend_from_slice(&id.to_le_bytes());
            ring.extend_from_slice(&flags.to_le_bytes());
        }
        let at = usize::from(queue) * RING_STRIDE;
        self.rings.copy_from_slice(at, &ring).map_err(io::Error::other)?;
        self.write(0, 0x1000 + 4 * u64::from(queue), &queue.to_le_bytes())?;
        Ok(())
    }

    /// Maps come and go under whatever the card is doing; some of them can't be.
    fn remap(&mut self) -> io::Result<()> {
        let window = self.memory.window();
        let len = window.end - window.start;
        match self.rng.random_range(0..6) {
            0 => {
                let all = 1 << 2;
                self.raw
                    .call(command::DMA_UNMAP, &fields(&[24, all], &[0, 0]), &[])?;
                self.map(window.start, len, 0)?;
            }
            1 => {
                let body = fields(&[24, 0], &[window.start, len]);
                self.raw.call(command::DMA_UNMAP, &body, &[])?;
                // In two parts, and perhaps with a hole between them.
                let cut = self.rng.random_range(1..len / PAGE) * PAGE;
                let hole = self.rng.random_range(0..2) * PAGE;
                self.map(window.start, cut, 0)?;
                if cut + hole < len {
                    self.map(window.start + cut + hole, len - cut - hole, cut + hole)?;
                }
            }
            2 => {
                let (iova, size, offset) = (self.value(), self.value(), self.value());
                self.map(iova, size, offset)?;
            }
            3 => {
                let flags = self.rng.random_range(0..8);
                let body = fields(&[24, flags], &[self.value(), self.value()]);
                self.raw.call(command::DMA_UNMAP, &body, &[])?;
            }
            4 => {
                // No file: nothing that the card could reach.
                let body = fields(&[32, 3], &[0, self.address(), PAGE]);
                self.raw.call(command::DMA_MAP, &body, &[])?;
            }
            _ => {
                let page = self.address() / PAGE * PAGE;
                self.raw
                    .call(command::DMA_UNMAP, &fields(&[24, 0], &[page, PAGE]), &[])?;
                self.map(page, PAGE, page.saturating_sub(window.start))?;
            }
        }
        Ok(())
    }

    fn interrupts(&mut self) -> io::Result<()> {
        let count = self.rng.random_range(0..5u32);
        let start = self.rng.random_range(0..3);
        let (flags, fds) = match self.rng.random_range(0..4) {
            0 => (NONE_TRIGGER, 0),
            1 => (self.rng.random(), self.rng.random_range(0..3)),
            _ => (EVENTFD_TRIGGER, count),
        };
        while self.eventfds.len() < fds as usize {
            self.eventfds.push(EventFd::new(0)?);
        }
        let index = if self.rng.random_bool(0.9) {
            MSIX
        } else {
            self.rng.random_range(0..9)
        };
        let body = fields(&[20, flags, index, start, count], &[]);
        let fds: Vec<_> = self.eventfds[..fds as usize]
            .iter()
            .map(AsRawFd::as_raw_fd)
            .collect();
        self.raw.call(command::SET_IRQS, &body, &fds)?;
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        match self.rng.random_range(0..4) {
            0 => {
                self.raw.call(command::DEVICE_RESET, &[], &[])?;
            }
            1 => {
                // Device Control, Initiate Function Level Reset. Max_Payload_Size is in the other byte (see `access`).
                self.write(CONFIG, DEVICE_CONTROL + 1, &[0xa8])?;
                self.enable()?;
            }
            2 => {
                let command = self.rng.random_range(0..8);
                self.write(CONFIG, 0x04, &[command, 0])?;
                self.write(0, 0x14, &[0])?;
            }
            _ => {
                self.write(0, 0x14, &[0])?;
            }
        }
        Ok(())
    }

    /// Well-formed, and odd all the same.
    fn unusual(&mut self) -> io::Result<()> {
        match self.rng.random_range(0..6) {
            0 => {
                let region = self.rng.random_range(0..12);
                let (offset, len) = (self.value(), self.rng.random_range(0..10_000));
                let body = access(region, offset, len, &[]);
                self.raw.call(command::REGION_READ, &body, &[])?;
            }
            1 => {
                let index = self.rng.random_range(0..12);
                let body = fields(&[32, 0, index, 0], &[0, 0]);
                self.raw.call(command::GET_REGION_INFO, &body, &[])?;
            }
            2 => {
                let index = self.rng.random_range(0..12);
                let body = fields(&[16, 0, index, 0], &[]);
                self.raw.call(command::GET_IRQ_INFO, &body, &[])?;
            }
            3 => {
                self.raw
                    .call(command::GET_INFO, &fields(&[16, 0, 0, 0], &[]), &[])?;
            }
            4 => {
                // Nobody waits for these.
                for _ in 0..self.rng.random_range(1..20) {
                    let data = self.value().to_le_bytes();
                    let doorbell = 0x1000 + 4 * self.rng.random_range(0..4);
                    let body = access(0, doorbell, 4, &data[..4]);
                    self.raw.send(command::REGION_WRITE, NO_REPLY, &body, &[])?;
                }
            }
            _ => {
                self.raw.version()?;
            }
        }
        Ok(())
    }

    /// The last act: how it goes. Nothing is awaited any more.
    pub fn leave(mut self) {
        // The server may hang up first, in the midst of it.
        let _ = match self.rng.random_range(0..8) {
            0 | 1 => Ok(()),
            2 => self.raw.stream.shutdown(Shutdown::Write),
            // In the middle of a header, and of a payload.
            3 => {
                let header = self.raw.header(command::REGION_WRITE, 24, 0);
                let len = self.rng.random_range(1..header.len());
                self.raw.send_bytes(&header[..len])
            }
            4 => {
                let mut message = self.raw.header(command::REGION_WRITE, 16 + 4096, 0).to_vec();
                message.extend(access(0, 0, 4096, &[]));
                message.resize(message.len() + self.rng.random_range(0..4095), 0xa5);
                self.raw.send_bytes(&message)
            }
            5 => self.lie(),
            6 => {
                let noise: Vec<u8> = (0..self.rng.random_range(1..2000))
                    .map(|_| self.rng.random())
                    .collect();
                self.raw.send_bytes(&noise)
            }
            _ => {
                let reply = 1;
                let command = self.rng.random_range(0..20);
                self.raw.send(command, reply, &[0; 64], &[])
            }
        };
    }

    /// A message whose sizes contradict each other, or that brings files that nobody asked for.
    fn lie(&mut self) -> io::Result<()> {
        let command = self.rng.random_range(0..17);
        let len = self.rng.random_range(0..200);
        let mut message = self.raw.header(command, len, 0).to_vec();
        let size: u32 = match self.rng.random_range(0..4) {
            0 => 0,
            1 => self.rng.random_range(0..40),
            2 => self.rng.random_range(0..1 << 16),
            _ => 1 << 20,
        };
        message[4..8].copy_from_slice(&size.to_le_bytes());
        message.extend((0..len).map(|_| self.rng.random::<u8>()));
        let file = self.memory.file().ok_or(io::ErrorKind::Unsupported)?;
        let fds = vec![file.as_raw_fd(); self.rng.random_range(0..20)];
        use vmm_sys_util::sock_ctrl_msg::ScmSocket;
        let sent = self.raw.stream.send_with_fds(&[&message[..]], &fds);
        sent.map(drop)
            .map_err(|error| io::Error::from_raw_os_error(error.errno()))
    }
}
