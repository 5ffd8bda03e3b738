//! What all sockets share (`struct sock`): buffer accounting, pending error, options.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::errno::Errno;
use crate::eventpoll::{EventPolls, WaitQueue};
use crate::socket::Readiness;

/// Bytes of send buffer in use, shared with the packets in flight (`sk->sk_wmem_alloc`).
#[derive(Debug, Clone, Default)]
pub(crate) struct Wmem(Arc<AtomicUsize>);

impl Wmem {
    /// Bytes charged now.
    pub(crate) fn allocated(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Charges `truesize` bytes until the result is dropped.
    pub(crate) fn charge(&self, truesize: usize) -> WmemCharge {
        // A plain count: nothing is published through it, so no ordering is needed.
        self.0.fetch_add(truesize, Ordering::Relaxed);
        WmemCharge {
            wmem: Arc::clone(&self.0),
            truesize,
        }
    }
}

/// A packet's share of its sender's send buffer; given back on drop (`sock_wfree`).
#[derive(Debug)]
pub(crate) struct WmemCharge {
    wmem: Arc<AtomicUsize>,
    truesize: usize,
}

impl WmemCharge {
    /// Charges another packet to the same send buffer.
    pub(crate) fn charge_also(&self, truesize: usize) -> Self {
        Wmem(Arc::clone(&self.wmem)).charge(truesize)
    }
}

impl Drop for WmemCharge {
    fn drop(&mut self) {
        self.wmem.fetch_sub(self.truesize, Ordering::Relaxed);
    }
}

/// State that every socket has.
#[derive(Debug)]
pub(crate) struct Sock {
    /// Limit of queued receive memory in bytes of truesize (`SO_RCVBUF`).
    pub rcvbuf: usize,
    /// Receive memory in use.
    pub rmem_alloc: usize,
    /// Limit of send memory (`SO_SNDBUF`).
    pub sndbuf: usize,
    /// Send memory in use.
    pub wmem: Wmem,
    /// Error to be returned by the next call (`sk->sk_err`, `SO_ERROR`).
    pub err: Option<Errno>,
    /// Packets dropped because the receive buffer was full (`sk->sk_drops`).
    pub drops: u64,
    /// Hash of the flow that it receives (`sk->sk_rxhash`), for receive flow steering.
    pub rxhash: Option<u32>,
    /// Who wants to know what happens (`sk->sk_wq`).
    pub wait: WaitQueue,
}

impl Sock {
    pub(crate) fn new(rcvbuf: usize, sndbuf: usize) -> Self {
        Self {
            rcvbuf,
            rmem_alloc: 0,
            sndbuf,
            wmem: Wmem::default(),
            err: None,
            drops: 0,
            rxhash: None,
            wait: WaitQueue::default(),
        }
    }

    /// Whether another packet may be queued for receive: as in Linux a packet is let in as long as the
    /// limit is not yet passed, so one datagram always fits (`__udp_enqueue_schedule_skb`).
    pub(crate) fn rmem_schedule(&mut self, truesize: usize) -> bool {
        if self.rmem_alloc > self.rcvbuf {
            self.drops += 1;
            return false;
        }
        self.rmem_alloc += truesize;
        true
    }

    /// Something was queued for receive (`sk_data_ready`).
    pub(crate) fn data_ready(&self, polls: &mut EventPolls) {
        self.wait.wake(polls, Readiness::READABLE);
    }

    /// An error for the next call (`sk_error_report`).
    pub(crate) fn error_report(&mut self, error: Errno, polls: &mut EventPolls) {
        self.err = Some(error);
        self.wait.wake(polls, Readiness::READABLE | Readiness::ERROR);
    }

    /// Gives receive memory back (`sock_rfree`).
    pub(crate) fn rmem_free(&mut self, truesize: usize) {
        self.rmem_alloc = self.rmem_alloc.saturating_sub(truesize);
    }

    /// What is queued has got another size.
    pub(crate) fn rmem_recharge(&mut self, before: usize, after: usize) {
        self.rmem_free(before);
        self.rmem_alloc += after;
    }

    /// Whether there is room to send (`sock_alloc_send_skb`).
    pub(crate) fn writable(&self) -> bool {
        self.wmem.allocated() < self.sndbuf
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn send_memory_comes_back_when_the_packet_goes() {
        let sock = Sock::new(0, 100);
        let a = sock.wmem.charge(60);
        assert!(sock.writable());
        let b = sock.wmem.charge(60);
        assert!(!sock.writable());
        drop(a);
        assert_eq!(sock.wmem.allocated(), 60);
        drop(b);
        assert_eq!(sock.wmem.allocated(), 0);
    }

    #[test]
    fn receive_memory_is_bounded_but_one_packet_always_fits() {
        let mut sock = Sock::new(10, 0);
        assert!(sock.rmem_schedule(4000));
        assert!(!sock.rmem_schedule(1));
        assert_eq!(sock.drops, 1);
        sock.rmem_free(4000);
        assert!(sock.rmem_schedule(1));
    }
}
