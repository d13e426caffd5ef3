//! The function that steps tensors: its options, its checks, and the sharing of its work.

mod cursor;
mod scaling;
mod small;

use crate::{
    Error, Exec, Tensor,
    float_modes::with_default_float_modes,
    isa::SECOND_CACHE,
    kernel::{Pass, fit_constants_to},
    norm,
    optimizer::{CONSTANTS, Known},
    pieces,
    rule::MOMENTS,
    tensor::{Group, Precision, Run},
};
use cursor::Cursor;

pub(crate) use scaling::{Scaling, check_factor};
pub use small::step_slices;
pub(crate) use small::step_small;

/// The options of a call, for all its tensors: scaling and clipping of gradients, left-out steps, threads.
///
/// # Examples
///
/// Gradients of a scaled loss, clipped, and zeroed for the next batch:
///
/// ```
/// use adamant::{Adam, Grad, Optimizer, Outcome, StepOptions};
///
/// let adam = Adam::adamw();
/// let (mut params, mut grads) = (vec![1.0_f32; 10], vec![1024.0_f32; 10]);
/// let mut state = adam.state(10);
/// let options =
///     StepOptions { grad_factor: 1.0 / 1024.0, max_norm: Some(1.0), ..StepOptions::default() };
/// let (param, grad) = ((&mut params).into(), Grad::zeroed(&mut grads));
/// let report = adam.step_with(param, grad, &mut state, &options)?;
/// assert_eq!(report.grad_norm, Some(10_f64.sqrt()));
/// assert_eq!((report.outcome, grads[0]), (Outcome::Taken, 0.0));
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct StepOptions<'a> {
    /// The instruction set and the threads. Default: [`Exec::default`].
    pub exec: Exec<'a>,
    /// A factor of all gradients, to undo the scale of a loss or to average micro-batches. It must be a
    /// normal number over 0, in `f32` unless all tensors are `f64`; anything else, NaN included, is an
    /// error. Default 1.
    pub grad_factor: f64,
    /// The largest norm of all gradients, after `grad_factor`: all gradients are multiplied by
    /// [`clip_factor`](crate::norm::clip_factor), which is below 1 if the norm is over `max_norm - 1e-6`. It must be
    /// over 0. If the norm is not finite, the step is left out. Default `None`: no clipping.
    pub max_norm: Option<f64>,
    /// Whether the step is left out if a gradient is not finite, as a loss scaler needs it. With
    /// [`max_norm`](Self::max_norm), such a step is always left out. Default false.
    pub skip_nonfinite: bool,
    /// The norm of all gradients, before `grad_factor`, if the caller knows it: if a model is shared among
    /// processes, the norm over all processes. It must be at least 0, infinite or NaN. If it is not finite,
    /// the step is left out. Default `None`: if the norm is needed, it is computed in a pass over the
    /// gradients before the step.
    pub grad_norm: Option<f64>,
    /// Whether a step that is left out keeps the gradients of [`Grad::zeroed`](crate::Grad::zeroed). Default
    /// false: they are set to zero. A NaN would otherwise stay in a buffer to which later gradients are added,
    /// and all later steps would be left out, too.
    pub keep_grads: bool,
    /// Whether moments that are subnormal (below 1.2e-38 in `f32`, 2.2e-308 in `f64`) or -0 become 0.
    /// Default false.
    pub flush_subnormals: bool,
    /// The seed of random rounding. Default 0.
    pub seed: u64,
}

impl Default for StepOptions<'_> {
    fn default() -> Self {
        Self {
            exec: Exec::default(),
            grad_factor: 1.0,
            max_norm: None,
            skip_nonfinite: false,
            grad_norm: None,
            keep_grads: false,
            flush_subnormals: false,
            seed: 0,
        }
    }
}

/// Whether a step was taken. Later versions add no third answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The step was taken, and every tensor has counted it.
    Taken,
    /// The step was left out, since the norm of the gradients is not finite. No parameter, moment or step
    /// count has changed.
    LeftOut,
}

/// The result of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use = "a step may have been left out"]
#[non_exhaustive]
pub struct Report {
    /// Whether the step was taken.
    pub outcome: Outcome,
    /// The norm of all gradients, after [`StepOptions::grad_factor`] and before clipping. `None` if the
    /// options did not need it.
    pub grad_norm: Option<f64>,
}

/// Takes the next step of any number of tensors in any number of groups, and counts it in each tensor.
///
/// All groups share one parallel region, in which large tensors are cut and small ones are joined. There is
/// one norm for the gradients of all groups, and the step is taken or left out for all of them together.
///
/// # Examples
///
/// A group with weight decay and one without, clipped by their common norm:
///
/// ```
/// use adamant::{Adam, Group, Optimizer, StepOptions};
///
/// let decay = Adam { lr: 1e-2, ..Adam::adamw() };
/// let no_decay = Adam { weight_decay: 0.0, ..decay };
/// let (mut weight, mut bias) = (vec![1.0_f32; 300], vec![1.0_f32; 10]);
/// let mut states = [decay.state(weight.len()), no_decay.state(bias.len())];
/// let (weight_grad, bias_grad) = (vec![3.0_f32; 300], vec![4.0_f32; 10]);
///
/// let [weight_state, bias_state] = &mut states;
/// let options = StepOptions { max_norm: Some(1.0), ..StepOptions::default() };
/// let report = adamant::step(
///     &mut [
///         Group::new(&decay, &mut [weight_state.tensor(&mut weight, &weight_grad)]),
///         Group::new(&no_decay, &mut [bias_state.tensor(&mut bias, &bias_grad)]),
///     ],
///     &options,
/// )?;
/// assert_eq!(report.grad_norm, Some((300.0 * 9.0 + 10.0 * 16.0_f64).sqrt()));
/// assert!(weight[0] < bias[0]);
/// # Ok::<(), adamant::Error>(())
/// ```
///
/// # Errors
///
/// [Those of every step](crate::Optimizer#errors), and [`Error::Option`] for an option that is out of its
/// range. Errors number the tensors of a call from 0, through all groups.
#[inline]
pub fn step(groups: &mut [Group<'_, '_>], options: &StepOptions<'_>) -> Result<Report, Error> {
    if small::step_one(groups, options) {
        return Ok(Report { outcome: Outcome::Taken, grad_norm: None });
    }
    // Constants and norms depend on the floating-point modes, too.
    with_default_float_modes(|| step_in_modes(groups, options))
}

