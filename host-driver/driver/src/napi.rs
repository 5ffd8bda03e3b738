//! NAPI: interrupts only say that there is work; the work is done in polled rounds (Linux's
//! `net/core/dev.c`), on the CPU that the interrupt went to.
//!
//! ```text
//! interrupt -> schedule: mask, append to its CPU's poll list
//! net_rx_action: until budget or time is used up
//!     poll(first, weight 64) -> work < weight: napi_complete_done: flush GRO, unmask, look again
//!                            -> work = weight: to the tail of the list, still masked
//! do_softirq: rounds, until too many or too long; then ksoftirqd goes on, when others had their turn
//! ```
//! A CPU's backlog (packets that RPS steered to it, or that were looped back) is polled in the same rounds and under
//! the same budget; the poll that filled it schedules it there (`net_rps_send_ipi`).

use std::collections::VecDeque;
use std::time::Duration;

pub use hematite_netstack::CpuId;
use hematite_netstack::{GroFlush, Instant, Stack};

/// Packets that one poll may process (`NAPI_POLL_WEIGHT`).
pub const NAPI_POLL_WEIGHT: usize = 64;
/// Rounds in a row before ksoftirqd takes over (`MAX_SOFTIRQ_RESTART`).
const MAX_SOFTIRQ_RESTART: usize = 10;
/// Time in a row before ksoftirqd takes over (`MAX_SOFTIRQ_TIME`).
const MAX_SOFTIRQ_TIME: Duration = Duration::from_millis(2);

/// Limits of one round of [`Softnet::net_rx_action`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetdevBudget {
    /// Packets in one round (`net.core.netdev_budget`).
    pub packets: usize,
    /// Time in one round (`net.core.netdev_budget_usecs`).
    pub time: Duration,
}

impl Default for NetdevBudget {
    /// Linux's: 300 packets, 2 ms.
    fn default() -> Self {
        Self {
            packets: 300,
            time: Duration::from_micros(2000),
        }
    }
}

/// When a poll that found little is followed by an interrupt, and when by another poll
/// (`/sys/class/net/<interface>/`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NapiParms {
    /// How long merged packets may be held after a poll, and the interrupt kept off when it is deferred
    /// (`gro_flush_timeout`). Zero, the default: everything is handed up when a poll ends.
    pub gro_flush_timeout: Duration,
    /// Polls without work before the interrupt comes back (`napi_defer_hard_irqs`).
    pub napi_defer_hard_irqs: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum NapiState {
    #[default]
    Disabled,
    /// Enabled, not in a poll list. The interrupt is on, or a timer is.
    Idle,
    /// In the poll list or being polled; interrupt off (`NAPI_STATE_SCHED`).
    Scheduled,
}

/// One pollable context, `struct napi_struct`: of a queue, or of whatever shares an interrupt.
#[derive(Debug, Clone, Copy, Default)]
struct Napi {
    state: NapiState,
    cpu: CpuId,
    /// Polls that may still end without the interrupt (`defer_hard_irqs_count`).
    defer: u32,
    timer: Option<Instant>,
}

/// Number of a NAPI context of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NapiId(pub usize);

/// What a look at the ring showed after the interrupt was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rearm {
    /// Nothing: the next packet raises an interrupt.
    Quiet,
    /// A packet that came in between and raised none; the interrupt is masked again.
    MoreWork,
}

/// A device whose contexts are polled.
pub trait NapiPoll {
    /// Why a poll fails.
    type Error;

    /// Processes at most `budget` packets of context `id`; the number.
    ///
    /// # Errors
    /// The device broke; nothing of it is polled any more.
    fn poll(&mut self, id: NapiId, budget: usize) -> Result<usize, Self::Error>;

    /// Hands merged packets up (`napi_gro_flush`); whether some are still held.
    fn gro_flush(&mut self, id: NapiId, flush: GroFlush) -> bool;

    /// Lets the interrupt of context `id` through *and looks at the ring once more after that*.
    ///
    /// # Errors
    /// As [`NapiPoll::poll`].
    fn rearm(&mut self, id: NapiId) -> Result<Rearm, Self::Error>;

