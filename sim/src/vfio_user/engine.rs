//! The simulation's thread: commands, clock cycles while there is something to do, rest when there is not.

use super::device::{Device, root_complex};
use super::link::{Answer, Callee, Command};
use super::maps::MapTable;
use super::peer::{Rest, ServedEndpoint};
use crate::function::SharedMachine;
use crate::machine::{ClockPhases, Machine};
use crate::pcie::{RootComplex, Violation};
use crate::pins::{CardFault, CardPins};
use crate::wire::Wire;
use crate::wire::capture::Capture;
use hematite_bus::BusError;
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

/// Cycles without a sign of life at the pins after which the card has nothing more to do: 65 us, longer than any of its
/// delays with no read outstanding, but for those that it tells of itself.
const QUIET: u64 = 8192;
/// Cycles between looks at the commands.
const SLICE: u64 = 16;
/// Broken rules that a report tells in words.
const KEPT_VIOLATIONS: usize = 16;
/// Slices between looks at the stop descriptor while cycles pass.
const STOP_INTERVAL: u64 = 1024;

/// How a served card is set up.
pub struct Setup {
    /// Seed of the machine.
    pub seed: u64,
    /// Everything on the wire goes here too.
    pub capture: Option<Capture>,
    /// Serving ends when this is readable or closed.
    pub stop: UnixStream,
    /// Whether time stops while nothing happens; without, every cycle of the run is simulated.
    pub rest: bool,
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Clients that were served.
    pub clients: u64,
    /// Those of them that left the card with bus mastering or MSI-X on: they were killed, or forgot.
    pub left_on: u64,
    /// Commands of theirs.
    pub commands: u64,
    /// Core cycles.
    pub cycles: u64,
    /// How often the simulation rested.
    pub rests: u64,
    /// Requests of the card that met no map.
    pub faults: u64,
    /// Rules of PCI Express or Ethernet that the card broke, whatever the client did.
    pub broken_rules: u64,
    /// The first of them.
    pub broken: Vec<String>,
    /// The card's own counters that are not zero.
    pub card: Vec<(&'static str, u64)>,
    /// Frames to the card and from it.
    pub frames: (u64, u64),
}

/// See the module's documentation.
pub(super) struct Engine<C, E> {
    device: Device<C, E>,
    machine: SharedMachine<C, E, MapTable>,
    callee: Callee,
    stop: UnixStream,
    may_rest: bool,
    busy_at: u64,
    report: Report,
}

impl<C: CardPins, E: ServedEndpoint> Engine<C, E> {
    pub(super) fn new(card: C, endpoint: E, setup: Setup, callee: Callee) -> Result<Self, BusError> {
        let rc = RootComplex::new(root_complex(), MapTable::default(), setup.seed);
        let mut wire = Wire::new(endpoint);
        wire.set_capture(setup.capture);
        // The card's own counters, which tell what became of each frame, are in reset too.
        wire.pause_to_card(true);
        let machine = Machine::new(card, rc, wire, ClockPhases::ALIGNED);
        let machine = Rc::new(RefCell::new(machine));
        let device = Device::new(machine.clone())?;
        machine.borrow_mut().wire.pause_to_card(false);
        Ok(Engine {
            device,
            machine,
            callee,
            stop: setup.stop,
            may_rest: setup.rest,
            busy_at: 0,
            report: Report::default(),
        })
    }

    pub(super) fn device(&self) -> &Device<C, E> {
        &self.device
    }

    /// Until it is told to stop.
    pub(super) fn run(mut self) -> Result<Report, CardFault> {
        for slice in 0u64.. {
            if !self.commands() || slice.is_multiple_of(STOP_INTERVAL) && readable(self.stop.as_raw_fd()) {
                break;
            }
            self.device.deliver();
            if self.is_busy() || !self.may_rest {
                self.step()?;
            } else if !self.rest() {
                break;
            }
            self.note_violations();
        }
        self.settle()?;
        self.report.card = self.device.counters().unwrap_or_default();
        let machine = self.machine.clone();
        let mut machine = machine.borrow_mut();
        self.report.cycles = machine.cycles();
        let counters = machine.wire.counters();
        self.report.frames = (counters.to_card, counters.from_card);
        if let Some(capture) = machine.wire.take_capture()
            && let Err(error) = capture.finish()
        {
            tracing::error!(%error, "the capture is incomplete");
        }
        Ok(self.report)
    }

    /// Handles what waits; false when it is over.
    fn commands(&mut self) -> bool {
        loop {
            let command = match self.callee.commands.try_recv() {
                Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
                Ok(command) => command,
            };
            self.report.commands += 1;
            let answer = self.execute(command);
            self.busy_at = self.machine.borrow().cycles();
            // A caller that is gone will not be missed.
            let _ = self.callee.answers.send(answer);
        }
    }

