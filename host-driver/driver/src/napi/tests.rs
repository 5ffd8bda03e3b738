//! Rounds, budgets, turns.

use super::*;

/// Queues with packets waiting; every poll takes a microsecond per packet.
struct Queues {
    waiting: Vec<usize>,
    log: Vec<(usize, usize)>,
    flushes: Vec<(usize, GroFlush)>,
    rearmed: Vec<usize>,
    /// Merged packets stay when only old ones are flushed.
    holds: bool,
    /// Packets in the backlogs, and CPUs to be told.
    backlogs: Vec<usize>,
    ipis: Vec<CpuId>,
    running: Option<CpuId>,
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
            flushes: Vec::new(),
            rearmed: Vec::new(),
            holds: false,
            backlogs: Vec::new(),
            ipis: Vec::new(),
            running: None,
            nanos,
        };
        (queues, softnet, move || Instant::from_nanos(clock.get()))
    }
}

impl Backlogs for Queues {
    fn run_on(&mut self, cpu: CpuId) {
        self.running = Some(cpu);
    }
    fn net_rps_ipi(&mut self) -> Option<CpuId> {
        self.ipis.pop()
    }
    fn process_backlog(&mut self, cpu: CpuId, budget: usize) -> usize {
        assert_eq!(self.running, Some(cpu));
        let done = self.backlogs[cpu.0].min(budget);
        self.backlogs[cpu.0] -= done;
        self.nanos.set(self.nanos.get() + done as u64 * 1000);
        done
    }
}

impl NapiPoll for Queues {
    type Error = &'static str;
    fn poll(&mut self, id: NapiId, budget: usize) -> Result<usize, Self::Error> {
        let done = self.waiting[id.0].min(budget);
        self.waiting[id.0] -= done;
        self.log.push((id.0, done));
        self.nanos.set(self.nanos.get() + done as u64 * 1000);
        if id.0 == 99 {
            return Err("broken");
        }
        Ok(done)
    }
    fn gro_flush(&mut self, id: NapiId, flush: GroFlush) -> bool {
        self.flushes.push((id.0, flush));
        self.holds && flush == GroFlush::Old
    }
    fn backlogs(&mut self) -> Option<&mut dyn Backlogs> {
        Some(self)
    }
    fn rearm(&mut self, id: NapiId) -> Result<Rearm, Self::Error> {
        self.rearmed.push(id.0);
        Ok(if self.waiting[id.0] > 0 {
            Rearm::MoreWork
        } else {
            Rearm::Quiet
        })
    }
}

#[test]
fn queues_take_turns_and_none_starves() {
    let (mut queues, mut softnet, mut now) = Queues::new(&[100_000, 3, 100_000]);
    let round = softnet
        .net_rx_action(CpuId(0), &mut queues, NetdevBudget::default(), &mut now)
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
        .net_rx_action(CpuId(0), &mut queues, NetdevBudget::default(), &mut now)
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
    let round = softnet.net_rx_action(CpuId(0), &mut queues, budget, now).unwrap();
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
        CpuId(0),
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
    let round = softnet.net_rx_action(CpuId(0), &mut queues, NetdevBudget::default(), &mut now);
    assert_eq!(round, Ok(Round { work: 0, more: false }));
    assert!(softnet.schedule(NapiId(0)));
}

#[test]
fn a_disabled_context_is_never_polled() {
    let (mut queues, mut softnet, now) = Queues::new(&[64, 64]);
    softnet.disable();
    assert!(!softnet.schedule(NapiId(0)) && !softnet.schedule(NapiId(7)) && !softnet.is_pending());
    assert_eq!(
        softnet.net_rx_action(CpuId(0), &mut queues, NetdevBudget::default(), now),
        Ok(Round { work: 0, more: false })
    );
    assert!(queues.log.is_empty());
}

#[test]
fn deferred_interrupts_come_back_after_empty_polls() {
    let (mut queues, mut softnet, mut now) = Queues::new(&[5]);
    let parms = NapiParms {
        gro_flush_timeout: Duration::from_micros(20),
        napi_defer_hard_irqs: 2,
    };
    softnet.set_parms(parms);
    let round = |softnet: &mut Softnet, queues: &mut Queues, now: &mut dyn FnMut() -> Instant| {
        softnet
            .net_rx_action(CpuId(0), queues, NetdevBudget::default(), now)
            .unwrap()
    };
    // Work, and then twice nothing: only after that the interrupt is let through.
    for expect_rearmed in [0, 0, 1] {
        round(&mut softnet, &mut queues, &mut now);
        assert_eq!(queues.rearmed.len(), expect_rearmed);
        let deadline = softnet.next_deadline();
        assert_eq!(deadline.is_none(), expect_rearmed == 1);
        let mut masked = Vec::new();
        if let Some(at) = deadline {
            assert_eq!(at, now() + parms.gro_flush_timeout);
            softnet.expire(now(), |id| masked.push(id));
            assert!(masked.is_empty(), "not yet");
            softnet.expire(at, |id| masked.push(id));
            assert_eq!(masked, [NapiId(0)]);
        }
    }
    assert!(softnet.schedule(NapiId(0)), "as after any interrupt");
}

