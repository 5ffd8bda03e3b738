//! The interface as the stack sees it: transmit and properties.

use hematite_bus::PciFunction;
use hematite_netstack::{DeviceFlags, MacAddr, NetDevice, RtnlLinkStats64, SkBuff, SkbPool, TxBusy};

use crate::error::Error;
use crate::net::{State, VirtioNet};
use crate::tx::XmitError;

impl<F: PciFunction> VirtioNet<F> {
    /// Where no error can be returned: the next round reports it.
    fn note(&mut self, error: Error) {
        self.pending_fault.get_or_insert(error);
    }
}

impl<F: PciFunction> NetDevice for VirtioNet<F> {
    fn name(&self) -> &str {
        &self.options.name
    }

    fn mac_address(&self) -> MacAddr {
        self.info.mac
    }

    fn mtu(&self) -> u32 {
        self.mtu.into()
    }

    fn flags(&self) -> DeviceFlags {
        let mut flags = DeviceFlags::BROADCAST | DeviceFlags::MULTICAST;
        if self.state == State::Up {
            flags |= DeviceFlags::UP;
            flags.set(DeviceFlags::LOWER_UP, self.info.link_up);
        }
        flags
    }

    /// `start_xmit`. While the interface isn't up, frames are dropped and counted.
    fn start_xmit(&mut self, mut skb: SkBuff) -> Result<(), TxBusy> {
        let up = self.state == State::Up && self.pending_fault.is_none();
        let Some(queues) = &mut self.queues else {
            self.tx_past.drops += 1;
            return Ok(());
        };
        // No checksum offload is negotiated, so one that was left to the device is finished here.
        if !up || skb.checksum_help().is_err() {
            queues.tx.count_drop();
            return Ok(());
        }
        match queues.tx.xmit(&mut self.transport, skb) {
            Ok(()) => Ok(()),
            Err(XmitError::Busy(skb)) => {
                // What is queued must be on its way, or nothing ever makes room.
                self.xmit_flush();
                Err(TxBusy(skb))
            }
            Err(XmitError::Failed(error)) => {
                self.note(error);
                Ok(())
            }
        }
    }

    fn xmit_flush(&mut self) {
        if let Some(queues) = &mut self.queues
            && let Err(error) = queues.tx.vq.kick(&mut self.transport)
        {
            self.note(error);
        }
    }

    fn reclaim(&mut self, pool: &mut SkbPool) {
        if let Some(queues) = &mut self.queues
            && let Err(error) = queues.tx.clean(|skb| pool.recycle(skb))
        {
            self.note(error);
        }
    }

    fn stats(&self) -> RtnlLinkStats64 {
        let stats = self.ethtool_stats();
        RtnlLinkStats64 {
            rx_packets: stats.rx.packets,
            rx_bytes: stats.rx.bytes,
            rx_dropped: stats.rx.drops,
            rx_errors: stats.rx.length_errors + stats.rx.frame_errors,
            rx_length_errors: stats.rx.length_errors,
            tx_packets: stats.tx.packets,
            tx_bytes: stats.tx.bytes,
            tx_dropped: stats.tx.drops,
            ..RtnlLinkStats64::default()
        }
    }
}
