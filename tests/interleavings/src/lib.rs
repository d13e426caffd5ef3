//! Every order in which the threads of a call can run.
//!
//! The code is `src/pieces/row.rs` of the crate, on loom's atomics, locks and cells in place of those of
//! the standard library. loom reports a data race, a deadlock and a failed assertion in any order.

#![allow(dead_code, reason = "the crate uses more of row.rs than these tests")]

#[path = "../../../src/pieces/row.rs"]
mod row;
mod sync;

#[cfg(test)]
mod tests {
    use std::panic::{self, AssertUnwindSafe};

    use loom::{
        cell::UnsafeCell,
        sync::{Arc, Mutex},
        thread::{self, JoinHandle},
    };

    use crate::row::{Crew, Owner, Row};

    /// Starts a thread for each request.
    struct NewThreads {
        lingers: bool,
        threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    }

    impl NewThreads {
        fn new(lingers: bool) -> Self {
            Self { lingers, threads: Arc::new(Mutex::new(Vec::new())) }
        }

        fn join(&self) {
            while let Some(thread) = self.pop() {
                thread.join().expect("helpers do not panic");
            }
        }

        fn pop(&self) -> Option<JoinHandle<()>> {
            self.threads.lock().expect("no panic").pop()
        }
    }

    impl Crew for NewThreads {
        fn ask(&self, row: std::sync::Arc<Row>) {
            let (lingers, threads) = (self.lingers, self.threads.clone());
            let thread = thread::spawn(move || Row::help(&row, &Self { lingers, threads }));
            self.threads.lock().expect("no panic").push(thread);
        }

        fn lingers(&self) -> bool {
            self.lingers
        }
    }

    /// What the caller lends: loom notices an access that is not ordered with another one.
    struct Lent(Vec<UnsafeCell<usize>>);

    // SAFETY: loom notices races.
    unsafe impl Sync for Lent {}

    impl Lent {
        fn new(pieces: usize) -> Self {
            Self((0..pieces).map(|_| UnsafeCell::new(0)).collect())
        }

        fn add(&self, piece: usize) {
            // SAFETY: loom notices races.
            self.0[piece].with_mut(|value| unsafe { *value += 1 });
        }

        fn values(&self) -> Vec<usize> {
            // SAFETY: loom notices races.
            self.0.iter().map(|cell| cell.with(|value| unsafe { *value })).collect()
        }
    }

    fn every_order(preemptions: usize, test: impl Fn() + Send + Sync + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemptions);
        model.check(test);
    }

    /// Calls on one row, one after the other, each of so many pieces, which each end before the caller
    /// looks at the results.
    fn calls(pieces: &'static [usize], helpers: usize, lingers: bool) -> impl Fn() + Send + Sync {
        move || {
            let (mut owner, crew) = (Owner::new(), NewThreads::new(lingers));
            for &pieces in pieces {
                let lent = Lent::new(pieces);
                owner.call(pieces, helpers, &crew, &|numbers| {
                    let mut last = None;
                    for number in numbers {
                        assert!(last < Some(number));
                        last = Some(number);
                        lent.add(number);
                    }
                });
                assert_eq!(lent.values(), vec![1; pieces]);
                // A late helper must not touch it any more.
                drop(lent);
            }
            crew.join();
        }
    }

    #[test]
    fn one_helper_is_late_or_not() {
        every_order(5, calls(&[2], 1, false));
    }

    #[test]
    fn a_late_helper_finds_the_next_call() {
        every_order(3, calls(&[1, 2], 1, false));
    }

    #[test]
    fn a_helper_lingers_until_the_next_call() {
        every_order(3, calls(&[2, 2], 1, true));
    }

    #[test]
    fn two_helpers_share() {
        every_order(3, calls(&[3], 2, false));
    }

    #[test]
    fn a_panic_on_any_thread_reaches_the_caller_after_all_others_have_left() {
        every_order(3, || {
            let (mut owner, crew) = (Owner::new(), NewThreads::new(false));
            let lent = Lent::new(3);
            let done = panic::catch_unwind(AssertUnwindSafe(|| {
                owner.call(3, 1, &crew, &|numbers| {
                    for number in numbers {
                        lent.add(number);
                        if number == 1 {
                            panic::resume_unwind(Box::new("culprit"));
                        }
                    }
                });
            }));
            let panic = done.expect_err("a panic");
            assert_eq!(panic.downcast_ref(), Some(&"culprit"));
            assert_eq!(lent.values()[..2], [1, 1]);
            drop(lent);
            crew.join();
        });
    }
}
