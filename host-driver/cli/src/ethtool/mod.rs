//! `hematite ethtool`: what a user of ethtool asks of an interface, in its words and with its output (ethtool 6).
//!
//! The driver lives in this process, so settings last as long as the command: it carries out any number of options in
//! turn, as in `hematite ethtool -C rx-usecs 8 -c`.

mod parse;
mod rxfh;
mod show;

use anyhow::{Context, Result, bail};
use hematite_bus::vfio::{Port, VfioFunction};
use hematite_driver::channels::{DEFAULT_HASH_KEY, RxfhSizes};
use hematite_driver::{CoalesceParam, Error, Options, RxFlowHash, VirtioNet};
use hematite_netstack::{Features, IfIndex, Instant as StackInstant, NetDevice, Stack, StackConfig};
use parse::{Indirection, Operation, Rxfh, Settings};
use std::time::{Duration, Instant};

/// Runs the options in turn; whether all of them did what was asked for.
pub fn run<P: Port>(function: VfioFunction<P>, bus: &str, words: &[String]) -> Result<bool> {
    let options = Options::default();
    // What is wrong with the words is said before the device is touched.
    let operations = parse::operations(words, &options.name)?;
    let mut net = VirtioNet::probe(function, options).context("bringing the device up")?;
    net.open().context("bringing the interface up")?;
    let mut stack = Stack::new(StackConfig::default(), 0);
    let ifindex = stack.add_interface(&net as &dyn NetDevice);
    let mut interface = Interface { net, stack, ifindex };
    let done = operations.iter().try_fold(true, |good, operation| {
        interface.carry_out(operation, bus).map(|done| done && good)
    });
    let (_, removed) = interface.net.remove();
    let done = done?;
    removed.context("shutting the device down")?;
    Ok(done)
}

struct Interface<P: Port> {
    net: VirtioNet<VfioFunction<P>>,
    /// For what the stack does in the device's stead.
    stack: Stack,
    ifindex: IfIndex,
}

impl<P: Port> Interface<P> {
    fn carry_out(&mut self, operation: &Operation, bus: &str) -> Result<bool> {
        let name = self.net.name().to_owned();
        match operation {
            Operation::Link => print!(
                "{}",
                show::link(&name, self.net.link_settings()?, self.net.link_up())
            ),
            Operation::ShowPause => print!("{}", show::pause(&name, self.net.pauseparam()?)),
            Operation::SetPause(settings) => self.set_pause(settings)?,
            Operation::ShowFeatures => print!("{}", show::features(&name, self.possible(), self.active()?)),
            Operation::SetFeatures(settings) => return self.set_features(settings),
            Operation::ShowCoalesce => print!("{}", show::coalesce(&name, self.net.coalesce())),
            Operation::SetCoalesce(settings) => self.set_coalesce(settings)?,
            Operation::ShowRing => print!("{}", show::ring(&name, self.net.ringparam())),
            Operation::SetRing(settings) => self.set_ring(settings)?,
            Operation::ShowChannels => print!("{}", show::channels(&name, self.net.channels())),
            Operation::SetChannels(settings) => self.set_channels(settings)?,
            Operation::ShowRxfh => print!("{}", self.show_rxfh(&name)?),
            Operation::SetRxfh(rxfh) => self.set_rxfh(rxfh)?,
            Operation::Statistics => self.statistics()?,
            Operation::Driver => print!("{}", show::driver(bus)),
            Operation::Test => return self.test(false),
            Operation::OfflineTest => return self.test(true),
        }
        Ok(true)
    }

    /// What can be turned on and off.
    fn possible(&self) -> Features {
        self.net.hw_features() | Features::GRO
    }

    fn active(&self) -> Result<Features> {
        Ok(self.stack.features(self.ifindex)?)
    }

    /// `__ethtool_set_features`: what was asked for and can't be is an error; what went along with it is said.
    fn set_features(&mut self, settings: &Settings) -> Result<bool> {
        let before = self.active()?;
        let mut wanted = before;
        for (name, value) in settings {
            let features = show::feature(name).with_context(|| format!("bad parameter `{name}`"))?;
            let possible = features & self.possible();
            if possible.is_empty() && on_off(name, value)? != before.contains(features) {
                eprintln!("Cannot change {name}");
                bail!("Could not change any device features");
            }
            wanted.set(possible, on_off(name, value)?);
        }
        let set = self.net.set_features(wanted);
        set.context("Could not change any device features")?;
        self.stack.netdev_change(self.ifindex, &self.net)?;
        self.stack.set_gro(self.ifindex, wanted.contains(Features::GRO))?;
        let changes = show::changes(wanted, self.active()?);
        if !changes.is_empty() {
            print!("Actual changes:\n{changes}");
        }
        Ok(true)
    }

    fn set_coalesce(&mut self, settings: &Settings) -> Result<()> {
        let mut coalesce: CoalesceParam = self.net.coalesce();
        for (name, value) in settings {
            match name.as_str() {
                "adaptive-rx" => coalesce.adaptive_rx = on_off(name, value)?,
                "rx-usecs" => coalesce.rx_usecs = number(name, value)?,
                "rx-frames" => coalesce.rx_max_frames = number(name, value)?,
                "tx-usecs" => coalesce.tx_usecs = number(name, value)?,
                "tx-frames" => coalesce.tx_max_frames = number(name, value)?,
                _ => bail!(
                    "bad parameter `{name}`: adaptive-rx, rx-usecs, rx-frames, tx-usecs and tx-frames can be set"
                ),
            }
        }
        let set = self.net.set_coalesce(coalesce);
        set.context("Cannot set device coalesce parameters")
    }

