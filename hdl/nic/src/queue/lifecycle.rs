//! Start, stop and failure of a queue engine.

use hematite_lang::prelude::*;

#[hw]
enum Life {
    Run,
    Running,
    Quiet,
}

/// The life of a queue between `run` and `idle`. When `run` falls, the engine takes no new work,
/// finishes what is in flight and then forgets its ring; a fault stops it in the same way, and then it
/// waits for `run` to fall.
#[hw]
pub struct Lifecycle {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Back to waiting for `run`.
    pub reset: Signal<In, Bit>,
    /// The queue shall run.
    pub run: Signal<In, Bit>,
    /// Nothing is in flight.
    pub quiet: Signal<In, Bit>,
    /// A part of the engine has failed.
    pub fault: Signal<In, Bit>,
    /// Take no new work.
    pub stop: Signal<Out, Bit>,
    /// Forget the ring: a reset for the parts that know its position.
    pub clear: Signal<Out, Bit>,
    /// As in `QueueConfigIn`.
    pub idle: Signal<Out, Bit>,
    /// As in `QueueConfigIn`.
    pub failed: Signal<Out, Bit>,
    /// High in the cycle after a fault.
    pub queue_failed: Signal<Out, Bit>,
    state: Reg<Life>,
    broken: Reg<Bit>,
    reported: Reg<Bit>,
    #[reset(true)]
    stopping: Reg<Bit>,
}

#[hw]
impl Logic for Lifecycle {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.broken, self.reported, self.stopping);
        match self.state.q.val() {
            Life::Run => {
                if self.run.val() {
                    self.state.d.next = Life::Running;
                }
            }
            Life::Running => {
                if self.fault.val() {
                    self.broken.d.next = true;
                }
                if !self.run.val() {
                    self.state.d.next = Life::Quiet;
                }
            }
            Life::Quiet => {
                self.broken.d.next = false;
                if self.quiet.val() {
                    self.state.d.next = Life::Run;
                }
            }
        }
        self.reported.d.next = self.broken.q.val();
        self.queue_failed.next = self.broken.q.val() && !self.reported.q.val();
        self.failed.next = self.broken.q.val();
        self.stopping.d.next = !matches!(self.state.d.val(), Life::Running) || self.broken.d.val();
        self.stop.next = self.stopping.q.val();
        let stopped = matches!(self.state.q.val(), Life::Run);
        self.clear.next = stopped;
        self.idle.next = stopped;
    }
}
