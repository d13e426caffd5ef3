//! The id of the process, to notice a fork, which threads do not survive.

/// The id of this process; 0 on systems without `fork`.
pub(super) fn id() -> u32 {
    if cfg!(unix) { std::process::id() } else { 0 }
}
