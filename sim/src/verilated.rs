//! The verilated card's pins.

use crate::pins::{Beat, CardFault, CardPins, Clock, GmiiSymbol, PcieInputs, PcieOutputs, PhyStatus};
use crate::record::{Event, Recording};
use crate::time::SimTime;
use hematite_verilator::{Drive, Error, Model, Port, Stimulus};
use std::path::Path;

/// A [`Model`] of the card with its ports looked up once.
pub struct VerilatedCard {
    model: Model,
    ports: Ports,
    /// Waves are written up to here.
    trace_until: Option<SimTime>,
}

struct Ports {
    core_clock: Port<u8>,
    core_reset: Port<u8>,
    gmii_rx_clock: Port<u8>,
    gmii_tx_clock: Port<u8>,
    gmii_rxd: Port<u8>,
    gmii_rx_dv: Port<u8>,
    gmii_rx_er: Port<u8>,
    gmii_txd: Port<u8>,
    gmii_tx_en: Port<u8>,
    gmii_tx_er: Port<u8>,
    rx_data: Port<u64>,
    rx_keep: Port<u8>,
    rx_last: Port<u8>,
    rx_error: Port<u8>,
    rx_valid: Port<u8>,
    rx_ready: Port<u8>,
    tx_data: Port<u64>,
    tx_keep: Port<u8>,
    tx_last: Port<u8>,
    tx_error: Port<u8>,
    tx_valid: Port<u8>,
    tx_ready: Port<u8>,
    link_up: Port<u8>,
    credit_posted: Port<u8>,
    credit_nonposted: Port<u8>,
    credit_completion: Port<u8>,
    holding: Port<u8>,
    phy: Port<u8>,
}

impl Ports {
    fn drive_pcie(&self, to: &mut impl Drive, inputs: &PcieInputs) {
        let beat = inputs.rx.unwrap_or_default();
        to.set(self.rx_valid, inputs.rx.is_some().into());
        to.set(self.rx_data, beat.data);
        to.set(self.rx_keep, beat.keep);
        to.set(self.rx_last, beat.last.into());
        to.set(self.rx_error, beat.error.into());
        to.set(self.tx_ready, inputs.tx_ready.into());
        to.set(self.link_up, inputs.link_up.into());
        to.set(self.credit_posted, inputs.credits.posted.into());
        to.set(self.credit_nonposted, inputs.credits.non_posted.into());
        to.set(self.credit_completion, inputs.credits.completion.into());
    }

    fn drive_phy(&self, to: &mut impl Drive, status: PhyStatus) {
        let bits = u32::from(status.link_up) | status.speed << 1 | u32::from(status.full_duplex) << 3;
        to.set(self.phy, bits as u8);
    }

    fn drive_gmii(&self, to: &mut impl Drive, symbol: GmiiSymbol) {
        to.set(self.gmii_rxd, symbol.data);
        to.set(self.gmii_rx_dv, symbol.valid.into());
        to.set(self.gmii_rx_er, symbol.error.into());
    }
}

impl VerilatedCard {
    /// Looks up the ports.
    ///
    /// # Errors
    /// [`Error::UnknownPort`] or [`Error::Width`] when the model is not the card's.
    pub fn new(model: Model) -> Result<Self, Error> {
        let ports = Ports {
            core_clock: model.input("core_clock")?,
            core_reset: model.input("core_reset")?,
            gmii_rx_clock: model.input("gmii_rx_clock")?,
            gmii_tx_clock: model.input("gmii_tx_clock")?,
            gmii_rxd: model.input("gmii_rxd")?,
            gmii_rx_dv: model.input("gmii_rx_dv")?,
            gmii_rx_er: model.input("gmii_rx_er")?,
            gmii_txd: model.port("gmii_txd")?,
            gmii_tx_en: model.port("gmii_tx_en")?,
            gmii_tx_er: model.port("gmii_tx_er")?,
            rx_data: model.input("pcie_rx_data")?,
            rx_keep: model.input("pcie_rx_keep")?,
            rx_last: model.input("pcie_rx_last")?,
            rx_error: model.input("pcie_rx_error")?,
            rx_valid: model.input("pcie_rx_valid")?,
            rx_ready: model.port("pcie_rx_ready")?,
            tx_data: model.port("pcie_tx_data")?,
            tx_keep: model.port("pcie_tx_keep")?,
            tx_last: model.port("pcie_tx_last")?,
            tx_error: model.port("pcie_tx_error")?,
            tx_valid: model.port("pcie_tx_valid")?,
            tx_ready: model.input("pcie_tx_ready")?,
            link_up: model.input("pcie_link_up")?,
            credit_posted: model.input("pcie_credit_posted")?,
            credit_nonposted: model.input("pcie_credit_nonposted")?,
            credit_completion: model.input("pcie_credit_completion")?,
            holding: model.port("holding")?,
            phy: model.input("phy")?,
        };
        let mut card = VerilatedCard {
            model,
            ports,
            trace_until: None,
        };
        card.drive_phy(PhyStatus::GIGABIT);
        Ok(card)
    }

