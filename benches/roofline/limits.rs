//! What a step is measured against: rules that move a step's bytes or do its divisions, and the
//! loop that the compiler makes of the formula.

use adamant::{Adam, Count, Error, Float, Lanes, Rule, bias_corrections};

/// Moves the bytes of Adam's step, through the same kernel, and leaves every value as it was.
#[derive(Clone, Copy)]
pub struct Stream;

impl Rule for Stream {
    type Moments = Count<2>;
    type Constants = Count<1>;
    const MOMENT_NAMES: [&'static str; 2] = Adam::MOMENT_NAMES;

    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    fn constants(&self, _t: u64) -> [f64; 1] {
        [0.0]
    }

    #[inline(always)]
    fn update<L: Lanes>(&self, &[zero]: &[L; 1], param: L, grad: L, [m, v]: [L; 2]) -> (L, [L; 2]) {
        let nothing = zero * grad;
        (param + nothing, [m + nothing, v + nothing])
    }
}

/// Keeps the divider busy with operands in registers: [`Divider::EACH`] square roots and divisions
/// for each element that it reads.
#[derive(Clone, Copy)]
pub struct Divider;

impl Divider {
    const CHAINS: usize = 8;
    const LINKS: usize = 32;
    pub const EACH: usize = Self::CHAINS * Self::LINKS;
}

impl Rule for Divider {
    type Moments = Count<0>;
    type Constants = Count<1>;
    const MOMENT_NAMES: [&'static str; 0] = [];

    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    fn constants(&self, _t: u64) -> [f64; 1] {
        // Leads every chain to a number that no divider has a short cut for.
        [0.7]
    }

    #[inline(always)]
    fn update<L: Lanes>(&self, &[c]: &[L; 1], param: L, grad: L, []: [L; 0]) -> (L, [L; 0]) {
        // Each chain waits for itself; enough of them side by side, and the divider never idles.
        let mut chains = [param; Self::CHAINS];
        for (chain, start) in chains.iter_mut().zip(1..) {
            *chain = grad.splat(f64::from(start)) + grad;
        }
        for _ in 0..Self::LINKS {
            for chain in &mut chains {
                *chain = c / chain.sqrt();
            }
        }
        let mut sum = param;
        for chain in chains {
            sum = sum.min(chain);
        }
        (sum, [])
    }
}

/// Adam as a loop that the compiler vectorises by itself, for the instruction set that the build is
/// for: multiplications and additions apart, since fused ones would be calls into a library there.
pub fn plain<F: Float>(adam: &Adam, t: u64, param: &mut [F], grad: &[F], m: &mut [F], v: &mut [F]) {
    let [correction1, correction2] = bias_corrections([adam.beta1, adam.beta2], t);
    let constants = [
        adam.beta1,
        1.0 - adam.beta1,
        adam.beta2,
        1.0 - adam.beta2,
        adam.lr * correction2.sqrt() / correction1,
        adam.eps * correction2.sqrt(),
    ];
    let [beta1, keep1, beta2, keep2, step_size, eps] = constants.map(F::from_f64);
    for (((param, &grad), m), v) in param.iter_mut().zip(grad).zip(m).zip(v) {
        *m = beta1 * *m + keep1 * grad;
        *v = beta2 * *v + keep2 * grad * grad;
        *param = *param - step_size * *m / (v.sqrt() + eps);
    }
}
