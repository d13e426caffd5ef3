//! The step of one small tensor whose arrays are all of one type, without options.
//!
//! For a few elements, what other calls need takes longer than the step: tensors, groups, sharing, scaling. So it is
//! left out here. This checks for itself, and what it does not accept goes the general way. A new check of the general
//! way must be made here, too.

use super::{MOST_CACHED, StepOptions};

use crate::{
    DynOptimizer, Element, Exec, State, Threads,
    array::{Float, GradArray, MomentArray, ParamArray},
    float_modes::with_default_float_modes,
    isa::{Cpu, Isa},
    optimizer::MomentLayout,
    pieces,
    rule::MOMENTS,
    tensor::{Group, Tensor, TypedArrays},
};

/// Takes the step and counts it. If the call is of another kind, or has a mistake, nothing has changed and the answer
/// is false: then [`step`](fn@super::step) takes the step, or finds the mistake.
#[inline]
pub(crate) fn step_small<E: Element>(
    optimizer: &dyn DynOptimizer,
    param: &mut [E],
    grad: &[E],
    state: &mut State,
) -> bool {
    if !is_small(param.len()) {
        return false;
    }
    match (E::param(param).0, E::grad(grad).0) {
        (ParamArray::F32(param), GradArray::F32(grad)) => {
            with_default_float_modes(|| step_state(optimizer, param, grad, state))
        }
        (ParamArray::F64(param), GradArray::F64(grad)) => {
            with_default_float_modes(|| step_state(optimizer, param, grad, state))
        }
        _ => None,
    }
    .is_some()
}

/// As `step_small`, for arrays in memory of the caller. A moment that the settings do not use is empty.
///
/// Hidden: it is for the C library, where a `Tensor` for each call takes as long as a small step.
#[inline]
pub fn step_slices<F: Float>(
    optimizer: &dyn DynOptimizer,
    param: &mut [F],
    grad: &[F],
    moments: [&mut [F]; MOMENTS],
    steps: &mut u64,
    isa: Option<Isa>,
) -> bool {
    if !is_small(param.len()) {
        return false;
    }
    let mut arrays = TypedArrays { param, grad, moments };
    with_default_float_modes(|| {
        let cpu = Exec { isa, ..Exec::default() }.cpu().ok()?;
        let MomentLayout { count, used, .. } = optimizer.moment_layout();
        let len = arrays.param.len();
        for (number, moment) in arrays.moments.iter().enumerate() {
            let is_used = number < count && used[number];
            if moment.len() != if is_used { len } else { 0 } {
                return None;
            }
        }
        if arrays.grad.len() != len {
            return None;
        }
        take(optimizer, cpu, &mut arrays, steps)
    })
    .is_some()
}

/// As [`step_small`], if all tensors of a call are one.
#[inline]
pub(super) fn step_one(groups: &mut [Group<'_, '_>], options: &StepOptions<'_>) -> bool {
    let [Group { optimizer, tensors: [tensor] }] = groups else { return false };
    // All fields, so that a new one is thought of here, too.
    let StepOptions {
        exec,
        grad_factor,
        max_norm,
        skip_nonfinite,
        grad_norm,
        keep_grads: _,
        flush_subnormals,
        seed: _,
    } = *options;
    let leaves_none_out = max_norm.is_none() && grad_norm.is_none() && !skip_nonfinite;
    // By its bits, since the floating-point modes may still trap on a NaN.
    let is_one = grad_factor.to_bits() == 1.0_f64.to_bits();
    let is_plain = leaves_none_out && is_one && !flush_subnormals;
    if !is_plain || !is_small(tensor.len()) {
        return false;
    }
    match (&tensor.param.0, &tensor.grad.0) {
        (ParamArray::F32(_), GradArray::F32(_)) => {
            with_default_float_modes(|| step_tensor::<f32>(*optimizer, exec, tensor))
        }
        (ParamArray::F64(_), GradArray::F64(_)) => {
            with_default_float_modes(|| step_tensor::<f64>(*optimizer, exec, tensor))
        }
        _ => None,
    }
    .is_some()
}

