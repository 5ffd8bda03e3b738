//! CPUs as threads. Each runs its poll list, its backlog and its ksoftirqd ([`VirtioNet::run_cpu`]), woken by the
//! interrupts and packets that are meant for it; what they share, driver and stack, they take turns at, under one lock.
//!
//! In co-simulation the same CPUs are run in a fixed order instead, by one thread, so that runs replay.

use anyhow::{Context, Error, Result};
use hematite_bus::vfio::{Port, VfioFunction};
use hematite_driver::{StackReceive, VirtioNet};
use hematite_netstack::{CpuId, CpuMask, Errno, IfIndex, Instant as StackInstant, QdiscState, Stack};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Instant;

/// How often a device that went wrong is reset before the command gives up.
const MOST_RESTORES: u32 = 8;
/// Flows that are followed to the CPU of their program, when packets are steered.
const RPS_FLOWS: usize = 4096;

/// Driver and stack of one interface.
pub struct Host<P: Port> {
    pub net: VirtioNet<VfioFunction<P>>,
    /// For sockets.
    pub stack: Stack,
    pub ifindex: IfIndex,
    start: Instant,
    restores: u32,
    stop: bool,
    /// Why it cannot go on.
    failed: Option<Error>,
}

impl<P: Port> Host<P> {
    pub fn new(net: VirtioNet<VfioFunction<P>>, stack: Stack, ifindex: IfIndex) -> Self {
        Self {
            net,
            stack,
            ifindex,
            start: Instant::now(),
            restores: 0,
            stop: false,
            failed: None,
        }
    }

    /// The stack's clock.
    pub fn now(&self) -> StackInstant {
        StackInstant::from_nanos(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Lets received packets go to all CPUs by their flow (RPS), and to that of their program (RFS).
    pub fn steer(&mut self, cpus: usize) -> Result<(), Errno> {
        self.stack.set_rps_sock_flow_entries(RPS_FLOWS)?;
        for queue in 0..self.net.channels().combined {
            let all = CpuMask(u64::MAX >> (64 - cpus));
            self.stack.set_rps_cpus(self.ifindex, queue as u16, all)?;
            self.stack
                .set_rps_flow_cnt(self.ifindex, queue as u16, RPS_FLOWS)?;
        }
        Ok(())
    }

    /// One round on a CPU (`run_cpu`), or of whatever is pending, and what is to be sent then.
    pub fn round(&mut self, cpu: Option<CpuId>) -> Result<()> {
        let (start, now) = (self.start, self.now());
        let clock = move || StackInstant::from_nanos(start.elapsed().as_nanos() as u64);
        let mut upper = StackReceive {
            stack: &mut self.stack,
            ifindex: self.ifindex,
            now,
        };
        let round = match cpu {
            Some(cpu) => self.net.run_cpu(cpu, clock, &mut upper),
            None => self.net.net_rx_action(clock, &mut upper),
        };
        if let Err(error) = round {
            self.restore(error)?;
        }
        self.flush();
        Ok(())
    }

    /// A device that broke is reset and goes on; one that breaks again and again is given up.
    fn restore(&mut self, error: hematite_driver::Error) -> Result<()> {
        self.restores += 1;
        if self.restores > MOST_RESTORES {
            return Err(error).context("the device keeps breaking");
        }
        eprintln!("hematite: {error}; resetting the device");
        self.net
            .reset_and_restore()
            .context("the device did not come back from its reset")
    }

    /// Hands what the stack has queued to the driver.
    pub fn flush(&mut self) {
        loop {
            let now = self.now();
            if self.stack.qdisc_run(self.ifindex, &mut self.net, now).state != QdiscState::Quota {
                return;
            }
        }
    }
}

/// What the threads share.
struct Shared<P: Port> {
    host: Mutex<Host<P>>,
    /// A CPU each: it has got work.
    work: Vec<Condvar>,
    /// A CPU has done a round.
    round: Condvar,
}

impl<P: Port> Shared<P> {
    fn lock(&self) -> MutexGuard<'_, Host<P>> {
        self.host.lock().expect("no other CPU panicked")
    }

    /// Wakes the CPUs that have work (`net_rps_send_ipi`).
    fn kick(&self, host: &Host<P>) {
        for (cpu, work) in self.work.iter().enumerate() {
            if host.net.softnet().is_pending_on(CpuId(cpu)) {
                work.notify_one();
            }
        }
    }

    /// The life of a CPU.
    fn run(&self, cpu: CpuId) {
        // Whatever ends it: the program, which waits for rounds, must see it.
        let _end = NotifyAtEnd(&self.round);
        loop {
            let idle = |host: &mut Host<P>| !host.stop && !host.net.softnet().is_pending_on(cpu);
            let host = self.work[cpu.0].wait_while(self.lock(), idle);
            let mut host = host.expect("no other CPU panicked");
            if host.stop {
                return;
            }
            if let Err(error) = host.round(Some(cpu)) {
                (host.failed, host.stop) = (Some(error), true);
            }
            self.kick(&host);
            drop(host);
            self.round.notify_one();
        }
    }
}

struct NotifyAtEnd<'a>(&'a Condvar);

