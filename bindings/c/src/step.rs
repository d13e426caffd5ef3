//! Steps on tensors.

mod listed;
mod plain;
mod tensor;

use core::ptr;

use adamant::{Group, Outcome, Report, StepOptions, step};

pub(super) use tensor::{grad_of, moment_of};

use super::{
    exec::{Runner, adamant_exec},
    memory::{Claims, Place, adamant_array, adamant_type},
    optimizer::{adamant_optimizer, flag},
    room::with_all,
    status::{Failure, adamant_status, guarded},
    versioned::{self, versioned},
};
use listed::{Listed, tensors_of};
use plain::step_plain;

/// The most moments of an optimizer.
pub(super) const MOMENTS: usize = 4;
const _: () = assert!(MOMENTS == adamant::rule::MOMENTS);

/// One tensor of a call: arrays of one length, and the number of steps that the tensor has taken. Either all
/// arrays are ADAMANT_F64, and the step is computed in double; or each array has one of the other types that
/// its field lists, and the step is computed in float. Tensors of different types may be in one call.
///
/// Fill it with zeros and set `size`, or call `adamant_tensor_init`; then set the fields that you need. The
/// struct must have the fields up to `steps`; a smaller `size` means zeros for the others. All tensors of a
/// group have the same size.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct adamant_tensor {
    /// `sizeof(adamant_tensor)`.
    pub size: usize,
    /// The parameters, written: ADAMANT_F32, ADAMANT_F64, ADAMANT_BF16 or ADAMANT_F16. The latter two
    /// are rounded to nearest, ties to even, in each step.
    pub param: adamant_array,
    /// The gradient of the loss for each parameter: ADAMANT_F32, ADAMANT_F64, ADAMANT_BF16 or
    /// ADAMANT_F16.
    pub grad: adamant_array,
    /// The optimizer's moments, written, in the order of `adamant_describe_moment`: ADAMANT_F32,
    /// ADAMANT_F64, ADAMANT_BF16, ADAMANT_F16 or ADAMANT_Q8, of which the last three are rounded at
    /// random. Before the first step, `adamant_fill_moment` fills each one, mostly with zeros. A moment that
    /// the settings do not use is ADAMANT_NONE.
    pub moments: [adamant_array; 4],
    /// The number of steps that this tensor has taken: 0 before the first step. A call that takes a step
    /// adds one.
    pub steps: *mut u64,
    /// A second array for the parameters, written, or ADAMANT_NONE. ADAMANT_BF16 or ADAMANT_F16 with
    /// parameters in ADAMANT_F32: a copy of them, rounded to nearest, that each step writes.
    /// ADAMANT_LOW16 with parameters in ADAMANT_BF16: the lower half of the parameters, which are
    /// floats in two halves. The upper one is the float rounded to nearest bf16, ties away from zero;
    /// with the lower one as a signed number l, the bits of the float are those of the upper one times
    /// 2^16, plus l.
    pub param_extra: adamant_array,
    /// For each moment in ADAMANT_Q8 its scales, written, in ADAMANT_F32: `adamant_q8_scales(len)` of
    /// them. ADAMANT_NONE for the others.
    pub scales: [adamant_array; 4],
    /// The number of the first element among all elements of the model. The random bits of an element
    /// depend on its number. So a part of a tensor gets the same bits as the whole tensor does, and two
    /// tensors get different bits. Used only if use_first is 1.
    pub first: u64,
    /// Whether the step leaves a gradient of zeros (1) or as it was (0).
    pub zero_grad: u32,
    /// Whether parameters in ADAMANT_BF16 or ADAMANT_F16 are rounded at random (1) or to nearest (0).
    pub stochastic_param: u32,
    /// Whether `first` is used (1). If not (0), the number is that of the elements before this tensor in the
    /// call, through all groups, so that the tensors of a call have random bits of their own.
    pub use_first: u32,
    /// 0.
    pub reserved: u32,
}

versioned!(adamant_tensor: param_extra, scales, first, zero_grad, use_first);

/// Tensors that one optimizer steps with the same settings: one of PyTorch's `param_groups`. All groups of a
/// call have the same `size`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct adamant_group {
    /// `sizeof(adamant_group)`.
    pub size: usize,
    /// The optimizer.
    pub optimizer: *const adamant_optimizer,
    /// The tensors; null if there are none.
    pub tensors: *const adamant_tensor,
    /// The number of tensors.
    pub tensor_count: usize,
}

