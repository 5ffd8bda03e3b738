//! A host at TLP level for the tests of the PCI function, and models of the queue engines.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod virtio;

use std::{cell::Cell, rc::Rc};

use hematite_abi::port;
use hematite_nic::pcie::Function;
use hematite_testbench::{
    Agent, Bench, Dut, Error, Handle, HandshakeSink, HandshakeSource, Pace, Packet, Rng, StreamSink,
    StreamSource, ns,
};
use hematite_verilator::{Model, PortAny};
use rand::RngExt;

/// Virtqueues of the function under test: a pair and the control queue.
pub const QUEUES: usize = 3;
/// Its MSI-X vectors.
pub const VECTORS: usize = 3;
pub const BAR: u64 = 0x0000_0007_1234_0000;
pub const REQUESTER: u16 = 0x0018;
pub const FUNCTION: u16 = 0x0500;
pub const MAC: u64 = 0x0605_0403_0252;

/// A TLP from its DWs.
pub fn packet(words: &[u32]) -> Packet {
    Packet::good(words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>())
}

/// The DWs of a TLP.
pub fn words(packet: &Packet) -> Vec<u32> {
    assert!(!packet.error, "the function sent a TLP with an error");
    assert_eq!(packet.data.len() % 4, 0);
    packet
        .data
        .chunks(4)
        .map(|c| u32::from_le_bytes(c.try_into().expect("four bytes")))
        .collect()
}

/// Why a request was not answered with data.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Refusal {
    UnsupportedRequest,
    Other(u32),
}

/// A request that waits for its completions.
#[derive(Debug, Clone)]
pub struct Outstanding {
    pub tag: u8,
    pub memory: bool,
    pub locked: bool,
    pub address: u64,
    pub length: u32,
    pub first: u8,
    pub last: u8,
    pub class: u32,
    pub attributes: u32,
}

impl Outstanding {
    fn enabled(&self) -> (u32, u32) {
        let low = if self.first == 0 {
            0
        } else {
            self.first.trailing_zeros()
        };
        let final_enables = if self.length == 1 { self.first } else { self.last };
        let high = if final_enables == 0 {
            0
        } else {
            final_enables.leading_zeros() - 4
        };
        (low, high)
    }
    /// Byte Count of the first completion (PCI Express 2.3.1.1, table 2-39).
    pub fn byte_count(&self) -> u32 {
        if !self.memory {
            return 4;
        }
        if self.length == 1 && self.first == 0 {
            return 1;
        }
        let (low, high) = self.enabled();
        self.length * 4 - low - high
    }
}

/// One queue engine: is busy while its queue runs, and for a while after.
pub struct Engine {
    run: PortAny,
    notify: PortAny,
    idle: PortAny,
    failed: PortAny,
    busy: bool,
    /// Cycles from the fall of `run` to `idle`; counts down.
    pub linger: u32,
    left: u32,
    pub fail: bool,
    pub rings: u64,
    /// Set while the engine is not idle.
    pub working: Rc<Cell<bool>>,
}

impl Engine {
    fn new(model: &Model, queue: usize) -> Result<Self, Error> {
        let port = |name: &str| model.any(&format!("queues_{queue}_{name}"));
        Ok(Engine {
            run: port("run")?,
            notify: port("notify")?,
            idle: port("idle")?,
            failed: port("failed")?,
            busy: false,
            linger: 0,
            left: 0,
            fail: false,
            rings: 0,
            working: Rc::default(),
        })
    }
}

impl Agent for Engine {
    fn sample(&mut self, model: &Model, _cycle: u64) -> Result<(), Error> {
        let run = model.get_any(self.run) != 0;
        self.rings += model.get_any(self.notify);
        if run {
            self.busy = true;
            self.left = self.linger;
        } else if self.left > 0 {
            self.left -= 1;
        } else {
            self.busy = false;
            self.fail = false;
        }
        self.working.set(self.busy);
        Ok(())
    }
    fn drive(&mut self, model: &mut Model, _in_reset: bool) {
        model.set_any(self.idle, (!self.busy).into());
        model.set_any(self.failed, self.fail.into());
    }
}

