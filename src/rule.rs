//! What an optimizer is: a formula for one parameter, and the constants of a step.

mod adadelta;
mod adagrad;
mod adam;
mod adamax;
mod ademamix;
mod adopt;
mod amsgrad;
mod lion;
mod nadam;
mod radam;
mod rmsprop;
mod sgd;

pub use adadelta::Adadelta;
pub use adagrad::AdaGrad;
pub use adam::{Adam, Epsilon};
pub use adamax::AdaMax;
pub use ademamix::AdEmaMix;
pub use adopt::Adopt;
pub use amsgrad::AmsGrad;
pub use lion::Lion;
pub use nadam::NAdam;
pub(crate) use nadam::momenta as nadam_momenta;
pub use radam::RAdam;
pub(crate) use radam::rectification as radam_rectification;
pub use rmsprop::RmsProp;
pub use sgd::Sgd;

use crate::{Error, Lanes};

/// An optimizer's formula; write one, and [`Optimizer`](crate::Optimizer) steps with it on every
/// instruction set, in `f32` and `f64`, on all threads.
///
/// # Examples
///
/// Gradient descent with momentum:
///
/// ```
/// use adamant::{Count, Error, Lanes, Optimizer, Rule};
///
/// #[derive(Clone, Copy)]
/// struct Momentum {
///     lr: f64,
///     momentum: f64,
/// }
///
/// impl Rule for Momentum {
///     type Moments = Count<1>;
///     type Constants = Count<2>;
///     const MOMENT_NAMES: [&'static str; 1] = ["momentum_buffer"];
///
///     fn check(&self) -> Result<(), Error> {
///         adamant::check("lr", self.lr, 0.0..=f64::MAX, "finite and at least 0")?;
///         adamant::check("momentum", self.momentum, 0.0..=1.0, "in 0..=1")
///     }
///
///     fn constants(&self, _t: u64) -> [f64; 2] {
///         [self.lr, self.momentum]
///     }
///
///     #[inline(always)]
///     fn update<L: Lanes>(&self, k: &[L; 2], param: L, grad: L, [buffer]: [L; 1]) -> (L, [L; 1]) {
///         let &[lr, momentum] = k;
///         let buffer = momentum.mul_add(buffer, grad);
///         ((-lr).mul_add(buffer, param), [buffer])
///     }
/// }
///
/// let rule = Momentum { lr: 0.5, momentum: 0.9 };
/// let mut param = vec![1.0_f32; 100];
/// let mut state = rule.state(param.len());
/// rule.step(&mut param, &[1.0; 100], &mut state)?;
/// assert_eq!(param[99], 0.5);
/// # Ok::<(), adamant::Error>(())
/// ```
pub trait Rule: Copy + Send + Sync {
    /// How many numbers the optimizer keeps for each parameter: [`Count<2>`](Count) for Adam.
    type Moments: Arity;

    /// How many constants the formula has.
    type Constants: Arity;

    /// The moments' names, for errors and checkpoints.
    const MOMENT_NAMES: Many<Self::Moments, &'static str>;

    /// What a moment starts from, by its position; `None` if these hyper-parameters do without it.
    ///
    /// A moment that is done without has no memory: its slices are empty, and the formula reads 0.
    fn start(&self, moment: usize) -> Option<f64> {
        let _ = moment;
        Some(0.0)
    }

    /// Calls `run` with the same rule, in one place for each choice that the formula makes.
    ///
    /// The formula is compiled into each place, where the compiler knows what its branches on fields
    /// of `self` will find. Worth its code for a rule that has little else to do than to branch, or
    /// that does without moments: see the source of [`Sgd`]. Mark it `#[inline(always)]`.
    #[inline(always)]
    fn specialise(self, mut run: impl FnMut(Self)) {
        run(self);
    }

    /// Checks the hyper-parameters.
    ///
    /// # Errors
    ///
    /// Should be [`Error::HyperParameter`] for the first one out of its range; see [`check`].
    fn check(&self) -> Result<(), Error>;

    /// Everything that depends on the step alone, for step `t`, counted from 1.
    ///
    /// Computed in `f64`; each is rounded once to the type of the step.
    fn constants(&self, t: u64) -> Many<Self::Constants, f64>;

    /// The formula: parameter, gradient and moments in, parameter and moments out.
    ///
    /// Mark it, and whatever it calls, `#[inline(always)]`: code that is not inlined here runs
    /// without the instruction set that was chosen, at a tenth of the speed. A branch on a field of
    /// `self` goes the same way for every parameter, and so is free beside a division.
    fn update<L: Lanes>(
        &self,
        k: &Many<Self::Constants, L>,
        param: L,
        grad: L,
        moments: Many<Self::Moments, L>,
    ) -> (L, Many<Self::Moments, L>);
}

/// A number of things, known when compiling: the type that stands for `N` in a [`Rule`].
#[derive(Clone, Copy, Debug)]
pub struct Count<const N: usize>;

/// `N` things of a type: `Many<Count<N>, T>` is `[T; N]`.
pub type Many<N, T> = <N as Arity>::Of<T>;

