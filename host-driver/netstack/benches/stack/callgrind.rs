//! Instructions, counted by valgrind's callgrind.

use std::collections::HashMap;
use std::process::Command;

/// Sizes of the two transfers in MiB. Both are long enough for windows and buffers to have grown.
const SIZES: [u64; 2] = [8, 24];
/// The function that stands for hardware.
const DMA: &str = "ours::dma";

/// Instructions for a segment in a mode, or why they cannot be counted.
pub fn per_segment(mode: &str) -> Result<f64, String> {
    let [small, large] = SIZES.map(|mib| count(mode, mib));
    let (small, large) = (small?, large?);
    let instructions = large.instructions.saturating_sub(small.instructions);
    Ok(instructions as f64 / large.segments.saturating_sub(small.segments).max(1) as f64)
}

struct Count {
    instructions: u64,
    segments: u64,
}

fn count(mode: &str, mib: u64) -> Result<Count, String> {
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    let out = std::env::temp_dir().join(format!("callgrind.{}.{mode}.{mib}", std::process::id()));
    let result = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(exe)
        .args(["run", mode, &mib.to_string()])
        .env(
            "GLIBC_TUNABLES",
            "glibc.cpu.x86_rep_movsb_threshold=1073741824:glibc.cpu.x86_rep_stosb_threshold=1073741824",
        )
        .output()
        .map_err(|e| format!("valgrind: {e}"))?;
    let profile = std::fs::read_to_string(&out);
    let _ = std::fs::remove_file(&out);
    if !result.status.success() {
        let stderr = String::from_utf8_lossy(&result.stderr);
        return Err(format!("valgrind: {}", stderr.lines().last().unwrap_or("failed")));
    }
    let profile = profile.map_err(|e| format!("{}: {e}", out.display()))?;
    let stdout = String::from_utf8_lossy(&result.stdout);
    let segments = stdout
        .lines()
        .find_map(|line| line.strip_prefix("segments ")?.parse().ok())
        .ok_or("valgrind: the run printed no segments")?;
    let (total, dma) = read(&profile).ok_or("valgrind: a profile of an unknown form")?;
    Ok(Count {
        instructions: total.saturating_sub(dma),
        segments,
    })
}

/// All instructions of a profile, and those in [`DMA`] with what it calls (valgrind's manual, Callgrind Format
/// Specification).
fn read(profile: &str) -> Option<(u64, u64)> {
    let mut names: HashMap<&str, bool> = HashMap::new();
    let (mut total, mut dma, mut callee_is_dma) = (None, 0, false);
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("cfn=").or_else(|| line.strip_prefix("fn=")) {
            // `(id) name` the first time, then `(id)`.
            let (id, name) = name.split_once(' ').unwrap_or((name, ""));
            let is_dma = *names.entry(id).or_insert_with(|| name.contains(DMA));
            callee_is_dma = line.starts_with("cfn=") && is_dma;
        } else if line.starts_with("calls=") {
            let cost = lines.next()?.split_whitespace().nth(1)?.parse::<u64>().ok()?;
            dma += if callee_is_dma { cost } else { 0 };
        } else if let Some(sum) = line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")) {
            total = sum.split_whitespace().next()?.parse().ok();
        }
    }
    Some((total?, dma))
}