    /// What `recording` drives, as a stimulus for this card's model.
    pub fn stimulus(&self, recording: &Recording) -> Stimulus {
        let clocks = [
            self.ports.core_clock,
            self.ports.gmii_rx_clock,
            self.ports.gmii_tx_clock,
        ];
        let mut stimulus = Stimulus::new(&clocks);
        for (at, event) in recording.events() {
            while stimulus.evaluations() < at {
                stimulus.eval();
            }
            match event {
                Event::Reset(asserted) => stimulus.set(self.ports.core_reset, asserted.into()),
                Event::Pcie(inputs) => self.ports.drive_pcie(&mut stimulus, &inputs),
                Event::Gmii(symbol) => self.ports.drive_gmii(&mut stimulus, symbol),
                Event::Phy(status) => self.ports.drive_phy(&mut stimulus, status),
            }
        }
        while stimulus.evaluations() < recording.evaluations() {
            stimulus.eval();
        }
        stimulus
    }

    /// Runs `stimulus` in a C++ loop over the model.
    ///
    /// # Errors
    /// [`CardFault`].
    pub fn replay(&mut self, stimulus: &Stimulus) -> Result<(), CardFault> {
        self.model
            .replay(stimulus)
            .map_err(|error| CardFault(error.to_string()))
    }

    /// Writes waves (FST) up to `until`. The model must have been built with waves.
    ///
    /// # Errors
    /// [`Error::Trace`].
    pub fn trace(&mut self, path: &Path, until: SimTime) -> Result<(), Error> {
        self.model.trace_open(path)?;
        self.trace_until = Some(until);
        Ok(())
    }

    /// Completes the waves if they are still being written.
    ///
    /// # Errors
    /// [`Error::Trace`].
    pub fn finish_trace(&mut self) -> Result<(), Error> {
        match self.trace_until.take() {
            Some(_) => self.model.trace_close(),
            None => Ok(()),
        }
    }

    #[cold]
    fn dump(&mut self, now: u64, until: SimTime) -> Result<(), Error> {
        if now >= until.ps() {
            return self.finish_trace();
        }
        self.model.trace_dump(now)
    }
}

impl CardPins for VerilatedCard {
    fn set_core_reset(&mut self, asserted: bool) {
        self.model.set(self.ports.core_reset, asserted.into());
    }

    fn set_clock(&mut self, clock: Clock, high: bool) {
        let port = match clock {
            Clock::Core => self.ports.core_clock,
            Clock::GmiiRx => self.ports.gmii_rx_clock,
            Clock::GmiiTx => self.ports.gmii_tx_clock,
        };
        self.model.set(port, high.into());
    }

    fn drive_pcie(&mut self, inputs: &PcieInputs) {
        self.ports.drive_pcie(&mut self.model, inputs);
    }

    fn sample_pcie(&self) -> PcieOutputs {
        let get = |port| self.model.get(port) != 0;
        let tx = get(self.ports.tx_valid).then(|| Beat {
            data: self.model.get(self.ports.tx_data),
            keep: self.model.get(self.ports.tx_keep),
            last: get(self.ports.tx_last),
            error: get(self.ports.tx_error),
        });
        PcieOutputs {
            tx,
            rx_ready: get(self.ports.rx_ready),
        }
    }

    fn drive_gmii(&mut self, symbol: GmiiSymbol) {
        self.ports.drive_gmii(&mut self.model, symbol);
    }

    fn sample_gmii(&self) -> GmiiSymbol {
        GmiiSymbol {
            data: self.model.get(self.ports.gmii_txd),
            valid: self.model.get(self.ports.gmii_tx_en) != 0,
            error: self.model.get(self.ports.gmii_tx_er) != 0,
        }
    }

    fn drive_phy(&mut self, status: PhyStatus) {
        self.ports.drive_phy(&mut self.model, status);
    }
    fn is_holding(&self) -> bool {
        self.model.get(self.ports.holding) != 0
    }

