//! The ways in for dense tensors.

use core::marker::PhantomData;

use crate::{
    Arity, Error, Float, Isa, Rule, State, Tensor,
    kernel::Step,
    partition::{self, TensorStep, Tensors},
};

/// How a call runs: on which instruction set, and on one thread or many. The results are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exec {
    /// The instruction set.
    pub isa: Isa,
    /// Whether large calls may share their work with the threads of the rayon pool that the caller
    /// is in (the global pool, if it is in none). No effect without the feature `rayon`.
    pub parallel: bool,
}

impl Exec {
    /// What calls use when no `Exec` is passed: [`Isa::selected`], on many threads.
    ///
    /// # Errors
    ///
    /// As [`Isa::selected`].
    pub fn selected() -> Result<Self, Error> {
        Ok(Self { isa: Isa::selected()?, parallel: true })
    }
}

/// Steps with a [`Rule`]; every rule has these methods.
///
/// # Threads
///
/// A large call is shared among the threads of the rayon pool that the caller is in; small ones,
/// where waking a thread would cost more than it saves, stay on the calling thread. From inside the
/// pool (`pool.install(|| train())`, or the body of any parallel iterator) sharing costs less and so
/// begins at smaller sizes than from outside. [`Exec`] keeps a call on its thread.
///
/// # Errors
///
/// All methods find every error before the first write; on `Err`, no buffer has changed:
///
/// - [`Error::HyperParameter`] or [`Error::ConstantOverflow`] for a hyper-parameter;
/// - [`Error::LengthMismatch`] if an array is not as long as its tensor's parameters,
///   [`Error::UnusedMoment`] if it should be empty;
/// - [`Error::ZeroStep`] if `t` is 0, [`Error::StepOverflow`] if a state can't count the step;
/// - [`Error::UnknownIsa`] or [`Error::IsaUnavailable`] for the instruction set.
///
/// Infinities and NaN are data: they stay in their own element.
pub trait Optimizer: Rule {
    /// Moments for `len` parameters, as they are before the first step.
    ///
    /// # Panics
    ///
    /// If the moments take more than `isize::MAX` bytes, as `Vec` does.
    fn state<F: Float>(&self, len: usize) -> State<Self, F> {
        State::new(self, 1, len)
    }

    /// Takes the next step of `state`, and counts it.
    ///
    /// # Errors
    ///
    /// [As above](Self#errors).
    fn step<F: Float>(
        &self,
        param: &mut [F],
        grad: &[F],
        state: &mut State<Self, F>,
    ) -> Result<(), Error> {
        self.step_on(Exec::selected()?, param, grad, state)
    }

    /// [`step`](Self::step), run as told.
    ///
    /// # Errors
    ///
    /// [As above](Self#errors).
    fn step_on<F: Float>(
        &self,
        exec: Exec,
        param: &mut [F],
        grad: &[F],
        state: &mut State<Self, F>,
    ) -> Result<(), Error> {
        let t = state.step().checked_add(1).ok_or(Error::StepOverflow)?;
        let tensor = Tensor { param, grad, moments: state.moments_mut() };
        self.step_many_on(exec, t, &mut [tensor])?;
        state.set_step(t);
        Ok(())
    }

    /// Takes step `t`, counted from 1, of any number of tensors in one parallel region: large ones
    /// are cut, small ones put together.
    ///
    /// # Errors
    ///
    /// [As above](Self#errors).
    fn step_many<F: Float>(
        &self,
        t: u64,
        tensors: &mut [Tensor<'_, Self, F>],
    ) -> Result<(), Error> {
        self.step_many_on(Exec::selected()?, t, tensors)
    }

    /// [`step_many`](Self::step_many), run as told.
    ///
    /// # Errors
    ///
    /// [As above](Self#errors).
    fn step_many_on<F: Float>(
        &self,
        exec: Exec,
        t: u64,
        tensors: &mut [Tensor<'_, Self, F>],
    ) -> Result<(), Error> {
        let step = Step::new::<F>(self, exec, t)?;
        let mut len = 0;
        for (index, tensor) in tensors.iter().enumerate() {
            tensor.check_lengths(self, index)?;
            len += tensor.len();
        }
        let step = DenseStep { step, prefetch: is_far::<Self, F>(len), float: PhantomData };
        partition::run(exec.parallel, Tensors::new(&step, tensors, len));
        Ok(())
    }
}

impl<R: Rule> Optimizer for R {}

/// What most CPUs have room for close to a core, in bytes.
const SECOND_CACHE: usize = 1 << 20;

/// Whether the arrays of a call come from beyond the second cache, for the kernel to ask ahead.
#[inline]
fn is_far<R: Rule, F: Float>(len: usize) -> bool {
    let arrays = 2 + R::MOMENT_NAMES.as_ref().len();
    len * size_of::<F>() > SECOND_CACHE / arrays
}

/// A dense step in one type.
struct DenseStep<R: Rule, F> {
    step: Step<R>,
    /// Whether to ask for memory ahead.
    prefetch: bool,
    float: PhantomData<F>,
}

impl<R: Rule, F: Float> TensorStep for DenseStep<R, F> {
    type Tensor<'x> = Tensor<'x, R, F>;
    /// For whole registers, and whole cache lines where the tensor begins on one.
    const GRAIN: usize = 64;

    #[inline]
    fn len(tensor: &Tensor<'_, R, F>) -> usize {
        tensor.len()
    }

    #[inline]
    fn empty<'x>() -> Tensor<'x, R, F> {
        let moments = R::Moments::from_fn(|_| -> &mut [F] { &mut [] });
        Tensor { param: &mut [], grad: &[], moments }
    }

    fn reborrow<'b>(tensor: &'b mut Tensor<'_, R, F>) -> Tensor<'b, R, F> {
        tensor.reborrow()
    }

    fn split_at<'x>(tensor: Self::Tensor<'x>, mid: usize) -> (Self::Tensor<'x>, Self::Tensor<'x>) {
        tensor.split_at(mid)
    }

    #[inline]
    fn run(&self, tensors: &mut [Tensor<'_, R, F>]) {
        self.step.run(tensors, self.prefetch);
    }
}
