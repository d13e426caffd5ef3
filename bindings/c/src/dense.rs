//! Steps on tensors.

use core::array;

use super::{
    exec::{Runner, adamant_exec},
    hyper::{WithRule, adamant_hyper, flag, with_rule},
    memory::{Claims, Element, Place, adamant_array, adamant_type},
    status::{Failure, adamant_status, guarded, refuse},
    versioned::{self, versioned},
};
use adamant::{
    Arity, Float, Grad, MixedOptimizer, MixedTensor, Moment, Optimizer, Outcome, Param, Pass, Rule,
    Tensor,
};

/// One tensor of a call: arrays that are all of one length. All arrays in ADAMANT_F64, or each of
/// any other type that is given here; steps are computed in double if all are, or else in float.
///
/// Fill it with zeros and set `size`, or call `adamant_tensor_init`; then set what there is. The
/// first 128 bytes must be there; a smaller `size` means zeros for the other fields. All tensors of a
/// call have the same size.
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
    /// The optimizer's moments, written, in the order of `adamant_optimizer`: ADAMANT_F32,
    /// ADAMANT_F64, ADAMANT_BF16 or ADAMANT_Q8, of which the latter two are rounded at random. Before
    /// the first step each holds what `adamant_fill_moment` writes: zeros mostly. One that the
    /// hyper-parameters do without is ADAMANT_NONE.
    pub moments: [adamant_array; 3],
    /// What goes with the parameters, written, or ADAMANT_NONE. ADAMANT_BF16 or ADAMANT_F16 with
    /// parameters in ADAMANT_F32: a copy of them, rounded to nearest, that each step writes.
    /// ADAMANT_LOW16 with parameters in ADAMANT_BF16: the lower half of the parameters, which are
    /// floats in two halves. The upper one is the float rounded to nearest bf16, ties away from zero;
    /// with the lower one as a signed number l, the bits of the float are those of the upper one times
    /// 2^16, plus l.
    pub param_extra: adamant_array,
    /// For each moment in ADAMANT_Q8 its scales, written, in ADAMANT_F32: `adamant_q8_scales(len)` of
    /// them. ADAMANT_NONE for the others.
    pub scales: [adamant_array; 3],
    /// The number of the first element among all elements of the model: random bits go by it, so that
    /// a tensor of which a part is passed gets the same ones.
    pub first: u64,
    /// Whether the step leaves a gradient of zeros (1) or as it was (0).
    pub zero_grad: u32,
    /// Whether parameters in ADAMANT_BF16 are rounded at random (1) or to nearest (0).
    pub stochastic_param: u32,
}

versioned!(adamant_tensor: param_extra, scales, first, zero_grad);

/// What a step does on its way, for tensors in float and less. All zeros but the size and
/// `grad_factor = 1` is the default, as is a null pointer in its place.
///
/// The first 16 bytes must be there; a smaller `size` gives the other fields their defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct adamant_pass {
    /// `sizeof(adamant_pass)`.
    pub size: usize,
    /// What gradients are multiplied by as they are read: to undo the scale of a loss, to clip
    /// (`adamant_clip_factor`), to average. Finite in float.
    pub grad_factor: f64,
    /// The norm of all gradients, times any factor; counts with `use_grad_norm` alone.
    pub grad_norm: f64,
    /// Whether the step is left out, with ADAMANT_LEFT_OUT, where grad_norm is infinite or NaN.
    pub use_grad_norm: u32,
    /// Whether moments that are subnormal (below 1.2e-38) become 0: many CPUs take long for them.
    pub flush_subnormals: u32,
    /// What random bits begin with.
    pub seed: u64,
}

versioned!(adamant_pass: grad_norm, use_grad_norm, seed);

impl adamant_pass {
    /// The default.
    fn new() -> Self {
        let Pass { grad_factor, grad_norm, flush_subnormals, seed } = Pass::default();
        Self {
            size: size_of::<Self>(),
            grad_factor,
            grad_norm: grad_norm.unwrap_or(0.0),
            use_grad_norm: grad_norm.is_some().into(),
            flush_subnormals: flush_subnormals.into(),
            seed,
        }
    }

