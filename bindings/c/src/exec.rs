//! Instruction sets and threads.

use core::ffi::{CStr, c_char, c_void};
use std::{mem, ptr};

use super::{
    status::{Failure, adamant_status, guarded, refuse},
    versioned::{self, check_pointer, versioned},
};
use adamant::{Exec, Isa, Pool, RunTasks, Threads};

/// The instruction sets. All of them give the same bits.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum adamant_isa {
    /// The instruction set in the environment variable ADAMANT_ISA, or the best one of this CPU.
    ADAMANT_ISA_SELECTED = 0,
    /// One element at a time; on every CPU.
    ADAMANT_ISA_SCALAR = 1,
    /// x86-64 with AVX2, FMA and F16C.
    ADAMANT_ISA_AVX2 = 2,
    /// x86-64 with AVX-512 F, BW, CD, DQ and VL.
    ADAMANT_ISA_AVX512 = 3,
    /// AArch64.
    ADAMANT_ISA_NEON = 4,
}

/// The threads of a call. The results have the same bits with each choice.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum adamant_threads {
    /// The calling thread and, if a call is large enough, the library's default pool. It has one thread for
    /// each CPU, or the number in the environment variable RAYON_NUM_THREADS. The first call that is large
    /// enough starts it.
    ADAMANT_THREADS_DEFAULT = 0,
    /// The calling thread alone.
    ADAMANT_THREADS_SERIAL = 1,
    /// The calling thread and, if a call is large enough, the threads of `pool`.
    ADAMANT_THREADS_POOL = 2,
    /// The calling thread and, if a call is large enough, threads of the caller: `tasks`.
    ADAMANT_THREADS_TASKS = 3,
}

/// A task: a function of the library's that `adamant_tasks.run` calls. It does not unwind.
pub type adamant_task = unsafe extern "C" fn(task_context: *mut c_void, number: usize);

/// A thread pool of the caller, such as that of a framework: a function that runs tasks in parallel.
///
/// `run` calls `task(task_context, number)` with each number from 0 to `tasks - 1`, on any threads, and
/// returns when all calls have returned. A task that is left out does no harm: the calling thread does its
/// work after `run` has returned. `run` must not unwind.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct adamant_tasks {
    /// `sizeof(adamant_tasks)`.
    pub size: usize,
    /// The function.
    pub run: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            tasks: usize,
            task: adamant_task,
            task_context: *mut c_void,
        ),
    >,
    /// The number of threads, the calling one among them: at least 1.
    pub threads: usize,
    /// The context that the function is called with.
    pub context: *mut c_void,
}

versioned!(adamant_tasks: context);

/// The threads and the instruction set of a call. The default is zeros in all fields but `size`, or a null
/// pointer instead of the struct.
///
/// The fields up to `threads` must be there; a smaller `size` means no pool and no tasks.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct adamant_exec {
    /// `sizeof(adamant_exec)`.
    pub size: usize,
    /// One of `adamant_isa`.
    pub isa: u32,
    /// One of `adamant_threads`.
    pub threads: u32,
    /// With ADAMANT_THREADS_POOL; null otherwise.
    pub pool: *const adamant_pool,
    /// With ADAMANT_THREADS_TASKS; null otherwise.
    pub tasks: *const adamant_tasks,
}

versioned!(adamant_exec: pool, tasks);

/// A pool of threads; see `adamant_pool_new`.
pub struct adamant_pool(Pool);

impl adamant_exec {
    const DEFAULT: Self =
        Self { size: size_of::<Self>(), isa: 0, threads: 0, pool: ptr::null(), tasks: ptr::null() };
}

impl adamant_tasks {
    const NONE: Self =
        Self { size: size_of::<Self>(), run: None, threads: 0, context: ptr::null_mut() };
}

/// The caller's function that runs tasks.
struct Tasks {
    run: unsafe extern "C" fn(*mut c_void, usize, adamant_task, *mut c_void),
    threads: usize,
    context: *mut c_void,
}

// SAFETY: the library itself calls the function on the calling thread only, and does not use the context.
unsafe impl Sync for Tasks {}

type Task<'a> = &'a (dyn Fn(usize) + Sync);

impl RunTasks for Tasks {
    fn threads(&self) -> usize {
        self.threads
    }

    fn run(&self, tasks: usize, task: Task<'_>) {
        /// A task as C calls it.
        unsafe extern "C" fn call(task: *mut c_void, number: usize) {
            // SAFETY: a `Task` that is alive until `run` returns, and `run` waits for this: the caller's
            // promise.
            let task = unsafe { *task.cast::<Task<'_>>() };
            task(number);
        }
        let context: *const Task<'_> = &task;
        // SAFETY: the caller's function, with what its contract says.
        unsafe { (self.run)(self.context, tasks, call, context.cast_mut().cast()) }
    }
}

/// How a call runs, checked.
pub(super) struct Runner<'a> {
    isa: Option<Isa>,
    threads: Workers<'a>,
}