versioned!(adamant_group:);

/// The options of a call, for all its tensors: scaling and clipping of gradients, left-out steps. The
/// default is zeros in all fields but `size`, or a null pointer instead of the struct.
///
/// The fields up to `grad_factor` must be there; a smaller `size` gives the others their defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct adamant_step_options {
    /// `sizeof(adamant_step_options)`.
    pub size: usize,
    /// A factor of all gradients, to undo the scale of a loss or to average micro-batches: a normal number
    /// over 0, in float unless all tensors are ADAMANT_F64. 0 stands for 1; anything else is
    /// ADAMANT_OPTION, NaN included.
    pub grad_factor: f64,
    /// The largest norm of all gradients, after grad_factor: all gradients are multiplied by
    /// `adamant_clip_factor`, which is below 1 if the norm is over max_norm - 1e-6. The call computes the
    /// norm; if it is not finite, the step is left out. Over 0; 0 for no clipping.
    pub max_norm: f64,
    /// The norm of all gradients, before grad_factor, if the caller knows it: if a model is shared among
    /// processes, the norm over all processes. At least 0, infinite or NaN. If it is not finite, the step is
    /// left out. It is used only if use_grad_norm is 1.
    pub grad_norm: f64,
    /// The seed of random rounding.
    pub seed: u64,
    /// Whether grad_norm is used (1), or the norm is computed if it is needed (0).
    pub use_grad_norm: u32,
    /// Whether the step is left out if a gradient is not finite (1). A loss scaler needs this.
    pub skip_nonfinite: u32,
    /// If a step is left out: whether tensors with zero_grad keep their gradients (1), or have them zeroed as
    /// in any other step (0). A NaN that stays in a buffer of sums would make every later step be left out.
    pub keep_grads: u32,
    /// Whether moments that are subnormal (below 1.2e-38 in float) become 0 (1).
    pub flush_subnormals: u32,
}

versioned!(adamant_step_options: max_norm, grad_norm, seed, use_grad_norm, keep_grads);

/// The result of a step.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct adamant_report {
    /// `sizeof(adamant_report)`: set before the call.
    pub size: usize,
    /// The status that the call returned: ADAMANT_OK or ADAMANT_LEFT_OUT.
    pub outcome: u32,
    /// Whether grad_norm is known (1): it is if the options needed it.
    pub has_grad_norm: u32,
    /// The norm of all gradients, times grad_factor; 0 if it is not known.
    pub grad_norm: f64,
}

versioned!(adamant_report: grad_norm);

impl adamant_group {
    const NONE: Self = Self {
        size: size_of::<Self>(),
        optimizer: ptr::null(),
        tensors: ptr::null(),
        tensor_count: 0,
    };
}

impl adamant_report {
    const NONE: Self =
        Self { size: size_of::<Self>(), outcome: 0, has_grad_norm: 0, grad_norm: 0.0 };
}

impl adamant_step_options {
    const DEFAULT: Self = Self {
        size: size_of::<Self>(),
        grad_factor: 0.0,
        max_norm: 0.0,
        grad_norm: 0.0,
        seed: 0,
        use_grad_norm: 0,
        skip_nonfinite: 0,
        keep_grads: 0,
        flush_subnormals: 0,
    };

    /// From the caller's struct; the default if it is null.
    ///
    /// # Safety
    ///
    /// As [`versioned::size_of_struct`].
    #[inline(always)]
    pub(super) unsafe fn read<'a>(options: *const Self) -> Result<StepOptions<'a>, Failure> {
        if options.is_null() {
            return Ok(StepOptions::default());
        }
        // SAFETY: the same promise.
        let found = unsafe { versioned::read(options, "options", Self::DEFAULT)? };
        let Self { grad_factor, max_norm, grad_norm, seed, .. } = found;
        Ok(StepOptions {
            grad_factor: if grad_factor == 0.0 { 1.0 } else { grad_factor },
            max_norm: (max_norm != 0.0).then_some(max_norm),
            grad_norm: flag(found.use_grad_norm, "use_grad_norm")?.then_some(grad_norm),
            skip_nonfinite: flag(found.skip_nonfinite, "skip_nonfinite")?,
            keep_grads: flag(found.keep_grads, "keep_grads")?,
            flush_subnormals: flag(found.flush_subnormals, "flush_subnormals")?,
            seed,
            ..StepOptions::default()
        })
    }
}

