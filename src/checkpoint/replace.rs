//! Files that are replaced as a whole.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Writes a file so that a crash leaves either the old file or the whole new one.
///
/// `write` gets the path of another file in the same folder, which it creates and fills. Then that file is
/// flushed to disk and renamed to `path`. If `write` fails, its file is removed, and the file at `path` is as
/// it was.
///
/// [`save`](super::save) uses this. Use it for checkpoints of other formats.
///
/// # Examples
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("settings.json");
/// adamant::checkpoint::replace_file(&path, |unfinished| std::fs::write(unfinished, "{}"))?;
/// assert_eq!(std::fs::read_to_string(&path)?, "{}");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// The error of `write`, or that of the system. Usually `path` has the old file then. If only the last operation fails,
/// which flushes the new name to disk (on Unix), `path` already has the new file, but a crash may bring the old one
/// back.
pub fn replace_file<E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    // Threads that save to one path at the same time write different files.
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}-{call}.unfinished", std::process::id()));
    let unfinished = PathBuf::from(unfinished);
    let written = write(&unfinished).and_then(|()| {
        // Windows flushes a file to disk only if it was opened for writing.
        File::options().write(true).open(&unfinished)?.sync_all()?;
        Ok(fs::rename(&unfinished, path)?)
    });
    if written.is_err() {
        // The first error is the one to report, also if the file cannot be removed.
        let _ = fs::remove_file(&unfinished);
        return written;
    }
    Ok(sync_folder(path)?)
}

/// Flushes the new name of a file to disk, too.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}
