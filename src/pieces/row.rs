//! A row of numbered pieces of work, and a counter from which each thread takes the next piece.
//!
//! The thread that makes a call takes pieces, and so do the helpers that it has asked. A helper enters the
//! call by taking a piece. A helper that comes late finds no piece, and leaves without using any memory of the
//! caller's. The caller returns when all pieces are done. So it waits only for pieces that helpers have begun,
//! and never for a helper that does not come (a busy thread, or one that a fork has ended). It runs no other
//! work while it waits.
//!
//! One word, `state`, and the order of the accesses to it make this work.

#![allow(unsafe_code, reason = "what is borrowed from the caller is lent to other threads")]

use core::{any::Any, mem, time::Duration};
use std::{
    panic::{self, AssertUnwindSafe, RefUnwindSafe},
    sync::PoisonError,
};

use super::sync::{self, Arc, AtomicUsize, Condvar, Mutex, Ordering, Shared, Time};

/// The work on the pieces that one thread takes. It must take all pieces of the iterator.
pub(crate) type Body<'a> = dyn Fn(&mut dyn Iterator<Item = usize>) + Sync + 'a;

/// The threads that can be asked to help.
pub(crate) trait Crew {
    /// Asks one helper to come: to call [`Row::help`] once. It may come late or never.
    fn ask(&self, row: Arc<Row>);

    /// Whether helpers look for a next call for a while before they leave: see [`LINGER`].
    fn lingers(&self) -> bool;

    /// Whether other work waits for a helper that looks for a next call.
    fn has_other_work(&self) -> bool {
        false
    }
}

/// How long a helper looks for a next call of the same caller before it sleeps. Waking a thread costs the
/// next call about 30 microseconds (measured on Zen 3). A helper that looks for a little longer than that
/// costs at most about twice as much as the best choice would.
pub(super) const LINGER: Duration = Duration::from_micros(50);

/// The number of helpers that each thread asks, the caller as well as each helper. If the caller asked all of
/// them, which takes microseconds for each, it would begin late.
const FAN: usize = 2;

// The word `state`, from its lowest bit on: the number of helpers at work (10 bits), whether the caller
// sleeps (1 bit), the number of pieces that nobody has taken (the rest).
const HELPER: usize = 1;
const HELPERS: usize = (1 << 10) - 1;
const ASLEEP: usize = HELPERS + 1;
const PIECE: usize = 2 * ASLEEP;

/// The largest number of helpers of a call.
pub(crate) const MOST_HELPERS: usize = HELPERS;
/// The largest number of pieces of a call.
pub(crate) const MOST_PIECES: usize = usize::MAX / PIECE;

/// The description of a call, for its helpers.
#[derive(Clone, Copy)]
struct Call {
    pieces: usize,
    /// `None` between calls. It lives until the call ends, and no longer.
    body: Option<*const Body<'static>>,
}

/// The memory that a caller shares with its helpers. Each caller has one and uses it for all its calls. If a
/// helper is late, it outlives the caller.
pub(crate) struct Row {
    state: AtomicUsize,
    /// Helpers that were asked and have not looked yet, and those that linger. They will look at
    /// `state`, so a call needs to ask that many fewer, and a pool whose threads are all busy does not
    /// collect requests.
    coming: AtomicUsize,
    /// Helpers that are still to be asked in this call.
    wanted: AtomicUsize,
    /// Written by the owner while no piece is left and no helper is at work; read by helpers at work.
    call: Shared<Call>,
    /// The first panic of a helper in this call. Also the mutex with which the caller waits on `ended`.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    ended: Condvar,
}

// SAFETY: only `call` is not `Send` and `Sync` by itself. Its pointer is to a `Body`, which is `Sync` and so may be
// used by several threads. `Owner` writes it while no helper may read it (no piece is left and none is at work), and
// helpers read it while it is not written (they are at work).
unsafe impl Send for Row {}
// SAFETY: as above.
unsafe impl Sync for Row {}

// A panic leaves the row consistent: a call that unwinds ends as others do.
impl RefUnwindSafe for Row {}

/// The right to make calls on a row: one for each row, and so one call at a time.
pub(crate) struct Owner(Arc<Row>);

impl Owner {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Row {
            state: AtomicUsize::new(0),
            coming: AtomicUsize::new(0),
            wanted: AtomicUsize::new(0),
            call: Shared::new(Call { pieces: 0, body: None }),
            panic: Mutex::new(None),
            ended: Condvar::new(),
        }))
    }

    /// Does `pieces` pieces of work, on this thread and on up to `helpers` others. Each thread that takes
    /// part calls `body` with the numbers it takes, in ascending order.
    ///
    /// # Panics
    ///
    /// With the panic of a body. Pieces that nobody had begun are left undone then.
    pub(crate) fn call(&mut self, pieces: usize, helpers: usize, crew: &dyn Crew, body: &Body<'_>) {
        let opened = Opened::new(self, pieces, body);
        let row = opened.0;
        // A helper that is counted here will look at `state` later than it was opened, see `help`.
        let coming = row.coming.load(Ordering::SeqCst);
        row.wanted.store(helpers.saturating_sub(coming), Ordering::Relaxed);
        Row::ask(row, crew);
        let done = panic::catch_unwind(AssertUnwindSafe(|| {
            body(&mut Numbers { row, pieces, first: None });
        }));
        drop(opened);
        let helper = row.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = done.err().or(helper) {
            panic::resume_unwind(panic);
        }
    }
}

/// A call that helpers can enter. Dropping it ends the call, also when the thread unwinds.
struct Opened<'a>(&'a Arc<Row>);

