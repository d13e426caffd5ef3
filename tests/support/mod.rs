//! Code that the tests, the fuzz targets and the benches share: one checker of the kernels' bits.

#![allow(dead_code, reason = "each test takes what it needs")]

mod choices;
mod draw;
mod guarded;
pub mod mixed;
pub mod model;
pub mod rows;
mod rules;

use adamant::{
    DynOptimizer, Error, Exec, Isa, Optimizer, Outcome, StepOptions, Tensor, Threads, rule::Float,
};
#[allow(unused_imports, reason = "each test takes what it needs")]
pub use choices::{
    ForEachRule, WithRule, for_each_negative_zero, for_each_pair, for_each_rule, toggled, with_rule,
};
#[allow(unused_imports, reason = "each test takes what it needs")]
pub use draw::Draw;
use guarded::Guarded;
#[allow(unused_imports, reason = "each test takes what it needs")]
pub use rules::{AnyRule, DenseRule, RowsRule};

/// Each instruction set of this CPU, on the calling thread or on those of its pool.
pub fn execs(parallel: bool) -> impl Iterator<Item = Exec<'static>> {
    Isa::available().into_iter().map(move |isa| exec(isa, parallel))
}

pub fn exec(isa: Isa, parallel: bool) -> Exec<'static> {
    let threads = if parallel { Threads::Rayon } else { Threads::Serial };
    Exec { isa: Some(isa), threads }
}

/// The best instruction set, on the calling thread.
pub fn serial() -> Exec<'static> {
    exec(Isa::detect(), false)
}

/// The arrays of one tensor: parameters, gradients, moments.
#[derive(Clone, Debug, PartialEq)]
pub struct Columns<F> {
    pub param: Vec<F>,
    pub grad: Vec<F>,
    pub moments: Vec<Vec<F>>,
}

impl<F: Float> Columns<F> {
    /// `len` elements for a rule, each the `value` of its column and row; moments that the rule does
    /// without are empty.
    pub fn new(
        rule: &dyn DynOptimizer,
        len: usize,
        mut value: impl FnMut(usize, usize) -> F,
    ) -> Self {
        let mut column = |column, len| (0..len).map(|row| value(column, row)).collect();
        let moments = 0..rule.moment_count();
        let kept = |moment| if rule.moment_start(moment).is_some() { len } else { 0 };
        Self {
            param: column(0, len),
            grad: column(1, len),
            moments: moments.map(|moment| column(2 + moment, kept(moment))).collect(),
        }
    }

    pub fn len(&self) -> usize {
        self.param.len()
    }

    /// The arrays as a tensor that has taken `steps` steps.
    pub fn tensor<'a>(&'a mut self, steps: &'a mut u64) -> Tensor<'a> {
        Slices {
            param: &mut self.param,
            grad: &self.grad,
            moments: self.moments.iter_mut().map(Vec::as_mut_slice).collect(),
        }
        .tensor(steps)
    }

    /// Takes a step with the reference.
    pub fn reference(&mut self, rule: &dyn DenseRule<F>, t: u64) {
        let moments = self.moments.iter_mut().map(Vec::as_mut_slice).collect();
        rule.follow(t, &mut self.param, &self.grad, moments);
    }

    /// Takes a step with the reference and options.
    pub fn reference_with(&mut self, rule: &dyn DenseRule<F>, t: u64, factor: f64, flush: bool) {
        let grad = self.grad.clone();
        if factor != 1.0 {
            self.grad.iter_mut().for_each(|grad| *grad = *grad * F::from_f64(factor));
        }
        self.reference(rule, t);
        self.grad = grad;
        if flush {
            let smallest = F::from_f64(match size_of::<F>() {
                4 => f32::MIN_POSITIVE.into(),
                _ => f64::MIN_POSITIVE,
            });
            for value in self.moments.iter_mut().flatten() {
                if value.abs() < smallest {
                    *value = F::default();
                }
            }
        }
    }

