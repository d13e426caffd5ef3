//! Steps on some rows of a table.

use std::collections::BTreeMap;

use super::{Reference, average, decay, is_uphill};
use crate::{
    Adam,
    rule::{AdamConstants, Float, Lanes, Many, Rule},
    table::{RowRule, RowWiseAdam},
};

/// The gradient of each listed row: the sum of its values. Each 16 values are added up in the order in which they are
/// listed, and then these sums in pairs.
///
/// A [lazy](crate::table::RowOptimizer#lazy) step is a step of the optimizer on these rows alone.
pub fn sum_rows<F: Float>(
    rows: &[usize],
    values: &[F],
    width: usize,
    stride: usize,
) -> BTreeMap<usize, Vec<F>> {
    let mut listed = BTreeMap::<usize, Vec<&[F]>>::new();
    for (position, &row) in rows.iter().enumerate() {
        listed.entry(row).or_default().push(&values[position * stride..][..width]);
    }
    listed.into_iter().map(|(row, values)| (row, sum(&values))).collect()
}

/// The sum of some rows of values, of which there is one at least.
fn sum<F: Float>(values: &[&[F]]) -> Vec<F> {
    fn add<F: Float>(mut sum: Vec<F>, values: &[F]) -> Vec<F> {
        sum.iter_mut().zip(values).for_each(|(sum, &value)| *sum = *sum + value);
        sum
    }
    let blocks = values.len().div_ceil(16);
    if blocks == 1 {
        return values[1..].iter().fold(values[0].to_vec(), |sum, values| add(sum, values));
    }
    // The first part has the largest power of two of blocks that leaves a second one.
    let (first, second) = values.split_at(16 * (blocks.next_power_of_two() / 2));
    add(sum(first), &sum(second))
}

/// An optimizer of rows whose step is also written in plain Rust: every [`Reference`], and
/// [`RowWiseAdam`]. Sealed.
pub trait RowReference: sealed::Sealed + RowRule {
    /// Takes step `t`, counted from 1, of one row; the moments are in the order of their names.
    ///
    /// # Panics
    ///
    /// If the slices do not fit the row.
    fn reference_row<F: Float>(
        &self,
        t: u64,
        param: &mut [F],
        grad: &[F],
        moments: Many<Self::RowMoments, &mut [F]>,
    );
}

mod sealed {
    use super::{Reference, RowWiseAdam};

    pub trait Sealed {}
    impl<R: Reference> Sealed for R {}
    impl Sealed for RowWiseAdam {}
}

impl<R: Reference> RowReference for R {
    fn reference_row<F: Float>(
        &self,
        t: u64,
        param: &mut [F],
        grad: &[F],
        moments: Many<R::Moments, &mut [F]>,
    ) {
        self.reference(t, param, grad, moments);
    }
}

impl RowReference for RowWiseAdam {
    fn reference_row<F: Float>(
        &self,
        t: u64,
        param: &mut [F],
        grad: &[F],
        [exp_avg, exp_avg_sq]: [&mut [F]; 2],
    ) {
        row_wise_adam(self, t, param, grad, exp_avg, &mut exp_avg_sq[0]);
    }
}

fn row_wise_adam<F: Float>(
    &RowWiseAdam(adam): &RowWiseAdam,
    t: u64,
    param: &mut [F],
    grad: &[F],
    exp_avg: &mut [F],
    exp_avg_sq: &mut F,
) {
    assert_eq!([grad.len(), exp_avg.len()], [param.len(); 2]);
    let k = AdamConstants::from(adam.constants(t).map(F::constant));
    let AdamConstants { keep1, keep2, step_size, eps, share, .. } = k;
    let [beta1, beta2, weight_decay] = [adam.beta1, adam.beta2, adam.weight_decay].map(F::constant);
    // Column j belongs to sum j modulo 16.
    let mut sums = [F::default(); 16];
    let mut grad = grad.to_vec();
    for i in 0..param.len() {
        if adam.maximize {
            grad[i] = -grad[i];
        }
        if adam.weight_decay != 0.0 {
            let weights = [weight_decay, share];
            decay(adam.decoupled_weight_decay, weights, &mut param[i], &mut grad[i]);
        }
        sums[i % 16] = grad[i].mul_add(grad[i], sums[i % 16]);
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            sums[i] = sums[i] + sums[i + half];
        }
    }
    let mean = sums[0] / F::from_f64(param.len() as f64);
    let next = average(adam.beta2, [beta2, keep2], *exp_avg_sq, mean);
    let is_finite = next < F::from_f64(f64::INFINITY);
    *exp_avg_sq = if is_finite { next } else { keep2.mul_add(mean, *exp_avg_sq) };
    let denominator = exp_avg_sq.sqrt() + eps;
    for i in 0..param.len() {
        exp_avg[i] = average(adam.beta1, [beta1, keep1], exp_avg[i], grad[i]);
        let uphill = adam.cautious && is_uphill(exp_avg[i], grad[i]);
        let m = if uphill { F::default() } else { exp_avg[i] };
        param[i] = (-step_size).mul_add(m / denominator, param[i]);
    }
}

