//! A step through burn has the bits of adamant's own, and is in place.

use adamant::{AnyOptimizer, Element, Optimizer as _, Param as Parameters, StepOptions, Storage};
use adamant_burn::{Adam, OneCallOptimizer, Outcome, ParamOptimizer};
use burn::{
    Tensor,
    backend::Flex,
    module::{Module, Param},
    optim::{GradientsParams, ModuleOptimizer},
    tensor::{Device, Element as BurnElement, TensorData},
};
use half::{bf16, f16};

use crate::numbers;

/// Elements whose bits can be compared.
trait Bits: Element + BurnElement {
    fn bits(self) -> u64;
    fn of(number: f32) -> Self;

    /// Parameters, rounded at random where there is that choice.
    fn rounded(param: &mut [Self], _stochastic: bool) -> Parameters<'_> {
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
    bf16: bf16::from_f32, fn rounded(param: &mut [Self], stochastic: bool) -> Parameters<'_> {
        if stochastic { Parameters::stochastic(param) } else { param.into() }
    }
}

/// One element, some 100, and enough to be shared among threads.
#[derive(Module, Debug)]
struct Model {
    one: Param<Tensor<1>>,
    cube: Param<Tensor<3>>,
    large: Param<Tensor<2>>,
}

const LENS: [usize; 3] = [1, 3 * 5 * 7, 132 * 1000];

fn tensor<F: Bits, const D: usize>(values: &[F], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), (device, F::dtype()))
}

fn model<F: Bits>(values: &[Vec<F>; 3], device: &Device) -> Model {
    Model {
        one: Param::from_tensor(tensor(&values[0], [1], device)),
        cube: Param::from_tensor(tensor(&values[1], [3, 5, 7], device)),
        large: Param::from_tensor(tensor(&values[2], [132, 1000], device)),
    }
}

fn grads<F: Bits>(model: &Model, values: &[Vec<F>; 3], device: &Device) -> GradientsParams {
    let mut grads = GradientsParams::new();
    grads.register(model.one.id, tensor(&values[0], [1], device));
    grads.register(model.cube.id, tensor(&values[1], [3, 5, 7], device));
    grads.register(model.large.id, tensor(&values[2], [132, 1000], device));
    grads
}

fn bits_of<F: Bits>(model: &Model) -> Vec<Vec<u64>> {
    let data =
        [model.one.val().into_data(), model.cube.val().into_data(), model.large.val().into_data()];
    data.map(|data| data.as_slice::<F>().expect("its type").iter().map(|&x| x.bits()).collect())
        .into()
}

fn values<F: Bits>(seed: u64) -> [Vec<F>; 3] {
    LENS.map(|len| numbers(seed + len as u64, len).into_iter().map(F::of).collect())
}

/// Three steps of a model with both of our optimizers, and of the same numbers without burn.
fn compare<F: Bits>(optimizer: AnyOptimizer, storage: Option<Storage>, stochastic: bool) {
    let (inner, device) = (Device::default(), Device::default().autodiff());
    let mut params = values::<F>(1);
    let (mut stepped, mut with_burns) = (model(&params, &device), model(&params, &device));
    let options = StepOptions { seed: 3, ..StepOptions::default() };
    let mut one_call = OneCallOptimizer::new(optimizer).expect("settings");
    let mut burns = ParamOptimizer::new(optimizer).expect("settings");
    if let Some(storage) = storage {
        one_call = one_call.with_moments(storage);
        burns = burns.with_moments(storage);
    }
    (one_call.options, one_call.stochastic) = (options, stochastic);
    (burns.options, burns.stochastic) = (options, stochastic);
    let mut burns = ModuleOptimizer::from(burns);

    let natural = if F::STORAGE == Storage::F64 { Storage::F64 } else { Storage::F32 };
    let mut first = 0;
    let mut states = LENS.map(|len| {
        let mut state = optimizer.state_in(storage.unwrap_or(natural), len);
        state.set_first(first);
        first += len as u64;
        state
    });
    for step in 0..3 {
        // A schedule, so that the learning rate is seen to be that of the call.
        let lr = 0.01 / f64::from(step + 1);
        let mut scheduled = optimizer;
        scheduled.set("lr", lr).expect("a rate");
        let step_grads = values::<F>(100 + u64::from(step as u32));
        let taken = grads(&stepped, &step_grads, &inner);
        let report = one_call.step(lr, &mut stepped, taken).expect("a step");
        assert_eq!(report.outcome, Outcome::Taken);
        let taken = grads(&with_burns, &step_grads, &inner);
        with_burns = burns.step(lr, with_burns, taken);

        let mut tensors: Vec<_> = (states.iter_mut().zip(&mut params).zip(&step_grads))
            .map(|((state, param), grad)| {
                state.tensor(F::rounded(param, stochastic), F::grad(grad))
            })
            .collect();
        let _ = scheduled.step_tensors(&mut tensors, &options).expect("a step");
    }
    let expected: Vec<Vec<u64>> =
        params.iter().map(|param| param.iter().map(|&x| x.bits()).collect()).collect();
    let what = format!("{optimizer:?}, {storage:?}, {}", F::STORAGE);
    assert!(bits_of::<F>(&stepped) == expected, "{what}");
    assert!(bits_of::<F>(&with_burns) == expected, "one at a time: {what}");
    for (id, state) in [stepped.one.id, stepped.cube.id, stepped.large.id].into_iter().zip(&states)
    {
        let kept = one_call.state(id).and_then(|kept| kept.state()).expect("moments");
        assert!(kept.moments().eq(state.moments()) && kept.steps() == 3, "{what}");
    }
}

