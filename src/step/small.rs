//! The step of one small tensor whose arrays are all of one type, without options. Of a step, this is what is left if
//! there is nothing to share, to scale and to convert; for some elements, the rest takes longer than they do.

use crate::{
    DynOptimizer, Element, State,
    array::{Float, GradArray, ParamArray},
    dispatch::Rows,
    float_modes::with_default_float_modes,
    isa::Cpu,
    kernel::TypedRows,
    pieces,
    tensor::TypedArrays,
};

/// Takes the step and counts it, if it is such a step. If not, or if there is a mistake, nothing has changed, and the
/// answer is false: [`step`](fn@super::step) takes the step or finds the mistake.
#[inline]
pub(crate) fn step_small<E: Element>(
    optimizer: &dyn DynOptimizer,
    param: &mut [E],
    grad: &[E],
    state: &mut State,
) -> bool {
    if pieces::is_large(param.len()) {
        return false;
    }
    match (E::param(param).0, E::grad(grad).0) {
        (ParamArray::F32(param), GradArray::F32(grad)) => with_default_float_modes(|| {
            step_in_modes(optimizer, param, grad, state, |rows| Rows::F32(rows))
        }),
        (ParamArray::F64(param), GradArray::F64(grad)) => with_default_float_modes(|| {
            step_in_modes(optimizer, param, grad, state, |rows| Rows::F64(rows))
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
    rows: fn(&mut dyn TypedRows<F>) -> Rows<'_>,
) -> Option<()> {
    if grad.len() != param.len() {
        return None;
    }
    let cpu = Cpu::selected().ok()?;
    let t = state.steps().checked_add(1)?;
    let moments = state.moments_of::<F>(&optimizer.moment_layout(), param.len())?;
    let mut one = Some(TypedArrays { param, grad, moments });
    let is_taken = optimizer.step_rows(cpu, t, rows(&mut one));
    is_taken.then(|| state.set_steps(t))
}

impl<F> TypedRows<F> for Option<TypedArrays<'_, F>> {
    fn next(&mut self) -> Option<TypedArrays<'_, F>> {
        self.take()
    }
}
