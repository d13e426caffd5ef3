//! The step of a call with one tensor whose arrays are all `float` or all `double`, without options and report.
//!
//! For a few elements, what other calls need takes longer than the step. So this checks for itself, and what it does
//! not accept goes the general way, which finds the mistake. A new check of the general way must be made here, too.

use adamant::{Isa, rule::Float, step_slices};

use super::{
    super::{
        exec::{adamant_exec, adamant_threads, isa},
        memory::{self, adamant_array, adamant_type},
        optimizer::adamant_optimizer,
        versioned::{Versioned, is_pointer},
    },
    MOMENTS, adamant_group, adamant_tensor,
};

const F32: u32 = adamant_type::ADAMANT_F32 as u32;
const F64: u32 = adamant_type::ADAMANT_F64 as u32;

/// Takes the step and counts it. If the call is of another kind, or has a mistake, nothing has changed and the answer
/// is false.
///
/// # Safety
///
/// The structs and handles are what the caller of [`adamant_step`](super::adamant_step) promises, and no slice of the
/// arrays is alive.
#[inline(always)]
pub(super) unsafe fn step_plain(
    groups: *const adamant_group,
    count: usize,
    exec: *const adamant_exec,
) -> bool {
    // SAFETY: the caller's promise, here and below.
    let Some(isa) = (unsafe { isa_of(exec) }) else { return false };
    // SAFETY: as above.
    let Some((group, tensor)) = (unsafe { only_tensor(groups, count) }) else { return false };
    if !is_pointer(group.optimizer) || !is_plain(tensor) || !are_apart(group, tensor) {
        return false;
    }
    // SAFETY: a live handle, and arrays of this type, checked and apart.
    unsafe {
        match tensor.param.r#type {
            F32 => step_in::<f32>(&*group.optimizer, tensor, isa),
            _ => step_in::<f64>(&*group.optimizer, tensor, isa),
        }
    }
}

/// The instruction set of a call; `None` if its threads are a mistake, or another library's. Which others they are does
/// not matter, since small steps are not shared.
///
/// # Safety
///
/// As [`step_plain`].
#[inline(always)]
unsafe fn isa_of(exec: *const adamant_exec) -> Option<Option<Isa>> {
    const DEFAULT: u32 = adamant_threads::ADAMANT_THREADS_DEFAULT as u32;
    const SERIAL: u32 = adamant_threads::ADAMANT_THREADS_SERIAL as u32;
    const POOL: u32 = adamant_threads::ADAMANT_THREADS_POOL as u32;
    if exec.is_null() {
        return Some(None);
    }
    // SAFETY: the caller's promise.
    let adamant_exec { size: _, isa: number, threads, pool, tasks } =
        *unsafe { of_this_version(exec) }?;
    let has_threads = match threads {
        DEFAULT | SERIAL => pool.is_null(),
        POOL => is_pointer(pool),
        _ => false,
    };
    if !has_threads || !tasks.is_null() {
        return None;
    }
    isa(number).ok()
}

/// The only tensor of a call and its group, if their structs have all fields of this version, and no more.
///
/// # Safety
///
/// As [`step_plain`].
#[inline(always)]
unsafe fn only_tensor<'a>(
    groups: *const adamant_group,
    count: usize,
) -> Option<(&'a adamant_group, &'a adamant_tensor)> {
    if count != 1 {
        return None;
    }
    // SAFETY: the caller's promise, here and below.
    let group = unsafe { of_this_version(groups) }?;
    if group.tensor_count != 1 {
        return None;
    }
    // SAFETY: as above.
    Some((group, unsafe { of_this_version(group.tensors) }?))
}

/// A struct, if it has all fields of this version, and no more.
///
/// # Safety
///
/// A pointer that is neither null nor misaligned is to a struct that is as large as its first field says.
#[inline(always)]
unsafe fn of_this_version<'a, S: Versioned>(pointer: *const S) -> Option<&'a S> {
    // SAFETY: aligned, not null, and so readable up to its size: the caller's promise.
    unsafe {
        let is_whole = is_pointer(pointer) && pointer.cast::<usize>().read() == size_of::<S>();
        is_whole.then(|| &*pointer)
    }
}

