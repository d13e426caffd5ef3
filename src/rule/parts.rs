//! The parts that formulas share: averages, weight decay.

use core::{array, ops::Bound};

use crate::rule::Lanes;

/// The range of numbers over 0, the smallest included.
pub(super) const POSITIVE: (Bound<f64>, Bound<f64>) = (Bound::Excluded(0.0), Bound::Unbounded);

// The functions below get a setting twice: as a field of the rule, which the compiler knows, since `Rule::specialise`
// sets it for each loop, and as a constant of the step. A field with the value `true`, `ANY_DECAY` or `ANY` means that
// the loop serves every value of the setting. Such a loop reads the constant, and uses products and masks instead of
// branches.

/// 1 for true, 0 for false.
pub(super) fn flag(is_so: bool) -> f64 {
    u8::from(is_so).into()
}

/// Epsilon times the correction of a denominator, over 0 unless epsilon is 0: it keeps the denominator away from 0
/// however small it is.
pub(super) fn scaled_eps(eps: f64, correction: f64) -> f64 {
    let product = eps * correction;
    if product == 0.0 && eps > 0.0 { f64::from_bits(1) } else { product }
}

/// The constant `sign`: 1 to minimize, -1 to maximize.
pub(super) fn sign_of(maximize: bool) -> f64 {
    if maximize { -1.0 } else { 1.0 }
}

/// The gradient for descent: times -1 if the loss is maximized. `may_climb` is false in loops that only minimize.
#[inline(always)]
pub(super) fn descent<L: Lanes>(may_climb: bool, sign: L, grad: L) -> L {
    if may_climb { sign * grad } else { grad }
}

/// A constant that tells whether there is weight decay, and of which kind: less than 0 if it is decoupled.
pub(super) fn signed_decay(weight_decay: f64, decoupled: bool) -> f64 {
    if decoupled { -weight_decay } else { weight_decay }
}

/// The field `weight_decay` in a loop that serves every weight decay, 0 included.
pub(super) const ANY_DECAY: f64 = f64::INFINITY;

/// Weight decay as a part of the loss: adds `weight_decay * param` to the gradient, if it is over 0.
#[inline(always)]
pub(super) fn l2<L: Lanes>(field: f64, weight_decay: L, param: L, grad: L) -> L {
    let decays = weight_decay.splat(0.0).less_than(weight_decay);
    choose(field, decays, weight_decay.mul_add(param, grad), grad)
}

/// Decoupled weight decay: subtracts the share `lr * weight_decay` of the parameter. It does so if the constant
/// `decays` is over 0. The share itself cannot decide this, since it is also 0 if `lr` is 0.
#[inline(always)]
pub(super) fn shrink<L: Lanes>(field: f64, decays: L, share: L, param: L) -> L {
    let decays = decays.splat(0.0).less_than(decays);
    choose(field, decays, (-share).mul_add(param, param), param)
}

/// The value `with` weight decay, or the one `without`. The field decides; if it is [`ANY_DECAY`], the mask does.
#[inline(always)]
pub(super) fn choose<L: Lanes>(field: f64, decays: L::Mask, with: L, without: L) -> L {
    if field == 0.0 {
        without
    } else if field == ANY_DECAY {
        L::select(decays, with, without)
    } else {
        with
    }
}

/// The parameter and the gradient after weight decay of either kind. `weights` are the [signed](signed_decay) decay and
/// the share of the parameter. With [`ANY_DECAY`], the sign decides the kind.
#[inline(always)]
pub(super) fn decay<L: Lanes>(
    field: f64,
    decoupled: bool,
    weights: [L; 2],
    param: L,
    grad: L,
) -> (L, L) {
    let [weight_decay, share] = weights;
    let may_be_any = field == ANY_DECAY;
    let of_grad = if may_be_any || !decoupled { field } else { 0.0 };
    let of_param = if may_be_any || decoupled { field } else { 0.0 };
    let grad = l2(of_grad, weight_decay, param, grad);
    (shrink(of_param, -weight_decay, share, param), grad)
}

