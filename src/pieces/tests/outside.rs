//! What the outside does to threads: forks, limits, busy pools, locks. Each test runs in a process of its
//! own, which a signal ends if it hangs.

#![allow(unsafe_code, reason = "calls of the C library")]

use core::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs::File, process::Command, thread};

use super::{Pool, Threads, run_indexed};

/// Seconds after which a process is ended.
const LIMIT: u32 = 60;
const VARIABLE: &str = "ADAMANT_TEST_IN_CHILD";

/// Runs a test again, in a process of its own.
fn in_a_process_of_its_own(test: &str, body: impl FnOnce()) {
    if env::var(VARIABLE).as_deref() == Ok(test) {
        // SAFETY: it sends this process a signal later.
        unsafe { libc::alarm(LIMIT) };
        return body();
    }
    // A program that an emulator runs cannot start itself where the system lacks the emulator.
    let can_start = || Command::new(env::current_exe().unwrap()).arg("--list").output();
    if cfg!(not(any(target_arch = "x86_64", target_arch = "x86")))
        && !can_start().is_ok_and(|list| list.status.success())
    {
        return eprintln!("{test}: left out, this program cannot start itself");
    }
    let name = format!("pieces::tests::outside::{test}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("output");
    let output = File::create(&path).unwrap();
    let status = Command::new(env::current_exe().unwrap())
        .args([&name, "--exact", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, test)
        .env("RAYON_NUM_THREADS", "4")
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .status();
    let output = std::fs::read_to_string(path).unwrap();
    let status = status.unwrap();
    assert!(status.success() && output.contains("1 passed"), "{status}, {output}");
}

/// Runs `body` in a child of `fork`; whether it came to its end.
fn in_a_fork(body: impl FnOnce()) -> bool {
    // SAFETY: the child calls what may hang or crash in it; that is what is tested.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: as above; alarms are not inherited.
            unsafe { libc::alarm(LIMIT / 2) };
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            // SAFETY: it ends the process at once, without what the parent has to do at its end.
            unsafe { libc::_exit(i32::from(done.is_err())) }
        }
        child => {
            assert!(child > 0);
            let mut status = -1;
            // SAFETY: `status` is an integer to write to.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            status == 0
        }
    }
}

/// A call that is large enough for all threads; whether it did all its work.
fn works(threads: Threads<'_>) -> bool {
    let sum = AtomicUsize::new(0);
    run_indexed(threads, 4 << 20, 1000, &|numbers| {
        sum.fetch_add(numbers.sum(), Ordering::Relaxed);
    });
    sum.into_inner() == 499_500
}

/// Whether another thread takes part in some call.
fn has_helpers(threads: Threads<'_>) -> bool {
    let caller = thread::current().id();
    let came = AtomicUsize::new(0);
    (0..1000).any(|_| {
        run_indexed(threads, 4 << 20, 1000, &|numbers| {
            if thread::current().id() != caller {
                came.fetch_add(1, Ordering::Relaxed);
            }
            numbers.for_each(|_| thread::yield_now());
        });
        came.load(Ordering::Relaxed) > 0
    })
}

#[test]
fn a_fork_of_a_process_that_used_a_pool_has_one_thread_there_and_can_make_new_ones() {
    in_a_process_of_its_own(
        "a_fork_of_a_process_that_used_a_pool_has_one_thread_there_and_can_make_new_ones",
        || {
            let pool = Pool::new(4).unwrap();
            assert!(has_helpers(Threads::Pool(&pool)));
            assert!(in_a_fork(|| {
                assert_eq!(pool.threads(), 1);
                assert!((0..100).all(|_| works(Threads::Pool(&pool))));
                let new = Pool::new(3).unwrap();
                assert!(has_helpers(Threads::Pool(&new)));
                assert!(in_a_fork(|| assert!(works(Threads::Pool(&new)))));
            }));
            assert!(in_a_fork(|| drop(pool)));
        },
    );
}

