//! Visitors of a module, which plan a step, take the parameters out, and put them back.

use std::collections::HashMap;

use burn::{
    Tensor,
    backend::Flex,
    lr_scheduler::module_lr_scheduler::ModuleLearningRate,
    module::{Module, ModuleMapper, ModuleVisitor, Param, ParamGroup, ParamId},
    optim::GradientsParams,
    tensor::{DType, GradientCheckpointingStrategy},
};

use crate::{
    Error,
    memory::{self, Memory},
};

/// A parameter to be stepped.
pub(crate) struct Job {
    pub id: ParamId,
    /// Its path in the module: `layers.0.weight`.
    pub path: String,
    pub rank: usize,
    pub len: usize,
    pub dtype: DType,
    /// The number of its group.
    pub group: usize,
    pub lr: f64,
    /// Its gradient, contiguous.
    pub grad: Memory,
}

/// The parameters that a step of a module updates, in the order of groups and learning rates. The module is
/// not changed.
pub(crate) fn plan<M: Module>(
    module: &M,
    grads: GradientsParams,
    groups: &[&ParamGroup],
    lr: &ModuleLearningRate,
) -> Result<Vec<Job>, Error> {
    let mut plan = Plan {
        path: vec![],
        grads,
        groups,
        lr,
        jobs: vec![],
        paths: HashMap::new(),
        found: Ok(()),
    };
    module.visit(&mut plan);
    plan.found?;
    plan.jobs.sort_by(|a, b| a.group.cmp(&b.group).then(a.lr.total_cmp(&b.lr)));
    Ok(plan.jobs)
}

struct Plan<'a> {
    path: Vec<String>,
    grads: GradientsParams,
    groups: &'a [&'a ParamGroup],
    lr: &'a ModuleLearningRate,
    jobs: Vec<Job>,
    /// The paths of all jobs.
    paths: HashMap<ParamId, String>,
    /// The first mistake.
    found: Result<(), Error>,
}

impl Plan<'_> {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<D>>) -> Result<(), Error> {
        let path = self.path.join(".");
        if let Some(first) = self.paths.get(&param.id) {
            return Err(Error::Shared { first: first.clone(), second: path });
        }
        let Some(grad) = self.grads.remove::<D>(param.id) else { return Ok(()) };
        // The stored value, which mappers get, too.
        let value = param.base();
        if grad.dims() != value.dims() {
            let (grad, shape) = (grad.dims().to_vec(), value.dims().to_vec());
            return Err(Error::GradShape { parameter: path, grad, shape });
        }
        let value = memory::memory(value.inner(), || format!("parameter {path}"))?;
        let grad = memory::memory(grad.inner(), || format!("the gradient of {path}"))?;
        let group = self.groups.iter().rposition(|group| group.matches(&param.id, Some(&path)));
        self.paths.insert(param.id, path.clone());
        self.jobs.push(Job {
            id: param.id,
            rank: D,
            len: memory::len(&value),
            dtype: value.dtype(),
            // The first group has all parameters.
            group: group.unwrap_or(0),
            lr: self.lr.lr_from_param(param.id, Some(&path)),
            grad: memory::contiguous(grad),
            path,
        });
        Ok(())
    }
}

impl ModuleVisitor for Plan<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.found.is_ok() {
            self.found = self.visit(param);
        }
    }
}

/// The autodiff settings of a parameter.
struct Autodiff {
    enabled: bool,
    require_grad: bool,
    checkpointing: Option<GradientCheckpointingStrategy>,
    distributed: bool,
}

impl Autodiff {
    fn of<const D: usize>(tensor: &Tensor<D>) -> Self {
        Self {
            enabled: tensor.is_autodiff(),
            require_grad: tensor.is_require_grad(),
            checkpointing: tensor.gradient_checkpointing_strategy(),
            distributed: tensor.is_distributed(),
        }
    }

    fn restore<const D: usize>(&self, mut tensor: Tensor<D>, id: ParamId) -> Tensor<D> {
        if !self.enabled {
            return tensor;
        }
        tensor = tensor.autodiff();
        if let Some(strategy) = self.checkpointing {
            tensor = tensor.with_gradient_checkpointing_strategy(strategy);
        }
        if self.require_grad {
            tensor = tensor.require_grad();
        }
        if self.distributed {
            tensor = tensor.set_distributed(id);
        }
        tensor
    }
}

/// Parameters out of their module, in the order of the jobs.
type Taken = Vec<Option<(Memory, Autodiff)>>;

/// Takes the parameters of jobs out of a module, and leaves empty tensors in their places.
pub(crate) struct Take {
    positions: HashMap<ParamId, usize>,
    taken: Taken,
}

impl Take {
    pub(crate) fn new(jobs: &[Job]) -> Self {
        let positions = jobs.iter().enumerate().map(|(position, job)| (job.id, position));
        Self { positions: positions.collect(), taken: jobs.iter().map(|_| None).collect() }
    }
}

impl ModuleMapper for Take {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(&position) = self.positions.get(&param.id) else { return param };
        let value = param.base();
        let (device, autodiff) = (value.device(), Autodiff::of(&value));
        // Cannot fail: the plan has found it on this backend.
        let Ok(memory) = value.inner().try_into_primitive::<Flex>() else { return param };
        self.taken[position] = Some((memory, autodiff));
        param.map(|_| Tensor::empty([0; D], &device))
    }
}

/// Puts parameters back into their module.
pub(crate) struct Put(Take);

impl From<Take> for Put {
    /// Parameters whose elements are not one after the other are copied.
    fn from(mut take: Take) -> Self {
        for taken in &mut take.taken {
            *taken = taken.take().map(|(memory, autodiff)| (memory::contiguous(memory), autodiff));
        }
        Self(take)
    }
}

impl Put {
    /// The parameters, in the order of the jobs.
    pub(crate) fn params(&mut self) -> impl Iterator<Item = Option<&mut Memory>> {
        self.0.taken.iter_mut().map(|taken| taken.as_mut().map(|(memory, _)| memory))
    }
}

impl ModuleMapper for Put {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(&position) = self.0.positions.get(&param.id) else { return param };
        let Some((memory, autodiff)) = self.0.taken[position].take() else { return param };
        let id = param.id;
        param.map(|_| autodiff.restore(Tensor::from_primitive::<Flex>(memory), id))
    }
}