#[test]
fn every_optimizer_has_the_bits_of_adamants_own_step() {
    for name in AnyOptimizer::NAMES {
        compare::<f32>(AnyOptimizer::new(name).expect("a name"), None, false);
    }
}

#[test]
fn every_type_of_parameters_and_moments_has_the_bits_of_adamants_own_step() {
    let adamw = AnyOptimizer::new("adamw").expect("a name");
    compare::<f64>(adamw, None, false);
    for storage in [Storage::F32, Storage::Bf16, Storage::F16, Storage::Q8] {
        compare::<f32>(adamw, Some(storage), false);
        compare::<bf16>(adamw, Some(storage), false);
        compare::<bf16>(adamw, Some(storage), true);
        compare::<f16>(adamw, Some(storage), false);
    }
}

/// Where the elements of the large parameter are.
fn address(model: &Model) -> usize {
    let memory = model.large.val().inner().try_into_primitive::<Flex>().expect("on burn-flex");
    memory.bytes().as_ptr().addr()
}

#[test]
fn steps_are_in_place_unless_the_memory_is_shared() {
    let (inner, device) = (Device::default(), Device::default().autodiff());
    let mut stepped = model(&values::<f32>(1), &device);
    let place = address(&stepped);
    let step_grads = values::<f32>(2);
    let mut one_call = OneCallOptimizer::new(Adam::adamw()).expect("settings");
    let mut burns: ModuleOptimizer = ParamOptimizer::new(Adam::adamw()).expect("settings").into();
    for _ in 0..3 {
        let taken = grads(&stepped, &step_grads, &inner);
        let _ = one_call.step(1e-3, &mut stepped, taken).expect("a step");
        let taken = grads(&stepped, &step_grads, &inner);
        stepped = burns.step(1e-3, stepped, taken);
    }
    assert_eq!(address(&stepped), place);

    let (kept, before) = (stepped.clone(), bits_of::<f32>(&stepped));
    let taken = grads(&stepped, &step_grads, &inner);
    let _ = one_call.step(1e-3, &mut stepped, taken).expect("a step");
    assert!(bits_of::<f32>(&kept) == before, "a clone keeps its values");
    assert!(bits_of::<f32>(&stepped) != before);
}

#[test]
fn gradients_and_parameters_that_are_views_are_stepped_by_their_elements() {
    let (inner, device) = (Device::default(), Device::default().autodiff());
    let start = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
    let grad = Tensor::<2>::from_floats([[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]], &inner);
    let transposed = Tensor::<2>::from_floats([[1.0, -4.0], [-2.0, 5.0], [3.0, -6.0]], &inner);
    let start = |device: &Device| Tensor::<2>::from_floats(start, device);
    let start_transposed =
        Tensor::<2>::from_floats([[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]], &inner).transpose();
    let stepped = |start: Tensor<2>, grad: Tensor<2>| {
        let mut param = Param::from_tensor(start.autodiff());
        let mut grads = GradientsParams::new();
        grads.register(param.id, grad);
        let mut optimizer = OneCallOptimizer::new(Adam::adamw()).expect("settings");
        let _ = optimizer.step(0.1, &mut param, grads).expect("a step");
        assert!(param.val().is_require_grad() && param.val().is_autodiff());
        param.val().into_data()
    };
    let expected = stepped(start(&device), grad.clone());
    assert!(expected != start(&inner).into_data());
    assert!(stepped(start(&device), transposed.transpose()) == expected);
    assert!(stepped(start_transposed, grad.clone()) == expected);
    let both = Tensor::cat(vec![Tensor::zeros([1, 3], &inner), grad], 0);
    assert!(stepped(start(&device), both.slice([1..3, 0..3])) == expected);
}
