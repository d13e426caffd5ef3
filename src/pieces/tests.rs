//! Sharing, as the layers above see it.

#![allow(clippy::unwrap_used, reason = "tests")]

#[cfg(all(target_os = "linux", not(miri)))]
mod outside;

use core::{
    iter,
    ops::Range,
    sync::atomic::{AtomicU8, AtomicUsize, Ordering},
};
use std::{
    panic::{self, AssertUnwindSafe},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use super::{LEAST_SHARED, Pool, run, run_in_batches, run_indexed};
use crate::exec::{Exec, RunTasks, Threads};

/// New threads for each call.
struct NewThreads(usize);

impl RunTasks for NewThreads {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        thread::scope(|scope| {
            for number in 0..tasks {
                scope.spawn(move || task(number));
            }
        });
    }
}

/// Tasks that are never run, and one that is.
struct Lazy;

impl RunTasks for Lazy {
    fn threads(&self) -> usize {
        8
    }

    fn run(&self, _tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        task(3);
        task(3);
    }
}

/// Checks a claim for each way to share.
fn each_way(check: &dyn Fn(Threads<'_>)) {
    check(Threads::Serial);
    // Miri does not run rayon.
    if !cfg!(miri) {
        check(Threads::Rayon);
    }
    for threads in if cfg!(miri) { 1..=3 } else { 1..=5 } {
        let pool = Pool::new(threads).unwrap();
        assert_eq!(pool.threads(), threads);
        check(Threads::Pool(&pool));
        check(Threads::Tasks(&NewThreads(threads)));
    }
    check(Threads::Tasks(&Lazy));
    check(Threads::Tasks(&NewThreads(0)));
}

/// The numbers of elements of calls: no piece, one, some, many and a rest.
const LENS: [usize; 6] = [0, 1, (32 << 10) - 1, 32 << 10, 128 << 10, (1 << 20) + 77];

/// What each thread took in a call.
fn shares(threads: Threads<'_>, len: usize) -> Vec<Vec<Range<usize>>> {
    let shares = Mutex::new(Vec::new());
    run(threads, len, &|ranges| {
        let share: Vec<_> = ranges.collect();
        shares.lock().unwrap().push(share);
    });
    shares.into_inner().unwrap()
}

#[test]
fn the_ranges_of_all_threads_cover_everything_once_and_ascend_in_each() {
    each_way(&|threads| {
        for len in LENS {
            // Again and again, for helpers that are awake.
            for _ in 0..if cfg!(miri) { 2 } else { 30 } {
                let shares = shares(threads, len);
                assert!(shares.iter().flatten().all(|range| range.start <= range.end));
                for share in &shares {
                    assert!(share.is_sorted_by_key(|range| range.start), "{share:?}");
                }
                let mut all = shares.concat();
                all.sort_by_key(|range| range.start);
                let mut end = 0;
                for range in all {
                    assert_eq!(range.start, end, "{threads:?}, {len} elements");
                    end = range.end;
                }
                assert_eq!(end, len);
            }
        }
    });
}

#[test]
fn a_serial_call_gets_one_range_on_the_calling_thread() {
    let pool = Pool::new(1).unwrap();
    for threads in [Threads::Serial, Threads::Pool(&pool), Threads::Tasks(&NewThreads(1))] {
        for len in LENS {
            assert_eq!(shares(threads, len).concat(), iter::once(0..len).collect::<Vec<_>>());
        }
    }
    let pool = Pool::new(3).unwrap();
    let caller = thread::current().id();
    run(Threads::Pool(&pool), LEAST_SHARED - 1, &|ranges| {
        assert_eq!(thread::current().id(), caller);
        assert_eq!(ranges.count(), 1);
    });
}

#[test]
fn each_piece_that_is_given_is_done_once_also_in_batches() {
    each_way(&|threads| {
        for (pieces, most) in [(0, 9), (1, 9), (9, 9), (10, 9), (100, 9), (100, 1000)] {
            let done: Vec<AtomicU8> = (0..pieces).map(|_| AtomicU8::new(0)).collect();
            run_in_batches(most, threads, 1 << 20, pieces, &|numbers| {
                for number in numbers {
                    done[number].fetch_add(1, Ordering::Relaxed);
                }
            });
            assert!(done.iter().all(|done| done.load(Ordering::Relaxed) == 1));
        }
    });
}

#[test]
fn all_threads_of_a_pool_help() {
    let pool = Pool::new(3).unwrap();
    let ways = [Threads::Pool(&pool), Threads::Tasks(&NewThreads(3))];
    for threads in ways {
        for _ in 0..3 {
            let seen = Mutex::new(Vec::new());
            let start = Instant::now();
            run_indexed(threads, 1 << 20, 100, &|numbers| {
                seen.lock().unwrap().push(thread::current().id());
                // Each waits for all three, at its first piece.
                for _ in numbers {
                    while seen.lock().unwrap().len() < 3 {
                        assert!(
                            start.elapsed() < Duration::from_secs(60),
                            "{threads:?}: no helper"
                        );
                        thread::yield_now();
                    }
                }
            });
            let mut seen = seen.into_inner().unwrap();
            seen.sort_by_key(|id| format!("{id:?}"));
            seen.dedup();
            assert_eq!(seen.len(), 3);
        }
    }
}

#[test]
fn a_panic_reaches_the_caller_after_all_begun_pieces_and_the_threads_serve_again() {
    each_way(&|threads| {
        for culprit in [0, 7, 99] {
            let at_work = AtomicUsize::new(0);
            let done = panic::catch_unwind(AssertUnwindSafe(|| {
                run_indexed(threads, 1 << 20, 100, &|numbers| {
                    for number in numbers {
                        at_work.fetch_add(1, Ordering::Relaxed);
                        thread::yield_now();
                        at_work.fetch_sub(1, Ordering::Relaxed);
                        if number == culprit {
                            panic::resume_unwind(Box::new(number));
                        }
                    }
                });
            }));
            assert_eq!(*done.unwrap_err().downcast::<usize>().unwrap(), culprit);
            assert_eq!(at_work.into_inner(), 0);
            let sum = AtomicUsize::new(0);
            run_indexed(threads, 1 << 20, 100, &|numbers| {
                sum.fetch_add(numbers.sum(), Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 4950, "{threads:?}");
        }
    });
}

#[test]
fn what_helpers_wrote_is_seen_by_the_caller_and_calls_nest() {
    each_way(&|threads| {
        let pieces = if cfg!(miri) { 5 } else { 64 };
        let mut cells: Vec<Mutex<usize>> = (0..pieces).map(Mutex::new).collect();
        run_indexed(threads, 1 << 20, pieces, &|numbers| {
            for number in numbers {
                let sum = AtomicUsize::new(0);
                run_indexed(threads, 1 << 20, 3, &|numbers| {
                    sum.fetch_add(numbers.sum(), Ordering::Relaxed);
                });
                *cells[number].lock().unwrap() += sum.into_inner();
            }
        });
        for (number, cell) in cells.iter_mut().enumerate() {
            assert_eq!(*cell.get_mut().unwrap(), number + 3);
        }
    });
}

#[test]
fn callers_on_many_threads_share_a_pool() {
    let pool = Pool::new(3).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..if cfg!(miri) { 3 } else { 300 } {
                    let sum = AtomicUsize::new(0);
                    run_indexed(Threads::Pool(&pool), 1 << 20, 50, &|numbers| {
                        sum.fetch_add(numbers.sum(), Ordering::Relaxed);
                    });
                    assert_eq!(sum.into_inner(), 1225);
                }
            });
        }
    });
}

