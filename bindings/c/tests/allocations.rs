//! A step through C allocates nothing.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    mem, ptr,
};

use super::*;

/// The system's allocator, counting.
struct Counting;

thread_local! {
    /// By this thread.
    static HERE: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HERE.set(HERE.get() + 1);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn here() -> usize {
    HERE.get()
}

#[test]
fn a_step_allocates_nothing_refused_or_not() {
    const LEN: usize = 100;
    // SAFETY: zeros are valid for all of these; sizes are given; arrays are alive.
    unsafe {
        let mut hyper: adamant_hyper = mem::zeroed();
        let adam = adamant_optimizer::ADAMANT_ADAM as u32;
        let status = adamant_hyper_init(&mut hyper, size_of::<adamant_hyper>(), adam);
        assert_eq!(status, adamant_status::ADAMANT_OK);
        let mut exec: adamant_exec = mem::zeroed();
        exec.size = size_of::<adamant_exec>();
        exec.threads = adamant_threads::ADAMANT_THREADS_SERIAL as u32;

        for count in [1, 16, 256] {
            let mut arrays = vec![[[0.5_f32; LEN]; 4]; count];
            let array = |values: &mut [f32; LEN]| adamant_array {
                data: values.as_mut_ptr().cast(),
                len: LEN,
                r#type: adamant_type::ADAMANT_F32 as u32,
            };
            let tensors: Vec<_> = (arrays.iter_mut())
                .map(|[param, grad, exp_avg, exp_avg_sq]| {
                    let mut tensor: adamant_tensor = mem::zeroed();
                    tensor.size = size_of::<adamant_tensor>();
                    (tensor.param, tensor.grad) = (array(param), array(grad));
                    tensor.moments[0] = array(exp_avg);
                    tensor.moments[1] = array(exp_avg_sq);
                    tensor
                })
                .collect();
            let step = |t| adamant_step(&hyper, &exec, t, ptr::null(), tensors.as_ptr(), count);
            // The first call of a thread keeps room for what it compares.
            assert_eq!(step(1), adamant_status::ADAMANT_OK);
            let before = here();
            for t in 2..10 {
                assert_eq!(step(t), adamant_status::ADAMANT_OK);
            }
            assert_eq!(step(0), adamant_status::ADAMANT_ZERO_STEP);
            assert_eq!(here() - before, 0, "{count} tensors");
        }
    }
}
