//! What is done for an interface, by its device or by the stack (net/ethtool/, `ethtool -k` and `-K`).

use super::netdevice::{Features, IfIndex};
use crate::errno::Errno;
use crate::stack::Stack;

impl Stack {
    /// What is done for an interface, by the device or by the stack (`ethtool -k`).
    ///
    /// # Errors
    /// [`Errno::NoDev`] if there is no such interface.
    pub fn features(&self, ifindex: IfIndex) -> Result<Features, Errno> {
        self.devs.get(ifindex).map(|d| d.features).ok_or(Errno::NoDev)
    }

    /// Turns what is done for an interface on or off, of what its device can do and the stack does itself
    /// (`ethtool -K`); what is on then. Segmentation by the device needs its checksums, and goes with them.
    ///
    /// # Errors
    /// [`Errno::NoDev`] if there is no such interface, [`Errno::OpNotSupp`] for something that is not possible there.
    pub fn set_features(
        &mut self,
        ifindex: IfIndex,
        features: Features,
        on: bool,
    ) -> Result<Features, Errno> {
        let dev = self.devs.get_mut(ifindex).ok_or(Errno::NoDev)?;
        if !dev.hw_features.contains(features) {
            return Err(Errno::OpNotSupp);
        }
        dev.features.set(features, on);
        if !dev.features.contains(Features::HW_CSUM) {
            dev.features.remove(Features::TSO);
        }
        Ok(dev.features)
    }

    /// What is done for an interface, as `ethtool -k` prints it.
    ///
    /// # Errors
    /// [`Errno::NoDev`] if there is no such interface.
    pub fn show_features(&self, ifindex: IfIndex) -> Result<String, Errno> {
        let dev = self.devs.get(ifindex).ok_or(Errno::NoDev)?;
        let names = [
            (Features::RXCSUM, "rx-checksumming"),
            (Features::HW_CSUM, "tx-checksumming"),
            (Features::TSO, "tcp-segmentation-offload"),
            (Features::GRO, "generic-receive-offload"),
            (Features::GRO_HW, "rx-gro-hw"),
        ];
        let line = |(feature, name): (Features, &str)| {
            let state = if dev.features.contains(feature) {
                "on"
            } else {
                "off"
            };
            let fixed = if dev.hw_features.contains(feature) {
                ""
            } else {
                " [fixed]"
            };
            format!("{name}: {state}{fixed}\n")
        };
        Ok(format!("Features for {}:\n", dev.name) + &names.map(line).concat())
    }

    /// Turns merging of received segments on or off (`ethtool -K gro`).
    ///
    /// # Errors
    /// [`Errno::NoDev`] if there is no such interface.
    pub fn set_gro(&mut self, ifindex: IfIndex, on: bool) -> Result<(), Errno> {
        self.set_features(ifindex, Features::GRO, on).map(|_| ())
    }
}