    /// The backlogs that are polled beside the contexts, if what is above has any.
    fn backlogs(&mut self) -> Option<&mut dyn Backlogs> {
        None
    }
}

/// The CPUs' backlogs of what is above the driver: a [`Stack`]'s.
pub trait Backlogs {
    /// What is called from now on runs on this CPU.
    fn run_on(&mut self, cpu: CpuId);

    /// A CPU whose backlog has got work since it was last found empty, each told of once.
    fn net_rps_ipi(&mut self) -> Option<CpuId>;

    /// Receives at most `budget` packets of a CPU's backlog; the number.
    fn process_backlog(&mut self, cpu: CpuId, budget: usize) -> usize;
}

impl Backlogs for Stack {
    fn run_on(&mut self, cpu: CpuId) {
        // A CPU that the stack does not know has no place of its own there.
        self.set_cpu(cpu);
    }

    fn net_rps_ipi(&mut self) -> Option<CpuId> {
        Stack::net_rps_ipi(self)
    }

    fn process_backlog(&mut self, cpu: CpuId, budget: usize) -> usize {
        Stack::process_backlog(self, cpu, budget)
    }
}

/// Counters as in `/proc/net/softnet_stat`, a line for each CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SoftnetStats {
    /// Packets processed.
    pub processed: u64,
    /// Rounds that ended because budget or time was used up while there was work.
    pub time_squeeze: u64,
    /// Rounds.
    pub rounds: u64,
    /// Polls.
    pub polls: u64,
    /// Times that ksoftirqd took over.
    pub ksoftirqd: u64,
}

/// How a round ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Round {
    /// Packets processed.
    pub work: usize,
    /// Whether contexts are left in the poll list: `net_rx_action` wants to run again (`NET_RX_SOFTIRQ`
    /// raised).
    pub more: bool,
}

/// What waits in a poll list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Polled {
    Napi(NapiId),
    /// The CPU's own (`softnet_data.backlog`).
    Backlog,
}

/// One CPU's poll list, `struct softnet_data`.
#[derive(Debug, Default)]
struct SoftnetData {
    poll_list: VecDeque<Polled>,
    /// The backlog is in the list.
    backlog: bool,
    /// When the softirq that goes on began, and its rounds so far.
    softirq: Option<(Instant, usize)>,
    /// The rest is left to this CPU's ksoftirqd.
    ksoftirqd: bool,
    stats: SoftnetStats,
}

/// The contexts of a device and the poll lists of the CPUs.
#[derive(Debug)]
pub struct Softnet {
    contexts: Vec<Napi>,
    cpus: Vec<SoftnetData>,
    parms: NapiParms,
    /// The CPU that a scheduler without preferences lets run next.
    turn: usize,
}

impl Softnet {
    /// `contexts` contexts, all disabled, on one CPU.
    pub fn new(contexts: usize) -> Self {
        Self::with_cpus(contexts, 1)
    }

    /// `contexts` contexts, all disabled, spread over `cpus` CPUs in turn.
    pub fn with_cpus(contexts: usize, cpus: usize) -> Self {
        let cpus = cpus.max(1);
        let context = |n| Napi {
            cpu: CpuId(n % cpus),
            ..Napi::default()
        };
        Self {
            contexts: (0..contexts).map(context).collect(),
            cpus: (0..cpus).map(|_| SoftnetData::default()).collect(),
            parms: NapiParms::default(),
            turn: 0,
        }
    }

    /// When interrupts are deferred and merged packets held.
    pub fn set_parms(&mut self, parms: NapiParms) {
        self.parms = parms;
    }

    /// Sends the interrupt of a context to a CPU (`/proc/irq/<n>/smp_affinity`), from the next one on. False
    /// without such a context or CPU.
    pub fn set_affinity(&mut self, id: NapiId, cpu: CpuId) -> bool {
        match self.contexts.get_mut(id.0) {
            Some(context) if cpu.0 < self.cpus.len() => {
                context.cpu = cpu;
                true
            }
            _ => false,
        }
    }

