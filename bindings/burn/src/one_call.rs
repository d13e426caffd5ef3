//! An optimizer that steps a whole module in one call.

use std::{collections::HashMap, fmt};

use adamant::{AnyOptimizer, Group, Report, State, StepOptions, Storage};
use burn::{
    lr_scheduler::module_lr_scheduler::ModuleLearningRate,
    module::{Module, ParamGroup, ParamId},
    optim::GradientsParams,
};

use crate::{
    Error, ParamState, memory,
    traverse::{Job, Put, Take, plan},
};

/// Any optimizer of adamant for all parameters of a module, in one call and one parallel region, in place.
///
/// # Examples
///
/// ```
/// use adamant_burn::{Adam, OneCallOptimizer};
/// use burn::{Tensor, nn::LinearConfig, optim::GradientsParams, tensor::Device};
///
/// let device = Device::default().autodiff();
/// let mut model = LinearConfig::new(2, 1).init(&device);
/// // let mut optimizer = AdamWConfig::new().init();
/// let mut optimizer = OneCallOptimizer::new(Adam::adamw())?;
/// optimizer.options.max_norm = Some(1.0);
/// for _ in 0..10 {
///     let x = Tensor::<2>::ones([4, 2], &device);
///     let loss = (model.forward(x) - 1.0).square().mean();
///     let grads = GradientsParams::from_grads(loss.backward(), &model);
///     // model = optimizer.step(1e-2, model, grads);
///     let report = optimizer.step(1e-2, &mut model, grads)?;
///     assert!(report.grad_norm.is_some());
/// }
/// # Ok::<(), adamant_burn::Error>(())
/// ```
///
/// If another tensor shares the memory of a parameter, for example that of a clone of the module, the parameter
/// is copied before it is written, as always in burn.
pub struct OneCallOptimizer {
    /// The options of a step: clipping by the norm of all gradients, a factor of them, threads, the seed.
    pub options: StepOptions<'static>,
    /// Whether parameters in BF16 are rounded at random, so that no update is lost on average; to nearest
    /// if not. Default false.
    pub stochastic: bool,
    pub(crate) groups: Vec<(ParamGroup, AnyOptimizer)>,
    pub(crate) entries: HashMap<ParamId, Entry>,
    moments: Option<Storage>,
    /// The number of the next parameter's first element: one more than the largest so far. Random bits
    /// depend on these numbers.
    pub(crate) elements: u64,
}

/// The state of a parameter.
pub(crate) struct Entry {
    pub state: ParamState,
    pub path: String,
    pub rank: usize,
}