/// What [`Count`] offers to code that is generic over it; sealed.
pub trait Arity: sealed::Sealed + 'static {
    /// `[T; N]`
    type Of<T: Send + Sync>: AsRef<[T]> + AsMut<[T]> + IntoIterator<Item = T> + Send + Sync;

    /// Calls `f` with 0 to N - 1.
    fn from_fn<T: Send + Sync>(f: impl FnMut(usize) -> T) -> Self::Of<T>;

    /// Calls `f` with each.
    fn map<T: Send + Sync, U: Send + Sync>(each: Self::Of<T>, f: impl FnMut(T) -> U)
    -> Self::Of<U>;
}

impl<const N: usize> Arity for Count<N> {
    type Of<T: Send + Sync> = [T; N];

    #[inline(always)]
    fn from_fn<T: Send + Sync>(f: impl FnMut(usize) -> T) -> [T; N] {
        core::array::from_fn(f)
    }

    #[inline(always)]
    fn map<T: Send + Sync, U: Send + Sync>(each: [T; N], f: impl FnMut(T) -> U) -> [U; N] {
        each.map(f)
    }
}

mod sealed {
    pub trait Sealed {}
    impl<const N: usize> Sealed for super::Count<N> {}
}

/// Checks a hyper-parameter against the values allowed, which `allowed` puts into words.
///
/// # Errors
///
/// [`Error::HyperParameter`] if the value is outside, or NaN.
pub fn check(
    name: &'static str,
    value: f64,
    range: impl core::ops::RangeBounds<f64>,
    allowed: &'static str,
) -> Result<(), Error> {
    if range.contains(&value) {
        Ok(())
    } else {
        Err(Error::HyperParameter { name, value, allowed })
    }
}

fn check_not_negative(name: &'static str, value: f64) -> Result<(), Error> {
    check(name, value, 0.0..=f64::MAX, "finite and at least 0")
}

fn check_decay(name: &'static str, value: f64) -> Result<(), Error> {
    check(name, value, 0.0..1.0, "at least 0 and less than 1")
}

/// The gradient of what is to be made smaller.
#[inline(always)]
fn descent<L: Lanes>(maximize: bool, grad: L) -> L {
    if maximize { -grad } else { grad }
}

/// Weight decay as a part of the loss: adds `weight_decay * param` to the gradient.
#[inline(always)]
fn l2<L: Lanes>(decays: bool, weight_decay: L, param: L, grad: L) -> L {
    if decays { weight_decay.mul_add(param, grad) } else { grad }
}

/// Weight decay apart from the gradient: takes the share `lr * weight_decay` off the parameter.
#[inline(always)]
fn shrink<L: Lanes>(decays: bool, share: L, param: L) -> L {
    if decays { (-share).mul_add(param, param) } else { param }
}

/// A decay of an average, which is `beta`, and the lanes that its next value takes: `beta` and
/// `1 - beta`.
#[derive(Clone, Copy)]
struct Decay<L> {
    beta: f64,
    decay: L,
    keep: L,
}

impl<L: Lanes> Decay<L> {
    #[inline(always)]
    fn new(beta: f64, decay: L, keep: L) -> Self {
        Self { beta, decay, keep }
    }

    /// The average's next value: `beta * average + (1 - beta) * value`.
    #[inline(always)]
    fn average(self, average: L, value: L) -> L {
        self.towards(average, value, value - average)
    }

    /// The next value of an average of squares: `beta * average + (1 - beta) * value^2`.
    #[inline(always)]
    fn average_square(self, average: L, value: L) -> L {
        self.towards(average, value * value, value.mul_add(value, -average))
    }

    /// The average moves by its share of the distance, counted from the nearer end, so that a beta
    /// of 0 leaves the value alone. Two products would take the multiplier longer than the divider
    /// takes for the rest of a step.
    #[inline(always)]
    fn towards(self, average: L, value: L, distance: L) -> L {
        if self.beta < 0.5 {
            (-self.decay).mul_add(distance, value)
        } else {
            self.keep.mul_add(distance, average)
        }
    }
}

/// `1 - beta^t` for each beta: the weight that an average with decay beta, started at 0, has
/// gathered after `t` steps.
///
/// Computed without the power, whose rounding the difference would magnify: weights q and r join as
/// `q + r - q r`, so one bit of `t` after the other is gathered, while the weight of the next one
/// doubles as `q (2 - q)`. Errors don't grow on the way; the result is right to within a rounding or
/// two for each bit. Sums and products only: the same bits on every machine, which no system's
/// `pow` promises.
///
/// ```
/// assert_eq!(adamant::bias_corrections([0.75, 0.5], 2), [1.0 - 0.75 * 0.75, 0.75]);
/// assert_eq!(adamant::bias_corrections([0.999], u64::MAX), [1.0]);
/// ```
pub fn bias_corrections<const N: usize>(betas: [f64; N], t: u64) -> [f64; N] {
    let mut gathered = [0.0; N];
    let mut doubling = betas.map(|beta| 1.0 - beta);
    let mut rest = t;
    while rest != 0 {
        if doubling == [1.0; N] {
            return doubling;
        }
        // The bits of `t` are hard to predict: they mask, where a branch would be slower.
        let mask = (rest & 1).wrapping_neg();
        for (gathered, doubling) in gathered.iter_mut().zip(&mut doubling) {
            *gathered += f64::from_bits(doubling.to_bits() & mask) * (1.0 - *gathered);
            *doubling *= 2.0 - *doubling;
        }
        rest >>= 1;
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