    /// The CPU that the interrupt of a context goes to.
    pub fn affinity(&self, id: NapiId) -> Option<CpuId> {
        self.contexts.get(id.0).map(|c| c.cpu)
    }

    /// `napi_enable` for all contexts: from now on they can be scheduled.
    pub fn enable(&mut self) {
        self.reset(NapiState::Idle);
    }

    /// `napi_disable` for all contexts: nothing is polled any more.
    pub fn disable(&mut self) {
        self.reset(NapiState::Disabled);
    }

    fn reset(&mut self, state: NapiState) {
        for cpu in &mut self.cpus {
            cpu.poll_list.clear();
            (cpu.backlog, cpu.softirq, cpu.ksoftirqd) = (false, None, false);
        }
        for context in &mut self.contexts {
            (context.state, context.defer, context.timer) = (state, 0, None);
        }
    }

    /// `napi_schedule_prep` and `__napi_schedule`: appends the context to its CPU's poll list. `true` when it
    /// wasn't in one: the caller masks its interrupt.
    pub fn schedule(&mut self, id: NapiId) -> bool {
        let Some(context) = self.contexts.get_mut(id.0) else {
            return false;
        };
        if context.state != NapiState::Idle {
            return false;
        }
        (context.state, context.timer) = (NapiState::Scheduled, None);
        let cpu = context.cpu.0;
        self.cpus[cpu].poll_list.push_back(Polled::Napi(id));
        true
    }

    /// `rps_trigger_softirq`: a CPU's backlog has got work. A CPU that does not exist here is nobody's to poll; the
    /// stack works its backlog off by itself.
    pub fn schedule_backlog(&mut self, cpu: CpuId) {
        if let Some(softnet) = self.cpus.get_mut(cpu.0)
            && !std::mem::replace(&mut softnet.backlog, true)
        {
            softnet.poll_list.push_back(Polled::Backlog);
        }
    }

    /// Number of CPUs.
    pub fn cpus(&self) -> usize {
        self.cpus.len()
    }

    /// Whether anything waits to be polled (`NET_RX_SOFTIRQ` is raised somewhere).
    pub fn is_pending(&self) -> bool {
        self.cpus.iter().any(|cpu| !cpu.poll_list.is_empty())
    }

    /// Whether anything waits to be polled on a CPU.
    pub fn is_pending_on(&self, cpu: CpuId) -> bool {
        self.cpus.get(cpu.0).is_some_and(|cpu| !cpu.poll_list.is_empty())
    }

    /// A CPU with work, each in its turn: a scheduler that is fair and the same in each run.
    pub fn next_cpu(&mut self) -> Option<CpuId> {
        let count = self.cpus.len();
        let cpu = (0..count)
            .map(|i| CpuId((self.turn + i) % count))
            .find(|&cpu| self.is_pending_on(cpu))?;
        self.turn = (cpu.0 + 1) % count;
        Some(cpu)
    }

