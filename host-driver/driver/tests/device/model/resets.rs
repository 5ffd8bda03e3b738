//! Resets that take their time.

use super::Model;
use super::ring::Queue;

/// A reset under way, and how many reads it lasts.
#[derive(Debug, Clone, Copy)]
pub struct Unfinished {
    what: What,
    left: u32,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Device,
    Queue(usize),
}

impl Model {
    /// 0 is written to the status.
    pub(super) fn begin_device_reset(&mut self) {
        self.begin(What::Device);
    }

    /// 1 is written to `queue_reset` of the selected queue.
    pub(super) fn begin_queue_reset(&mut self) {
        self.begin(What::Queue(self.queue_select.into()));
    }

    fn begin(&mut self, what: What) {
        self.unfinished = Some(Unfinished {
            what,
            // A device that is reset already has nothing to do.
            left: if matches!(what, What::Device) && self.status == 0 {
                0
            } else {
                self.slow
            },
        });
        if self.slow == 0 {
            self.resetting();
        }
    }

    /// Whether a reset is under way, as a read finds it.
    pub(super) fn resetting(&mut self) -> bool {
        let Some(Unfinished { what, left }) = &mut self.unfinished else {
            return false;
        };
        if *left > 0 {
            *left -= 1;
            self.look();
            return true;
        }
        match *what {
            What::Device => self.device_reset(),
            What::Queue(queue) => self.queues[queue] = Queue::new(self.settings.max_queue),
        }
        self.unfinished = None;
        false
    }

    /// Whatever the device was given must still be there (3.3.1).
    fn look(&mut self) {
        let chains = self.queues.iter().flat_map(|queue| &queue.held);
        for segment in chains.flat_map(|chain| &chain.segments) {
            self.looks_while_resetting += 1;
            let mut bytes = vec![0; segment.len as usize];
            if let Err(fault) = self.settings.dma.device_read(segment.addr, &mut bytes) {
                self.violations
                    .push(format!("freed before the reset was done: {fault}"));
            }
        }
    }
}
