//! Interrupts and NAPI polls: how packets come up, and how completions come back.

use hematite_bus::PciFunction;
use hematite_netstack::{CpuMask, GroFlush, Instant, Stack};

use crate::error::Error;
use crate::napi::{Backlogs, CpuId, NapiId, NapiPoll, NetdevBudget, Rearm, Round, Softnet};
use crate::net::{CONFIG_VECTOR, Pair, Queues, State, VirtioNet};
use crate::rx::NapiReceive;
use crate::transport::VirtioPci;
use crate::tx::XmitError;
use crate::xdp::{XdpProgram, XdpStats};

/// A context, by pair: of its receive or of its transmit queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Context {
    Rx(usize),
    Tx(usize),
}

impl Context {
    fn of(id: NapiId) -> Self {
        match id.0 % 2 {
            0 => Self::Rx(id.0 / 2),
            _ => Self::Tx(id.0 / 2),
        }
    }

    fn id(self) -> NapiId {
        match self {
            Self::Rx(pair) => NapiId(2 * pair),
            Self::Tx(pair) => NapiId(2 * pair + 1),
        }
    }
}

impl Queues {
    fn disable_cb(&mut self, context: Context) -> Result<(), Error> {
        match context {
            Context::Rx(n) => self.pairs.get_mut(n).map(|pair| pair.rx.vq.ring.disable_cb()),
            Context::Tx(n) => self.pairs.get_mut(n).map(|pair| pair.tx.vq.ring.disable_cb()),
        }
        .unwrap_or(Ok(()))
        .map_err(Error::from)
    }

    fn enable_cb(&mut self, context: Context) -> Result<bool, Error> {
        match context {
            Context::Rx(n) => self.pairs.get_mut(n).map(|pair| pair.rx.vq.ring.enable_cb()),
            Context::Tx(n) => self.pairs.get_mut(n).map(|pair| pair.tx.vq.ring.enable_cb()),
        }
        .unwrap_or(Ok(true))
        .map_err(Error::from)
    }
}

impl<F: PciFunction> VirtioNet<F> {
    /// The hard interrupt handlers: for every interrupt that the device raised, masks its queue and schedules
    /// its context, nothing else (`skb_recv_done`, `skb_xmit_done`, `vp_config_changed`). The number of
    /// interrupts.
    pub fn handle_interrupts(&mut self) -> usize {
        let mut taken = 0;
        while let Some(vector) = self.transport.function().take_interrupt() {
            taken += 1;
            self.irq.total += 1;
            let is_config = vector == CONFIG_VECTOR;
            self.irq.config += u64::from(is_config);
            self.config_pending |= is_config;
            let contexts: Vec<_> = self.napi_of(vector).collect();
            let any = |rx| {
                contexts
                    .iter()
                    .any(|context| matches!(context, Context::Rx(_)) == rx)
            };
            self.irq.rx += u64::from(any(true));
            self.irq.tx += u64::from(any(false));
            let mut expected = is_config;
            for context in contexts {
                expected |= self.schedule(context.id());
            }
            self.irq.spurious += u64::from(!expected);
        }
        taken
    }

    /// Whether anything waits for a [`net_rx_action`](Self::net_rx_action) round.
    pub fn is_pending(&self) -> bool {
        self.softnet.is_pending() || self.config_pending || self.pending_fault.is_some()
    }

    /// One softirq round on the CPU whose turn it is: configuration changes, then its poll list within
    /// [`NetdevBudget`](crate::napi::NetdevBudget).
    ///
    /// # Errors
    /// The device broke: it is reset, the state is [`State::Failed`], and
    /// [`reset_and_restore`](Self::reset_and_restore) brings it back.
    pub fn net_rx_action<S: NapiReceive>(
        &mut self,
        mut now: impl FnMut() -> Instant,
        stack: &mut S,
    ) -> Result<Round, Error> {
        let at = now();
        let cpu = self.softnet.next_cpu().unwrap_or_default();
        let mut round = self.on_cpu(stack, |softnet, poller, budget| {
            softnet.net_rx_action(cpu, poller, budget, now)
        })?;
        self.adapt(at)?;
        round.more = self.softnet.is_pending();
        Ok(round)
    }

