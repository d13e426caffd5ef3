//! The step of one row.

use super::{
    sums::{RowFloat, RowGrad},
    sweep::RowSpan,
    typed::TypedTable,
};
use crate::{
    Error, Threads,
    array::Q8,
    dispatch::Rows,
    isa::Cpu,
    kernel::{Pass, specialise, sweep},
    rule::{Arity, Many, Rule, moment_format},
    simd::{Simd, Vector},
    tensor::Slices,
};

/// The methods of a [`RowRule`](super::RowRule); every [`Rule`] has them.
pub trait RowUpdate: Copy + Send + Sync {
    type RowMoments: Arity;
    type RowConstants: Arity;
    const ROW_MOMENT_NAMES: Many<Self::RowMoments, &'static str>;
    /// Whether there is [`run_as_tensors`](Self::run_as_tensors).
    const HAS_TENSORS: bool;
    /// Whether there are [`run_f32`](Self::run_f32) and [`run_f64`](Self::run_f64).
    const HAS_LOOP: bool;

    /// How many elements a moment has for a row of `width` parameters.
    fn moment_width(&self, moment: usize, width: usize) -> usize;

    fn moment_start(&self, moment: usize) -> f64;

    fn moment_format(&self, moment: usize) -> Q8;

    fn check_rule(&self) -> Result<(), Error>;

    fn step_constants(&self, t: u64) -> Many<Self::RowConstants, f64>;

    fn specialise_rows<S: Simd>(self, run: impl FnMut(Self));

    fn update_row<S: Simd, F: RowFloat>(
        self,
        simd: S,
        k: &Many<Self::RowConstants, Vector<S, F>>,
        row: TypedTable<'_, Self, F>,
        grad: &mut RowGrad<'_, F>,
    );

    fn run_f32(rows: RowSpan<'_, Self, f32>, threads: Threads<'_>);

    fn run_f64(rows: RowSpan<'_, Self, f64>, threads: Threads<'_>);

    /// Takes step `t` of rows, each as a tensor, whatever their arrays hold.
    fn run_as_tensors(
        &self,
        cpu: Cpu,
        constants: &Many<Self::RowConstants, f64>,
        t: u64,
        pass: &Pass,
        rows: Rows<'_>,
    );
}

impl<R: Rule> RowUpdate for R {
    type RowMoments = R::Moments;
    type RowConstants = R::Constants;
    const ROW_MOMENT_NAMES: Many<R::Moments, &'static str> = R::MOMENT_NAMES;
    const HAS_TENSORS: bool = true;
    const HAS_LOOP: bool = R::ROWS_IN_LOOP;

    #[inline(always)]
    fn moment_width(&self, moment: usize, width: usize) -> usize {
        if self.start(moment).is_some() { width } else { 0 }
    }

    fn moment_start(&self, moment: usize) -> f64 {
        self.start(moment).unwrap_or(0.0)
    }

    fn moment_format(&self, moment: usize) -> Q8 {
        moment_format(self, moment)
    }

    #[inline]
    fn check_rule(&self) -> Result<(), Error> {
        self.check()
    }

    #[inline]
    fn step_constants(&self, t: u64) -> Many<R::Constants, f64> {
        self.constants(t)
    }

    #[inline(always)]
    fn specialise_rows<S: Simd>(self, run: impl FnMut(Self)) {
        specialise::<S, R>(self, run);
    }

    #[inline(always)]
    fn update_row<S: Simd, F: RowFloat>(
        self,
        simd: S,
        k: &Many<R::Constants, Vector<S, F>>,
        row: TypedTable<'_, Self, F>,
        grad: &mut RowGrad<'_, F>,
    ) {
        let mut rest = row;
        let mut start = 0;
        while !rest.param.is_empty() {
            let grad = grad.from(simd, start);
            start += grad.len();
            let TypedTable { param, moments, width } = rest;
            let (param, param_rest) = param.split_at_mut(grad.len());
            let mut rests = R::Moments::from_fn(
                #[inline(always)]
                |_| -> &mut [F] { &mut [] },
            );
            let mut slots = rests.as_mut().iter_mut();
            let moments = R::Moments::map(
                moments,
                #[inline(always)]
                |moment| {
                    // A moment that the rule does not use is empty.
                    let (moment, rest) = moment.split_at_mut(grad.len().min(moment.len()));
                    if let Some(slot) = slots.next() {
                        *slot = rest;
                    }
                    moment
                },
            );
            sweep(simd, self, k, Slices { param, grad, moments });
            rest = TypedTable { param: param_rest, moments: rests, width };
        }
    }

    fn run_f32(rows: RowSpan<'_, Self, f32>, threads: Threads<'_>) {
        R::run_rows_f32(rows, threads);
    }

    fn run_f64(rows: RowSpan<'_, Self, f64>, threads: Threads<'_>) {
        R::run_rows_f64(rows, threads);
    }

    fn run_as_tensors(
        &self,
        cpu: Cpu,
        constants: &Many<R::Constants, f64>,
        t: u64,
        pass: &Pass,
        rows: Rows<'_>,
    ) {
        self.run_rows(cpu, constants, t, pass, rows);
    }
}
