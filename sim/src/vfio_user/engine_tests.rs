//! A client in this thread that looks at the card only when nothing is under way, so that what it does depends on
//! nothing else: resting changes nothing, memory in single pages, maps that come and go, bus mastering, function-level
//! reset through configuration space.

use super::super::link::link;
use super::super::maps::Access;
use super::*;
use crate::pins::{Beat, Clock, GmiiSymbol, PcieInputs, PcieOutputs, PhyStatus};
use crate::verilated::VerilatedCard;
use crate::wire::loopback::Loopback;
use hematite_abi::bar0;
use hematite_bus::{DmaSpace, PciFunction, Width, pci};
use hematite_driver::{CoalesceParam, NapiReceive, Options, VirtioNet};
use hematite_netstack::{Instant, NetDevice, SkBuff, SkbPool};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use vfio_bindings::bindings::vfio::VFIO_PCI_CONFIG_REGION_INDEX;

/// What left the card, without when.
#[derive(Debug, Default, PartialEq, Eq)]
struct Trace {
    beats: Vec<(u64, u8, bool)>,
    line: Vec<u8>,
}

/// A card whose outputs are noted.
struct Watched {
    card: VerilatedCard,
    trace: Arc<Mutex<Trace>>,
    tx_ready: bool,
    in_reset: bool,
}

impl CardPins for Watched {
    fn set_core_reset(&mut self, asserted: bool) {
        self.in_reset = asserted;
        self.card.set_core_reset(asserted);
    }
    fn set_clock(&mut self, clock: Clock, high: bool) {
        self.card.set_clock(clock, high);
    }
    fn drive_pcie(&mut self, inputs: &PcieInputs) {
        self.tx_ready = inputs.tx_ready;
        self.card.drive_pcie(inputs);
    }
    fn sample_pcie(&self) -> PcieOutputs {
        let outputs = self.card.sample_pcie();
        if let Some(Beat { data, keep, last, .. }) = outputs.tx.filter(|_| self.tx_ready && !self.in_reset) {
            let data = if keep == 0xff { data } else { data & 0xffff_ffff };
            let mut trace = self.trace.lock().unwrap_or_else(PoisonError::into_inner);
            trace.beats.push((data, keep, last));
        }
        outputs
    }
    fn drive_gmii(&mut self, symbol: GmiiSymbol) {
        self.card.drive_gmii(symbol);
    }
    fn sample_gmii(&self) -> GmiiSymbol {
        let symbol = self.card.sample_gmii();
        if symbol.valid && !self.in_reset {
            let mut trace = self.trace.lock().unwrap_or_else(PoisonError::into_inner);
            trace.line.push(symbol.data);
        }
        symbol
    }
    fn is_holding(&self) -> bool {
        self.card.is_holding()
    }
    fn drive_phy(&mut self, status: PhyStatus) {
        self.card.drive_phy(status);
    }

    fn eval(&mut self, now: u64) -> Result<(), CardFault> {
        self.card.eval(now)
    }
}

/// What is special about a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct How {
    /// Time passes where the simulation would rest.
    awake: bool,
    /// Memory is mapped page by page, and other pages come and go all the time.
    storm: bool,
}

const PAGE: u64 = 4096;

/// See the module's documentation.
struct Client {
    engine: Engine<Watched, Loopback>,
    dma: DmaSpace,
    vectors: Vec<UnixStream>,
    how: How,
    rng: ChaCha8Rng,
    trace: Arc<Mutex<Trace>>,
}

impl Client {
    fn new(seed: u64, how: How) -> Self {
        let trace = Arc::new(Mutex::new(Trace::default()));
        let model = hematite_card::card().instantiate(seed).expect("an instance");
        let card = Watched {
            card: VerilatedCard::new(model).expect("the card's ports"),
            trace: trace.clone(),
            tx_ready: false,
            in_reset: true,
        };
        let (_caller, callee) = link().expect("a link");
        let setup = Setup {
            seed,
            capture: None,
            stop: UnixStream::pair().expect("a pair").0,
            rest: true,
        };
        let dma = DmaSpace::shared(DmaSpace::DEFAULT_IOVA_BASE, 2 << 20).expect("memory");
        let mut client = Client {
            engine: Engine::new(card, Loopback::new(), setup, callee).expect("an engine"),
            dma,
            vectors: Vec::new(),
            how,
            rng: ChaCha8Rng::seed_from_u64(!seed),
            trace,
        };
        let window = client.dma.window();
        let step = if how.storm {
            PAGE
        } else {
            window.end - window.start
        };
        for iova in window.clone().step_by(step as usize) {
            client.map(iova, step, iova - window.start).expect("mapped");
        }
        client.place();
        client
    }

    /// As firmware does.
    fn place(&mut self) {
        self.config_write(pci::reg::BAR0, Width::U32, 0xe000_0000)
            .expect("placed");
    }

    fn map(&mut self, iova: u64, size: u64, offset: u64) -> io::Result<()> {
        let file = self.dma.file().expect("shared").try_clone_to_owned()?;
        let map = Command::Map {
            iova,
            size,
            file: Some((File::from(file), offset)),
            access: Access {
                read: true,
                write: true,
            },
        };
        self.engine.execute(map).map(drop)
    }

