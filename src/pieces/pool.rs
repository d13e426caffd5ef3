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
    affinity::{Cpus, Thread},
    caller::Caller,
    process,
    row::{Crew, MOST_HELPERS, Row},
};
use crate::Error;

/// Threads that adamant starts for its calls.
///
/// A pool of `n` threads starts `n - 1` threads: the calling thread is the other one. Several threads may use a
/// pool at the same time; they share its threads. After a call, the pool's threads look for a next call for
/// 50 microseconds, and then sleep. On Linux, a thread that is woken starts on another CPU than the caller's: its
/// affinity is without that one until it runs.
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
        pool.board.lock().beds.reserve(threads - 1);
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
        self.board.close();
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
    /// The length of `requests`, to be read without the lock.
    posted: AtomicUsize,
}

struct State {
    requests: VecDeque<Arc<Row>>,
    /// For the next calls.
    callers: Vec<Caller>,
    /// Of the threads that sleep.
    beds: Vec<Arc<Bed>>,
    is_closed: bool,
}

/// Where a thread sleeps.
struct Bed {
    alarm: Condvar,
    thread: Thread,
    /// The CPUs that the thread may use again once it runs. Used by whoever has the lock of the state.
    kept_off: Mutex<Option<Cpus>>,
}

impl Bed {
    fn new() -> Self {
        Self { alarm: Condvar::new(), thread: Thread::current(), kept_off: Mutex::new(None) }
    }

    fn kept_off(&self) -> MutexGuard<'_, Option<Cpus>> {
        self.kept_off.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until it is woken, or by chance for a shorter time.
    fn sleep<'s>(self: &Arc<Self>, mut state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        state.beds.push(Arc::clone(self));
        state = self.alarm.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.beds.retain(|bed| !Arc::ptr_eq(bed, self));
        if let Some(cpus) = self.kept_off().take() {
            cpus.allow();
        }
        state
    }

    /// Wakes the thread on another CPU than this one.
    fn wake(&self, state: MutexGuard<'_, State>) {
        // With the lock, so that the thread does not run before.
        if let Some(cpus) = self.thread.keep_off_this_cpu() {
            *self.kept_off() = Some(cpus);
        }
        drop(state);
        self.alarm.notify_one();
    }
}

impl Board {
    fn new() -> Self {
        let requests = VecDeque::new();
        let (callers, beds) = (Vec::new(), Vec::new());
        let state = State { requests, callers, beds, is_closed: false };
        Self { state: Mutex::new(state), posted: AtomicUsize::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The main function of each thread: helps until the board is closed.
    fn serve(self: &Arc<Self>) {
        let bed = Arc::new(Bed::new());
        while let Some(row) = self.next(&bed) {
            Row::help(&row, self);
        }
    }

    /// Ends the threads.
    fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        for bed in &state.beds {
            bed.alarm.notify_one();
        }
    }

    fn next(&self, bed: &Arc<Bed>) -> Option<Arc<Row>> {
        let mut state = self.lock();
        loop {
            if state.is_closed {
                return None;
            }
            if let Some(row) = state.requests.pop_front() {
                self.posted.store(state.requests.len(), Ordering::Relaxed);
                return Some(row);
            }
            state = bed.sleep(state);
        }
    }
}

impl Crew for Arc<Board> {
    fn ask(&self, row: Arc<Row>) {
        let mut state = self.lock();
        state.requests.push_back(row);
        self.posted.store(state.requests.len(), Ordering::Relaxed);
        if let Some(bed) = state.beds.pop() {
            bed.wake(state);
        }
    }

    fn lingers(&self) -> bool {
        true
    }

    fn has_other_work(&self) -> bool {
        self.posted.load(Ordering::Relaxed) > 0
    }
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use std::{
        sync::{Arc, mpsc},
        thread,
    };

    use super::{Bed, Board, Cpus, Thread};

    #[test]
    fn a_thread_that_is_woken_is_kept_off_the_callers_cpu() {
        let board = Board::new();
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        // It does not sleep in its bed, and so does not allow itself all CPUs again.
        let other = thread::spawn(move || {
            let _ = tell.send(Arc::new(Bed::new()));
            let _ = ended.recv();
        });
        let bed = told.recv().expect("a bed");
        bed.wake(board.lock());
        let has_other_cpus = Thread::current().keep_off_this_cpu().map(Cpus::allow).is_some();
        assert_eq!(bed.kept_off().is_some(), has_other_cpus);
        drop(end);
        other.join().expect("a thread that ends");
    }
}
