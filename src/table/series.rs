//! The sum of many steps of Adam with a gradient of zero.

use std::collections::VecDeque;

use crate::{
    Adam, Error,
    array::Float,
    rule::AdamConstants,
    simd::{Lanes, prefetch_near, prefetch_row},
};

/// Sums over the steps that rows have to catch up with, for every step that a row may be at.
///
/// A row that is at step a has m, v and p. With gradients of zero, step a + j leaves
/// `m beta1^j` and `v beta2^j`, and moves p by
///
/// ```text
/// s_j beta1^j m / (sqrt(v beta2^j) + e_j) = s_j r^j m / (sqrt(v) + x_j)
/// r = beta1 / sqrt(beta2)    x_j = e_j beta2^(-j/2)
/// ```
///
/// where s and e are the step size and the epsilon of the step, bias corrections included. All x_j
/// that count are close to the first one, since r^j has faded before beta2^(-j/2) has grown. With
/// `z = 1 / (sqrt(v) + x_1)`, `h = x_1 z`, which is in 0..=1, and `d_j = x_j / x_1 - 1`, which is not
/// negative, a geometric series gives
///
/// ```text
/// m / (sqrt(v) + x_j) = m z / (1 + d_j h) = m z (1 - d_j h + (d_j h)^2 - ...)
/// sum over j = m z (c_0 - c_1 h + c_2 h^2 - ...)    c_k = sum over j of s_j r^j d_j^k
/// ```
///
/// The c_k are the same for all parameters that are at step a: one root, one division and a short
/// polynomial are left for each. Decoupled weight decay multiplies p by `1 - lr weight_decay` before
/// each step, and so all that was summed up before.
///
/// Cut after K terms, an alternating series is wrong by no more than the next term: by `c_K h^K` of
/// `c_0 / (1 + h c_1 / c_0)` at least, the sum being convex in d. [`Jump::serves`] holds where that
/// is less than a quarter of a rounding.
#[derive(Clone, Default)]
pub(super) struct Series {
    /// r^j and beta2^(-j/2), from j = 1 on, until r^j has faded.
    fading: Vec<[f64; 2]>,
    /// beta1^j and beta2^j, from j = 0 on.
    powers: Vec<[f64; 2]>,
    /// The sums for the rows that are at each of the latest steps, the latest last.
    sums: VecDeque<Sums>,
    /// Of `1 - lr weight_decay` over all steps.
    shrink: Product,
    /// Whether there is any weight decay.
    decays: bool,
    /// How many steps are kept.
    reach: usize,
}

/// The sums over the steps after step a.
#[derive(Clone, Copy, Default)]
struct Sums {
    /// c_k.
    terms: [f64; MOST_TERMS + 1],
    /// x_1.
    eps: f64,
    /// [`Series::shrink`] at step a, and at the last step that counts.
    begin: Product,
    end: Product,
}

/// Terms of the series in `f64`; see [`Float::TERMS`].
const MOST_TERMS: usize = 12;

/// The value of r^j below which steps no longer count: 2^-64.
const FADED: f64 = 1.0 / (1u128 << 64) as f64;

/// The largest d, so that no power overflows.
const FARTHEST: f64 = 1e20;

/// The largest r that the series serves: it fades after 8,850 steps.
const SLOWEST: f64 = 0.995;

/// Checks that the series serves the steps of a rule.
pub(super) fn check(adam: &Adam) -> Result<(), Error> {
    let Adam { lr, beta1, beta2, weight_decay, .. } = *adam;
    let refused = |name, value, allowed| Err(Error::HyperParameter { name, value, allowed });
    if beta1 >= SLOWEST * beta2.sqrt() {
        let allowed = "less than 0.995 sqrt(beta2) for CatchUp::Series (CatchUp::Replay takes any)";
        return refused("beta1", beta1, allowed);
    }
    if weight_decay != 0.0 && !adam.decoupled_weight_decay {
        let allowed = "0 or decoupled for CatchUp::Series (CatchUp::Replay takes any)";
        return refused("weight_decay", weight_decay, allowed);
    }
    if lr * weight_decay >= 1.0 {
        let allowed = "less than 1 / lr for CatchUp::Series (CatchUp::Replay takes any)";
        return refused("weight_decay", weight_decay, allowed);
    }
    Ok(())
}

