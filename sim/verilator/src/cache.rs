//! Where built models are kept, and how two processes that want the same one stay out of each other's way.

use std::{
    env,
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::Error;

/// How many models this machine builds at once, over all processes.
const BUILD_SLOTS: usize = 2;

/// Cargo's target directory: the one the running program lies in, else `CARGO_TARGET_DIR`, else `target`
/// beside the workspace's `Cargo.lock`, else a directory for temporary files.
#[must_use]
pub fn target_directory() -> PathBuf {
    let executable = env::current_exe().unwrap_or_default();
    if let Some(found) = executable
        .ancestors()
        .find(|path| path.join("CACHEDIR.TAG").is_file())
    {
        return found.to_path_buf();
    }
    if let Some(directory) = env::var_os("CARGO_TARGET_DIR") {
        return directory.into();
    }
    let here = env::current_dir().unwrap_or_default();
    match here.ancestors().find(|path| path.join("Cargo.lock").is_file()) {
        Some(workspace) => workspace.join("target"),
        None => env::temp_dir().join("hematite"),
    }
}

/// The default cache directory, `target/verilated`.
#[must_use]
pub fn default_directory() -> PathBuf {
    target_directory().join("verilated")
}

/// The first 16 hexadecimal digits of a SHA-256 over parts that cannot run into each other.
pub(crate) fn key<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn lock_file(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(Error::io(path))
}

/// Returns `directory/name`, building it first when it is not there.
///
/// `build` fills an empty directory, which is renamed into place only when it is complete: a reader never sees
/// half of an entry, and a killed build leaves nothing that could be taken for one.
pub(crate) fn entry(
    directory: &Path,
    name: &str,
    build: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<PathBuf, Error> {
    let done = directory.join(name);
    if done.is_dir() {
        return Ok(done);
    }
    fs::create_dir_all(directory).map_err(Error::io(directory))?;
    // One builder per entry ...
    let lock_path = directory.join(format!("{name}.lock"));
    let lock = lock_file(&lock_path)?;
    lock.lock().map_err(Error::io(&lock_path))?;
    if done.is_dir() {
        return Ok(done);
    }
    // ... into a directory of its own. What a killed builder left there is ours to remove: we hold its lock.
    let work = directory.join(format!("{name}.tmp"));
    match fs::remove_dir_all(&work) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(&work)(error)),
        _ => {}
    }
    fs::create_dir(&work).map_err(Error::io(&work))?;
    if let Err(error) = build(&work) {
        // The error counts, not whether the rest could be removed: the next builder tries again.
        let _ = fs::remove_dir_all(&work);
        return Err(error);
    }
    fs::rename(&work, &done).map_err(Error::io(&done))?;
    Ok(done)
}

/// Holds one of the machine's [`BUILD_SLOTS`]; waits for it. Given back on drop.
///
/// Taken only around one compiler run and never while waiting for another entry, so builders cannot deadlock.
pub(crate) fn build_slot(directory: &Path) -> Result<File, Error> {
    let mut slots = Vec::with_capacity(BUILD_SLOTS);
    for slot in 0..BUILD_SLOTS {
        let path = directory.join(format!("build-slot-{slot}.lock"));
        let file = lock_file(&path)?;
        if file.try_lock().is_ok() {
            return Ok(file);
        }
        slots.push((path, file));
    }
    let (path, file) = slots.swap_remove(std::process::id() as usize % BUILD_SLOTS);
    file.lock().map_err(Error::io(&path))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[test]
    fn builders_of_one_entry_build_it_once() -> Result<(), Box<dyn std::error::Error>> {
        // File locks hold between the handles of one process as between processes.
        let directory = tempfile::tempdir()?;
        let (start, built) = (Barrier::new(4), AtomicUsize::new(0));
        let build = || {
            start.wait();
            entry(directory.path(), "model", |work| {
                built.fetch_add(1, Ordering::Relaxed);
                let _slot = build_slot(directory.path())?;
                fs::write(work.join("file"), "whole").map_err(Error::io(work))
            })
        };
        std::thread::scope(|scope| {
            let builders: Vec<_> = (0..4).map(|_| scope.spawn(build)).collect();
            for builder in builders {
                let path = builder.join().map_err(|_| "a builder panicked")??;
                assert_eq!(fs::read_to_string(path.join("file"))?, "whole");
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        assert_eq!(built.load(Ordering::Relaxed), 1);
        Ok(())
    }

    #[test]
    fn a_failed_build_leaves_no_entry() -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let failed = entry(directory.path(), "model", |work| {
            fs::write(work.join("half"), "").map_err(Error::io(work))?;
            Err(Error::NotFound)
        });
        assert!(failed.is_err() && !directory.path().join("model").exists());
        let path = entry(directory.path(), "model", |_| Ok(()))?;
        assert!(
            path.is_dir() && !path.join("half").exists(),
            "what the failed build left is gone"
        );
        Ok(())
    }

    #[test]
    fn keys_depend_on_where_parts_end() {
        assert_ne!(key([b"ab".as_slice(), b"c"]), key([b"a".as_slice(), b"bc"]));
    }
}