#[test]
fn a_fork_works_whatever_other_threads_were_doing_with_the_pool() {
    in_a_process_of_its_own("a_fork_works_whatever_other_threads_were_doing_with_the_pool", || {
        let pool = Pool::new(3).unwrap();
        let is_over = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while is_over.load(Ordering::Relaxed) == 0 {
                        assert!(works(Threads::Pool(&pool)) && works(Threads::Rayon));
                    }
                });
            }
            for _ in 0..50 {
                assert!(works(Threads::Rayon));
                let child = || assert!(works(Threads::Pool(&pool)) && works(Threads::Rayon));
                assert!(in_a_fork(child));
            }
            is_over.store(1, Ordering::Relaxed);
        });
    });
}

#[test]
fn a_pool_whose_threads_are_refused_is_an_error_and_keeps_no_thread() {
    in_a_process_of_its_own(
        "a_pool_whose_threads_are_refused_is_an_error_and_keeps_no_thread",
        || {
            limit_threads();
            let error = Pool::new(2).unwrap_err();
            assert!(matches!(error, crate::Error::NoThreads { threads: 2, .. }), "{error}");
            assert!(works(Threads::Pool(&Pool::new(1).unwrap())));
        },
    );
}

/// From here on, the system refuses threads to this process.
fn limit_threads() {
    let limit = libc::rlimit { rlim_cur: 1, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: plain calls of the system; root is not limited, so this process becomes nobody.
    unsafe {
        let mut found = limit;
        assert_eq!(libc::getrlimit(libc::RLIMIT_NPROC, &raw mut found), 0);
        let limit = libc::rlimit { rlim_cur: 1, ..found };
        assert_eq!(libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit), 0);
        if libc::geteuid() == 0 {
            assert_eq!(libc::setuid(65534), 0);
        }
    }
    assert!(thread::Builder::new().spawn(|| ()).is_err(), "the limit has no effect");
}

#[cfg(feature = "rayon")]
mod rayon_pools {
    use std::sync::{Arc, Mutex, mpsc};

    use rayon::ThreadPoolBuilder;

    use super::*;

    #[test]
    fn a_fork_of_a_process_that_used_the_global_pool_works_alone() {
        in_a_process_of_its_own(
            "rayon_pools::a_fork_of_a_process_that_used_the_global_pool_works_alone",
            || {
                assert!(has_helpers(Threads::Rayon));
                assert!(in_a_fork(|| {
                    assert!((0..100).all(|_| works(Threads::Rayon)));
                    // A pool that is made in the child has its threads.
                    let pool = ThreadPoolBuilder::new().num_threads(3).build().unwrap();
                    assert!(pool.install(|| has_helpers(Threads::Rayon)));
                }));
            },
        );
    }

    #[test]
    fn a_fork_works_where_only_others_used_the_global_pool() {
        in_a_process_of_its_own(
            "rayon_pools::a_fork_works_where_only_others_used_the_global_pool",
            || {
                rayon::join(|| (), || ());
                // Its threads go to sleep, which they may not be on the way to in the fork.
                thread::sleep(std::time::Duration::from_millis(100));
                assert!(in_a_fork(|| assert!((0..100).all(|_| works(Threads::Rayon)))));
            },
        );
    }

    #[test]
    fn a_fork_on_a_thread_of_a_pool_works() {
        in_a_process_of_its_own("rayon_pools::a_fork_on_a_thread_of_a_pool_works", || {
            let pool = ThreadPoolBuilder::new().num_threads(3).build().unwrap();
            pool.install(|| {
                assert!(has_helpers(Threads::Rayon));
                assert!(in_a_fork(|| assert!((0..100).all(|_| works(Threads::Rayon)))));
            });
        });
    }