impl Series {
    /// Begins anew, with rows that are all at one step.
    pub(super) fn begin(&mut self, adam: &Adam, reach: usize) {
        let root = adam.beta2.sqrt();
        let ratios = [adam.beta1 / root, 1.0 / root];
        self.fading.clear();
        let mut fading = ratios;
        loop {
            self.fading.push(fading);
            if fading[0] < FADED {
                break;
            }
            fading = [fading[0] * ratios[0], fading[1] * ratios[1]];
        }
        self.reach = reach;
        self.powers.clear();
        self.powers.reserve_exact(reach + 1);
        self.powers.push([1.0; 2]);
        self.sums.clear();
        self.sums.reserve_exact(reach + 2);
        self.shrink = Product::default();
        self.sums.push_back(Sums::default());
    }

    /// How many steps count for a row.
    pub(super) fn window(&self) -> usize {
        self.fading.len()
    }

    /// Adds a step: its part to the sums of the steps before, with one term more than are used.
    pub(super) fn push<F: Float>(&mut self, adam: &Adam, constants: [f64; AdamConstants::COUNT]) {
        let AdamConstants { step_size, eps, share, .. } = constants.into();
        self.decays = adam.weight_decay != 0.0;
        self.shrink.lose(share);
        for (j, (sums, &[fading, growth])) in
            self.sums.iter_mut().rev().zip(&self.fading).enumerate()
        {
            let eps = eps * growth;
            if j == 0 {
                // Rounded to the type of the step, so that the step itself loses nothing.
                sums.eps = F::constant(eps.min(F::LARGEST)).to_f64();
            }
            let distance = if sums.eps > 0.0 { (eps / sums.eps - 1.0).min(FARTHEST) } else { 0.0 };
            let mut term = step_size * fading;
            for sum in &mut sums.terms[..=F::TERMS] {
                *sum = *sum - share * *sum + term;
                term *= distance;
            }
            sums.end = self.shrink;
        }
        if self.powers.len() <= self.reach
            && let Some(&[power1, power2]) = self.powers.last()
        {
            self.powers.push([power1 * adam.beta1, power2 * adam.beta2]);
        }
        if self.sums.len() > self.reach {
            self.sums.pop_front();
        }
        self.sums.push_back(Sums { begin: self.shrink, end: self.shrink, ..Sums::default() });
    }

    #[inline(always)]
    fn sums(&self, lag: usize) -> &Sums {
        &self.sums[self.sums.len() - 1 - lag]
    }

    /// Asks for the memory that [`jump`](Self::jump) reads.
    #[inline(always)]
    pub(super) fn prefetch(&self, lag: usize) {
        prefetch_row(&self.sums(lag).terms, 0, MOST_TERMS + 1);
        prefetch_near(&self.powers, lag, 0);
    }

    /// The last `lag` steps, as one.
    #[inline(always)]
    pub(super) fn jump<F: Float, const N: usize>(&self, lag: usize) -> Jump<F, N> {
        let sums = self.sums(lag);
        let rest = self.shrink.over(sums.end);
        let [power1, power2] = self.powers[lag];
        let mut constants = [F::default(); N];
        let shrink = self.shrink.over(sums.begin);
        let (decay, factor) = match self.decays {
            false => (Decay::None, 1.0),
            true if shrink > 0.5 => (Decay::Gentle, 1.0 - shrink),
            true => (Decay::Strong, shrink),
        };
        let fixed = [factor, power1, power2, sums.eps];
        let terms = sums.terms.iter().map(|&term| rest * term);
        for (constant, value) in constants.iter_mut().zip(fixed.into_iter().chain(terms)) {
            *constant = F::from_f64(value.min(F::LARGEST));
        }
        let limit = sums.limit::<F>();
        Jump { constants, decay, rest: F::from_f64(rest), limit: F::from_f64(limit) }
    }
}

