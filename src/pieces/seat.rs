//! The place of a caller in a pool, for the time of a call.

#[cfg(feature = "rayon")]
use super::in_rayon;
use super::{caller::Caller, pool::Pool, row::Body};

/// A [`Caller`], and the pool that it is kept for. Dropping the seat keeps it for the next call.
pub(super) struct Seat<'a> {
    /// `None` once it was given back.
    caller: Option<Caller>,
    home: Home<'a>,
}

enum Home<'a> {
    Pool(&'a Pool),
    #[cfg(feature = "rayon")]
    Rayon,
}

impl<'a> Seat<'a> {
    /// `None` in a child of `fork`.
    pub(super) fn in_pool(pool: &'a Pool) -> Option<Self> {
        let caller = pool.take_caller()?;
        Some(Self { caller: Some(caller), home: Home::Pool(pool) })
    }

    #[cfg(feature = "rayon")]
    pub(super) fn in_rayon() -> Self {
        Self { caller: Some(in_rayon::take_caller()), home: Home::Rayon }
    }

    /// The number of helpers that a call is worth.
    pub(super) fn begin(&mut self, elements: usize) -> usize {
        let Some(caller) = &mut self.caller else { return 0 };
        match self.home {
            Home::Pool(pool) => caller.begin(elements, |_| pool.started()),
            #[cfg(feature = "rayon")]
            Home::Rayon => caller.begin(elements, in_rayon::threads),
        }
    }

    /// Does the work, with up to so many helpers.
    pub(super) fn call(&mut self, pieces: usize, helpers: usize, body: &Body<'_>) {
        let Some(caller) = &mut self.caller else { return };
        match self.home {
            Home::Pool(pool) => caller.owner.call(pieces, helpers, pool.crew(), body),
            #[cfg(feature = "rayon")]
            Home::Rayon => caller.owner.call(pieces, helpers, &in_rayon::Workers::new(), body),
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let Some(mut caller) = self.caller.take() else { return };
        caller.end();
        match self.home {
            Home::Pool(pool) => pool.keep_caller(caller),
            #[cfg(feature = "rayon")]
            Home::Rayon => in_rayon::keep_caller(caller),
        }
    }
}