/// The field `beta` in a loop for decays of at least 0.5, as all usual ones are: an average moves by `1 - beta` of the
/// distance, counted from its old value.
pub(super) const SLOW: f64 = 0.5;
/// The field `beta` in a loop that serves every decay.
pub(super) const ANY: f64 = 0.0;

/// Whether a loop for [`SLOW`] averages serves these decays.
#[inline(always)]
pub(super) fn are_slow<const N: usize>(betas: [f64; N]) -> bool {
    betas.iter().all(|&beta| beta >= SLOW)
}

/// The larger of two numbers that are not negative, NaN if either is. Beside an infinite `old`, a NaN in `new` is lost.
#[inline(always)]
pub(super) fn larger<L: Lanes>(old: L, new: L) -> L {
    L::select(old.less_than(old.splat(f64::INFINITY)), new.max(old), old)
}

/// The constant `weight`, by which [`MovingAverage`] multiplies the distance from the old average to the new value. It
/// is `1 - beta`, to be added to the old average, or `-beta`, to be added to the new value, whichever is nearer.
pub(super) fn weight(beta: f64) -> f64 {
    if beta < SLOW { -beta } else { 1.0 - beta }
}

/// An exponential moving average with the decay `beta`, its [`weight`] and `1 - beta`.
#[derive(Clone, Copy)]
pub(super) struct MovingAverage<L> {
    beta: f64,
    weight: L,
    keep: L,
}

impl<L: Lanes> MovingAverage<L> {
    #[inline(always)]
    pub(super) fn new(beta: f64, weight: L, keep: L) -> Self {
        Self { beta, weight, keep }
    }

    /// The average's next value: `beta * average + (1 - beta) * value`.
    #[inline(always)]
    pub(super) fn next(self, average: L, value: L) -> L {
        self.towards(average, value, value - average)
    }

    /// The next value of an average of squares: `beta * average + (1 - beta) * value^2`.
    ///
    /// Where the square overflows, the result is `average + ((1 - beta) * value) * value` instead. Its
    /// relative error is at most 1 - beta; it is infinite where the true average overflows, and never NaN.
    #[inline(always)]
    pub(super) fn next_square(self, average: L, value: L) -> L {
        let next = self.towards(average, value * value, value.mul_add(value, -average));
        let large = (self.keep * value).mul_add(value, average);
        L::select(next.less_than(average.splat(f64::INFINITY)), next, large)
    }

    /// The next value of an average of squares, from a mean of squares. Where one of them is infinite, so
    /// is the next value.
    #[inline(always)]
    pub(super) fn next_mean_square(self, average: L, mean: L) -> L {
        let next = self.next(average, mean);
        let large = self.keep.mul_add(mean, average);
        L::select(next.less_than(average.splat(f64::INFINITY)), next, large)
    }

    /// The average moves by a share of the distance, counted from the nearer end, so that a beta of 0
    /// gives the value itself. The other form, a sum of two products, keeps the multiplier busy for longer
    /// than the divider needs for the rest of a step.
    #[inline(always)]
    fn towards(self, average: L, value: L, distance: L) -> L {
        if self.beta < SLOW {
            let nearer = L::select(self.weight.less_than(self.keep), value, average);
            self.weight.mul_add(distance, nearer)
        } else {
            self.keep.mul_add(distance, average)
        }
    }
}

/// 1, -1, or the number itself if it is a zero or NaN.
#[inline(always)]
pub(super) fn sign<L: Lanes>(x: L) -> L {
    let zero = x.splat(0.0);
    let negative = L::select(x.less_than(zero), x.splat(-1.0), x);
    L::select(zero.less_than(x), x.splat(1.0), negative)
}

