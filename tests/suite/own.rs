//! Rules of a user.

use adamant::{
    Error, Storage,
    reference::Reference,
    rule::{Count, Float, Lanes, Rule},
    table::{RowGrads, RowOptimizer},
};
use half::bf16;

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

/// Does nothing, with these moments.
#[derive(Clone, Copy, Debug)]
struct Nothing<const N: usize>;

macro_rules! nothing {
    ($count:literal, $names:expr) => {
        impl Rule for Nothing<$count> {
            type Moments = Count<$count>;
            type Constants = Count<0>;
            const MOMENT_NAMES: [&'static str; $count] = $names;

            fn check(&self) -> Result<(), Error> {
                Ok(())
            }

            fn constants(&self, _t: u64) -> [f64; 0] {
                []
            }

            #[inline(always)]
            fn update<L: Lanes>(
                &self,
                _k: &[L; 0],
                param: L,
                _grad: L,
                moments: [L; $count],
            ) -> (L, [L; $count]) {
                (param, moments)
            }
        }
    };
}

nothing!(0, []);
nothing!(1, [""]);

/// The names of the two rules' moments are the same as far as they go, and the moment is much shorter than the table.
#[test]
fn a_state_with_more_moments_than_the_rule_is_refused() {
    let mut state = Nothing::<1>.row_state_in(Storage::Bf16, 1, 64);
    let (mut table, grads) = (vec![bf16::ONE; 1000 * 64], vec![bf16::ONE; 64]);
    let grads = RowGrads::new(&[999_u32], &grads, 64);
    let found = Nothing::<0>.step_rows_lazy(&mut table, grads, &mut state);
    assert_eq!(found, Err(Error::TooManyMoments { tensor: 0, passed: 1, optimizer: 0 }));
    assert_eq!(state.steps(), 0);
}