    /// From the caller's struct; the default if it is null.
    ///
    /// # Safety
    ///
    /// As [`versioned::size_of_struct`].
    #[inline(always)]
    unsafe fn read(pass: *const Self) -> Result<Pass, Failure> {
        if pass.is_null() {
            return Ok(Pass::default());
        }
        // SAFETY: the same promise.
        let found = unsafe { versioned::read(pass, "pass", Self::new())? };
        let Self { grad_factor, grad_norm, seed, .. } = found;
        let grad_norm = flag(found.use_grad_norm, "use_grad_norm")?.then_some(grad_norm);
        let flush_subnormals = flag(found.flush_subnormals, "flush_subnormals")?;
        Ok(Pass { grad_factor, grad_norm, flush_subnormals, seed })
    }
}

/// What a call computes in, and how.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Precision {
    /// Everything in `f32`.
    F32,
    F64,
    /// In `f32`, from other types and to them.
    Mixed,
}

/// The most moments of an optimizer.
const MOMENTS: usize = 3;

impl adamant_tensor {
    const NONE: Self = Self {
        size: size_of::<Self>(),
        param: adamant_array::NONE,
        grad: adamant_array::NONE,
        moments: [adamant_array::NONE; MOMENTS],
        param_extra: adamant_array::NONE,
        scales: [adamant_array::NONE; MOMENTS],
        first: 0,
        zero_grad: 0,
        stochastic_param: 0,
    };

    /// Claims the memory of all arrays, and checks that their types go together.
    #[inline]
    fn claim(&self, claims: &mut Claims, tensor: usize) -> Result<Precision, Failure> {
        use adamant_type::*;
        let place = |name| Place::of(name).of_tensor(tensor);
        let zero_grad = flag(self.zero_grad, "zero_grad")?;
        let stochastic = flag(self.stochastic_param, "stochastic_param")?;
        let param = claims.claim(&self.param, true, place(&"param"))?;
        let extra = claims.claim(&self.param_extra, true, place(&"param_extra"))?;
        let grad = claims.claim(&self.grad, zero_grad, place(&"grad"))?;
        let mut precision = match (param, extra, grad) {
            (ADAMANT_F32, ADAMANT_NONE, ADAMANT_F32) if !zero_grad => Precision::F32,
            (ADAMANT_F64, ADAMANT_NONE, ADAMANT_F64) if !zero_grad => Precision::F64,
            (
                ADAMANT_F32,
                ADAMANT_NONE | ADAMANT_BF16 | ADAMANT_F16,
                ADAMANT_F32 | ADAMANT_BF16 | ADAMANT_F16,
            )
            | (
                ADAMANT_BF16,
                ADAMANT_NONE | ADAMANT_LOW16,
                ADAMANT_F32 | ADAMANT_BF16 | ADAMANT_F16,
            )
            | (ADAMANT_F16, ADAMANT_NONE, ADAMANT_F32 | ADAMANT_BF16 | ADAMANT_F16) => {
                Precision::Mixed
            }
            (ADAMANT_F64, ADAMANT_NONE, ADAMANT_F64) => refuse!(
                ADAMANT_TYPE_MISMATCH,
                "zero_grad of tensor {tensor} is 1, but its arrays are ADAMANT_F64"
            ),
            _ => refuse!(
                ADAMANT_TYPE_MISMATCH,
                "tensor {tensor} has a param in {param:?}, a param_extra in {extra:?} and a grad in \
                 {grad:?}, which do not go together"
            ),
        };
        if stochastic && (param, extra) != (ADAMANT_BF16, ADAMANT_NONE) {
            refuse!(
                ADAMANT_TYPE_MISMATCH,
                "stochastic_param of tensor {tensor} is 1, but its param is {param:?} with {extra:?}"
            );
        }
        for (number, (moment, scales)) in self.moments.iter().zip(&self.scales).enumerate() {
            let place = |name| place(name).number(number);
            let found = claims.claim(moment, true, place(&"moments"))?;
            precision = match (found, precision) {
                (ADAMANT_NONE, precision) => precision,
                (ADAMANT_F32, Precision::F32) => Precision::F32,
                (ADAMANT_F64, Precision::F64) => Precision::F64,
                (ADAMANT_F32 | ADAMANT_BF16 | ADAMANT_Q8, Precision::F32 | Precision::Mixed) => {
                    Precision::Mixed
                }
                _ => refuse!(
                    ADAMANT_TYPE_MISMATCH,
                    "{} is {found:?}, which does not go with a param in {param:?}",
                    place(&"moments")
                ),
            };
            let of_scales = claims.claim(scales, true, place(&"scales"))?;
            match (found, of_scales) {
                (ADAMANT_Q8, ADAMANT_F32 | ADAMANT_NONE) | (_, ADAMANT_NONE) => {}
                _ => refuse!(
                    ADAMANT_TYPE_MISMATCH,
                    "{} is {of_scales:?}, but moments[{number}] is {found:?}",
                    place(&"scales")
                ),
            }
        }
        Ok(precision)
    }