    #[test]
    fn a_call_is_done_while_all_threads_of_the_pool_are_busy() {
        in_a_process_of_its_own(
            "rayon_pools::a_call_is_done_while_all_threads_of_the_pool_are_busy",
            || {
                let (begun, all_begun) = mpsc::channel();
                let (release, released) = mpsc::channel::<()>();
                let released = Arc::new(Mutex::new(released));
                let threads = rayon::current_num_threads();
                for _ in 0..threads {
                    let (begun, released) = (begun.clone(), released.clone());
                    rayon::spawn(move || {
                        begun.send(()).unwrap();
                        released.lock().unwrap().recv().unwrap();
                    });
                }
                (0..threads).for_each(|_| all_begun.recv().unwrap());
                for _ in 0..1000 {
                    assert!(works(Threads::Rayon));
                }
                (0..threads).for_each(|_| release.send(()).unwrap());
                assert!(has_helpers(Threads::Rayon));
            },
        );
    }

    #[test]
    fn a_caller_that_holds_a_lock_runs_no_task_that_wants_it() {
        in_a_process_of_its_own(
            "rayon_pools::a_caller_that_holds_a_lock_runs_no_task_that_wants_it",
            || {
                let pool = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
                let lock = Mutex::new(0);
                pool.scope(|scope| {
                    for task in 0..320 {
                        let lock = &lock;
                        scope.spawn(move |_| {
                            if task % 2 == 0 {
                                let mut count = lock.lock().unwrap();
                                assert!(works(Threads::Rayon));
                                *count += 1;
                            } else {
                                assert!(works(Threads::Rayon));
                            }
                        });
                    }
                });
                assert_eq!(lock.into_inner().unwrap(), 160);
            },
        );
    }

    #[test]
    fn without_threads_the_caller_does_everything_and_rayon_still_works_later() {
        in_a_process_of_its_own(
            "rayon_pools::without_threads_the_caller_does_everything_and_rayon_still_works_later",
            || {
                limit_threads();
                assert!((0..100).all(|_| works(Threads::Rayon)));
                assert!(works(Threads::Pool(&Pool::new(1).unwrap())));
                // SAFETY: plain calls of the system.
                unsafe {
                    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                    assert_eq!(libc::getrlimit(libc::RLIMIT_NPROC, &raw mut limit), 0);
                    limit.rlim_cur = limit.rlim_max;
                    assert_eq!(libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit), 0);
                }
                assert!(ThreadPoolBuilder::new().num_threads(2).build_global().is_ok());
                assert!(works(Threads::Rayon));
            },
        );
    }

    #[test]
    fn without_memory_for_threads_the_caller_does_everything() {
        in_a_process_of_its_own(
            "rayon_pools::without_memory_for_threads_the_caller_does_everything",
            || {
                assert!(works(Threads::Serial));
                let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
                let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
                // Room for a little, and for no stack.
                let limit = pages * 4096 + (1 << 20);
                let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
                // SAFETY: a plain call of the system.
                assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
                assert!((0..100).all(|_| works(Threads::Rayon)));
                assert!(Pool::new(2).is_err());
            },
        );
    }

    #[test]
    fn a_global_pool_that_failed_before_is_left_alone() {
        in_a_process_of_its_own(
            "rayon_pools::a_global_pool_that_failed_before_is_left_alone",
            || {
                let fail = |_| Err(std::io::Error::other("no threads"));
                assert!(ThreadPoolBuilder::new().spawn_handler(fail).build_global().is_err());
                assert!((0..100).all(|_| works(Threads::Rayon)));
            },
        );
    }

    #[test]
    fn serial_calls_create_no_global_pool() {
        in_a_process_of_its_own("rayon_pools::serial_calls_create_no_global_pool", || {
            assert!(works(Threads::Serial));
            assert!(works(Threads::Pool(&Pool::new(3).unwrap())));
            for len in [0, 1, 16 << 10, (32 << 10) - 1] {
                for _ in 0..100 {
                    run_indexed(Threads::Rayon, len, 4, &|numbers| numbers.for_each(drop));
                }
            }
            let small = || run_indexed(Threads::Rayon, 127 << 10, 4, &|all| all.for_each(drop));
            small();
            thread::sleep(std::time::Duration::from_millis(1));
            small();
            assert!(ThreadPoolBuilder::new().num_threads(2).build_global().is_ok());
            assert!(has_helpers(Threads::Rayon));
        });
    }
}
