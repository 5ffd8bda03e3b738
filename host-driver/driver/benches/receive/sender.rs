//! The other end of the connection: a stack on a wire. None of its instructions are counted.

use std::net::Ipv4Addr;

use hematite_netstack::{
    DeviceFlags, Features, IfIndex, Instant, IpSummed, MacAddr, NetDevice, QdiscState, RtnlLinkStats64,
    SkBuff, SkbPool, Stack, StackConfig, TcpStream, TxBusy,
};

use crate::model::Model;

/// The receiver's address.
pub const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// Its card: makes nothing but lists.
struct Card {
    sent: Vec<Vec<u8>>,
    done: Vec<SkBuff>,
}

impl NetDevice for Card {
    fn name(&self) -> &str {
        "wire0"
    }
    fn mac_address(&self) -> MacAddr {
        [2, 0, 0, 0, 0, 1].into()
    }
    fn mtu(&self) -> u32 {
        1500
    }
    fn flags(&self) -> DeviceFlags {
        DeviceFlags::UP | DeviceFlags::LOWER_UP | DeviceFlags::BROADCAST | DeviceFlags::MULTICAST
    }
    fn features(&self) -> Features {
        Features::SG
    }
    fn start_xmit(&mut self, skb: SkBuff) -> Result<(), TxBusy> {
        self.sent.push(skb.to_vec());
        self.done.push(skb);
        Ok(())
    }
    fn reclaim(&mut self, pool: &mut SkbPool) {
        for skb in self.done.drain(..) {
            pool.recycle(skb);
        }
    }
    fn stats(&self) -> RtnlLinkStats64 {
        RtnlLinkStats64::default()
    }
}

pub struct Sender {
    stack: Stack,
    card: Card,
    ifindex: IfIndex,
    client: TcpStream,
    data: Vec<u8>,
    sent: usize,
}

impl Sender {
    pub fn new() -> Self {
        let mut stack = Stack::new(StackConfig::default(), 1);
        let card = Card {
            sent: Vec::new(),
            done: Vec::new(),
        };
        let ifindex = stack.add_interface(&card);
        stack
            .add_address(ifindex, "10.0.0.1/24".parse().expect("an address"))
            .expect("a new address");
        let client = TcpStream::connect(&mut stack, (B, 80)).expect("a route");
        Self {
            stack,
            card,
            ifindex,
            client,
            data: vec![0x5a; 1 << 20],
            sent: 0,
        }
    }

    /// Takes what the receiver has sent, and sends it what may be sent of so many bytes.
    #[inline(never)]
    pub fn turn(&mut self, now: Instant, bytes: usize, device: &mut Model) {
        self.stack.poll(now);
        let completed = device.to_complete.drain(..).map(|(_, frame)| frame);
        for frame in device.to_wire.drain(..).chain(completed) {
            let mut skb = SkBuff::from_slice(&frame);
            skb.set_ip_summed(IpSummed::Unnecessary);
            self.stack.receive(self.ifindex, skb, now);
        }
        let rest = (bytes - self.sent).min(self.data.len());
        if rest > 0 {
            self.sent += self
                .client
                .write(&mut self.stack, &self.data[..rest])
                .unwrap_or(0);
        }
        while self.stack.qdisc_run(self.ifindex, &mut self.card, now).state == QdiscState::Quota {}
        device.from_wire.extend(self.card.sent.drain(..));
    }

    pub fn segments(&self) -> u64 {
        self.stack.snmp().tcp.out_segs
    }
}