/// # Steps on tensors
///
/// Fills in an empty tensor: all zeros but the size, which is `sizeof(adamant_tensor)`.
///
/// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for tensor, ADAMANT_STRUCT_SIZE for size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_tensor_init(
    tensor: *mut adamant_tensor,
    size: usize,
) -> adamant_status {
    // SAFETY: `size` bytes may be written: the caller's promise.
    guarded(|| unsafe { versioned::write(tensor, size, "tensor", adamant_tensor::NONE) })
}

/// Fills in the default: all zeros but the size, which is `sizeof(adamant_step_options)`.
///
/// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for options, ADAMANT_STRUCT_SIZE for size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_step_options_init(
    options: *mut adamant_step_options,
    size: usize,
) -> adamant_status {
    // SAFETY: `size` bytes may be written: the caller's promise.
    guarded(|| unsafe { versioned::write(options, size, "options", adamant_step_options::DEFAULT) })
}

/// Takes the next step of any number of tensors in any number of groups, and counts it in each tensor.
/// All tensors share one parallel region: large ones are cut, small ones are put together. The norm, clipping
/// and leaving out of the options are for the gradients of all tensors together. `options` and `exec` may be
/// null for their defaults; `report` may be null.
///
/// Infinities and NaN are not errors. They stay in their own element, except in moments in ADAMANT_Q8: a NaN
/// makes its whole block NaN, and beside an infinite element, or one that is larger by far, the others of the
/// block keep hardly any of their digits. With a learning rate of 0 a parameter of -0 may become 0. A call
/// takes less than 64 KiB of stack.
///
/// Returns ADAMANT_LEFT_OUT if the options made it leave the step out. Mistakes, besides those of every call:
/// ADAMANT_TYPE_MISMATCH, ADAMANT_LENGTH_MISMATCH, ADAMANT_TOO_MANY_MOMENTS, ADAMANT_UNUSED_MOMENT and
/// ADAMANT_SCALES_MISMATCH for arrays; ADAMANT_OPTION for options; ADAMANT_HYPER_PARAMETER and
/// ADAMANT_CONSTANT_OVERFLOW for settings; ADAMANT_STEP_OVERFLOW; ADAMANT_UNSUPPORTED for "rowwise_adam";
/// ADAMANT_UNKNOWN_ISA and ADAMANT_ISA_UNAVAILABLE. Messages count the tensors of a call through all
/// groups, from 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_step(
    groups: *const adamant_group,
    group_count: usize,
    options: *const adamant_step_options,
    exec: *const adamant_exec,
    report: *mut adamant_report,
) -> adamant_status {
    guarded(|| {
        // SAFETY: the structs and handles are what the caller promises, here and below.
        let is_done = options.is_null()
            && report.is_null()
            && unsafe { step_plain(groups, group_count, exec) };
        match is_done {
            true => Ok(Outcome::Taken),
            // SAFETY: the caller's promise.
            false => unsafe { step_any(groups, group_count, options, exec, report) },
        }
    })
}

