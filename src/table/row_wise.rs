//! Adam with one second moment a row.

use core::array;

use super::{
    RowUpdate,
    sums::{RowFloat, RowGrad},
    sweep::RowSpan,
    typed::TypedTable,
};
use crate::{
    Adam, Error, Threads,
    array::Q8,
    dispatch::Rows,
    isa::Cpu,
    kernel::{Pass, sweep},
    rule::{AdamConstants as K, Count, Rule, moment_format, outside_unit_tests},
    simd::{Lanes, Simd, Vector},
    tensor::Slices,
};

/// [`Adam`] with one second moment for a whole row of a table: a third less memory.
///
/// ```text
/// g, m     as in Adam, for each parameter of the row
/// v = beta2 * v + (1 - beta2) * mean(g^2)    one for the row; the mean is over its parameters
/// p        as in Adam, with the row's v
/// ```
///
/// The "partial row-wise Adam" of PyTorch's FBGEMM_GPU embedding operators, with the fields and the
/// places of epsilon and weight decay of [`Adam`]. For
/// [`RowOptimizer`](crate::table::RowOptimizer) only. Moments: `exp_avg` (m), as long as the table, and
/// `exp_avg_sq` (v), one element a row.
///
/// The mean has the same bits on every instruction set, since its order is fixed: column j is added to
/// sum j modulo 16; then the upper half of the sums is added to the lower half until one is left. If the sum of the
/// squares overflows (in `f32` gradients above some 1e19), v becomes infinite, and the row stays as it is.
///
/// # Examples
///
/// ```
/// use adamant::{
///     Adam,
///     table::{RowGrads, RowOptimizer, RowWiseAdam},
/// };
///
/// let adam = RowWiseAdam(Adam::default());
/// let mut table = vec![1.0_f32; 10 * 4];
/// let mut state = adam.row_state(10, 4);
/// assert!(state.moments().map(|(_, moment)| moment.len()).eq([40, 10]));
/// let grads = RowGrads::new(&[3_u32], &[0.5, -0.5, 0.5, 0.5], 4);
/// adam.step_rows_lazy(&mut table, grads, &mut state)?;
/// assert_eq!(table[12..16], [0.999, 1.001, 0.999, 0.999]);
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowWiseAdam(pub Adam);

/// Partial sums of a row's squares.
const SUMS: usize = 16;