impl Sums {
    /// The largest h for which the series is right to a quarter of a rounding.
    #[inline(always)]
    fn limit<F: Float>(&self) -> f64 {
        let [all, first, after] = [self.terms[0], self.terms[1], self.terms[F::TERMS]];
        let bound = after * (1.0 + first / all);
        let allowed = F::ROUNDING / 4.0 * all;
        // One over a subnormal number can overflow: then each parameter decides whether the series serves it.
        let most = if 0.0 < self.eps && self.eps < F::SMALLEST_NORMAL { 0.5 } else { 1.0 };
        if bound <= allowed && first <= all || all == 0.0 {
            return most;
        }
        // Where the second term is larger than the first, they also cancel.
        root::<F>(allowed / bound).min(all / first).min(most)
    }
}

/// The root of degree [`Float::TERMS`].
fn root<F: Float>(x: f64) -> f64 {
    let sixth = libm::cbrt(x).sqrt();
    if F::TERMS == 6 { sixth } else { sixth.sqrt() }
}

/// How weight decay changes a parameter over some steps, with roundings like those of the steps.
#[derive(Clone, Copy)]
pub(super) enum Decay {
    None,
    /// It loses a share, which is small: the constant.
    Gentle,
    /// It keeps a share: the constant.
    Strong,
}

impl Decay {
    /// A parameter after its decay, moved by `way`.
    #[inline(always)]
    pub(super) fn arrive<L: Lanes>(self, constant: L, param: L, way: L) -> L {
        match self {
            Self::None => param - way,
            Self::Gentle => param - constant.mul_add(param, way),
            Self::Strong => constant.mul_add(param, -way),
        }
    }
}

/// Some steps, as one.
pub(super) struct Jump<F, const N: usize> {
    /// The factor of the decay, those of m and of v, x_1, and the c_k.
    pub(super) constants: [F; N],
    pub(super) decay: Decay,
    /// The factor of p over the steps that do not count for the sums.
    rest: F,
    limit: F,
}

impl<F: Float, const N: usize> Jump<F, N> {
    /// Whether the series serves all parameters.
    #[inline(always)]
    pub(super) fn serves_all(&self) -> bool {
        !self.limit.less_than(F::from_f64(1.0))
    }

    /// The largest inverse of a denominator: that of a subnormal one is not infinite, but for an epsilon of 0.
    #[inline(always)]
    pub(super) fn largest(&self) -> f64 {
        if self.constants[3] == F::default() { f64::INFINITY } else { F::LARGEST }
    }

    /// Whether the series serves a parameter with these moments.
    #[inline(always)]
    pub(super) fn serves(&self, m: F, v: F) -> bool {
        let eps = self.constants[3];
        let near = eps * (F::from_f64(1.0) / (v.sqrt() + eps));
        !self.limit.less_than(near) || m == F::default()
    }

    /// Where a parameter ends, if from 0 it came to `place` in the steps that count for the sums.
    #[inline(always)]
    pub(super) fn arrive(&self, param: F, place: F) -> F {
        self.decay.arrive(self.constants[0], param, -(self.rest * place))
    }
}

/// A product of factors in 0..=1, however small: a number, and how many times 2^-512.
#[derive(Clone, Copy)]
struct Product {
    number: f64,
    times: u32,
}

impl Default for Product {
    fn default() -> Self {
        Self { number: 1.0, times: 0 }
    }
}

impl Product {
    const UNIT: f64 = f64::from_bits((1023 - 512) << 52);

    /// Multiplies by `1 - share`, whose own rounding would be the same in every step and add up.
    fn lose(&mut self, share: f64) {
        self.number -= share * self.number;
        if self.number < Self::UNIT {
            self.number /= Self::UNIT;
            self.times += 1;
        }
    }

    /// The quotient by an earlier product.
    #[inline(always)]
    fn over(self, earlier: Self) -> f64 {
        let mut ratio = self.number / earlier.number;
        // After three times it is 0.
        for _ in 0..(self.times - earlier.times).min(3) {
            ratio *= Self::UNIT;
        }
        ratio
    }
}