#[test]
fn merged_packets_are_held_for_the_timeout_and_no_longer() {
    let (mut queues, mut softnet, mut now) = Queues::new(&[5]);
    queues.holds = true;
    softnet.set_parms(NapiParms {
        gro_flush_timeout: Duration::from_micros(20),
        napi_defer_hard_irqs: 0,
    });
    softnet
        .net_rx_action(CpuId(0), &mut queues, NetdevBudget::default(), &mut now)
        .unwrap();
    assert_eq!(
        (&queues.flushes[..], &queues.rearmed[..]),
        (&[(0, GroFlush::Old)][..], &[0][..])
    );
    let at = softnet.next_deadline().unwrap();
    softnet.expire(at, |_| {});
    softnet
        .net_rx_action(CpuId(0), &mut queues, NetdevBudget::default(), &mut now)
        .unwrap();
    assert_eq!(queues.flushes[1], (0, GroFlush::All));
    assert_eq!(softnet.next_deadline(), None);
}

#[test]
fn without_a_timeout_nothing_is_held_when_a_poll_ends() {
    let (mut queues, mut softnet, now) = Queues::new(&[70]);
    softnet
        .net_rx_action(CpuId(0), &mut queues, NetdevBudget::default(), now)
        .unwrap();
    assert_eq!(queues.flushes, [(0, GroFlush::Old), (0, GroFlush::All)]);
}

#[test]
fn ksoftirqd_takes_over_and_gives_back() {
    let (mut queues, mut softnet, mut now) = Queues::new(&[100_000]);
    let budget = NetdevBudget::default();
    let cpu = CpuId(0);
    let work = softnet.do_softirq(cpu, &mut queues, budget, &mut now).unwrap();
    // A microsecond for each packet: two milliseconds are over in the seventh round of 320.
    assert_eq!(work, 7 * 320);
    assert!(softnet.ksoftirqd_running(cpu));
    assert_eq!(
        softnet.do_softirq(cpu, &mut queues, budget, &mut now),
        Ok(0),
        "left to ksoftirqd"
    );
    let mut turns = 0;
    while softnet.ksoftirqd_running(cpu) {
        softnet.run_ksoftirqd(cpu, &mut queues, budget, &mut now).unwrap();
        turns += 1;
    }
    assert_eq!(turns, (100_000usize - 2240).div_ceil(320));
    assert_eq!((queues.waiting[0], softnet.stats().ksoftirqd), (0, 1));
    assert!(!softnet.is_pending());
}

#[test]
fn a_context_is_polled_on_the_cpu_of_its_interrupt() {
    let (mut queues, _, mut now) = Queues::new(&[500, 500, 500, 500]);
    let mut softnet = Softnet::with_cpus(4, 2);
    softnet.enable();
    assert!(softnet.set_affinity(NapiId(3), CpuId(0)) && !softnet.set_affinity(NapiId(3), CpuId(2)));
    for id in 0..4 {
        assert!(softnet.schedule(NapiId(id)));
    }
    let mut order = Vec::new();
    while let Some(cpu) = softnet.next_cpu() {
        queues.log.clear();
        softnet
            .net_rx_action(cpu, &mut queues, NetdevBudget::default(), &mut now)
            .unwrap();
        for (id, _) in &queues.log {
            assert_eq!(cpu.0, [0, 1, 0, 0][*id]);
        }
        order.push(cpu.0);
    }
    assert_eq!(order[..4], [0, 1, 0, 1], "CPUs take turns");
    assert_eq!(softnet.cpu_stats(CpuId(0)).unwrap().processed, 1500);
    assert_eq!(softnet.cpu_stats(CpuId(1)).unwrap().processed, 500);
}

/// Rows S27, S28: a backlog is polled on its CPU, under the budget of the round, by turns with the devices' contexts.
#[test]
fn a_backlog_is_polled_on_its_cpu_within_the_budget() {
    let (mut queues, _, mut now) = Queues::new(&[10]);
    let mut softnet = Softnet::with_cpus(1, 2);
    softnet.enable();
    queues.backlogs = vec![0, 1000];
    queues.ipis = vec![CpuId(1), CpuId(1), CpuId(7)];
    assert!(softnet.schedule(NapiId(0)));
    let budget = NetdevBudget::default();
    let round = softnet.net_rx_action(CpuId(0), &mut queues, budget, &mut now);
    assert_eq!(
        round,
        Ok(Round {
            work: 10,
            more: false
        })
    );
    assert!(
        softnet.is_pending_on(CpuId(1)),
        "woken once, and the CPU that is not there never"
    );
    let round = softnet.net_rx_action(CpuId(1), &mut queues, budget, &mut now);
    assert_eq!(
        round,
        Ok(Round {
            work: 320,
            more: true
        })
    );
    assert_eq!(softnet.cpu_stats(CpuId(1)).unwrap().time_squeeze, 1);
    // What is left is polled to the end; ksoftirqd does not come to it, it takes less than 2 ms.
    assert_eq!(
        softnet.do_softirq(CpuId(1), &mut queues, budget, &mut now),
        Ok(680)
    );
    assert!(!softnet.is_pending() && !softnet.ksoftirqd_running(CpuId(1)));
}
