//! A step allocates nothing.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use adamant::{
    Adam, CatchUp, DenseEquivalent, Exec, Grad, Isa, MixedOptimizer, MixedTensor, Optimizer,
    Outcome, Param, Pass, RowGrads, RowOptimizer, RowScratch, Storage,
};
use half::bf16;

/// The system's allocator, counting.
struct Counting;

/// By the threads of the pool, together.
static IN_POOL: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// By this thread. The test runner's own thread, for one, allocates as it likes.
    static HERE: Cell<usize> = const { Cell::new(0) };
    /// Whether this is a thread of the pool.
    static IS_IN_POOL: Cell<bool> = const { Cell::new(false) };
}

#[allow(unsafe_code, reason = "a global allocator can't be had without")]
// SAFETY: every call is passed on as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HERE.set(HERE.get() + 1);
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

/// How many allocations ten steps of `len` parameters make, after one that warms up.
fn allocations(count: impl Fn() -> usize, exec: Exec, len: usize) -> usize {
    let adam = Adam::adamw();
    let (mut param, grad, mut state) = (vec![1.0_f32; len], vec![0.5; len], adam.state(len));
    let mut step = || adam.step_on(exec, &mut param, &grad, &mut state).expect("a valid step");
    step();
    let before = count();
    (0..10).for_each(|_| step());
    count() - before
}

/// The same for steps on rows of a table, lazy and dense-equivalent.
fn row_allocations(count: impl Fn() -> usize, exec: Exec, rows: usize) -> usize {
    let (adam, width) = (Adam::adamw(), 64);
    let ids: Vec<u32> = (0..rows as u32).rev().chain(0..rows as u32 / 4).collect();
    let values = vec![0.5; ids.len() * width];
    let (mut param, mut state) = (vec![1.0_f32; rows * width], adam.row_state(rows, width));
    let (mut scratch, mut t) = (RowScratch::default(), 0);
    let mut waiting = DenseEquivalent::new(rows, CatchUp::Series);
    let mut step = |count: usize| {
        let (ids, values) = (&ids[..count], &values[..count * width]);
        let grads = RowGrads::new(ids, values, width);
        t += 1;
        adam.step_rows_lazy_on(exec, t, state.table(&mut param, width), grads, &mut scratch)
            .expect("a valid step");
        let table = state.table(&mut param, width);
        adam.step_rows_dense_equivalent_on(exec, table, grads, &mut waiting).expect("a valid step");
    };
    step(ids.len());
    let before = count();
    // Few rows in between, so that the others have something to catch up with.
    (0..10).for_each(|turn| step(if turn % 5 == 4 { ids.len() } else { 3 }));
    count() - before
}

/// The same for steps in mixed precision, and the norms before them.
fn mixed_allocations(count: impl Fn() -> usize, exec: Exec, len: usize) -> usize {
    let adam = Adam::adamw();
    let (mut high, mut low) = (vec![bf16::ONE; len], vec![0; len]);
    let grads = vec![bf16::ONE; len];
    let mut state = adam.mixed_state_of(len, [Storage::Bf16, Storage::Q8]);
    let mut step = || {
        let tensor = state.tensor(Param::Split(&mut high, &mut low), Grad::Bf16(&grads));
        let norm = MixedTensor::grad_norm(exec, &[tensor]).expect("a norm");
        let pass = Pass { grad_norm: Some(norm), ..Pass::default() };
        let (param, grad) = (Param::Split(&mut high, &mut low), Grad::Bf16(&grads));
        assert_eq!(adam.step_with_on(exec, param, grad, pass, &mut state), Ok(Outcome::Taken));
    };
    step();
    let before = count();
    (0..10).for_each(|_| step());
    count() - before
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
        assert_eq!(allocations(here, Exec { isa, parallel: false }, 100_000), 0);
        assert_eq!(allocations(here, Exec { isa, parallel: true }, 1_000), 0);
        assert_eq!(row_allocations(here, Exec { isa, parallel: false }, 3_000), 0);
        assert_eq!(mixed_allocations(here, Exec { isa, parallel: false }, 10_000), 0);
    }
}

#[cfg(feature = "rayon")]
#[test]
fn a_step_inside_a_pool_allocates_nothing() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2);
    let pool = pool.start_handler(|_| IS_IN_POOL.set(true)).build().expect("a pool");
    let in_pool = || IN_POOL.load(Relaxed);
    for isa in Isa::available() {
        let exec = Exec { isa, parallel: true };
        // Rayon sets up a thread's queue when it first steals or is stolen from. A step that
        // allocates would do so in all of its tens.
        let none = |_| pool.install(|| allocations(in_pool, exec, 1_000_000)) == 0;
        assert!((0..20).any(none), "{isa}");
        let none = |_| pool.install(|| row_allocations(in_pool, exec, 3_000)) == 0;
        assert!((0..20).any(none), "{isa}");
        let none = |_| pool.install(|| mixed_allocations(in_pool, exec, 40_000)) == 0;
        assert!((0..20).any(none), "{isa}");
    }
}

/// Rayon boxes the job that it hands to the pool, and grows the queue of such jobs now and then.
#[test]
fn a_step_from_outside_a_pool_allocates_a_job_at_most() {
    for isa in Isa::available() {
        assert!(allocations(here, Exec { isa, parallel: true }, 1_000_000) <= 20);
    }
}
