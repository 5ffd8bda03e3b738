//! What can be generated, by name.

use anyhow::{Result, anyhow};
use hematite_lang::{Design, elaborate, prelude::*};
use hematite_nic::card;

/// One parameter of a configuration, as the report shows it.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// As the RTL calls it.
    pub name: &'static str,
    /// With its unit.
    pub value: String,
    /// What it decides.
    pub meaning: &'static str,
}

/// One register, or field of a structure, that software sees.
#[derive(Debug, Clone)]
pub struct Field {
    /// Bytes from the start of its block.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
    /// As its specification calls it.
    pub name: String,
    /// `RO`, `RW`, `WO`, `RC`.
    pub access: &'static str,
    /// What it holds.
    pub meaning: String,
}

/// Registers that lie together.
#[derive(Debug, Clone)]
pub struct RegisterBlock {
    /// What they are, and the section that defines them.
    pub title: String,
    /// Where they are: BAR and offset.
    pub place: String,
    /// The registers, by offset.
    pub fields: Vec<Field>,
}

/// Something to generate.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// Its name on the command line, and its top module's with `_` for `-`.
    pub name: &'static str,
    /// What it is, in one line.
    pub summary: &'static str,
    /// What was chosen for it.
    pub parameters: Vec<Parameter>,
    /// What software sees of it.
    pub registers: Vec<RegisterBlock>,
    /// Makes the design.
    pub elaborate: fn() -> Result<Design>,
}

/// Bytes of stack for making a design: a card with eight pairs of queues is a value of several MiB.
const STACK: usize = 256 << 20;

fn design<B: Block + Default>(name: &'static str) -> Result<Design> {
    let work = move || elaborate(&B::default(), name).map_err(|errors| anyhow!("{errors}"));
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(work)?;
    thread
        .join()
        .map_err(|_| anyhow!("elaboration of `{name}` panicked"))?
}

/// Everything there is to generate.
#[must_use]
pub fn configurations() -> Vec<Configuration> {
    vec![
        card(
            "card",
            "the whole card: GMII, two pairs of queues, PCIe at TLP level",
            2,
            || design::<card!(MAC_ADDRESS, 2)>("card"),
        ),
        card("card-1", "the same with one pair of queues", 1, || {
            design::<card!(MAC_ADDRESS, 1)>("card_1")
        }),
        card("card-4", "the same with four pairs of queues", 4, || {
            design::<card!(MAC_ADDRESS, 4)>("card_4")
        }),
        card(
            "card-8",
            "the same with eight pairs of queues, the most",
            8,
            || design::<card!(MAC_ADDRESS, 8)>("card_8"),
        ),
        Configuration {
            name: "packet-fifo",
            summary: "the packet queue in block RAM alone, 512 beats: what it costs and how fast it is",
            parameters: vec![Parameter {
                name: "A",
                value: "9".into(),
                meaning: "2^A beats of 64 data bits, keep, last and error",
            }],
            registers: Vec::new(),
            elaborate: || design::<BlockFifo<Beat, 9>>("packet_fifo"),
        },
    ]
}

/// The card's MAC address as a number, its first octet lowest: 02:48:65:6d:61:31, locally administered.
const MAC_ADDRESS: u64 = 0x3161_6d65_4802;

/// One gigabit port and `pairs` pairs of queues.
fn card(
    name: &'static str,
    summary: &'static str,
    pairs: usize,
    elaborate: fn() -> Result<Design>,
) -> Configuration {
    let parameter = |name, value: String, meaning| Parameter { name, value, meaning };
    Configuration {
        name,
        summary,
        parameters: vec![
            parameter(
                "MAC",
                format!("{MAC_ADDRESS:#014x}"),
                "MAC address, first octet in the lowest bits",
            ),
            parameter("PAIRS", pairs.to_string(), "receive queues, and transmit queues"),
            parameter(
                "MAX_FRAME",
                card::MAX_FRAME.to_string(),
                "bytes with FCS, the longest frame received; a VLAN tag may add 4",
            ),
            parameter(
                "READ_TIMEOUT",
                card::READ_TIMEOUT.to_string(),
                "cycles that a DMA read waits",
            ),
            parameter(
                "USED_HOLD",
                card::USED_HOLD.to_string(),
                "cycles that a used descriptor waits for company",
            ),
            parameter(
                "EVENT_INTERVAL",
                card::EVENT_INTERVAL.to_string(),
                "cycles between looks at event suppression",
            ),
        ],
        registers: crate::bar_0_blocks(),
        elaborate,
    }
}
