//! An optimizer that burn calls for one parameter at a time.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use adamant::{AnyOptimizer, Optimizer as _, StepOptions, Storage};
use burn::{
    Tensor,
    backend::Flex,
    optim::{LearningRate, Optimizer},
    tensor::Device,
};

use crate::{Error, ParamState, memory};

/// Any optimizer of adamant as one of burn's, for `ModuleOptimizer` and `Learner`.
///
/// burn calls it for one parameter at a time, with the learning rate. A step is in place if nothing else owns
/// the parameter, as in a plain training loop. A `Learner` keeps the old module during a step, so each parameter
/// is copied first. [`OneCallOptimizer`](crate::OneCallOptimizer) steps all parameters in one call.
///
/// # Examples
///
/// ```
/// use adamant_burn::{Adam, ParamOptimizer};
/// use burn::{Tensor, nn::LinearConfig, optim::{GradientsParams, ModuleOptimizer}, tensor::Device};
///
/// let device = Device::default().autodiff();
/// let mut model = LinearConfig::new(2, 1).init(&device);
/// // let mut optimizer = AdamWConfig::new().init();
/// let mut optimizer: ModuleOptimizer = ParamOptimizer::new(Adam::adamw())?.into();
/// for _ in 0..10 {
///     let x = Tensor::<2>::ones([4, 2], &device);
///     let loss = (model.forward(x) - 1.0).square().mean();
///     let grads = GradientsParams::from_grads(loss.backward(), &model);
///     model = optimizer.step(1e-2, model, grads);
/// }
/// # Ok::<(), adamant_burn::Error>(())
/// ```
///
/// # Random bits
///
/// Numbers that are rounded at random need random bits of their own: each parameter gets numbers for its elements
/// with its first gradient. Two `ParamOptimizer`s of one model give the same numbers, so give them different
/// seeds (`options.seed`). After a record was loaded, a parameter whose first gradient comes in the first step
/// can have the random bits of a parameter that burn visits later. `OneCallOptimizer` needs neither caution.
///
/// # Panics
///
/// burn's interface cannot return an error. So a step panics with the message of the [`Error`] if the parameter
/// is on another backend than burn-flex, has a type that adamant does not support, or was loaded with the
/// moments of another optimizer, and if the learning rate is negative or not finite.
#[derive(Clone)]
pub struct ParamOptimizer {
    /// The options of a step. The norm for clipping is that of one parameter, as with burn's own clipping.
    pub options: StepOptions<'static>,
    /// Whether parameters in BF16 are rounded at random, so that no update is lost on average; to nearest
    /// if not. Default false.
    pub stochastic: bool,
    optimizer: AnyOptimizer,
    moments: Option<Storage>,
    /// The number of the next parameter's first element: one more than the largest so far. Random bits
    /// depend on these numbers.
    elements: Arc<AtomicU64>,
}

impl ParamOptimizer {
    /// Makes an optimizer. Each step replaces its learning rate by burn's.
    ///
    /// # Errors
    ///
    /// [`Error::Step`] for a setting out of its range.
    pub fn new(optimizer: impl Into<AnyOptimizer>) -> Result<Self, Error> {
        let optimizer = optimizer.into();
        optimizer.check()?;
        Ok(Self {
            options: StepOptions::default(),
            stochastic: false,
            optimizer,
            moments: None,
            elements: Arc::default(),
        })
    }

    /// Sets the storage of moments: `F32`, `Bf16`, `F16`, or `Q8`, which is 8 bits an element. Without it,
    /// moments are in F32, and in F64 for parameters in F64.
    pub fn with_moments(mut self, storage: Storage) -> Self {
        self.moments = Some(storage);
        self
    }

    fn try_step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<ParamState>,
    ) -> Result<(Tensor<D>, ParamState), Error> {
        let shape = tensor.dims();
        let name = || format!("parameter of shape {shape:?}");
        let grad_name = || format!("the gradient of the {}", name());
        if grad.dims() != shape {
            let (grad, shape) = (grad.dims().to_vec(), shape.to_vec());
            return Err(Error::GradShape { parameter: name(), grad, shape });
        }
        let mut param = memory::contiguous(memory::memory(tensor, name)?);
        let grad = memory::contiguous(memory::memory(grad, grad_name)?);
        let mut optimizer = self.optimizer;
        optimizer.set("lr", lr)?;
        let len = memory::len(&param);
        let storage = memory::moments_for(param.dtype(), self.moments, name)?;
        let mut state = state.unwrap_or_else(|| {
            let first = self.elements.fetch_add(len as u64, Ordering::Relaxed);
            ParamState::new(&optimizer, storage, len, first)
        });
        state.ready(&optimizer, storage, len, name)?;
        // burn restores states without this optimizer.
        self.elements.fetch_max(state.end(), Ordering::Relaxed);
        if let Some(ready) = state.state_mut() {
            let tensor =
                ready.tensor(memory::param(&mut param, self.stochastic), memory::grad(&grad));
            // burn's interface cannot say that a step was left out.
            let _ = optimizer
                .step_tensors(&mut [tensor], &self.options)
                .map_err(|error| Error::of_step(error, std::iter::once(&*name())))?;
        }
        Ok((Tensor::from_primitive::<Flex>(param), state))
    }
}

impl Optimizer for ParamOptimizer {
    type State<const D: usize> = ParamState;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<ParamState>,
    ) -> (Tensor<D>, Option<ParamState>) {
        match self.try_step(lr, tensor, grad, state) {
            Ok((tensor, state)) => (tensor, Some(state)),
            Err(error) => panic!("{error}"),
        }
    }

    /// Moments stay in the memory of the CPU, where all parameters are.
    fn to_device<const D: usize>(state: ParamState, _device: &Device) -> ParamState {
        state
    }
}

impl fmt::Debug for ParamOptimizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParamOptimizer")
            .field("optimizer", &self.optimizer)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
