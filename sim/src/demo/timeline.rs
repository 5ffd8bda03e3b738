//! The life of one packet in each direction: when it was where, from the first octet on the wire to the program that
//! asked for it, and from the program that sent it to the buffer that came back.
//!
//! A [`Timeline`] collects the trace points of `hematite_netstack::core::trace` while it is the thread's subscriber.
//! Interrupts and DMA do not name a packet: they are those before the poll that took it.

use hematite_netstack::core::trace::{PACKET, Stage};
use serde::Serialize;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// One line of a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TimelineEntry {
    /// Where.
    pub stage: &'static str,
    /// When, in nanoseconds of virtual time.
    pub at_ns: u64,
}

/// When something last happened that concerns no packet in particular.
#[derive(Clone, Copy, Debug, Default)]
struct Latest {
    dma: u64,
    dma_before_irq: u64,
    irq: u64,
    handler: u64,
}

#[derive(Debug, Default)]
struct Recorder {
    latest: Latest,
    packets: HashMap<u64, Vec<(Stage, u64)>>,
    /// The latest packet that a program received.
    received: Option<u64>,
    /// What a frame from the card was called before it was one.
    frames: HashMap<u64, u64>,
    /// The latest packet of ours that the card gave back.
    sent: Option<u64>,
}

impl Recorder {
    fn event(&mut self, Fields { id, at, stage, frame }: Fields) {
        let Some(stage) = stage else { return };
        match stage {
            Stage::Dma => self.latest.dma = at,
            Stage::Irq => {
                self.latest.irq = at;
                self.latest.dma_before_irq = self.latest.dma;
            }
            Stage::IrqHandler => self.latest.handler = at,
            _ if id == 0 => {}
            Stage::WireTx => {
                if let Some(stages) = self.frames.remove(&id).and_then(|id| self.packets.get_mut(&id)) {
                    stages.push((stage, at));
                }
            }
            _ => {
                let stages = self.packets.entry(id).or_default();
                // A frame with the same octets as one before is another packet.
                if stage == Stage::Wire {
                    stages.clear();
                }
                if stage == Stage::Napi {
                    let Latest {
                        dma_before_irq,
                        irq,
                        handler,
                        ..
                    } = self.latest;
                    stages.extend([
                        (Stage::Dma, dma_before_irq),
                        (Stage::Irq, irq),
                        (Stage::IrqHandler, handler),
                    ]);
                }
                stages.push((stage, at));
                match stage {
                    Stage::Recv => self.received = Some(id),
                    Stage::StartXmit => _ = self.frames.insert(frame, id),
                    // Of a program, not of the stack's own accord.
                    Stage::Completion if stages.first().is_some_and(|s| s.0 == Stage::Send) => {
                        self.sent = Some(id)
                    }
                    _ => {}
                }
            }
        }
    }

    /// A packet that went all the way, stage by stage.
    fn timeline(&self, id: Option<u64>) -> Vec<TimelineEntry> {
        let Some(stages) = id.and_then(|id| self.packets.get(&id)) else {
            return Vec::new();
        };
        let entry = |(n, &(stage, at)): (usize, &(Stage, u64))| TimelineEntry {
            stage: stage.name(),
            // A stage without a clock is at the time of the one after it.
            at_ns: match at {
                0 => stages
                    .iter()
                    .skip(n)
                    .map(|s| s.1)
                    .find(|&at| at != 0)
                    .unwrap_or(0),
                at => at,
            },
        };
        stages.iter().enumerate().map(entry).collect()
    }
}

/// Collects trace points.
#[derive(Clone, Debug, Default)]
pub struct Timeline(Arc<Mutex<Recorder>>);

impl Timeline {
    /// Runs `act` and collects this thread's trace points meanwhile. Other events of it go nowhere.
    pub fn record<R>(&self, act: impl FnOnce() -> R) -> R {
        let subscriber = tracing_subscriber::registry().with(self.clone());
        let result = tracing::subscriber::with_default(subscriber, act);
        // What was asked for is not wanted any more: trace points cost nothing again.
        tracing::callsite::rebuild_interest_cache();
        result
    }

    /// The way of the latest packet that a program received.
    pub fn latest(&self) -> Vec<TimelineEntry> {
        let recorder = self.recorder();
        recorder.timeline(recorder.received)
    }

    /// The way of the latest packet whose buffer came back from the card.
    pub fn latest_sent(&self) -> Vec<TimelineEntry> {
        let recorder = self.recorder();
        recorder.timeline(recorder.sent)
    }

    fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Timeline {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target() == PACKET
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.recorder().event(fields);
    }
}

#[derive(Default)]
struct Fields {
    id: u64,
    at: u64,
    stage: Option<Stage>,
    frame: u64,
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "id" => self.id = value,
            "at" => self.at = value,
            "frame" => self.frame = value,
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "stage" {
            self.stage = Stage::ALL.iter().copied().find(|stage| stage.name() == value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use hematite_netstack::core::trace;

    #[test]
    fn the_packet_that_was_received_is_shown_with_its_interrupt() {
        let timeline = Timeline::default();
        timeline.record(|| {
            trace::packet(7, Stage::Wire, 100);
            trace::packet(8, Stage::Wire, 150);
            trace::packet(0, Stage::Dma, 200);
            trace::packet(0, Stage::Irq, 210);
            trace::packet(0, Stage::Dma, 220);
            trace::packet(0, Stage::IrqHandler, 230);
            trace::packet(7, Stage::Napi, 0);
            trace::packet(7, Stage::Gro, 240);
            trace::packet(7, Stage::Recv, 250);
            tracing::trace!("something else");
        });
        trace::packet(9, Stage::Recv, 900);
        let seen: Vec<_> = timeline.latest().iter().map(|e| (e.stage, e.at_ns)).collect();
        let expect = [
            ("wire", 100),
            ("DMA", 200),
            ("IRQ", 210),
            ("IRQ handler", 230),
            ("NAPI", 240),
            ("GRO", 240),
            ("recv", 250),
        ];
        assert_eq!(seen, expect);
    }

    /// Row S79, the way out: what the wire sees is found again as what the program sent.
    #[test]
    fn the_packet_that_was_sent_is_shown_with_its_frame() {
        let timeline = Timeline::default();
        let start = |id: u64, frame: u64, at: u64| {
            tracing::trace!(target: PACKET, id, stage = "start_xmit", at, frame);
        };
        timeline.record(|| {
            trace::packet(7, Stage::Send, 100);
            trace::packet(7, Stage::Qdisc, 110);
            start(7, 0xf00, 120);
            start(8, 0xba5, 130);
            trace::packet(0xf00, Stage::WireTx, 140);
            trace::packet(0xbad, Stage::WireTx, 150);
            trace::packet(7, Stage::Completion, 160);
        });
        let seen: Vec<_> = timeline
            .latest_sent()
            .iter()
            .map(|e| (e.stage, e.at_ns))
            .collect();
        let expect = [
            ("send", 100),
            ("qdisc", 110),
            ("start_xmit", 120),
            ("wire tx", 140),
            ("completion", 160),
        ];
        assert_eq!(seen, expect);
        assert!(timeline.latest().is_empty());
    }
}
