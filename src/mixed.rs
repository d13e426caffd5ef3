//! Steps of tensors whose arrays are not all of the type that is computed in: `f32`, from whatever the
//! arrays hold and to it, in one pass over memory.
//!
//! A tensor is taken in strips. Arrays in `f32` are stepped in place; others are widened into a strip in
//! the first cache, stepped there, and narrowed back. The conversions know nothing of the rule, so they are
//! compiled once for an instruction set and not for each of the rules. Adam has, for the types that usually go
//! together, loops that convert as they read and write (`in_loop.rs`): its roots and quotients leave the CPU time
//! for that.

mod columns;
mod convert;
mod in_loop;
mod pairs;
mod strips;
mod sweep;

use crate::{
    array::{Q8, Random},
    isa::Cpu,
    kernel::Pass,
    rule::{MOMENTS, Many, Rule, moment_format},
    tensor::TensorArrays,
};
use sweep::Sweep;

/// Elements that take the same step, one run after the other.
pub trait Runs {
    /// The next elements.
    fn next(&mut self) -> Option<TensorArrays<'_>>;
}

/// A step in mixed precision, whatever the rule.
struct MixedStep {
    cpu: Cpu,
    grad_factor: f32,
    flush_subnormals: bool,
    ahead: usize,
    random: Random,
    /// The 8-bit formats of the moments.
    formats: [Q8; MOMENTS],
}

/// Takes step `t` of some elements.
#[inline]
pub(crate) fn run<R: Rule>(
    rule: R,
    cpu: Cpu,
    constants: &Many<R::Constants, f64>,
    t: u64,
    pass: &Pass,
    runs: &mut dyn Runs,
) {
    let count = R::MOMENT_NAMES.as_ref().len();
    let step = MixedStep {
        cpu,
        grad_factor: pass.grad_factor as f32,
        flush_subnormals: pass.flush_subnormals,
        ahead: pass.ahead,
        random: Random::new(pass.seed, t),
        formats: core::array::from_fn(|moment| match moment < count {
            true => moment_format(&rule, moment),
            false => Q8::Signed,
        }),
    };
    cpu.run(Sweep { rule, constants, step: &step, runs });
}