    fn execute(&mut self, command: Command) -> Answer {
        let memory = |act: &mut dyn FnMut(&mut MapTable) -> io::Result<()>| {
            act(self.machine.borrow_mut().rc.memory_mut()).map(|()| Vec::new())
        };
        let nothing = |()| Vec::new();
        match command {
            Command::Read { region, offset, len } => self.device.read(region, offset, len),
            Command::Write { region, offset, data } => self.device.write(region, offset, &data).map(nothing),
            Command::Map {
                iova,
                size,
                file,
                access,
            } => {
                let mut file = file;
                memory(&mut |maps| maps.map(iova, size, file.take(), access))
            }
            Command::Unmap { iova, size } => memory(&mut |maps| maps.unmap(iova, size)),
            Command::UnmapAll => memory(&mut |maps| {
                maps.clear();
                Ok(())
            }),
            Command::SetVectors { start, count, fds } => {
                self.device.set_vectors(start, count, fds).map(nothing)
            }
            Command::Raise { start, count } => self.device.raise(start, count).map(nothing),
            Command::Reset => self.device.reset().map(nothing).map_err(io::Error::other),
            Command::Connect => {
                self.report.clients += 1;
                Ok(Vec::new())
            }
            Command::Disconnect => {
                self.report.left_on += u64::from(self.device.is_on().unwrap_or(false));
                self.device.power_on().map(nothing).map_err(io::Error::other)
            }
        }
    }

    /// Whether anything is under way, or was until a moment ago.
    fn is_busy(&mut self) -> bool {
        let machine = self.machine.borrow();
        if !machine.rc.is_idle() || !machine.wire.is_quiet() || machine.is_holding() {
            self.busy_at = machine.cycles();
        }
        machine.cycles() - self.busy_at < QUIET
    }

    /// The far end falls silent, and whatever is on its way arrives.
    fn settle(&mut self) -> Result<(), CardFault> {
        self.machine.borrow_mut().wire.pause_to_card(true);
        for _ in 0..2 * QUIET / SLICE {
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), CardFault> {
        let mut machine = self.machine.borrow_mut();
        for _ in 0..SLICE {
            machine.step()?;
        }
        Ok(())
    }

    /// Sleeps until there is a command, something for the card on the wire, or the end (then false).
    fn rest(&mut self) -> bool {
        let (timeout, fd) = match self.machine.borrow().wire.endpoint.rest() {
            Rest::Forever => (None, None),
            Rest::For(time) => (Some(time), None),
            Rest::Readable(fd) => (None, Some(fd)),
        };
        if timeout != Some(Duration::ZERO) {
            self.report.rests += 1;
            let bell = self.callee.bell();
            let stop = self.stop.as_raw_fd();
            wait(&[bell, stop, fd.unwrap_or(-1)], timeout);
            self.callee.clear_bell();
            if readable(stop) {
                return false;
            }
        }
        // Whatever is on the wire gets a moment to show itself.
        let cycles = self.machine.borrow().cycles();
        self.busy_at = cycles.saturating_sub(QUIET - 4 * SLICE);
        true
    }

    /// What the card did wrong. Requests that meet no map are its client's doing.
    fn note_violations(&mut self) {
        let mut machine = self.machine.borrow_mut();
        for seen in machine.rc.violations.take() {
            match seen.violation {
                Violation::ReadFault { .. } | Violation::WriteFault { .. } => {
                    self.report.faults += 1;
                    tracing::debug!(at = %seen.at, "{}", seen.violation);
                }
                _ => {
                    self.report.broken_rules += 1;
                    if self.report.broken.len() < KEPT_VIOLATIONS {
                        self.report
                            .broken
                            .push(format!("{}: {}", seen.at, seen.violation));
                    }
                }
            }
        }
    }
}

/// Waits for any of the descriptors (negative ones are left out) to be readable or closed.
pub(super) fn wait(fds: &[RawFd], timeout: Option<Duration>) {
    let mut polls: Vec<libc::pollfd> = fds
        .iter()
        .map(|&fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    let timeout = timeout.map_or(-1, |time| {
        libc::c_int::try_from(time.as_micros().div_ceil(1000)).unwrap_or(libc::c_int::MAX)
    });
    // SAFETY: a list of `pollfd` and its length; it lives through the call. Errors (a signal) count as waking up.
    unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, timeout) };
}

/// Whether a descriptor is readable or closed.
pub(super) fn readable(fd: RawFd) -> bool {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one `pollfd`, which lives through the call.
    unsafe { libc::poll(&mut poll, 1, 0) == 1 }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
