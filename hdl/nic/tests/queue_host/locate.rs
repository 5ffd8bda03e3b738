//! The registers' part towards an engine: where the areas of its queues are.

use hematite_testbench::{Pin, Rng};
use hematite_verilator::Model;
use rand::RngExt;

use super::Engine;
use super::driver::Driver;

/// Answers one of the engine's questions at a time, some cycles later.
pub struct Locator {
    queue: Pin,
    driver: Pin,
    slot: Pin,
    valid: Pin,
    address: Pin,
    found: Pin,
    engine: Engine,
    /// Queue, whether the driver area is meant, and slot.
    asked: Option<(usize, bool, u64)>,
    answering: bool,
}

impl Locator {
    /// On the ports that begin with `name`.
    pub fn new(model: &Model, name: &str, engine: Engine) -> Self {
        let pin = |field: &str| Pin::of(model, &format!("{name}_{field}")).expect("a port");
        Self {
            queue: pin("queue"),
            driver: pin("driver"),
            slot: pin("slot"),
            valid: pin("valid"),
            address: pin("address"),
            found: pin("found"),
            engine,
            asked: None,
            answering: false,
        }
    }

    pub fn sample(&mut self, model: &Model) {
        let before = self.asked.take();
        let answered = std::mem::take(&mut self.answering);
        if self.valid.get(model) == 0 {
            return;
        }
        let number = self.queue.get(model) as usize;
        let (ring, odd) = (number / 2, number % 2 == 1);
        match self.engine {
            Engine::Receive => assert!(!odd, "a receive queue's number"),
            Engine::Transmit => assert!(odd, "a transmit queue's number"),
            Engine::Control => {}
        }
        let now = (ring, self.driver.get(model) != 0, self.slot.get(model) as u64);
        assert!(before.is_none_or(|before| before == now), "a question stays");
        if !answered {
            self.asked = Some(now);
        }
    }

    pub fn drive(&mut self, model: &mut Model, queues: &[Driver], rng: &mut Rng) {
        let answer = self.asked.filter(|_| rng.random_range(0..3) == 0);
        self.answering = answer.is_some();
        self.found.set(model, u128::from(self.answering));
        let address = answer.map_or_else(
            || rng.random(),
            |(ring, driver, slot)| {
                let ring = &queues[ring].ring;
                16 * slot + if driver { ring.events } else { ring.descriptors }
            },
        );
        self.address.set(model, address.into());
    }
}
