//! The options of a step: clipping, factors, leaving out, flushing; in every type of parameters. `groups.rs`
//! compares their bits with the reference.

use crate::support::{Columns, execs, serial};
use adamant::{
    Adam, Element, Error, Exec, Grad, Lion, Optimizer, Outcome, Report, Sgd, State, StepOptions,
    Storage, Tensor,
    norm::clip_factor,
    rule::{Float, Rule},
};
use half::{bf16, f16};

fn options() -> StepOptions<'static> {
    StepOptions { exec: serial(), ..StepOptions::default() }
}

/// A type of parameters and gradients.
trait Number: Element + PartialEq + std::fmt::Debug {
    const STORAGES: &'static [Storage];

    fn of(value: f64) -> Self;

    fn value(self) -> f64;
}

macro_rules! number {
    ($($number:ident: $of:expr, $storages:expr);+) => {$(
        impl Number for $number {
            const STORAGES: &'static [Storage] = $storages;

            fn of(value: f64) -> Self {
                $of(value)
            }

            fn value(self) -> f64 {
                self.into()
            }
        }
    )+};
}

const SINGLE: &[Storage] = &[Storage::F32, Storage::Bf16, Storage::Q8];

number! {
    f32: |value| value as f32, SINGLE;
    f64: |value| value, &[Storage::F64];
    bf16: bf16::from_f64, SINGLE;
    f16: f16::from_f64, SINGLE
}

/// Code that runs with every type.
trait ForEachNumber {
    fn run<F: Number>(&self);
}

fn for_each_number(each: &impl ForEachNumber) {
    each.run::<f32>();
    each.run::<f64>();
    each.run::<bf16>();
    each.run::<f16>();
}

/// A tensor whose gradients are accumulated.
struct Training<F> {
    param: Vec<F>,
    grad: Vec<F>,
    state: State,
}

impl<F: Number> Training<F> {
    fn new(rule: &impl Rule, storage: Storage, len: usize) -> Self {
        let param = (0..len).map(|place| F::of((place as f64).sin())).collect();
        Self { param, grad: vec![F::of(0.0); len], state: rule.state_in(storage, len) }
    }

    /// Adds a batch to the gradients, as a backward pass does.
    fn add(&mut self, batch: impl Fn(usize) -> f64) {
        for (place, grad) in self.grad.iter_mut().enumerate() {
            *grad = F::of(grad.value() + batch(place));
        }
    }

    fn step(&mut self, rule: &impl Rule, options: &StepOptions<'_>) -> Result<Report, Error> {
        let (param, grad) = (F::param(&mut self.param), Grad::zeroed(&mut self.grad));
        rule.step_with(param, grad, &mut self.state, options)
    }

    fn moments(&self) -> String {
        self.state.moments().map(|moment| format!("{moment:?}")).collect()
    }
}

fn usual(place: usize) -> f64 {
    0.25 + (place as f64 * 0.7).cos() * 0.125
}

struct OneBadBatch;

impl ForEachNumber for OneBadBatch {
    fn run<F: Number>(&self) {
        let adam = Adam::adamw();
        for &storage in F::STORAGES {
            for bad in [f64::NAN, f64::INFINITY] {
                for clips in [false, true] {
                    let options = StepOptions {
                        skip_nonfinite: !clips,
                        max_norm: clips.then_some(1.0),
                        ..options()
                    };
                    let [mut good, mut spoilt] =
                        [(); 2].map(|()| Training::<F>::new(&adam, storage, 700));
                    for batch in 0..6 {
                        good.add(usual);
                        let report = good.step(&adam, &options).expect("a valid step");
                        assert_eq!(report.outcome, Outcome::Taken);
                        if batch == 2 {
                            let before = (spoilt.param.clone(), spoilt.moments());
                            spoilt.add(|place| if place == 300 { bad } else { usual(place) });
                            let report = spoilt.step(&adam, &options).expect("a valid call");
                            assert_eq!(
                                (report.outcome, spoilt.state.steps()),
                                (Outcome::LeftOut, 2)
                            );
                            assert!(!report.grad_norm.expect("a norm").is_finite());
                            assert_eq!((spoilt.param.clone(), spoilt.moments()), before);
                            assert!(spoilt.grad.iter().all(|grad| grad.value() == 0.0));
                        }
                        spoilt.add(usual);
                        let report = spoilt.step(&adam, &options).expect("a valid step");
                        assert_eq!(report.outcome, Outcome::Taken);
                    }
                    assert_eq!((good.state.steps(), spoilt.state.steps()), (6, 6));
                    assert_eq!((good.param, good.state.moments().count()), (spoilt.param, 2));
                }
            }
        }
    }
}

