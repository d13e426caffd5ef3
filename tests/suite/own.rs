//! A rule of a user.

use adamant::{
    Error,
    reference::Reference,
    rule::{Count, Float, Lanes, Rule},
};

/// A rule outside the crate, whose constants differ for each step and each setting.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    pub lr: f64,
}

impl Own {
    #[inline(always)]
    fn formula<L: Lanes>(lr: L, param: L, grad: L, m: L) -> (L, L) {
        let m = grad.mul_add(lr, m);
        ((-lr).mul_add(m.abs(), param), m)
    }
}

impl Rule for Own {
    type Moments = Count<1>;
    type Constants = Count<1>;
    const MOMENT_NAMES: [&'static str; 1] = ["m"];
    const ROWS_IN_LOOP: bool = true;

    fn check(&self) -> Result<(), Error> {
        adamant::rule::check("lr", self.lr, 0.0..=1.0, "in 0..=1")
    }

    fn constants(&self, t: u64) -> [f64; 1] {
        [self.lr / t as f64]
    }

    #[inline(always)]
    fn update<L: Lanes>(&self, &[lr]: &[L; 1], param: L, grad: L, [m]: [L; 1]) -> (L, [L; 1]) {
        let (param, m) = Self::formula(lr, param, grad, m);
        (param, [m])
    }
}

impl Reference for Own {
    fn reference<F: Float>(&self, t: u64, param: &mut [F], grad: &[F], [m]: [&mut [F]; 1]) {
        let lr = F::from_f64(self.constants(t)[0]);
        for ((param, &grad), m) in param.iter_mut().zip(grad).zip(m) {
            (*param, *m) = Self::formula(lr, *param, grad, *m);
        }
    }
}
