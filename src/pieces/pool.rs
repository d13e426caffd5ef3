//! Threads of adamant's own.

use core::fmt;
use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use super::{
    caller::Caller,
    process,
    row::{Crew, MOST_HELPERS, Row},
};
use crate::Error;

/// Threads of adamant's own, which do nothing but steps.
///
/// A pool of `n` threads begins `n - 1`: the calling thread is the other one. Any number of threads may
/// use a pool at once; they share its threads. Between calls its threads sleep, after they have looked
/// for a next call for 50 microseconds.
///
/// In a child of `fork` the threads are gone. There the pool has one thread, the calling one, and calls
/// run on it; a pool that is made in the child has threads.
///
/// Dropping a pool ends its threads.
pub struct Pool {
    board: Arc<Board>,
    threads: Vec<JoinHandle<()>>,
    /// The process that has the threads.
    process: u32,
}

/// The most threads of a pool.
const MOST_THREADS: usize = MOST_HELPERS + 1;

impl Pool {
    /// Begins the threads of a pool of `threads` threads, the calling one among them: 1 to 1024.
    ///
    /// # Errors
    ///
    /// [`Error::ThreadCount`] if `threads` is out of range, [`Error::NoThreads`] if the system refuses a
    /// thread; those that were begun are ended.
    pub fn new(threads: usize) -> Result<Self, Error> {
        if !(1..=MOST_THREADS).contains(&threads) {
            return Err(Error::ThreadCount { threads, most: MOST_THREADS });
        }
        let board = Arc::new(Board::new());
        let mut pool = Self { board, threads: Vec::new(), process: process::id() };
        for number in 1..threads {
            let board = Arc::clone(&pool.board);
            let thread = thread::Builder::new().name(format!("adamant-{number}"));
            match thread.spawn(move || Board::serve(&board)) {
                Ok(thread) => pool.threads.push(thread),
                Err(error) => return Err(Error::NoThreads { threads, reason: error.to_string() }),
            }
        }
        Ok(pool)
    }

    /// The number of threads, the calling one among them: as asked for, or 1 in a child of `fork`.
    pub fn threads(&self) -> usize {
        if self.is_of_this_process() { self.started() } else { 1 }
    }

    /// The number of threads in the process that has them, the calling one among them.
    pub(super) fn started(&self) -> usize {
        self.threads.len() + 1
    }

    fn is_of_this_process(&self) -> bool {
        self.process == process::id()
    }

    pub(super) fn crew(&self) -> &impl Crew {
        &self.board
    }

    /// What a caller needs, from its last call or new; `None` in a child of `fork`, where a thread that is
    /// gone may hold the lock.
    pub(super) fn take_caller(&self) -> Option<Caller> {
        if !self.is_of_this_process() {
            return None;
        }
        let kept = self.board.lock().callers.pop();
        Some(kept.unwrap_or_else(Caller::new))
    }

    pub(super) fn keep_caller(&self, caller: Caller) {
        self.board.lock().callers.push(caller);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let threads = mem::take(&mut self.threads);
        if !self.is_of_this_process() {
            // Handles of threads that are gone must not be touched, nor a lock that they may hold.
            mem::forget(threads);
            return;
        }
        self.board.lock().is_closed = true;
        self.board.news.notify_all();
        for thread in threads {
            // They do not panic; if one did, there would be nothing to do about it.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

/// Where the threads of a pool find work.
struct Board {
    state: Mutex<State>,
    news: Condvar,
    /// The length of `requests`, for those who only look.
    posted: AtomicUsize,
}

struct State {
    requests: VecDeque<Arc<Row>>,
    /// For the next calls.
    callers: Vec<Caller>,
    /// Threads that sleep.
    asleep: usize,
    is_closed: bool,
}

impl Board {
    fn new() -> Self {
        let requests = VecDeque::new();
        let state = State { requests, callers: Vec::new(), asleep: 0, is_closed: false };
        Self { state: Mutex::new(state), news: Condvar::new(), posted: AtomicUsize::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each thread does, until the board is closed.
    fn serve(self: &Arc<Self>) {
        while let Some(row) = self.next() {
            Row::help(&row, self);
        }
    }

    fn next(&self) -> Option<Arc<Row>> {
        let mut state = self.lock();
        loop {
            if state.is_closed {
                return None;
            }
            if let Some(row) = state.requests.pop_front() {
                self.posted.store(state.requests.len(), Ordering::Relaxed);
                return Some(row);
            }
            state.asleep += 1;
            state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.asleep -= 1;
        }
    }
}

impl Crew for Arc<Board> {
    fn ask(&self, row: Arc<Row>) {
        let mut state = self.lock();
        state.requests.push_back(row);
        self.posted.store(state.requests.len(), Ordering::Relaxed);
        let is_heard = state.asleep > 0;
        drop(state);
        if is_heard {
            self.news.notify_one();
        }
    }

    fn lingers(&self) -> bool {
        true
    }

    fn has_other_work(&self) -> bool {
        self.posted.load(Ordering::Relaxed) > 0
    }
}
