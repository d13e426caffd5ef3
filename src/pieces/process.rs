//! Which process this is: threads do not survive a fork.

/// The number of this process; 0 where there is no fork.
pub(super) fn id() -> u32 {
    if cfg!(unix) { std::process::id() } else { 0 }
}
