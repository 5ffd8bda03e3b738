//! Instructions, counted by valgrind's callgrind, and the file that results go to. For the driver's benchmark too.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// Sizes of the two transfers in MiB. Both are long enough for windows and buffers to have grown.
const SIZES: [u64; 2] = [8, 24];

/// Instructions for a segment in a mode, but for those in the functions of the names `except` (`*` is anything), which do
/// not call each other, and in what these call; or why they cannot be counted.
pub fn per_segment(mode: &str, except: &[&str]) -> Result<f64, String> {
    let [small, large] = SIZES.map(|mib| count(mode, mib, except));
    let (small, large) = (small?, large?);
    let instructions = large.instructions.saturating_sub(small.instructions);
    Ok(instructions as f64 / large.segments.saturating_sub(small.segments).max(1) as f64)
}

struct Count {
    instructions: u64,
    segments: u64,
}

fn count(mode: &str, mib: u64, except: &[&str]) -> Result<Count, String> {
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    let out = std::env::temp_dir().join(format!("callgrind.{}.{mode}.{mib}", std::process::id()));
    let result = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .args(except.iter().map(|name| format!("--toggle-collect={name}")))
        // Behind those, which say otherwise: counting begins outside of them.
        .arg("--collect-atstart=yes")
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
    Ok(Count {
        instructions: total(&profile).ok_or("valgrind: a profile of an unknown form")?,
        segments,
    })
}

/// All instructions of a profile (valgrind's manual, Callgrind Format Specification).
fn total(profile: &str) -> Option<u64> {
    let sum = |line: &str| -> Option<u64> {
        let sum = line.strip_prefix("totals: ").or(line.strip_prefix("summary: "))?;
        sum.split_whitespace().next()?.parse().ok()
    };
    profile.lines().filter_map(sum).next_back()
}

/// Changes the summary of all benchmarks in the directory `out`; its path.
pub fn leave(out: &Path, change: impl FnOnce(&mut Value)) -> Result<PathBuf, String> {
    let path = out.join("summary.json");
    let error = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let mut summary = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| error(&e))?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => json!({}),
        Err(e) => return Err(error(&e)),
    };
    change(&mut summary);
    std::fs::create_dir_all(out).map_err(|e| error(&e))?;
    std::fs::write(&path, format!("{summary:#}\n")).map_err(|e| error(&e))?;
    Ok(path)
}
