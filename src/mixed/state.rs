//! Moments in mixed precision that adamant owns.

use core::fmt;

use half::bf16;

use super::{Grad, MixedTensor, Moment, MomentRef, Param, span::format_of};
use crate::{Arity, Buffer, BufferElement, Many, Rule, element::Q8, state::apart};

/// What a moment of a [`MixedState`] is kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Storage {
    /// `f32`: 4 bytes an element.
    #[default]
    F32,
    /// bf16, rounded at random: 2 bytes.
    Bf16,
    /// 8 bits and a scale for each 256 elements, rounded at random: 1 byte and a bit. See
    /// [`Q8`](crate::Q8).
    Q8,
}

/// The moments of one tensor, each in a [`Storage`] of its own, and the number of steps they have seen,
/// owned by adamant.
///
/// As those of a [`State`](crate::State), moments begin on cache lines, and large ones lie on huge pages
/// where Linux grants them, at different offsets of a page.
/// [`MixedOptimizer::mixed_state`](crate::MixedOptimizer::mixed_state) makes one.
///
/// # Examples
///
/// Save and restore:
///
/// ```
/// use adamant::{Adam, Grad, MixedOptimizer, Moment, MomentRef, Outcome, Param, Pass, Storage};
///
/// let adam = Adam::default();
/// let mut state = adam.mixed_state(2, Storage::Bf16);
/// let (mut params, grads) = ([1.0, 2.0], [0.5, -0.5]);
/// let (param, grad) = (Param::F32(&mut params), Grad::F32(&grads));
/// assert_eq!(adam.step_with(param, grad, Pass::default(), &mut state)?, Outcome::Taken);
///
/// let saved = state.moments().map(|moment| match moment {
///     MomentRef::Bf16(values) => values.to_vec(),
///     MomentRef::F32(_) | MomentRef::Q8(..) => unreachable!("both are kept in bf16"),
/// });
///
/// let mut restored = adam.mixed_state(2, Storage::Bf16);
/// restored.set_step(state.step());
/// for (moment, saved) in restored.moments_mut().into_iter().zip(&saved) {
///     if let Moment::Bf16(values) = moment {
///         values.copy_from_slice(saved);
///     }
/// }
/// assert_eq!(restored.moments(), state.moments());
/// # Ok::<(), adamant::Error>(())
/// ```
pub struct MixedState<R: Rule> {
    moments: Many<R::Moments, Kept>,
    /// The number of parameters.
    len: usize,
    step: u64,
    first: u64,
}

/// A moment; empty if the rule does without it.
#[derive(Clone)]
enum Kept {
    F32(Array<f32>),
    Bf16(Array<bf16>),
    /// Codes and scales.
    Q8(Array<u8>, Array<f32>),
}

/// An array that begins some elements after the start of a cache line or page.
#[derive(Clone)]
struct Array<E: BufferElement> {
    buffer: Buffer<E>,
    start: usize,
}

impl<E: BufferElement> Array<E> {
    /// Zeros. `place` of `kept` moments, counted from 1, says how far into a page they begin.
    fn zeros(len: usize, place: usize, kept: usize) -> Self {
        let start = place * apart::<E>(len, kept);
        Self { buffer: Buffer::zeros(len.saturating_add(start)), start }
    }

    fn get(&self) -> &[E] {
        &self.buffer[self.start..]
    }

    fn get_mut(&mut self) -> &mut [E] {
        &mut self.buffer[self.start..]
    }
}

impl Kept {
    fn zeros(storage: Storage, len: usize, place: usize, kept: usize) -> Self {
        match storage {
            Storage::F32 => Self::F32(Array::zeros(len, place, kept)),
            Storage::Bf16 => Self::Bf16(Array::zeros(len, place, kept)),
            Storage::Q8 => {
                let scales = Array::zeros(Q8::scales(len), place, kept);
                Self::Q8(Array::zeros(len, place, kept), scales)
            }
        }
    }