/// A buffer in which gradients are accumulated must not keep a NaN.
#[test]
fn training_goes_on_after_one_bad_batch_as_if_it_had_not_been() {
    for_each_number(&OneBadBatch);
}

struct KeepGrads;

impl ForEachNumber for KeepGrads {
    fn run<F: Number>(&self) {
        let lion = Lion::default();
        let options = StepOptions { skip_nonfinite: true, keep_grads: true, ..options() };
        let mut training = Training::<F>::new(&lion, F::STORAGES[0], 300);
        training.add(|place| if place == 299 { f64::INFINITY } else { usual(place) });
        let before = (training.param.clone(), training.grad.clone(), training.moments());
        for _ in 0..2 {
            let report = training.step(&lion, &options).expect("a valid call");
            assert_eq!((report.outcome, training.state.steps()), (Outcome::LeftOut, 0));
            let after = (training.param.clone(), training.grad.clone(), training.moments());
            assert_eq!(after, before);
        }
        // A step that is taken zeroes them all the same.
        training.grad[299] = F::of(1.0);
        let report = training.step(&lion, &options).expect("a valid call");
        assert_eq!((report.outcome, training.state.steps()), (Outcome::Taken, 1));
        assert!(training.grad.iter().all(|grad| grad.value() == 0.0));
    }
}

#[test]
fn a_step_that_is_left_out_keeps_gradients_if_told_to() {
    for_each_number(&KeepGrads);
}

struct Clipping;

impl ForEachNumber for Clipping {
    fn run<F: Number>(&self) {
        // The step is the gradient times its factor.
        let sgd = Sgd { lr: 1.0, ..Sgd::default() };
        let len = 300;
        let step = |options: StepOptions<'_>| {
            let mut param = vec![F::of(0.0); len];
            let grad: Vec<F> = (0..len).map(|place| F::of(usual(place) * 2.0)).collect();
            let mut steps = 0;
            let tensor = Tensor::new(F::param(&mut param), F::grad(&grad), &mut steps);
            let report = sgd.step_tensors(&mut [tensor], &options).expect("a valid step");
            assert_eq!((report.outcome, steps), (Outcome::Taken, 1));
            let norm = grad.iter().map(|grad| grad.value().powi(2)).sum::<f64>().sqrt();
            let stepped = param.iter().map(|param| param.value().powi(2)).sum::<f64>().sqrt();
            (norm, stepped, report.grad_norm)
        };
        // Half a rounding of each parameter.
        let near = |found: f64, expected: f64| {
            assert!((found / expected - 1.0).abs() < 1.0 / 256.0, "{found}, {expected}");
        };
        let (norm, stepped, none) = step(options());
        near(stepped, norm);
        assert_eq!(none, None);
        for grad_factor in [1.0, 0.125, 3.0] {
            let options = StepOptions { grad_factor, ..options() };
            let (_, stepped, none) = step(options);
            near(stepped, grad_factor * norm);
            assert_eq!(none, None);

            // Norms below the limit and above it.
            for (max_norm, expected) in
                [(10.0 * grad_factor * norm, grad_factor * norm), (0.5, 0.5)]
            {
                let options = StepOptions { max_norm: Some(max_norm), ..options };
                let (_, stepped, found) = step(options);
                near(stepped, expected);
                let found = found.expect("a norm");
                assert!((found / (grad_factor * norm) - 1.0).abs() < 1e-12, "{found}");

                // The caller's norm stands for that of all shares of a model.
                let options = StepOptions { grad_norm: Some(4.0 * norm), ..options };
                let (_, stepped, found) = step(options);
                assert_eq!(found, Some(4.0 * norm * grad_factor));
                let clip = clip_factor(4.0 * norm * grad_factor, max_norm);
                near(stepped, clip * grad_factor * norm);
            }

            // A norm alone clips nothing.
            for options in [
                StepOptions { grad_norm: Some(1e9), ..options },
                StepOptions { skip_nonfinite: true, ..options },
            ] {
                near(step(options).1, grad_factor * norm);
            }
        }
        // No gradient is shorter.
        let (_, _, found) =
            step(StepOptions { grad_norm: Some(0.0), max_norm: Some(1.0), ..options() });
        assert_eq!(found, Some(0.0));
    }
}

