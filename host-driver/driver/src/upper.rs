//! The stack as the driver's receive path sees it.

use hematite_netstack::core::trace;
use hematite_netstack::{GroFlush, IfIndex, Instant, SkBuff, Stack};

use crate::napi::Backlogs;
use crate::rx::NapiReceive;

/// Hands received packets of one interface to a stack, and takes buffers from it.
pub struct StackReceive<'a> {
    /// The stack.
    pub stack: &'a mut Stack,
    /// The interface that the packets come in on.
    pub ifindex: IfIndex,
    /// When they come in.
    pub now: Instant,
}

impl NapiReceive for StackReceive<'_> {
    fn napi_alloc_skb(&mut self, len: usize) -> Option<SkBuff> {
        self.stack.skb_pool().alloc(len)
    }

    fn napi_gro_receive(&mut self, skb: SkBuff) {
        self.stack.napi_gro_receive(self.ifindex, skb, self.now);
    }

    fn napi_gro_flush(&mut self, queue: u16, flush: GroFlush) -> bool {
        self.stack.napi_gro_flush(self.ifindex, queue, flush, self.now)
    }

    fn xdp_do_redirect(&mut self, to: u32, skb: SkBuff) -> Result<(), SkBuff> {
        self.stack.xdp_do_redirect(to, skb)
    }

    fn netdev_notify_peers(&mut self) {
        // Without the interface there is nobody to be told.
        let _ = self.stack.netdev_notify_peers(self.ifindex);
    }

    fn backlogs(&mut self) -> Option<&mut dyn Backlogs> {
        Some(&mut *self.stack)
    }

    fn napi_consume_skb(&mut self, skb: SkBuff) {
        trace::packet(skb.packet_id(), trace::Stage::Completion, self.now.as_nanos());
        self.stack.skb_pool().recycle(skb);
    }
}
