//! Who works on the elements of a call: the calling thread, or all threads of its pool.
//!
//! Each thread enters the instruction set by itself: it would not inherit it.

use crate::{Float, Rule, Tensor, kernel::Step};

/// Runs a step over the tensors, on the calling thread and those that are worth waking.
#[inline]
pub(crate) fn run<R: Rule, F: Float>(
    parallel: bool,
    step: &Step<R>,
    tensors: &mut [Tensor<'_, R, F>],
) {
    #[cfg(feature = "rayon")]
    if parallel {
        return threads::run(step, tensors);
    }
    let _ = parallel;
    step.run(tensors);
}

#[cfg(feature = "rayon")]
mod threads {
    use core::{ops::RangeInclusive, slice};

    use crate::{Arity, Float, Rule, Tensor, kernel::Step};

    /// The smallest piece that another thread is asked to take: a microsecond of work, which is what
    /// handing it over costs; larger ones where there is enough for all.
    const PIECE: RangeInclusive<usize> = 8 << 10..=16 << 10;
    /// Pieces for each thread, so that one that starts late or runs slow holds up nobody.
    const PIECES_PER_THREAD: usize = 8;
    /// What the calling thread gets done while a thread of a pool wakes up, and it wakes up after it:
    /// about 15 microseconds of work.
    const WAKING: usize = 128 << 10;

    pub(super) fn run<R: Rule, F: Float>(step: &Step<R>, tensors: &mut [Tensor<'_, R, F>]) {
        let len: usize = tensors.iter().map(Tensor::len).sum();
        if len < 2 * PIECE.start() {
            return step.run(tensors);
        }
        let threads = rayon::current_num_threads();
        let piece = (len / threads).clamp(*PIECE.start(), *PIECE.end());
        let piece = piece.max(len / (threads * PIECES_PER_THREAD));
        if threads == 1 {
            step.run(tensors);
        } else if rayon::current_thread_index().is_some() {
            halve(step, Work::new(tensors, len), piece);
        } else {
            // Entering the pool would put this thread to sleep, and it would wake up late. It takes
            // a share of its own instead, longer by the time that the others take to wake up.
            let own = (len + WAKING * (threads - 1)) / threads;
            if own + piece > len {
                return step.run(tensors);
            }
            let (own, others) = Work::new(tensors, len).split_at(own);
            rayon::in_place_scope(|scope| {
                scope.spawn(|_| halve(step, others, piece));
                own.run(step);
            });
        }
    }

    /// Cuts the work in two until a piece is left, so that idle threads can take the larger parts.
    fn halve<R: Rule, F: Float>(step: &Step<R>, work: Work<'_, '_, R, F>, piece: usize) {
        if work.len < 2 * piece {
            return work.run(step);
        }
        let half = work.len / 2;
        let (left, right) = work.split_at(half);
        rayon::join(|| halve(step, left, piece), || halve(step, right, piece));
    }

    /// A run of elements out of the tensors of a call: the end of one, some whole ones, the
    /// beginning of another.
    struct Work<'a, 'x, R: Rule, F: Float> {
        head: Tensor<'a, R, F>,
        middle: &'a mut [Tensor<'x, R, F>],
        tail: Tensor<'a, R, F>,
        len: usize,
    }

    impl<'a, 'x, R: Rule, F: Float> Work<'a, 'x, R, F> {
        /// Cuts fall on multiples of this many elements from the start of a tensor or of a piece:
        /// on whole registers, and on whole cache lines where the tensor begins on one.
        const GRAIN: usize = 64;

        fn new(tensors: &'a mut [Tensor<'x, R, F>], len: usize) -> Self {
            Self { head: Tensor::empty(), middle: tensors, tail: Tensor::empty(), len }
        }

        fn run(mut self, step: &Step<R>) {
            step.run(slice::from_mut(&mut self.head));
            step.run(self.middle);
            step.run(slice::from_mut(&mut self.tail));
        }

        /// The first elements, about `first` of them, and the others.
        fn split_at(self, first: usize) -> (Self, Self) {
            let Self { head, middle, tail, len } = self;
            let mut before = head.len();
            if first <= before {
                let (left, right) = Self::cut(head, first);
                let first = left.len();
                let left = Self { head: left, middle: &mut [], tail: Tensor::empty(), len: first };
                return (left, Self { head: right, middle, tail, len: len - first });
            }
            let mut whole = 0;
            while let Some(tensor) = middle.get(whole)
                && before + tensor.len() <= first
            {
                before += tensor.len();
                whole += 1;
            }
            let (left_middle, middle) = middle.split_at_mut(whole);
            let (left_tail, right_head, middle, tail) = match middle.split_first_mut() {
                Some((tensor, middle)) => {
                    let (left, right) = Self::cut(tensor.reborrow(), first - before);
                    (left, right, middle, tail)
                }
                None => {
                    let (left, right) = Self::cut(tail, first - before);
                    (left, right, &mut [][..], Tensor::empty())
                }
            };
            let first = before + left_tail.len();
            let left = Self { head, middle: left_middle, tail: left_tail, len: first };
            (left, Self { head: right_head, middle, tail, len: len - first })
        }

        fn cut(tensor: Tensor<'a, R, F>, at: usize) -> (Tensor<'a, R, F>, Tensor<'a, R, F>) {
            let at = at.next_multiple_of(Self::GRAIN).min(tensor.len());
            tensor.split_at(at)
        }
    }

    impl<R: Rule, F: Float> Tensor<'_, R, F> {
        fn empty() -> Self {
            Self {
                param: &mut [],
                grad: &[],
                moments: R::Moments::from_fn(|_| -> &mut [F] { &mut [] }),
            }
        }
    }
}
