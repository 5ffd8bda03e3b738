//! The whole PCI function.

use hematite_abi::counter;
use hematite_lang::prelude::*;

use super::completer::Completer;
use super::config::Config;
use super::counters::Counters;
use super::msix::Msix;
use super::ports::RegisterOut;
use super::quiesce::Quiesce;
use super::receive::Receive;
use super::register_bus::RegisterBus;
use super::transmit::Transmit;
use super::writer::Writer;
use crate::dma::ports::{DmaConfigOut, WriteRequestOut};
use crate::mac::PhyStatus;
use crate::virtio::Registers;
use crate::virtio::areas;
use crate::virtio::features::Negotiated;
use crate::virtio::ports::{InterruptIn, LocateIn, QueueConfigOut};

/// The card as the host sees it, at TLP level: configuration space, BAR 0 with the virtio structures, the
/// vendor block and MSI-X, and the way of the DMA engines to the link.
///
/// Every TLP is handled as its part says: see `Receive`, `Writer`, `Completer`, `Transmit`.
/// `data_path_reset` resets everything behind the function (see `Quiesce`); at `reset` the card resets
/// everything itself.
///
/// While Bus Master Enable is clear no request leaves, from before the completion of the write that
/// cleared it on, whether the DMA engines have begun it or not: it waits at `Transmit` until the bit is set
/// again, or a reset of the device or the function discards it.
///
/// The back end keeps at most 16 non-posted requests inside the function: beyond that `tlp_rx` stalls
/// until a completion leaves.
///
/// There are `QUEUES` virtqueues, the last of them the control queue, and as many MSI-X vectors: one for
/// configuration changes and one for each queue for packets; the control queue shares one, or has none. `SOURCES` is
/// `QUEUES + 1` (see `Msix`), and `2^A >= QUEUES`.
#[hw]
pub struct Function<const QUEUES: usize, const SOURCES: usize, const A: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Fundamental reset.
    pub reset: Signal<In, Bit>,
    /// From the link.
    pub tlp_rx: StreamIn,
    /// To the link.
    pub tlp_tx: StreamOut,
    /// Room at the link for one more posted TLP, beyond all that left `tlp_tx`.
    pub credit_posted: Signal<In, Bit>,
    /// Room for one more non-posted TLP.
    pub credit_nonposted: Signal<In, Bit>,
    /// Room for one more completion.
    pub credit_completion: Signal<In, Bit>,
    /// Completions for the read engine: whole and well-formed.
    pub completion: StreamOut,
    /// TLPs of the read engine.
    pub read_tlp: StreamIn,
    /// TLPs of the write engine.
    pub write_tlp: StreamIn,
    /// To the DMA engines.
    pub dma: DmaConfigOut,
    /// Reads of the DMA engines have left and wait for completions.
    pub reads_outstanding: Signal<In, Bit>,
    /// The DMA engines hold no request, no data and no outstanding read.
    pub dma_idle: Signal<In, Bit>,
    /// Completion Timeout Disable: reads wait for ever.
    pub completion_timeout_disable: Signal<Out, Bit>,
    /// To the queue engines.
    pub queues: [QueueConfigOut; QUEUES],
    /// They ask where things of a queue are.
    pub locate: [LocateIn; areas::CLIENTS],
    /// Interrupts of the queue engines.
    pub interrupts: [InterruptIn; QUEUES],
    /// A message will be sent for one of them: high for one cycle.
    pub interrupt_generated: Signal<Out, Bit>,
    /// For this one; `QUEUES` is a configuration change.
    pub interrupt_generated_for: Signal<Out, Bits<5>>,
    /// One of them will be asked for when its time has come.
    pub interrupt_held: Signal<Out, Bit>,
    /// MSI-X messages, to a client port of the write engine.
    pub message_request: WriteRequestOut,
    /// Their four bytes.
    pub message: StreamOut,
    /// One event for each cycle that an input is high, by the indices of `hematite_abi::counter`. Those that
    /// the function counts itself are added here; leave them low.
    pub events: [Signal<In, Bit>; counter::COUNT],
    /// What the PHY says.
    pub phy: Signal<In, PhyStatus>,
    /// To the registers of the Ethernet port.
    pub port: RegisterOut,
    /// The driver has made the announcement that it was asked for: high for one cycle.
    pub announced: Signal<In, Bit>,
    /// The MAC address, its first octet in bits 7..0.
    pub mac_address: Signal<In, Bits<48>>,
    /// A command has changed it: high for one cycle.
    pub mac_set: Signal<In, Bit>,
    /// What was negotiated.
    pub negotiated: Signal<Out, Negotiated>,
    /// A device reset is complete: high for one cycle.
    pub device_reset: Signal<Out, Bit>,
    /// Resets everything behind the function.
    pub data_path_reset: Signal<Out, Bit>,
    receive: Receive,
    writer: Writer,
    completer: Completer,
    register_bus: RegisterBus,
    configuration: Config<QUEUES, QUEUES>,
    msix: Msix<QUEUES, A, SOURCES>,
    registers: Registers<QUEUES, QUEUES>,
    counters: Counters,
    transmit: Transmit,
    quiesce: Quiesce,
}

