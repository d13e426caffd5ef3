//! A step allocates nothing.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use adamant::{Adam, Exec, Isa, Optimizer};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code, reason = "a global allocator can't be had without")]
// SAFETY: every call is passed on as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
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
fn allocations(exec: Exec, len: usize) -> usize {
    let adam = Adam::adamw();
    let (mut param, grad, mut state) = (vec![1.0_f32; len], vec![0.5; len], adam.state(len));
    let mut step = || adam.step_on(exec, &mut param, &grad, &mut state).expect("a valid step");
    step();
    let before = ALLOCATIONS.load(Relaxed);
    (0..10).for_each(|_| step());
    ALLOCATIONS.load(Relaxed) - before
}

/// One test: another one's allocations would be counted too.
#[test]
fn a_step_allocates_nothing() {
    for isa in Isa::available() {
        assert_eq!(allocations(Exec { isa, parallel: false }, 100_000), 0);
        assert_eq!(allocations(Exec { isa, parallel: true }, 1_000), 0);

        #[cfg(feature = "rayon")]
        {
            let exec = Exec { isa, parallel: true };
            let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("a pool");
            // Rayon's queue of each thread grows once to the size that is needed.
            pool.install(|| allocations(exec, 1_000_000));
            assert_eq!(pool.install(|| allocations(exec, 1_000_000)), 0, "inside a pool");
            // From outside, rayon itself boxes the job that it hands to the pool, and grows the
            // queue of such jobs now and then.
            assert!(allocations(exec, 1_000_000) <= 20, "outside a pool");
        }
    }
}