#[inline]
fn step_in_modes(groups: &mut [Group<'_, '_>], options: &StepOptions<'_>) -> Result<Report, Error> {
    let cpu = options.exec.cpu()?;
    let mut constants = [0.0; CONSTANTS];
    let mut known = None;
    let (mut index, mut sizes) = (0, Sizes::default());
    for (number, group) in groups.iter_mut().enumerate() {
        group.optimizer.check_settings()?;
        let layout = group.optimizer.moment_layout();
        for tensor in &mut *group.tensors {
            tensor.check(group.optimizer, &layout, index)?;
            let precision = tensor.precision();
            let t = tensor.steps.checked_add(1).ok_or(Error::StepOverflow)?;
            let is_f64 = precision == Precision::F64;
            if known != Some((number, t, is_f64)) {
                let count = group.optimizer.step_constants(t, &mut constants);
                fit_constants_to(is_f64, &mut constants[..count])?;
                known = Some((number, t, is_f64));
            }
            tensor.precision_in_call = precision;
            tensor.first_in_call = tensor.first.unwrap_or(sizes.len as u64);
            sizes.add(tensor, precision);
            index += 1;
        }
    }
    options.check()?;
    let threads = options.exec.threads;
    let Scaling { grad_norm, factor, leaves_out } =
        options.scaling(|| norm::of_groups(threads, cpu, groups));
    check_factor(factor, sizes.any_f32, sizes.any_f64)?;
    if leaves_out {
        if !options.keep_grads {
            for tensor in groups.iter_mut().flat_map(|group| &mut *group.tensors) {
                tensor.grad.zero();
            }
        }
        return Ok(Report { outcome: Outcome::LeftOut, grad_norm });
    }

    let pass = Pass {
        grad_factor: factor,
        flush_subnormals: options.flush_subnormals,
        seed: options.seed,
        ahead: cpu.ahead(|| bytes(sizes.len, groups)),
    };
    let (known_group, known_t, is_f64) = known.unwrap_or_default();
    let all = &*groups;
    let step_run = |number: usize, group: &Group<'_, '_>, run: Run<'_, '_>| {
        // The constants are those of one group.
        let t = if known_group == number { known_t } else { 0 };
        group.optimizer.run(cpu, &pass, Known { t, is_f64, constants: &constants }, run);
    };
    if pieces::may_share(threads, sizes.len) {
        pieces::run(threads, sizes.len, &|ranges| {
            let mut cursor = Cursor { groups: all, group: 0, tensor: 0, before: 0 };
            for range in ranges {
                cursor.run(range, |number, run| step_run(number, &all[number], run));
            }
        });
    } else {
        for_each_group(all, step_run);
    }
    for tensor in groups.iter_mut().flat_map(|group| &mut *group.tensors) {
        *tensor.steps += 1;
    }
    Ok(Report { outcome: Outcome::Taken, grad_norm })
}

/// Calls `run` with each group, its number and all of its elements.
#[inline]
#[allow(unsafe_code, reason = "a run may write the arrays of its tensors")]
fn for_each_group<'g, 'x>(
    groups: &'g [Group<'_, 'x>],
    run: impl Fn(usize, &'g Group<'_, 'x>, Run<'g, 'x>),
) {
    for (number, group) in groups.iter().enumerate() {
        // SAFETY: the call has the tensors for itself, shares them with no thread, and each group has one run.
        run(number, group, unsafe { Run::whole(group.tensors) });
    }
}

/// A core's own cache surely holds the arrays of a call of so many elements.
const MOST_CACHED: usize = {
    /// Of parameters with a copy, gradients and four moments.
    const MOST_BYTES: usize = 8 * (2 + MOMENTS);
    SECOND_CACHE / MOST_BYTES
};

/// The bytes of the arrays of all tensors, of `len` elements; 0 if a core's own cache surely holds them.
#[inline]
fn bytes(len: usize, groups: &[Group<'_, '_>]) -> usize {
    // A small call does not ask each array for its size.
    match len > MOST_CACHED {
        true => groups.iter().flat_map(|group| &*group.tensors).map(Tensor::bytes).sum(),
        false => 0,
    }
}

/// The sums over all tensors of a call.
#[derive(Default)]
struct Sizes {
    len: usize,
    any_f32: bool,
    any_f64: bool,
}

impl Sizes {
    #[inline]
    fn add(&mut self, tensor: &Tensor<'_>, precision: Precision) {
        // Cannot overflow: each element takes memory, and borrowing rules out arrays that share it.
        self.len += tensor.len();
        self.any_f64 |= precision == Precision::F64;
        self.any_f32 |= precision != Precision::F64;
    }
}
