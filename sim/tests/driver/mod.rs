//! Our driver as a vfio-user client in this process, with a stack that only keeps what it is given.

use hematite_bus::vfio::VfioUser;
use hematite_driver::{NapiReceive, Options, VirtioNet};
use hematite_netstack::{Instant, NetDevice, SkBuff, SkbPool};
use std::time::Duration;

/// Bytes of DMA memory.
pub const DMA: usize = 2 << 20;

struct Sink {
    pool: SkbPool,
    frames: Vec<Vec<u8>>,
}

impl NapiReceive for Sink {
    fn napi_alloc_skb(&mut self, len: usize) -> Option<SkBuff> {
        self.pool.alloc(len)
    }
    fn napi_gro_receive(&mut self, skb: SkBuff) {
        self.frames.push(skb.data().to_vec());
    }
    fn napi_consume_skb(&mut self, skb: SkBuff) {
        self.pool.recycle(skb);
    }
}

/// An interface that is up.
pub struct Interface {
    net: VirtioNet<VfioUser>,
    sink: Sink,
}

impl Interface {
    /// Brings the device up.
    pub fn up(function: VfioUser) -> Result<Self, hematite_driver::Error> {
        let options = Options {
            rx_ring: 32,
            tx_ring: 32,
            ..Options::default()
        };
        let mut net = VirtioNet::probe(function, options)?;
        net.open()?;
        let sink = Sink {
            pool: SkbPool::new(64),
            frames: Vec::new(),
        };
        Ok(Interface { net, sink })
    }

    /// Its address. Not every test that has this module asks for it.
    #[allow(dead_code)]
    pub fn mac(&self) -> [u8; 6] {
        self.net.mac_address().0
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: &[u8]) {
        let mut skb = self.sink.pool.alloc(frame.len()).expect("memory");
        skb.put_slice(frame).expect("room");
        assert!(self.net.start_xmit(skb).is_ok(), "the ring is full");
        self.net.xmit_flush();
    }

    /// Serves the device until enough has come for `enough`, at most ten seconds without a frame; all that has come.
    pub fn receive_until(&mut self, mut enough: impl FnMut(&[Vec<u8>]) -> bool) -> &[Vec<u8>] {
        let mut waits = 0;
        while !enough(&self.sink.frames) && waits < 100 {
            let before = self.sink.frames.len();
            self.net
                .service(|| Instant::ZERO, &mut self.sink)
                .expect("a device that works");
            if self.sink.frames.len() == before {
                let waiter = self.net.function().waiter();
                waiter.wait(Some(Duration::from_millis(100)), None);
                waits += 1;
            } else {
                waits = 0;
            }
        }
        &self.sink.frames
    }

    /// Takes the device down.
    pub fn remove(self) {
        let (_, removed) = self.net.remove();
        removed.expect("it resets");
    }
}