    /// What interrupts left to be done on a CPU ([`Softnet::do_softirq`]): rounds until nothing is left, or
    /// until ksoftirqd takes over ([`run_ksoftirqd`](Self::run_ksoftirqd)). The packets processed.
    ///
    /// # Errors
    /// As [`net_rx_action`](Self::net_rx_action).
    pub fn do_softirq<S: NapiReceive>(
        &mut self,
        cpu: CpuId,
        now: impl FnMut() -> Instant,
        stack: &mut S,
    ) -> Result<usize, Error> {
        self.on_cpu(stack, |softnet, poller, budget| {
            softnet.do_softirq(cpu, poller, budget, now)
        })
    }

    /// One round on a CPU, by its softirq or, if that has handed over, by its ksoftirqd
    /// ([`Softnet::softirq_round`], [`Softnet::run_ksoftirqd`]).
    ///
    /// # Errors
    /// As [`net_rx_action`](Self::net_rx_action).
    pub fn run_cpu<S: NapiReceive>(
        &mut self,
        cpu: CpuId,
        mut now: impl FnMut() -> Instant,
        stack: &mut S,
    ) -> Result<Round, Error> {
        let at = now();
        let round = self.on_cpu(stack, |softnet, poller, budget| {
            if softnet.ksoftirqd_running(cpu) {
                softnet.run_ksoftirqd(cpu, poller, budget, now)
            } else {
                softnet.softirq_round(cpu, poller, budget, now)
            }
        })?;
        self.adapt(at)?;
        Ok(round)
    }

    /// Sends the interrupts of a vector to the first CPU of a set, from the next one on
    /// (`/proc/irq/<n>/smp_affinity`); that CPU (`effective_affinity`).
    ///
    /// # Errors
    /// [`Error::State`] if the set has no CPU that exists, or no queue has the vector.
    pub fn set_irq_affinity(&mut self, vector: u16, cpus: CpuMask) -> Result<CpuId, Error> {
        let cpu = cpus
            .iter()
            .next()
            .ok_or(Error::State("given no CPU for the vector"))?;
        let mut moved = false;
        for context in self.napi_of(vector).collect::<Vec<_>>() {
            moved |= self.softnet.set_affinity(context.id(), cpu);
        }
        if moved {
            Ok(cpu)
        } else {
            Err(Error::State("without that CPU or vector"))
        }
    }

    /// The CPU that the interrupts of a vector go to.
    pub fn irq_affinity(&self, vector: u16) -> Option<CpuId> {
        let context = self.napi_of(vector).next()?;
        self.softnet.affinity(context.id())
    }

