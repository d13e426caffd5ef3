//! Who does the work of a call: the calling thread, or all threads of its pool.
//!
//! Each thread enters the instruction set by itself: it would not inherit it.

use core::slice;

/// Something to be done that can be cut in two.
pub(crate) trait Work: Send + Sized {
    /// How long it takes, in elements of a dense step.
    fn len(&self) -> usize;

    /// The first part, about `first` long, and the rest; either may be empty, if there is no place
    /// for a cut.
    fn split_at(self, first: usize) -> (Self, Self);

    /// Does it, on the calling thread.
    fn run(self);
}

/// Does the work, on the calling thread and those that are worth waking.
#[inline]
pub(crate) fn run<W: Work>(parallel: bool, work: W) {
    #[cfg(feature = "rayon")]
    if parallel {
        return threads::run(work);
    }
    let _ = parallel;
    work.run();
}

/// Whether work of a length, in elements of a dense step, is worth moving into a pool that the calling
/// thread is not in, and waiting for: two wake-ups.
#[cfg(feature = "capi")]
pub(crate) fn is_worth_moving(len: usize) -> bool {
    len >= 2 * threads::WAKING
}

#[cfg(feature = "rayon")]
mod threads {
    use core::ops::RangeInclusive;

    use super::Work;

    /// The smallest piece that another thread is asked to take: a microsecond of work, which is what
    /// handing it over costs; larger ones where there is enough for all.
    const PIECE: RangeInclusive<usize> = 8 << 10..=16 << 10;
    /// Pieces for each thread, so that one that starts late or runs slow holds up nobody.
    const PIECES_PER_THREAD: usize = 8;
    /// What the calling thread gets done while a thread of a pool wakes up, and it wakes up after it:
    /// about 15 microseconds of work.
    pub(super) const WAKING: usize = 128 << 10;

    #[inline]
    pub(super) fn run<W: Work>(work: W) {
        let len = work.len();
        if len < 2 * PIECE.start() {
            return work.run();
        }
        let threads = rayon::current_num_threads();
        let piece = (len / threads).clamp(*PIECE.start(), *PIECE.end());
        let piece = piece.max(len / (threads * PIECES_PER_THREAD));
        if threads == 1 {
            work.run();
        } else if rayon::current_thread_index().is_some() {
            halve(work, piece);
        } else {
            // Entering the pool would put this thread to sleep, and it would wake up late. It takes
            // a share of its own instead, longer by the time that the others take to wake up.
            let own = (len + WAKING * (threads - 1)) / threads;
            if own + piece > len {
                return work.run();
            }
            let (own, others) = work.split_at(own);
            rayon::in_place_scope(|scope| {
                scope.spawn(|_| halve(others, piece));
                own.run();
            });
        }
    }

    /// Cuts the work in two until a piece is left, so that idle threads can take the larger parts.
    fn halve<W: Work>(work: W, piece: usize) {
        let len = work.len();
        if len < 2 * piece {
            return work.run();
        }
        let (left, right) = work.split_at(len / 2);
        if left.len() == len || right.len() == len {
            left.run();
            right.run();
        } else {
            rayon::join(|| halve(left, piece), || halve(right, piece));
        }
    }
}

/// A step, and the kind of tensors that it steps.
pub(crate) trait TensorStep: Sync + 'static {
    type Tensor<'x>: Send;

    /// Cuts fall on multiples of this many elements from the start of a tensor or of a piece.
    const GRAIN: usize;

    fn len(tensor: &Self::Tensor<'_>) -> usize;

    fn empty<'x>() -> Self::Tensor<'x>;

    fn reborrow<'b>(tensor: &'b mut Self::Tensor<'_>) -> Self::Tensor<'b>;

    fn split_at<'x>(tensor: Self::Tensor<'x>, mid: usize) -> (Self::Tensor<'x>, Self::Tensor<'x>);

    /// Takes the step of some tensors, on the calling thread.
    fn run(&self, tensors: &mut [Self::Tensor<'_>]);
}

/// A step over a run of elements out of the tensors of a call: the end of one, some whole ones, the
/// beginning of another.
pub(crate) struct Tensors<'a, 'x, S: TensorStep> {
    step: &'a S,
    head: S::Tensor<'a>,
    middle: &'a mut [S::Tensor<'x>],
    tail: S::Tensor<'a>,
    len: usize,
}

impl<'a, 'x, S: TensorStep> Tensors<'a, 'x, S> {
    #[inline]
    pub(crate) fn new(step: &'a S, tensors: &'a mut [S::Tensor<'x>], len: usize) -> Self {
        Self { step, head: S::empty(), middle: tensors, tail: S::empty(), len }
    }

    fn cut(tensor: S::Tensor<'a>, at: usize) -> (S::Tensor<'a>, S::Tensor<'a>) {
        let at = at.next_multiple_of(S::GRAIN).min(S::len(&tensor));
        S::split_at(tensor, at)
    }
}

impl<S: TensorStep> Work for Tensors<'_, '_, S> {
    #[inline]
    fn len(&self) -> usize {
        self.len
    }

    fn split_at(self, first: usize) -> (Self, Self) {
        let Self { step, head, middle, tail, len } = self;
        let of = |head, middle, tail, len| Self { step, head, middle, tail, len };
        let mut before = S::len(&head);
        if first <= before {
            let (left, right) = Self::cut(head, first);
            let first = S::len(&left);
            let left = of(left, &mut [], S::empty(), first);
            return (left, of(right, middle, tail, len - first));
        }
        let mut whole = 0;
        while let Some(tensor) = middle.get(whole)
            && before + S::len(tensor) <= first
        {
            before += S::len(tensor);
            whole += 1;
        }
        let (left_middle, middle) = middle.split_at_mut(whole);
        let (left_tail, right_head, middle, tail) = match middle.split_first_mut() {
            Some((tensor, middle)) => {
                let (left, right) = Self::cut(S::reborrow(tensor), first - before);
                (left, right, middle, tail)
            }
            None => {
                let (left, right) = Self::cut(tail, first - before);
                (left, right, &mut [][..], S::empty())
            }
        };
        let first = before + S::len(&left_tail);
        (of(head, left_middle, left_tail, first), of(right_head, middle, tail, len - first))
    }

    #[inline]
    fn run(mut self) {
        for tensor in [&mut self.head, &mut self.tail] {
            if S::len(tensor) > 0 {
                self.step.run(slice::from_mut(tensor));
            }
        }
        self.step.run(self.middle);
    }
}