    /// When [`Softnet::expire`] has something to do: a deferred interrupt, or packets held.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.contexts.iter().filter_map(|c| c.timer).min()
    }

    /// Schedules the contexts whose time has come (`napi_watchdog`); each is given to `mask`, in whose hands
    /// its interrupt is.
    pub fn expire(&mut self, now: Instant, mut mask: impl FnMut(NapiId)) {
        for n in 0..self.contexts.len() {
            if self.contexts[n].timer.is_some_and(|at| at <= now) {
                self.contexts[n].timer = None;
                if self.schedule(NapiId(n)) {
                    mask(NapiId(n));
                }
            }
        }
    }

    /// Counters of all CPUs together.
    pub fn stats(&self) -> SoftnetStats {
        self.cpus
            .iter()
            .fold(SoftnetStats::default(), |a, c| SoftnetStats {
                processed: a.processed + c.stats.processed,
                time_squeeze: a.time_squeeze + c.stats.time_squeeze,
                rounds: a.rounds + c.stats.rounds,
                polls: a.polls + c.stats.polls,
                ksoftirqd: a.ksoftirqd + c.stats.ksoftirqd,
            })
    }

    /// A line for each CPU, as in /proc/net/softnet_stat; the backlogs are the stack's.
    pub fn show_stat(&self, stack: &Stack) -> String {
        let mut lines = String::new();
        for (cpu, softnet) in self.cpus.iter().enumerate() {
            let backlog = stack.backlog_stats(CpuId(cpu)).unwrap_or_default();
            let (mut columns, squeezed) = ([0; 13], softnet.stats.time_squeeze);
            (columns[0], columns[1], columns[2]) = (backlog.processed, backlog.dropped, squeezed);
            (columns[9], columns[10]) = (backlog.received_rps, backlog.flow_limit_count);
            (columns[11], columns[12]) = (backlog.backlog_len as u64, cpu as u64);
            let line: Vec<_> = columns.iter().map(|n| format!("{n:08x}")).collect();
            lines += &line.join(" ");
            lines.push('\n');
        }
        lines
    }

    /// Counters of one CPU.
    pub fn cpu_stats(&self, cpu: CpuId) -> Option<SoftnetStats> {
        self.cpus.get(cpu.0).map(|c| c.stats)
    }

    /// One round over a CPU's poll list (`net_rx_action`). `now` is asked after each poll.
    ///
    /// # Errors
    /// The first failing poll ends the round; its context is disabled.
    pub fn net_rx_action<P: NapiPoll>(
        &mut self,
        cpu: CpuId,
        device: &mut P,
        budget: NetdevBudget,
        mut now: impl FnMut() -> Instant,
    ) -> Result<Round, P::Error> {
        let Some(softnet) = self.cpus.get_mut(cpu.0) else {
            return Ok(Round { work: 0, more: false });
        };
        softnet.stats.rounds += 1;
        if let Some(backlogs) = device.backlogs() {
            backlogs.run_on(cpu);
        }
        let limit = now() + budget.time;
        let mut work = 0;
        while let Some(polled) = self.cpus[cpu.0].poll_list.pop_front() {
            self.cpus[cpu.0].stats.polls += 1;
            let done = match polled {
                Polled::Backlog => Ok(self.poll_backlog(cpu, device)),
                Polled::Napi(id) => self.napi_poll(id, device, &mut now).inspect_err(|_| {
                    self.contexts[id.0].state = NapiState::Disabled;
                }),
            };
            while let Some(cpu) = device.backlogs().and_then(|b| b.net_rps_ipi()) {
                self.schedule_backlog(cpu);
            }
            work += done?;
            if work >= budget.packets || now() >= limit {
                self.cpus[cpu.0].stats.time_squeeze += u64::from(self.is_pending_on(cpu));
                break;
            }
        }
        self.cpus[cpu.0].stats.processed += work as u64;
        Ok(Round {
            work,
            more: self.is_pending_on(cpu),
        })
    }

    /// One poll of a CPU's backlog.
    fn poll_backlog<P: NapiPoll>(&mut self, cpu: CpuId, device: &mut P) -> usize {
        let softnet = &mut self.cpus[cpu.0];
        softnet.backlog = false;
        let backlogs = device.backlogs();
        let work = backlogs.map_or(0, |b| b.process_backlog(cpu, NAPI_POLL_WEIGHT));
        if work >= NAPI_POLL_WEIGHT {
            self.schedule_backlog(cpu);
        }
        work
    }

    /// One poll of one context (`napi_poll`).
    fn napi_poll<P: NapiPoll>(
        &mut self,
        id: NapiId,
        device: &mut P,
        now: &mut impl FnMut() -> Instant,
    ) -> Result<usize, P::Error> {
        let work = device.poll(id, NAPI_POLL_WEIGHT)?;
        let cpu = self.contexts[id.0].cpu.0;
        if work >= NAPI_POLL_WEIGHT {
            device.gro_flush(id, GroFlush::Old);
            self.cpus[cpu].poll_list.push_back(Polled::Napi(id));
            return Ok(work);
        }
        if self.napi_complete_done(id, work, device, now()) && device.rearm(id)? == Rearm::MoreWork {
            self.contexts[id.0].state = NapiState::Scheduled;
            self.contexts[id.0].timer = None;
            self.cpus[cpu].poll_list.push_back(Polled::Napi(id));
        }
        Ok(work)
    }

    /// A poll found less than it might have (`napi_complete_done`). Whether the interrupt is to be let
    /// through; if not, a timer polls again.
    fn napi_complete_done<P: NapiPoll>(
        &mut self,
        id: NapiId,
        work: usize,
        device: &mut P,
        now: Instant,
    ) -> bool {
        let timeout = self.parms.gro_flush_timeout;
        let context = &mut self.contexts[id.0];
        if work > 0 {
            context.defer = self.parms.napi_defer_hard_irqs;
        }
        let deferred = context.defer > 0 && !timeout.is_zero();
        context.defer = context.defer.saturating_sub(1);
        // After a poll without work nothing more is to be waited for.
        let flush = if timeout.is_zero() || work == 0 && !deferred {
            GroFlush::All
        } else {
            GroFlush::Old
        };
        let held = device.gro_flush(id, flush);
        context.state = NapiState::Idle;
        context.timer = (deferred || held).then(|| now + timeout);
        !deferred
    }

    /// What an interrupt leaves to be done, on its CPU (`__do_softirq`): [rounds](Self::softirq_round) until nothing
    /// is left or ksoftirqd takes over. The packets processed.
    ///
    /// # Errors
    /// As [`Softnet::net_rx_action`].
    pub fn do_softirq<P: NapiPoll>(
        &mut self,
        cpu: CpuId,
        device: &mut P,
        budget: NetdevBudget,
        mut now: impl FnMut() -> Instant,
    ) -> Result<usize, P::Error> {
        let mut work = 0;
        while self.is_pending_on(cpu) && !self.ksoftirqd_running(cpu) {
            work += self.softirq_round(cpu, device, budget, &mut now)?.work;
        }
        Ok(work)
    }

    /// One round of a CPU's softirq, for a caller whose time passes between rounds. When there were too many in a row,
    /// or they took too long, the rest is left to ksoftirqd ([`Softnet::run_ksoftirqd`]), which does not keep others
    /// from the CPU; until it is done, further interrupts only add to its work, and this does nothing.
    ///
    /// # Errors
    /// As [`Softnet::net_rx_action`].
    pub fn softirq_round<P: NapiPoll>(
        &mut self,
        cpu: CpuId,
        device: &mut P,
        budget: NetdevBudget,
        mut now: impl FnMut() -> Instant,
    ) -> Result<Round, P::Error> {
        let begun = now();
        let Some(softnet) = self.cpus.get_mut(cpu.0).filter(|c| !c.ksoftirqd) else {
            return Ok(Round { work: 0, more: false });
        };
        let (since, rounds) = softnet.softirq.unwrap_or((begun, 0));
        softnet.softirq = None;
        let round = self.net_rx_action(cpu, device, budget, &mut now)?;
        if let Some(softnet) = self.cpus.get_mut(cpu.0).filter(|_| round.more) {
            if rounds + 1 >= MAX_SOFTIRQ_RESTART || now() >= since + MAX_SOFTIRQ_TIME {
                softnet.ksoftirqd = true;
                softnet.stats.ksoftirqd += 1;
            } else {
                softnet.softirq = Some((since, rounds + 1));
            }
        }
        Ok(round)
    }

    /// Whether a CPU's ksoftirqd has work.
    pub fn ksoftirqd_running(&self, cpu: CpuId) -> bool {
        self.cpus.get(cpu.0).is_some_and(|c| c.ksoftirqd)
    }

    /// A turn of a CPU's ksoftirqd: one round. It sleeps when nothing is left.
    ///
    /// # Errors
    /// As [`Softnet::net_rx_action`].
    pub fn run_ksoftirqd<P: NapiPoll>(
        &mut self,
        cpu: CpuId,
        device: &mut P,
        budget: NetdevBudget,
        now: impl FnMut() -> Instant,
    ) -> Result<Round, P::Error> {
        let round = self.net_rx_action(cpu, device, budget, now)?;
        if let Some(softnet) = self.cpus.get_mut(cpu.0) {
            softnet.ksoftirqd &= round.more;
        }
        Ok(round)
    }
}

#[cfg(test)]
mod tests;
