//! The optimizer of a model's variables.

use std::{collections::HashMap, fmt};

use adamant::{AnyOptimizer, Optimizer as _, Report, State, StepOptions, Storage};
use candle_core::{DType, Var};
use candle_nn::VarMap;

use crate::{Error, memory};

/// Any optimizer of adamant, for the variables of a model. It is used as `candle_nn::AdamW` is.
///
/// A step takes all variables that have a gradient, in one call and one parallel region, in place. Each
/// variable has moments and a step count of its own, made when it first has a gradient.
///
/// Variables whose type is not a float are left out, as candle's own optimizers do.
///
/// # Examples
///
/// ```
/// use adamant_candle::{Adam, VarOptimizer};
/// use candle_core::{Device, Tensor, Var};
/// use candle_nn::Optimizer;
///
/// let w = Var::new(&[1.0_f32, -2.0], &Device::Cpu)?;
/// let mut optimizer = VarOptimizer::new(vec![w.clone()], Adam { lr: 0.1, ..Adam::adamw() })?;
/// for _ in 0..100 {
///     let loss = w.sqr()?.sum_all()?;
///     optimizer.backward_step(&loss)?;
/// }
/// assert!(w.sqr()?.sum_all()?.to_scalar::<f32>()? < 0.01);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Locks
///
/// A step holds the locks of all its variables while it writes them, so that other threads see all of a step
/// or nothing. It waits for a lock only while it holds none, and so cannot block a thread that reads
/// several variables at once. A thread that keeps a guard of a variable (`storage_and_layout`) and takes a
/// step waits for ever, as with `Var::set`.
pub struct VarOptimizer {
    /// The options of a step: clipping, a factor of all gradients, threads, the seed.
    pub options: StepOptions<'static>,
    /// Whether variables in BF16 are rounded at random, so that no update is lost on average; to nearest if
    /// not. Default false.
    pub stochastic: bool,
    pub(crate) groups: Vec<AnyOptimizer>,
    /// In the order of their groups.
    pub(crate) params: Vec<Parameter>,
    /// Whether the names are the caller's.
    pub(crate) named: bool,
    /// The storage of moments; `None` is F64 for variables in F64 and F32 for all others.
    pub(crate) moments: Option<Storage>,
    pub(crate) report: Option<Report>,
}

/// A variable and its state.
pub(crate) struct Parameter {
    pub name: String,
    pub var: Var,
    pub group: usize,
    /// `None` before the first gradient.
    pub state: Option<State>,
    /// The number of its first element among all elements of the model. Random bits depend on it.
    pub first: u64,
    /// The address of its storage.
    pub address: usize,
}

impl VarOptimizer {
    /// Makes an optimizer of variables without names. Their names are their positions: `"0"`, `"1"`, and so on.
    ///
    /// The order of [`VarMap::all_vars`] differs from run to run. So use [`from_var_map`](Self::from_var_map) to
    /// save and load, to make groups by name, or to get the same random bits in every run.
    ///
    /// # Errors
    ///
    /// [`Error::Device`], [`Error::DType`], [`Error::NotContiguous`], [`Error::View`] or [`Error::Shared`]
    /// for a variable, [`Error::Step`] for a setting.
    pub fn new(vars: Vec<Var>, optimizer: impl Into<AnyOptimizer>) -> Result<Self, Error> {
        let vars = vars.into_iter().enumerate().map(|(number, var)| (number.to_string(), var));
        let named = Self::from_named(vars, optimizer)?;
        Ok(Self { named: false, ..named })
    }

    /// Makes an optimizer of all variables of a map, in the order of their names.
    ///
    /// Add variables that the map gets later with [`push`](Self::push).
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn from_var_map(map: &VarMap, optimizer: impl Into<AnyOptimizer>) -> Result<Self, Error> {
        let vars = map.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut vars: Vec<_> = vars.iter().map(|(name, var)| (name.clone(), var.clone())).collect();
        vars.sort_by(|(a, _), (b, _)| a.cmp(b));
        Self::from_named(vars, optimizer)
    }

