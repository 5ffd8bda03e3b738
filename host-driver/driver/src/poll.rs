//! Interrupts and NAPI polls: how packets come up, and how completions come back.

use hematite_bus::PciFunction;
use hematite_netstack::Instant;

use crate::error::Error;
use crate::napi::{NapiId, NapiPoll, Polled, Round};
use crate::net::{CONFIG_VECTOR, Queues, State, VirtioNet};
use crate::packed::PackedQueue;
use crate::rx::NapiReceive;
use crate::transport::VirtioPci;

/// The receive queue's context.
const RX: NapiId = NapiId(0);
/// The transmit queue's.
const TX: NapiId = NapiId(1);

impl<F: PciFunction> VirtioNet<F> {
    /// The hard interrupt handlers: for every interrupt that the device raised, masks its queue and schedules
    /// its context, nothing else (`skb_recv_done`, `skb_xmit_done`, `vp_config_changed`). The number of
    /// interrupts.
    pub fn handle_interrupts(&mut self) -> usize {
        let mut taken = 0;
        while let Some(vector) = self.transport.function().take_interrupt() {
            taken += 1;
            self.irq.total += 1;
            if vector == CONFIG_VECTOR {
                self.irq.config += 1;
                self.config_pending = true;
                continue;
            }
            let (is_rx, is_tx) = (vector == 1, vector == self.info.tx_vector);
            self.irq.rx += u64::from(is_rx);
            self.irq.tx += u64::from(is_tx);
            let mut expected = is_rx && self.schedule(RX);
            expected |= is_tx && self.schedule(TX);
            self.irq.spurious += u64::from(!expected);
        }
        taken
    }

    /// Whether anything waits for a [`net_rx_action`](Self::net_rx_action) round.
    pub fn is_pending(&self) -> bool {
        self.softnet.is_pending() || self.config_pending || self.pending_fault.is_some()
    }

    /// One softirq round: configuration changes, then the poll list within
    /// [`NetdevBudget`](crate::napi::NetdevBudget).
    ///
    /// # Errors
    /// The device broke: it is reset, the state is [`State::Failed`], and
    /// [`reset_and_restore`](Self::reset_and_restore) brings it back.
    pub fn net_rx_action<S: NapiReceive>(
        &mut self,
        now: impl FnMut() -> Instant,
        stack: &mut S,
    ) -> Result<Round, Error> {
        let pending = self.pending_fault.take().map_or(Ok(()), Err);
        let done = pending.and_then(|()| self.config_changed()).and_then(|()| {
            let Some(queues) = self.queues.as_mut().filter(|_| self.state == State::Up) else {
                return Ok(Round { work: 0, more: false });
            };
            let mut poller = Poller {
                transport: &mut self.transport,
                queues,
                stack,
                rearm_races: &mut self.rearm_races,
            };
            self.softnet.net_rx_action(&mut poller, self.options.budget, now)
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
        let Some(queues) = self.queues.as_mut().filter(|_| self.softnet.schedule(id)) else {
            return false;
        };
        let masked = match id {
            RX => queues.rx.vq.ring.disable_cb(),
            _ => queues.tx.vq.ring.disable_cb(),
        };
        if let Err(error) = masked {
            self.pending_fault = Some(error.into());
        }
        true
    }

    /// Lets both queues' interrupts through, and schedules those with work already.
    pub(crate) fn rearm_all(&mut self) -> Result<(), Error> {
        let Some(queues) = &mut self.queues else {
            return Ok(());
        };
        let rx_quiet = queues.rx.vq.ring.enable_cb()?;
        let tx_quiet = queues.tx.vq.ring.enable_cb()?;
        for (id, quiet) in [(RX, rx_quiet), (TX, tx_quiet)] {
            if !quiet {
                self.schedule(id);
            }
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

impl<F: PciFunction, S: NapiReceive> NapiPoll for Poller<'_, F, S> {
    type Error = Error;

    /// `virtnet_poll` and `virtnet_poll_tx`.
    fn poll(&mut self, id: NapiId, budget: usize) -> Result<Polled, Error> {
        // Cleaning transmit buffers is cheap and frees memory: outside of the budget, in both contexts.
        let stack = &mut *self.stack;
        self.queues.tx.clean(|skb| stack.napi_consume_skb(skb))?;
        if id == TX {
            return complete(&mut self.queues.tx.vq.ring, 0, self.rearm_races);
        }
        let work = self.queues.rx.poll(self.transport, budget, self.stack)?;
        if work == budget {
            return Ok(Polled::Again(work));
        }
        complete(&mut self.queues.rx.vq.ring, work, self.rearm_races)
    }
}

/// `napi_complete_done` and the look at the ring after it (`virtqueue_napi_complete`): a packet that came
/// between the last look and the unmasking raised no interrupt, and is found here.
fn complete<C>(ring: &mut PackedQueue<C>, work: usize, rearm_races: &mut u64) -> Result<Polled, Error> {
    if ring.enable_cb()? {
        return Ok(Polled::Complete(work));
    }
    *rearm_races += 1;
    ring.disable_cb()?;
    Ok(Polled::Again(work))
}