#[test]
fn a_call_takes_little_of_the_callers_stack() {
    let pool = Pool::new(3).unwrap();
    let shares = |threads| run(threads, 1 << 20, &|ranges| assert!(ranges.count() < 1000));
    let call = || {
        for _ in 0..20 {
            shares(Threads::Pool(&pool));
            shares(Threads::Rayon);
        }
    };
    // 16 KiB is what a thread may have on any system; creating the global pool takes more.
    shares(Threads::Rayon);
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(16 << 10).spawn_scoped(scope, call);
        thread.unwrap().join().unwrap();
    });
}

#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
#[test]
fn bodies_run_with_the_default_modes_on_every_thread_and_the_caller_keeps_its_own() {
    use crate::float_modes::{
        tests::{DEFAULT, ODD, modes, with_modes},
        with_default_float_modes,
    };

    /// Threads that have other modes.
    struct OddThreads;

    impl RunTasks for OddThreads {
        fn threads(&self) -> usize {
            3
        }

        fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
            NewThreads(3).run(tasks, &|number| with_modes(ODD, || task(number)));
        }
    }

    let check = |threads: Threads<'_>| {
        let before = modes();
        for len in LENS {
            with_modes(ODD, || {
                with_default_float_modes(|| {
                    run(threads, len, &|ranges| {
                        assert_eq!(modes(), DEFAULT);
                        ranges.for_each(drop);
                    });
                });
                assert_eq!(modes(), ODD);
            });
        }
        assert_eq!(modes(), before);
    };
    each_way(&check);
    check(Threads::Tasks(&OddThreads));
}

#[test]
fn a_pool_has_1_to_1024_threads() {
    use crate::Error;
    for threads in [0, 1025, usize::MAX] {
        let expected = Error::ThreadCount { threads, most: 1024 };
        assert_eq!(Pool::new(threads).err(), Some(expected));
    }
}

#[test]
fn an_exec_says_how_calls_run() {
    let pool = Pool::new(2).unwrap();
    let exec = Exec { threads: Threads::Pool(&pool), ..Exec::default() };
    let expected = "Exec { isa: None, threads: Pool(Pool { threads: 2, .. }) }";
    assert_eq!(format!("{exec:?}"), expected);
    assert_eq!(format!("{:?}", Exec::default()), "Exec { isa: None, threads: Rayon }");
}
