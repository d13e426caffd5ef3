//! A step allocates nothing, but for requests to a pool of rayon.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use adamant::{
    Adam, Adopt, Exec, Grad, Group, Isa, Lion, Optimizer, Outcome, Param, Pool, StepOptions,
    Storage, Threads,
    table::{CatchUp, DenseEquivalent, RowGrads, RowOptimizer, RowScratch},
};
use half::bf16;

/// The system's allocator, counting.
struct Counting;

/// By the threads of the pool, together.
static IN_POOL: AtomicUsize = AtomicUsize::new(0);

/// By all threads, together.
static EVERYWHERE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// By this thread. Other threads, such as the test runner's, may allocate.
    static HERE: Cell<usize> = const { Cell::new(0) };
    /// Whether this is a thread of the pool.
    static IS_IN_POOL: Cell<bool> = const { Cell::new(false) };
}

#[allow(unsafe_code, reason = "a global allocator can't be had without")]
// SAFETY: every call is passed on as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HERE.set(HERE.get() + 1);
        EVERYWHERE.fetch_add(1, Relaxed);
        if IS_IN_POOL.get() {
            IN_POOL.fetch_add(1, Relaxed);
        }
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn options(exec: Exec<'_>) -> StepOptions<'_> {
    StepOptions { exec, ..StepOptions::default() }
}

/// The number of allocations of ten steps of `len` parameters, after a first step.
fn allocations(count: impl Fn() -> usize, exec: Exec<'_>, len: usize) -> usize {
    let adam = Adam::adamw();
    let (mut param, grad, mut state) = (vec![1.0_f32; len], vec![0.5_f32; len], adam.state(len));
    let mut step = || {
        let tensor = state.tensor(&mut param, &grad);
        let report = adam.step_tensors(&mut [tensor], &options(exec)).expect("a valid step");
        assert_eq!(report.outcome, Outcome::Taken);
    };
    step();
    let before = count();
    (0..10).for_each(|_| step());
    count() - before
}

/// The same for steps on rows of a table, lazy and dense-equivalent.
fn row_allocations(count: impl Fn() -> usize, exec: Exec<'_>, rows: usize) -> usize {
    let (adam, width) = (Adam::adamw(), 64);
    let ids: Vec<u32> = (0..rows as u32).rev().chain(0..rows as u32 / 4).collect();
    let values = vec![0.5_f32; ids.len() * width];
    let (mut param, mut state) = (vec![1.0_f32; rows * width], adam.row_state(rows, width));
    let (mut scratch, mut t) = (RowScratch::default(), 0);
    let mut waiting = DenseEquivalent::<f32>::new(rows, CatchUp::Series);
    let mut step = |count: usize| {
        let (ids, values) = (&ids[..count], &values[..count * width]);
        let grads = RowGrads::new(ids, values, width);
        t += 1;
        let options = StepOptions { max_norm: Some(1.0), ..options(exec) };
        let table = state.table(&mut param, width);
        let sorted = grads.sort(rows, &mut scratch).expect("rows of the table");
        let lazy = adam.step_rows_lazy_on(t, table, sorted, &options);
        let table = state.table(&mut param, width);
        let sorted = grads.sort(rows, &mut scratch).expect("rows of the table");
        let dense = adam.step_rows_dense_equivalent_on(table, sorted, &mut waiting, &options);
        assert!(lazy.is_ok() && dense.is_ok());
    };
    step(ids.len());
    let before = count();
    // Some steps list few rows, so that the others must catch up later.
    (0..10).for_each(|turn| step(if turn % 5 == 4 { ids.len() } else { 3 }));
    count() - before
}

/// The same for steps of several groups in several types, and the norms before them.
fn group_allocations(count: impl Fn() -> usize, exec: Exec<'_>, len: usize) -> usize {
    let (adam, lion, adopt) = (Adam::adamw(), Lion::default(), Adopt::default());
    let (mut high, mut low) = (vec![bf16::ONE; len], vec![0; len]);
    let (mut double, double_grad) = (vec![1.0_f64; len], vec![1.0_f64; len]);
    let grads = vec![bf16::ONE; len];
    let mut state = adam.state_of(&[Storage::Bf16, Storage::Q8], len);
    let mut lion_states = [(); 9].map(|()| lion.state(len / 9));
    let mut lion_params = [(); 9].map(|()| vec![1.0_f32; len / 9]);
    let lion_grad = vec![0.5_f32; len / 9];
    let mut adopt_state = adopt.state_in(Storage::F64, len);
    let options = StepOptions { max_norm: Some(1.0), ..options(exec) };
    let mut step = || {
        let mut halves =
            [state.tensor(Param::from_halves(&mut high, &mut low), Grad::from(&grads))];
        let mut params = lion_params.iter_mut();
        let mut singles = lion_states
            .each_mut()
            .map(|state| state.tensor(params.next().expect("a tensor of each state"), &lion_grad));
        let mut doubles = [adopt_state.tensor(&mut double, &double_grad)];
        let mut groups = [
            Group::new(&adam, &mut halves),
            Group::new(&lion, &mut singles),
            Group::new(&adopt, &mut doubles),
        ];
        let report = adamant::step(&mut groups, &options).expect("a valid step");
        assert_eq!(report.outcome, Outcome::Taken);
    };
    step();
    let before = count();
    (0..10).for_each(|_| step());
    count() - before
}

fn exec(isa: Isa, threads: Threads<'_>) -> Exec<'_> {
    Exec { isa: Some(isa), threads }
}

fn here() -> usize {
    HERE.get()
}

#[test]
fn allocations_are_counted() {
    let before = here();
    drop(std::hint::black_box(vec![1]));
    assert_eq!(here(), before + 1);
}

#[test]
fn a_step_on_the_calling_thread_allocates_nothing() {
    for isa in Isa::available() {
        let [serial, parallel] = [exec(isa, Threads::Serial), exec(isa, Threads::Rayon)];
        assert_eq!(allocations(here, serial, 100_000), 0);
        assert_eq!(allocations(here, parallel, 1_000), 0);
        assert_eq!(row_allocations(here, serial, 3_000), 0);
        assert_eq!(group_allocations(here, serial, 10_000), 0);
    }
}

/// Asking the other thread of the pool is one allocation of rayon's for each pass of a step.
#[cfg(feature = "rayon")]
#[test]
fn a_step_inside_a_pool_of_rayon_allocates_one_request_a_pass_at_most() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2);
    let pool = pool.start_handler(|_| IS_IN_POOL.set(true)).build().expect("a pool");
    let in_pool = || IN_POOL.load(Relaxed);
    for isa in Isa::available() {
        let exec = exec(isa, Threads::Rayon);
        // Rayon sets up a thread's queue when it first steals or is stolen from. A step that allocates more would do
        // so in each group of ten.
        let in_one_pass = |_| pool.install(|| allocations(in_pool, exec, 1_000_000)) <= 10;
        assert!((0..20).any(in_one_pass), "{isa}");
        // Two calls a step.
        let in_two = |_| pool.install(|| row_allocations(in_pool, exec, 3_000)) <= 20;
        assert!((0..20).any(in_two), "{isa}");
        // The norm, and the step.
        let in_two = |_| pool.install(|| group_allocations(in_pool, exec, 40_000)) <= 20;
        assert!((0..20).any(in_two), "{isa}");
    }
}

#[test]
fn a_step_on_a_pool_of_our_own_allocates_nothing_on_any_thread() {
    let pool = Pool::new(3).expect("threads");
    let everywhere = || EVERYWHERE.load(Relaxed);
    for isa in Isa::available() {
        let exec = exec(isa, Threads::Pool(&pool));
        // Other tests allocate at the same time. A step that allocates would do so in each group of ten.
        assert!((0..100).any(|_| allocations(everywhere, exec, 300_000) == 0), "{isa}");
        assert!((0..100).any(|_| row_allocations(everywhere, exec, 3_000) == 0), "{isa}");
        assert!((0..100).any(|_| group_allocations(everywhere, exec, 300_000) == 0), "{isa}");
    }
}

/// Rayon boxes the job that it hands to the pool, and grows the queue of such jobs now and then.
#[test]
fn a_step_from_outside_a_pool_allocates_a_job_at_most() {
    for isa in Isa::available() {
        assert!(allocations(here, exec(isa, Threads::Rayon), 1_000_000) <= 20);
    }
}