impl<'a> Opened<'a> {
    fn new(owner: &'a mut Owner, pieces: usize, body: &'a Body<'_>) -> Self {
        let row = &owner.0;
        assert!(pieces <= MOST_PIECES, "{pieces} pieces in a call");
        // SAFETY: only the lifetime changes, which the pointer would outlive: it is followed by helpers
        // at work alone, and `drop` does not return before they have left.
        let body: *const Body<'static> = unsafe { mem::transmute(core::ptr::from_ref(body)) };
        // SAFETY: `owner` is borrowed, so this is its only call, and nobody else writes. No helper
        // reads: none is at work, and none can enter, since no piece is left before the next line.
        unsafe { row.call.set(Call { pieces, body: Some(body) }) };
        // Release: who takes a piece sees the call. SeqCst: in order with `coming`, see `call`.
        row.state.store(pieces * PIECE, Ordering::SeqCst);
        Self(row)
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        let row = self.0;
        // No piece is left unless a body panicked. From here on, nobody can enter.
        row.state.fetch_and(HELPERS, Ordering::Relaxed);
        // Acquire: what helpers wrote before they left is seen by the caller.
        let is_over = || row.state.load(Ordering::Acquire) & HELPERS == 0;
        let mut round = 0;
        while !is_over() && sync::pause(round) {
            round += 1;
        }
        if !is_over() {
            let mut lock = row.panic.lock().unwrap_or_else(PoisonError::into_inner);
            row.state.fetch_or(ASLEEP, Ordering::Relaxed);
            while !is_over() {
                lock = row.ended.wait(lock).unwrap_or_else(PoisonError::into_inner);
            }
            row.state.fetch_and(!ASLEEP, Ordering::Relaxed);
        }
        row.wanted.store(0, Ordering::Relaxed);
        // SAFETY: no helper is at work and none can enter, so nobody else reads or writes.
        unsafe { row.call.set(Call { pieces: 0, body: None }) };
    }
}

impl Row {
    /// The work of a helper: it takes pieces until none is left. It returns at once if it comes too late. It does not
    /// panic.
    pub(crate) fn help(row: &Arc<Self>, crew: &dyn Crew) {
        let mut helped: Option<Time> = None;
        loop {
            // In this order, as in `call` the opposite one (SeqCst): a call that counted this helper
            // among those that come is seen by it.
            row.coming.fetch_sub(1, Ordering::SeqCst);
            while Self::take_part(row, crew) {
                helped = Some(Time::now());
            }
            let lingers = || helped.is_some_and(|time| time.is_within(LINGER));
            if !crew.lingers() || crew.has_other_work() || !lingers() {
                return;
            }
            row.coming.fetch_add(1, Ordering::SeqCst);
            while row.state.load(Ordering::Relaxed) < PIECE && !crew.has_other_work() && lingers() {
                sync::linger_a_moment();
            }
        }
    }

    /// Takes pieces until none is left; false if there was none to begin with.
    fn take_part(row: &Arc<Self>, crew: &dyn Crew) -> bool {
        // Acquire: with a piece, this thread sees the call that the piece belongs to.
        let entered = row.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |state| {
            let has_room = state & HELPERS < HELPERS;
            if has_room { state.checked_sub(PIECE).map(|state| state + HELPER) } else { None }
        });
        let Ok(state) = entered else { return false };
        // SAFETY: this helper is at work, so the owner does not write before it has left.
        let Call { pieces, body } = unsafe { row.call.get() };
        let done = panic::catch_unwind(AssertUnwindSafe(|| {
            Self::ask(row, crew);
            if let Some(body) = body {
                // SAFETY: the caller's `Body`, which it keeps alive until this helper has left.
                let body = unsafe { &*body };
                body(&mut Numbers { row, pieces, first: Some(pieces - state / PIECE) });
            }
        }));
        if let Err(panic) = done {
            // Nobody begins another piece.
            row.state.fetch_and(PIECE - 1, Ordering::Relaxed);
            let mut first = row.panic.lock().unwrap_or_else(PoisonError::into_inner);
            match *first {
                None => *first = Some(panic),
                // Dropping what was thrown could panic.
                Some(_) => mem::forget(panic),
            }
        }
        // Release: the caller sees what this thread wrote. From here on, nothing of the caller's is
        // touched but the row, which this thread shares.
        let state = row.state.fetch_sub(HELPER, Ordering::Release);
        if state & ASLEEP != 0 && state & HELPERS == HELPER {
            // The caller holds the lock from before it set `ASLEEP` until it waits.
            let _lock = row.panic.lock().unwrap_or_else(PoisonError::into_inner);
            row.ended.notify_one();
        }
        true
    }

    /// Asks some of the helpers that are still to be asked.
    fn ask(row: &Arc<Self>, crew: &dyn Crew) {
        for _ in 0..FAN {
            let is_of_use = row.state.load(Ordering::Relaxed) >= PIECE;
            let one_fewer = |wanted: usize| wanted.checked_sub(1);
            let order = Ordering::Relaxed;
            if !is_of_use || row.wanted.fetch_update(order, order, one_fewer).is_err() {
                return;
            }
            row.coming.fetch_add(1, Ordering::SeqCst);
            crew.ask(Arc::clone(row));
        }
    }
}

/// The numbers of the pieces that one thread takes.
struct Numbers<'a> {
    row: &'a Row,
    pieces: usize,
    /// The piece by which a helper entered.
    first: Option<usize>,
}

impl Iterator for Numbers<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let first = self.first.take();
        first.or_else(|| {
            // Relaxed: this thread sees the call already.
            let order = Ordering::Relaxed;
            let fewer = |state: usize| state.checked_sub(PIECE);
            let state = self.row.state.fetch_update(order, order, fewer).ok()?;
            Some(self.pieces - state / PIECE)
        })
    }
}
