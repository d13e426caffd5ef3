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

/// Threads that adamant starts for its calls.
///
/// A pool of `n` threads starts `n - 1` threads: the calling thread is the other one. Several threads may use a
/// pool at the same time; they share its threads. After a call, the pool's threads look for a next call for
/// 50 microseconds, and then sleep.
///
/// In a child of `fork`, the threads are gone, and calls run on the calling thread alone. A pool that is made
/// in the child has threads.
///
/// Dropping a pool ends its threads.
pub struct Pool {
    board: Arc<Board>,
    threads: Vec<JoinHandle<()>>,
    /// The process that has the threads.
    process: u32,
}

/// The largest number of threads of a pool.
const MOST_THREADS: usize = MOST_HELPERS + 1;

impl Pool {
    /// Makes a pool of 1 to 1024 threads, including the calling one, and starts its threads.
    ///
    /// # Errors
    ///
    /// [`Error::ThreadCount`] if `threads` is out of range, [`Error::NoThreads`] if the system refuses a
    /// thread. The threads that were started are ended then.
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

    /// The number of threads, including the calling one; 1 in a child of `fork`.
    pub fn threads(&self) -> usize {
        if self.is_of_this_process() { self.started() } else { 1 }
    }

    /// The number of threads in the process that made the pool, including the calling one.
    pub(super) fn started(&self) -> usize {
        self.threads.len() + 1
    }

    fn is_of_this_process(&self) -> bool {
        self.process == process::id()
    }

    pub(super) fn crew(&self) -> &impl Crew {
        &self.board
    }

    /// A caller that was kept, or a new one; `None` in a child of `fork`, where a thread that is gone may
    /// hold the lock.
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
            // The threads are gone. Their handles must not be used, nor a lock that they may hold.
            mem::forget(threads);
            return;
        }
        self.board.lock().is_closed = true;
        self.board.news.notify_all();
        for thread in threads {
            // The threads do not panic. If one did, nothing could be done about it here.
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
    /// The length of `requests`, to be read without the lock.
    posted: AtomicUsize,
}

struct State {
    requests: VecDeque<Arc<Row>>,
    /// For the next calls.
    callers: Vec<Caller>,
    /// The number of threads that sleep.
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

    /// The main function of each thread: helps until the board is closed.
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