impl Drop for NotifyAtEnd<'_> {
    fn drop(&mut self) {
        self.0.notify_all();
    }
}

/// A host and the CPUs that it runs on: the caller's thread alone, or threads of their own.
pub struct Cpus<P: Port> {
    shared: Arc<Shared<P>>,
    threads: Vec<JoinHandle<()>>,
}

impl<P: Port + Send + 'static> Cpus<P> {
    pub fn start(host: Host<P>, cpus: usize) -> Result<Self> {
        let threads = if cpus > 1 { cpus } else { 0 };
        let shared = Arc::new(Shared {
            host: Mutex::new(host),
            work: (0..threads).map(|_| Condvar::new()).collect(),
            round: Condvar::new(),
        });
        let mut cpus = Self {
            shared,
            threads: Vec::new(),
        };
        for cpu in 0..threads {
            let shared = Arc::clone(&cpus.shared);
            let thread = std::thread::Builder::new().name(format!("cpu {cpu}"));
            cpus.threads.push(thread.spawn(move || shared.run(CpuId(cpu)))?);
        }
        Ok(cpus)
    }
}

impl<P: Port> Cpus<P> {
    /// The host, for the program; the CPUs wait meanwhile.
    pub fn host(&self) -> MutexGuard<'_, Host<P>> {
        self.shared.lock()
    }

    /// Does everything that is to be done.
    pub fn work(&self) -> Result<()> {
        let mut host = self.host();
        let now = host.now();
        host.stack.poll(now);
        host.flush();
        while host.net.is_pending() {
            if self.threads.is_empty() || !host.net.softnet().is_pending() {
                host.round(None)?;
                continue;
            }
            self.shared.kick(&host);
            host = self.shared.round.wait(host).expect("no CPU panicked");
            if let Some(error) = host.failed.take() {
                return Err(error);
            }
            host.net.handle_interrupts();
        }
        // What the program does it does on the last CPU: so flows go there (RFS).
        if !self.threads.is_empty() {
            host.stack.set_cpu(CpuId(self.threads.len() - 1));
        }
        Ok(())
    }

    /// Ends the threads; the host.
    pub fn end(mut self) -> Option<Host<P>> {
        self.stop();
        let shared = Arc::clone(&self.shared);
        drop(self);
        Arc::into_inner(shared)?.host.into_inner().ok()
    }

    fn stop(&mut self) {
        // A CPU that panicked leaves the lock poisoned, and has told of it.
        match self.shared.host.lock() {
            Ok(mut host) => host.stop = true,
            Err(poisoned) => poisoned.into_inner().stop = true,
        }
        self.shared.work.iter().for_each(Condvar::notify_one);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl<P: Port> Drop for Cpus<P> {
    fn drop(&mut self) {
        self.stop();
    }
}
