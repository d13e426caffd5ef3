//! The arrays of a tensor in mixed precision, and one checker of the bits of steps on them.

mod check;
mod outcome;
mod rows;
mod store;
mod types;

use adamant::{
    DynOptimizer, Grad, Moment, MomentRef, Optimizer, Outcome, Param, Q8, State, StepOptions,
    Tensor, reference,
};

use super::{Columns, DenseRule, Misfit, Way, same_bits};
#[allow(unused_imports, reason = "each test takes what it needs")]
pub use check::{Known, check_mixed, check_mixed_refused, check_mixed_with};
#[allow(unused_imports, reason = "each test takes what it needs")]
pub use outcome::{assert_same_norm, check_norm, factor_of, leaves_out, needs_norm, outcome_of};
#[allow(unused_imports, reason = "each test takes what it needs")]
pub use rows::{MixedListed, RowValues, check_rows};
use store::Store;
pub use types::{GradType, MomentType, ParamType, Types};

/// The arrays of a tensor in mixed precision.
#[derive(Clone)]
pub struct MixedColumns {
    types: Types,
    param: Store,
    grad: Store,
    moments: Vec<Store>,
    pub first: u64,
    /// The steps taken so far.
    pub steps: u64,
}

impl MixedColumns {
    /// The values of a tensor, rounded to some types.
    pub fn new(rule: &dyn DynOptimizer, columns: &Columns<f32>, types: Types, first: u64) -> Self {
        let moments = columns.moments.iter().enumerate().map(|(moment, values)| {
            Store::moment(types.moments[moment], rule.moment_format(moment), values)
        });
        Self {
            types,
            param: Store::param(types.param, &columns.param),
            grad: Store::grad(types.grad, &columns.grad),
            moments: moments.collect(),
            first,
            steps: 0,
        }
    }

    /// Takes the next step with the reference. Of the options, only `grad_factor` is used.
    pub fn reference(&mut self, rule: &dyn DenseRule<f32>, options: &StepOptions<'_>) {
        let formats: Vec<Q8> =
            (0..self.moments.len()).map(|moment| rule.moment_format(moment)).collect();
        self.steps += 1;
        let t = self.steps;
        let factor = options.grad_factor as f32;
        let grad = self.grad.values(Q8::Signed);
        let mut columns = Columns {
            param: self.param.values(Q8::Signed),
            grad: grad.iter().map(|&g| if factor == 1.0 { g } else { g * factor }).collect(),
            moments: (self.moments.iter().zip(&formats))
                .map(|(store, &format)| store.values(format))
                .collect(),
        };
        columns.reference(rule, t);
        let first = self.first;
        let random = |array| {
            move |place: usize| {
                reference::random(options.seed, t, array, first.wrapping_add(place as u64))
            }
        };
        for (moment, (store, values)) in
            self.moments.iter_mut().zip(&mut columns.moments).enumerate()
        {
            if options.flush_subnormals {
                values.iter_mut().for_each(|value| *value = reference::flush_subnormal(*value));
            }
            let random = random(moment as u32);
            store.store(values, Some(formats[moment]), Some(&random));
        }
        let random = random(u32::MAX);
        let stochastic = self.types.param.is_stochastic();
        let random: Option<&dyn Fn(usize) -> u32> = if stochastic { Some(&random) } else { None };
        self.param.store(&columns.param, None, random);
        self.zero_grad();
    }

    /// Does what a step that is left out does.
    pub fn leave_out(&mut self, options: &StepOptions<'_>) {
        if !options.keep_grads {
            self.zero_grad();
        }
    }

    fn zero_grad(&mut self) {
        if self.types.to_zero {
            self.grad = Store::grad(self.types.grad, &vec![0.0; self.param.len()]);
        }
    }