    fn eval(&mut self, now: u64) -> Result<(), CardFault> {
        let evaluated = self.model.eval();
        let traced = match self.trace_until {
            Some(until) => self.dump(now, until),
            None => Ok(()),
        };
        evaluated
            .and(traced)
            .map_err(|error| CardFault(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcie::{RootComplex, RootComplexConfig, Violation};
    use crate::wire::Wire;
    use crate::wire::generator::{Generator, GeneratorConfig, Pace};
    use crate::{ClockPhases, Machine};
    use hematite_bus::DmaSpace;
    use hematite_verilator::Verilate;

    /// A module with the card's ports: GMII goes through a register and an asynchronous change of clocks (a FIFO would
    /// be needed for any phase; two registers do for edges that are apart), TLPs return by wire only.
    const MIRROR: &str = "
        module mirror(
          input core_clock, input core_reset, input gmii_rx_clock, input gmii_tx_clock,
          input [7:0] gmii_rxd, input gmii_rx_dv, input gmii_rx_er,
          output reg [7:0] gmii_txd, output reg gmii_tx_en, output reg gmii_tx_er,
          input [63:0] pcie_rx_data, input [7:0] pcie_rx_keep, input pcie_rx_last, input pcie_rx_error,
          input pcie_rx_valid, output pcie_rx_ready,
          output [63:0] pcie_tx_data, output [7:0] pcie_tx_keep, output pcie_tx_last, output pcie_tx_error,
          output pcie_tx_valid, input pcie_tx_ready,
          input pcie_link_up, input pcie_credit_posted, input pcie_credit_nonposted, input pcie_credit_completion,
          input [3:0] phy, output holding);
          assign holding = 1'b0;
          reg [9:0] received;
          always @(posedge gmii_rx_clock) received <= {gmii_rx_er, gmii_rx_dv, gmii_rxd};
          always @(posedge gmii_tx_clock) {gmii_tx_er, gmii_tx_en, gmii_txd} <= received;
          wire up = pcie_link_up & ~core_reset;
          assign pcie_tx_data = pcie_rx_data;
          assign pcie_tx_keep = pcie_rx_keep;
          assign pcie_tx_last = pcie_rx_last;
          assign pcie_tx_error = pcie_rx_error;
          assign pcie_tx_valid = pcie_rx_valid & up;
          assign pcie_rx_ready = pcie_tx_ready & up;
        endmodule";

    fn mirror(phases: ClockPhases, memory: &DmaSpace) -> Machine<VerilatedCard, Generator> {
        let model = Verilate::new("sim_mirror")
            .text("mirror.v", MIRROR)
            .top("mirror")
            .waves(true);
        let model = model
            .build_shared()
            .expect("a model")
            .instantiate(1)
            .expect("an instance");
        let config = GeneratorConfig {
            destination: [2, 0, 0, 0, 0, 1],
            source: [2, 0, 0, 0, 0, 2],
            sizes: 60..=300,
            count: 50,
            pace: Pace::LineRate,
        };
        let rc = RootComplex::new(RootComplexConfig::adversarial(), memory.clone(), 1);
        let generator = Generator::new(config, 1, SimTime::from_us(1));
        Machine::new(
            VerilatedCard::new(model).expect("the card's ports"),
            rc,
            Wire::new(generator),
            phases,
        )
    }

    #[test]
    fn frames_and_packets_cross_a_verilated_mirror() {
        for phases in [
            ClockPhases::ALIGNED,
            ClockPhases {
                gmii_rx: 1_300,
                gmii_tx: 6_100,
            },
            ClockPhases::seeded(5),
        ] {
            let memory = DmaSpace::new().expect("memory");
            let region = memory.alloc(256, 64).expect("room");
            region.set_device_access(true);
            let mut machine = mirror(phases, &memory);
            machine.wait_for_reset().expect("no fault");
            for i in 0..32u64 {
                let now = machine.now();
                machine
                    .rc
                    .post_memory_write(now, region.iova() + i * 7, &[i as u8; 7]);
            }
            machine.run_for(SimTime::from_us(150)).expect("no fault");
            let checked = machine.wire.endpoint.checker.counters();
            assert_eq!(
                (checked.good, checked.corrupt, checked.missing),
                (50, 0, 0),
                "{phases:?}"
            );
            let mut bytes = [0; 224];
            memory.device_read(region.iova(), &mut bytes).expect("mapped");
            assert!(
                bytes.iter().enumerate().all(|(i, &b)| usize::from(b) == i / 7),
                "{bytes:?}"
            );
            // Nobody enabled bus mastering: that, and nothing else, is wrong with the returned packets.
            let seen = machine.rc.violations.take();
            assert_eq!(seen.len(), 32, "{phases:?} {seen:?}");
            assert!(
                seen.iter()
                    .all(|s| matches!(s.violation, Violation::NotBusMaster(_))),
                "{seen:?}"
            );
        }
    }

    #[test]
    fn waves_end_where_they_should() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("mirror.fst");
        let memory = DmaSpace::new().expect("memory");
        let mut machine = mirror(ClockPhases::ALIGNED, &memory);
        machine
            .card_mut()
            .trace(&path, SimTime::from_us(5))
            .expect("waves");
        machine.run_for(SimTime::from_us(4)).expect("no fault");
        assert!(machine.card_mut().trace_until.is_some());
        machine.run_for(SimTime::from_us(4)).expect("no fault");
        assert!(machine.card_mut().trace_until.is_none());
        assert!(std::fs::metadata(&path).expect("a file").len() > 100);
    }
}