    /// The contexts that an interrupt schedules.
    fn napi_of(&self, vector: u16) -> impl Iterator<Item = Context> + '_ {
        let vectors = self.info.vectors.iter().take(self.info.pairs).enumerate();
        vectors
            .flat_map(|(n, pair)| [(pair.rx, Context::Rx(n)), (pair.tx, Context::Tx(n))])
            .filter(move |(of, _)| *of == vector)
            .map(|(_, context)| context)
    }

    /// Limits of a round (net.core.netdev_budget, net.core.netdev_budget_usecs), from the next one on.
    pub fn set_netdev_budget(&mut self, budget: NetdevBudget) {
        self.options.budget = budget;
    }

    /// Limits of a round.
    pub fn netdev_budget(&self) -> NetdevBudget {
        self.options.budget
    }

    /// Counters of the receive path, a line for each CPU, as /proc/net/softnet_stat has them: packets, drops of the
    /// backlog, rounds that ran out of budget or time, wake-ups for steered packets, packets that wait, the CPU.
    pub fn show_softnet_stat(&self, stack: &Stack) -> String {
        self.softnet.show_stat(stack)
    }

    /// A turn of a CPU's ksoftirqd, to be given while [`Softnet::ksoftirqd_running`].
    ///
    /// # Errors
    /// As [`net_rx_action`](Self::net_rx_action).
    pub fn run_ksoftirqd<S: NapiReceive>(
        &mut self,
        cpu: CpuId,
        now: impl FnMut() -> Instant,
        stack: &mut S,
    ) -> Result<Round, Error> {
        self.on_cpu(stack, |softnet, poller, budget| {
            softnet.run_ksoftirqd(cpu, poller, budget, now)
        })
    }

    /// Puts a program on the hook before the skb, or takes it off (`ip link set dev ... xdp`); the one that was
    /// there. It stays until the device is reset. Meanwhile the device merges no segments: a program sees frames.
    ///
    /// # Errors
    /// [`Error::State`] while the device is reset; [`Error::MergesForXdp`] when the device merges segments and can't be
    /// told to stop; as [`set_features`](Self::set_features) when it is told and refuses.
    pub fn set_xdp(
        &mut self,
        program: Option<Box<dyn XdpProgram>>,
    ) -> Result<Option<Box<dyn XdpProgram>>, Error> {
        if program.is_some() && self.gro_hw && !self.can_switch_gro_hw() {
            return Err(Error::MergesForXdp);
        }
        let queues = self.queues.as_mut().ok_or(Error::State("failed"))?;
        let before = std::mem::replace(&mut queues.xdp, program);
        self.update_gro_hw()?;
        Ok(before)
    }

    /// Counters of the hook.
    pub fn xdp_stats(&self) -> XdpStats {
        let pairs = self
            .queues
            .as_ref()
            .map_or(&[][..], |queues| queues.pairs.as_slice());
        pairs
            .iter()
            .fold(XdpStats::default(), |sum, pair| sum + pair.rx.xdp_stats)
    }

    /// The poll lists: pending work, counters, affinity of interrupts, timeouts.
    pub fn softnet(&self) -> &Softnet {
        &self.softnet
    }

    /// The poll lists, to be changed.
    pub fn softnet_mut(&mut self) -> &mut Softnet {
        &mut self.softnet
    }

    /// When [`napi_timers`](Self::napi_timers) has something to do: interrupts are deferred, or merged
    /// packets held.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.softnet.next_deadline()
    }

    /// Schedules the contexts whose time has come (`napi_watchdog`). Their interrupts are masked again.
    pub fn napi_timers(&mut self, now: Instant) {
        let mut due = Vec::new();
        self.softnet.expire(now, |id| due.push(id));
        for id in due {
            self.mask(id);
        }
    }

    fn on_cpu<S: NapiReceive, R: Default>(
        &mut self,
        stack: &mut S,
        run: impl FnOnce(&mut Softnet, &mut Poller<'_, F, S>, NetdevBudget) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let pending = self.pending_fault.take().map_or(Ok(()), Err);
        let done = pending.and_then(|()| self.config_changed()).and_then(|announce| {
            if announce {
                stack.netdev_notify_peers();
            }
            let Some(queues) = self.queues.as_mut().filter(|_| self.state == State::Up) else {
                return Ok(R::default());
            };
            let mut poller = Poller {
                transport: &mut self.transport,
                queues,
                stack,
                rearm_races: &mut self.rearm_races,
            };
            run(&mut self.softnet, &mut poller, self.options.budget)
        });
        done.map_err(|error| self.fail(error))
    }

    /// [`handle_interrupts`](Self::handle_interrupts) and one round.
    ///
    /// # Errors
    /// As [`net_rx_action`](Self::net_rx_action).
    pub fn service<S: NapiReceive>(
        &mut self,
        now: impl FnMut() -> Instant,
        stack: &mut S,
    ) -> Result<Round, Error> {
        self.handle_interrupts();
        self.net_rx_action(now, stack)
    }

    /// Schedules a context and masks its queue; `false` when it was scheduled.
    pub(crate) fn schedule(&mut self, id: NapiId) -> bool {
        if self.queues.is_none() || !self.softnet.schedule(id) {
            return false;
        }
        self.mask(id);
        true
    }

    fn mask(&mut self, id: NapiId) {
        let masked = self
            .queues
            .as_mut()
            .map_or(Ok(()), |queues| queues.disable_cb(Context::of(id)));
        if let Err(error) = masked {
            self.pending_fault = Some(error);
        }
    }

    /// Lets the queues' interrupts through, and schedules those with work already.
    pub(crate) fn rearm_all(&mut self) -> Result<(), Error> {
        let Some(queues) = &mut self.queues else {
            return Ok(());
        };
        let mut busy = Vec::new();
        for n in 0..queues.pairs.len() {
            for context in [Context::Rx(n), Context::Tx(n)] {
                if !queues.enable_cb(context)? {
                    busy.push(context.id());
                }
            }
        }
        for id in busy {
            self.schedule(id);
        }
        Ok(())
    }
}