impl RowUpdate for RowWiseAdam {
    type RowMoments = Count<2>;
    type RowConstants = Count<{ K::COUNT }>;
    const ROW_MOMENT_NAMES: [&'static str; 2] = Adam::MOMENT_NAMES;
    const HAS_TENSORS: bool = false;
    const HAS_LOOP: bool = true;

    #[inline(always)]
    fn moment_width(&self, moment: usize, width: usize) -> usize {
        if moment == 0 { width } else { 1 }
    }

    fn moment_start(&self, _moment: usize) -> f64 {
        0.0
    }

    fn moment_format(&self, moment: usize) -> Q8 {
        moment_format(&self.0, moment)
    }

    fn check_rule(&self) -> Result<(), Error> {
        self.0.check()
    }

    fn step_constants(&self, t: u64) -> [f64; K::COUNT] {
        self.0.constants(t)
    }

    #[inline(always)]
    fn specialise_rows<S: Simd>(self, mut run: impl FnMut(Self)) {
        run(self);
    }

    #[inline(always)]
    fn update_row<S: Simd, F: RowFloat>(
        self,
        simd: S,
        k: &[Vector<S, F>; K::COUNT],
        row: TypedTable<'_, Self, F>,
        grad: &mut RowGrad<'_, F>,
    ) {
        let TypedTable { param, moments: [exp_avg, exp_avg_sq], width } = row;
        let constants = k;
        let k = &K::from(*constants);
        let mean = self.sum_of_squares(simd, k, param, grad) / F::from_f64(width as f64);
        let v = Vector::splat(simd, exp_avg_sq[0]);
        let v = self.0.exp_avg_sq(k, v, Vector::splat(simd, mean));
        exp_avg_sq[0] = v.first();

        let mut k = [self.0.denominator(k, v); K::COUNT + 1];
        k[..K::COUNT].copy_from_slice(constants);
        let mut start = 0;
        while start < width {
            let grad = grad.from(simd, start);
            let columns = start..start + grad.len();
            start = columns.end;
            let (param, exp_avg) = (&mut param[columns.clone()], &mut exp_avg[columns]);
            let tensor = Slices { param, grad, moments: [exp_avg] };
            sweep(simd, Columns(self.0), &k, tensor);
        }
    }

    fn run_f32(rows: RowSpan<'_, Self, f32>, threads: Threads<'_>) {
        outside_unit_tests!(rows.run(threads));
    }

    fn run_f64(rows: RowSpan<'_, Self, f64>, threads: Threads<'_>) {
        outside_unit_tests!(rows.run(threads));
    }

    /// Never called: tables of other types are refused.
    fn run_as_tensors(
        &self,
        _cpu: Cpu,
        _constants: &[f64; K::COUNT],
        _t: u64,
        _pass: &Pass,
        _rows: Rows<'_>,
    ) {
    }
}

impl RowWiseAdam {
    /// The sum of the squares of the gradients, with weight decay where it is part of the gradient.
    #[inline(always)]
    fn sum_of_squares<S: Simd, F: RowFloat>(
        self,
        simd: S,
        k: &K<Vector<S, F>>,
        param: &[F],
        grad: &mut RowGrad<'_, F>,
    ) -> F {
        let mut partial = [Vector::nearest(simd, 0.0); SUMS];
        let mut start = 0;
        while start < param.len() {
            let grad = grad.from(simd, start);
            let param = &param[start..start + grad.len()];
            start += grad.len();
            let (params, param) = param.as_chunks::<SUMS>();
            let (grads, grad) = grad.as_chunks::<SUMS>();
            for (param, grad) in params.iter().zip(grads) {
                self.add_squares(simd, k, &mut partial, param, grad);
            }
            if !param.is_empty() {
                // Zeros add nothing, and their decay is zero.
                let [mut last_param, mut last_grad] = [[F::default(); SUMS]; 2];
                last_param[..param.len()].copy_from_slice(param);
                last_grad[..grad.len()].copy_from_slice(grad);
                self.add_squares(simd, k, &mut partial, &last_param, &last_grad);
            }
        }
        let mut sums = [F::default(); SUMS];
        for (sums, partial) in F::split_mut::<S>(&mut sums).0.iter_mut().zip(partial) {
            *sums = partial.register();
        }
        let eight: [F; 8] = array::from_fn(|i| sums[i] + sums[i + 8]);
        let four: [F; 4] = array::from_fn(|i| eight[i] + eight[i + 4]);
        (four[0] + four[2]) + (four[1] + four[3])
    }

    /// Adds the squares of [`SUMS`] columns to as many sums.
    #[inline(always)]
    fn add_squares<S: Simd, F: RowFloat>(
        self,
        simd: S,
        k: &K<Vector<S, F>>,
        sums: &mut [Vector<S, F>; SUMS],
        param: &[F; SUMS],
        grad: &[F; SUMS],
    ) {
        let (params, grads) = (F::split::<S>(param).0, F::split::<S>(grad).0);
        for (sum, (&param, &grad)) in sums.iter_mut().zip(params.iter().zip(grads)) {
            let (param, grad) = (Vector::new(simd, param), Vector::new(simd, grad));
            let (_, grad) = self.0.decay(k, param, grad);
            *sum = grad.mul_add(grad, *sum);
        }
    }
}

/// The step of a row's columns once its second moment is known: the last constant is the denominator.
#[derive(Clone, Copy)]
struct Columns(Adam);

impl Rule for Columns {
    type Moments = Count<1>;
    type Constants = Count<{ K::COUNT + 1 }>;
    const MOMENT_NAMES: [&'static str; 1] = [Adam::MOMENT_NAMES[0]];

    fn check(&self) -> Result<(), Error> {
        self.0.check()
    }

    /// Not used: each row has constants of its own.
    fn constants(&self, _t: u64) -> [f64; K::COUNT + 1] {
        [0.0; K::COUNT + 1]
    }

    #[inline(always)]
    fn update<L: Lanes>(
        &self,
        k: &[L; K::COUNT + 1],
        param: L,
        grad: L,
        [m]: [L; 1],
    ) -> (L, [L; 1]) {
        let [k @ .., denominator] = *k;
        let (adam, k) = (&self.0, &K::from(k));
        let (param, grad) = adam.decay(k, param, grad);
        let m = adam.exp_avg(k, m, grad);
        (adam.descend(k, param, grad, m, denominator), [m])
    }
}