    fn set_pause(&mut self, settings: &Settings) -> Result<()> {
        let mut pause = self.net.pauseparam()?;
        for (name, value) in settings {
            match name.as_str() {
                "rx" => pause.rx = on_off(name, value)?,
                "tx" => pause.tx = on_off(name, value)?,
                _ => bail!("bad parameter `{name}`: rx and tx can be set"),
            }
        }
        let set = self.net.set_pauseparam(pause);
        set.context("Cannot set device pause parameters")
    }

    fn set_ring(&mut self, settings: &Settings) -> Result<()> {
        let ring = self.net.ringparam();
        let (mut rx, mut tx) = (ring.rx, ring.tx);
        for (name, value) in settings {
            match name.as_str() {
                "rx" => rx = number(name, value)?,
                "tx" => tx = number(name, value)?,
                _ => bail!("bad parameter `{name}`: rx and tx can be set"),
            }
        }
        let set = self.net.set_ringparam(rx, tx);
        set.context("Cannot set device ring parameters")
    }

    fn set_channels(&mut self, settings: &Settings) -> Result<()> {
        for (name, value) in settings {
            if name != "combined" {
                bail!("bad parameter `{name}`: combined can be set, a receive and a transmit queue each");
            }
            let channels = self.net.channels();
            let count = number(name, value)?;
            let set = self.net.set_channels(count);
            set.with_context(|| {
                let max = channels.max_combined;
                format!("Cannot set device channel parameters: combined {count} of {max}")
            })?;
        }
        Ok(())
    }

    /// What a device with receive-side scaling takes.
    fn rxfh_sizes(&self) -> Result<RxfhSizes> {
        let sizes = self.net.rxfh_sizes();
        sizes.context("Cannot get RX flow hash configuration: the device has no receive-side scaling")
    }

    fn show_rxfh(&self, interface: &str) -> Result<String> {
        self.rxfh_sizes()?;
        let rings = self.net.channels().combined;
        Ok(show::rxfh(interface, rings, self.net.rxfh()))
    }

    fn set_rxfh(&mut self, wanted: &Rxfh) -> Result<()> {
        const CANNOT: &str = "Cannot set RX flow hash configuration";
        let sizes = self.rxfh_sizes()?;
        let rings = self.net.channels().combined;
        if wanted.table == Some(Indirection::Default) {
            // Chosen anew, the device's queues are spread over as it likes.
            return self.net.set_channels(rings).context(CANNOT);
        }
        // What was not set yet: the rings in use in turn, everything hashed.
        let mut hash = self.net.rxfh().cloned().unwrap_or_else(|| RxFlowHash {
            types: sizes.types,
            key: DEFAULT_HASH_KEY.to_vec(),
            table: rxfh::equal(sizes.table, rings as u16),
            unclassified: 0,
        });
        match &wanted.table {
            Some(Indirection::Equal(count)) => hash.table = rxfh::equal(sizes.table, *count),
            Some(Indirection::Weight(weights)) => {
                hash.table = rxfh::weighted(sizes.table, weights).context(CANNOT)?;
            }
            Some(Indirection::Default) | None => {}
        }
        if let Some(beyond) = hash.table.iter().find(|ring| usize::from(**ring) >= rings) {
            bail!("{CANNOT}: there is no RX ring {beyond}, {rings} in use (-L combined)");
        }
        if let Some(key) = &wanted.key {
            if key.len() != sizes.key {
                bail!(
                    "{CANNOT}: the key has {} bytes, the device takes {}",
                    key.len(),
                    sizes.key
                );
            }
            hash.key.clone_from(key);
        }
        self.net.set_rxfh(hash).context(CANNOT)
    }

    fn statistics(&mut self) -> Result<()> {
        let driver: Vec<_> = self.net.ethtool_stats().iter().collect();
        let device = self.net.device_stats()?;
        let device = device.iter().flat_map(|device| device.iter());
        let card = self.net.card_counters()?;
        let card = card.iter().flat_map(|card| card.iter());
        let named = driver.into_iter().chain(card);
        let named = named.map(|(name, value)| (name.to_owned(), value));
        print!("{}", show::statistics(named.chain(device)));
        Ok(())
    }

    /// What the driver can find out without a peer; `offline` also by what the wire must be kept from.
    fn test(&mut self, offline: bool) -> Result<bool> {
        let status = self.net.check_device().is_ok();
        let control = match self.net.device_coalesce() {
            Ok(_) | Err(Error::NotSupported(_)) => true,
            Err(_) => false,
        };
        let mut tests = vec![
            ("Device status test    (online)", status),
            ("Control queue test    (online)", control),
            ("Link test             (online)", self.net.link_up()),
        ];
        if offline {
            match self.loopback() {
                Err(Error::NotSupported(what)) => eprintln!("no loopback test: the device lacks {what}"),
                result => tests.push(("Loopback test        (offline)", result?)),
            }
        }
        print!("{}", show::test(&tests));
        Ok(tests.iter().all(|test| test.1))
    }
}

impl<P: Port> Interface<P> {
    /// Frames through the card and back, for at most a few seconds.
    fn loopback(&mut self) -> Result<bool, Error> {
        const PATIENCE: Duration = Duration::from_secs(5);
        let start = Instant::now();
        let clock = || StackInstant::from_nanos(start.elapsed().as_nanos() as u64);
        self.net.loopback_test(clock, |function| {
            function.waiter().wait(Some(Duration::from_millis(10)), None);
            start.elapsed() > PATIENCE
        })
    }
}

fn on_off(name: &str, value: &str) -> Result<bool> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => bail!("bad value `{value}` of `{name}`: on or off"),
    }
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T> {
    value
        .parse()
        .ok()
        .with_context(|| format!("bad value `{value}` of `{name}`: a number, and not too large"))
}
