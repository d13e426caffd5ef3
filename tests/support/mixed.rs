//! One checker of the bits of steps in mixed precision.

use std::fmt::Debug;

use adamant::{
    Arity, Exec, Grad, MixedOptimizer, MixedTensor, Moment, Outcome, Param, Pass, Q8, reference,
};
use half::{bf16, f16};

use super::{Columns, Specified, same_bits};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamType {
    F32,
    F32AndBf16,
    F32AndF16,
    Split,
    Bf16,
    Bf16Stochastic,
    F16,
}

impl ParamType {
    pub const ALL: [Self; 7] = [
        Self::F32,
        Self::F32AndBf16,
        Self::F32AndF16,
        Self::Split,
        Self::Bf16,
        Self::Bf16Stochastic,
        Self::F16,
    ];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GradType {
    F32,
    Bf16,
    F16,
}

impl GradType {
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::F16];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MomentType {
    F32,
    Bf16,
    Q8,
}

impl MomentType {
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Q8];
}

/// The types of a tensor's arrays, and whether its gradients become zeros.
#[derive(Clone, Copy, Debug)]
pub struct Types {
    pub param: ParamType,
    pub grad: GradType,
    pub to_zero: bool,
    pub moments: [MomentType; 3],
}

/// An array of any type, as memory that a call can be given.
#[derive(Clone, Debug, PartialEq)]
enum Store {
    F32(Vec<f32>),
    F32AndBf16(Vec<f32>, Vec<bf16>),
    F32AndF16(Vec<f32>, Vec<f16>),
    Split(Vec<bf16>, Vec<u16>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
    Q8(Vec<u8>, Vec<f32>),
}

fn each<T, U>(values: &[T], convert: impl Fn(&T) -> U) -> Vec<U> {
    values.iter().map(convert).collect()
}

impl Store {
    fn param(param_type: ParamType, values: &[f32]) -> Self {
        match param_type {
            ParamType::F32 => Self::F32(values.to_vec()),
            ParamType::F32AndBf16 => {
                Self::F32AndBf16(values.to_vec(), vec![bf16::MAX; values.len()])
            }
            ParamType::F32AndF16 => Self::F32AndF16(values.to_vec(), vec![f16::MAX; values.len()]),
            ParamType::Split => {
                let (high, low) = values.iter().map(|&value| reference::split(value)).unzip();
                Self::Split(high, low)
            }
            ParamType::Bf16 | ParamType::Bf16Stochastic => {
                Self::Bf16(each(values, |&value| bf16::from_f32(value)))
            }
            ParamType::F16 => Self::F16(each(values, |&value| f16::from_f32(value))),
        }
    }

    fn grad(grad_type: GradType, values: &[f32]) -> Self {
        match grad_type {
            GradType::F32 => Self::F32(values.to_vec()),
            GradType::Bf16 => Self::Bf16(each(values, |&value| bf16::from_f32(value))),
            GradType::F16 => Self::F16(each(values, |&value| f16::from_f32(value))),
        }
    }

    fn moment(moment_type: MomentType, format: Q8, values: &[f32]) -> Self {
        match moment_type {
            MomentType::F32 => Self::F32(values.to_vec()),
            MomentType::Bf16 => Self::Bf16(each(values, |&value| bf16::from_f32(value))),
            MomentType::Q8 => {
                let (mut codes, mut scales) = (vec![], vec![]);
                for block in values.chunks(256) {
                    let (of_block, scale) = reference::q8_block(format, block, &[1 << 19; 256]);
                    codes.extend(of_block);
                    scales.push(scale);
                }
                Self::Q8(codes, scales)
            }
        }
    }

    /// The values, as a step reads them.
    fn values(&self, format: Q8) -> Vec<f32> {
        match self {
            Self::F32(values) | Self::F32AndBf16(values, _) | Self::F32AndF16(values, _) => {
                values.clone()
            }
            Self::Split(high, low) => {
                high.iter().zip(low).map(|(&high, &low)| reference::join(high, low)).collect()
            }
            Self::Bf16(values) => each(values, |value| value.to_f32()),
            Self::F16(values) => each(values, |value| value.to_f32()),
            Self::Q8(codes, scales) => (codes.iter().enumerate())
                .map(|(place, &code)| scales[place / 256] * reference::q8_number(format, code))
                .collect(),
        }
    }