/// Whether a tensor has parameters, gradients and moments of one type, `float` or `double`, and of one length, and sets
/// no other field. For such tensors, two ways leave out all other checks.
#[inline(always)]
pub(super) fn is_plain(tensor: &adamant_tensor) -> bool {
    // All fields, so that a new one is thought of here, too.
    let adamant_tensor {
        size: _,
        param,
        grad,
        moments,
        steps: _,
        param_extra,
        scales,
        first,
        zero_grad,
        stochastic_param,
        use_first,
        reserved,
    } = tensor;
    // Bits, so that all are tested by one branch.
    let bits = |array: &adamant_array| array.len as u64 | u64::from(array.r#type);
    let numbers = zero_grad | stochastic_param | use_first | reserved;
    let other = scales.iter().fold(first | u64::from(numbers), |all, array| all | bits(array));
    let is_alike = |array: &adamant_array| {
        (array.len ^ param.len) as u64 | u64::from(array.r#type ^ param.r#type) == 0
    };
    matches!(param.r#type, F32 | F64)
        && other | bits(param_extra) == 0
        && is_alike(grad)
        && moments.iter().all(|moment| is_alike(moment) || bits(moment) == 0)
}

/// Whether the arrays of a plain tensor are where arrays can be, and what is written overlaps nothing else.
#[inline(always)]
fn are_apart(group: &adamant_group, tensor: &adamant_tensor) -> bool {
    let adamant_tensor { param, grad, moments, steps, .. } = tensor;
    let size = if param.r#type == F64 { 8 } else { 4 };
    if param.len == 0 || param.len > isize::MAX as usize / size {
        return false;
    }
    let bytes = param.len * size;
    let (steps, of_steps) = (steps.addr(), size_of::<u64>());
    let (group, of_group) = ((&raw const *group).addr(), size_of::<adamant_group>());
    let (this, of_this) = ((&raw const *tensor).addr(), size_of::<adamant_tensor>());
    let grad = grad.data.addr();
    let is_number = is_at(steps, of_steps, of_steps)
        && apart(steps, of_steps, group, of_group)
        && apart(steps, of_steps, this, of_this);
    if !is_number || !is_at(grad, size, bytes) || !apart(steps, of_steps, grad, bytes) {
        return false;
    }
    let mut written = [0; 1 + MOMENTS];
    let mut count = 0;
    for array in [param].into_iter().chain(moments) {
        if array.len == 0 {
            continue;
        }
        let start = array.data.addr();
        let is_array = is_at(start, size, bytes)
            && apart(start, bytes, grad, bytes)
            && apart(start, bytes, steps, of_steps)
            && apart(start, bytes, group, of_group)
            && apart(start, bytes, this, of_this);
        if !is_array || written[..count].iter().any(|&other| !apart(start, bytes, other, bytes)) {
            return false;
        }
        written[count] = start;
        count += 1;
    }
    true
}

/// Whether there can be so many bytes, at least 1, at an address, of elements of this size.
#[inline(always)]
fn is_at(start: usize, size: usize, bytes: usize) -> bool {
    start & (size - 1) == 0 && start != 0 && start <= usize::MAX - bytes
}

/// Whether two pieces of memory, none of which is empty or goes beyond the last address, have nothing in common.
#[inline(always)]
fn apart(one: usize, of_one: usize, other: usize, of_other: usize) -> bool {
    // They overlap if `one - other` is above `-of_one` and below `of_other`.
    one.wrapping_sub(other).wrapping_add(of_one - 1) >= of_one + of_other - 1
}

/// Takes the step in one type.
///
/// # Safety
///
/// The arrays have this type, were checked, and are apart.
#[inline(always)]
unsafe fn step_in<F: Float + memory::Element>(
    optimizer: &adamant_optimizer,
    tensor: &adamant_tensor,
    isa: Option<Isa>,
) -> bool {
    let Ok(optimizer) = optimizer.for_tensors() else { return false };
    let adamant_tensor { param, grad, moments: [a, b, c, d], steps, .. } = tensor;
    // SAFETY: the caller's promise.
    unsafe {
        let moments = [a.slice_mut(), b.slice_mut(), c.slice_mut(), d.slice_mut()];
        step_slices::<F>(optimizer, param.slice_mut(), grad.slice(), moments, &mut **steps, isa)
    }
}

#[cfg(test)]
mod tests {
    use core::{ffi::CStr, ffi::c_char, ptr};

    use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

    use super::{
        super::super::{
            adamant_isa_is_available, adamant_last_error, adamant_optimizer_free,
            adamant_optimizer_new,
            exec::adamant_isa,
            memory::{Claims, Place},
            status::adamant_status,
        },
        super::{adamant_report, adamant_step},
        *,
    };

    const LEN: usize = 20;

    /// A plain call, of which a test may change anything.
    struct Call<F> {
        optimizer: *mut adamant_optimizer,
        /// Parameters, gradients and moments. Memory that has pointers to it is in vectors, since to move one is no use
        /// of its content.
        arrays: Vec<[F; LEN]>,
        steps: Vec<u64>,
        tensor: Vec<adamant_tensor>,
        group: adamant_group,
        exec: adamant_exec,
    }

    impl<F: Float> Call<F> {
        fn new(name: &CStr, moments: usize) -> Self {
            let name: *const c_char = name.as_ptr();
            let mut optimizer = ptr::null_mut();
            // SAFETY: a text, and a pointer to a pointer.
            let status = unsafe { adamant_optimizer_new(name, &mut optimizer) };
            assert_eq!(status, adamant_status::ADAMANT_OK);
            let mut arrays = vec![[F::from_f64(0.5); LEN]; 2 + MOMENTS];
            let (mut steps, mut tensor) = (vec![6], vec![adamant_tensor::NONE]);
            let start = arrays.as_mut_ptr();
            let array = |number| adamant_array {
                data: start.wrapping_add(number).cast(),
                len: LEN,
                r#type: if size_of::<F>() == 8 { F64 } else { F32 },
            };
            (tensor[0].param, tensor[0].grad) = (array(0), array(1));
            for number in 0..moments {
                tensor[0].moments[number] = array(2 + number);
            }
            tensor[0].steps = steps.as_mut_ptr();
            let (size, tensors) = (size_of::<adamant_group>(), tensor.as_ptr());
            let group = adamant_group { size, optimizer, tensors, tensor_count: 1 };
            let (size, isa) = (size_of::<adamant_exec>(), adamant_isa::ADAMANT_ISA_SELECTED as u32);
            let exec =
                adamant_exec { size, isa, threads: 1, pool: ptr::null(), tasks: ptr::null() };
            Self { optimizer, arrays, steps, tensor, group, exec }
        }

        /// Whether the call goes the short way.
        fn short(&self) -> bool {
            // SAFETY: structs, arrays and a handle that are alive, and used by nobody else.
            unsafe { step_plain(&self.group, 1, &self.exec) }
        }

        fn general(&self) -> adamant_status {
            // SAFETY: zeros are a report.
            let mut report: adamant_report = unsafe { core::mem::zeroed() };
            report.size = size_of::<adamant_report>();
            // SAFETY: as above.
            unsafe { adamant_step(&self.group, 1, ptr::null(), &self.exec, &mut report) }
        }

        fn memory(&self) -> (Vec<u64>, u64) {
            let bits = self.arrays.iter().flatten().map(|value| value.to_f64().to_bits());
            (bits.collect(), self.steps[0])
        }
    }

    impl<F> Drop for Call<F> {
        fn drop(&mut self) {
            // SAFETY: used no more.
            unsafe { adamant_optimizer_free(self.optimizer) }
        }
    }

    fn check_bits<F: Float>() {
        for (name, moments) in [(c"adam", 2), (c"adan", 4), (c"sgd", 0)] {
            let (short, general) = (Call::<F>::new(name, moments), Call::<F>::new(name, moments));
            for _ in 0..3 {
                assert!(short.short(), "{name:?}");
                assert_eq!(general.general(), adamant_status::ADAMANT_OK, "{name:?}");
            }
            assert_eq!(short.memory(), general.memory(), "{name:?}");
            assert_eq!(short.memory().1, 9);
        }
    }

    #[test]
    fn plain_calls_go_the_short_way_and_give_the_bits_of_the_general_one() {
        check_bits::<f32>();
        check_bits::<f64>();
    }

    #[test]
    fn what_is_not_plain_or_is_a_mistake_goes_the_general_way() {
        const Q8: u32 = adamant_type::ADAMANT_Q8 as u32;
        const U64: u32 = adamant_type::ADAMANT_U64 as u32;
        const TASKS: u32 = adamant_threads::ADAMANT_THREADS_TASKS as u32;
        let changes: &[fn(&mut Call<f32>)] = &[
            |call| call.exec.size -= 8,
            |call| call.exec.isa = 77,
            |call| call.exec.isa = lacking(),
            |call| call.exec.threads = 77,
            |call| call.exec.threads = TASKS,
            |call| call.exec.threads = adamant_threads::ADAMANT_THREADS_POOL as u32,
            |call| call.exec.pool = ptr::dangling(),
            |call| call.exec.tasks = ptr::dangling(),
            |call| call.group.size = 24,
            |call| call.group.optimizer = ptr::null(),
            |call| call.group.tensor_count = 0,
            |call| call.group.tensors = ptr::null(),
            |call| call.tensor[0].size -= 8,
            |call| call.tensor[0].param.len = 0,
            |call| call.tensor[0].param.len = LEN - 1,
            |call| call.tensor[0].param.len = usize::MAX,
            |call| call.tensor[0].param.r#type = F64,
            |call| call.tensor[0].param.r#type = U64,
            |call| call.tensor[0].param.data = ptr::null_mut(),
            |call| call.tensor[0].param.data = call.tensor[0].param.data.wrapping_byte_add(1),
            |call| call.tensor[0].param_extra.r#type = F32,
            |call| call.tensor[0].param_extra.len = LEN,
            |call| call.tensor[0].grad.len = LEN - 1,
            |call| call.tensor[0].grad.r#type = 0,
            |call| call.tensor[0].grad.data = ptr::null_mut(),
            |call| call.tensor[0].grad.data = call.tensor[0].param.data,
            |call| call.tensor[0].moments[0].len = LEN + 1,
            |call| call.tensor[0].moments[0].len = 0,
            |call| call.tensor[0].moments[0].r#type = Q8,
            |call| call.tensor[0].moments[0].data = call.tensor[0].moments[1].data,
            |call| call.tensor[0].moments[1] = adamant_array::NONE,
            |call| {
                call.tensor[0].moments[2] = adamant_array {
                    data: call.arrays[4].as_mut_ptr().cast(),
                    ..call.tensor[0].param
                }
            },
            |call| call.tensor[0].moments[3].r#type = F32,
            |call| call.tensor[0].scales[3].r#type = F32,
            |call| call.tensor[0].scales[0].len = LEN,
            |call| call.tensor[0].steps = ptr::null_mut(),
            |call| call.tensor[0].steps = call.tensor[0].steps.wrapping_byte_add(4),
            |call| call.tensor[0].steps = call.arrays[1].as_mut_ptr().cast(),
            |call| call.steps[0] = u64::MAX,
            |call| call.tensor[0].first = 1,
            |call| call.tensor[0].use_first = 1,
            |call| call.tensor[0].zero_grad = 1,
            |call| call.tensor[0].stochastic_param = 1,
            |call| call.tensor[0].reserved = 1,
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut call = Call::new(c"adam", 2);
            change(&mut call);
            let before = call.memory();
            assert!(!call.short(), "change {number}");
            assert_eq!(call.memory(), before, "change {number}");
        }
        for name in [c"rowwise_adam", c"rmsprop"] {
            assert!(!Call::<f32>::new(name, 2).short(), "{name:?}");
        }
        let call = Call::<f32>::new(c"adam", 2);
        // SAFETY: two groups are not read.
        assert!(unsafe {
            !step_plain(&call.group, 2, &call.exec) && !step_plain(ptr::null(), 1, &call.exec)
        });
    }

    /// Tensors in buffers for all of them, few or many: the mistake is of one tensor.
    #[test]
    fn an_overlap_names_the_arrays_of_tensors_whose_arrays_follow_each_other() {
        let call = Call::<f32>::new(c"adam", 2);
        for count in [3, 30] {
            let mut memory = vec![0.5_f32; 4 * count];
            let mut steps = vec![0; count];
            let (memory, steps) = (memory.as_mut_ptr(), steps.as_mut_ptr());
            let tensor = |number| {
                let array = |kind: usize| adamant_array {
                    data: memory.wrapping_add(kind * count + number).cast(),
                    len: 1,
                    r#type: F32,
                };
                let mut tensor = adamant_tensor::NONE;
                (tensor.param, tensor.grad) = (array(0), array(1));
                (tensor.moments[0], tensor.moments[1]) = (array(2), array(3));
                tensor.steps = steps.wrapping_add(number);
                tensor
            };
            let mut tensors: Vec<_> = (0..count).map(tensor).collect();
            let step = |tensors: &[adamant_tensor]| {
                let (tensors, tensor_count) = (tensors.as_ptr(), tensors.len());
                let group = adamant_group { tensors, tensor_count, ..call.group };
                // SAFETY: structs, arrays and a handle that are alive, and used by nobody else.
                unsafe { adamant_step(&group, 1, ptr::null(), &call.exec, ptr::null_mut()) }
            };
            assert_eq!(step(&tensors), adamant_status::ADAMANT_OK);
            tensors[2].moments[1] = tensors[1].param;
            assert_eq!(step(&tensors), adamant_status::ADAMANT_OVERLAP);
            // SAFETY: a text of this thread, which ends with a zero.
            let text = unsafe { CStr::from_ptr(adamant_last_error()) }.to_str().expect("UTF-8");
            let both = ["param of tensor 1 (4 bytes", "moments[1] of tensor 2 (4 bytes"];
            assert!(both.into_iter().all(|array| text.contains(array)), "{text}");
        }
    }

    /// An instruction set that this CPU lacks: none has those of both architectures.
    fn lacking() -> u32 {
        let sets = [adamant_isa::ADAMANT_ISA_AVX2, adamant_isa::ADAMANT_ISA_NEON];
        let mut numbers = sets.into_iter().map(|isa| isa as u32);
        numbers.find(|&isa| adamant_isa_is_available(isa) == 0).expect("a set of another CPU")
    }

    /// Addresses that are never used: any two may be the same, next to each other, or at the ends of memory.
    #[test]
    fn memory_is_refused_as_by_the_claims_of_other_calls() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let call = Call::<f64>::new(c"adan", 4);
        let mut accepted = 0;
        let count = if cfg!(miri) { 300 } else { 100_000 };
        for _ in 0..count {
            let (group, mut tensor) = (&call.group, call.tensor[0]);
            let this = (&raw const tensor).addr();
            let near = [this, (&raw const *group).addr(), 0, usize::MAX / 64 * 64, 1 << 20];
            let huge = isize::MAX as usize / 8 - rng.random_range(0..3);
            let len = if rng.random_ratio(1, 10) { huge } else { rng.random_range(1..20) };
            let (is_f64, used) = (rng.random(), rng.random_range(0..=MOMENTS));
            let mut address = || {
                let start = near[rng.random_range(0..near.len())];
                let offset = rng.random_range(-100_i32..100) as isize * 4;
                ptr::without_provenance_mut::<u8>(start.wrapping_add_signed(offset))
            };
            tensor.steps = address().cast();
            let mut array = || adamant_array {
                data: address().cast(),
                len,
                r#type: if is_f64 { F64 } else { F32 },
            };
            (tensor.param, tensor.grad) = (array(), array());
            for (number, moment) in tensor.moments.iter_mut().enumerate() {
                *moment = if number < used { array() } else { adamant_array::NONE };
            }
            assert!(is_plain(&tensor));
            let mut claims = Claims::new();
            claims.note((&raw const *group).addr(), size_of_val(group), Place::of(&"groups"));
            claims.note(this, size_of_val(&tensor), Place::of(&"tensors"));
            let is_general = tensor.claim(&mut claims, 0).and_then(|()| claims.check()).is_ok();
            assert_eq!(are_apart(group, &tensor), is_general, "{tensor:?}");
            accepted += u32::from(is_general);
        }
        assert!(accepted > count / 100, "{accepted} of {count}");
    }
}
