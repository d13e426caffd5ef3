//! The threads that PyTorch computes with: those of OpenMP's runtime of GCC (libgomp), on Linux.
//!
//! They spin for some milliseconds after each operation of PyTorch. Where they are on all CPUs, Linux lets a woken
//! thread of another pool wait for its turn, for up to 3 ms. So a step that comes while they spin has them do its work.
//! All other steps use this package's own pool: its threads wake sooner, and a step does not wait for one that comes
//! late. `docs/speed.md`, "Beside the threads of PyTorch", has the times of both.

use std::{
    env,
    ffi::{CStr, CString, c_int, c_uint, c_void},
    fs, mem, ptr,
    sync::{
        Mutex, TryLockError,
        atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use adamant::RunTasks;
use pyo3::prelude::*;

use crate::per_process::PerProcess;

/// `GOMP_parallel` of libgomp: calls the function once in each thread of a team of so many, the calling one among
/// them, and returns when all calls have ended.
type Parallel = unsafe extern "C" fn(
    function: unsafe extern "C" fn(*mut c_void),
    data: *mut c_void,
    threads: c_uint,
    flags: c_uint,
);

/// What is known of OpenMP in this process.
#[derive(Default)]
struct OpenMp {
    /// `None` before the first large step. `Some(None)`: there is no function that may be used.
    parallel: Option<Option<Parallel>>,
    /// The last new team.
    known: Option<Known>,
}

/// A team that has worked.
#[derive(Clone, Copy)]
struct Known {
    /// The number of threads that was asked for.
    size: usize,
    /// The CPU clock of one of its threads, not the calling one; `None` if there were fewer threads than asked for, or
    /// their clocks cannot be read.
    helper: Option<libc::clockid_t>,
}

static OPENMP: PerProcess<Mutex<OpenMp>> = PerProcess::new();

/// The process that this module was imported in.
static IMPORTED_IN: AtomicU32 = AtomicU32::new(0);

/// How often a team did the work of a call.
static CALLS: AtomicU64 = AtomicU64::new(0);

/// To be called when the module is imported.
pub fn imported() {
    IMPORTED_IN.store(std::process::id(), Ordering::Relaxed);
}

/// How often OpenMP's threads did the work of a call in this process and those that it was forked from.
#[pyfunction]
pub fn openmp_calls() -> u64 {
    CALLS.load(Ordering::Relaxed)
}

/// The library whose threads do the work of steps while they spin; `None` if there is none that could, as before
/// PyTorch is imported.
#[pyfunction]
pub fn openmp_library() -> Option<String> {
    library_of(usable()?)
}

/// A team of OpenMP's threads, for one call.
pub struct Team {
    parallel: Parallel,
    /// The size of the team. Always as many threads as PyTorch uses: libgomp ends the threads that a smaller team leaves
    /// over, and the next operation of PyTorch would start them anew.
    size: usize,
    /// How many of them may work.
    workers: usize,
    /// Whether to find out the clocks of the team's threads.
    learns: bool,
}

/// The team of as many threads as PyTorch uses, `threads`, of which up to `workers` are to work: if this thread has
/// one that is awake, or if that is not known yet.
///
/// It is `None` on all threads but the main one, since each thread has a team of its own. It is `None` in forked
/// children: libgomp still counts the threads of the parent, and a call would never return. And it is `None` with
/// `ADAMANT_OPENMP=0` in the environment.
pub fn team(threads: usize, workers: usize) -> Option<Team> {
    // SAFETY: both read a number of the process, and have no arguments.
    let is_main = unsafe { libc::gettid() == libc::getpid() };
    if !is_main || threads < 2 {
        return None;
    }
    let mut openmp = match OPENMP.get().try_lock() {
        Ok(openmp) => openmp,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return None,
    };
    let parallel = (*openmp.parallel.get_or_insert_with(usable))?;
    let learns = match openmp.known {
        Some(known) if known.size == threads => match is_running(known.helper?) {
            Some(true) => false,
            Some(false) => return None,
            // It has ended.
            None => true,
        },
        _ => true,
    };
    Some(Team { parallel, size: threads, workers, learns })
}

/// The function, unless it must not be used.
fn usable() -> Option<Parallel> {
    let is_off = env::var_os("ADAMANT_OPENMP").is_some_and(|value| value == "0");
    if is_off || is_forked() { None } else { find() }
}

/// Whether a thread runs: its clock then goes on. `None` if there is no such thread.
fn is_running(clock: libc::clockid_t) -> Option<bool> {
    let now = || {
        // SAFETY: zeros are a time.
        let mut time: libc::timespec = unsafe { mem::zeroed() };
        // SAFETY: it writes a time.
        let found = unsafe { libc::clock_gettime(clock, &raw mut time) } == 0;
        found.then_some((time.tv_sec, time.tv_nsec))
    };
    Some(now()? != now()?)
}

/// Whether this process was forked and has not begun another program since.
fn is_forked() -> bool {
    /// `PF_FORKNOEXEC` of Linux.
    const FORKED: u64 = 0x40;
    if IMPORTED_IN.load(Ordering::Relaxed) != std::process::id() {
        return true;
    }
    // The name, in parentheses, may have any characters. After it: state, parent, group, session, terminal, its
    // group, flags.
    let stat = fs::read_to_string("/proc/self/stat").ok();
    let flags = stat.as_deref().and_then(|stat| {
        let (_, fields) = stat.rsplit_once(')')?;
        fields.split_whitespace().nth(6)?.parse::<u64>().ok()
    });
    flags.is_none_or(|flags| flags & FORKED != 0)
}

/// The function that PyTorch's own library calls, if it is libgomp's.
fn find() -> Option<Parallel> {
    const NAME: &CStr = c"GOMP_parallel";
    let is_of_libgomp = |parallel| {
        library_of(parallel).is_some_and(|path| path.contains("/libgomp") && !is_of_llvm(&path))
    };
    // SAFETY: names of C; a library that is loaded is not loaded again, and stays.
    let symbol = unsafe {
        // As the dynamic linker looks for it: first in what all see, then in what the library asks for.
        match libc::dlsym(libc::RTLD_DEFAULT, NAME.as_ptr()) {
            symbol if !symbol.is_null() => symbol,
            _ => {
                let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD;
                let pytorch = libc::dlopen(c"libtorch_cpu.so".as_ptr(), flags);
                if pytorch.is_null() {
                    return None;
                }
                let symbol = libc::dlsym(pytorch, NAME.as_ptr());
                libc::dlclose(pytorch);
                symbol
            }
        }
    };
    if symbol.is_null() {
        return None;
    }
    // SAFETY: the function of this name has this type, in libgomp since GCC 4.9 (2014).
    let parallel = unsafe { mem::transmute::<*mut c_void, Parallel>(symbol) };
    Some(parallel).filter(|&parallel| is_of_libgomp(parallel))
}

/// Whether a loaded library is LLVM's runtime, which also goes by the name of libgomp (in conda's packages). It has the
/// same function, but other rules for the sizes of teams.
fn is_of_llvm(path: &str) -> bool {
    let Ok(path) = CString::new(path) else { return true };
    // SAFETY: strings of C; a library that is loaded is not loaded again, and stays.
    unsafe {
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        if library.is_null() {
            return true;
        }
        let symbol = libc::dlsym(library, c"__kmpc_fork_call".as_ptr());
        libc::dlclose(library);
        !symbol.is_null()
    }
}

/// The path of the library that a function is in.
fn library_of(parallel: Parallel) -> Option<String> {
    // SAFETY: null pointers are what it begins with.
    let mut info: libc::Dl_info = unsafe { mem::zeroed() };
    // SAFETY: it reads no memory at the address, and writes the struct.
    let found: c_int = unsafe { libc::dladdr(parallel as *const c_void, &raw mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: a string of C, of a library that stays loaded.
    Some(unsafe { CStr::from_ptr(info.dli_fname) }.to_string_lossy().into_owned())
}

/// What the threads of a team share during a call.
struct Job<'a> {
    task: &'a (dyn Fn(usize) + Sync),
    tasks: usize,
    next: AtomicUsize,
    /// The number of threads but the calling one, and the clock of the last of them.
    helpers: AtomicUsize,
    clock: AtomicI32,
}

unsafe extern "C" fn work(job: *mut c_void) {
    // SAFETY: `Team::run` passes it, and waits for this.
    let job = unsafe { &*job.cast::<Job<'_>>() };
    loop {
        let number = job.next.fetch_add(1, Ordering::Relaxed);
        if number >= job.tasks {
            return;
        }
        (job.task)(number);
    }
}

/// As [`work`]. Also notes the threads.
unsafe extern "C" fn learn_and_work(job: *mut c_void) {
    {
        // SAFETY: as in `work`.
        let job = unsafe { &*job.cast::<Job<'_>>() };
        let mut clock: libc::clockid_t = 0;
        // SAFETY: they read numbers of this thread, and write the clock.
        let has_clock = unsafe {
            libc::gettid() != libc::getpid()
                && libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) == 0
        };
        if has_clock {
            job.helpers.fetch_add(1, Ordering::Relaxed);
            job.clock.store(clock, Ordering::Relaxed);
        }
    }
    // SAFETY: the job of `Team::run`, which waits for this.
    unsafe { work(job) };
}

impl RunTasks for Team {
    fn threads(&self) -> usize {
        self.workers
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let job = Job {
            task,
            tasks,
            next: AtomicUsize::new(0),
            helpers: AtomicUsize::new(0),
            clock: AtomicI32::new(0),
        };
        let function = if self.learns { learn_and_work } else { work };
        let threads = c_uint::try_from(self.size).unwrap_or(1);
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: a function of this type; the threads use the job until the call returns. A task does not panic.
        unsafe { (self.parallel)(function, ptr::from_ref(&job).cast_mut().cast(), threads, 0) };
        if self.learns
            && let Ok(mut openmp) = OPENMP.get().try_lock()
        {
            let clock = job.clock.into_inner();
            let is_whole = job.helpers.into_inner() + 1 == self.size;
            let helper = Some(clock).filter(|&clock| is_whole && is_running(clock).is_some());
            openmp.known = Some(Known { size: self.size, helper });
        }
    }
}
