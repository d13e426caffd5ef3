//! The norm of gradients: right, and the same bits everywhere.

mod support;

use adamant::{
    Error, Exec, Grad, Group, Isa, Outcome, Sgd, StepOptions, Tensor, Threads, grad_norm,
    grad_norm_on,
};
use half::{bf16, f16};
use support::{exec, execs};

const SERIAL: Exec<'static> = Exec { isa: Some(Isa::Scalar), threads: Threads::Serial };

/// In one thread after the other, from outside of pools and in some.
fn everywhere(check: impl Fn(Exec<'static>) + Sync) {
    execs(false).chain(execs(true)).for_each(&check);
    #[cfg(feature = "rayon")]
    for threads in [1, 2, 7] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| execs(true).for_each(&check));
    }
}

#[test]
fn the_norm_has_the_same_bits_everywhere_and_is_right() {
    let len = 300_001;
    let grads: Vec<f32> = (0..len).map(|i| (i as f32 * 0.37).sin() * 1e30).collect();
    let brain: Vec<bf16> = grads.iter().map(|&grad| bf16::from_f32(grad)).collect();
    let half: Vec<f16> = grads.iter().map(|&grad| f16::from_f32(grad * 1e-30)).collect();
    let truth =
        |grads: &mut dyn Iterator<Item = f64>| grads.map(|grad| grad * grad).sum::<f64>().sqrt();
    let near =
        |found: f64, truth: f64| assert!((found / truth - 1.0).abs() < 1e-12, "{found} {truth}");
    let parts: Vec<&[f32]> = grads.chunks(70_003).collect();
    let serial = SERIAL;
    let expected = grad_norm_on(serial, &[&grads]).expect("a norm");
    near(expected, truth(&mut grads.iter().map(|&grad| grad.into())));
    near(grad_norm(&parts).expect("a norm"), expected);
    near(grad_norm(&[&brain]).expect("a norm"), truth(&mut brain.iter().map(|grad| grad.to_f64())));
    near(grad_norm(&[&half]).expect("a norm"), truth(&mut half.iter().map(|grad| grad.to_f64())));
    for exec in execs(true) {
        let norm = |tensors: &[&[f32]]| grad_norm_on(exec, tensors).expect("a norm");
        let in_parts = grad_norm_on(serial, &parts).expect("a norm");
        assert_eq!((norm(&[&grads]), norm(&parts)), (expected, in_parts));
        #[cfg(feature = "rayon")]
        for threads in [1, 2, 7] {
            let pool =
                rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            assert_eq!(pool.install(|| norm(&[&grads])), expected);
        }
    }
}

#[test]
fn the_norm_of_numbers_whose_squares_overflow_or_vanish_is_right() {
    for (value, len) in [(1e300, 5000), (1e-300, 5000), (1e150, 3), (5e-324, 1)] {
        let found = grad_norm(&[&vec![value; len]]).expect("a norm");
        let expected = value * (len as f64).sqrt();
        assert!((found / expected - 1.0).abs() < 1e-12, "{value}: {found}");
    }
    assert_eq!(grad_norm::<f64>(&[]), Ok(0.0));
    assert_eq!(grad_norm(&[&[0.0_f64; 9]]), Ok(0.0));
}

#[test]
fn the_norm_is_not_finite_where_a_gradient_is_not() {
    for place in [0, 31, 4095, 4096, 9999] {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut grads = vec![1e-3; 10_000];
            grads[place] = bad;
            let single: Vec<f32> = grads.iter().map(|&grad| grad as f32).collect();
            let half: Vec<f16> = single.iter().map(|&grad| f16::from_f32(grad)).collect();
            assert!(!grad_norm(&[&grads]).expect("a norm").is_finite());
            assert!(!grad_norm(&[&single]).expect("a norm").is_finite());
            assert!(!grad_norm(&[&half]).expect("a norm").is_finite());
        }
    }
}

/// The gradients of six tensors, one for each way to pass them.
struct Model {
    single: Vec<f32>,
    brain: Vec<bf16>,
    half: Vec<f16>,
    single_to_zero: Vec<f32>,
    brain_to_zero: Vec<bf16>,
    half_to_zero: Vec<f16>,
}

impl Model {
    /// Gradients of up to `size`, or 1 in f16.
    fn new(lens: [usize; 6], size: f32) -> Self {
        let number = |i: usize| (i as f32 * 0.37).sin();
        let single = |len| (0..len).map(|i| number(i) * size).collect();
        let brain = |len| (0..len).map(|i| bf16::from_f32(number(i) * size)).collect();
        let half = |len| (0..len).map(|i| f16::from_f32(number(i) * size.min(1.0))).collect();
        Self {
            single: single(lens[0]),
            brain: brain(lens[1]),
            half: half(lens[2]),
            single_to_zero: single(lens[3]),
            brain_to_zero: brain(lens[4]),
            half_to_zero: half(lens[5]),
        }
    }

    fn norm(&mut self, exec: Exec<'_>) -> Result<f64, Error> {
        let grads = [
            Grad::from(&self.single),
            Grad::from(&self.brain),
            Grad::from(&self.half),
            Grad::zeroed(&mut self.single_to_zero),
            Grad::zeroed(&mut self.brain_to_zero),
            Grad::zeroed(&mut self.half_to_zero),
        ];
        norm_of_step(exec, grads)
    }