    /// Takes the values that a step leaves; `random` has as many bits as asked for, for each place.
    fn store(&mut self, values: &[f32], format: Q8, random: Option<&dyn Fn(usize, u32) -> u32>) {
        match self {
            Self::F32(found) => *found = values.to_vec(),
            Self::F32AndBf16(found, copy) => {
                *found = values.to_vec();
                *copy = each(values, |&value| bf16::from_f32(value));
            }
            Self::F32AndF16(found, copy) => {
                *found = values.to_vec();
                *copy = each(values, |&value| f16::from_f32(value));
            }
            Self::Split(..) => *self = Self::param(ParamType::Split, values),
            Self::Bf16(found) => {
                *found = (values.iter().enumerate())
                    .map(|(place, &value)| match random {
                        Some(random) => reference::stochastic_bf16(value, random(place, 16)),
                        None => bf16::from_f32(value),
                    })
                    .collect();
            }
            Self::F16(found) => *found = each(values, |&value| f16::from_f32(value)),
            Self::Q8(codes, scales) => {
                let random = random.expect("moments of 8 bits are rounded at random");
                codes.clear();
                scales.clear();
                for (block, values) in values.chunks(256).enumerate() {
                    let random: Vec<_> =
                        (0..values.len()).map(|place| random(256 * block + place, 20)).collect();
                    let (of_block, scale) = reference::q8_block(format, values, &random);
                    codes.extend(of_block);
                    scales.push(scale);
                }
            }
        }
    }

    /// The bits, with one NaN like the other.
    fn bits(&self) -> Vec<u64> {
        let single = |value: &f32| if value.is_nan() { u64::MAX } else { value.to_bits().into() };
        let brain = |value: &bf16| if value.is_nan() { u64::MAX } else { value.to_bits().into() };
        let half = |value: &f16| if value.is_nan() { u64::MAX } else { value.to_bits().into() };
        match self {
            Self::F32(values) => each(values, single),
            Self::F32AndBf16(values, copy) => [each(values, single), each(copy, brain)].concat(),
            Self::F32AndF16(values, copy) => [each(values, single), each(copy, half)].concat(),
            Self::Split(high, low) => [each(high, brain), each(low, |&low| low.into())].concat(),
            Self::Bf16(values) => each(values, brain),
            Self::F16(values) => each(values, half),
            Self::Q8(codes, scales) => {
                [each(codes, |&code| code.into()), each(scales, single)].concat()
            }
        }
    }
}

/// The arrays of a tensor in mixed precision.
#[derive(Clone, Debug)]
pub struct MixedColumns {
    types: Types,
    param: Store,
    grad: Store,
    moments: Vec<Store>,
    first: u64,
}

fn format_of<R: Specified>(rule: &R, moment: usize) -> Q8 {
    if rule.holds_squares(moment) { Q8::Squares } else { Q8::Signed }
}

impl MixedColumns {
    /// The values of a tensor, rounded to some types.
    pub fn new<R: Specified>(rule: &R, columns: &Columns<f32>, types: Types, first: u64) -> Self {
        let moments = columns.moments.iter().enumerate().map(|(moment, values)| {
            Store::moment(types.moments[moment], format_of(rule, moment), values)
        });
        Self {
            types,
            param: Store::param(types.param, &columns.param),
            grad: Store::grad(types.grad, &columns.grad),
            moments: moments.collect(),
            first,
        }
    }

    /// What the reference makes of them.
    pub fn reference<R: Specified>(&mut self, rule: &R, t: u64, pass: &Pass) {
        let factor = pass.grad_factor as f32;
        let grad = self.grad.values(Q8::Signed);
        let mut columns = Columns {
            param: self.param.values(Q8::Signed),
            grad: each(&grad, |grad| if factor == 1.0 { *grad } else { grad * factor }),
            moments: (self.moments.iter().enumerate())
                .map(|(moment, store)| store.values(format_of(rule, moment)))
                .collect(),
        };
        columns.reference(rule, t);
        let first = self.first;
        let random = |stream, takes_upper: bool| {
            move |place: usize, bits: u32| {
                let element = first.wrapping_add(place as u64);
                let random = reference::random(pass.seed, t, stream, element);
                if takes_upper { random >> (32 - bits) } else { random & ((1 << bits) - 1) }
            }
        };
        for (moment, (store, values)) in
            self.moments.iter_mut().zip(&mut columns.moments).enumerate()
        {
            if pass.flush_subnormals {
                values
                    .iter_mut()
                    .filter(|value| value.is_subnormal())
                    .for_each(|value| *value = 0.0);
            }
            let random = random(moment as u32 / 2, moment % 2 == 1);
            store.store(values, format_of(rule, moment), Some(&random));
        }
        let random = random(u32::MAX, false);
        let stochastic = self.types.param == ParamType::Bf16Stochastic;
        let random: Option<&dyn Fn(usize, u32) -> u32> =
            if stochastic { Some(&random) } else { None };
        self.param.store(&columns.param, Q8::Signed, random);
        if self.types.to_zero {
            self.grad = Store::grad(self.types.grad, &vec![0.0; grad.len()]);
        }
    }