impl OneCallOptimizer {
    /// Makes an optimizer for all parameters. Each step replaces its learning rate.
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
            groups: vec![(ParamGroup::all(), optimizer)],
            entries: HashMap::new(),
            moments: None,
            elements: 0,
        })
    }

    /// Sets the storage of moments: `F32`, `Bf16`, `F16`, or `Q8`, which is 8 bits an element. Without it,
    /// moments are in F32, and in F64 for parameters in F64. Call it before the first step.
    pub fn with_moments(mut self, storage: Storage) -> Self {
        self.moments = Some(storage);
        self
    }

    /// Adds a group of parameters with another optimizer. If groups overlap, the one that was added last
    /// applies, as in burn's `ModuleOptimizer`. Call it before the first step.
    ///
    /// # Examples
    ///
    /// Biases without weight decay:
    ///
    /// ```
    /// use adamant_burn::{Adam, OneCallOptimizer};
    /// use burn::module::ParamGroup;
    ///
    /// let no_decay = Adam { weight_decay: 0.0, ..Adam::adamw() };
    /// let optimizer = OneCallOptimizer::new(Adam::adamw())?
    ///     .with_group(ParamGroup::from_predicate("bias"), no_decay)?;
    /// # Ok::<(), adamant_burn::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Step`] for a setting out of its range.
    pub fn with_group(
        mut self,
        group: ParamGroup,
        optimizer: impl Into<AnyOptimizer>,
    ) -> Result<Self, Error> {
        let optimizer = optimizer.into();
        optimizer.check()?;
        self.groups.push((group, optimizer));
        Ok(self)
    }

    /// Takes a step of all parameters of a module that have a gradient. `lr` is a number, or the result of one
    /// of burn's schedulers, which can have rates for groups of parameters.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`], [`Error::DType`], [`Error::GradShape`] or [`Error::Shared`] for a parameter,
    /// [`Error::Moments`] or [`Error::Saved`] for its moments, [`Error::Step`] for settings and options.
    pub fn step<M: Module>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        module: &mut M,
        grads: GradientsParams,
    ) -> Result<Report, Error> {
        let groups: Vec<_> = self.groups.iter().map(|(group, _)| group).collect();
        let mut jobs = plan(&*module, grads, &groups, &lr.into())?;
        let optimizers = self.optimizers(&jobs)?;
        for (job, optimizer) in jobs.iter().zip(
            optimizers.iter().flat_map(|(optimizer, count)| std::iter::repeat_n(optimizer, *count)),
        ) {
            let name = || job.path.clone();
            let storage = memory::moments_for(job.dtype, self.moments, name)?;
            let entry = self.entries.entry(job.id).or_insert_with(|| {
                let state = ParamState::new(optimizer, storage, job.len, self.elements);
                self.elements = self.elements.saturating_add(job.len as u64);
                Entry { state, path: name(), rank: job.rank }
            });
            entry.state.ready(optimizer, storage, job.len, name)?;
        }

        // A clone of a module shares the memory of its parameters. When the module is replaced, the parameters
        // that were taken out are the only owners of their memory.
        let mut take = Take::new(&jobs);
        *module = module.clone().map(&mut take);
        let mut put: Put = take.into();
        let report = self.step_jobs(&mut jobs, &mut put, &optimizers);
        *module = module.clone().map(&mut put);
        report
    }

    /// The optimizers of the jobs, with their learning rates, each with its number of jobs.
    fn optimizers(&self, jobs: &[Job]) -> Result<Vec<(AnyOptimizer, usize)>, Error> {
        let same = |a: &Job, b: &Job| a.group == b.group && a.lr.to_bits() == b.lr.to_bits();
        let runs = jobs.chunk_by(same).map(|run| {
            let mut optimizer = self.groups[run[0].group].1;
            optimizer.set("lr", run[0].lr)?;
            Ok((optimizer, run.len()))
        });
        runs.collect()
    }

    /// The step of parameters that were taken out of their module.
    fn step_jobs(
        &mut self,
        jobs: &mut [Job],
        put: &mut Put,
        optimizers: &[(AnyOptimizer, usize)],
    ) -> Result<Report, Error> {
        // Each state is borrowed on its own.
        let mut states: HashMap<ParamId, &mut State> = (self.entries.iter_mut())
            .filter_map(|(id, entry)| Some((*id, entry.state.state_mut()?)))
            .collect();
        let mut tensors = Vec::with_capacity(jobs.len());
        for (job, param) in jobs.iter().zip(put.params()) {
            // Both are there: `step` made the state, and the plan found the parameter.
            if let (Some(state), Some(param)) = (states.remove(&job.id), param) {
                let grad = memory::grad(&job.grad);
                tensors.push(state.tensor(memory::param(param, self.stochastic), grad));
            }
        }
        let mut rest = &mut *tensors;
        let mut groups = Vec::with_capacity(optimizers.len());
        for (optimizer, count) in optimizers {
            let (tensors, others) = rest.split_at_mut((*count).min(rest.len()));
            groups.push(Group::new(optimizer, tensors));
            rest = others;
        }
        let paths = jobs.iter().map(|job| &*job.path);
        adamant::step(&mut groups, &self.options).map_err(|error| Error::of_step(error, paths))
    }

    /// The moments and the step count of a parameter; `None` before its first gradient.
    pub fn state(&self, id: ParamId) -> Option<&ParamState> {
        self.entries.get(&id).map(|entry| &entry.state)
    }
}

impl fmt::Debug for OneCallOptimizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parameters: Vec<_> = self.entries.values().map(|entry| &*entry.path).collect();
        parameters.sort_unstable();
        f.debug_struct("OneCallOptimizer")
            .field("groups", &self.groups)
            .field("parameters", &parameters)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
