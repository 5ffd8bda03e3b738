//! The verilated card in a machine, with the real driver and stack on one side and a [`Peer`] on the other.

use crate::line::{Line, RawSymbols};
use crate::peer::Peer;
use crate::traffic::{Traffic, TrafficCounters};
use anyhow::{Context, Result, ensure};
use hematite_abi::counter;
use hematite_bus::DmaSpace;
use hematite_driver::{CardCounters, Options};
use hematite_netstack::{Ipv4Cidr, MacAddr, NetDevice, StackConfig};
use hematite_sim::host::{CpuModel, Host, HostConfig, HostError};
use hematite_sim::pcie::{RootComplex, RootComplexConfig};
use hematite_sim::pins::CardFault;
use hematite_sim::verilated::VerilatedCard;
use hematite_sim::wire::{Damage, Wire};
use hematite_sim::{BarPlacement, ClockPhases, Machine, SharedMachine, SimFunction, SimTime};
use hematite_verilator::{Model, Optimization, Verilate};
use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::rc::Rc;

/// The host's address.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// Virtual time after which a datagram counts as lost, at 1000 Mb/s.
const PATIENCE: SimTime = SimTime::from_ms(2);
/// Datagrams on their way at once.
const WINDOW: usize = 32;

/// The card under test.
pub type Card = Line<VerilatedCard>;
/// The machine that it is in.
pub type LabMachine = SharedMachine<Card, Peer>;
/// The card as a PCI function.
pub type Function = SimFunction<Card, Peer>;

/// How a lab is set up.
#[derive(Clone, Debug)]
pub struct LabConfig {
    /// Everything random comes from it.
    pub seed: u64,
    /// The root complex.
    pub root_complex: RootComplexConfig,
    /// The wire's clocks.
    pub phases: ClockPhases,
    /// Where DMA memory lies.
    pub iova_base: u64,
    /// Where the BAR lies.
    pub placement: BarPlacement,
    /// The driver.
    pub driver: Options,
    /// The configuration of `rtl-gen` that is simulated: the one that is linked, or another, built when it is first
    /// used and kept in `target/verilated`.
    pub configuration: Option<&'static str>,
}

impl LabConfig {
    /// Nothing special.
    pub fn new(seed: u64) -> Self {
        LabConfig {
            seed,
            root_complex: RootComplexConfig::default(),
            phases: ClockPhases::ALIGNED,
            iova_base: DmaSpace::DEFAULT_IOVA_BASE,
            placement: BarPlacement::Low,
            driver: Options::default(),
            configuration: None,
        }
    }

    /// The card's model.
    fn model(&self) -> Result<Model> {
        let seed = self.seed.max(1);
        let Some(name) = self.configuration else {
            return Ok(hematite_card::card().instantiate(seed)?);
        };
        let design = (rtl_gen::configuration(name)?.elaborate)()?;
        let source = Verilate::new(&design.top).text(format!("{}.v", design.top), design.verilog());
        let model = source.top(&design.top).optimization(Optimization::Full);
        Ok(model.build_shared()?.instantiate(seed)?)
    }

    /// The MTU of the host and the peer.
    fn mtu(&self) -> u16 {
        self.driver.mtu.unwrap_or(1500)
    }

    /// The machine alone, with no driver on the card, and the line's raw symbols.
    ///
    /// # Errors
    /// No memory, or a model that is not the card's.
    pub fn machine(&self) -> Result<(LabMachine, RawSymbols)> {
        let card = VerilatedCard::new(self.model()?).context("the model is not the card's top")?;
        let memory = DmaSpace::with_window(self.iova_base, DmaSpace::DEFAULT_LEN)?;
        let rc = RootComplex::new(self.root_complex, memory, self.seed);
        let peer = Peer::new(self.seed ^ 0x7065_6572, self.mtu()).context("peer")?;
        let card = Line::new(card);
        let raw = card.raw();
        let machine = Machine::new(card, rc, Wire::new(peer), self.phases);
        Ok((Rc::new(RefCell::new(machine)), raw))
    }

    /// The driver and the stack on a machine.
    ///
    /// # Errors
    /// [`HostError`]; a first datagram that does not come back.
    pub fn host(&self, machine: LabMachine, raw: RawSymbols) -> Result<Lab> {
        let config = HostConfig {
            driver: self.driver.clone(),
            // Tests count frames, and IPv6 would send some of its own.
            stack: StackConfig {
                disable_ipv6: true,
                ..StackConfig::default()
            },
            address: Ipv4Cidr::new(ADDRESS, 24).context("address")?,
            cpu: CpuModel::default(),
            placement: self.placement,
            seed: self.seed,
        };
        let mut host = Host::bring_up(machine, config)?;
        let traffic = Traffic::start(&mut host.stack, self.seed, self.mtu())?;
        let peer_drops = host.machine().borrow().wire.endpoint.stack().drops().total();
        let mut lab = Lab {
            host,
            traffic,
            raw,
            patience: PATIENCE,
            peer_drops,
        };
        // Resolves the peer's address.
        lab.exchange_with(1, 1)?;
        Ok(lab)
    }

    /// Everything.
    ///
    /// # Errors
    /// As [`LabConfig::machine`] and [`LabConfig::host`].
    pub fn bring_up(&self) -> Result<Lab> {
        let (machine, raw) = self.machine()?;
        self.host(machine, raw)
    }
}

