//! An optimizer written outside the crate: AdaBelief (Zhuang et al., 2020), which is Adam with the
//! gradient's variance in the denominator. It gets every instruction set, both types and all threads.
//!
//! ```text
//! cargo run --release --example custom_rule
//! ```

use adamant::{
    Count, Error, Exec, Isa, Lanes, Optimizer, Rule, bias_corrections, check, named_constants,
};

#[derive(Clone, Copy)]
struct AdaBelief {
    lr: f64,
}

named_constants!(struct K { keep1, keep2, step_size, eps });

impl Rule for AdaBelief {
    type Moments = Count<2>;
    type Constants = Count<{ K::COUNT }>;
    const MOMENT_NAMES: [&'static str; 2] = ["exp_avg", "exp_avg_var"];

    fn check(&self) -> Result<(), Error> {
        check("lr", self.lr, 0.0..=f64::MAX, "finite and at least 0")
    }

    fn constants(&self, t: u64) -> [f64; K::COUNT] {
        let [correction1, correction2] = bias_corrections([0.9, 0.999], t);
        let step_size = self.lr * correction2.sqrt() / correction1;
        K { keep1: 0.1, keep2: 0.001, step_size, eps: 1e-8 * correction2.sqrt() }.into()
    }

    #[inline(always)]
    fn update<L: Lanes>(
        &self,
        k: &[L; K::COUNT],
        param: L,
        grad: L,
        [m, s]: [L; 2],
    ) -> (L, [L; 2]) {
        let k = K::from(*k);
        let m = k.keep1.mul_add(grad - m, m);
        let surprise = grad - m;
        let s = k.keep2.mul_add(surprise.mul_add(surprise, -s), s);
        ((-k.step_size).mul_add(m / (s.sqrt() + k.eps), param), [m, s])
    }
}

/// The same step in a plain loop.
fn plain(lr: f64, t: i32, param: &mut [f64], grad: &[f64], m: &mut [f64], s: &mut [f64]) {
    let (correction1, correction2) = (1.0 - 0.9_f64.powi(t), 1.0 - 0.999_f64.powi(t));
    for i in 0..param.len() {
        m[i] = 0.9 * m[i] + 0.1 * grad[i];
        s[i] = 0.999 * s[i] + 0.001 * (grad[i] - m[i]).powi(2);
        param[i] -= lr * m[i] / correction1 / ((s[i] / correction2).sqrt() + 1e-8);
    }
}

fn main() -> Result<(), Error> {
    const LEN: usize = 100_003;
    let rule = AdaBelief { lr: 1e-2 };
    let gradient =
        |param: &[f64]| param.iter().zip(1..).map(|(p, i)| p - (i as f64).sin()).collect();

    let mut expected = vec![0.0; LEN];
    let (mut m, mut s) = (vec![0.0; LEN], vec![0.0; LEN]);
    for t in 1..=20 {
        let grad: Vec<f64> = gradient(&expected);
        plain(rule.lr, t, &mut expected, &grad, &mut m, &mut s);
    }

    for isa in Isa::available() {
        for parallel in [false, true] {
            let mut param = vec![0.0; LEN];
            let mut state = rule.state(LEN);
            for _ in 0..20 {
                let grad: Vec<f64> = gradient(&param);
                rule.step_on(Exec { isa, parallel }, &mut param, &grad, &mut state)?;
            }
            let errors = param.iter().zip(&expected).map(|(a, b)| (a - b).abs());
            let error = errors.fold(0.0, f64::max);
            let threads = if parallel { "all threads" } else { "one thread" };
            println!(
                "{isa:<6} {threads}: {LEN} parameters, at most {error:.1e} off the plain loop"
            );
            assert!(error < 1e-13, "the formulas differ");
        }
    }
    Ok(())
}