    /// Makes an optimizer of variables with names.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), and [`Error::DuplicateName`].
    pub fn from_named(
        vars: impl IntoIterator<Item = (String, Var)>,
        optimizer: impl Into<AnyOptimizer>,
    ) -> Result<Self, Error> {
        let mut made = Self {
            options: StepOptions::default(),
            stochastic: false,
            groups: vec![checked(optimizer.into())?],
            params: vec![],
            named: true,
            moments: None,
            report: None,
        };
        made.extend(vars, 0)?;
        Ok(made)
    }

    /// Adds a variable to a group.
    ///
    /// # Errors
    ///
    /// As [`from_named`](Self::from_named), [`Error::UnknownGroup`] for the group, and those of
    /// [`with_moments`](Self::with_moments).
    pub fn push(&mut self, name: impl Into<String>, var: &Var, group: usize) -> Result<(), Error> {
        self.extend([(name.into(), var.clone())], group)
    }

    fn extend(
        &mut self,
        vars: impl IntoIterator<Item = (String, Var)>,
        group: usize,
    ) -> Result<(), Error> {
        let groups = self.groups.len();
        if group >= groups {
            return Err(Error::UnknownGroup { group, groups });
        }
        let mut names: HashMap<_, _> =
            self.params.iter().map(|param| (param.name.clone(), param.address)).collect();
        let mut addresses: HashMap<_, _> =
            self.params.iter().map(|param| (param.address, param.name.clone())).collect();
        // A file that was loaded may have other numbers than the positions here.
        let ends = self.params.iter().map(|param| param.first.saturating_add(elements(&param.var)));
        let mut first = ends.max().unwrap_or(0);
        let mut added = vec![];
        for (name, var) in vars.into_iter().filter(|(_, var)| var.dtype().is_float()) {
            memory::check_variable(&name, &var)?;
            check_moments(self.moments, &name, &var)?;
            let address = memory::address(&var);
            if let Some(first) = addresses.insert(address, name.clone()) {
                return Err(Error::Shared { first, second: name });
            }
            if names.insert(name.clone(), address).is_some() {
                return Err(Error::DuplicateName { name });
            }
            let next = first.saturating_add(elements(&var));
            added.push(Parameter { name, var, group, state: None, first, address });
            first = next;
        }
        self.params.extend(added);
        self.params.sort_by_key(|param| param.group);
        Ok(())
    }

    /// Sets the storage of moments: `F32`, `Bf16`, `F16`, or `Q8`, which is 8 bits an element. Call it before
    /// the first step.
    ///
    /// Without it, moments are in F32, and in F64 for variables in F64.
    ///
    /// # Errors
    ///
    /// [`Error::MomentsOfF64`] or [`Error::MomentsInF64`] if one of variable and moments is F64 and the other
    /// is not; [`Error::Started`] after a step.
    pub fn with_moments(mut self, storage: Storage) -> Result<Self, Error> {
        for Parameter { name, var, state, .. } in &mut self.params {
            check_moments(Some(storage), name, var)?;
            // A step that was refused or left out has made the moments, but has not changed them.
            match state.take().map_or(0, |state| state.steps()) {
                0 => {}
                steps => return Err(Error::Started { name: name.clone(), steps }),
            }
        }
        self.moments = Some(storage);
        Ok(self)
    }

