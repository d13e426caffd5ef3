//! An optimizer written outside the crate: AdaBound (Luo et al., 2019, "Adaptive Gradient Methods with
//! Dynamic Bound of Learning Rate"), which begins like Adam and ends like SGD. It gets every instruction
//! set, every type and all threads, and shares calls with the crate's own optimizers.
//!
//! ```text
//! m = beta1 * m + (1 - beta1) * g
//! v = beta2 * v + (1 - beta2) * g^2
//! rate = lr / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)
//! p = p - min(max(rate, low), high) * m
//!
//! low = final_lr * (1 - 1 / (gamma * t + 1))
//! high = final_lr * (1 + 1 / (gamma * t))
//! ```
//!
//! (Epsilon is where Adam has it, on the root of the corrected v.)
//!
//! ```text
//! cargo run --release --example custom_rule
//! ```

use adamant::{
    Adam, Error, Exec, Group, Isa, Optimizer, Outcome, StepOptions, Storage, Threads,
    rule::{Count, Lanes, Rule, bias_corrections, check, named_constants},
};

const BETAS: [f64; 2] = [0.9, 0.999];
const EPS: f64 = 1e-8;
const GAMMA: f64 = 1e-3;

#[derive(Clone, Copy)]
struct AdaBound {
    lr: f64,
    final_lr: f64,
}

named_constants!(struct K { keep1, keep2, step_size, eps, low, high });

impl Rule for AdaBound {
    type Moments = Count<2>;
    type Constants = Count<{ K::COUNT }>;
    const MOMENT_NAMES: [&'static str; 2] = ["exp_avg", "exp_avg_sq"];

    fn holds_squares(&self, moment: usize) -> bool {
        moment == 1
    }

    fn check(&self) -> Result<(), Error> {
        check("lr", self.lr, 0.0..=f64::MAX, "finite and at least 0")?;
        check("final_lr", self.final_lr, 0.0..=f64::MAX, "finite and at least 0")
    }

    /// All that depends on the step alone is computed here, once for a step.
    fn constants(&self, t: u64) -> [f64; K::COUNT] {
        let [correction1, correction2] = bias_corrections(BETAS, t);
        // The correction of v is moved out of the root.
        let step_size = self.lr * correction2.sqrt() / correction1;
        let eps = EPS * correction2.sqrt();
        let trust = GAMMA * t as f64;
        let low = self.final_lr * (1.0 - 1.0 / (trust + 1.0));
        let high = self.final_lr * (1.0 + 1.0 / trust);
        let [keep1, keep2] = BETAS.map(|beta| 1.0 - beta);
        K { keep1, keep2, step_size, eps, low, high }.into()
    }

    #[inline(always)]
    fn update<L: Lanes>(
        &self,
        k: &[L; K::COUNT],
        param: L,
        grad: L,
        [m, v]: [L; 2],
    ) -> (L, [L; 2]) {
        let k = K::from(*k);
        let m = k.keep1.mul_add(grad - m, m);
        let v = k.keep2.mul_add(grad.mul_add(grad, -v), v);
        let rate = (k.step_size / (v.sqrt() + k.eps)).max(k.low).min(k.high);
        ((-rate).mul_add(m, param), [m, v])
    }
}

/// The same step in a plain loop.
fn plain(rule: AdaBound, t: u64, param: &mut [f64], grad: &[f64], moments: &mut [Vec<f64>; 2]) {
    let [m, v] = moments;
    let steps = t as f64;
    let [correction1, correction2] = BETAS.map(|beta| 1.0 - beta.powf(steps));
    let low = rule.final_lr * (1.0 - 1.0 / (GAMMA * steps + 1.0));
    let high = rule.final_lr * (1.0 + 1.0 / (GAMMA * steps));
    for i in 0..param.len() {
        m[i] = BETAS[0] * m[i] + (1.0 - BETAS[0]) * grad[i];
        v[i] = BETAS[1] * v[i] + (1.0 - BETAS[1]) * grad[i] * grad[i];
        let rate = rule.lr / correction1 / ((v[i] / correction2).sqrt() + EPS);
        param[i] -= rate.clamp(low, high) * m[i];
    }
}

const LEN: usize = 100_003;
const STEPS: u64 = 20;

/// Of half the squared distance from some goal.
fn gradient(param: &[f64]) -> Vec<f64> {
    param.iter().zip(1..).map(|(p, i)| p - f64::from(i).sin()).collect()
}

fn main() -> Result<(), Error> {
    let rule = AdaBound { lr: 1e-2, final_lr: 0.1 };
    let mut expected = vec![0.0; LEN];
    let mut moments = [vec![0.0; LEN], vec![0.0; LEN]];
    for t in 1..=STEPS {
        let grad = gradient(&expected);
        plain(rule, t, &mut expected, &grad, &mut moments);
    }

    // On every instruction set, on one thread and on all.
    for isa in Isa::available() {
        for (threads, label) in [(Threads::Serial, "one thread"), (Threads::Rayon, "all threads")] {
            let exec = Exec { isa: Some(isa), threads };
            let options = StepOptions { exec, ..StepOptions::default() };
            let mut param = vec![0.0; LEN];
            let mut state = rule.state_in(Storage::F64, LEN);
            for _ in 0..STEPS {
                let grad = gradient(&param);
                let tensor = state.tensor(&mut param, &grad);
                let report = rule.step_tensors(&mut [tensor], &options)?;
                assert_eq!(report.outcome, Outcome::Taken);
            }
            let errors = param.iter().zip(&expected).map(|(a, b)| (a - b).abs());
            let error = errors.fold(0.0, f64::max);
            println!("{isa:<6} {label}: {LEN} parameters, at most {error:.1e} off the plain loop");
            assert!(error < 1e-13, "the formulas differ");
        }
    }
    beside_adam(rule)
}

/// In one call with Adam, moments of 8 bits: nothing is to be written for either.
fn beside_adam(rule: AdaBound) -> Result<(), Error> {
    let adam = Adam { lr: 1e-2, ..Adam::default() };
    let (mut by_rule, mut by_adam) = (vec![0.0_f32; 1000], vec![0.0_f32; 1000]);
    let (mut rule_state, mut adam_state) =
        (rule.state_in(Storage::Q8, 1000), adam.state_in(Storage::Q8, 1000));
    for _ in 0..300 {
        let [rule_grad, adam_grad] =
            [&by_rule, &by_adam].map(|param| param.iter().map(|p| p - 1.0).collect::<Vec<f32>>());
        let _ = adamant::step(
            &mut [
                Group::new(&rule, &mut [rule_state.tensor(&mut by_rule, &rule_grad)]),
                Group::new(&adam, &mut [adam_state.tensor(&mut by_adam, &adam_grad)]),
            ],
            &StepOptions::default(),
        )?;
    }
    println!("8 bits: AdaBound went from 0 to {:.3}, Adam to {:.3}", by_rule[0], by_adam[0]);
    assert!((by_rule[0] - 1.0).abs() < 0.05 && (by_adam[0] - 1.0).abs() < 0.05);
    Ok(())
}