#[test]
fn gradients_are_clipped_to_the_norm_and_multiplied_by_the_factor() {
    for_each_number(&Clipping);
}

struct CallersNorm;

impl ForEachNumber for CallersNorm {
    fn run<F: Number>(&self) {
        let adam = Adam::default();
        for (grad_norm, outcome) in [
            (f64::NAN, Outcome::LeftOut),
            (f64::INFINITY, Outcome::LeftOut),
            (1e300, Outcome::Taken),
            (0.0, Outcome::Taken),
        ] {
            // No other option is needed: a norm that is passed is always checked.
            for skip_nonfinite in [false, true] {
                let mut training = Training::<F>::new(&adam, F::STORAGES[0], 20);
                training.add(usual);
                let grad_norm = Some(grad_norm);
                let options = StepOptions { grad_norm, skip_nonfinite, ..options() };
                let report = training.step(&adam, &options).expect("a valid call");
                let steps = u64::from(outcome == Outcome::Taken);
                assert_eq!((report.outcome, training.state.steps()), (outcome, steps));
            }
        }
        // The caller's norm counts, whatever the gradients are.
        let mut training = Training::<F>::new(&adam, F::STORAGES[0], 20);
        training.add(|place| if place == 7 { f64::NAN } else { usual(place) });
        let options = StepOptions { grad_norm: Some(1.0), skip_nonfinite: true, ..options() };
        let report = training.step(&adam, &options).expect("a valid call");
        assert_eq!(report.outcome, Outcome::Taken);
        let bad = training.param.iter().map(|param| param.value().is_nan());
        assert!(bad.eq((0..20).map(|place| place == 7)));
    }
}

#[test]
fn the_norm_that_the_caller_passes_says_whether_the_step_is_left_out() {
    for_each_number(&CallersNorm);
}

/// By a moment that is the gradient if it is finite, and was before, so that it keeps its sign.
fn flushes<F: Float>(exec: Exec<'_>, flush_subnormals: bool) {
    let smallest = if size_of::<F>() == 4 { f32::MIN_POSITIVE.into() } else { f64::MIN_POSITIVE };
    let least = if size_of::<F>() == 4 { 1e-45 } else { 5e-324 };
    let below = smallest * (1.0 - 2_f64.powi(-20));
    let positive = [0.0, least, below, smallest, 1.0, f64::INFINITY, f64::NAN];
    let numbers: Vec<F> =
        positive.into_iter().flat_map(|number| [number, -number]).map(F::from_f64).collect();
    // Whole registers and a tail.
    for len in [numbers.len(), 5, 64, 300] {
        let adam = Adam { beta1: 0.0, beta2: 0.0, ..Adam::default() };
        let mut columns = Columns::<F>::new(&adam, len, |column, row| match column {
            0 => F::from_f64(1.0),
            1 | 2 => numbers[row % numbers.len()],
            _ => F::default(),
        });
        let mut expected = columns.clone();
        expected.reference_with(&adam, 1, 1.0, flush_subnormals);
        let mut steps = 0;
        let options = StepOptions { exec, flush_subnormals, ..StepOptions::default() };
        let tensor = columns.tensor(&mut steps);
        let report = adam.step_tensors(&mut [tensor], &options).expect("a valid step");
        assert_eq!(report.outcome, Outcome::Taken);
        columns.assert_same_bits(&expected, &|| format!("{exec:?}, {flush_subnormals}, {len}"));
        for (found, &grad) in columns.moments[0].iter().zip(&columns.grad) {
            let (found, grad) = (found.to_f64(), grad.to_f64());
            if !grad.is_finite() {
                continue;
            }
            let flushed = if flush_subnormals && grad.abs() < smallest { 0.0 } else { grad };
            assert_eq!(found.to_bits(), flushed.to_bits(), "{grad:e}: {found:e}");
        }
    }
}

#[test]
fn subnormal_moments_and_minus_zero_are_flushed_to_zero_in_f32_and_f64() {
    for exec in execs(false) {
        for flush_subnormals in [false, true] {
            flushes::<f32>(exec, flush_subnormals);
            flushes::<f64>(exec, flush_subnormals);
        }
    }
}
