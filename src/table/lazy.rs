//! A lazy step: of the listed rows, and no others.

use super::{
    RowLayout, RowRule, RowSpan, SortedRows, Table, as_tensors,
    sums::RowFloat,
    sweep::{Listed, Update},
};
use crate::{
    Error, Outcome, Report, StepOptions, Storage,
    array::Float,
    dispatch::Rows,
    isa::Cpu,
    kernel::{Pass, fit_constants},
    norm::{NormOrder, Norms},
    rule::Many,
    step::{Scaling, check_factor},
};

/// Takes a lazy step that is computed in `F`; table, gradients and options were found to go together.
pub(super) fn step_listed<R: RowRule, F: RowFloat>(
    rule: R,
    cpu: Cpu,
    t: u64,
    table: Table<'_>,
    moments: &RowLayout,
    mut grads: SortedRows<'_>,
    options: &StepOptions<'_>,
) -> Result<Report, Error> {
    let constants = constants_of_rows::<R, F>(&rule, t)?;
    let is_mixed = is_mixed::<F>(&table, moments, &grads, R::HAS_TENSORS)?;
    let scaling = scaling_of_rows::<F>(cpu, &mut grads, options)?;
    let Scaling { grad_norm, factor, leaves_out } = scaling;
    if leaves_out {
        return Ok(Report { outcome: Outcome::LeftOut, grad_norm });
    }
    let StepOptions { flush_subnormals, seed, .. } = *options;
    let threads = options.exec.threads;
    match grads.values_of::<F>() {
        Some(values) if const { R::HAS_LOOP } && !is_mixed => {
            let factor = F::from_f64(factor);
            let update = Some(Update { constants: &constants, values, factor, flush_subnormals });
            let (table, listed) = (table.typed(), grads.listed);
            let span = RowSpan { cpu, rule, update, table, first: 0, before: (), listed };
            F::call::<Listed<'_, '_, R>>((span, threads));
        }
        _ => {
            let pass = Pass { grad_factor: factor, flush_subnormals, seed, ahead: 0 };
            let step = |pass: &Pass, rows: Rows<'_>| {
                rule.run_as_tensors(cpu, &constants, t, pass, rows);
            };
            as_tensors::run::<F>(cpu, &step, &pass, table, &grads, is_mixed, threads);
        }
    }
    Ok(Report { outcome: Outcome::Taken, grad_norm })
}

/// The constants of step `t`, which is computed in `F`, by a rule that was checked.
pub(super) fn constants_of_rows<R: RowRule, F: Float>(
    rule: &R,
    t: u64,
) -> Result<Many<R::RowConstants, f64>, Error> {
    if t == 0 {
        return Err(Error::ZeroStep);
    }
    let mut constants = rule.step_constants(t);
    fit_constants::<F>(constants.as_mut())?;
    Ok(constants)
}

/// Whether an array of a step in `F` is not simply an `F`, which optimizers without steps of tensors refuse.
fn is_mixed<F: Float>(
    table: &Table<'_>,
    moments: &RowLayout,
    grads: &SortedRows<'_>,
    has_tensors: bool,
) -> Result<bool, Error> {
    let of_grads = (grads.storage() != F::STORAGE).then(|| ("grad", grads.storage()));
    match table.not_of::<F>(moments).or(of_grads) {
        Some((argument, found)) if !has_tensors => {
            let (method, expected) = ("RowWiseAdam", F::STORAGE);
            Err(Error::TableStorage { argument, found, method, expected })
        }
        other => Ok(other.is_some()),
    }
}

/// How the options scale the gradients of a step in `F`.
pub(super) fn scaling_of_rows<F: Float>(
    cpu: Cpu,
    grads: &mut SortedRows<'_>,
    options: &StepOptions<'_>,
) -> Result<Scaling, Error> {
    let threads = options.exec.threads;
    let scaling = options.scaling(|| grads.norm(Norms { order: NormOrder::Two, cpu, threads }));
    let is_f64 = F::STORAGE == Storage::F64;
    check_factor(scaling.factor, !is_f64, is_f64)?;
    Ok(scaling)
}