/// Takes the step of any call. Not inlined: the stack that it takes would slow down plain calls.
///
/// # Safety
///
/// The structs and handles are what the caller of [`adamant_step`] promises.
#[inline(never)]
unsafe fn step_any(
    groups: *const adamant_group,
    group_count: usize,
    options: *const adamant_step_options,
    exec: *const adamant_exec,
    report: *mut adamant_report,
) -> Result<Outcome, Failure> {
    // SAFETY: the structs and handles are what the caller promises, here and below.
    let runner = unsafe { Runner::read(exec)? };
    // SAFETY: the caller's promise.
    let options = unsafe { adamant_step_options::read(options)? };
    let options = StepOptions { exec: runner.exec(), ..options };
    // SAFETY: the caller's promise.
    let claim = |claims: &mut Claims| unsafe { claim_all(groups, group_count, report, claims) };
    let mut claims = Claims::joining();
    let (reported, groups, count) = claim(&mut claims)?;
    if let Err(failure) = claims.check() {
        // Again, for the name of the array.
        let mut claims = Claims::new();
        claim(&mut claims)?;
        claims.check()?;
        return Err(failure);
    }

    let mut group_number = 0;
    let mut place = 0;
    let next = |number| {
        let (mut room, mut tensor_room) = (None, None);
        loop {
            let group = groups.get(group_number, adamant_group::NONE, &mut room);
            if place < group.tensor_count {
                // SAFETY: found to be tensors above.
                let size = unsafe { group.tensors.cast::<usize>().read() };
                let (start, count) = (group.tensors, group.tensor_count);
                let tensors = Listed { start, size, count };
                let tensor = tensors.get(place, adamant_tensor::NONE, &mut tensor_room);
                place += 1;
                // SAFETY: claimed, apart, and each made a tensor once.
                return unsafe { tensor.tensor(number) };
            }
            (group_number, place) = (group_number + 1, 0);
        }
    };
    let done = with_all(count, next, |tensors| {
        let mut rest = tensors;
        let group = |number| {
            let mut room = None;
            let group = groups.get(number, adamant_group::NONE, &mut room);
            let (mine, others) = core::mem::take(&mut rest).split_at_mut(group.tensor_count);
            rest = others;
            // SAFETY: a live handle: the caller's promise.
            let optimizer = unsafe { adamant_optimizer::read(group.optimizer)? };
            Ok(Group::new(optimizer.for_tensors()?, mine))
        };
        with_all(group_count, group, |groups| Ok(step(groups, &options)?))
    })?;
    // SAFETY: claimed as memory that is written.
    unsafe { put_report(report, reported, &done)? };
    Ok(done.outcome)
}

/// Claims all memory of a step. Returns the size of the report, the groups, and the number of tensors.
///
/// # Safety
///
/// As [`step_any`].
#[inline(always)]
unsafe fn claim_all(
    groups: *const adamant_group,
    group_count: usize,
    report: *mut adamant_report,
    claims: &mut Claims,
) -> Result<(Option<usize>, Listed<adamant_group>, usize), Failure> {
    // SAFETY: the caller's promise, here and below.
    let reported = unsafe { claim_report(report, claims)? };
    // SAFETY: as above.
    let groups = unsafe { Listed::new(groups, group_count, Place::of(&"groups"), claims)? };
    let mut count = 0;
    for number in 0..group_count {
        let (mut room, mut tensor_room) = (None, None);
        let group = groups.get(number, adamant_group::NONE, &mut room);
        // SAFETY: as above.
        unsafe { adamant_optimizer::read(group.optimizer)? }.for_tensors()?;
        // SAFETY: as above.
        let tensors = unsafe { tensors_of(group, number, claims)? };
        for index in 0..tensors.count {
            let tensor = tensors.get(index, adamant_tensor::NONE, &mut tensor_room);
            claims.begin_tensor();
            tensor.claim(claims, count)?;
            count += 1;
        }
    }
    Ok((reported, groups, count))
}

/// Checks the report of a call, and claims its memory; its size, if there is one.
///
/// # Safety
///
/// As [`versioned::size_of_struct`].
#[inline]
pub(super) unsafe fn claim_report(
    report: *mut adamant_report,
    claims: &mut Claims,
) -> Result<Option<usize>, Failure> {
    if report.is_null() {
        return Ok(None);
    }
    // SAFETY: the same promise.
    let size = unsafe { versioned::size_of_struct(report, "report")? };
    claims.claim_out(report.cast(), size, adamant_type::ADAMANT_Q8, Place::of(&"report"))?;
    Ok(Some(size))
}

/// Writes the report of a call, if there is one: its size.
///
/// # Safety
///
/// It was claimed by [`claim_report`], and the claims were found apart.
#[inline]
pub(super) unsafe fn put_report(
    report: *mut adamant_report,
    size: Option<usize>,
    done: &Report,
) -> Result<(), Failure> {
    let Some(size) = size else { return Ok(()) };
    let found = adamant_report {
        outcome: adamant_status::from(done.outcome) as u32,
        has_grad_norm: done.grad_norm.is_some().into(),
        grad_norm: done.grad_norm.unwrap_or(0.0),
        ..adamant_report::NONE
    };
    // SAFETY: the caller's promise.
    unsafe { versioned::write(report, size, "report", found) }
}
