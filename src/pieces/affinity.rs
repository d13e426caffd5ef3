//! The CPUs that a sleeping thread may be woken on.
//!
//! Linux may wake a thread on the CPU of the thread that wakes it, although another CPU is idle: in a virtual machine,
//! idle CPUs can pass for busy ones. The two threads then take turns on one CPU for some milliseconds, and a call with two
//! threads takes as long as with one. So a thread is woken with all CPUs allowed but the one of the caller, and allows
//! itself all of them again when it runs.

/// A thread of a pool.
pub(super) struct Thread(system::Id);

/// The CPUs that a thread was allowed before.
pub(super) struct Cpus(system::Set);

impl Thread {
    pub(super) fn current() -> Self {
        Self(system::current())
    }

    /// Forbids the thread the CPU that this runs on. `None` if that is not possible or changes nothing.
    pub(super) fn keep_off_this_cpu(&self) -> Option<Cpus> {
        system::keep_off_this_cpu(self.0).map(Cpus)
    }
}

impl Cpus {
    /// Allows them to the current thread.
    pub(super) fn allow(self) {
        system::allow(&self.0);
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
#[allow(unsafe_code, reason = "functions of the system")]
mod system {
    use core::mem;

    pub(super) type Id = libc::pid_t;
    pub(super) type Set = libc::cpu_set_t;

    const SIZE: usize = size_of::<Set>();

    pub(super) fn current() -> Id {
        // SAFETY: it takes no arguments and only returns a number. Old versions of the C library have no function for it.
        let id = unsafe { libc::syscall(libc::SYS_gettid) };
        // No thread has the number -1, while 0 would be whichever thread asks.
        Id::try_from(id).unwrap_or(-1)
    }

    pub(super) fn keep_off_this_cpu(thread: Id) -> Option<Set> {
        // SAFETY: it only returns a number, which is negative if it fails.
        let cpu = usize::try_from(unsafe { libc::sched_getcpu() }).ok()?;
        // SAFETY: a set is an array of integers, and zeros are the empty one.
        let mut all: Set = unsafe { mem::zeroed() };
        // SAFETY: it writes `SIZE` bytes at most, which is what the set has.
        let is_known = unsafe { libc::sched_getaffinity(thread, SIZE, &raw mut all) } == 0;
        if !is_known || cpu >= 8 * SIZE {
            return None;
        }
        let mut others = all;
        #[allow(unused_unsafe, reason = "versions of libc differ in what is unsafe")]
        // SAFETY: the sets have a bit for this CPU.
        let is_of_use = unsafe {
            libc::CPU_CLR(cpu, &mut others);
            libc::CPU_ISSET(cpu, &all) && libc::CPU_COUNT(&others) > 0
        };
        // SAFETY: it reads `SIZE` bytes. A thread that has ended is not found.
        let is_done =
            is_of_use && unsafe { libc::sched_setaffinity(thread, SIZE, &raw const others) } == 0;
        is_done.then_some(all)
    }

    pub(super) fn allow(set: &Set) {
        // SAFETY: it reads `SIZE` bytes; 0 is the current thread. If it fails, the thread keeps the fewer CPUs.
        unsafe { libc::sched_setaffinity(0, SIZE, core::ptr::from_ref(set)) };
    }
}

/// Elsewhere, the system's choice stands.
#[cfg(not(all(target_os = "linux", not(miri))))]
mod system {
    pub(super) type Id = ();
    pub(super) type Set = core::convert::Infallible;

    pub(super) fn current() -> Id {}

    pub(super) fn keep_off_this_cpu((): Id) -> Option<Set> {
        None
    }

    pub(super) fn allow(set: &Set) {
        match *set {}
    }
}

#[cfg(all(test, target_os = "linux", not(miri)))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::{
        fs,
        sync::{Mutex, mpsc},
        thread,
        time::{Duration, Instant},
    };

    use super::Thread;
    use crate::{Pool, exec::Threads, pieces::run_indexed};

    /// The CPUs that a thread may use, as the system prints them.
    fn allowed(thread: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap();
        status.lines().find_map(|line| line.strip_prefix("Cpus_allowed:")).unwrap().to_owned()
    }

    #[test]
    fn a_thread_is_kept_off_one_cpu_until_it_allows_itself_all() {
        let (tell, told) = mpsc::channel();
        let (wake, woken) = mpsc::channel::<Option<super::Cpus>>();
        let other = thread::spawn(move || {
            tell.send(Thread::current()).unwrap();
            let cpus: Option<super::Cpus> = woken.recv().unwrap();
            let fewer = allowed("thread-self");
            let is_kept_off = cpus.map(super::Cpus::allow).is_some();
            (fewer, is_kept_off, allowed("thread-self"))
        });
        let all = allowed("thread-self");
        let cpus = told.recv().unwrap().keep_off_this_cpu();
        wake.send(cpus).unwrap();
        let (fewer, is_kept_off, after) = other.join().unwrap();
        let cpus: u32 =
            all.chars().filter_map(|digit| digit.to_digit(16)).map(u32::count_ones).sum();
        // With one CPU there is no other one.
        assert_eq!((is_kept_off, fewer != all), (cpus > 1, cpus > 1));
        assert_eq!(after, all);
    }

    #[test]
    fn threads_that_help_may_use_all_cpus() {
        let pool = Pool::new(3).unwrap();
        let (all, caller) = (allowed("thread-self"), thread::current().id());
        // On a busy machine, a helper that was woken can wait for long.
        let patience = Duration::from_secs(10);
        for _ in 0..20 {
            // They fall asleep.
            thread::sleep(Duration::from_millis(2));
            let seen = Mutex::new(Vec::new());
            run_indexed(Threads::Pool(&pool), 1 << 20, 16, &|numbers| {
                let start = Instant::now();
                for _ in numbers {
                    thread::sleep(Duration::from_micros(200));
                    let id = thread::current().id();
                    seen.lock().unwrap().push((id, allowed("thread-self")));
                    while seen.lock().unwrap().iter().all(|(id, _)| *id == caller)
                        && start.elapsed() < patience
                    {
                        thread::yield_now();
                    }
                }
            });
            let seen = seen.into_inner().unwrap();
            assert_eq!(seen.len(), 16);
            assert!(seen.iter().any(|(id, _)| *id != caller), "nobody helped");
            assert!(seen.iter().all(|(_, cpus)| *cpus == all), "{seen:?}, not {all}");
        }
    }
}