enum Workers<'a> {
    Default,
    Serial,
    Pool(&'a Pool),
    Tasks(Tasks),
}

impl Runner<'_> {
    /// From the caller's struct; the default if it is null.
    ///
    /// # Safety
    ///
    /// As [`versioned::size_of_struct`], for `tasks`, too, and `pool` is null or from `adamant_pool_new`
    /// and not freed before the call ends.
    ///
    /// Inlined: otherwise its result is written to memory in bytes and read back in words, which is slow.
    #[inline(always)]
    pub(super) unsafe fn read(exec: *const adamant_exec) -> Result<Self, Failure> {
        if exec.is_null() {
            return Ok(Self { isa: None, threads: Workers::Default });
        }
        // SAFETY: the same promise.
        let size = unsafe { versioned::size_of_struct(exec, "exec")? };
        let room;
        let found = if size >= size_of::<adamant_exec>() {
            // SAFETY: aligned, whole, and written by nobody: the same promise.
            unsafe { &*exec }
        } else {
            // SAFETY: `size` bytes are there, by the same promise.
            room = unsafe { versioned::read_sized(exec, size, adamant_exec::DEFAULT) };
            &room
        };
        const DEFAULT: u32 = adamant_threads::ADAMANT_THREADS_DEFAULT as u32;
        const SERIAL: u32 = adamant_threads::ADAMANT_THREADS_SERIAL as u32;
        const POOL: u32 = adamant_threads::ADAMANT_THREADS_POOL as u32;
        const TASKS: u32 = adamant_threads::ADAMANT_THREADS_TASKS as u32;
        let isa = isa(found.isa)?;
        let threads = match found.threads {
            DEFAULT => Workers::Default,
            SERIAL => Workers::Serial,
            POOL => {
                check_pointer(found.pool, "pool")?;
                // SAFETY: a live pool: the caller's promise.
                Workers::Pool(unsafe { &(*found.pool).0 })
            }
            TASKS => {
                // SAFETY: the same promise.
                Workers::Tasks(unsafe { Tasks::read(found.tasks)? })
            }
            other => {
                refuse!(ADAMANT_UNKNOWN_VALUE, "threads is {other}, which is no adamant_threads")
            }
        };
        if found.threads != POOL && !found.pool.is_null() {
            refuse!(
                ADAMANT_UNKNOWN_VALUE,
                "threads is {}, but must be ADAMANT_THREADS_POOL ({POOL}) with a pool",
                found.threads
            );
        }
        if found.threads != TASKS && !found.tasks.is_null() {
            refuse!(
                ADAMANT_UNKNOWN_VALUE,
                "threads is {}, but must be ADAMANT_THREADS_TASKS ({TASKS}) with tasks",
                found.threads
            );
        }
        Ok(Self { isa, threads })
    }

    /// As Rust has it.
    #[inline(always)]
    pub(super) fn exec(&self) -> Exec<'_> {
        let threads = match &self.threads {
            Workers::Default => Threads::Rayon,
            Workers::Serial => Threads::Serial,
            Workers::Pool(pool) => Threads::Pool(pool),
            Workers::Tasks(tasks) => Threads::Tasks(tasks),
        };
        Exec { isa: self.isa, threads }
    }
}

impl Tasks {
    /// From the caller's struct.
    ///
    /// # Safety
    ///
    /// As [`versioned::size_of_struct`].
    unsafe fn read(tasks: *const adamant_tasks) -> Result<Self, Failure> {
        // SAFETY: the same promise.
        let found = unsafe { versioned::read(tasks, "tasks", adamant_tasks::NONE)? };
        let adamant_tasks { run, threads, context, .. } = found;
        let Some(run) = run else {
            refuse!(ADAMANT_NULL_POINTER, "run of tasks is null");
        };
        if threads == 0 {
            refuse!(ADAMANT_OUT_OF_RANGE, "threads of tasks is 0, but must be at least 1");
        }
        Ok(Self { run, threads, context })
    }
}

/// An instruction set by number; `None` is the selected one.
#[inline]
pub(super) fn isa(number: u32) -> Result<Option<Isa>, Failure> {
    const SELECTED: u32 = adamant_isa::ADAMANT_ISA_SELECTED as u32;
    const SCALAR: u32 = adamant_isa::ADAMANT_ISA_SCALAR as u32;
    const AVX2: u32 = adamant_isa::ADAMANT_ISA_AVX2 as u32;
    const AVX512: u32 = adamant_isa::ADAMANT_ISA_AVX512 as u32;
    const NEON: u32 = adamant_isa::ADAMANT_ISA_NEON as u32;
    match number {
        SELECTED => Ok(None),
        SCALAR => Ok(Some(Isa::Scalar)),
        AVX2 => Ok(Some(Isa::Avx2)),
        AVX512 => Ok(Some(Isa::Avx512)),
        NEON => Ok(Some(Isa::Neon)),
        _ => refuse!(ADAMANT_UNKNOWN_VALUE, "isa is {number}, which is no adamant_isa"),
    }
}