    /// Fails if there are more moments than the optimizer has.
    #[inline]
    fn check_count<R: Rule>(&self, tensor: usize) -> Result<(), Failure> {
        let count = R::MOMENT_NAMES.as_ref().len();
        for (number, moment) in self.moments.iter().enumerate().skip(count) {
            if moment.len > 0 {
                refuse!(
                    ADAMANT_UNUSED_MOMENT,
                    "moments[{number}] of tensor {tensor} has {} elements, but the optimizer has \
                     {count} moments",
                    moment.len
                );
            }
        }
        Ok(())
    }

    /// As one of Rust's.
    ///
    /// # Safety
    ///
    /// All arrays were claimed as `F`, the claims were found apart, and no other tensor of this one's
    /// arrays is alive.
    #[inline]
    unsafe fn plain<'a, R: Rule, F: Float + Element>(&self) -> Tensor<'a, R, F> {
        // SAFETY: the caller's promise, for this one and those below.
        let param = unsafe { self.param.slice_mut() };
        // SAFETY: the caller's promise.
        let grad = unsafe { self.grad.slice() };
        // SAFETY: the caller's promise.
        let moments = R::Moments::from_fn(|number| unsafe { self.moments[number].slice_mut() });
        Tensor { param, grad, moments }
    }

    /// As one of Rust's.
    ///
    /// # Safety
    ///
    /// All arrays were claimed and found to go together, the claims were found apart, and no other
    /// tensor of this one's arrays is alive.
    unsafe fn mixed<'a, R: Rule>(&self) -> MixedTensor<'a, R> {
        use adamant_type::*;
        let is = |array: &adamant_array, element: adamant_type| array.r#type == element as u32;
        let Self { param, param_extra: extra, grad, first, .. } = *self;
        // SAFETY: the caller's promise, for all slices below; their types are those that were claimed.
        let param = unsafe {
            if is(&param, ADAMANT_F32) {
                if is(&extra, ADAMANT_BF16) {
                    Param::F32AndBf16(param.slice_mut(), extra.slice_mut())
                } else if is(&extra, ADAMANT_F16) {
                    Param::F32AndF16(param.slice_mut(), extra.slice_mut())
                } else {
                    Param::F32(param.slice_mut())
                }
            } else if is(&param, ADAMANT_F16) {
                Param::F16(param.slice_mut())
            } else if is(&extra, ADAMANT_LOW16) {
                Param::Split(param.slice_mut(), extra.slice_mut())
            } else if self.stochastic_param == 1 {
                Param::Bf16Stochastic(param.slice_mut())
            } else {
                Param::Bf16(param.slice_mut())
            }
        };
        // SAFETY: as above; written only if it was claimed to be.
        let grad = unsafe {
            match (self.zero_grad == 1, is(&grad, ADAMANT_F32), is(&grad, ADAMANT_BF16)) {
                (false, true, _) => Grad::F32(grad.slice()),
                (false, false, true) => Grad::Bf16(grad.slice()),
                (false, false, false) => Grad::F16(grad.slice()),
                (true, true, _) => Grad::F32ToZero(grad.slice_mut()),
                (true, false, true) => Grad::Bf16ToZero(grad.slice_mut()),
                (true, false, false) => Grad::F16ToZero(grad.slice_mut()),
            }
        };
        let moments = R::Moments::from_fn(|number| {
            let (moment, scales) = (self.moments[number], self.scales[number]);
            // SAFETY: as above.
            unsafe {
                if is(&moment, ADAMANT_Q8) {
                    Moment::Q8(moment.slice_mut(), scales.slice_mut())
                } else if is(&moment, ADAMANT_BF16) {
                    Moment::Bf16(moment.slice_mut())
                } else {
                    Moment::F32(moment.slice_mut())
                }
            }
        });
        MixedTensor { param, grad, moments, first }
    }
}

/// The tensors of a call, as the caller has them.
#[derive(Clone, Copy)]
struct Listed {
    tensors: *const adamant_tensor,
    /// The size of each, which may be that of another version.
    size: usize,
    count: usize,
}