    fn tensor<R: Specified>(&mut self) -> MixedTensor<'_, R> {
        let stochastic = self.types.param == ParamType::Bf16Stochastic;
        let mut moments = self.moments.iter_mut();
        MixedTensor {
            param: match &mut self.param {
                Store::F32(param) => Param::F32(param),
                Store::F32AndBf16(param, copy) => Param::F32AndBf16(param, copy),
                Store::F32AndF16(param, copy) => Param::F32AndF16(param, copy),
                Store::Split(high, low) => Param::Split(high, low),
                Store::Bf16(param) => match stochastic {
                    true => Param::Bf16Stochastic(param),
                    false => Param::Bf16(param),
                },
                Store::F16(param) => Param::F16(param),
                Store::Q8(..) => unreachable!("no parameters"),
            },
            grad: match (&mut self.grad, self.types.to_zero) {
                (Store::F32(grad), false) => Grad::F32(grad),
                (Store::F32(grad), true) => Grad::F32ToZero(grad),
                (Store::Bf16(grad), false) => Grad::Bf16(grad),
                (Store::Bf16(grad), true) => Grad::Bf16ToZero(grad),
                (Store::F16(grad), false) => Grad::F16(grad),
                (Store::F16(grad), true) => Grad::F16ToZero(grad),
                _ => unreachable!("no gradients"),
            },
            moments: R::Moments::from_fn(|_| match moments.next().expect("a moment") {
                Store::F32(moment) => Moment::F32(moment),
                Store::Bf16(moment) => Moment::Bf16(moment),
                Store::Q8(codes, scales) => Moment::Q8(codes, scales),
                _ => unreachable!("no moment"),
            }),
            first: self.first,
        }
    }

    #[track_caller]
    fn assert_same_bits(&self, expected: &Self, context: impl Fn() -> String) {
        let arrays = |columns: &Self| {
            let mut arrays = vec![columns.param.bits(), columns.grad.bits()];
            arrays.extend(columns.moments.iter().map(Store::bits));
            arrays
        };
        for (array, (found, expected)) in arrays(self).into_iter().zip(arrays(expected)).enumerate()
        {
            assert_eq!(found.len(), expected.len());
            if let Some(place) = (0..found.len()).find(|&place| found[place] != expected[place]) {
                let (found, expected) = (found[place], expected[place]);
                panic!("array {array}, {place}: {found:x}, expected {expected:x}: {}", context());
            }
        }
    }

    /// The values of the parameters and of the moments.
    pub fn values<R: Specified>(&self, rule: &R) -> (Vec<f32>, Vec<Vec<f32>>) {
        let moments = self.moments.iter().enumerate();
        let moments = moments.map(|(moment, store)| store.values(format_of(rule, moment)));
        (self.param.values(Q8::Signed), moments.collect())
    }

    pub fn set_grad(&mut self, values: &[f32]) {
        self.grad = Store::grad(self.types.grad, values);
    }

    /// Takes a step.
    pub fn step<R: Specified>(&mut self, rule: &R, exec: Exec, t: u64, pass: Pass) -> Outcome {
        rule.step_mixed(exec, t, pass, &mut [self.tensor()]).expect("a valid step")
    }
}

/// Fails unless a call over some tensors, three steps of it, gives the bits of the reference.
#[track_caller]
pub fn check_mixed<R: Specified + Debug>(
    rule: &R,
    t: u64,
    pass: Pass,
    before: &[MixedColumns],
    exec: Exec,
) {
    let mut expected = before.to_vec();
    let mut found = before.to_vec();
    for t in t..t + 3 {
        expected.iter_mut().for_each(|columns| columns.reference(rule, t, &pass));
        let mut tensors: Vec<_> = found.iter_mut().map(MixedColumns::tensor::<R>).collect();
        let outcome = rule.step_mixed(exec, t, pass, &mut tensors).expect("a valid step");
        assert_eq!(outcome, Outcome::Taken);
    }
    for (found, expected) in found.iter().zip(&expected) {
        let types = expected.types;
        found.assert_same_bits(expected, || format!("{rule:?}, {types:?}, {exec:?}, {pass:?}"));
    }
}

/// Whether two numbers have the same bits, or are both NaN.
pub fn is_same(a: f32, b: f32) -> bool {
    same_bits(a, b)
}
