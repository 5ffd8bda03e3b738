//! Writes the inputs that the targets begin with into `corpus/`, where cargo-fuzz looks for them.

use std::path::Path;

fn main() -> std::io::Result<()> {
    for (target, seeds) in hematite_netstack_fuzz::seeds() {
        let directory = Path::new("corpus").join(target);
        std::fs::create_dir_all(&directory)?;
        for (n, seed) in seeds.iter().enumerate() {
            std::fs::write(directory.join(format!("seed-{n}")), seed)?;
        }
    }
    Ok(())
}