/// See the module's documentation.
pub struct Lab {
    /// Driver and stack.
    pub host: Host<Card, Peer>,
    /// The exchange with the peer.
    pub traffic: Traffic,
    /// Symbols for the receive GMII.
    pub raw: RawSymbols,
    /// Virtual time after which a datagram counts as lost.
    pub patience: SimTime,
    /// What the peer's stack had dropped before the driver came.
    peer_drops: u64,
}

impl Lab {
    /// The card's link-layer address.
    pub fn mac(&self) -> MacAddr {
        self.host.net.mac_address()
    }

    /// The card's own counters.
    ///
    /// # Errors
    /// What the bus reported.
    pub fn counters(&mut self) -> Result<CardCounters> {
        self.host.net.card_counters()?.context("not a Hematite card")
    }

    /// A little time with `window` datagrams on their way.
    ///
    /// # Errors
    /// [`HostError`]; after [`HostError::Driver`] the interface is to be restored.
    pub fn step(&mut self, window: usize) -> Result<(), HostError> {
        let now = self.host.now();
        // A full queue is not an error, and nothing else can be one on this socket.
        let sent = self.traffic.send(&mut self.host.stack, now, window);
        debug_assert!(sent.is_ok(), "{sent:?}");
        let result = self
            .host
            .flush()
            .and_then(|()| self.host.advance(now + SimTime::from_us(50)));
        let now = self.host.now();
        let deadline = SimTime::ZERO + now.saturating_since(self.patience);
        self.traffic.receive(&mut self.host.stack, deadline);
        result
    }

    /// Full traffic for `span`.
    ///
    /// # Errors
    /// As [`Lab::step`].
    pub fn run_for(&mut self, span: SimTime) -> Result<(), HostError> {
        let end = self.host.now() + span;
        while self.host.now() < end {
            self.step(WINDOW)?;
        }
        Ok(())
    }

    /// Waits until nothing is on its way.
    ///
    /// # Errors
    /// As [`Lab::step`].
    pub fn drain(&mut self) -> Result<(), HostError> {
        while self.traffic.outstanding() > 0 {
            self.step(0)?;
        }
        Ok(())
    }

    /// `count` datagrams, every one of which must come back right.
    ///
    /// # Errors
    /// What went wrong.
    pub fn exchange(&mut self, count: u64) -> Result<()> {
        self.exchange_with(count, WINDOW)
    }

    fn exchange_with(&mut self, count: u64, window: usize) -> Result<()> {
        self.drain()?;
        let before = self.traffic.counters();
        let target = before.sent + count;
        while self.traffic.counters().sent < target {
            let room = target - self.traffic.counters().sent;
            let window = window.min(self.traffic.outstanding() + room as usize);
            self.step(window)?;
        }
        self.drain()?;
        let after = self.traffic.counters();
        let lost = after.lost - before.lost;
        ensure!(
            lost == 0,
            "{lost} of {count} datagrams lost: {:?}",
            self.host.net.ethtool_stats()
        );
        self.check_content()
    }

    /// Nothing wrong was ever delivered, on either side.
    ///
    /// # Errors
    /// What went wrong.
    pub fn check_content(&self) -> Result<()> {
        let TrafficCounters { corrupt, stray, .. } = self.traffic.counters();
        ensure!(corrupt == 0 && stray == 0, "{:?}", self.traffic.counters());
        let machine = self.host.machine().borrow();
        let peer = &machine.wire.endpoint;
        let corrupt = peer.echo().corrupt;
        ensure!(corrupt == 0, "{corrupt} corrupt datagrams at the peer");
        let drops = peer.stack().drops();
        ensure!(
            drops.total() == self.peer_drops,
            "the peer's stack dropped {:?}",
            drops.iter().collect::<Vec<_>>()
        );
        Ok(())
    }

    /// As [`Lab::check_content`], and the card broke no rule of PCIe or 802.3 and touched no memory that is not its.
    ///
    /// # Errors
    /// What went wrong.
    pub fn check(&self) -> Result<()> {
        self.check_content()?;
        no_violations(self.host.machine())
    }

    /// Lets a frame in from the wire, before anything of the peer's own.
    pub fn arrive(&self, frame: Vec<u8>, damage: Damage) {
        self.host.machine().borrow_mut().wire.endpoint.send(frame, damage);
    }

    /// Lets time pass on the machine alone.
    ///
    /// # Errors
    /// [`CardFault`].
    pub fn idle(&mut self, span: SimTime) -> Result<(), CardFault> {
        self.host.machine().borrow_mut().run_for(span)
    }
}

/// The root complex and the wire have nothing to complain about.
///
/// # Errors
/// What they complain about.
pub fn no_violations(machine: &LabMachine) -> Result<()> {
    let machine = machine.borrow();
    let seen = machine.rc.violations.kept();
    ensure!(
        seen.is_empty(),
        "{} violations: {seen:#?}",
        machine.rc.violations.total()
    );
    Ok(())
}

/// Each frame that the wire gave to the card has met one of its ends, and was counted there: nothing may be on its way.
///
/// # Errors
/// How many have none, or two.
pub fn every_frame_is_counted(lab: &mut Lab) -> Result<()> {
    // Longer than a frame takes from the wire to host memory.
    lab.idle(SimTime::from_us(50))?;
    let counters = lab.counters()?;
    let counted: u64 = counter::RX_ENDS.iter().map(|&end| counters.get(end)).sum();
    let came = lab.host.machine().borrow().wire.counters().to_card;
    ensure!(
        counted == came,
        "{came} frames came, {counted} were counted: {:?}",
        counters
            .iter()
            .filter(|(_, value)| *value > 0)
            .collect::<Vec<_>>()
    );
    Ok(())
}
