//! The step of one small tensor whose arrays are all of one type, without options.
//!
//! For a few elements, what other calls need takes longer than the step: tensors, groups, sharing, scaling. So it is
//! left out here. This checks for itself, and what it does not accept goes the general way. A new check of the general
//! way must be made here, too.

use super::MOST_CACHED;
use crate::{
    DynOptimizer, Element, State, Threads,
    array::{Float, GradArray, ParamArray},
    dispatch::Rows,
    float_modes::with_default_float_modes,
    isa::Cpu,
    pieces,
    tensor::TypedArrays,
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
    // Larger ones may be shared, or ask for memory ahead.
    if param.len() > MOST_CACHED || pieces::may_share(Threads::default(), param.len()) {
        return false;
    }
    match (E::param(param).0, E::grad(grad).0) {
        (ParamArray::F32(param), GradArray::F32(grad)) => with_default_float_modes(|| {
            step_in_modes(optimizer, param, grad, state, |arrays| Rows::OneF32(arrays))
        }),
        (ParamArray::F64(param), GradArray::F64(grad)) => with_default_float_modes(|| {
            step_in_modes(optimizer, param, grad, state, |arrays| Rows::OneF64(arrays))
        }),
        _ => None,
    }
    .is_some()
}

fn step_in_modes<F: Float>(
    optimizer: &dyn DynOptimizer,
    param: &mut [F],
    grad: &[F],
    state: &mut State,
    as_rows: for<'a> fn(&'a mut TypedArrays<'a, F>) -> Rows<'a>,
) -> Option<()> {
    if grad.len() != param.len() {
        return None;
    }
    let cpu = Cpu::selected().ok()?;
    optimizer.check_settings().ok()?;
    let t = state.steps().checked_add(1)?;
    let moments = state.moments_of::<F>(&optimizer.moment_layout(), param.len())?;
    let mut arrays = TypedArrays { param, grad, moments };
    optimizer.run_small(cpu, t, as_rows(&mut arrays)).ok()?;
    state.set_steps(t);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Adam, Optimizer, Storage};

    /// Results cannot tell the short way from the general one. Kernels are not compiled here, so what comes to one
    /// panics.
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
}
