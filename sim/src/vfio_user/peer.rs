//! What stands at the far end of a served card's wire, and when it wants to be asked again.

use crate::time::SimTime;
use crate::wire::capture::Replay;
use crate::wire::host::{PeerApplication, StackEndpoint};
use crate::wire::loopback::Loopback;
use crate::wire::tap::Tap;
use crate::wire::{Frame, Unplugged, WireEndpoint};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

/// How long the far end has nothing for the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Until the card sends something.
    Forever,
    /// For so long, in real time.
    For(Duration),
    /// Until this descriptor is readable.
    Readable(RawFd),
}

/// An endpoint that says how long the simulation may rest.
pub trait ServedEndpoint: WireEndpoint {
    /// Asked when the line is quiet.
    fn rest(&self) -> Rest;
}

impl<E: ServedEndpoint + ?Sized> ServedEndpoint for Box<E> {
    fn rest(&self) -> Rest {
        (**self).rest()
    }
}

impl ServedEndpoint for Unplugged {
    fn rest(&self) -> Rest {
        Rest::Forever
    }
}

/// A quiet line has taken all of its frames.
impl ServedEndpoint for Loopback {
    fn rest(&self) -> Rest {
        Rest::Forever
    }
}

impl ServedEndpoint for Tap {
    fn rest(&self) -> Rest {
        Rest::Readable(self.as_raw_fd())
    }
}

/// An endpoint whose clock is the real one: its timers keep the pace of the client's, however slowly the card is
/// simulated.
pub struct RealTime<E> {
    inner: E,
    start: Instant,
}

impl<E> RealTime<E> {
    /// The endpoint's time begins now.
    pub fn new(inner: E) -> Self {
        RealTime {
            inner,
            start: Instant::now(),
        }
    }

    fn now(&self) -> SimTime {
        SimTime::from_ns(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX / 1000))
    }
}

impl<E: WireEndpoint> WireEndpoint for RealTime<E> {
    fn transmit(&mut self, _now: SimTime, frame: &mut Frame) -> bool {
        let now = self.now();
        self.inner.transmit(now, frame)
    }

    fn receive(&mut self, _now: SimTime, frame: &[u8]) {
        let now = self.now();
        self.inner.receive(now, frame);
    }
}

impl<E: Peer> ServedEndpoint for RealTime<E> {
    fn rest(&self) -> Rest {
        match self.inner.next_event() {
            SimTime::NEVER => Rest::Forever,
            at => Rest::For(Duration::from_nanos((at - self.now()).ns())),
        }
    }
}

/// An endpoint with timers.
pub trait Peer: WireEndpoint {
    /// When it has something to do if nothing comes from the card.
    fn next_event(&self) -> SimTime;
}

impl<A: PeerApplication> Peer for StackEndpoint<A> {
    fn next_event(&self) -> SimTime {
        self.deadline()
    }
}

impl Peer for Replay {
    fn next_event(&self) -> SimTime {
        self.next_due().unwrap_or(SimTime::NEVER)
    }
}
