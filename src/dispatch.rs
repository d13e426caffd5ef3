//! The kernel that steps some elements: the one for arrays of one type, or the one for arrays of several types.

use crate::{
    isa::Cpu,
    kernel::{Alike, Elements, Pass, TypedRows, sweep_elements},
    mixed::{self, Runs},
    optimizer::{Constants, of_rule},
    rule::{Many, Rule},
    tensor::{Precision, Run, TensorArrays},
};

/// Takes a step of some elements. `known` is a step number with its constants, which are used if the elements take
/// this step.
#[inline]
pub(crate) fn run<R: Rule>(
    rule: R,
    cpu: Cpu,
    pass: &Pass,
    known: (u64, &Constants),
    mut run: Run<'_, '_>,
) {
    while let Some(tensor) = run.peek() {
        let t = tensor.steps() + 1;
        let precision = pass.precision(tensor);
        let constants = match known {
            (known, constants) if known == t => of_rule::<R>(constants),
            _ => constants(&rule, t),
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
}

/// Takes step `t` of rows of a table.
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
    }
}

/// The constants of a step. Not inlined: the compiler would move the computation before the test whether they are
/// known.
#[inline(never)]
fn constants<R: Rule>(rule: &R, t: u64) -> Many<R::Constants, f64> {
    rule.constants(t)
}

impl Runs for Alike<'_, '_, '_> {
    fn next(&mut self) -> Option<TensorArrays<'_>> {
        self.next_part().map(|part| part.arrays())
    }
}
