//! A step through candle has the bits of adamant's own.

use adamant::{AnyOptimizer, Element, Optimizer as _, Param, StepOptions, Storage};
use adamant_candle::{Outcome, VarOptimizer};
use candle_core::{DType, Device, Tensor, Var, WithDType};
use half::{bf16, f16};

use crate::{grads, numbers};

/// Elements whose bits can be compared.
trait Bits: Element + WithDType {
    fn bits(self) -> u64;
    fn of(number: f32) -> Self;

    /// Parameters, rounded at random where there is that choice.
    fn rounded(param: &mut [Self], _stochastic: bool) -> Param<'_> {
        Self::param(param)
    }
}

macro_rules! bits {
    ($($element:ty: $of:expr $(, $rounded:item)?);+) => {$(
        impl Bits for $element {
            fn bits(self) -> u64 {
                self.to_bits().into()
            }

            fn of(number: f32) -> Self {
                $of(number)
            }

            $($rounded)?
        }
    )+};
}

bits! {
    f32: |number| number;
    f64: f64::from;
    f16: f16::from_f32;
    bf16: bf16::from_f32, fn rounded(param: &mut [Self], stochastic: bool) -> Param<'_> {
        if stochastic { Param::stochastic(param) } else { param.into() }
    }
}

fn bits_of<F: Bits>(values: &[F]) -> Vec<u64> {
    values.iter().map(|value| value.bits()).collect()
}

/// An empty tensor, a scalar, some small ones, and one that is large enough to be shared among threads.
const SHAPES: [&[usize]; 5] = [&[0, 3], &[], &[17], &[3, 5, 7], &[132, 1000]];

/// Three steps of variables of all shapes through candle, and of the same numbers without it.
fn compare<F: Bits>(optimizer: AnyOptimizer, storage: Option<Storage>, stochastic: bool) {
    let lens = SHAPES.map(|shape| shape.iter().product::<usize>());
    let mut params: Vec<Vec<F>> =
        lens.iter().enumerate().map(|(i, &len)| of(numbers(i as u64, len))).collect();
    let vars: Vec<Var> = (params.iter().zip(SHAPES))
        .map(|(param, shape)| {
            Var::from_vec(param.clone(), shape, &Device::Cpu).expect("a variable")
        })
        .collect();
    let mut through_candle = VarOptimizer::new(vars.clone(), optimizer).expect("variables");
    if let Some(storage) = storage {
        through_candle = through_candle.with_moments(storage).expect("a storage");
    }
    through_candle.stochastic = stochastic;
    let options = StepOptions { max_norm: Some(2.0), seed: 3, ..StepOptions::default() };

    let storage =
        storage.unwrap_or(if F::DTYPE == DType::F64 { Storage::F64 } else { Storage::F32 });
    let mut first = 0;
    let mut states = lens.map(|len| {
        let mut state = optimizer.state_in(storage, len);
        state.set_first(first);
        first += len as u64;
        state
    });
    for step in 0..3 {
        let step_grads: Vec<Vec<F>> =
            lens.iter().map(|&len| of(numbers(100 + step, len))).collect();
        let store = grads(vars.iter().zip(&step_grads).map(|(var, grad)| {
            (var, Tensor::from_vec(grad.clone(), var.shape(), &Device::Cpu).expect("a gradient"))
        }));
        let report = through_candle.step_with(&store, &options).expect("a step");

        let mut tensors: Vec<_> = (states.iter_mut().zip(&mut params).zip(&step_grads))
            .map(|((state, param), grad)| {
                state.tensor(F::rounded(param, stochastic), F::grad(grad))
            })
            .collect();
        let expected = optimizer.step_tensors(&mut tensors, &options).expect("a step");
        assert_eq!((report.outcome, report.grad_norm), (Outcome::Taken, expected.grad_norm));
    }
    for ((var, param), state) in vars.iter().zip(&params).zip(&states) {
        let values = var.flatten_all().expect("one axis").to_vec1::<F>().expect("its values");
        assert_eq!(bits_of(&values), bits_of(param), "{optimizer:?}, {storage}, {:?}", F::DTYPE);
        assert_eq!(state.steps(), 3);
    }
    for (number, state) in states.iter().enumerate() {
        let kept = through_candle.state(&number.to_string()).expect("moments");
        assert!(kept.moments().eq(state.moments()) && kept.steps() == 3);
    }
}

fn of<F: Bits>(numbers: Vec<f32>) -> Vec<F> {
    numbers.into_iter().map(F::of).collect()
}

#[test]
fn every_optimizer_has_the_bits_of_adamants_own_step() {
    for name in AnyOptimizer::NAMES {
        let optimizer = AnyOptimizer::new(name).expect("a name");
        compare::<f32>(optimizer, None, false);
    }
}

#[test]
fn every_type_of_variables_and_moments_has_the_bits_of_adamants_own_step() {
    let adamw = AnyOptimizer::new("adamw").expect("a name");
    compare::<f64>(adamw, None, false);
    for storage in [Storage::F32, Storage::Bf16, Storage::F16, Storage::Q8] {
        compare::<f32>(adamw, Some(storage), false);
        compare::<bf16>(adamw, Some(storage), false);
        compare::<bf16>(adamw, Some(storage), true);
        compare::<f16>(adamw, Some(storage), false);
    }
}

#[test]
fn gradients_that_are_views_or_of_another_type_are_read_as_they_are() {
    let device = Device::Cpu;
    let start = Tensor::new(&[[1.0_f32, 2.0, 3.0], [4.0, 5.0, 6.0]], &device).expect("a tensor");
    let grad =
        Tensor::new(&[[1.0_f32, -4.0], [-2.0, 5.0], [3.0, -6.0]], &device).expect("a tensor");
    let contiguous = Tensor::new(&[[1.0_f32, -2.0, 3.0], [-4.0, 5.0, -6.0]], &device).expect("one");
    let padding = Tensor::zeros((1, 3), DType::F32, &device).expect("zeros");
    let padded = Tensor::cat(&[&padding, &contiguous], 0).expect("one tensor");
    let stepped = |grad: Tensor| {
        let var = Var::from_tensor(&start).expect("a variable");
        let adam = adamant::Adam { lr: 0.1, ..adamant::Adam::default() };
        let mut optimizer = VarOptimizer::new(vec![var.clone()], adam).expect("an optimizer");
        let _ =
            optimizer.step_with(&grads([(&var, grad)]), &StepOptions::default()).expect("a step");
        var.to_vec2::<f32>().expect("its values")
    };
    let expected = stepped(contiguous.clone());
    assert_ne!(expected, start.to_vec2::<f32>().expect("its values"));
    assert_eq!(stepped(grad.t().expect("a view")), expected, "transposed");
    assert_eq!(stepped(padded.narrow(0, 1, 2).expect("a view")), expected, "behind other elements");
    assert_eq!(stepped(contiguous.to_dtype(DType::BF16).expect("bf16")), expected, "bf16");
}
