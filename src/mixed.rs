//! Steps of tensors whose arrays are not all of the type that is computed in: `f32`, from whatever the
//! arrays hold and to it. Registers are widened as they are read and narrowed as they are written, in one
//! pass over memory.

mod lot;
mod padding;
mod span;
mod sweep;

use crate::{Many, Rule, Tensor, element::Random, isa::Cpu, kernel::Pass, tensor::Run};
use sweep::{MixedStep, Sweep};

/// Takes step `t` of some elements, of tensors that are `alike` the first one.
#[inline]
pub(crate) fn run<R: Rule>(
    rule: R,
    cpu: Cpu,
    constants: &Many<R::Constants, f64>,
    t: u64,
    pass: &Pass,
    elements: &mut Run<'_, '_>,
    alike: impl Fn(&Tensor<'_>) -> bool,
) {
    let step = MixedStep {
        rule,
        constants,
        grad_factor: pass.grad_factor as f32,
        flush_subnormals: pass.flush_subnormals,
        prefetch: pass.prefetch_mixed,
        random: Random::new(pass.seed, t),
    };
    cpu.run(Sweep { step: &step, elements, alike });
}