/// Whether a step of so many elements is never shared, and never asks for memory ahead.
#[inline]
fn is_small(len: usize) -> bool {
    len <= MOST_CACHED && !pieces::may_share(Threads::default(), len)
}

fn step_state<F: Float>(
    optimizer: &dyn DynOptimizer,
    param: &mut [F],
    grad: &[F],
    state: &mut State,
) -> Option<()> {
    if grad.len() != param.len() {
        return None;
    }
    let cpu = Cpu::selected().ok()?;
    let mut steps = state.steps();
    let moments = state.moments_of::<F>(&optimizer.moment_layout(), param.len())?;
    take(optimizer, cpu, &mut TypedArrays { param, grad, moments }, &mut steps)?;
    state.set_steps(steps);
    Some(())
}

fn step_tensor<F: Float>(
    optimizer: &dyn DynOptimizer,
    exec: Exec<'_>,
    tensor: &mut Tensor<'_>,
) -> Option<()> {
    let Tensor { param, grad, moments, passed, names, steps, .. } = tensor;
    let (param, grad) = (F::param_in_mut(&mut param.0)?, F::grad_of(&grad.0)?);
    let layout = optimizer.moment_layout();
    let is_of_another = names.is_some_and(|names| names.rule != Some(layout.rule));
    if grad.len() != param.len() || is_of_another || *passed > layout.count {
        return None;
    }
    let cpu = exec.cpu().ok()?;
    let mut typed = [(); MOMENTS].map(|()| &mut [][..]);
    let places = typed.iter_mut().zip(moments).zip(layout.used).take(layout.count);
    for ((place, moment), is_used) in places {
        // Of 8 bits, the scales would have to be looked at.
        if !is_used && moment.is_empty() && !matches!(moment.0, MomentArray::Q8(..)) {
            continue;
        }
        *place = F::moment_in_mut(&mut moment.0).filter(|_| is_used)?;
        if place.len() != param.len() {
            return None;
        }
    }
    take(optimizer, cpu, &mut TypedArrays { param, grad, moments: typed }, steps)
}