#[hw]
impl<const QUEUES: usize, const SOURCES: usize, const A: usize> Logic for Function<QUEUES, SOURCES, A> {
    fn update(&mut self) {
        assert!(
            QUEUES % 2 == 1 && SOURCES == QUEUES + 1,
            "pairs of queues, the control queue, the registers"
        );
        clocked!(self.clock, self.reset => self.receive, self.writer, self.completer, self.register_bus);
        clocked!(self.clock, self.reset => self.configuration, self.counters, self.transmit, self.quiesce);
        clocked!(self.clock => self.msix, self.registers);
        let function_reset = self.quiesce.function_reset.val();
        self.data_path_reset.next = self.quiesce.data_path_reset.val();
        self.msix.reset.next = self.reset.val() || function_reset;
        self.registers.reset.next = self.reset.val() || function_reset;
        self.configuration.function_reset.next = function_reset;

        // TLPs in and out.
        self.tlp_rx.link(&mut self.receive.tlp);
        self.completion.link(&mut self.receive.completion);
        self.receive.posted.join(&mut self.writer.tlp);
        self.receive.posted_idle.next = self.writer.idle.val();
        self.receive.request.join(&mut self.completer.request);
        self.completer.completion.join(&mut self.transmit.completion);
        self.write_tlp.link(&mut self.transmit.write);
        self.read_tlp.link(&mut self.transmit.read);
        self.tlp_tx.link(&mut self.transmit.tlp);
        self.transmit.credit_posted.next = self.credit_posted.val();
        self.transmit.credit_nonposted.next = self.credit_nonposted.val();
        self.transmit.credit_completion.next = self.credit_completion.val();

        // Registers.
        self.writer.bus.join(&mut self.register_bus.writes);
        self.completer.bus.join(&mut self.register_bus.reads);
        self.completer.config.join(&mut self.configuration.access);
        self.register_bus.virtio.join(&mut self.registers.access);
        self.register_bus.vendor.join(&mut self.counters.access);
        self.port.link(&mut self.register_bus.port);
        self.register_bus.msix.join(&mut self.msix.access);

        // What configuration space rules.
        self.receive.max_payload.next = self.configuration.max_payload.val();
        self.writer.enable.next = self.configuration.memory_enable.val();
        self.writer.base.next = self.configuration.base.val();
        self.completer.enable.next = self.configuration.memory_enable.val();
        self.completer.base.next = self.configuration.base.val();
        self.completer.window_offset.next = self.configuration.window_offset.val();
        self.completer.window_length.next = self.configuration.window_length.val();
        self.dma.requester_id.next = self.completer.function_id.val();
        self.dma.max_payload.next = self.configuration.max_payload.val();
        self.dma.max_read_request.next = self.configuration.max_read_request.val();
        self.dma.bus_master.next = self.configuration.bus_master.val();
        self.completion_timeout_disable.next = self.configuration.completion_timeout_disable.val();
        self.configuration.unsupported_request.next = self.completer.unsupported.val();
        self.configuration.unsupported_write.next = self.writer.unsupported.val();
        self.configuration.poisoned.next = self.completer.poisoned.val() || self.receive.write_poisoned.val();
        self.configuration.malformed.next = self.receive.tlp_malformed.val();
        self.configuration.received_master_abort.next = self.events[counter::DMA_READ_UR].val();
        self.configuration.received_target_abort.next = self.events[counter::DMA_READ_CA].val();
        self.configuration.poisoned_completion.next = self.events[counter::DMA_READ_POISONED].val();
        self.configuration.completion_error.next = self.events[counter::DMA_READ_TIMEOUT].val()
            || self.events[counter::DMA_UNEXPECTED_COMPLETION].val();
        self.configuration.isr_pending.next = self.registers.isr_pending.val();
        // Requests that wait for Bus Master Enable were not issued.
        self.configuration.transactions_pending.next = self.reads_outstanding.val();

        // Function-level reset, and the end of requests.
        self.quiesce.request.next = self.configuration.reset_request.val();
        self.receive.hold.next = self.quiesce.hold.val();
        // A device reset must not wait for requests that cannot leave; answers to those that left still come.
        self.quiesce.discard.next = self.registers.resetting.val()
            && !self.configuration.bus_master.val()
            && !self.reads_outstanding.val();
        self.transmit.hold.next = self.quiesce.hold.val() || !self.configuration.bus_master.val();
        self.quiesce.receive_held.next = self.receive.held.val();
        self.quiesce.transmit_held.next = self.transmit.held.val();

        // Virtio and interrupts.
        for c in 0..areas::CLIENTS {
            self.locate[c].link(&mut self.registers.locate[c]);
        }
        for q in 0..QUEUES {
            self.queues[q].link(&mut self.registers.queues[q]);
            self.interrupts[q].link(&mut self.msix.interrupts[q]);
        }
        self.registers.interrupt.join(&mut self.msix.interrupts[QUEUES]);
        self.interrupt_held.next = self.msix.held.val();
        self.interrupt_generated.next = self.msix.generated.val();
        self.interrupt_generated_for.next = self.msix.generated_for.val();
        self.registers.mac_address.next = self.mac_address.val();
        self.registers.mac_set.next = self.mac_set.val();
        self.registers.phy.next = self.phy.val();
        self.registers.announced.next = self.announced.val();
        self.registers.unsignaled.next = self.msix.unsignaled.val();
        self.registers.msix_idle.next = self.msix.idle.val();
        self.registers.dma_idle.next = self.dma_idle.val();
        self.negotiated.next = self.registers.negotiated.val();
        self.device_reset.next = self.registers.device_reset.val();
        self.msix.enable.next = self.configuration.msix_enable.val();
        self.msix.cut.next = self.quiesce.data_path_reset.val();
        self.msix.mask.next = self.configuration.msix_mask.val();
        self.msix.bus_master.next = self.configuration.bus_master.val();
        self.msix.discard.next = self.registers.resetting.val();
        self.message_request.link(&mut self.msix.write);
        self.message.link(&mut self.msix.message);

        // Events.
        for n in 0..counter::COUNT {
            self.counters.events[n].next = self.events[n].val();
        }
        self.counters.events[counter::TLP_NULLIFIED].next = self.receive.tlp_nullified.val();
        self.counters.events[counter::TLP_MALFORMED].next = self.receive.tlp_malformed.val();
        self.counters.events[counter::TLP_POISONED].next = self.completer.poisoned.val();
        self.counters.events[counter::WRITE_POISONED].next = self.receive.write_poisoned.val();
        self.counters.events[counter::TLP_UNSUPPORTED].next = self.completer.unsupported.val();
        self.counters.events[counter::WRITE_UNSUPPORTED].next = self.writer.unsupported.val();
        self.counters.events[counter::DOORBELL_ABSENT_QUEUE].next =
            self.registers.doorbell_absent_queue.val();
        self.counters.events[counter::QUEUE_FAILED].next = self.registers.queue_failed.val();
        self.counters.events[counter::IRQ_SENT].next = self.msix.irq_sent.val();
        self.counters.events[counter::IRQ_MASKED].next = self.msix.irq_masked.val();
        self.counters.events[counter::IRQ_DROPPED].next = self.msix.irq_dropped.val();
        self.counters.events[counter::FUNCTION_RESET].next = self.quiesce.done.val();
    }
}
