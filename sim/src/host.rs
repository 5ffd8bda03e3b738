//! The host: interrupts reach the driver, the driver's NAPI feeds the stack, the stack's queue feeds the driver, and
//! virtual time passes meanwhile.

use crate::function::{BarPlacement, SharedMachine, SimFunction};
use crate::pins::{CardFault, CardPins};
use crate::time::SimTime;
use crate::wire::WireEndpoint;
use crate::wire::host::instant;
use hematite_bus::BusError;
use hematite_driver::{Options, StackReceive, VirtioNet};
use hematite_netstack::core::trace;
use hematite_netstack::{Errno, IfIndex, Ipv4Cidr, NetDevice, QdiscState, Stack, StackConfig};
use thiserror::Error;

/// What the host's CPU costs, in virtual time.
#[derive(Clone, Copy, Debug)]
pub struct CpuModel {
    /// From an MSI-X message's arrival to the handler's first instruction.
    pub interrupt_latency: SimTime,
    /// Each packet that NAPI hands up or the queue hands down.
    pub per_packet: SimTime,
}

impl Default for CpuModel {
    /// A server of today: an interrupt in 2 us, half a million packets a second and core through the stack.
    fn default() -> Self {
        CpuModel {
            interrupt_latency: SimTime::from_us(2),
            per_packet: SimTime::from_ns(500),
        }
    }
}

/// A host that can't go on.
#[derive(Debug, Error)]
pub enum HostError {
    /// The model stopped.
    #[error(transparent)]
    Card(#[from] CardFault),
    /// Enumeration failed.
    #[error("enumeration: {0}")]
    Bus(#[from] BusError),
    /// The driver gave up.
    #[error("driver: {0}")]
    Driver(#[from] hematite_driver::Error),
    /// The stack refused its configuration.
    #[error("stack: {0}")]
    Stack(#[from] Errno),
}

/// Driver, stack, CPU.
pub struct Host<C, E> {
    machine: SharedMachine<C, E>,
    /// The driver.
    pub net: VirtioNet<SimFunction<C, E>>,
    /// The stack.
    pub stack: Stack,
    ifindex: IfIndex,
    cpu: CpuModel,
}

/// How a host is set up.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// The driver's options.
    pub driver: Options,
    /// The stack's settings.
    pub stack: StackConfig,
    /// The interface's address.
    pub address: Ipv4Cidr,
    /// CPU costs.
    pub cpu: CpuModel,
    /// Where the card's BAR goes.
    pub placement: BarPlacement,
    /// Seed of the stack.
    pub seed: u64,
}

impl<C: CardPins, E: WireEndpoint> Host<C, E> {
    /// Enumerates the card, probes the driver, brings the interface up and gives it its address.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn bring_up(machine: SharedMachine<C, E>, config: HostConfig) -> Result<Self, HostError> {
        let function = SimFunction::enumerate(machine.clone(), config.placement)?;
        let mut net = VirtioNet::probe(function, config.driver)?;
        net.open()?;
        let mut stack = Stack::new(config.stack, config.seed);
        let ifindex = stack.add_interface(&net as &dyn NetDevice);
        stack.add_address(ifindex, config.address)?;
        Ok(Host {
            machine,
            net,
            stack,
            ifindex,
            cpu: config.cpu,
        })
    }

    /// The machine that the host is in.
    pub fn machine(&self) -> &SharedMachine<C, E> {
        &self.machine
    }

    /// The interface's number in the stack.
    pub fn ifindex(&self) -> IfIndex {
        self.ifindex
    }

    /// Virtual time.
    pub fn now(&self) -> SimTime {
        self.machine.borrow().now()
    }

    /// Lets time pass until the next interrupt or timer has been handled, at most until `limit`.
    ///
    /// # Errors
    /// [`HostError`]; after [`HostError::Driver`] the interface is down until it is restored.
    pub fn advance(&mut self, limit: SimTime) -> Result<(), HostError> {
        let driver = self.net.next_deadline();
        let timer = self
            .stack
            .next_deadline()
            .into_iter()
            .chain(driver)
            .min()
            .map_or(SimTime::NEVER, |at| SimTime::from_ns(at.as_nanos()));
        self.machine.borrow_mut().run_until(limit.min(timer))?;
        let interrupt = self.machine.borrow().rc.pending_interrupt();
        if let Some((arrived, _)) = interrupt {
            let entry = arrived + self.cpu.interrupt_latency;
            let wait = entry - self.now();
            trace::packet(0, trace::Stage::Irq, arrived.ns());
            self.machine.borrow_mut().run_for(wait)?;
            trace::packet(0, trace::Stage::IrqHandler, self.now().ns());
            self.net.handle_interrupts();
        }
        if timer <= self.now() {
            let now = instant(self.now());
            self.stack.poll(now);
            self.net.napi_timers(now);
        }
        self.softirq()?;
        self.flush()
    }

    /// Lets time pass until `until`.
    ///
    /// # Errors
    /// As [`Host::advance`].
    pub fn run_until(&mut self, until: SimTime) -> Result<(), HostError> {
        while self.now() < until {
            self.advance(until)?;
        }
        Ok(())
    }

    /// Runs NAPI rounds until none is pending; every round takes its time.
    fn softirq(&mut self) -> Result<(), HostError> {
        while self.net.is_pending() {
            let machine = self.machine.clone();
            let clock = move || instant(machine.borrow().now());
            let mut upper = StackReceive {
                stack: &mut self.stack,
                ifindex: self.ifindex,
                now: clock(),
            };
            let round = self.net.net_rx_action(clock, &mut upper)?;
            self.spend(round.work)?;
            self.flush()?;
        }
        Ok(())
    }

    /// Hands what the stack has queued to the driver: to be called after sends on sockets.
    ///
    /// # Errors
    /// [`HostError::Card`].
    pub fn flush(&mut self) -> Result<(), HostError> {
        loop {
            let now = instant(self.now());
            let run = self.stack.qdisc_run(self.ifindex, &mut self.net, now);
            self.spend(run.sent)?;
            if run.state != QdiscState::Quota {
                return Ok(());
            }
        }
    }

    fn spend(&mut self, packets: usize) -> Result<(), HostError> {
        let span = SimTime::from_ps(self.cpu.per_packet.ps() * packets as u64);
        Ok(self.machine.borrow_mut().run_for(span)?)
    }
}