    fn fill(&mut self, value: f32, format: Q8) {
        match self {
            Self::F32(moment) => moment.get_mut().fill(value),
            Self::Bf16(moment) => moment.get_mut().fill(bf16::from_f32(value)),
            Self::Q8(codes, scales) => {
                let (mut code, mut scale) = ([0], [0.0]);
                if format.encode(&[value], &mut code, &mut scale).is_ok() {
                    codes.get_mut().fill(code[0]);
                    scales.get_mut().fill(scale[0]);
                }
            }
        }
    }

    fn get(&self) -> MomentRef<'_> {
        match self {
            Self::F32(moment) => MomentRef::F32(moment.get()),
            Self::Bf16(moment) => MomentRef::Bf16(moment.get()),
            Self::Q8(codes, scales) => MomentRef::Q8(codes.get(), scales.get()),
        }
    }

    fn get_mut(&mut self) -> Moment<'_> {
        match self {
            Self::F32(moment) => Moment::F32(moment.get_mut()),
            Self::Bf16(moment) => Moment::Bf16(moment.get_mut()),
            Self::Q8(codes, scales) => Moment::Q8(codes.get_mut(), scales.get_mut()),
        }
    }
}

impl<R: Rule> MixedState<R> {
    pub(super) fn new(rule: &R, len: usize, storage: &Many<R::Moments, Storage>) -> Self {
        let storage = storage.as_ref();
        let kept = (0..storage.len()).filter(|&moment| rule.start(moment).is_some()).count();
        let mut place = 0;
        let moments = R::Moments::from_fn(|moment| {
            let Some(start) = rule.start(moment) else {
                return Kept::zeros(storage[moment], 0, 0, kept);
            };
            place += 1;
            let mut array = Kept::zeros(storage[moment], len, place, kept);
            if start != 0.0 {
                array.fill(start as f32, format_of(rule, moment));
            }
            array
        });
        Self { moments, len, step: 0, first: 0 }
    }

    /// The number of parameters.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of steps taken; those that were left out do not count.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Sets the number of steps taken, as when a checkpoint is restored.
    pub fn set_step(&mut self, step: u64) {
        self.step = step;
    }

    /// The number of the tensor's first element among all elements of the model; 0 unless
    /// [set](Self::set_first).
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Sets the number of the tensor's first element, so that the tensors of a model are rounded by
    /// random bits of their own: see [`MixedTensor::first`].
    pub fn set_first(&mut self, first: u64) {
        self.first = first;
    }

    /// The moments, in the order of [`Rule::MOMENT_NAMES`]; one that the rule does without is empty.
    pub fn moments(&self) -> Many<R::Moments, MomentRef<'_>> {
        R::Moments::from_fn(|moment| self.moments.as_ref()[moment].get())
    }

    /// The moments, to be written.
    pub fn moments_mut(&mut self) -> Many<R::Moments, Moment<'_>> {
        let mut moments = self.moments.as_mut().iter_mut();
        R::Moments::from_fn(|_| match moments.next() {
            Some(moment) => moment.get_mut(),
            None => Moment::F32(&mut []),
        })
    }

    /// A tensor of these moments and the given parameters and gradients, for a call on many
    /// ([`step_mixed`](crate::MixedOptimizer::step_mixed)), whose caller counts the steps.
    pub fn tensor<'a>(&'a mut self, param: Param<'a>, grad: Grad<'a>) -> MixedTensor<'a, R> {
        let first = self.first;
        MixedTensor { param, grad, moments: self.moments_mut(), first }
    }
}

impl<R: Rule> Clone for MixedState<R> {
    fn clone(&self) -> Self {
        Self {
            moments: R::Moments::from_fn(|moment| self.moments.as_ref()[moment].clone()),
            len: self.len,
            step: self.step,
            first: self.first,
        }
    }
}

impl<R: Rule> fmt::Debug for MixedState<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("MixedState");
        fields.field("step", &self.step).field("first", &self.first);
        for (name, moment) in R::MOMENT_NAMES.into_iter().zip(self.moments()) {
            fields.field(name, &moment);
        }
        fields.finish()
    }
}
