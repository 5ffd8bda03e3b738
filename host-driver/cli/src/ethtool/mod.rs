//! `hematite ethtool`: what a user of ethtool asks of an interface, in its words and with its output (ethtool 6).
//!
//! The driver lives in this process, so settings last as long as the command: it carries out any number of options in
//! turn, as in `hematite ethtool -C rx-usecs 8 -c`.

mod parse;
mod show;

use anyhow::{Context, Result, bail};
use hematite_bus::vfio::{Port, VfioFunction};
use hematite_driver::{CoalesceParam, Error, Options, VirtioNet};
use hematite_netstack::{Features, IfIndex, NetDevice, Stack, StackConfig};
use parse::{Operation, Settings};

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
            Operation::ShowFeatures => print!("{}", show::features(&name, self.possible(), self.active()?)),
            Operation::SetFeatures(settings) => return self.set_features(settings),
            Operation::ShowCoalesce => print!("{}", show::coalesce(&name, self.net.coalesce())),
            Operation::SetCoalesce(settings) => self.set_coalesce(settings)?,
            Operation::ShowRing => print!("{}", show::ring(&name, self.net.ringparam())),
            Operation::SetRing(settings) => self.set_ring(settings)?,
            Operation::Statistics => self.statistics()?,
            Operation::Driver => print!("{}", show::driver(bus)),
            Operation::Test => return self.test(),
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

    fn statistics(&mut self) -> Result<()> {
        let driver: Vec<_> = self.net.ethtool_stats().iter().collect();
        let card = self.net.card_counters()?;
        let card = card.iter().flat_map(|card| card.iter());
        print!("{}", show::statistics(driver.into_iter().chain(card)));
        Ok(())
    }

    /// What the driver can find out without a peer.
    fn test(&mut self) -> Result<bool> {
        let status = self.net.check_device().is_ok();
        let control = match self.net.device_coalesce() {
            Ok(_) | Err(Error::NotSupported(_)) => true,
            Err(_) => false,
        };
        let tests = [
            ("Device status test    (online)", status),
            ("Control queue test    (online)", control),
            ("Link test             (online)", self.net.link_up()),
        ];
        print!("{}", show::test(&tests));
        Ok(tests.iter().all(|test| test.1))
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
