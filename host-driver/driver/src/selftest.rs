//! The self-test of a Hematite card (`ethtool -t offline`): frames through all of it and back, without a wire.

use hematite_abi::port;
use hematite_bus::PciFunction;
use hematite_netstack::{Instant, NetDevice, SkBuff, SkbPool};

use crate::error::Error;
use crate::net::{ETH_HLEN, VirtioNet};
use crate::rx::NapiReceive;

/// For local experiments (IEEE 802 clause 9.2.3): no stack takes such frames for its own.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// The shortest frame, without check sequence.
const SHORTEST: usize = 60;

/// What comes back.
struct Loop {
    pool: SkbPool,
    frames: Vec<Vec<u8>>,
}

impl NapiReceive for Loop {
    fn napi_alloc_skb(&mut self, len: usize) -> Option<SkBuff> {
        self.pool.alloc(len)
    }

    fn napi_gro_receive(&mut self, skb: SkBuff) {
        self.frames.push(skb.to_vec());
        self.pool.recycle(skb);
    }

    fn napi_consume_skb(&mut self, skb: SkBuff) {
        self.pool.recycle(skb);
    }
}

impl<F: PciFunction> VirtioNet<F> {
    /// Closes the card's loop, sends frames of several lengths up to the MTU to itself, and opens it again. `wait` lets
    /// time pass, and says when it has been enough. Whether all came back as they were, once, in order; what the wire
    /// brings meanwhile is lost.
    ///
    /// # Errors
    /// [`Error::NotSupported`] on a device without Hematite's registers, [`Error::State`] unless the interface is up;
    /// as [`net_rx_action`](Self::net_rx_action).
    pub fn loopback_test(
        &mut self,
        mut now: impl FnMut() -> Instant,
        wait: impl FnMut(&mut F) -> bool,
    ) -> Result<bool, Error> {
        self.set_port_control(port::LOOPBACK)?;
        let result = self.loop_frames(&mut now, wait);
        let opened = self.set_port_control(0);
        result.and_then(|same| opened.map(|()| same))
    }

    fn loop_frames(
        &mut self,
        now: &mut impl FnMut() -> Instant,
        mut wait: impl FnMut(&mut F) -> bool,
    ) -> Result<bool, Error> {
        let mut back = Loop {
            pool: SkbPool::new(64),
            frames: Vec::new(),
        };
        // What came from the wire before.
        self.service(&mut *now, &mut back)?;
        back.frames.clear();
        let longest = ETH_HLEN + self.mtu() as usize;
        let lengths = [SHORTEST, SHORTEST + 1, 64, 127, 512, longest - 1, longest];
        let mut sent = Vec::new();
        for length in lengths.into_iter().filter(|length| *length <= longest) {
            let frame = self.loop_frame(length);
            if self.start_xmit(SkBuff::from_slice(&frame)).is_err() {
                return Err(Error::State("busy"));
            }
            sent.push(frame);
        }
        self.xmit_flush();
        loop {
            self.service(&mut *now, &mut back)?;
            if back.frames.len() >= sent.len() || wait(self.function()) {
                return Ok(back.frames == sent);
            }
        }
    }

    /// From here to here; every octet differs from its neighbours, and from those of another length.
    fn loop_frame(&self, length: usize) -> Vec<u8> {
        let mac = self.mac_address().0;
        let mut frame = [&mac[..], &mac, &ETHERTYPE].concat();
        frame.extend((frame.len()..length).map(|at| (at.wrapping_mul(0x9d) ^ at >> 8 ^ length) as u8));
        frame
    }
}