/// The instruction sets of Rust, with their numbers and names.
const ISAS: [(Isa, adamant_isa, &CStr); 4] = [
    (Isa::Scalar, adamant_isa::ADAMANT_ISA_SCALAR, c"scalar"),
    (Isa::Avx2, adamant_isa::ADAMANT_ISA_AVX2, c"avx2"),
    (Isa::Avx512, adamant_isa::ADAMANT_ISA_AVX512, c"avx512"),
    (Isa::Neon, adamant_isa::ADAMANT_ISA_NEON, c"neon"),
];

/// The number of an instruction set. All have one, as `tests/bits` holds.
fn number(isa: Isa) -> u32 {
    let found = ISAS.iter().find(|(known, ..)| *known == isa);
    found.map_or(0, |&(_, number, _)| number as u32)
}

/// Writes the result of a call to where the caller wants it.
///
/// # Safety
///
/// A pointer that is neither null nor misaligned may be written.
pub(super) unsafe fn put<T>(out: *mut T, name: &str, value: T) -> Result<(), Failure> {
    check_pointer(out, name)?;
    // SAFETY: not null, aligned, and so writable: the caller's promise.
    unsafe { out.write(value) };
    Ok(())
}

/// # Instruction sets and threads
///
/// Fills in the default: the selected instruction set, the default threads.
///
/// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for exec, ADAMANT_STRUCT_SIZE for size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_exec_init(exec: *mut adamant_exec, size: usize) -> adamant_status {
    // SAFETY: `size` bytes may be written: the caller's promise.
    guarded(|| unsafe { versioned::write(exec, size, "exec", adamant_exec::DEFAULT) })
}

/// The instruction set that calls use by default: the one in the environment variable ADAMANT_ISA (scalar,
/// avx2, avx512 or neon), or the best one of this CPU if the variable is unset or empty. The library reads
/// the variable once in the life of a process.
///
/// ADAMANT_UNKNOWN_ISA or ADAMANT_ISA_UNAVAILABLE for the variable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_isa_selected(isa: *mut u32) -> adamant_status {
    guarded(|| {
        check_pointer(isa, "isa")?;
        // SAFETY: the caller's promise.
        unsafe { put(isa, "isa", number(Isa::selected()?)) }
    })
}

/// The best instruction set of this CPU, one of `adamant_isa`.
#[unsafe(no_mangle)]
pub extern "C" fn adamant_isa_detect() -> u32 {
    number(Isa::detect())
}

/// 1 if this CPU has the instruction set; 0 if not, or if no instruction set has this number.
#[unsafe(no_mangle)]
pub extern "C" fn adamant_isa_is_available(isa: u32) -> u32 {
    ISAS.iter().any(|&(known, number, _)| number as u32 == isa && known.is_available()).into()
}

/// The name of an instruction set, as ADAMANT_ISA takes it; null if no instruction set has this number.
#[unsafe(no_mangle)]
pub extern "C" fn adamant_isa_name(isa: u32) -> *const c_char {
    let found = ISAS.iter().find(|&&(_, number, _)| number as u32 == isa);
    found.map_or(ptr::null(), |(.., name)| name.as_ptr())
}

/// Starts a pool of `threads` threads, 1 to 1024, the calling one among them, and writes its handle to
/// `*pool`. Any number of threads may use it at once. Threads do not survive fork(): in a child, calls
/// with a pool of its parent run on the calling thread.
///
/// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for pool, ADAMANT_THREAD_COUNT for threads,
/// ADAMANT_NO_THREADS if the system refuses to start them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_pool_new(
    threads: usize,
    pool: *mut *mut adamant_pool,
) -> adamant_status {
    guarded(|| {
        check_pointer(pool, "pool")?;
        let found = Box::new(adamant_pool(Pool::new(threads)?));
        // SAFETY: the caller's promise.
        unsafe { put(pool, "pool", Box::into_raw(found)) }
    })
}

/// The number of threads of a pool, the calling one among them: as asked for, or 1 in a child of fork();
/// 0 if `pool` is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_pool_threads(pool: *const adamant_pool) -> usize {
    // SAFETY: null, or a live pool: the caller's promise.
    let pool = unsafe { pool.as_ref() };
    pool.map_or(0, |pool| pool.0.threads())
}

/// Ends the threads of a pool and frees it; no call may be using it. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_pool_free(pool: *mut adamant_pool) {
    // SAFETY: null, or from `adamant_pool_new` and freed once: the caller's promise.
    unsafe { free(pool) }
}

/// Frees what `Box::into_raw` gave to C.
///
/// # Safety
///
/// The handle is null, or from `Box::into_raw`, and not used again.
pub(super) unsafe fn free<T>(handle: *mut T) {
    if !handle.is_null() && handle.is_aligned() {
        guarded(|| {
            // SAFETY: the caller's promise.
            mem::drop(unsafe { Box::from_raw(handle) });
            Ok(())
        });
    }
}
