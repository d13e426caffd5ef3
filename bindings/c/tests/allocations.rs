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
#[cfg_attr(miri, ignore = "takes minutes there, and other tests take the same steps")]
fn a_step_allocates_nothing_refused_or_not() {
    const LEN: usize = 100;
    // SAFETY: zeros are valid for all of these; sizes are given; arrays are alive.
    unsafe {
        let mut optimizer = ptr::null_mut();
        let status = adamant_optimizer_new(c"adam".as_ptr(), &mut optimizer);
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
            let mut steps = vec![0; count];
            let tensors: Vec<_> = (arrays.iter_mut().zip(&mut steps))
                .map(|([param, grad, exp_avg, exp_avg_sq], steps)| {
                    let mut tensor: adamant_tensor = mem::zeroed();
                    tensor.size = size_of::<adamant_tensor>();
                    (tensor.param, tensor.grad) = (array(param), array(grad));
                    tensor.moments[0] = array(exp_avg);
                    tensor.moments[1] = array(exp_avg_sq);
                    tensor.steps = steps;
                    tensor
                })
                .collect();
            let groups: Vec<_> = (tensors.chunks(8))
                .map(|tensors| adamant_group {
                    size: size_of::<adamant_group>(),
                    optimizer,
                    tensors: tensors.as_ptr(),
                    tensor_count: tensors.len(),
                })
                .collect();
            let step = |options: *const adamant_step_options| {
                adamant_step(groups.as_ptr(), groups.len(), options, &exec, ptr::null_mut())
            };
            // The first call of a thread allocates memory for the tensors and for checks, and keeps it.
            assert_eq!(step(ptr::null()), adamant_status::ADAMANT_OK);
            let mut options: adamant_step_options = mem::zeroed();
            (options.size, options.max_norm) = (size_of::<adamant_step_options>(), -1.0);
            let before = here();
            for _ in 2..10 {
                assert_eq!(step(ptr::null()), adamant_status::ADAMANT_OK);
            }
            assert_eq!(step(&options), adamant_status::ADAMANT_OPTION);
            assert_eq!(here() - before, 0, "{count} tensors");
        }
        adamant_optimizer_free(optimizer);
    }
}