    /// Pages that the card has no business with come and go.
    fn storm(&mut self) {
        let above = self.dma.window().end + PAGE;
        for _ in 0..self.rng.random_range(0..50) {
            let iova = above + PAGE * self.rng.random_range(0..64);
            if self.map(iova, PAGE, 0).is_err() {
                let gone = self.engine.execute(Command::Unmap { iova, size: PAGE });
                gone.expect("it is there");
            }
        }
    }

    fn call(&mut self, command: Command) -> Result<Vec<u8>, BusError> {
        if self.how.storm {
            self.storm();
        }
        let answer = self.engine.execute(command);
        self.engine.busy_at = self.engine.machine.borrow().cycles();
        while self.engine.is_busy() {
            self.engine.step().map_err(|_| BusError::Gone)?;
        }
        if self.how.awake {
            for _ in 0..self.rng.random_range(0..2 * QUIET / SLICE) {
                self.engine.step().map_err(|_| BusError::Gone)?;
            }
        }
        self.engine.device.deliver();
        answer.map_err(|error| BusError::Io(error.kind()))
    }

    fn read(&mut self, region: u32, offset: u64, width: Width) -> Result<u64, BusError> {
        let len = width.bytes();
        let bytes = self.call(Command::Read { region, offset, len })?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn write(&mut self, region: u32, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        let data = value.to_le_bytes()[..width.bytes()].to_vec();
        self.call(Command::Write { region, offset, data }).map(drop)
    }

    /// Packets that the card sent so far.
    fn packets(&self) -> usize {
        let trace = self.trace.lock().unwrap_or_else(PoisonError::into_inner);
        trace.beats.iter().filter(|(_, _, last)| *last).count()
    }
}

impl PciFunction for Client {
    fn config_read(&mut self, offset: u16, width: Width) -> Result<u32, BusError> {
        let value = self.read(VFIO_PCI_CONFIG_REGION_INDEX, offset.into(), width)?;
        Ok(value as u32)
    }
    fn config_write(&mut self, offset: u16, width: Width, value: u32) -> Result<(), BusError> {
        self.write(VFIO_PCI_CONFIG_REGION_INDEX, offset.into(), width, value.into())
    }
    fn bar_size(&self, bar: u8) -> Result<u64, BusError> {
        Ok(self.engine.device.bar_sizes()[usize::from(bar)])
    }
    fn mmio_read(&mut self, bar: u8, offset: u64, width: Width) -> Result<u64, BusError> {
        self.read(bar.into(), offset, width)
    }
    fn mmio_write(&mut self, bar: u8, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        self.write(bar.into(), offset, width, value)
    }
    fn dma(&self) -> &DmaSpace {
        &self.dma
    }
    fn enable_msix(&mut self, vectors: u16) -> Result<(), BusError> {
        let mut fds = Vec::new();
        self.vectors.clear();
        for _ in 0..vectors {
            let (raised, raises) = UnixStream::pair()?;
            raised.set_nonblocking(true)?;
            self.vectors.push(raised);
            fds.push(File::from(OwnedFd::from(raises)));
        }
        let count = vectors.into();
        self.call(Command::SetVectors { start: 0, count, fds }).map(drop)
    }
    fn disable_msix(&mut self) -> Result<(), BusError> {
        self.vectors.clear();
        let fds = Vec::new();
        self.call(Command::SetVectors {
            start: 0,
            count: 0,
            fds,
        })
        .map(drop)
    }
    fn take_interrupt(&mut self) -> Option<u16> {
        let raised = self
            .vectors
            .iter()
            .position(|mut vector| vector.read(&mut [0; 8]).is_ok());
        raised.map(|vector| vector as u16)
    }
    fn reset(&mut self) -> Result<(), BusError> {
        self.call(Command::Reset).map(drop)
    }
}

struct Sink {
    pool: SkbPool,
    frames: Vec<Vec<u8>>,
}

impl NapiReceive for Sink {
    fn napi_alloc_skb(&mut self, len: usize) -> Option<SkBuff> {
        self.pool.alloc(len)
    }
    fn napi_gro_receive(&mut self, skb: SkBuff) {
        self.frames.push(skb.data().to_vec());
    }
    fn napi_consume_skb(&mut self, skb: SkBuff) {
        self.pool.recycle(skb);
    }
}

/// The driver on such a client, and frames for it.
struct Bench {
    net: VirtioNet<Client>,
    sink: Sink,
    rng: ChaCha8Rng,
    seed: u64,
}

impl Bench {
    fn new(seed: u64, how: How) -> Self {
        let options = Options {
            rx_ring: 64,
            tx_ring: 64,
            ..Options::default()
        };
        let mut net = VirtioNet::probe(Client::new(seed, how), options).expect("a card");
        net.open().expect("it opens");
        let sink = Sink {
            pool: SkbPool::new(64),
            frames: Vec::new(),
        };
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Bench { net, sink, rng, seed }
    }