/// Takes the step of arrays that fit each other and the optimizer.
#[inline(always)]
fn take<'a, F: Float>(
    optimizer: &dyn DynOptimizer,
    cpu: Cpu,
    arrays: &'a mut TypedArrays<'a, F>,
    steps: &mut u64,
) -> Option<()> {
    optimizer.check_settings().ok()?;
    let t = steps.checked_add(1)?;
    optimizer.run_small(cpu, t, F::row(arrays)).ok()?;
    *steps = t;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Adam, Buffer, Grad, Moment, Optimizer, Param, Sgd, Storage};

    // Results cannot tell the short way from the general one. Kernels are not compiled here, so what comes to one
    // panics.

    #[test]
    #[should_panic(expected = "a test that takes steps belongs into `tests/`")]
    fn a_plain_step_of_f32_comes_to_the_kernel() {
        let adam = Adam::default();
        step_small(&adam, &mut [1.0_f32; 16], &[1.0; 16], &mut adam.state(16));
    }

    #[test]
    #[should_panic(expected = "a test that takes steps belongs into `tests/`")]
    fn a_plain_step_of_f64_comes_to_the_kernel() {
        let adam = Adam::default();
        let mut state = adam.state_in(Storage::F64, 16);
        step_small(&adam, &mut [1.0_f64; 16], &[1.0; 16], &mut state);
    }

    #[test]
    fn mistakes_and_other_types_go_the_general_way() {
        let adam = Adam::default();
        let bad = Adam { beta1: 2.0, ..adam };
        let (mut param, grad) = ([1.0_f32; 16], [1.0; 16]);
        let mut state = adam.state(16);
        assert!(!step_small(&adam, &mut param, &grad[1..], &mut state));
        assert!(!step_small(&bad, &mut param, &grad, &mut state));
        assert!(!step_small(&adam, &mut param, &grad, &mut adam.state(15)));
        assert!(!step_small(&adam, &mut param, &grad, &mut adam.state_in(Storage::Bf16, 16)));
        let overflow = Adam { lr: 1e300, ..adam };
        assert!(!step_small(&overflow, &mut param, &grad, &mut state), "1e300 is infinite in f32");
        let (mut param, grad) = ([half::bf16::ONE; 16], [half::bf16::ONE; 16]);
        assert!(!step_small(&adam, &mut param, &grad, &mut state));
        assert_eq!(state.steps(), 0);
    }

    /// The short way with slices, of which the moments have these lengths.
    fn with_slices(
        optimizer: &dyn DynOptimizer,
        lens: [usize; 4],
        grad: usize,
        steps: u64,
    ) -> bool {
        let mut moments = lens.map(|len| vec![0.0_f32; len]);
        let moments = moments.each_mut().map(|moment| &mut moment[..]);
        let mut now = steps;
        let taken =
            step_slices(optimizer, &mut [1.0; 16], &vec![1.0; grad], moments, &mut now, None);
        assert!(taken || now == steps);
        taken
    }

    #[test]
    #[should_panic(expected = "a test that takes steps belongs into `tests/`")]
    fn slices_that_fit_come_to_the_kernel() {
        with_slices(&Adam::default(), [16, 16, 0, 0], 16, 0);
    }

    #[test]
    fn slices_that_do_not_fit_go_the_general_way() {
        let adam = Adam::default();
        for lens in [[16, 15, 0, 0], [16, 0, 0, 0], [16, 16, 16, 0], [16, 16, 0, 1], [0; 4]] {
            assert!(!with_slices(&adam, lens, 16, 0), "{lens:?}");
        }
        let lens = [16, 16, 0, 0];
        assert!(!with_slices(&adam, lens, 15, 0) && !with_slices(&adam, lens, 16, u64::MAX));
        assert!(!with_slices(&Adam { beta1: 2.0, ..adam }, lens, 16, 0));
        assert!(!with_slices(&Adam { lr: 1e300, ..adam }, lens, 16, 0));
        assert!(!with_slices(&Sgd::default(), [16, 0, 0, 0], 16, 0), "without momentum");
    }

    /// The short way with a tensor of 16 elements, after a change of it.
    fn with_tensor(
        optimizer: &dyn DynOptimizer,
        options: &StepOptions<'_>,
        change: impl for<'a> FnOnce(&mut Tensor<'a>, &'a mut Spare),
    ) -> bool {
        let (mut param, grad, mut moments) = ([1.0_f32; 16], [1.0_f32; 16], [[0.0_f32; 16]; 2]);
        let (mut steps, mut spare) = (0, Spare::new());
        let mut tensor = Tensor::new(&mut param, &grad, &mut steps)
            .with_moments(moments.each_mut().map(Moment::from));
        change(&mut tensor, &mut spare);
        step_one(&mut [Group::new(optimizer, &mut [tensor])], options)
    }

    /// Arrays to put into a tensor.
    struct Spare {
        f32: [f32; 16],
        bf16: Buffer<half::bf16>,
        codes: [u8; 16],
    }

    impl Spare {
        fn new() -> Self {
            Self { f32: [1.0; 16], bf16: Buffer::zeros(16), codes: [0; 16] }
        }
    }

    #[test]
    #[should_panic(expected = "a test that takes steps belongs into `tests/`")]
    fn a_plain_tensor_comes_to_the_kernel() {
        with_tensor(&Adam::default(), &StepOptions::default(), |_, _| {});
    }

    #[test]
    #[should_panic(expected = "a test that takes steps belongs into `tests/`")]
    fn a_plain_tensor_with_a_moment_that_is_not_used_comes_to_the_kernel() {
        let sgd = Sgd::default();
        let (mut param, grad, mut steps) = ([1.0_f64; 16], [1.0_f64; 16], 0);
        let tensor = Tensor::new(&mut param, &grad, &mut steps).with_moments([Moment::none()]);
        step_one(&mut [Group::new(&sgd, &mut [tensor])], &StepOptions::default());
    }

    #[test]
    fn other_tensors_and_options_go_the_general_way() {
        let adam = Adam::default();
        let plain = StepOptions::default();
        let tensor = |change: for<'a> fn(&mut Tensor<'a>, &'a mut Spare)| {
            assert!(!with_tensor(&adam, &plain, change));
        };
        tensor(|tensor, spare| tensor.param = Param::from(&mut spare.bf16));
        tensor(|tensor, spare| tensor.param = Param::from(&mut spare.f32[1..]));
        tensor(|tensor, spare| tensor.param = Param::with_copy(&mut spare.f32, &mut spare.bf16));
        tensor(|tensor, spare| tensor.grad = Grad::from(&spare.bf16));
        tensor(|tensor, spare| tensor.grad = Grad::from(&spare.f32[1..]));
        tensor(|tensor, spare| tensor.grad = Grad::zeroed(&mut spare.f32));
        tensor(|tensor, spare| tensor.moments[1] = Moment::from(&mut spare.bf16));
        tensor(|tensor, spare| tensor.moments[1] = Moment::from(&mut spare.f32[1..]));
        tensor(|tensor, _| tensor.moments[1] = Moment::none());
        tensor(|tensor, spare| tensor.moments[1] = Moment::q8(&mut spare.codes, &mut spare.f32));
        tensor(|tensor, _| tensor.passed = 3);
        tensor(|tensor, _| *tensor.steps = u64::MAX);
        for options in [
            StepOptions { grad_factor: 0.5, ..plain },
            StepOptions { grad_factor: f64::NAN, ..plain },
            StepOptions { max_norm: Some(1.0), ..plain },
            StepOptions { grad_norm: Some(1.0), ..plain },
            StepOptions { skip_nonfinite: true, ..plain },
            StepOptions { flush_subnormals: true, ..plain },
        ] {
            assert!(!with_tensor(&adam, &options, |_, _| {}), "{options:?}");
        }
        assert!(!with_tensor(&Adam { beta1: 2.0, ..adam }, &plain, |_, _| {}));
        assert!(!with_tensor(&Sgd::default(), &plain, |_, _| {}), "moments that it does not use");
        fn only_scales<'a>(tensor: &mut Tensor<'a>, spare: &'a mut Spare) {
            tensor.moments = [const { Moment::none() }; MOMENTS];
            tensor.moments[0] = Moment::q8(&mut [], &mut spare.f32);
            tensor.passed = 1;
        }
        assert!(!with_tensor(&Sgd::default(), &plain, only_scales));
        assert!(!step_one(&mut [], &plain));
        assert!(!step_one(&mut [Group::new(&adam, &mut [])], &plain));
    }

    #[test]
    fn an_instruction_set_that_this_cpu_lacks_goes_the_general_way() {
        // No CPU has the sets of both architectures.
        let isa = Isa::ALL.into_iter().find(|isa| !isa.is_available());
        let exec = Exec { isa, ..Exec::default() };
        let (adam, options) = (Adam::default(), StepOptions { exec, ..StepOptions::default() });
        assert!(!with_tensor(&adam, &options, |_, _| {}));
        let (mut m, mut v, mut steps) = ([0.0_f32; 16], [0.0; 16], 0);
        let moments = [&mut m[..], &mut v, &mut [], &mut []];
        assert!(!step_slices(&adam, &mut [1.0; 16], &[1.0; 16], moments, &mut steps, isa));
    }

    #[test]
    fn a_state_of_another_optimizer_goes_the_general_way() {
        let (adam, nadam) = (Adam::default(), crate::NAdam::default());
        let (mut param, grad, mut state) = ([1.0_f32; 16], [1.0_f32; 16], nadam.state(16));
        let tensor = state.tensor(&mut param, &grad);
        assert!(!step_one(&mut [Group::new(&adam, &mut [tensor])], &StepOptions::default()));
        assert_eq!(state.steps(), 0);
    }
}
