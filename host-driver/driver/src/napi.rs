//! NAPI: interrupts only say that there is work; the work is done in polled rounds (Linux's
//! `net/core/dev.c`).
//!
//! ```text
//! interrupt -> schedule_prep: mask, append to the poll list
//! net_rx_action: until budget or time is used up
//!     poll(first, weight 64) -> work < weight: complete, unmask, look again
//!                            -> work = weight: to the tail of the list, still masked
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use hematite_netstack::Instant;

/// Packets that one poll may process (`NAPI_POLL_WEIGHT`).
pub const NAPI_POLL_WEIGHT: usize = 64;

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

/// One pollable context, `struct napi_struct`: of a queue, or of whatever shares an interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum NapiState {
    #[default]
    Disabled,
    /// Enabled, interrupt on, not in the poll list.
    Idle,
    /// In the poll list or being polled; interrupt off (`NAPI_STATE_SCHED`).
    Scheduled,
}

/// Number of a NAPI context of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NapiId(pub usize);

/// What a poll did with its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polled {
    /// All work is done, `usize` packets of it, and the interrupt is on again.
    Complete(usize),
    /// There is (or may be) more; stay in poll mode.
    Again(usize),
}

/// A device whose contexts are polled.
pub trait NapiPoll {
    /// Why a poll fails.
    type Error;

    /// Processes at most `budget` packets of context `id`. Returns [`Polled::Complete`] only with less work
    /// than budget, the interrupt re-armed *and the ring looked at once more after that*.
    ///
    /// # Errors
    /// The device broke; nothing of it is polled any more.
    fn poll(&mut self, id: NapiId, budget: usize) -> Result<Polled, Self::Error>;
}

/// Counters as in `/proc/net/softnet_stat`.
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
}

/// How a round ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// Packets processed.
    pub work: usize,
    /// Whether contexts are left in the poll list: `net_rx_action` wants to run again (`NET_RX_SOFTIRQ`
    /// raised).
    pub more: bool,
}

/// The poll list and its contexts, `struct softnet_data`.
#[derive(Debug, Default)]
pub struct Softnet {
    contexts: Vec<NapiState>,
    poll_list: VecDeque<NapiId>,
    stats: SoftnetStats,
}

impl Softnet {
    /// `contexts` contexts, all disabled.
    pub fn new(contexts: usize) -> Self {
        Self {
            contexts: vec![NapiState::Disabled; contexts],
            ..Self::default()
        }
    }

    /// `napi_enable` for all contexts: from now on they can be scheduled.
    pub fn enable(&mut self) {
        self.poll_list.clear();
        self.contexts.fill(NapiState::Idle);
    }

    /// `napi_disable` for all contexts: nothing is polled any more.
    pub fn disable(&mut self) {
        self.poll_list.clear();
        self.contexts.fill(NapiState::Disabled);
    }

    /// `napi_schedule_prep` and `__napi_schedule`: appends the context to the poll list. `true` when it
    /// wasn't there: the caller masks its interrupt.
    pub fn schedule(&mut self, id: NapiId) -> bool {
        match self.contexts.get_mut(id.0) {
            Some(state @ NapiState::Idle) => {
                *state = NapiState::Scheduled;
                self.poll_list.push_back(id);
                true
            }
            _ => false,
        }
    }

    /// Whether anything waits to be polled (`NET_RX_SOFTIRQ` is raised).
    pub fn is_pending(&self) -> bool {
        !self.poll_list.is_empty()
    }

    /// Counters.
    pub fn stats(&self) -> SoftnetStats {
        self.stats
    }