    /// Queues frames and rings once.
    fn send(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        for _ in 0..count {
            let len = self.rng.random_range(60..1514);
            let body = (6..len).map(|_| self.rng.random());
            let frame: Vec<u8> = [0xff; 6].into_iter().chain(body).collect();
            let mut skb = self.sink.pool.alloc(len).expect("memory");
            skb.put_slice(&frame).expect("room");
            assert!(self.net.start_xmit(skb).is_ok());
            sent.push(frame);
        }
        self.net.xmit_flush();
        sent
    }

    /// What came back, all of which is there by now; the rounds are for the polls' budget.
    fn receive(&mut self) -> Vec<Vec<u8>> {
        for _ in 0..4 {
            let served = self.net.service(|| Instant::ZERO, &mut self.sink);
            served.expect("a device that works");
        }
        std::mem::take(&mut self.sink.frames)
    }

    fn exchange(&mut self, burst: usize) {
        let sent = self.send(burst);
        assert_eq!(self.receive(), sent, "seed {}", self.seed);
    }

    fn client(&mut self) -> &mut Client {
        self.net.function()
    }
}

/// Brings the card up, sends bursts over the wire and back, resets it.
fn run(seed: u64, how: How) -> Trace {
    let mut bench = Bench::new(seed, how);
    for burst in [1, 2, 8, 17] {
        bench.exchange(burst);
    }
    let (client, removed) = bench.net.remove();
    removed.expect("it resets");
    assert_eq!(client.engine.report.faults, 0);
    let mut trace = client.trace.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *trace)
}

#[test]
fn neither_rest_nor_the_shape_of_maps_changes_what_the_card_does() {
    let seed = crate::random::seed();
    let plain = run(seed, How::default());
    assert!(plain.beats.len() > 1000 && plain.line.len() > 10_000);
    let how = How {
        awake: true,
        storm: true,
    };
    assert!(
        run(seed, how) == plain,
        "seed {seed}: the card did something else"
    );
}

#[test]
fn a_moderated_interrupt_comes_before_the_rest() {
    let mut bench = Bench::new(1, How::default());
    let slow = CoalesceParam {
        rx_usecs: 700,
        rx_max_frames: 64,
        ..CoalesceParam::default()
    };
    bench.net.set_coalesce(slow).expect("a control queue");
    // The first is told of at once. The others wait, for ten times what the pins are watched for.
    for burst in [1, 1, 3] {
        bench.exchange(burst);
    }
}

#[test]
fn without_bus_mastering_the_card_is_silent() {
    let mut bench = Bench::new(1, How::default());
    bench.exchange(4);
    pci::clear_master(bench.client()).expect("a register");
    let before = bench.client().packets();
    let sent = bench.send(4);
    assert_eq!(bench.receive(), Vec::<Vec<u8>>::new());
    assert_eq!(
        bench.client().packets(),
        before,
        "doorbells alone make no packets"
    );
    // What was asked for meanwhile is done once it may be.
    pci::enable(bench.client()).expect("a register");
    let later = bench.send(1);
    assert_eq!(bench.receive(), [sent, later].concat());
}

#[test]
fn a_function_level_reset_through_configuration_space() {
    let mut bench = Bench::new(1, How::default());
    bench.exchange(4);
    let client = bench.client();
    let capabilities = pci::capabilities(client).expect("a list");
    let express = capabilities.iter().find(|c| c.id == pci::CAP_ID_EXPRESS);
    let control = express.expect("PCI Express").offset + 8;
    let value = client.config_read(control, Width::U16).expect("a register");
    client
        .config_write(control, Width::U16, value | 1 << 15)
        .expect("a register");
    let command = client
        .config_read(pci::reg::COMMAND, Width::U16)
        .expect("a register");
    assert_eq!(
        command & u32::from(pci::COMMAND_BUS_MASTER | pci::COMMAND_MEMORY),
        0
    );
    assert_eq!(
        client
            .config_read(pci::reg::BAR0, Width::U32)
            .expect("a register")
            & !0xf,
        0
    );
    // Without an address nothing answers: the driver finds its device gone.
    let gone = bench.net.check_device().expect_err("no device");
    assert!(
        gone.to_string().contains("gone") || gone.to_string().contains("removed"),
        "{gone}"
    );
    bench.client().place();
    bench.net.reset_and_restore().expect("it comes back");
    bench.exchange(17);
}

#[test]
fn the_msix_table_is_the_servers() {
    let mut bench = Bench::new(1, How::default());
    bench.exchange(4);
    let client = bench.client();
    for at in (0..0x40).step_by(8) {
        let entry = u64::from(bar0::MSIX_TABLE) + at;
        client.mmio_write(0, entry, Width::U64, !at).expect("dropped");
        assert_eq!(client.mmio_read(0, entry, Width::U64).expect("ones"), u64::MAX);
    }
    // Interrupts go where they went.
    bench.exchange(4);
    let machine = bench.client().engine.machine.clone();
    assert_eq!(machine.borrow().rc.violations.kept(), []);
}