/// The parts of the interface that a poll works on.
struct Poller<'a, F, S> {
    transport: &'a mut VirtioPci<F>,
    queues: &'a mut Queues,
    stack: &'a mut S,
    rearm_races: &'a mut u64,
}

impl<F: PciFunction, S: NapiReceive> Poller<'_, F, S> {
    /// Sends what a program wants sent back (`virtnet_xdp_xmit`); what finds no room is dropped.
    fn xdp_xmit(&mut self, pair: usize) -> Result<(), Error> {
        let Some(Pair { rx, tx }) = self.queues.pairs.get_mut(pair) else {
            return Ok(());
        };
        if rx.xdp_tx.is_empty() {
            return Ok(());
        }
        for skb in rx.xdp_tx.drain(..) {
            match tx.xmit(self.transport, skb) {
                Ok(()) => rx.xdp_stats.tx += 1,
                Err(XmitError::Busy(skb)) => {
                    rx.xdp_stats.tx_drops += 1;
                    self.stack.napi_consume_skb(skb);
                }
                Err(XmitError::Failed(error)) => return Err(error),
            }
        }
        tx.vq.kick(self.transport)
    }
}

impl<F: PciFunction, S: NapiReceive> NapiPoll for Poller<'_, F, S> {
    type Error = Error;

    /// `virtnet_poll` and `virtnet_poll_tx`.
    fn poll(&mut self, id: NapiId, budget: usize) -> Result<usize, Error> {
        // Cleaning transmit buffers is cheap and frees memory: outside of the budget, in both contexts.
        let stack = &mut *self.stack;
        let context = Context::of(id);
        let (Context::Rx(n) | Context::Tx(n)) = context;
        let Queues { pairs, xdp, .. } = &mut *self.queues;
        let Some(Pair { rx, tx }) = pairs.get_mut(n) else {
            return Ok(0);
        };
        tx.clean(|skb| stack.napi_consume_skb(skb))?;
        if context == Context::Tx(n) {
            return Ok(0);
        }
        rx.xdp = xdp.take();
        let work = rx.poll(self.transport, budget, self.stack);
        *xdp = rx.xdp.take();
        self.xdp_xmit(n)?;
        work
    }

    fn gro_flush(&mut self, id: NapiId, flush: GroFlush) -> bool {
        match Context::of(id) {
            Context::Rx(queue) => self.stack.napi_gro_flush(queue as u16, flush),
            Context::Tx(_) => false,
        }
    }

    fn backlogs(&mut self) -> Option<&mut dyn Backlogs> {
        self.stack.backlogs()
    }

    /// The look at the ring after the unmasking (`virtqueue_napi_complete`): a packet that came between the
    /// last look and the unmasking raised no interrupt, and is found here.
    fn rearm(&mut self, id: NapiId) -> Result<Rearm, Error> {
        let context = Context::of(id);
        if self.queues.enable_cb(context)? {
            return Ok(Rearm::Quiet);
        }
        *self.rearm_races += 1;
        self.queues.disable_cb(context)?;
        Ok(Rearm::MoreWork)
    }
}