impl Listed {
    /// # Safety
    ///
    /// `tensors` is to `count` tensors, each as large as the first one's size.
    unsafe fn new(tensors: *const adamant_tensor, count: usize) -> Result<Self, Failure> {
        if count == 0 {
            return Ok(Self { tensors, size: 0, count });
        }
        // SAFETY: the caller's promise, as there is one.
        let size = unsafe { versioned::size_of_struct(tensors, "tensors")? };
        if size % align_of::<adamant_tensor>() != 0 {
            refuse!(ADAMANT_STRUCT_SIZE, "the size of tensors is {size}, which is no whole words");
        }
        let bytes = size.checked_mul(count).filter(|&bytes| bytes <= isize::MAX as usize);
        if bytes.and_then(|bytes| tensors.addr().checked_add(bytes)).is_none() {
            refuse!(
                ADAMANT_TOO_LARGE,
                "{count} tensors of {size} bytes are more than memory can be"
            );
        }
        for index in 1..count {
            let tensor = tensors.wrapping_byte_add(index * size);
            // SAFETY: within the array of tensors.
            let found = unsafe { versioned::size_of_struct(tensor, "a tensor")? };
            if found != size {
                refuse!(
                    ADAMANT_STRUCT_SIZE,
                    "the size of tensor {index} is {found}, but that of tensor 0 is {size}"
                );
            }
        }
        Ok(Self { tensors, size, count })
    }

    /// A tensor; copied into `room` only if it is of an earlier version.
    #[inline]
    fn get(self, index: usize, room: &mut Option<adamant_tensor>) -> &adamant_tensor {
        debug_assert!(index < self.count);
        let tensor = self.tensors.wrapping_byte_add(index * self.size);
        if self.size >= size_of::<adamant_tensor>() {
            // SAFETY: within the array of tensors, by `new`, which nobody writes while the call runs: the
            // caller's promise, and the call's claims.
            return unsafe { &*tensor };
        }
        // SAFETY: as above.
        room.insert(unsafe { versioned::read_sized(tensor, self.size, adamant_tensor::NONE) })
    }
}

/// Runs with `count` things, in memory that is allocated only where they are many.
pub(super) fn with_all<T, Out>(
    count: usize,
    get: impl Fn(usize) -> T,
    empty: impl Fn() -> T,
    run: impl FnOnce(&mut [T]) -> Out,
) -> Out {
    /// Not inlined: nobody pays for the stack of another.
    #[inline(never)]
    fn on_stack<const N: usize, T, Out>(
        count: usize,
        get: impl Fn(usize) -> T,
        empty: impl Fn() -> T,
        run: impl FnOnce(&mut [T]) -> Out,
    ) -> Out {
        let mut all: [T; N] =
            array::from_fn(|index| if index < count { get(index) } else { empty() });
        run(&mut all[..count])
    }

    match count {
        1 => run(&mut [get(0)]),
        0..=16 => on_stack::<16, _, _>(count, get, empty, run),
        17..=256 => on_stack::<256, _, _>(count, get, empty, run),
        _ => run(&mut (0..count).map(get).collect::<Vec<_>>()),
    }
}

/// A call whose arrays are checked; none of them is a slice yet.
struct Call<'a> {
    runner: Runner<'a>,
    t: u64,
    pass: Pass,
    precision: Precision,
    listed: Listed,
    /// The parameters of all tensors.
    len: usize,
}

impl Call<'_> {
    fn plain<R: Rule, F: Float + Element>(&self, rule: R) -> Result<Outcome, Failure> {
        let Self { ref runner, t, listed, len, .. } = *self;
        with_all(
            listed.count,
            // SAFETY: claimed, by `precision`, apart, and each once.
            |index| unsafe { listed.get(index, &mut None).plain::<R, F>() },
            || Tensor {
                param: &mut [],
                grad: &[],
                moments: R::Moments::from_fn(|_| Default::default()),
            },
            |tensors| runner.run(len, &mut |exec| rule.step_many_on(exec, t, tensors)),
        )?;
        Ok(Outcome::Taken)
    }

    fn mixed<R: Rule>(&self, rule: R) -> Result<Outcome, Failure> {
        let Self { ref runner, t, pass, listed, len, .. } = *self;
        let mut outcome = Outcome::Taken;
        with_all(
            listed.count,
            // SAFETY: claimed, by `precision`, apart, and each once.
            |index| unsafe { listed.get(index, &mut None).mixed::<R>() },
            // SAFETY: no arrays.
            || unsafe { adamant_tensor::NONE.mixed() },
            |tensors| {
                runner.run(len, &mut |exec| {
                    outcome = rule.step_mixed(exec, t, pass, tensors)?;
                    Ok(())
                })
            },
        )?;
        Ok(outcome)
    }
}

