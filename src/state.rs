//! Moments that adamant owns.

use core::{fmt, mem};

use aligned_vec::{AVec, RuntimeAlign};

use crate::{Arity, Float, Many, Rule};

const CACHE_LINE: usize = 64;
const PAGE: usize = 4 << 10;
const HUGE_PAGE: usize = 2 << 20;

/// The moments of one tensor and the number of steps they have seen, owned by adamant.
///
/// Moments begin on cache lines. Large ones lie on huge pages where Linux grants them, and begin at
/// different offsets of a page: a CPU takes a load for dependent on a store at the same offset of
/// another page, and waits.
///
/// [`Optimizer::state`](crate::Optimizer::state) makes one.
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
pub struct State<R: Rule, F: Float> {
    /// All moments in one allocation.
    buffer: AVec<F, RuntimeAlign>,
    len: usize,
    /// Elements from the start of one moment to the start of the next, and before the first.
    stride: usize,
    lead: usize,
    step: u64,
    /// Which of the rule's moments there are.
    kept: Many<R::Moments, bool>,
}

impl<R: Rule, F: Float> State<R, F> {
    pub(crate) fn new(rule: &R, len: usize) -> Self {
        let (line, page) = (CACHE_LINE / size_of::<F>(), PAGE / size_of::<F>());
        let names = R::MOMENT_NAMES;
        let kept = || (0..names.as_ref().len()).filter_map(|moment| rule.start(moment));
        let (lead, stride) = if len < page {
            (0, len.next_multiple_of(line))
        } else {
            // Parameters and gradients mostly begin at the start of a page or just after it; the
            // moments share out the rest of it.
            let apart = (page / (kept().count() + 1)).next_multiple_of(line);
            (apart, len.next_multiple_of(page) + apart)
        };
        let mut state = Self {
            buffer: zeros(stride.saturating_mul(kept().count()).saturating_add(lead)),
            kept: R::Moments::from_fn(|moment| rule.start(moment).is_some()),
            len,
            stride,
            lead,
            step: 0,
        };
        for (moment, start) in state.moments_mut().into_iter().zip(0..) {
            if let Some(start) = rule.start(start)
                && start != 0.0
            {
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

    /// The moments, in the order of [`Rule::MOMENT_NAMES`]; one that the rule does without is empty.
    pub fn moments(&self) -> Many<R::Moments, &[F]> {
        let mut rest = &self.buffer[self.lead..];
        R::Moments::from_fn(|moment| {
            let kept = self.kept.as_ref()[moment];
            let (moment, others) = rest.split_at(if kept { self.stride } else { 0 });
            rest = others;
            &moment[..if kept { self.len } else { 0 }]
        })
    }

    /// The moments, to be written.
    pub fn moments_mut(&mut self) -> Many<R::Moments, &mut [F]> {
        let mut rest = &mut self.buffer[self.lead..];
        R::Moments::from_fn(|moment| {
            let kept = self.kept.as_ref()[moment];
            let (moment, others) =
                mem::take(&mut rest).split_at_mut(if kept { self.stride } else { 0 });
            rest = others;
            &mut moment[..if kept { self.len } else { 0 }]
        })
    }
}

impl<R: Rule, F: Float> Clone for State<R, F> {
    fn clone(&self) -> Self {
        let mut buffer = zeros(self.buffer.len());
        buffer.copy_from_slice(&self.buffer);
        let kept = R::Moments::from_fn(|moment| self.kept.as_ref()[moment]);
        Self { buffer, kept, ..*self }
    }
}

impl<R: Rule, F: Float> fmt::Debug for State<R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("State");
        fields.field("step", &self.step);
        for (name, moment) in R::MOMENT_NAMES.into_iter().zip(self.moments()) {
            fields.field(name, &moment);
        }
        fields.finish()
    }
}

fn zeros<F: Float>(len: usize) -> AVec<F, RuntimeAlign> {
    let huge = len.saturating_mul(size_of::<F>()) >= HUGE_PAGE;
    let mut buffer = AVec::with_capacity(if huge { HUGE_PAGE } else { CACHE_LINE }, len);
    if huge {
        // Before the first touch, which is what gives the memory its pages.
        advise_huge_pages(&buffer);
    }
    buffer.resize(len, F::default());
    buffer
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "a system call that no dependency of ours wraps")]
fn advise_huge_pages<F>(buffer: &AVec<F, RuntimeAlign>) {
    let bytes = buffer.capacity() * size_of::<F>();
    // SAFETY: the range is the buffer's own allocation, which begins on a page and is not in use
    // yet; MADV_HUGEPAGE changes no contents. It is advice: failure costs speed only.
    unsafe { libc::madvise(buffer.as_ptr().cast_mut().cast(), bytes, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages<F>(_buffer: &AVec<F, RuntimeAlign>) {}