    /// Moves the variables for which `matches` is true to a new group with an optimizer of its own, and
    /// returns the group's number: PyTorch's `param_groups`. Group 0 is that of the others.
    ///
    /// Moments and step counts stay with their variables. So add a group of another kind of optimizer before
    /// the first step; otherwise, the next step is refused.
    ///
    /// # Examples
    ///
    /// Weight decay for matrices alone:
    ///
    /// ```
    /// # use adamant_candle::{Adam, VarOptimizer};
    /// # use candle_core::{DType, Device};
    /// # let map = candle_nn::VarMap::new();
    /// # let weights = candle_nn::VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
    /// # candle_nn::linear(3, 2, weights)?;
    /// let adamw = Adam { lr: 3e-4, ..Adam::adamw() };
    /// let mut optimizer = VarOptimizer::from_var_map(&map, adamw)?;
    /// let no_decay = Adam { weight_decay: 0.0, ..adamw };
    /// optimizer.add_group(no_decay, |name, var| name.ends_with("bias") || var.rank() < 2)?;
    /// # assert_eq!(optimizer.group_of("bias"), Some(1));
    /// # assert_eq!(optimizer.group_of("weight"), Some(0));
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::EmptyGroup`] if there is no such variable, [`Error::Step`] for a setting.
    pub fn add_group(
        &mut self,
        optimizer: impl Into<AnyOptimizer>,
        mut matches: impl FnMut(&str, &Var) -> bool,
    ) -> Result<usize, Error> {
        let optimizer = checked(optimizer.into())?;
        let chosen: Vec<_> =
            self.params.iter().map(|param| matches(&param.name, &param.var)).collect();
        if !chosen.contains(&true) {
            return Err(Error::EmptyGroup { variables: chosen.len() });
        }
        let group = self.groups.len();
        self.groups.push(optimizer);
        for (param, chosen) in self.params.iter_mut().zip(chosen) {
            if chosen {
                param.group = group;
            }
        }
        self.params.sort_by_key(|param| param.group);
        Ok(group)
    }

    /// The optimizers of the groups.
    pub fn groups(&self) -> &[AnyOptimizer] {
        &self.groups
    }

    /// The optimizers of the groups, to change their settings between steps.
    pub fn groups_mut(&mut self) -> &mut [AnyOptimizer] {
        &mut self.groups
    }

    /// The names of the variables, in the order of their groups.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.params.iter().map(|param| &*param.name)
    }

    /// The number of the group that a variable is in.
    pub fn group_of(&self, name: &str) -> Option<usize> {
        self.params.iter().find(|param| param.name == name).map(|param| param.group)
    }

    /// The moments and the step count of a variable; `None` before its first gradient.
    pub fn state(&self, name: &str) -> Option<&State> {
        self.params.iter().find(|param| param.name == name).and_then(|param| param.state.as_ref())
    }

    /// The result of the last step: whether it was taken, and the norm of the gradients if it was computed.
    pub fn last_report(&self) -> Option<Report> {
        self.report
    }

    /// The moments of a variable before its first step.
    pub(crate) fn new_state(&self, param: &Parameter) -> State {
        new_state(&self.groups[param.group], self.moments, &param.var, param.first)
    }
}

impl fmt::Debug for VarOptimizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VarOptimizer")
            .field("groups", &self.groups)
            .field("variables", &self.names().collect::<Vec<_>>())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// The moments of a variable before its first step. Without a storage, they are in F64 for a variable in
/// F64 and in F32 for all others.
pub(crate) fn new_state(
    optimizer: &AnyOptimizer,
    storage: Option<Storage>,
    var: &Var,
    first: u64,
) -> State {
    let storage = storage.unwrap_or(match var.dtype() {
        DType::F64 => Storage::F64,
        _ => Storage::F32,
    });
    let mut state = optimizer.state_in(storage, var.elem_count());
    state.set_first(first);
    state
}

fn elements(var: &Var) -> u64 {
    var.elem_count() as u64
}

fn checked(optimizer: AnyOptimizer) -> Result<AnyOptimizer, Error> {
    match optimizer.check() {
        Ok(()) => Ok(optimizer),
        Err(error) => Err(Error::Step { name: None, error }),
    }
}

/// Fails if a variable cannot have moments in `storage`.
fn check_moments(storage: Option<Storage>, name: &str, var: &Var) -> Result<(), Error> {
    match (storage, var.dtype()) {
        (None, _) | (Some(Storage::F64), DType::F64) => Ok(()),
        (Some(storage), DType::F64) => Err(Error::MomentsOfF64 { name: name.into(), storage }),
        (Some(Storage::F64), dtype) => Err(Error::MomentsInF64 { name: name.into(), dtype }),
        _ => Ok(()),
    }
}
