//! The Verilated card, elaborated and compiled by this crate's build script.
//!
//! With the feature `waves` (on unless told) the model can write FST files; that costs 6 to 9 % of speed.

hematite_verilator::linked_model!(
    /// The model. Every instance is a card of its own.
    pub fn card = hematite_model_card
);

#[cfg(test)]
mod tests {
    #[test]
    fn the_linked_model_runs() -> Result<(), hematite_verilator::Error> {
        let mut model = super::card().instantiate(1)?;
        assert!(!model.ports().is_empty());
        model.eval()
    }
}
