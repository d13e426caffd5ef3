//! A step through C allocates nothing, but for what the header lists.

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
            let mut arrays = vec![0.5_f32; 4 * count * LEN];
            let arrays = arrays.as_mut_ptr();
            let array = |number: usize| adamant_array {
                data: arrays.wrapping_add(number * LEN).cast(),
                len: LEN,
                r#type: adamant_type::ADAMANT_F32 as u32,
            };
            let mut steps = vec![0; count];
            let steps = steps.as_mut_ptr();
            // Arrays of a kind follow each other, or those of a tensor do.
            let tensors = |by_kind: bool| -> Vec<adamant_tensor> {
                let tensor = |number| {
                    let [param, grad, exp_avg, exp_avg_sq] =
                        [0, 1, 2, 3].map(|kind| match by_kind {
                            true => array(kind * count + number),
                            false => array(4 * number + kind),
                        });
                    let mut tensor: adamant_tensor = mem::zeroed();
                    tensor.size = size_of::<adamant_tensor>();
                    (tensor.param, tensor.grad) = (param, grad);
                    (tensor.moments[0], tensor.moments[1]) = (exp_avg, exp_avg_sq);
                    tensor.steps = steps.wrapping_add(number);
                    tensor
                };
                (0..count).map(tensor).collect()
            };
            let groups = |tensors: &[adamant_tensor]| -> Vec<adamant_group> {
                let group = |tensors: &[adamant_tensor]| adamant_group {
                    size: size_of::<adamant_group>(),
                    optimizer,
                    tensors: tensors.as_ptr(),
                    tensor_count: tensors.len(),
                };
                tensors.chunks(8).map(group).collect()
            };
            let step = |groups: &[adamant_group], options: *const adamant_step_options| {
                adamant_step(groups.as_ptr(), groups.len(), options, &exec, ptr::null_mut())
            };
            let (by_kind, by_tensor) = (tensors(true), tensors(false));
            let (mut lacking, mut twice) = (by_kind.clone(), by_kind.clone());
            lacking[count - 1].grad.data = ptr::null_mut();
            twice[count - 1].moments[1] = twice[0].param;
            let (by_kind, by_tensor) = (groups(&by_kind), groups(&by_tensor));
            let (lacking, twice) = (groups(&lacking), groups(&twice));
            // The first call of a thread allocates memory for the tensors and for checks, and keeps it.
            assert_eq!(step(&by_kind, ptr::null()), adamant_status::ADAMANT_OK);
            let mut options: adamant_step_options = mem::zeroed();
            (options.size, options.max_norm) = (size_of::<adamant_step_options>(), -1.0);
            let before = here();
            for _ in 2..10 {
                assert_eq!(step(&by_kind, ptr::null()), adamant_status::ADAMANT_OK);
                assert_eq!(step(&by_tensor, ptr::null()), adamant_status::ADAMANT_OK);
                assert_eq!(step(&by_kind, &options), adamant_status::ADAMANT_OPTION);
                assert_eq!(step(&lacking, ptr::null()), adamant_status::ADAMANT_NULL_POINTER);
                assert_eq!(step(&twice, ptr::null()), adamant_status::ADAMANT_OVERLAP);
            }
            assert_eq!(here() - before, 0, "{count} tensors");
        }
        adamant_optimizer_free(optimizer);
    }
}

#[test]
#[cfg_attr(miri, ignore = "other tests take the same steps")]
fn a_step_on_rows_allocates_for_its_handles_only() {
    const LEN: usize = 320;
    // SAFETY: zeros are valid for all of these; sizes are given; arrays are alive.
    unsafe {
        let (mut optimizer, mut scratch, mut waiting) =
            (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        let ok = |status| assert_eq!(status, adamant_status::ADAMANT_OK);
        ok(adamant_optimizer_new(c"adam".as_ptr(), &mut optimizer));
        ok(adamant_row_scratch_new(&mut scratch));
        ok(adamant_dense_equivalent_new(LEN / 4, 1, 0, &mut waiting));
        let mut exec: adamant_exec = mem::zeroed();
        exec.size = size_of::<adamant_exec>();
        exec.threads = adamant_threads::ADAMANT_THREADS_SERIAL as u32;

        let mut arrays = [[0.5_f32; LEN]; 4];
        // In descending order, so that they are sorted.
        let mut rows = [78_u32, 40, 40, 1];
        let array = |data: *mut f32, len, element: adamant_type| adamant_array {
            data: data.cast(),
            len,
            r#type: element as u32,
        };
        let [param, exp_avg, exp_avg_sq, values] = arrays
            .each_mut()
            .map(|values| array(values.as_mut_ptr(), LEN, adamant_type::ADAMANT_F32));
        let mut table: adamant_table = mem::zeroed();
        (table.size, table.width) = (size_of::<adamant_table>(), 4);
        (table.param, table.moments[0], table.moments[1]) = (param, exp_avg, exp_avg_sq);
        let mut grads: adamant_row_grads = mem::zeroed();
        (grads.size, grads.width) = (size_of::<adamant_row_grads>(), 4);
        grads.rows = array(rows.as_mut_ptr().cast(), rows.len(), adamant_type::ADAMANT_U32);
        grads.values = adamant_array { len: 4 * rows.len(), ..values };

        let lazy = |scratch| {
            let (options, report) = (ptr::null(), ptr::null_mut());
            ok(adamant_step_rows_lazy(
                optimizer, 1, &table, &grads, scratch, options, &exec, report,
            ));
        };
        let dense_equivalent = || {
            let (options, report) = (ptr::null(), ptr::null_mut());
            ok(adamant_step_rows_dense_equivalent(
                optimizer, &table, &grads, waiting, options, &exec, report,
            ));
        };
        let count = |run: &dyn Fn()| {
            let before = here();
            run();
            here() - before
        };
        assert!(count(&|| lazy(ptr::null_mut())) > 0);
        assert!(count(&|| lazy(scratch)) > 0);
        assert!(count(&dense_equivalent) > 0);
        for _ in 0..10 {
            assert_eq!(count(&|| lazy(scratch)), 0);
            assert_eq!(count(&dense_equivalent), 0);
        }
        adamant_dense_equivalent_free(waiting);
        adamant_row_scratch_free(scratch);
        adamant_optimizer_free(optimizer);
    }
}
