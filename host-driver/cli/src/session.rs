//! An interface that is up: the card's interrupts, NAPI, the stack and its timers, in real time.

use anyhow::{Context, Result};
use hematite_bus::vfio::{Port, VfioFunction};
use hematite_driver::{Options, StackReceive, VirtioNet};
use hematite_netstack::{
    IfIndex, Instant as StackInstant, Ipv4Cidr, NetDevice, QdiscState, Stack, StackConfig, UdpSocket,
};
use std::hash::{BuildHasher, Hasher};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How often a device that went wrong is reset before the command gives up.
const MOST_RESTORES: u32 = 8;

/// See the module's documentation.
pub struct Session<P: Port> {
    net: VirtioNet<VfioFunction<P>>,
    /// The stack, for sockets.
    pub stack: Stack,
    ifindex: IfIndex,
    start: Instant,
    stop: UnixStream,
    stopping: bool,
    restores: u32,
}

impl<P: Port> Session<P> {
    /// Brings the interface up with its address and, unless it is to be the usual one, its MTU. From now on SIGTERM and SIGINT end the session, not the process.
    pub fn start(function: VfioFunction<P>, address: Ipv4Cidr, mtu: Option<u16>) -> Result<Self> {
        let (stop, stopper) = UnixStream::pair()?;
        stop.set_nonblocking(true)?;
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
            signal_hook::low_level::pipe::register(signal, stopper.try_clone()?)?;
        }
        let options = Options {
            mtu,
            ..Options::default()
        };
        let mut net = VirtioNet::probe(function, options).context("bringing the device up")?;
        net.open().context("bringing the interface up")?;
        let mut stack = Stack::new(StackConfig::default(), unpredictable());
        let ifindex = stack.add_interface(&net as &dyn NetDevice);
        stack.add_address(ifindex, address)?;
        println!(
            "{}: {} link {}, mtu {}",
            net.name(),
            net.mac_address(),
            if net.link_up() { "up" } else { "down" },
            net.mtu()
        );
        Ok(Session {
            net,
            stack,
            ifindex,
            start: Instant::now(),
            stop,
            stopping: false,
            restores: 0,
        })
    }

    /// The stack's clock.
    pub fn now(&self) -> StackInstant {
        StackInstant::from_nanos(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Whether a signal asked for the end.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Does everything that is to be done, then sleeps until there is more, at most for `timeout`.
    pub fn turn(&mut self, timeout: Duration) -> Result<()> {
        self.work()?;
        if self.net.is_pending() {
            return Ok(());
        }
        let now = self.now();
        let timers = [self.stack.next_deadline(), self.net.next_deadline()];
        let timer = timers
            .into_iter()
            .flatten()
            .min()
            .map(|at| Duration::from_nanos(at.as_nanos().saturating_sub(now.as_nanos())));
        let timeout = timer.map_or(timeout, |timer| timer.min(timeout));
        if !timeout.is_zero() {
            self.net.function().wait(Some(timeout), Some(self.stop.as_fd()));
            self.stopping |= std::io::Read::read(&mut &self.stop, &mut [0; 8]).is_ok_and(|read| read > 0);
        }
        self.net.handle_interrupts();
        let now = self.now();
        self.net.napi_timers(now);
        self.work()
    }

    fn work(&mut self) -> Result<()> {
        let now = self.now();
        self.stack.poll(now);
        self.flush();
        while self.net.is_pending() {
            let (start, now) = (self.start, self.now());
            let clock = move || StackInstant::from_nanos(start.elapsed().as_nanos() as u64);
            let mut upper = StackReceive {
                stack: &mut self.stack,
                ifindex: self.ifindex,
                now,
            };
            if let Err(error) = self.net.net_rx_action(clock, &mut upper) {
                self.restore(error)?;
            }
            self.flush();
        }
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
    fn flush(&mut self) {
        loop {
            let now = self.now();
            if self.stack.qdisc_run(self.ifindex, &mut self.net, now).state != QdiscState::Quota {
                return;
            }
        }
    }

    /// Answers pings and echoes datagrams until told to end.
    pub fn serve(&mut self, seconds: Option<u64>, port: u16) -> Result<bool> {
        let socket = UdpSocket::bind(&mut self.stack, (Ipv4Addr::UNSPECIFIED, port))?;
        let end = seconds.map(|seconds| self.start + Duration::from_secs(seconds));
        let mut buffer = vec![0; 65_536];
        let mut echoed = 0u64;
        while !self.stopping && end.is_none_or(|end| Instant::now() < end) {
            let left = end.map_or(Duration::MAX, |end| end - Instant::now().min(end));
            self.turn(left.min(Duration::from_secs(3600)))?;
            while let Ok((len, from)) = socket.recv_from(&mut self.stack, &mut buffer) {
                // A datagram that can't be sent is one that the network lost.
                echoed += u64::from(socket.send_to(&mut self.stack, &buffer[..len], from).is_ok());
            }
        }
        println!("echoed {echoed} datagrams");
        Ok(true)
    }

    /// Shows the counters and shuts the device down; whether it went down cleanly.
    pub fn end(mut self) -> Result<bool> {
        self.work()?;
        let stats = self.net.ethtool_stats();
        println!(
            "rx {} packets, {} bytes; tx {} packets, {} bytes; {} interrupts",
            stats.rx.packets, stats.rx.bytes, stats.tx.packets, stats.tx.bytes, stats.irq.total
        );
        if let Some(counters) = self.net.card_counters()? {
            let shown: Vec<String> = counters
                .iter()
                .filter(|(_, value)| *value > 0)
                .map(|(name, value)| format!("{name} {value}"))
                .collect();
            println!("card: {}", shown.join(", "));
        }
        let (function, removed) = self.net.remove();
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
