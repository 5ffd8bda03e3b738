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
use hematite_netstack::wait::NetLoop;
use hematite_netstack::{
    CpuId, Errno, IfIndex, Instant, Ipv4Cidr, NetDevice, QdiscState, Stack, StackConfig,
};
use std::io;
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
    /// A call on a socket failed.
    #[error("socket: {0}")]
    Socket(#[from] io::Error),
    /// The stack refused its configuration.
    #[error("stack: {0}")]
    Stack(#[from] Errno),
}

/// One CPU.
#[derive(Clone, Copy, Default)]
struct Cpu {
    /// When it is done with what it does.
    busy: SimTime,
    /// What its round has queued for the driver is still to be handed over.
    unflushed: bool,
}

/// Driver, stack, CPUs.
///
/// Interrupts go to the CPUs that their affinity says, and packets to those that they are steered to; each CPU runs its
/// rounds one after the other while the others run theirs, always in the same order. Programs run on one of them
/// ([`Host::run_program_on`]).
pub struct Host<C, E> {
    machine: SharedMachine<C, E>,
    /// The driver.
    pub net: VirtioNet<SimFunction<C, E>>,
    /// The stack.
    pub stack: Stack,
    ifindex: IfIndex,
    cpu: CpuModel,
    cpus: Vec<Cpu>,
    /// The CPU that programs run on.
    program: CpuId,
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
        let cpus = config.driver.cpus.max(1);
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
            cpus: vec![Cpu::default(); cpus],
            program: CpuId(0),
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
        // What ksoftirqd has left does not wait.
        let limit = if self.net.is_pending() {
            self.now()
        } else {
            limit.min(timer)
        };
        self.sleep_until(limit)?;
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

    /// Lets time pass until an interrupt has been handled, at most until `limit`. Whether there was one.
    fn sleep_until(&mut self, limit: SimTime) -> Result<bool, HostError> {
        self.machine.borrow_mut().run_until(limit)?;
        let interrupt = self.machine.borrow().rc.pending_interrupt();
        let Some((arrived, _)) = interrupt else {
            return Ok(false);
        };
        let entry = arrived + self.cpu.interrupt_latency;
        let wait = entry - self.now();
        trace::packet(0, trace::Stage::Irq, arrived.ns());
        self.machine.borrow_mut().run_for(wait)?;
        trace::packet(0, trace::Stage::IrqHandler, self.now().ns());
        self.net.handle_interrupts();
        Ok(true)
    }

    /// Runs NAPI rounds until none is pending, or only such as ksoftirqd may do later: then programs have their turn
    /// first. Every round takes its time on its CPU.
    fn softirq(&mut self) -> Result<(), HostError> {
        let mut handed_over = false;
        while let Some(cpu) = self.next_cpu(handed_over) {
            while self.now() < self.cpus[cpu.0].busy {
                self.sleep_until(self.cpus[cpu.0].busy)?;
            }
            if std::mem::take(&mut self.cpus[cpu.0].unflushed) {
                self.flush_on(cpu)?;
                continue;
            }
            let machine = self.machine.clone();
            let clock = move || instant(machine.borrow().now());
            let mut upper = StackReceive {
                stack: &mut self.stack,
                ifindex: self.ifindex,
                now: clock(),
            };
            let round = self.net.run_cpu(cpu, clock, &mut upper)?;
            handed_over |= self.net.softnet().ksoftirqd_running(cpu);
            self.cpus[cpu.0] = Cpu {
                busy: self.now() + self.cost(round.work),
                unflushed: true,
            };
        }
        self.stack.set_cpu(self.program);
        let done = self.cpus[self.program.0].busy;
        while self.now() < done {
            self.sleep_until(done)?;
        }
        Ok(())
    }

    /// The CPU with something to do that is free first. When a ksoftirqd has taken over, no new rounds are begun.
    fn next_cpu(&self, handed_over: bool) -> Option<CpuId> {
        let softnet = self.net.softnet();
        let rounds = !handed_over && self.net.is_pending();
        let busy = (0..self.cpus.len()).map(CpuId);
        busy.filter(|&cpu| self.cpus[cpu.0].unflushed || rounds && softnet.is_pending_on(cpu))
            .min_by_key(|cpu| self.cpus[cpu.0].busy)
            // A change of the device's configuration is anybody's.
            .or_else(|| rounds.then_some(CpuId(0)))
    }

    /// Programs run on this CPU from now on: where receive flow steering takes their packets. False without such a
    /// CPU.
    pub fn run_program_on(&mut self, cpu: CpuId) -> bool {
        let exists = cpu.0 < self.cpus.len() && self.stack.set_cpu(cpu);
        if exists {
            self.program = cpu;
        }
        exists
    }

    /// Hands what the stack has queued to the driver: to be called after sends on sockets.
    ///
    /// # Errors
    /// [`HostError::Card`].
    pub fn flush(&mut self) -> Result<(), HostError> {
        loop {
            let now = instant(self.now());
            let run = self.stack.qdisc_run(self.ifindex, &mut self.net, now);
            let span = self.cost(run.sent);
            self.machine.borrow_mut().run_for(span)?;
            if run.state != QdiscState::Quota {
                return Ok(());
            }
        }
    }

    /// The same after a round of a CPU, whose time it takes.
    fn flush_on(&mut self, cpu: CpuId) -> Result<(), HostError> {
        loop {
            let now = instant(self.now());
            let run = self.stack.qdisc_run(self.ifindex, &mut self.net, now);
            let span = self.cost(run.sent);
            self.cpus[cpu.0].busy += span;
            if run.state != QdiscState::Quota {
                return Ok(());
            }
        }
    }

    /// What so many packets take on a CPU.
    fn cost(&self, packets: usize) -> SimTime {
        SimTime::from_ps(self.cpu.per_packet.ps() * packets as u64)
    }
}

/// Calls on sockets can block ([`wait_for`](hematite_netstack::wait::wait_for)): virtual time passes meanwhile.
impl<C: CardPins, E: WireEndpoint> NetLoop for Host<C, E> {
    type Error = HostError;

    fn stack(&mut self) -> &mut Stack {
        &mut self.stack
    }

    fn now(&self) -> Instant {
        instant(Host::now(self))
    }

    fn turn(&mut self, limit: Option<Instant>) -> Result<(), HostError> {
        self.flush()?;
        let limit = limit.map_or(SimTime::NEVER, |at| SimTime::from_ns(at.as_nanos()));
        self.advance(limit)
    }
}