    /// Fails at the first element whose bits differ; every NaN is like every other.
    #[track_caller]
    pub fn assert_same_bits(&self, expected: &Self, context: &dyn Fn() -> String) {
        let columns = [(&self.param, &expected.param), (&self.grad, &expected.grad)];
        let moments = self.moments.iter().zip(&expected.moments);
        for (column, (found, expected)) in columns.into_iter().chain(moments).enumerate() {
            assert_eq!(found.len(), expected.len());
            for (row, (&found, &expected)) in found.iter().zip(expected).enumerate() {
                assert!(
                    same_bits(found, expected),
                    "column {column}, element {row}: {found:?}, expected {expected:?}: {}",
                    context()
                );
            }
        }
    }
}

fn same_bits<F: Float>(a: F, b: F) -> bool {
    // Widening is exact, keeps zeros' signs, and makes all NaN fail `==` alike.
    let (a, b) = (a.to_f64(), b.to_f64());
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

/// How a call is made.
#[derive(Clone, Debug)]
pub struct Way {
    pub exec: Exec<'static>,
    /// Each array begins this many elements after the start of a cache line.
    pub offset: usize,
    /// Where the tensor is cut; each piece is passed as a tensor of its own.
    pub cuts: Vec<usize>,
    /// Whether the pieces are passed in one call, or each in its own.
    pub at_once: bool,
}

impl Way {
    pub fn whole(exec: Exec<'static>) -> Self {
        Self { exec, offset: 0, cuts: vec![], at_once: true }
    }

    fn options(&self) -> StepOptions<'static> {
        StepOptions { exec: self.exec, ..StepOptions::default() }
    }
}

/// The arrays of a call.
struct Arrays<F> {
    param: Guarded<F>,
    grad: Guarded<F>,
    moments: Vec<Guarded<F>>,
}

impl<F: Float> Arrays<F> {
    fn new(columns: &Columns<F>, offset: usize) -> Self {
        let guarded = |column: &Vec<F>| Guarded::new(column, offset);
        Self {
            param: guarded(&columns.param),
            grad: guarded(&columns.grad),
            moments: columns.moments.iter().map(guarded).collect(),
        }
    }

    fn pieces(&mut self, cuts: &[usize]) -> Vec<Slices<'_, F>> {
        let whole = Slices {
            param: self.param.get_mut(),
            grad: self.grad.get(),
            moments: self.moments.iter_mut().map(Guarded::get_mut).collect(),
        };
        whole.cut(cuts)
    }

    /// Fails unless the arrays hold the bits that are expected, and nothing beside them was written.
    #[track_caller]
    fn check(&self, expected: &Columns<F>, context: &dyn Fn() -> String) {
        let found = Columns {
            param: self.param.get().to_vec(),
            grad: self.grad.get().to_vec(),
            moments: self.moments.iter().map(|moment| moment.get().to_vec()).collect(),
        };
        found.assert_same_bits(expected, context);
        for (name, array) in [("param", &self.param), ("grad", &self.grad)] {
            array.check_guards(name);
        }
        self.moments.iter().for_each(|moment| moment.check_guards("moment"));
    }
}

/// The arrays of a tensor.
struct Slices<'a, F> {
    param: &'a mut [F],
    grad: &'a [F],
    moments: Vec<&'a mut [F]>,
}

impl<'a, F: Float> Slices<'a, F> {
    fn tensor(self, steps: &'a mut u64) -> Tensor<'a> {
        let moments = self.moments.into_iter().map(F::moment);
        Tensor::new(self.param, self.grad, steps).with_moments(moments)
    }

    /// Cuts them at the given positions, in any order and modulo the length.
    fn cut(self, cuts: &[usize]) -> Vec<Self> {
        let len = self.param.len();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (len + 1)).collect();
        cuts.sort_unstable();
        let (mut pieces, mut rest, mut done) = (vec![], self, 0);
        for cut in cuts {
            let (piece, others) = rest.split_at(cut - done);
            pieces.push(piece);
            (rest, done) = (others, cut);
        }
        pieces.push(rest);
        pieces
    }

    fn split_at(self, place: usize) -> (Self, Self) {
        let (param, param_rest) = self.param.split_at_mut(place);
        let (grad, grad_rest) = self.grad.split_at(place);
        // A moment that the rule does without is empty.
        let halves = self.moments.into_iter().map(|moment| {
            let place = place.min(moment.len());
            moment.split_at_mut(place)
        });
        let (moments, moments_rest) = halves.unzip();
        let rest = Self { param: param_rest, grad: grad_rest, moments: moments_rest };
        (Self { param, grad, moments }, rest)
    }
}

