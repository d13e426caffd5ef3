//! The kernel that steps some elements: the one for arrays of one type, or the one for arrays of several types.

use core::slice;

use crate::{
    isa::Cpu,
    kernel::{Alike, Elements, Pass, TypedRows, fit_constants_to, sweep_elements},
    mixed::{self, Runs},
    optimizer::{Known, of_rule},
    rule::{Many, Rule},
    tensor::{Precision, Run, TensorArrays, TypedArrays},
};

/// Takes a step of some elements. The constants that are `known` are used if the elements take this step, in this
/// type.
#[inline]
pub(crate) fn run<R: Rule>(rule: R, cpu: Cpu, pass: &Pass, known: Known<'_>, mut run: Run<'_, '_>) {
    while let Some(tensor) = run.peek() {
        let t = tensor.steps() + 1;
        let precision = pass.precision(tensor);
        let is_f64 = precision == Precision::F64;
        let constants = match known.t == t && known.is_f64 == is_f64 {
            true => of_rule::<R>(known.constants),
            false => constants(&rule, t, is_f64),
        };
        let mut alike = Alike { run: &mut run, t, precision, pass };
        match precision {
            Precision::F32 => {
                sweep_elements::<R, f32>(rule, cpu, &constants, pass, Elements::Tensors(alike))
            }
            Precision::F64 => {
                sweep_elements::<R, f64>(rule, cpu, &constants, pass, Elements::Tensors(alike))
            }
            Precision::Mixed => mixed::run(rule, cpu, &constants, t, pass, &mut alike),
        }
    }
}

/// Rows of a table, each as if it were a tensor; or one small tensor, as if it were a row.
pub enum Rows<'a> {
    /// Everything is `f32`.
    F32(&'a mut dyn TypedRows<f32>),
    /// Everything is `f64`.
    F64(&'a mut dyn TypedRows<f64>),
    Mixed(&'a mut dyn Runs),
    /// One row, all `f32`.
    OneF32(&'a mut TypedArrays<'a, f32>),
    /// One row, all `f64`.
    OneF64(&'a mut TypedArrays<'a, f64>),
}

/// Takes step `t` of rows of a table. The constants fit: see
/// [`fit_constants`](crate::kernel::fit_constants).
#[inline]
pub(crate) fn run_rows<R: Rule>(
    rule: R,
    cpu: Cpu,
    constants: &Many<R::Constants, f64>,
    t: u64,
    pass: &Pass,
    rows: Rows<'_>,
) {
    match rows {
        Rows::F32(rows) => sweep_elements(rule, cpu, constants, pass, Elements::Rows(rows)),
        Rows::F64(rows) => sweep_elements(rule, cpu, constants, pass, Elements::Rows(rows)),
        Rows::Mixed(rows) => mixed::run(rule, cpu, constants, t, pass, rows),
        Rows::OneF32(row) => sweep_elements(rule, cpu, constants, pass, Elements::Row(Some(row))),
        Rows::OneF64(row) => sweep_elements(rule, cpu, constants, pass, Elements::Row(Some(row))),
    }
}

/// The constants of a step, fitted to its type. Not inlined: the compiler would move the computation before the test
/// whether they are known.
#[inline(never)]
fn constants<R: Rule>(rule: &R, t: u64, is_f64: bool) -> Many<R::Constants, f64> {
    let mut constants = rule.constants(t);
    // One by one, so that each is fitted. The check of the call has refused what is too large; only a user's rule could
    // have changed its mind since, and then its results are infinite.
    for constant in constants.as_mut().iter_mut().map(slice::from_mut) {
        let _ = fit_constants_to(is_f64, constant);
    }
    constants
}

impl Runs for Alike<'_, '_, '_> {
    fn next(&mut self) -> Option<TensorArrays<'_>> {
        self.next_part().map(|part| part.arrays())
    }
}