/// Catches up parameters by the series, as [`CatchUp::Series`](crate::table::CatchUp::Series) does. They have
/// skipped the last `skipped` of the steps, each of which has its number and its settings. Before the first of
/// the steps, all rows were at one step.
///
/// [`DenseEquivalent`](crate::table::DenseEquivalent) has the formula. Here the sums are computed for one
/// waiting time, from its beginning. There they are computed for all waiting times at once, and updated in each
/// step.
pub fn series<F: Float>(
    steps: &[(u64, Adam)],
    skipped: usize,
    param: &mut [F],
    exp_avg: &mut [F],
    exp_avg_sq: &mut [F],
) {
    let terms = if size_of::<F>() == 4 { 6 } else { 12 };
    let rounding = if size_of::<F>() == 4 { f32::EPSILON.into() } else { f64::EPSILON } / 2.0;
    let largest = if size_of::<F>() == 4 { f32::MAX.into() } else { f64::MAX };
    let zeros = vec![F::default(); param.len()];
    let (before, missed) = steps.split_at(steps.len() - skipped);
    if missed.len() <= 3 {
        for (t, rule) in missed {
            rule.reference(*t, param, &zeros, [exp_avg, exp_avg_sq]);
        }
        return;
    }
    let Adam { beta1, beta2, .. } = missed[0].1;

    // The product of all factors, from the first step on.
    let mut shrink = Product { number: 1.0, times: 0 };
    let share = |rule: &Adam| match rule.weight_decay != 0.0 {
        true => rule.lr * rule.weight_decay,
        false => 0.0,
    };
    before.iter().for_each(|(_, rule)| shrink.lose(share(rule)));
    let begin = shrink;
    let mut end = shrink;
    let mut counted = 0;
    let mut sums = [0.0; 13];
    let (mut fading, mut growth, mut first) = (1.0, 1.0, 0.0);
    for (t, rule) in missed {
        shrink.lose(share(rule));
        if fading < 2.0_f64.powi(-64) {
            continue;
        }
        fading *= beta1 / beta2.sqrt();
        growth *= 1.0 / beta2.sqrt();
        let AdamConstants { step_size, eps, .. } = AdamConstants::from(rule.constants(*t));
        let eps = eps * growth;
        if counted == 0 {
            first = F::constant(eps.min(largest)).to_f64();
        }
        let distance = if first > 0.0 { (eps / first - 1.0).min(1e20) } else { 0.0 };
        let mut term = step_size * fading;
        for sum in &mut sums[..=terms] {
            *sum = *sum - share(rule) * *sum + term;
            term *= distance;
        }
        end = shrink;
        counted += 1;
    }
    let [rest, kept] = [end, begin].map(|earlier| shrink.over(earlier));
    let decays = missed[0].1.weight_decay != 0.0;
    let power = |beta| (0..skipped).fold(1.0, |power, _| power * beta);
    let [loss, shrink, decay1, decay2, eps] =
        [1.0 - kept, kept, power(beta1), power(beta2), first].map(F::from_f64);
    let arrive = |param: F, way: F| match (decays, kept > 0.5) {
        (false, _) => param - way,
        (true, true) => param - loss.mul_add(param, way),
        (true, false) => shrink.mul_add(param, -way),
    };

    // The series is right to a quarter of a rounding for every h, or else for h up to the limit.
    let bound = sums[terms] * (1.0 + sums[1] / sums[0]);
    let allowed = rounding / 4.0 * sums[0];
    let limit = if sums[0] == 0.0 || bound <= allowed && sums[1] <= sums[0] {
        1.0
    } else {
        let sixth = libm::cbrt(allowed / bound).sqrt();
        let root = if terms == 6 { sixth } else { sixth.sqrt() };
        root.min(sums[0] / sums[1])
    };
    // One over a subnormal number can overflow.
    let smallest = if size_of::<F>() == 4 { f32::MIN_POSITIVE.into() } else { f64::MIN_POSITIVE };
    let most = if 0.0 < first && first < smallest { 0.5 } else { 1.0 };
    let limit = F::from_f64(limit.min(most));
    let largest_inverse = if first == 0.0 { f64::INFINITY } else { largest };

    let coefficients: Vec<F> =
        sums[..terms].iter().map(|sum| F::from_f64((rest * sum).min(largest))).collect();
    for i in 0..param.len() {
        let (m, v) = (exp_avg[i], exp_avg_sq[i]);
        let inverse = F::from_f64(1.0) / (v.sqrt() + eps);
        let near = eps * inverse;
        let inverse = Lanes::min(inverse, F::from_f64(largest_inverse));
        if limit < F::from_f64(1.0) && near > limit && m != F::default() {
            let [way, m, v] = [&mut [F::default()], &mut [m], &mut [v]];
            for (t, rule) in &missed[..counted] {
                rule.reference(*t, way, &[F::default()], [m, v]);
            }
            param[i] = arrive(param[i], -(F::from_f64(rest) * way[0]));
        } else {
            let near = eps * inverse;
            let mut sum = F::default();
            for (place, &coefficient) in coefficients.iter().enumerate().rev() {
                sum = match place + 1 == terms {
                    true => coefficient,
                    false => (-near).mul_add(sum, coefficient),
                };
            }
            param[i] = arrive(param[i], m * inverse * sum);
        }
        exp_avg[i] = decay1 * m;
        exp_avg_sq[i] = decay2 * v;
    }
}

/// A product of factors in 0..=1, however small: a number, and how many times 2^-512.
#[derive(Clone, Copy)]
struct Product {
    number: f64,
    times: i32,
}

impl Product {
    /// Times `1 - share`.
    fn lose(&mut self, share: f64) {
        self.number -= share * self.number;
        if self.number < 2.0_f64.powi(-512) {
            self.number *= 2.0_f64.powi(512);
            self.times += 1;
        }
    }

    /// The product of the factors since an earlier product.
    fn over(self, earlier: Self) -> f64 {
        let times = (self.times - earlier.times).min(3);
        (0..times).fold(self.number / earlier.number, |ratio, _| ratio * 2.0_f64.powi(-512))
    }
}
