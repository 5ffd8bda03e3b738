//! A host stack directly at the far end of the wire: the peer of the machine under test, in the same virtual time.

use super::{Frame, WireEndpoint};
use crate::time::SimTime;
use hematite_netstack::{
    DeviceFlags, IfIndex, Instant, Ipv4Cidr, MacAddr, NetDevice, QdiscState, RtnlLinkStats64, SkBuff,
    SkbPool, Stack, StackConfig, TxBusy,
};
use std::collections::VecDeque;

/// Headroom of a received frame: aligns the IP header and leaves room to push.
const HEADROOM: usize = 66;
/// Frames that wait on the peer's side for the line.
const QUEUE: usize = 64;

/// Virtual time as the stack tells it.
pub fn instant(now: SimTime) -> Instant {
    Instant::from_nanos(now.ns())
}

/// A program on the peer: called whenever a frame has come in or a timer has run.
pub trait PeerApplication {
    /// Does what there is to do on its sockets.
    fn poll(&mut self, stack: &mut Stack);
}

impl<F: FnMut(&mut Stack)> PeerApplication for F {
    fn poll(&mut self, stack: &mut Stack) {
        self(stack);
    }
}

impl<A: PeerApplication> PeerApplication for Option<A> {
    fn poll(&mut self, stack: &mut Stack) {
        if let Some(application) = self {
            application.poll(stack);
        }
    }
}

/// The peer's network device: a queue in front of the line.
#[derive(Default)]
struct LineDevice {
    mac: MacAddr,
    mtu: u16,
    queue: VecDeque<SkBuff>,
    sent: Vec<SkBuff>,
    stats: RtnlLinkStats64,
}

impl NetDevice for LineDevice {
    fn name(&self) -> &str {
        "wire0"
    }

    fn mac_address(&self) -> MacAddr {
        self.mac
    }

    fn mtu(&self) -> u32 {
        self.mtu.into()
    }

    fn flags(&self) -> DeviceFlags {
        DeviceFlags::UP | DeviceFlags::LOWER_UP | DeviceFlags::BROADCAST | DeviceFlags::MULTICAST
    }

    fn start_xmit(&mut self, skb: SkBuff) -> Result<(), TxBusy> {
        if self.queue.len() >= QUEUE {
            return Err(TxBusy(skb));
        }
        self.stats.tx_packets += 1;
        self.stats.tx_bytes += skb.len() as u64;
        self.queue.push_back(skb);
        Ok(())
    }

    fn reclaim(&mut self, pool: &mut SkbPool) {
        for skb in self.sent.drain(..) {
            pool.recycle(skb);
        }
    }

    fn stats(&self) -> RtnlLinkStats64 {
        self.stats
    }
}

/// A stack with one interface, and a program on it.
pub struct StackEndpoint<A> {
    stack: Stack,
    device: LineDevice,
    ifindex: IfIndex,
    application: A,
    deadline: SimTime,
}

impl<A: PeerApplication> StackEndpoint<A> {
    /// A peer with one address, and frames of up to `mtu` bytes behind the Ethernet header. `start` is called once to open the program's sockets.
    pub fn new(
        config: StackConfig,
        seed: u64,
        mac: MacAddr,
        mtu: u16,
        address: Ipv4Cidr,
        start: impl FnOnce(&mut Stack) -> A,
    ) -> Result<Self, hematite_netstack::Errno> {
        let mut stack = Stack::new(config, seed);
        let device = LineDevice {
            mac,
            mtu,
            ..LineDevice::default()
        };
        let ifindex = stack.add_interface(&device);
        stack.add_address(ifindex, address)?;
        let application = start(&mut stack);
        Ok(StackEndpoint {
            stack,
            device,
            ifindex,
            application,
            deadline: SimTime::ZERO,
        })
    }

    /// The program.
    pub fn application(&self) -> &A {
        &self.application
    }

    /// The stack, for its counters.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// When it wants to be asked for frames next, if the card sends none: a timer.
    pub fn deadline(&self) -> SimTime {
        self.deadline
    }

    /// Lets something be done on the stack outside of the program.
    pub fn with<R>(&mut self, act: impl FnOnce(&mut Stack, &mut A) -> R) -> R {
        let result = act(&mut self.stack, &mut self.application);
        self.deadline = SimTime::ZERO;
        result
    }

    fn settle(&mut self, now: SimTime) {
        self.application.poll(&mut self.stack);
        while self
            .stack
            .qdisc_run(self.ifindex, &mut self.device, instant(now))
            .state
            == QdiscState::Quota
        {}
        let deadline = self.stack.next_deadline();
        self.deadline = deadline.map_or(SimTime::NEVER, |at| SimTime::from_ns(at.as_nanos()).max(now));
    }
}

impl<A: PeerApplication> WireEndpoint for StackEndpoint<A> {
    fn transmit(&mut self, now: SimTime, frame: &mut Frame) -> bool {
        if now >= self.deadline {
            self.stack.poll(instant(now));
            self.settle(now);
        }
        let Some(skb) = self.device.queue.pop_front() else {
            return false;
        };
        frame.bytes.extend_from_slice(skb.data());
        self.device.sent.push(skb);
        if self.device.queue.is_empty() {
            self.settle(now);
        }
        true
    }

    fn receive(&mut self, now: SimTime, frame: &[u8]) {
        let Some(mut skb) = self.stack.skb_pool().alloc(HEADROOM + frame.len()) else {
            return;
        };
        if skb.reserve(HEADROOM).and_then(|()| skb.put_slice(frame)).is_err() {
            return self.stack.skb_pool().recycle(skb);
        }
        self.device.stats.rx_packets += 1;
        self.device.stats.rx_bytes += frame.len() as u64;
        self.stack.receive(self.ifindex, skb, instant(now));
        self.settle(now);
    }
}