/// Tensors of some pieces, each with a count of its own.
fn tensors<'a, F: Float>(pieces: Vec<Slices<'a, F>>, counts: &'a mut [u64]) -> Vec<Tensor<'a>> {
    pieces.into_iter().zip(counts).map(|(piece, steps)| piece.tensor(steps)).collect()
}

/// Takes the steps `t` in the way that is given. Fails unless they give the bits of the reference, write nothing
/// else, and are counted.
#[track_caller]
pub fn check<F: Float>(
    rule: &dyn DenseRule<F>,
    steps: impl IntoIterator<Item = u64>,
    before: &Columns<F>,
    way: &Way,
) {
    let steps: Vec<_> = steps.into_iter().collect();
    let mut expected = before.clone();
    steps.iter().for_each(|&t| expected.reference(rule, t));
    let arrays = take_steps(rule, &steps, before, way);
    arrays.check(&expected, &|| format!("{rule:?}, {way:?}, {} elements", before.len()));
    // Small tensors have a short way, if they are alone, and another one with a state.
    if before.len() <= 1000 {
        if way.cuts.is_empty() {
            let way = Way { cuts: vec![0], at_once: true, ..way.clone() };
            let arrays = take_steps(rule, &steps, before, &way);
            arrays.check(&expected, &|| format!("{rule:?}, {way:?}, {} elements", before.len()));
        }
        let found = plain_steps(rule, &steps, before);
        found.assert_same_bits(&expected, &|| format!("{rule:?}, {} elements", before.len()));
    }
}

/// The arrays after some steps without options, with a state of the rule's.
#[track_caller]
fn plain_steps<F: Float>(
    rule: &dyn DynOptimizer,
    steps: &[u64],
    before: &Columns<F>,
) -> Columns<F> {
    let mut found = before.clone();
    let Columns { param, grad, moments } = &mut found;
    let mut state = rule.state_in(F::STORAGE, param.len());
    let kept = moments.iter_mut().enumerate().filter(|(_, values)| !values.is_empty());
    let mut kept: Vec<_> =
        kept.map(|(position, values)| (rule.moment_name(position), values)).collect();
    for (name, values) in &mut kept {
        let mut moment = state.moment_mut(name).expect("a moment of the state");
        moment.copy_from(F::moment(values).read()).expect("as long as the tensor");
    }
    for &t in steps {
        state.set_steps(t - 1);
        rule.step(param, grad, &mut state).expect("a valid step");
        assert_eq!(state.steps(), t);
    }
    for (name, values) in kept {
        let moment = state.moment(name).expect("a moment of the state");
        F::moment(values).copy_from(moment).expect("as long as the tensor");
    }
    found
}

/// Takes some steps, which must be valid.
#[track_caller]
fn take_steps<F: Float>(
    rule: &dyn DynOptimizer,
    steps: &[u64],
    before: &Columns<F>,
    way: &Way,
) -> Arrays<F> {
    let mut arrays = Arrays::new(before, way.offset);
    for &t in steps {
        let mut counts = vec![t - 1; way.cuts.len() + 1];
        let mut tensors = tensors(arrays.pieces(&way.cuts), &mut counts);
        let calls = if way.at_once { tensors.len() } else { 1 };
        for tensors in tensors.chunks_mut(calls) {
            let report = rule.step_tensors(tensors, &way.options()).expect("a valid step");
            assert_eq!((report.outcome, report.grad_norm), (Outcome::Taken, None));
        }
        drop(tensors);
        assert!(counts.iter().all(|&count| count == t), "steps counted: {counts:?}, not {t}");
    }
    arrays
}

/// A wrong length for one array of a call. Numbers that are too large are taken modulo the count.
#[derive(Clone, Debug)]
pub struct Misfit {
    /// Which of the tensors.
    pub tensor: usize,
    /// Which of its arrays: parameters, gradients, moments.
    pub array: usize,
    /// Its length, or one less than that.
    pub len: usize,
}

