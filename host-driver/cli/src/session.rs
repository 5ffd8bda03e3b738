//! An interface that is up: the card's interrupts, NAPI, the stack and its timers, in real time.

use crate::cpus::{Cpus, Host};
use anyhow::{Context, Result};
use hematite_bus::vfio::{Port, VfioFunction};
use hematite_driver::{Options, VirtioNet};
use hematite_netstack::{CpuId, Ipv4Cidr, NetDevice, Stack, StackConfig, UdpSocket};
use std::hash::{BuildHasher, Hasher};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

/// See the module's documentation.
pub struct Session<P: Port> {
    cpus: Cpus<P>,
    start: Instant,
    stop: UnixStream,
    stopping: bool,
}

impl<P: Port + Send + 'static> Session<P> {
    /// Brings the interface up with its address and, unless it is to be the usual one, its MTU. From now on SIGTERM and
    /// SIGINT end the session, not the process.
    pub fn start(
        function: VfioFunction<P>,
        address: Ipv4Cidr,
        mtu: Option<u16>,
        cpus: usize,
    ) -> Result<Self> {
        let (stop, stopper) = UnixStream::pair()?;
        stop.set_nonblocking(true)?;
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
            signal_hook::low_level::pipe::register(signal, stopper.try_clone()?)?;
        }
        let options = Options {
            mtu,
            cpus,
            ..Options::default()
        };
        let config = StackConfig {
            cpus,
            ..StackConfig::default()
        };
        let mut net = VirtioNet::probe(function, options).context("bringing the device up")?;
        net.open().context("bringing the interface up")?;
        let mut stack = Stack::new(config, unpredictable());
        let ifindex = stack.add_interface(&net as &dyn NetDevice);
        stack.add_address(ifindex, address)?;
        println!(
            "{}: {} link {}, mtu {}",
            net.name(),
            net.mac_address(),
            if net.link_up() { "up" } else { "down" },
            net.mtu()
        );
        let mut host = Host::new(net, stack, ifindex);
        if cpus > 1 {
            host.steer(cpus)?;
        }
        Ok(Session {
            cpus: Cpus::start(host, cpus)?,
            start: Instant::now(),
            stop,
            stopping: false,
        })
    }
}

impl<P: Port> Session<P> {
    /// Driver and stack.
    pub fn host(&self) -> MutexGuard<'_, Host<P>> {
        self.cpus.host()
    }

    /// Whether a signal asked for the end.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Does everything that is to be done, then sleeps until there is more, at most for `timeout`.
    pub fn turn(&mut self, timeout: Duration) -> Result<()> {
        self.cpus.work()?;
        let (waiter, timeout) = {
            let mut host = self.host();
            let now = host.now();
            let timers = [host.stack.next_deadline(), host.net.next_deadline()];
            let timer = timers
                .into_iter()
                .flatten()
                .min()
                .map(|at| Duration::from_nanos(at.as_nanos().saturating_sub(now.as_nanos())));
            let waiter = host.net.function().waiter();
            (waiter, timer.map_or(timeout, |timer| timer.min(timeout)))
        };
        if !timeout.is_zero() {
            waiter.wait(Some(timeout), Some(self.stop.as_fd()));
            self.stopping |= std::io::Read::read(&mut &self.stop, &mut [0; 8]).is_ok_and(|read| read > 0);
        }
        {
            let mut host = self.host();
            host.net.handle_interrupts();
            let now = host.now();
            host.net.napi_timers(now);
        }
        self.cpus.work()
    }

    /// Answers pings and echoes datagrams until told to end.
    pub fn serve(&mut self, seconds: Option<u64>, port: u16) -> Result<bool> {
        let socket = UdpSocket::bind(&mut self.host().stack, (Ipv4Addr::UNSPECIFIED, port))?;
        let end = seconds.map(|seconds| self.start + Duration::from_secs(seconds));
        let mut buffer = vec![0; 65_536];
        let mut echoed = 0u64;
        while !self.stopping && end.is_none_or(|end| Instant::now() < end) {
            let left = end.map_or(Duration::MAX, |end| end - Instant::now().min(end));
            self.turn(left.min(Duration::from_secs(3600)))?;
            let stack = &mut self.host().stack;
            while let Ok((len, from)) = socket.recv_from(stack, &mut buffer) {
                // A datagram that can't be sent is one that the network lost.
                echoed += u64::from(socket.send_to(stack, &buffer[..len], from).is_ok());
            }
        }
        println!("echoed {echoed} datagrams");
        Ok(true)
    }

    /// Shows the counters and shuts the device down; whether it went down cleanly.
    pub fn end(self) -> Result<bool> {
        self.cpus.work()?;
        let mut host = self.cpus.end().context("a CPU did not end")?;
        let stats = host.net.ethtool_stats();
        println!(
            "rx {} packets, {} bytes; tx {} packets, {} bytes; {} interrupts",
            stats.rx.packets, stats.rx.bytes, stats.tx.packets, stats.tx.bytes, stats.irq.total
        );
        let softnet = host.net.softnet();
        let processed: Vec<_> = (0..softnet.cpus())
            .filter_map(|cpu| softnet.cpu_stats(CpuId(cpu)))
            .map(|cpu| cpu.processed.to_string())
            .collect();
        if processed.len() > 1 {
            println!("packets by CPU: {}", processed.join(" "));
        }
        if let Some(counters) = host.net.card_counters()? {
            let shown: Vec<String> = counters
                .iter()
                .filter(|(_, value)| *value > 0)
                .map(|(name, value)| format!("{name} {value}"))
                .collect();
            println!("card: {}", shown.join(", "));
        }
        let (function, removed) = host.net.remove();
        removed.context("shutting the device down")?;
        drop(function);
        Ok(true)
    }
}

/// A seed that nobody can guess: ports, identifications and hash keys come from it.
fn unpredictable() -> u64 {
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}