/// `1 - beta^t` for each beta: the total weight of the values in an average with decay beta that started
/// at 0, after `t` steps.
///
/// The power itself is not computed, since the subtraction would magnify its rounding error. Instead, the
/// weights of the bits of `t` are joined: weights q and r of two numbers of steps give `q + r - q r` for
/// their sum, and `q (2 - q)` for twice the steps. Errors do not grow on the way: each bit adds a rounding or
/// two. These are sums and products only, so every machine has the same bits, which no system's `pow`
/// promises.
///
/// ```
/// assert_eq!(adamant::rule::bias_corrections([0.75, 0.5], 2), [1.0 - 0.75 * 0.75, 0.75]);
/// assert_eq!(adamant::rule::bias_corrections([0.999], u64::MAX), [1.0]);
/// ```
#[inline]
pub fn bias_corrections<const N: usize>(betas: [f64; N], t: u64) -> [f64; N] {
    let mut gathered = [0.0; N];
    let mut doubling = betas.map(|beta| 1.0 - beta);
    let mut rest = t;
    while rest != 0 {
        if doubling == [1.0; N] {
            return doubling;
        }
        // The bits of `t` are hard to predict, so a mask is faster than a branch. Two bits at a time are
        // joined with each other first, which does not wait for the sum of all earlier ones. Each operation is one on
        // all betas in one register: the compiler makes branches of a loop over the betas.
        let [low, high] = [rest & 1, rest >> 1 & 1].map(u64::wrapping_neg);
        let masked = |weight: f64, mask| f64::from_bits(weight.to_bits() & mask);
        let one = doubling.map(|weight| masked(weight, low));
        doubling = doubling.map(|weight| weight * (2.0 - weight));
        let two = doubling.map(|weight| masked(weight, high));
        doubling = doubling.map(|weight| weight * (2.0 - weight));
        let both: [_; N] = array::from_fn(|i| one[i] + two[i] * (1.0 - one[i]));
        gathered = array::from_fn(|i| gathered[i] + both[i] * (1.0 - gathered[i]));
        rest >>= 2;
    }
    gathered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bias_corrections_are_right_for_every_beta_and_t() {
        // 1 - beta^t of the f64 nearest to beta.
        for (beta, t, expected) in [
            (0.0, 3, 1.0),
            (0.9, 1, 0.09999999999999998),
            (0.9, 2, 0.18999999999999995),
            (0.9, 3, 0.27099999999999996),
            (0.999, 1, 0.0010000000000000009),
            (0.999, 2, 0.0019990000000000016),
            (0.999, 3, 0.0029970010000000026),
            (0.999, 1000, 0.6323045752290363),
            (0.9999, 1, 9.999999999998899e-05),
            (0.9999, 2, 0.00019998999999997798),
            (0.9999, 3, 0.00029997000099996697),
            (0.9999, 1000, 0.09516710644144377),
            (0.9999, 123456, 0.9999956538376522),
            (0.999999999, 1, 9.999999717180685e-10),
            (0.999999999, 2, 1.999999942436137e-09),
            (0.999999999, 3, 2.9999999121542056e-09),
            (0.999999999, 1000, 9.99999472218263e-07),
            (0.999999999, 123456, 0.0001234483761922063),
            (0.999999999, 1000000000, 0.6321205486081561),
            (0.9999999999999999, 1, 1.1102230246251565e-16),
            (0.9999999999999999, 2, 2.220446049250313e-16),
            (0.9999999999999999, 3, 3.330669073875469e-16),
            (0.9999999999999999, 1000, 1.110223024625095e-13),
            (0.9999999999999999, 123456, 1.37063693727184e-11),
            (0.9999999999999999, 1000000000, 1.1102229629954006e-07),
        ] {
            let [found] = bias_corrections([beta], t);
            let error = (found - expected).abs() / expected;
            assert!(error < 3e-15, "{beta}^{t}: {found}, expected {expected}");
        }
    }

    #[test]
    fn bias_corrections_do_not_depend_on_their_neighbours() {
        for t in [1, 7, 1000, u64::MAX] {
            let [a, b] = bias_corrections([0.9, 0.9999], t);
            assert_eq!(([a], [b]), (bias_corrections([0.9], t), bias_corrections([0.9999], t)));
        }
    }
}