impl WithRule for &Call<'_> {
    type Output = Outcome;

    fn run<R: Rule>(self, rule: R) -> Result<Outcome, Failure> {
        for index in 0..self.listed.count {
            self.listed.get(index, &mut None).check_count::<R>(index)?;
        }
        match self.precision {
            Precision::F32 => self.plain::<R, f32>(rule),
            Precision::F64 => self.plain::<R, f64>(rule),
            Precision::Mixed => self.mixed(rule),
        }
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

/// Fills in the default; `size` is `sizeof(adamant_pass)`.
///
/// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for pass, ADAMANT_STRUCT_SIZE for size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_pass_init(pass: *mut adamant_pass, size: usize) -> adamant_status {
    // SAFETY: `size` bytes may be written: the caller's promise.
    guarded(|| unsafe { versioned::write(pass, size, "pass", adamant_pass::new()) })
}

/// Takes step `t`, counted from 1, of any number of tensors in one go: large ones are shared among
/// threads, small ones put together. `exec` and `pass` may be null for their defaults.
///
/// Tensors are all in ADAMANT_F64, and then `pass` is the default but for its seed; or none is.
/// Infinities and NaN are data: they stay in their own element.
///
/// Returns ADAMANT_LEFT_OUT where `pass` says so. Mistakes, besides those of every call:
/// ADAMANT_TYPE_MISMATCH, ADAMANT_LENGTH_MISMATCH, ADAMANT_UNUSED_MOMENT and ADAMANT_SCALES_MISMATCH
/// for arrays; ADAMANT_HYPER_PARAMETER and ADAMANT_CONSTANT_OVERFLOW for hyper-parameters;
/// ADAMANT_ZERO_STEP; ADAMANT_UNSUPPORTED for ADAMANT_ROW_WISE_ADAM; ADAMANT_UNKNOWN_ISA and
/// ADAMANT_ISA_UNAVAILABLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_step(
    hyper: *const adamant_hyper,
    exec: *const adamant_exec,
    t: u64,
    pass: *const adamant_pass,
    tensors: *const adamant_tensor,
    count: usize,
) -> adamant_status {
    guarded(|| {
        let (mut claims, mut room) = (Claims::new(), None);
        // SAFETY: the structs are what the caller promises, here and below.
        let hyper = unsafe { adamant_hyper::read(hyper, &mut room, &mut claims)? };
        // SAFETY: the caller's promise.
        let runner = unsafe { Runner::read(exec)? };
        // SAFETY: the caller's promise.
        let pass = unsafe { adamant_pass::read(pass)? };
        // SAFETY: the caller's promise.
        let listed = unsafe { Listed::new(tensors, count)? };
        claims.note(tensors.addr(), listed.size * count, Place::of(&"tensors"));
        let (mut common, mut len) = (None, 0_usize);
        for index in 0..count {
            let mut room = None;
            let tensor = listed.get(index, &mut room);
            let precision = tensor.claim(&mut claims, index)?;
            common = match (common, precision) {
                (None, precision) => Some(precision),
                (Some(common), precision) if common == precision => Some(common),
                (Some(Precision::F64), _) | (_, Precision::F64) => refuse!(
                    ADAMANT_TYPE_MISMATCH,
                    "tensor 0 and tensor {index} are not both in ADAMANT_F64, nor neither"
                ),
                _ => Some(Precision::Mixed),
            };
            len = len.saturating_add(tensor.param.len);
        }
        claims.check()?;
        let is_default = Pass { seed: 0, ..pass } == Pass::default();
        let precision = match common.unwrap_or(Precision::F32) {
            Precision::F64 if !is_default => refuse!(
                ADAMANT_TYPE_MISMATCH,
                "pass is not the default, but the tensors are ADAMANT_F64"
            ),
            Precision::F32 if !is_default => Precision::Mixed,
            precision => precision,
        };
        with_rule(hyper, &Call { runner, t, pass, precision, listed, len })
    })
}
