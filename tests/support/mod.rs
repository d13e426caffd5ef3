//! What the tests, the fuzz targets and the benches share: one checker of the kernels' bits.

#![allow(dead_code, reason = "each test takes what it needs")]

mod choices;
mod draw;
mod guarded;
pub mod mixed;
pub mod rows;

use adamant::{Arity, Error, Exec, Float, Many, Optimizer, Rule, Tensor, reference::Reference};
#[allow(unused_imports, reason = "each test takes what it needs")]
pub use choices::{ForEachRule, WithRule, for_each_pair, for_each_rule, with_rule};
#[allow(unused_imports, reason = "each test takes what it needs")]
pub use draw::Draw;
use guarded::Guarded;

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
    pub fn new<R: Rule>(rule: &R, len: usize, mut value: impl FnMut(usize, usize) -> F) -> Self {
        let mut column = |column, len| (0..len).map(|row| value(column, row)).collect();
        let moments = 0..R::MOMENT_NAMES.as_ref().len();
        let kept = |moment| if rule.start(moment).is_some() { len } else { 0 };
        Self {
            param: column(0, len),
            grad: column(1, len),
            moments: moments.map(|moment| column(2 + moment, kept(moment))).collect(),
        }
    }

    pub fn len(&self) -> usize {
        self.param.len()
    }

    pub fn tensor<R: Rule>(&mut self) -> Tensor<'_, R, F> {
        Tensor {
            param: &mut self.param,
            grad: &self.grad,
            moments: many::<R, _>(self.moments.iter_mut().map(Vec::as_mut_slice)),
        }
    }

    /// What the reference makes of them.
    pub fn reference<R: Reference>(&mut self, rule: &R, t: u64) {
        let Tensor { param, grad, moments } = self.tensor::<R>();
        rule.reference(t, param, grad, moments);
    }

    /// Fails at the first element whose bits differ; every NaN is like every other.
    #[track_caller]
    pub fn assert_same_bits(&self, expected: &Self, context: impl Fn() -> String) {
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

/// As many slices as rule `R` has moments.
pub fn many<'a, R: Rule, F: Float>(
    slices: impl IntoIterator<Item = &'a mut [F]>,
) -> Many<R::Moments, &'a mut [F]> {
    let mut slices = slices.into_iter();
    R::Moments::from_fn(|_| slices.next().expect("a slice for each moment"))
}

/// How a call is made.
#[derive(Clone, Debug)]
pub struct Way {
    pub exec: Exec,
    /// How many elements after a cache line's start each array begins.
    pub offset: usize,
    /// Where the tensor is cut; each piece is passed as a tensor of its own.
    pub cuts: Vec<usize>,
    /// Whether the pieces are passed in one call, or each in its own.
    pub at_once: bool,
}

impl Way {
    pub fn whole(exec: Exec) -> Self {
        Self { exec, offset: 0, cuts: vec![], at_once: true }
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

    fn pieces<R: Rule>(&mut self, cuts: &[usize]) -> Vec<Tensor<'_, R, F>> {
        let whole = Tensor {
            param: self.param.get_mut(),
            grad: self.grad.get(),
            moments: many::<R, _>(self.moments.iter_mut().map(Guarded::get_mut)),
        };
        cut(whole, cuts)
    }

    /// Fails unless the arrays hold the bits that are expected, and nothing beside them was written.
    #[track_caller]
    fn check(&self, expected: &Columns<F>, context: impl Fn() -> String) {
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

/// Fails unless steps `t`, made this way, give the bits of the reference and write nothing else.
#[track_caller]
pub fn check<R: Reference + std::fmt::Debug, F: Float>(
    rule: &R,
    steps: impl Iterator<Item = u64> + Clone,
    before: &Columns<F>,
    way: &Way,
) {
    let mut expected = before.clone();
    steps.clone().for_each(|t| expected.reference(rule, t));

    let mut arrays = Arrays::new(before, way.offset);
    for t in steps {
        let mut pieces = arrays.pieces::<R>(&way.cuts);
        let calls = if way.at_once { pieces.len() } else { 1 };
        for call in pieces.chunks_mut(calls) {
            rule.step_many_on(way.exec, t, call).expect("a valid step");
        }
    }
    arrays.check(&expected, || format!("{rule:?}, {way:?}, {} elements", before.len()));
}

/// An array of another length, in place of one of a call; numbers that are too large begin again.
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
    fn put<'a, R: Rule, F: Float>(&self, tensors: &mut [Tensor<'a, R, F>], spare: &'a mut [F]) {
        let Tensor { param, grad, moments } = &mut tensors[self.tensor % tensors.len()];
        let moments = moments.as_mut();
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

/// Fails unless step `t` of all pieces at once, with the misfit among them, is refused and writes
/// nothing; says why it was refused.
#[track_caller]
pub fn check_refused<R: Reference + std::fmt::Debug, F: Float>(
    rule: &R,
    t: u64,
    before: &Columns<F>,
    way: &Way,
    misfit: Option<&Misfit>,
) -> Error {
    let mut spare = vec![Guarded::guard(); misfit.map_or(0, |misfit| misfit.len + 1)];
    let mut arrays = Arrays::new(before, way.offset);
    let found = {
        let mut pieces = arrays.pieces::<R>(&way.cuts);
        if let Some(misfit) = misfit {
            misfit.put(&mut pieces, &mut spare);
        }
        rule.step_many_on(way.exec, t, &mut pieces)
    };
    let context = || format!("{rule:?}, step {t}, {way:?}, {misfit:?}, {} elements", before.len());
    let error = found.err().unwrap_or_else(|| panic!("not refused: {}", context()));
    arrays.check(before, context);
    assert!(spare.iter().all(|&value| value == Guarded::guard()), "misfit written: {}", context());
    error
}

/// Cuts a tensor at the given positions, in any order and modulo its length.
fn cut<'a, R: Rule, F: Float>(whole: Tensor<'a, R, F>, cuts: &[usize]) -> Vec<Tensor<'a, R, F>> {
    let len = whole.param.len();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (len + 1)).collect();
    cuts.sort_unstable();
    let (mut pieces, mut rest, mut done) = (vec![], whole, 0);
    for cut in cuts {
        let (piece, others) = rest.split_at(cut - done);
        pieces.push(piece);
        (rest, done) = (others, cut);
    }
    pieces.push(rest);
    pieces
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

/// Turns any 64 bits into a number: one in four special, the others of every magnitude that f32
/// has a square for.
pub fn number<F: Float>(bits: u64) -> F {
    let sign = if bits & 1 == 0 { 1.0 } else { -1.0 };
    let special = SPECIAL[(bits >> 8) as usize % SPECIAL.len()];
    let mantissa = 1.0 + (bits >> 32) as f64 / u32::MAX as f64;
    let ordinary = mantissa * f64::powi(2.0, (bits >> 8 & 63) as i32 - 40);
    F::from_f64(sign * if bits >> 1 & 3 == 0 { special } else { ordinary })
}

/// A [`number`] that is not special, nor negative where the column is a moment.
pub fn ordinary<F: Float>(column: usize, bits: u64) -> F {
    let sign = if column < 2 { 0 } else { 1 };
    number(bits & !sign | 2)
}

/// A tensor of [`number`]s from a seed; where `special` is false, of [`ordinary`] ones only.
pub fn columns<R: Rule, F: Float>(rule: &R, seed: u64, len: usize, special: bool) -> Columns<F> {
    use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Columns::new(rule, len, |column, _| {
        let bits: u64 = rng.random();
        if special { number(bits) } else { ordinary(column, bits) }
    })
}
