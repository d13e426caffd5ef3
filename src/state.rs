//! Moments that adamant owns.

use core::{fmt, mem, ops::Range};

use crate::{Arity, Buffer, BufferElement, Float, Many, RowRule, RowScratch, Table};

const CACHE_LINE: usize = 64;
const PAGE: usize = 4 << 10;

/// How many elements further into its page than the one before each of `kept` large moments begins.
/// Parameters and gradients mostly begin at the start of a page or just after it; the moments share out
/// the rest of it.
pub(crate) fn apart<E: BufferElement>(len: usize, kept: usize) -> usize {
    let (line, page) = (CACHE_LINE / size_of::<E>(), PAGE / size_of::<E>());
    if len < page { 0 } else { (page / (kept + 1)).next_multiple_of(line) }
}

/// The moments of one tensor or table and the number of steps they have seen, owned by adamant.
///
/// Moments begin on cache lines. Large ones lie on huge pages where Linux grants them, and begin at
/// different offsets of a page: a CPU takes a load for dependent on a store at the same offset of
/// another page, and waits.
///
/// [`Optimizer::state`](crate::Optimizer::state) makes one for a tensor,
/// [`RowOptimizer::row_state`](crate::RowOptimizer::row_state) one for a table.
///
/// # Examples
///
/// Save and restore:
///
/// ```
/// use adamant::{Adam, Optimizer};
///
/// let adam = Adam::default();
/// let mut state = adam.state(2);
/// adam.step(&mut [1.0_f32, 2.0], &[0.5, -0.5], &mut state)?;
/// let saved = (state.step(), state.moments().map(<[f32]>::to_vec));
///
/// let mut restored = adam.state(2);
/// restored.set_step(saved.0);
/// for (moment, saved) in restored.moments_mut().into_iter().zip(&saved.1) {
///     moment.copy_from_slice(saved);
/// }
/// assert_eq!(restored.moments(), state.moments());
/// # Ok::<(), adamant::Error>(())
/// ```
pub struct State<R: RowRule, F: Float> {
    /// All moments in one allocation.
    buffer: Buffer<F>,
    /// Where each moment lies, in ascending order; empty if the rule does without it.
    places: Many<R::RowMoments, Range<usize>>,
    /// The number of parameters.
    len: usize,
    step: u64,
    scratch: RowScratch,
}

impl<R: RowRule, F: Float> State<R, F> {
    pub(crate) fn new(rule: &R, rows: usize, width: usize) -> Self {
        let len = rows.saturating_mul(width);
        let moment_len = |moment| rows.saturating_mul(rule.moment_width(moment, width));
        let names = R::ROW_MOMENT_NAMES;
        let kept = (0..names.as_ref().len()).filter(|&moment| moment_len(moment) != 0).count();
        let apart = apart::<F>(len, kept);
        let unit = if apart == 0 { CACHE_LINE } else { PAGE } / size_of::<F>();
        let (mut end, mut offset) = (0_usize, 0);
        let places = R::RowMoments::from_fn(|moment| match moment_len(moment) {
            0 => end..end,
            len => {
                offset += apart;
                let start =
                    end.checked_next_multiple_of(unit).unwrap_or(end).saturating_add(offset);
                end = start.saturating_add(len);
                start..end
            }
        });
        let buffer = Buffer::zeros(end);
        let mut state = Self { buffer, places, len, step: 0, scratch: RowScratch::default() };
        for (moment, position) in state.moments_mut().into_iter().zip(0..) {
            let start = rule.moment_start(position);
            if start != 0.0 {
                moment.fill(F::from_f64(start));
            }
        }
        state
    }

    /// The number of parameters.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of steps taken.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Sets the number of steps taken, as when a checkpoint is restored.
    pub fn set_step(&mut self, step: u64) {
        self.step = step;
    }

    /// The moments, in the order of [`Rule::MOMENT_NAMES`](crate::Rule::MOMENT_NAMES) (`exp_avg` and
    /// `exp_avg_sq` for [`RowWiseAdam`](crate::RowWiseAdam)); one that the rule does without is empty.
    pub fn moments(&self) -> Many<R::RowMoments, &[F]> {
        R::RowMoments::from_fn(|moment| &self.buffer[self.places.as_ref()[moment].clone()])
    }

    /// The moments, to be written.
    pub fn moments_mut(&mut self) -> Many<R::RowMoments, &mut [F]> {
        self.parts_mut().0
    }

    /// A table of these moments and the given parameters, in rows of `width`.
    pub fn table<'a>(&'a mut self, param: &'a mut [F], width: usize) -> Table<'a, R, F> {
        Table { param, moments: self.moments_mut(), width }
    }

    pub(crate) fn parts_mut(&mut self) -> (Many<R::RowMoments, &mut [F]>, &mut RowScratch) {
        let (mut rest, mut done) = (&mut *self.buffer, 0);
        let moments = R::RowMoments::from_fn(|moment| {
            let Range { start, end } = self.places.as_ref()[moment];
            let (before, others) = mem::take(&mut rest).split_at_mut(end - done);
            (rest, done) = (others, end);
            let len = before.len();
            &mut before[len - (end - start)..]
        });
        (moments, &mut self.scratch)
    }
}

impl<R: RowRule, F: Float> Clone for State<R, F> {
    fn clone(&self) -> Self {
        Self {
            buffer: self.buffer.clone(),
            places: R::RowMoments::from_fn(|moment| self.places.as_ref()[moment].clone()),
            len: self.len,
            step: self.step,
            scratch: RowScratch::default(),
        }
    }
}

impl<R: RowRule, F: Float> fmt::Debug for State<R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("State");
        fields.field("step", &self.step);
        for (name, moment) in R::ROW_MOMENT_NAMES.into_iter().zip(self.moments()) {
            fields.field(name, &moment);
        }
        fields.finish()
    }
}