impl Misfit {
    fn put<'a, F: Float>(&self, pieces: &mut [Slices<'a, F>], spare: &'a mut [F]) {
        let Slices { param, grad, moments } = &mut pieces[self.tensor % pieces.len()];
        let array = self.array % (2 + moments.len());
        let fitting = if array < 2 { grad.len() } else { moments[array - 2].len() };
        let misfit = &mut spare[..if self.len == fitting { fitting + 1 } else { self.len }];
        match array {
            0 => *param = misfit,
            1 => *grad = misfit,
            moment => moments[moment - 2] = misfit,
        }
    }
}

/// Takes one step of all pieces, after `steps` steps, with one array of a wrong length. Fails unless the step is
/// refused, writes nothing and is not counted. Returns the error.
#[track_caller]
pub fn check_refused<F: Float>(
    rule: &dyn DenseRule<F>,
    steps: u64,
    before: &Columns<F>,
    way: &Way,
    misfit: Option<&Misfit>,
) -> Error {
    let mut spare = vec![Guarded::guard(); misfit.map_or(0, |misfit| misfit.len + 1)];
    let mut arrays = Arrays::new(before, way.offset);
    let mut counts = vec![steps; way.cuts.len() + 1];
    let found = {
        let mut pieces = arrays.pieces(&way.cuts);
        if let Some(misfit) = misfit {
            misfit.put(&mut pieces, &mut spare);
        }
        rule.step_tensors(&mut tensors(pieces, &mut counts), &way.options())
    };
    let context =
        || format!("{rule:?}, after {steps} steps, {way:?}, {misfit:?}, {} elements", before.len());
    let error = found.err().unwrap_or_else(|| panic!("not refused: {}", context()));
    arrays.check(before, &context);
    assert!(spare.iter().all(|&value| value == Guarded::guard()), "misfit written: {}", context());
    assert!(counts.iter().all(|&count| count == steps), "steps counted: {}", context());
    error
}

/// Numbers at which formulas go wrong, each with both signs.
const SPECIAL: [f64; 12] = [
    0.0,
    f64::INFINITY,
    f64::NAN,
    1e-45,          // the smallest subnormal of f32
    1.17e-38,       // a large subnormal of f32
    1.17549435e-38, // the smallest normal of f32
    5e-324,         // the smallest subnormal of f64: 0 in f32
    1e-20,          // its square is subnormal in f32
    1e20,           // its square overflows f32
    3.4028235e38,   // the largest f32
    1e200,          // its square overflows f64; infinite in f32
    1.0,
];

/// The powers of two from -40 to 23. By `powi`, a loop, they took an eighth of the time of the tests (Zen 4).
const POWERS: [f64; 64] = {
    let mut powers = [1.0; 64];
    let mut power = 0;
    while power < 64 {
        powers[power] = f64::from_bits((1023 + power as u64 - 40) << 52);
        power += 1;
    }
    powers
};

/// Turns any 64 bits into a number: one in four is special, the others have any magnitude whose square
/// is in the range of f32.
pub fn number<F: Float>(bits: u64) -> F {
    let sign = if bits & 1 == 0 { 1.0 } else { -1.0 };
    if bits >> 1 & 3 == 0 {
        return F::from_f64(sign * SPECIAL[(bits >> 8) as usize % SPECIAL.len()]);
    }
    let mantissa = 1.0 + (bits >> 32) as f64 / u32::MAX as f64;
    F::from_f64(sign * mantissa * POWERS[(bits >> 8 & 63) as usize])
}

/// A [`number`] that is not special, nor negative where the column is a moment.
pub fn ordinary<F: Float>(column: usize, bits: u64) -> F {
    let sign = if column < 2 { 0 } else { 1 };
    number(bits & !sign | 2)
}

/// A tensor of [`number`]s from a seed; where `special` is false, of [`ordinary`] ones only.
pub fn columns<F: Float>(
    rule: &dyn DynOptimizer,
    seed: u64,
    len: usize,
    special: bool,
) -> Columns<F> {
    use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Columns::new(rule, len, |column, _| {
        let bits: u64 = rng.random();
        if special { number(bits) } else { ordinary(column, bits) }
    })
}