    /// One round over the poll list (`net_rx_action`). `now` is asked after each poll.
    ///
    /// # Errors
    /// The first failing poll ends the round; its context is disabled.
    pub fn net_rx_action<P: NapiPoll>(
        &mut self,
        device: &mut P,
        budget: NetdevBudget,
        mut now: impl FnMut() -> Instant,
    ) -> Result<Round, P::Error> {
        self.stats.rounds += 1;
        let limit = now() + budget.time;
        let mut work = 0;
        while let Some(id) = self.poll_list.pop_front() {
            self.stats.polls += 1;
            match device.poll(id, NAPI_POLL_WEIGHT) {
                Ok(Polled::Complete(done)) => {
                    self.contexts[id.0] = NapiState::Idle;
                    work += done;
                }
                Ok(Polled::Again(done)) => {
                    self.poll_list.push_back(id);
                    work += done;
                }
                Err(error) => {
                    self.contexts[id.0] = NapiState::Disabled;
                    return Err(error);
                }
            }
            if work >= budget.packets || now() >= limit {
                self.stats.time_squeeze += u64::from(self.is_pending());
                break;
            }
        }
        self.stats.processed += work as u64;
        Ok(Round {
            work,
            more: self.is_pending(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Queues with packets waiting; every poll takes a microsecond per packet.
    struct Queues {
        waiting: Vec<usize>,
        log: Vec<(usize, usize)>,
        nanos: std::rc::Rc<std::cell::Cell<u64>>,
    }

    impl Queues {
        fn new(waiting: &[usize]) -> (Self, Softnet, impl FnMut() -> Instant) {
            let nanos = std::rc::Rc::new(std::cell::Cell::new(0));
            let clock = nanos.clone();
            let mut softnet = Softnet::new(waiting.len());
            softnet.enable();
            for id in 0..waiting.len() {
                assert!(softnet.schedule(NapiId(id)));
            }
            let queues = Self {
                waiting: waiting.to_vec(),
                log: Vec::new(),
                nanos,
            };
            (queues, softnet, move || Instant::from_nanos(clock.get()))
        }
    }

    impl NapiPoll for Queues {
        type Error = &'static str;
        fn poll(&mut self, id: NapiId, budget: usize) -> Result<Polled, Self::Error> {
            let done = self.waiting[id.0].min(budget);
            self.waiting[id.0] -= done;
            self.log.push((id.0, done));
            self.nanos.set(self.nanos.get() + done as u64 * 1000);
            if id.0 == 99 {
                return Err("broken");
            }
            Ok(if done < budget {
                Polled::Complete(done)
            } else {
                Polled::Again(done)
            })
        }
    }

    #[test]
    fn queues_take_turns_and_none_starves() {
        let (mut queues, mut softnet, mut now) = Queues::new(&[100_000, 3, 100_000]);
        let round = softnet
            .net_rx_action(&mut queues, NetdevBudget::default(), &mut now)
            .unwrap();
        // 300 is not a multiple of 64: the round ends with the poll that crosses it.
        assert_eq!(queues.log, [(0, 64), (1, 3), (2, 64), (0, 64), (2, 64), (0, 64)]);
        assert_eq!(
            round,
            Round {
                work: 323,
                more: true
            }
        );
        assert_eq!(softnet.stats().time_squeeze, 1);
        // The next round begins where the last one ended.
        queues.log.clear();
        softnet
            .net_rx_action(&mut queues, NetdevBudget::default(), &mut now)
            .unwrap();
        assert_eq!(queues.log[0], (2, 64));
    }

    #[test]
    fn the_time_cap_ends_a_round() {
        let (mut queues, mut softnet, now) = Queues::new(&[1000]);
        let budget = NetdevBudget {
            packets: usize::MAX,
            time: Duration::from_micros(100),
        };
        let round = softnet.net_rx_action(&mut queues, budget, now).unwrap();
        assert_eq!(
            round,
            Round {
                work: 128,
                more: true
            }
        );
    }

    #[test]
    fn exactly_the_weight_stays_in_poll_mode() {
        let (mut queues, mut softnet, mut now) = Queues::new(&[64]);
        let round = softnet.net_rx_action(
            &mut queues,
            NetdevBudget {
                packets: 64,
                ..Default::default()
            },
            &mut now,
        );
        assert_eq!(round, Ok(Round { work: 64, more: true }));
        assert!(
            !softnet.schedule(NapiId(0)),
            "still scheduled: an interrupt now changes nothing"
        );
        let round = softnet.net_rx_action(&mut queues, NetdevBudget::default(), &mut now);
        assert_eq!(round, Ok(Round { work: 0, more: false }));
        assert!(softnet.schedule(NapiId(0)));
    }

    #[test]
    fn a_disabled_context_is_never_polled() {
        let (mut queues, mut softnet, now) = Queues::new(&[64, 64]);
        softnet.disable();
        assert!(!softnet.schedule(NapiId(0)) && !softnet.schedule(NapiId(7)) && !softnet.is_pending());
        assert_eq!(
            softnet.net_rx_action(&mut queues, NetdevBudget::default(), now),
            Ok(Round { work: 0, more: false })
        );
        assert!(queues.log.is_empty());
    }
}