    pub fn tensor(&mut self) -> Tensor<'_> {
        let Self { param, grad, moments, steps, .. } = self;
        let (param, grad) = param_and_grad(self.types, param, grad);
        let moments = moments.iter_mut().map(|moment| moment.write().expect("one array"));
        Tensor::new(param, grad, steps).with_moments(moments).with_first(self.first)
    }

    /// With the moments and the step count of a state.
    pub fn tensor_of<'a>(&'a mut self, state: &'a mut State) -> Tensor<'a> {
        let (param, grad) = param_and_grad(self.types, &mut self.param, &mut self.grad);
        state.tensor(param, grad)
    }

    /// A state of adamant's own with the moments.
    pub fn state(&self, optimizer: &dyn DynOptimizer) -> State {
        let mut state = self.new_state(optimizer);
        state.set_steps(self.steps);
        for (moment, store) in self.moments.iter().enumerate() {
            if let Some(mut kept) = state.moment_mut(optimizer.moment_name(moment)) {
                let saved = store.read().expect("one array");
                kept.copy_from(saved).expect("the same type and length");
            }
        }
        state
    }

    /// A new state.
    pub fn new_state(&self, optimizer: &dyn DynOptimizer) -> State {
        let mut state =
            optimizer.state_of(&self.types.moments.map(MomentType::storage), self.param.len());
        state.set_first(self.first);
        state
    }

    /// Takes the moments and the step count of a state.
    pub fn restore(&mut self, optimizer: &dyn DynOptimizer, state: &State) {
        self.steps = state.steps();
        for (moment, store) in self.moments.iter_mut().enumerate() {
            if let Some(saved) = state.moment(optimizer.moment_name(moment)) {
                let mut kept = store.write().expect("one array");
                kept.copy_from(saved).expect("the same type and length");
            }
        }
    }

    /// The parameters, as a checkpoint has them; `None` if they are two arrays.
    pub fn param(&self) -> Option<MomentRef<'_>> {
        self.param.read()
    }

    pub fn param_mut(&mut self) -> Option<Moment<'_>> {
        self.param.write()
    }

    pub fn len(&self) -> usize {
        self.param.len()
    }

    /// Copies the gradients from the tensor that this is a part of.
    pub fn take_grad(&mut self, whole: &Self, offset: usize) {
        let start = self.first.wrapping_sub(whole.first) as usize;
        self.grad = whole.grad.part(start..start + self.param.len(), offset);
    }

    /// The tensor that was cut into some pieces.
    pub fn join(pieces: &[Self]) -> Self {
        let join = |part: &dyn Fn(&Self) -> &Store| {
            Store::join(&pieces.iter().map(part).collect::<Vec<_>>())
        };
        let Self { types, first, steps, .. } = pieces[0];
        let moments = 0..pieces[0].moments.len();
        Self {
            types,
            param: join(&|piece| &piece.param),
            grad: join(&|piece| &piece.grad),
            moments: moments.map(|moment| join(&|piece| &piece.moments[moment])).collect(),
            first,
            steps,
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
    pub fn pieces(&self, way: &Way) -> Vec<Self> {
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
                steps: self.steps,
            }
        };
        starts.zip(ends).map(piece).collect()
    }

    /// Makes one of the arrays longer or shorter. Any number is allowed.
    fn put(&mut self, misfit: &Misfit) {
        let mut arrays: Vec<_> = self.stores_mut().flat_map(Store::arrays_mut).collect();
        let count = arrays.len();
        let array = &mut arrays[misfit.array % count];
        let fitting = array.len();
        array.resize(if misfit.len == fitting { fitting + 1 } else { misfit.len });
    }

    /// Replaces all elements by bits that depend on the array and the position.
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
    pub fn assert_same_bits(&self, expected: &Self, context: &dyn Fn() -> String) {
        assert_eq!(self.steps, expected.steps, "steps counted: {}", context());
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
    pub fn check_guards(&self) {
        self.stores().flat_map(Store::arrays).for_each(|array| array.check_guards());
    }

    /// The values of the parameters and of the moments.
    pub fn values(&self, rule: &dyn DynOptimizer) -> (Vec<f32>, Vec<Vec<f32>>) {
        let moments = self.moments.iter().enumerate();
        let moments = moments.map(|(moment, store)| store.values(rule.moment_format(moment)));
        (self.param.values(Q8::Signed), moments.collect())
    }

    pub fn set_grad(&mut self, values: &[f32]) {
        self.grad = Store::grad(self.types.grad, values);
    }

    /// The gradients, as a step reads them.
    pub fn grads(&self) -> Vec<f32> {
        self.grad.values(Q8::Signed)
    }

    /// Takes the next step.
    pub fn step(&mut self, rule: &dyn DynOptimizer, options: &StepOptions<'_>) -> Outcome {
        rule.step_tensors(&mut [self.tensor()], options).expect("a valid step").outcome
    }
}

/// The parameters of a store, as a call passes them.
fn param_of(types: Types, param: &mut Store) -> Param<'_> {
    let stochastic = types.param.is_stochastic();
    match param {
        Store::F32(param) => Param::from(param.get_mut()),
        Store::F32AndBf16(param, copy) => Param::with_copy(param.get_mut(), copy.get_mut()),
        Store::F32AndF16(param, copy) => Param::with_copy(param.get_mut(), copy.get_mut()),
        Store::Split(high, low) => Param::from_halves(high.get_mut(), low.get_mut()),
        Store::Bf16(param) => match stochastic {
            true => Param::stochastic(param.get_mut()),
            false => Param::from(param.get_mut()),
        },
        Store::F16(param) => match stochastic {
            true => Param::stochastic(param.get_mut()),
            false => Param::from(param.get_mut()),
        },
        Store::Q8(..) => unreachable!("no parameters"),
    }
}

/// Parameters and gradients of some types, as a call takes them.
fn param_and_grad<'a>(
    types: Types,
    param: &'a mut Store,
    grad: &'a mut Store,
) -> (Param<'a>, Grad<'a>) {
    let param = param_of(types, param);
    let grad = match (grad, types.to_zero) {
        (Store::F32(grad), false) => Grad::from(grad.get()),
        (Store::F32(grad), true) => Grad::zeroed(grad.get_mut()),
        (Store::Bf16(grad), false) => Grad::from(grad.get()),
        (Store::Bf16(grad), true) => Grad::zeroed(grad.get_mut()),
        (Store::F16(grad), false) => Grad::from(grad.get()),
        (Store::F16(grad), true) => Grad::zeroed(grad.get_mut()),
        _ => unreachable!("no gradients"),
    };
    (param, grad)
}

/// Whether two numbers have the same bits, or are both NaN.
pub fn is_same(a: f32, b: f32) -> bool {
    same_bits(a, b)
}
