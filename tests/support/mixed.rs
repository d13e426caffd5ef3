//! One checker of the bits of steps in mixed precision.

mod store;

use std::fmt::Debug;

use adamant::{
    Arity, Error, Exec, Grad, Isa, MixedOptimizer, MixedTensor, Moment, Outcome, Param, Pass, Q8,
    reference::{self, Reference},
};

use self::store::Store;
use super::{Columns, Misfit, Way, same_bits};

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

/// The arrays of a tensor in mixed precision.
#[derive(Clone)]
pub struct MixedColumns {
    types: Types,
    param: Store,
    grad: Store,
    moments: Vec<Store>,
    first: u64,
}

fn format_of<R: Reference>(rule: &R, moment: usize) -> Q8 {
    if rule.holds_squares(moment) { Q8::Squares } else { Q8::Signed }
}

/// Whether a step is to be left out.
pub fn leaves_out(pass: &Pass) -> bool {
    pass.grad_norm.is_some_and(|norm| !norm.is_finite())
}

impl MixedColumns {
    /// The values of a tensor, rounded to some types.
    pub fn new<R: Reference>(rule: &R, columns: &Columns<f32>, types: Types, first: u64) -> Self {
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
    pub fn reference<R: Reference>(&mut self, rule: &R, t: u64, pass: &Pass) {
        let factor = pass.grad_factor as f32;
        let grad = self.grad.values(Q8::Signed);
        let mut columns = Columns {
            param: self.param.values(Q8::Signed),
            grad: grad.iter().map(|&g| if factor == 1.0 { g } else { g * factor }).collect(),
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
                values.iter_mut().for_each(|value| *value = reference::flush_subnormal(*value));
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

    pub fn tensor<R: Reference>(&mut self) -> MixedTensor<'_, R> {
        let stochastic = self.types.param == ParamType::Bf16Stochastic;
        let mut moments = self.moments.iter_mut();
        MixedTensor {
            param: match &mut self.param {
                Store::F32(param) => Param::F32(param.get_mut()),
                Store::F32AndBf16(param, copy) => {
                    Param::F32AndBf16(param.get_mut(), copy.get_mut())
                }
                Store::F32AndF16(param, copy) => Param::F32AndF16(param.get_mut(), copy.get_mut()),
                Store::Split(high, low) => Param::Split(high.get_mut(), low.get_mut()),
                Store::Bf16(param) => match stochastic {
                    true => Param::Bf16Stochastic(param.get_mut()),
                    false => Param::Bf16(param.get_mut()),
                },
                Store::F16(param) => Param::F16(param.get_mut()),
                Store::Q8(..) => unreachable!("no parameters"),
            },
            grad: match (&mut self.grad, self.types.to_zero) {
                (Store::F32(grad), false) => Grad::F32(grad.get()),
                (Store::F32(grad), true) => Grad::F32ToZero(grad.get_mut()),
                (Store::Bf16(grad), false) => Grad::Bf16(grad.get()),
                (Store::Bf16(grad), true) => Grad::Bf16ToZero(grad.get_mut()),
                (Store::F16(grad), false) => Grad::F16(grad.get()),
                (Store::F16(grad), true) => Grad::F16ToZero(grad.get_mut()),
                _ => unreachable!("no gradients"),
            },
            moments: R::Moments::from_fn(|_| match moments.next().expect("a moment") {
                Store::F32(moment) => Moment::F32(moment.get_mut()),
                Store::Bf16(moment) => Moment::Bf16(moment.get_mut()),
                Store::Q8(codes, scales) => Moment::Q8(codes.get_mut(), scales.get_mut()),
                _ => unreachable!("no moment"),
            }),
            first: self.first,
        }
    }

    fn stores(&self) -> impl Iterator<Item = &Store> {
        [&self.param, &self.grad].into_iter().chain(&self.moments)
    }

    fn stores_mut(&mut self) -> impl Iterator<Item = &mut Store> {
        [&mut self.param, &mut self.grad].into_iter().chain(&mut self.moments)
    }

    /// Cuts them at the given positions, in any order and modulo the length, each piece in memory of
    /// its own. A moment of 8 bits is cut between blocks alone.
    fn pieces(&self, way: &Way) -> Vec<Self> {
        let len = self.param.len();
        let has_blocks = self.moments.iter().any(|moment| matches!(moment, Store::Q8(..)));
        let grain = if has_blocks { 256 } else { 1 };
        let mut cuts: Vec<usize> =
            way.cuts.iter().map(|cut| cut % (len + 1) / grain * grain).collect();
        cuts.sort_unstable();
        let starts = [0].into_iter().chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain([len]);
        let piece = |(start, end): (usize, usize)| {
            let part = |store: &Store| store.part(start..end, way.offset);
            Self {
                types: self.types,
                param: part(&self.param),
                grad: part(&self.grad),
                moments: self.moments.iter().map(part).collect(),
                first: self.first.wrapping_add(start as u64),
            }
        };
        starts.zip(ends).map(piece).collect()
    }

    /// Makes one of the arrays, by a number that may be any, longer or shorter.
    fn put(&mut self, misfit: &Misfit) {
        let mut arrays: Vec<_> = self.stores_mut().flat_map(Store::arrays_mut).collect();
        let count = arrays.len();
        let array = &mut arrays[misfit.array % count];
        let fitting = array.len();
        array.resize(if misfit.len == fitting { fitting + 1 } else { misfit.len });
    }

    /// Gives every array other elements, of any bits: by the array, and the place in it.
    pub fn overwrite(&mut self, mut bits: impl FnMut(usize, usize) -> u64) {
        let mut array = 0;
        for store in self.stores_mut() {
            for elements in store.arrays_mut() {
                elements.overwrite(&mut |place| bits(array, place));
                array += 1;
            }
            store.make_valid();
        }
    }

    #[track_caller]
    fn assert_same_bits(&self, expected: &Self, context: impl Fn() -> String) {
        let arrays = |columns: &Self| {
            columns.stores().flat_map(Store::arrays).map(|array| array.bits()).collect::<Vec<_>>()
        };
        let (found, expected) = (arrays(self), arrays(expected));
        assert_eq!(found.len(), expected.len());
        for (array, (found, expected)) in found.into_iter().zip(expected).enumerate() {
            assert_eq!(found.len(), expected.len());
            if let Some(place) = (0..found.len()).find(|&place| found[place] != expected[place]) {
                let (found, expected) = (found[place], expected[place]);
                panic!("array {array}, {place}: {found:x}, expected {expected:x}: {}", context());
            }
        }
    }

    #[track_caller]
    fn check_guards(&self) {
        self.stores().flat_map(Store::arrays).for_each(|array| array.check_guards());
    }

    /// The values of the parameters and of the moments.
    pub fn values<R: Reference>(&self, rule: &R) -> (Vec<f32>, Vec<Vec<f32>>) {
        let moments = self.moments.iter().enumerate();
        let moments = moments.map(|(moment, store)| store.values(format_of(rule, moment)));
        (self.param.values(Q8::Signed), moments.collect())
    }

    pub fn set_grad(&mut self, values: &[f32]) {
        self.grad = Store::grad(self.types.grad, values);
    }

    /// Takes a step.
    pub fn step<R: Reference>(&mut self, rule: &R, exec: Exec, t: u64, pass: Pass) -> Outcome {
        rule.step_mixed(exec, t, pass, &mut [self.tensor()]).expect("a valid step")
    }
}

fn pieces(tensors: &[MixedColumns], way: &Way) -> Vec<MixedColumns> {
    tensors.iter().flat_map(|tensor| tensor.pieces(way)).collect()
}

/// Fails unless steps over some tensors, made this way, give the bits of the reference, or leave
/// everything as it was where they are to be left out, and write nothing else; and unless the norm of
/// the gradients is right and the same everywhere.
#[track_caller]
pub fn check_mixed<R: Reference + Debug>(
    rule: &R,
    steps: impl Iterator<Item = u64> + Clone,
    pass: Pass,
    before: &[MixedColumns],
    way: &Way,
) {
    let outcome = if leaves_out(&pass) { Outcome::LeftOut } else { Outcome::Taken };
    let mut expected = before.to_vec();
    let mut found = pieces(before, way);
    for t in steps {
        if outcome == Outcome::Taken {
            expected.iter_mut().for_each(|columns| columns.reference(rule, t, &pass));
        }
        let grads: Vec<f32> =
            found.iter().flat_map(|columns| columns.grad.values(Q8::Signed)).collect();
        let mut tensors: Vec<_> = found.iter_mut().map(MixedColumns::tensor::<R>).collect();
        check_norm(way.exec, &tensors, &grads);
        let in_a_call = if way.at_once { tensors.len().max(1) } else { 1 };
        for call in tensors.chunks_mut(in_a_call) {
            let taken = rule.step_mixed(way.exec, t, pass, call).expect("a valid step");
            assert_eq!(taken, outcome);
        }
    }
    for (found, expected) in found.iter().zip(&pieces(&expected, way)) {
        let types = expected.types;
        found.assert_same_bits(expected, || format!("{rule:?}, {types:?}, {way:?}, {pass:?}"));
        found.check_guards();
    }
}

#[track_caller]
fn check_norm<R: Reference>(exec: Exec, tensors: &[MixedTensor<'_, R>], grads: &[f32]) {
    let norm = |exec| MixedTensor::grad_norm(exec, tensors).expect("a norm");
    let found = norm(exec);
    let elsewhere = norm(Exec { isa: Isa::Scalar, parallel: false });
    assert!(same_bits(found, elsewhere), "norm {found}, elsewhere {elsewhere}: {exec:?}");
    // None of f32 has a square that f64 has not; a plain sum of 2^20 of them is right to 1e-10.
    let truth = grads.iter().map(|&grad| f64::from(grad).powi(2)).sum::<f64>().sqrt();
    let is_near = (found - truth).abs() <= 1e-10 * truth;
    assert!(is_near || !(found.is_finite() || truth.is_finite()), "norm {found}, truth {truth}");
}

/// Fails unless step `t` over all pieces at once, with the misfit among them, is refused and writes
/// nothing; says why it was refused.
#[track_caller]
pub fn check_mixed_refused<R: Reference + Debug>(
    rule: &R,
    t: u64,
    pass: Pass,
    before: &[MixedColumns],
    way: &Way,
    misfit: Option<&Misfit>,
) -> Error {
    let mut found = pieces(before, way);
    if let Some(misfit) = misfit {
        let count = found.len();
        found[misfit.tensor % count].put(misfit);
    }
    let expected = found.clone();
    let result = {
        let mut tensors: Vec<_> = found.iter_mut().map(MixedColumns::tensor::<R>).collect();
        rule.step_mixed(way.exec, t, pass, &mut tensors)
    };
    let context = || format!("{rule:?}, step {t}, {pass:?}, {way:?}, {misfit:?}");
    let error = result.err().unwrap_or_else(|| panic!("not refused: {}", context()));
    for (found, expected) in found.iter().zip(&expected) {
        found.assert_same_bits(expected, context);
        found.check_guards();
    }
    error
}

/// Whether two numbers have the same bits, or are both NaN.
pub fn is_same(a: f32, b: f32) -> bool {
    same_bits(a, b)
}
