//! A host with the real driver and no stack: what the driver would hand up is kept as it is.

use crate::function::{BarPlacement, SharedMachine, SimFunction};
use crate::host::{CpuModel, HostError};
use crate::pins::CardPins;
use crate::time::SimTime;
use crate::wire::WireEndpoint;
use crate::wire::host::instant;
use hematite_driver::{NapiReceive, Options, VirtioNet};
use hematite_netstack::{Gso, IpSummed, SkBuff, SkbPool};

/// Longest time between two looks at the driver's timers.
const LOOK: SimTime = SimTime::from_us(20);

/// A packet as a stack gets it.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
    /// What it was merged from.
    pub gso: Option<Gso>,
    /// State of its transport checksum.
    pub ip_summed: IpSummed,
    /// The receive queue that it came by.
    pub queue: u16,
    /// The hash that the device told.
    pub hash: Option<u32>,
}

/// What is in the stack's place.
struct Keep {
    pool: SkbPool,
    packets: Vec<Arrived>,
    /// Packets ever.
    count: u64,
}

impl NapiReceive for Keep {
    fn napi_alloc_skb(&mut self, len: usize) -> Option<SkBuff> {
        self.pool.alloc(len)
    }

    fn napi_gro_receive(&mut self, skb: SkBuff) {
        self.count += 1;
        self.packets.push(Arrived {
            bytes: skb.to_vec(),
            gso: skb.gso(),
            ip_summed: skb.ip_summed(),
            queue: skb.rx_queue(),
            hash: skb.hash(),
        });
        self.pool.recycle(skb);
    }

    fn napi_consume_skb(&mut self, skb: SkBuff) {
        self.pool.recycle(skb);
    }
}

/// See the module's documentation.
pub struct PacketHost<C, E> {
    machine: SharedMachine<C, E>,
    /// The driver.
    pub net: VirtioNet<SimFunction<C, E>>,
    cpu: CpuModel,
    keep: Keep,
}

impl<C: CardPins, E: WireEndpoint> PacketHost<C, E> {
    /// Enumerates the card, probes the driver and brings the interface up.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn bring_up(machine: SharedMachine<C, E>, driver: Options, cpu: CpuModel) -> Result<Self, HostError> {
        let function = SimFunction::enumerate(machine.clone(), BarPlacement::Low)?;
        let mut net = VirtioNet::probe(function, driver)?;
        net.open()?;
        Ok(PacketHost {
            machine,
            net,
            cpu,
            keep: Keep {
                pool: SkbPool::new(64),
                packets: Vec::new(),
                count: 0,
            },
        })
    }

    /// The machine that the host is in.
    pub fn machine(&self) -> &SharedMachine<C, E> {
        &self.machine
    }

    /// Virtual time.
    pub fn now(&self) -> SimTime {
        self.machine.borrow().now()
    }

    /// Packets handed up since the last call.
    pub fn take(&mut self) -> Vec<Arrived> {
        std::mem::take(&mut self.keep.packets)
    }

    /// Packets handed up since then.
    pub fn arrived(&self) -> usize {
        self.keep.packets.len()
    }

    /// Lets `span` pass. Interrupts and rounds of NAPI take what [`CpuModel`] says.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn run_for(&mut self, span: SimTime) -> Result<(), HostError> {
        let end = self.now() + span;
        while self.now() < end {
            let look = (self.now() + LOOK).min(end);
            self.machine.borrow_mut().run_until(look)?;
            if self.machine.borrow().rc.pending_interrupt().is_some() {
                self.machine.borrow_mut().run_for(self.cpu.interrupt_latency)?;
            }
            self.net.napi_timers(instant(self.now()));
            self.net.handle_interrupts();
            while self.net.is_pending() {
                let now = instant(self.now());
                let before = self.keep.count;
                self.net.net_rx_action(|| now, &mut self.keep)?;
                let packets = self.keep.count - before;
                let busy = SimTime::from_ps(self.cpu.per_packet.ps() * packets);
                self.machine.borrow_mut().run_for(busy)?;
                self.net.handle_interrupts();
            }
        }
        Ok(())
    }
}