    fn widened(&self) -> [Vec<f32>; 6] {
        let brain = |grads: &[bf16]| grads.iter().map(|grad| grad.to_f32()).collect();
        let half = |grads: &[f16]| grads.iter().map(|grad| grad.to_f32()).collect();
        [
            self.single.clone(),
            brain(&self.brain),
            half(&self.half),
            self.single_to_zero.clone(),
            brain(&self.brain_to_zero),
            half(&self.half_to_zero),
        ]
    }
}

/// The norm that a step reports, whose parameters, all zero, stay so unless it is not left out.
fn norm_of_step<const N: usize>(exec: Exec<'_>, grads: [Grad<'_>; N]) -> Result<f64, Error> {
    let sgd = Sgd { lr: 1.0, ..Sgd::default() };
    let mut params = grads.each_ref().map(|grad| vec![bf16::ZERO; grad.len()]);
    let mut steps = [0; N];
    let mut tensors: Vec<_> = (grads.into_iter().zip(&mut params).zip(&mut steps))
        .map(|((grad, param), steps)| Tensor::new(param, grad, steps))
        .collect();
    let options = StepOptions { exec, skip_nonfinite: true, ..StepOptions::default() };
    let report = adamant::step(&mut [Group::new(&sgd, &mut tensors)], &options)?;
    drop(tensors);
    let norm = report.grad_norm.expect("a norm that was asked for");
    let outcome = if norm.is_finite() { Outcome::Taken } else { Outcome::LeftOut };
    assert_eq!((report.outcome, steps), (outcome, [u64::from(norm.is_finite()); N]));
    assert!(norm.is_finite() || params.iter().flatten().all(|&param| param == bf16::ZERO));
    Ok(norm)
}

#[test]
fn the_norm_of_gradients_of_several_types_is_right_and_has_the_same_bits_everywhere() {
    let (short, long) =
        ([1000, 255, 257, 0, 1, 4097], [70_001, 40_000, 33_003, 90_000, 33, 50_000]);
    // Of about one size, so that the order of the sum shows in its bits; and of squares beyond f32, or
    // below it.
    for (lens, size) in [(short, 1.0), (long, 1.0), (short, 1e30), (long, 1e30), (short, 1e-30)] {
        let model = || Model::new(lens, size);
        let widened = model().widened();
        let found = model().norm(SERIAL).expect("a norm");
        let squares = widened.iter().flatten().map(|&grad| f64::from(grad).powi(2));
        let truth = squares.sum::<f64>().sqrt();
        assert!((found / truth - 1.0).abs() < 1e-12, "{found} {truth}");
        // Widening is exact, and the sum has the same shape.
        assert_eq!(Ok(found), grad_norm_on(SERIAL, &widened.each_ref().map(Vec::as_slice)));
        everywhere(|exec| assert_eq!(model().norm(exec), Ok(found), "{exec:?}"));
    }
}

#[test]
fn the_norm_of_tensors_whose_types_are_equal_has_the_bits_of_that_of_slices() {
    for lens in [[0, 0, 0], [1, 4096, 4097], [10_000, 300_000, 12_345]] {
        let model = lens.map(|len| Model::new([len; 6], 1.0));
        let mut copy = lens.map(|len| Model::new([len; 6], 1.0));
        let mut of_tensors =
            |pick: fn(&mut Model) -> Grad<'_>| norm_of_step(SERIAL, copy.each_mut().map(pick));
        let single = grad_norm_on(SERIAL, &model.each_ref().map(|model| &model.single[..]));
        assert_eq!(of_tensors(|model| Grad::from(&model.single)), single);
        assert_eq!(of_tensors(|model| Grad::zeroed(&mut model.single)), single);
        let brain = grad_norm_on(SERIAL, &model.each_ref().map(|model| &model.brain[..]));
        assert_eq!(of_tensors(|model| Grad::from(&model.brain)), brain);
        assert_eq!(of_tensors(|model| Grad::zeroed(&mut model.brain)), brain);
        let half = grad_norm_on(SERIAL, &model.each_ref().map(|model| &model.half[..]));
        assert_eq!(of_tensors(|model| Grad::from(&model.half)), half);
        assert_eq!(of_tensors(|model| Grad::zeroed(&mut model.half)), half);
    }
    assert_eq!(norm_of_step(SERIAL, []), Ok(0.0));
}

#[test]
fn the_norm_of_several_types_is_not_finite_where_one_gradient_is_not() {
    let spoilt: [fn(&mut Model); 6] = [
        |model| model.single[7] = f32::NAN,
        |model| model.brain[4096] = bf16::INFINITY,
        |model| model.half[8999] = f16::NEG_INFINITY,
        |model| model.single_to_zero[0] = f32::INFINITY,
        |model| model.brain_to_zero[1] = bf16::NAN,
        |model| model.half_to_zero[31] = f16::NAN,
    ];
    for spoil in spoilt {
        let mut model = Model::new([9000; 6], 1e30);
        assert!(model.norm(SERIAL).expect("a norm").is_finite());
        spoil(&mut model);
        let norm = model.norm(SERIAL).expect("a norm");
        assert!(!norm.is_finite(), "{norm}");
    }
}

#[test]
fn a_norm_on_an_instruction_set_that_is_lacking_is_refused() {
    for isa in Isa::ALL.into_iter().filter(|isa| !isa.is_available()) {
        let exec = exec(isa, true);
        let available = Isa::available();
        let expected = Error::IsaUnavailable { isa, available };
        assert_eq!(Model::new([3; 6], 1.0).norm(exec), Err(expected.clone()));
        assert_eq!(grad_norm_on(exec, &[&[1.0]]), Err(expected));
    }
}
