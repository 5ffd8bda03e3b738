//! The bench: clocks, resets, and what is attached to the ports.

use std::{
    any::Any,
    env, fs,
    marker::PhantomData,
    ops::{Index, IndexMut},
    path::PathBuf,
};

use hematite_lang::core::prelude::Block;
use hematite_verilator::{Model, Verilate, Verilated};
use rand::{RngExt, SeedableRng};

use crate::{HandshakeSink, HandshakeSource, Pace, Pin, Rng, StreamSink, StreamSource, seed};

/// Whatever ends a test early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The block does not elaborate.
    #[error("elaboration: {0}")]
    Elaboration(String),
    /// The model does not build, lint, run, or has no such port.
    #[error(transparent)]
    Verilator(#[from] hematite_verilator::Error),
    /// An output broke the rules of its channel.
    #[error("{channel}, cycle {cycle}: {message}")]
    Protocol {
        /// Prefix of the channel's ports.
        channel: String,
        /// Rising edges of the channel's clock so far.
        cycle: u64,
        /// Which rule.
        message: String,
    },
    /// [`Bench::run_until`] reached its limit.
    #[error("nothing came of it in {0} cycles")]
    Timeout(u64),
    /// A clock was asked for that was not declared with [`Bench::clock`].
    #[error("no clock `{0}` in this bench")]
    UnknownClock(String),
    /// The directory for waves could not be made.
    #[error("{path}: {source}")]
    Waves {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// Nanoseconds as picoseconds, the unit of every time in a bench.
#[must_use]
pub const fn ns(nanoseconds: u64) -> u64 {
    nanoseconds * 1000
}

/// A module that was elaborated, found clean by `verilator -Wall` and compiled.
#[derive(Debug, Clone)]
pub struct Dut {
    verilated: Verilated,
    top: String,
}

impl Dut {
    /// Elaborates `block`, lints it and builds its model (or takes the one built before).
    ///
    /// # Errors
    /// [`Error::Elaboration`], [`Error::Verilator`].
    pub fn new(block: &dyn Block) -> Result<Self, Error> {
        let design =
            hematite_lang::elaborate(block, "dut").map_err(|error| Error::Elaboration(error.to_string()))?;
        Self::from_verilog(&design.top, &design.verilog())
    }

    /// The same for Verilog text with the top module `top`.
    ///
    /// # Errors
    /// [`Error::Verilator`].
    pub fn from_verilog(top: &str, verilog: &str) -> Result<Self, Error> {
        let source = Verilate::new(top).text(format!("{top}.v"), verilog);
        source.lint()?;
        let verilated = source
            .waves(env::var_os("HEMATITE_FST").is_some())
            .build_shared()?;
        Ok(Self {
            verilated,
            top: top.into(),
        })
    }

    /// A fresh instance in a bench of its own. State without a reset starts random.
    ///
    /// # Errors
    /// [`Error::Verilator`], [`Error::Waves`].
    pub fn bench(&self, rng: &mut Rng) -> Result<Bench, Error> {
        let seed = rng.random::<u64>().max(1);
        let mut model = self.verilated.instantiate(seed)?;
        if let Some(directory) = env::var_os("HEMATITE_FST").map(PathBuf::from) {
            fs::create_dir_all(&directory).map_err(|source| Error::Waves {
                path: directory.clone(),
                source,
            })?;
            // Test threads are named after their tests.
            let thread = std::thread::current();
            let test = thread.name().unwrap_or(&self.top).replace("::", "-");
            model.trace_open(directory.join(format!("{test}-{seed:016x}.fst")))?;
        }
        Ok(Bench {
            model,
            rng: Rng::seed_from_u64(seed),
            clocks: Vec::new(),
            agents: Vec::new(),
            time: 0,
        })
    }
}

/// Something attached to ports of the design, run once per rising edge of its clock.
///
/// It sees the ports as they settled before the edge and drives inputs right after it, as registers would.
pub trait Agent: Any {
    /// Looks at the settled ports just before the edge: what is valid and ready now, moves.
    ///
    /// # Errors
    /// [`Error::Protocol`] when an output broke a rule.
    fn sample(&mut self, model: &Model, cycle: u64) -> Result<(), Error>;

    /// Drives inputs for the next cycle. While `in_reset`, an agent offers nothing and takes nothing.
    fn drive(&mut self, model: &mut Model, in_reset: bool);
}

/// Names an agent of a bench; `bench[handle]` is the agent.
#[derive(Debug)]
pub struct Handle<A> {
    index: usize,
    kind: PhantomData<fn() -> A>,
}

impl<A> Clone for Handle<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Handle<A> {}

struct Clock {
    name: String,
    pin: Pin,
    period: u64,
    /// Time of the next rising edge, in picoseconds.
    rise: u64,
    /// Time of the next falling edge.
    fall: u64,
    /// Rising edges so far.
    cycles: u64,
    in_reset: bool,
}

/// One instance of a design with its clocks and agents. Time is in picoseconds.
pub struct Bench {
    model: Model,
    rng: Rng,
    clocks: Vec<Clock>,
    agents: Vec<(usize, Box<dyn Agent>)>,
    time: u64,
}

impl std::fmt::Debug for Bench {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bench")
            .field("time", &self.time)
            .finish_non_exhaustive()
    }
}

impl Bench {
    /// One bench of `block`, seeded by `HEMATITE_SEED` or at random (and then printed). For many cases over one
    /// block use [`Dut`], which builds once.
    ///
    /// # Errors
    /// Those of [`Dut::new`] and [`Dut::bench`].
    pub fn new(block: &dyn Block) -> Result<Self, Error> {
        Dut::new(block)?.bench(&mut Rng::seed_from_u64(seed()))
    }

    /// Declares the input `name` as a clock. Its first rising edge comes after one period.
    ///
    /// # Errors
    /// [`Error::Verilator`] when there is no such port.
    pub fn clock(&mut self, name: &str, period: u64) -> Result<(), Error> {
        self.clock_with_phase(name, period, 0)
    }

    /// As [`Bench::clock`], with the first edge `phase` later still.
    ///
    /// # Errors
    /// [`Error::Verilator`] when there is no such port.
    pub fn clock_with_phase(&mut self, name: &str, period: u64, phase: u64) -> Result<(), Error> {
        let rise = self.time + period + phase;
        self.clocks.push(Clock {
            name: name.into(),
            pin: Pin::of(&self.model, name)?,
            period: period.max(2),
            rise,
            fall: rise + period / 2,
            cycles: 0,
            in_reset: false,
        });
        Ok(())
    }

    fn clock_index(&self, name: &str) -> Result<usize, Error> {
        let found = self.clocks.iter().position(|clock| clock.name == name);
        found.ok_or_else(|| Error::UnknownClock(name.into()))
    }

    /// Attaches an agent to a clock.
    ///
    /// # Errors
    /// [`Error::UnknownClock`].
    pub fn attach<A: Agent>(&mut self, clock: &str, agent: A) -> Result<Handle<A>, Error> {
        let clock = self.clock_index(clock)?;
        self.agents.push((clock, Box::new(agent)));
        Ok(Handle {
            index: self.agents.len() - 1,
            kind: PhantomData,
        })
    }

    /// A generator of its own for an agent, seeded from the bench's.
    pub fn fork_rng(&mut self) -> Rng {
        Rng::seed_from_u64(self.rng.random())
    }

    /// Feeds packets into the stream input `prefix`.
    ///
    /// # Errors
    /// [`Error::UnknownClock`]; [`Error::Verilator`] when a port is missing.
    pub fn stream_source(
        &mut self,
        prefix: &str,
        clock: &str,
        pace: Pace,
    ) -> Result<Handle<StreamSource>, Error> {
        let rng = self.fork_rng();
        let agent = StreamSource::new(&self.model, prefix, pace, rng)?;
        self.attach(clock, agent)
    }

    /// Collects packets from the stream output `prefix`.
    ///
    /// # Errors
    /// [`Error::UnknownClock`]; [`Error::Verilator`] when a port is missing.
    pub fn stream_sink(
        &mut self,
        prefix: &str,
        clock: &str,
        pace: Pace,
    ) -> Result<Handle<StreamSink>, Error> {
        let rng = self.fork_rng();
        let agent = StreamSink::new(&self.model, prefix, pace, rng)?;
        self.attach(clock, agent)
    }

    /// Feeds items into the valid/ready channel `prefix` with the payload ports `prefix_field`.
    ///
    /// # Errors
    /// [`Error::UnknownClock`]; [`Error::Verilator`] when a port is missing.
    pub fn handshake_source<const N: usize>(
        &mut self,
        prefix: &str,
        fields: [&str; N],
        clock: &str,
        pace: Pace,
    ) -> Result<Handle<HandshakeSource<N>>, Error> {
        let rng = self.fork_rng();
        let agent = HandshakeSource::new(&self.model, prefix, fields, pace, rng)?;
        self.attach(clock, agent)
    }

    /// Collects items from the valid/ready channel `prefix` with the payload ports `prefix_field`.
    ///
    /// # Errors
    /// [`Error::UnknownClock`]; [`Error::Verilator`] when a port is missing.
    pub fn handshake_sink<const N: usize>(
        &mut self,
        prefix: &str,
        fields: [&str; N],
        clock: &str,
        pace: Pace,
    ) -> Result<Handle<HandshakeSink<N>>, Error> {
        let rng = self.fork_rng();
        let agent = HandshakeSink::new(&self.model, prefix, fields, pace, rng)?;
        self.attach(clock, agent)
    }

    /// The port `name`, for repeated use with [`Bench::model`].
    ///
    /// # Errors
    /// [`Error::Verilator`] when there is no such port.
    pub fn pin(&self, name: &str) -> Result<Pin, Error> {
        Ok(Pin::of(&self.model, name)?)
    }

    /// Sets the input `name`, seen by the design from now on.
    ///
    /// # Errors
    /// [`Error::Verilator`] when there is no such port.
    pub fn set(&mut self, name: &str, value: u128) -> Result<(), Error> {
        self.pin(name)?.set(&mut self.model, value);
        Ok(())
    }

    /// Reads the port `name`, settled with the inputs as they are.
    ///
    /// # Errors
    /// [`Error::Verilator`] when there is no such port or the design stopped.
    pub fn get(&mut self, name: &str) -> Result<u128, Error> {
        let pin = self.pin(name)?;
        self.model.eval()?;
        Ok(pin.get(&self.model))
    }

    /// The model itself.
    pub fn model(&mut self) -> &mut Model {
        &mut self.model
    }

    /// Picoseconds since the bench was made.
    #[must_use]
    pub fn time(&self) -> u64 {
        self.time
    }

    /// Rising edges of a clock so far.
    ///
    /// # Errors
    /// [`Error::UnknownClock`].
    pub fn cycles(&self, clock: &str) -> Result<u64, Error> {
        Ok(self.clocks[self.clock_index(clock)?].cycles)
    }

    /// Holds the reset inputs `names` high until every clock had `cycles` rising edges; agents rest meanwhile.
    ///
    /// # Errors
    /// [`Error::Verilator`] when there is no such port; whatever an agent found.
    pub fn reset(&mut self, names: &[&str], cycles: u64) -> Result<(), Error> {
        for name in names {
            self.set(name, 1)?;
        }
        for clock in &mut self.clocks {
            clock.in_reset = true;
        }
        for (_, agent) in &mut self.agents {
            agent.drive(&mut self.model, true);
        }
        let until: Vec<_> = self.clocks.iter().map(|clock| clock.cycles + cycles).collect();
        while self
            .clocks
            .iter()
            .zip(&until)
            .any(|(clock, until)| clock.cycles < *until)
        {
            self.step()?;
        }
        for name in names {
            self.set(name, 0)?;
        }
        for clock in &mut self.clocks {
            clock.in_reset = false;
        }
        Ok(())
    }

    /// Runs to just after the next rising edge of the first clock.
    ///
    /// # Errors
    /// [`Error::UnknownClock`] when there is none; whatever the model or an agent found.
    pub fn tick(&mut self) -> Result<(), Error> {
        let clock = self
            .clocks
            .first()
            .ok_or_else(|| Error::UnknownClock("(any)".into()))?;
        let until = clock.cycles + 1;
        while self.clocks[0].cycles < until {
            self.step()?;
        }
        Ok(())
    }

    /// [`Bench::tick`], `cycles` times.
    ///
    /// # Errors
    /// Those of [`Bench::tick`].
    pub fn run(&mut self, cycles: u64) -> Result<(), Error> {
        (0..cycles).try_for_each(|_| self.tick())
    }

    /// Ticks until `done`, and says how many cycles of the first clock that took.
    ///
    /// # Errors
    /// [`Error::Timeout`] after `limit` cycles; those of [`Bench::tick`].
    pub fn run_until(&mut self, limit: u64, mut done: impl FnMut(&mut Bench) -> bool) -> Result<u64, Error> {
        for cycle in 0..limit {
            if done(self) {
                return Ok(cycle);
            }
            self.tick()?;
        }
        if done(self) {
            Ok(limit)
        } else {
            Err(Error::Timeout(limit))
        }
    }

    /// Goes to the next edge of any clock and plays all edges of that moment.
    fn step(&mut self) -> Result<(), Error> {
        let Some(now) = self.clocks.iter().map(|clock| clock.rise.min(clock.fall)).min() else {
            return Err(Error::UnknownClock("(any)".into()));
        };
        // Inputs that changed since the last edge settle before this one.
        self.model.eval()?;
        self.model.trace_dump(self.time)?;
        self.time = now;
        let rising: Vec<_> = self.clocks.iter().map(|clock| clock.rise == now).collect();
        for (clock, agent) in self.agents.iter_mut().filter(|(clock, _)| rising[*clock]) {
            let clock = &self.clocks[*clock];
            if !clock.in_reset {
                agent.sample(&self.model, clock.cycles)?;
            }
        }
        for clock in &mut self.clocks {
            if clock.rise == now {
                clock.pin.set(&mut self.model, 1);
                clock.rise += clock.period;
                clock.cycles += 1;
            } else if clock.fall == now {
                clock.pin.set(&mut self.model, 0);
                clock.fall += clock.period;
            }
        }
        self.model.eval()?;
        for (clock, agent) in self.agents.iter_mut().filter(|(clock, _)| rising[*clock]) {
            agent.drive(&mut self.model, self.clocks[*clock].in_reset);
        }
        self.model.eval()?;
        Ok(self.model.trace_dump(self.time)?)
    }
}

impl<A: Agent> Index<Handle<A>> for Bench {
    type Output = A;

    fn index(&self, handle: Handle<A>) -> &A {
        let agent: &dyn Any = &*self.agents[handle.index].1;
        agent.downcast_ref().expect("a handle of another bench")
    }
}

impl<A: Agent> IndexMut<Handle<A>> for Bench {
    fn index_mut(&mut self, handle: Handle<A>) -> &mut A {
        let agent: &mut dyn Any = &mut *self.agents[handle.index].1;
        agent.downcast_mut().expect("a handle of another bench")
    }
}