/// The function on a bench, with a host.
pub struct Host {
    pub bench: Bench,
    pub rx: Handle<StreamSource>,
    pub tx: Handle<StreamSink>,
    pub completions: Handle<StreamSink>,
    pub reads: Handle<StreamSource>,
    pub writes: Handle<StreamSource>,
    pub message_requests: Handle<HandshakeSink<2>>,
    pub messages: Handle<StreamSink>,
    pub interrupts: [Handle<HandshakeSource<1>>; QUEUES],
    pub engines: [Handle<Engine>; QUEUES],
    /// Memory requests of the DMA engines that came while the host waited for completions.
    pub requests: Vec<Vec<u32>>,
    tag: u8,
}

/// The function, verilated.
pub fn function() -> Dut {
    Dut::new(&Function::<QUEUES, { QUEUES + 1 }, 2>::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// What the PHY says of a full-duplex link with 1000 Mb/s.
pub fn phy(up: u32) -> u128 {
    u128::from(up | port::SPEED_1000 << 1 | 1 << 3)
}

impl Host {
    pub fn new(dut: &Dut, rng: &mut Rng) -> Result<Self, Error> {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        let mut pace = || Pace::random(rng);
        let rx = bench.stream_source("tlp_rx", "clock", pace())?;
        let tx = bench.stream_sink("tlp_tx", "clock", pace())?;
        let completions = bench.stream_sink("completion", "clock", pace())?;
        let reads = bench.stream_source("read_tlp", "clock", pace())?;
        let writes = bench.stream_source("write_tlp", "clock", pace())?;
        let message_requests =
            bench.handshake_sink("message_request", ["address", "length"], "clock", pace())?;
        let messages = bench.stream_sink("message", "clock", pace())?;
        let interrupts = [
            bench.handshake_source("interrupts_0", ["vector"], "clock", pace())?,
            bench.handshake_source("interrupts_1", ["vector"], "clock", pace())?,
            bench.handshake_source("interrupts_2", ["vector"], "clock", pace())?,
        ];
        let mut engine = |queue| {
            let engine = Engine::new(bench.model(), queue)?;
            bench.attach("clock", engine)
        };
        let engines = [engine(0)?, engine(1)?, engine(2)?];
        for name in [
            "credit_posted",
            "credit_nonposted",
            "credit_completion",
            "dma_idle",
            "port_ready",
        ] {
            bench.set(name, 1)?;
        }
        bench.set("phy", phy(1))?;
        bench.set("announced", 0)?;
        bench.set("mac_address", MAC.into())?;
        bench.set("mac_set", 0)?;
        bench.reset(&["reset"], 4)?;
        bench.run(80)?;
        Ok(Host {
            bench,
            rx,
            tx,
            completions,
            reads,
            writes,
            message_requests,
            messages,
            interrupts,
            engines,
            requests: vec![],
            tag: 0,
        })
    }

    /// A host that has enumerated the function: BAR, memory space, bus master, MSI-X.
    pub fn enumerated(dut: &Dut, rng: &mut Rng) -> Result<Self, Error> {
        let mut host = Self::new(dut, rng)?;
        host.enumerate()?;
        Ok(host)
    }

    pub fn enumerate(&mut self) -> Result<(), Error> {
        self.config_write(0x10, 0xf, BAR as u32)?;
        self.config_write(0x14, 0xf, (BAR >> 32) as u32)?;
        self.config_write(0x04, 0x3, 0x0006)?;
        self.config_write(0x48, 0xc, 0x8000_0000)
    }

    pub fn send(&mut self, tlp: &[u32]) {
        self.bench[self.rx].send(packet(tlp));
    }

    fn next_tag(&mut self) -> u8 {
        self.tag = self.tag.wrapping_add(1);
        self.tag
    }

    pub fn send_config(&mut self, id: u16, register: u32, enables: u8, write: Option<u32>) -> Outstanding {
        let tag = self.next_tag();
        let mut tlp = vec![
            0x0400_0001 | if write.is_some() { 0x4000_0000 } else { 0 },
            u32::from(REQUESTER) << 16 | u32::from(tag) << 8 | u32::from(enables),
            u32::from(id) << 16 | register & 0xffc,
        ];
        tlp.extend(write);
        self.send(&tlp);
        Outstanding {
            tag,
            memory: false,
            locked: false,
            address: 0,
            length: 1,
            first: enables,
            last: 0,
            class: 0,
            attributes: 0,
        }
    }

    pub fn try_config_read(&mut self, id: u16, register: u32) -> Result<Result<u32, Refusal>, Error> {
        let request = self.send_config(id, register, 0xf, None);
        Ok(self.answer(&request)?.map(|data| data[0]))
    }

    pub fn config_read(&mut self, register: u32) -> Result<u32, Error> {
        Ok(self
            .try_config_read(FUNCTION, register)?
            .expect("a configuration read succeeds"))
    }

    pub fn config_write(&mut self, register: u32, enables: u8, value: u32) -> Result<(), Error> {
        let request = self.send_config(FUNCTION, register, enables, Some(value));
        assert_eq!(
            self.answer(&request)?,
            Ok(vec![]),
            "a configuration write succeeds"
        );
        Ok(())
    }

    /// The first DWs of a memory request; three-DW header below 4 GiB.
    pub fn memory_header(dw0: u32, tag: u8, address: u64, length: u32, first: u8, last: u8) -> Vec<u32> {
        let four = if address >> 32 == 0 { 0 } else { 0x2000_0000 };
        let mut tlp = vec![
            dw0 | four | length & 0x3ff,
            u32::from(REQUESTER) << 16 | u32::from(tag) << 8 | u32::from(last) << 4 | u32::from(first),
        ];
        if four != 0 {
            tlp.push((address >> 32) as u32);
        }
        tlp.push(address as u32 & !3);
        tlp
    }

    pub fn send_write(&mut self, address: u64, data: &[u32], first: u8, last: u8) {
        let mut tlp = Self::memory_header(0x4000_0000, 0, address, data.len() as u32, first, last);
        tlp.extend(data);
        self.send(&tlp);
    }

    pub fn send_read(&mut self, address: u64, length: u32, first: u8, last: u8) -> Outstanding {
        let tag = self.next_tag();
        let (class, attributes) = (u32::from(tag) % 8, u32::from(tag) / 8 % 4);
        let tlp = Self::memory_header(class << 20 | attributes << 12, tag, address, length, first, last);
        self.send(&tlp);
        Outstanding {
            tag,
            memory: true,
            locked: false,
            address,
            length,
            first,
            last,
            class,
            attributes,
        }
    }

    /// Waits for a TLP of the function.
    pub fn receive(&mut self) -> Result<Vec<u32>, Error> {
        let tx = self.tx;
        self.bench.run_until(200_000, |bench| !bench[tx].is_empty())?;
        Ok(words(&self.bench[tx].pop().expect("one came")))
    }

    /// Waits for a completion; memory requests that come before it go to `requests`.
    fn receive_completion(&mut self) -> Result<Vec<u32>, Error> {
        loop {
            let tlp = self.receive()?;
            if tlp[0] >> 24 & 0x1f != 0 {
                return Ok(tlp);
            }
            self.requests.push(tlp);
        }
    }

    /// What the DMA engines have sent since the last time.
    pub fn take_requests(&mut self) -> Vec<Vec<u32>> {
        let tx = self.tx;
        self.requests.extend(self.bench[tx].take().iter().map(words));
        std::mem::take(&mut self.requests)
    }

    /// Collects and checks the completions of a request.
    pub fn answer(&mut self, request: &Outstanding) -> Result<Result<Vec<u32>, Refusal>, Error> {
        let mut data = vec![];
        let mut left = request.byte_count();
        let mut address = request.address & !3;
        let (mut low, _) = request.enabled();
        loop {
            let tlp = self.receive_completion()?;
            let kind = tlp[0] >> 24;
            assert_eq!(
                kind & 0x1f,
                0x0a | u32::from(request.locked),
                "a completion: {tlp:08x?}"
            );
            assert_eq!(tlp[0] >> 20 & 7, request.class, "TC is echoed");
            assert_eq!(tlp[0] >> 12 & 3, request.attributes, "Attr is echoed");
            assert_eq!(tlp[2] >> 16, u32::from(REQUESTER));
            assert_eq!(tlp[2] >> 8 & 0xff, u32::from(request.tag), "{tlp:08x?}");
            assert_eq!(tlp[1] & 0xfff, left & 0xfff, "Byte Count: {tlp:08x?}");
            let lower = if request.memory {
                (address as u32 | low) & 0x7f
            } else {
                0
            };
            assert_eq!(tlp[2] & 0x7f, lower, "Lower Address: {tlp:08x?}");
            match tlp[1] >> 13 & 7 {
                0 => {}
                status => {
                    assert_eq!((kind >> 5, tlp.len()), (0, 3), "a refusal carries no data");
                    return Ok(Err(if status == 1 {
                        Refusal::UnsupportedRequest
                    } else {
                        Refusal::Other(status)
                    }));
                }
            }
            if kind >> 5 == 0 {
                assert_eq!((tlp[0] & 0x3ff, tlp.len()), (0, 3));
                return Ok(Ok(data));
            }
            let length = tlp[0] & 0x3ff;
            assert_eq!((kind >> 5, tlp.len()), (2, 3 + length as usize));
            data.extend_from_slice(&tlp[3..]);
            address += u64::from(length) * 4;
            if data.len() as u32 == request.length {
                return Ok(Ok(data));
            }
            assert!(address.is_multiple_of(128), "split at {address:x}");
            left -= length * 4 - low;
            low = 0;
        }
    }

    pub fn read32(&mut self, offset: u32) -> Result<u32, Error> {
        let request = self.send_read(BAR + u64::from(offset), 1, 0xf, 0);
        Ok(self.answer(&request)?.expect("BAR 0 answers")[0])
    }

    /// `size` bytes at any naturally aligned offset.
    pub fn read(&mut self, offset: u32, size: u32) -> Result<u32, Error> {
        let enables = ((1 << size) - 1) << (offset & 3);
        let request = self.send_read(BAR + u64::from(offset), 1, enables, 0);
        let word = self.answer(&request)?.expect("BAR 0 answers")[0] >> (offset % 4 * 8);
        Ok(if size == 4 {
            word
        } else {
            word & ((1 << (size * 8)) - 1)
        })
    }

    pub fn write(&mut self, offset: u32, size: u32, value: u32) {
        let enables = ((1 << size) - 1) << (offset & 3);
        self.send_write(BAR + u64::from(offset), &[value << (offset % 4 * 8)], enables, 0);
    }

    /// Waits until all that was sent is performed.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.read32(hematite_abi::bar0::VENDOR).map(|_| ())
    }

    pub fn counter(&mut self, index: usize) -> Result<u64, Error> {
        // Counters lag by up to 65 cycles.
        self.bench.run(200)?;
        let offset = hematite_abi::vendor::counter_offset(index);
        let request = self.send_read(BAR + u64::from(offset), 2, 0xf, 0xf);
        let data = self.answer(&request)?.expect("counters answer");
        Ok(u64::from(data[0]) | u64::from(data[1]) << 32)
    }

    /// Forgets messages under way, as the write engine does in its reset, which is on now.
    pub fn reset_messages(&mut self) -> Result<(), Error> {
        self.bench.tick()?;
        let (requests, data) = (self.message_requests, self.messages);
        self.bench[requests].take();
        self.bench[requests].reset();
        self.bench[data].take();
        self.bench[data].reset();
        Ok(())
    }

    /// The MSI-X messages that reached the write engine.
    pub fn take_messages(&mut self) -> Vec<(u64, u32)> {
        let (requests, data) = (self.message_requests, self.messages);
        let data = self.bench[data].take();
        let mut out = vec![];
        for packet in data {
            let [address, length] = self.bench[requests].pop().expect("a request precedes its data");
            assert_eq!(length, 4);
            out.push((address as u64, words(&packet)[0]));
        }
        out
    }
}

/// Random byte enables that a request of this length may have (PCI Express 2.2.5).
pub fn legal_enables(rng: &mut Rng, address: u64, length: u32) -> (u8, u8) {
    let contiguous_up = [0xf, 0xe, 0xc, 0x8];
    let contiguous_down = [0xf, 0x7, 0x3, 0x1];
    match length {
        1 => (rng.random_range(0..16), 0),
        2 if address.is_multiple_of(8) => (rng.random_range(1..16), rng.random_range(1..16)),
        _ => (
            contiguous_up[rng.random_range(0..4)],
            contiguous_down[rng.random_range(0..4)],
        ),
    }
}

/// Waits until messages under way have arrived.
pub fn settle(host: &mut Host) -> Result<(), Error> {
    host.bench.run(20)?;
    let quiet = |host: &mut Host| -> Result<bool, Error> {
        Ok(host.bench.get("message_request_valid")? == 0 && host.bench.get("message_valid")? == 0)
    };
    let mut calm = 0;
    while calm < 20 {
        calm = if quiet(host)? { calm + 1 } else { 0 };
        host.bench.run(1)?;
    }
    Ok(())
}
