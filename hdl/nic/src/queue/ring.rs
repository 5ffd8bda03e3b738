//! One packet virtqueue towards the driver.

use hematite_lang::prelude::*;

use super::elements::ElementsOut;
use super::fetch::{Answer, DescriptorFetch, Element};
use super::lifecycle::Lifecycle;
use super::notify::Notifier;
use super::slots::SlotsOut;
use super::used::{UsedBuffer, UsedWriter};
use crate::virtio::ports::{Coalesce, InterruptOut, QueueConfigIn};

/// What one packed virtqueue has for itself: `DescriptorFetch` reads available buffers ahead, `UsedWriter` gives them
/// back, up to `2^A` in a write, `Notifier` tells the driver, `Lifecycle` starts and stops them. The way of the bytes is
/// shared by all rings of a direction; it takes elements, hands back used buffers, and says while it is busy
/// with any of this ring's.
///
/// The device event suppression structure is never written: it stays as the driver initialised it,
/// zeros, which enables all available buffer notifications.
#[hw]
pub struct Ring<const A: usize, const USED_HOLD: usize, const EVENT_INTERVAL: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Stops at once, whatever is in flight: for power-on, with the DMA engines.
    pub reset: Signal<In, Bit>,
    /// The virtqueue.
    pub config: QueueConfigIn,
    /// Its buffers are device-writable (receive) or device-readable (transmit).
    pub writable: Signal<In, Bit>,
    /// Notification coalescing.
    pub coalesce: Signal<In, Coalesce>,
    /// High for one cycle each microsecond.
    pub microsecond: Signal<In, Bit>,
    /// The oldest element.
    pub element: Signal<Out, Element>,
    /// There is one.
    pub element_valid: Signal<Out, Bit>,
    /// It is taken.
    pub element_ready: Signal<In, Bit>,
    /// Bytes of the elements that are held, up to three cycles late.
    pub stock: Signal<Out, Bits<22>>,
    /// No more are on their way.
    pub stock_final: Signal<Out, Bit>,
    /// Because there is no room for them, or the ring has no more.
    pub stock_full: Signal<Out, Bit>,
    /// A used buffer, in the order in which the driver shall see them.
    pub used: Signal<In, UsedBuffer>,
    /// There is one.
    pub used_valid: Signal<In, Bit>,
    /// It is taken.
    pub used_ready: Signal<Out, Bit>,
    /// All are in host memory.
    pub used_quiet: Signal<Out, Bit>,
    /// The way of the bytes failed this queue.
    pub fault: Signal<In, Bit>,
    /// It holds something of this queue.
    pub busy: Signal<In, Bit>,
    /// Take no more elements.
    pub stop: Signal<Out, Bit>,
    /// The ring is forgotten.
    pub clear: Signal<Out, Bit>,
    /// Reads of descriptors.
    pub descriptors: SlotsOut,
    /// A beat of some response, which is always taken.
    pub answer: Signal<In, Answer>,
    /// It is of the descriptors'.
    pub descriptors_answered: Signal<In, Bit>,
    /// Where elements wait.
    pub elements: ElementsOut,
    /// A read of the driver event suppression structure is wanted.
    pub events_valid: Signal<Out, Bit>,
    /// That is taken.
    pub events_ready: Signal<In, Bit>,
    /// The answer is of that structure's.
    pub events_answered: Signal<In, Bit>,
    /// Writes of used descriptors.
    pub write_request: SlotsOut,
    /// Their bytes.
    pub write_data: StreamOut,
    /// The one that is requested shows the driver something.
    pub write_shows: Signal<Out, Bit>,
    /// The oldest of them that is not done is now ahead of anything sent to the host from now on.
    pub write_done: Signal<In, Bit>,
    /// It was requested with `write_shows`.
    pub write_done_shows: Signal<In, Bit>,
    /// The queue's interrupt.
    pub interrupt: InterruptOut,
    /// Counter event: the queue failed.
    pub queue_failed: Signal<Out, Bit>,
    life: Lifecycle,
    fetch: DescriptorFetch,
    used_writer: UsedWriter<A, USED_HOLD>,
    notifier: Notifier<EVENT_INTERVAL>,
}

#[hw]
impl<const A: usize, const USED_HOLD: usize, const EVENT_INTERVAL: usize> Logic
    for Ring<A, USED_HOLD, EVENT_INTERVAL>
{
    fn update(&mut self) {
        clocked!(self.clock, self.reset => self.life);
        clocked!(self.clock => self.fetch, self.used_writer, self.notifier);
        let clear = self.reset.val() || self.life.clear.val();
        let stop = self.life.stop.val();
        self.clear.next = clear;
        self.stop.next = stop;
        self.fetch.reset.next = clear;
        self.used_writer.reset.next = clear;
        self.notifier.reset.next = clear;

        self.life.run.next = self.config.run.val();
        self.life.fault.next = self.fetch.failed.val() || self.notifier.failed.val() || self.fault.val();
        self.life.quiet.next = self.fetch.quiet.val()
            && !self.busy.val()
            && self.used_writer.quiet.val()
            && self.notifier.quiet.val();
        self.config.idle.next = self.life.idle.val();
        self.config.failed.next = self.life.failed.val();
        self.queue_failed.next = self.life.queue_failed.val();

        self.fetch.stop.next = stop;
        self.fetch.size.next = self.config.size.val();
        self.fetch.notify.next = self.config.notify.val();
        self.fetch.writable.next = self.writable.val();
        self.descriptors.link(&mut self.fetch.request);
        self.fetch.answer.next = self.answer.val();
        self.fetch.answered.next = self.descriptors_answered.val();
        self.elements.link(&mut self.fetch.elements);
        self.element.next = self.fetch.element.val();
        self.element_valid.next = self.fetch.element_valid.val();
        self.fetch.element_ready.next = self.element_ready.val();
        self.stock.next = self.fetch.stock.val();
        self.stock_final.next = self.fetch.stock_final.val();
        self.stock_full.next = self.fetch.stock_full.val();

        self.used_writer.stop.next = stop;
        self.used_writer.size.next = self.config.size.val();
        self.used_writer.used.next = self.used.val();
        self.used_writer.used_valid.next = self.used_valid.val();
        self.used_ready.next = self.used_writer.used_ready.val();
        self.used_quiet.next = self.used_writer.quiet.val();
        self.write_shows.next = self.used_writer.shows.val();
        self.used_writer.done.next = self.write_done.val();
        self.used_writer.done_shows.next = self.write_done_shows.val();
        self.write_request.link(&mut self.used_writer.request);
        self.write_data.link(&mut self.used_writer.data);

        self.notifier.stop.next = stop;
        self.notifier.vector.next = self.config.vector.val();
        self.notifier.coalesce.next = self.coalesce.val();
        self.notifier.microsecond.next = self.microsecond.val();
        self.notifier.packet.next = self.used_writer.packet.val();
        self.notifier.written.next = self.used_writer.written.val();
        self.events_valid.next = self.notifier.request.val();
        self.notifier.taken.next = self.events_ready.val();
        self.notifier.answer.next = self.answer.val();
        self.notifier.answered.next = self.events_answered.val();
        self.interrupt.link(&mut self.notifier.interrupt);
    }
}
