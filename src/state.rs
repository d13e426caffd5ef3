//! Moments that adamant owns.

mod owned;

use core::fmt;

use crate::{
    DynOptimizer, Error, Grad, Moment, MomentRef, Param, Storage, Tensor,
    array::{Float, Q8},
    optimizer::MomentLayout,
    rule::MOMENTS,
    table::RowScratch,
    tensor::{Names, Precision},
};
use owned::{Owned, Stagger};

/// The moments of one tensor or table, each in a [`Storage`] of its own, and the number of its steps, in memory
/// that adamant allocates.
///
/// Moments begin on cache lines. Large ones lie on huge pages if Linux has them. They begin at different
/// offsets within a page, since a CPU delays a load after a store at the same offset of another page.
///
/// [`Optimizer::state`](crate::Optimizer::state) makes the state of a tensor,
/// [`RowOptimizer::row_state`](crate::table::RowOptimizer::row_state) that of a table.
///
/// # Examples
///
/// Save and restore:
///
/// ```
/// use adamant::{Adam, Optimizer, Storage};
///
/// let adam = Adam::default();
/// let mut state = adam.state_in(Storage::Bf16, 2);
/// adam.step(&mut [1.0_f32, 2.0], &[0.5, -0.5], &mut state)?;
///
/// let mut restored = adam.state_in(Storage::Bf16, 2);
/// restored.set_steps(state.steps());
/// for (name, saved) in state.moments() {
///     restored.moment_mut(name).expect("the same moments").copy_from(saved)?;
/// }
/// assert!(restored.moments().eq(state.moments()));
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone)]
pub struct State {
    names: Names,
    formats: [Q8; MOMENTS],
    moments: [Owned; MOMENTS],
    /// The number of moments.
    count: usize,
    /// The number of parameters.
    len: usize,
    steps: u64,
    first: Option<u64>,
    scratch: RowScratch,
}

/// The parts of a state, to make a table of.
pub(crate) struct Parts<'a> {
    pub moments: [Moment<'a>; MOMENTS],
    /// The number of moments.
    pub count: usize,
    pub names: &'a Names,
    pub steps: &'a mut u64,
    pub first: Option<u64>,
    pub scratch: &'a mut RowScratch,
}

/// The description of a moment of a new state.
pub(crate) struct Plan {
    pub name: &'static str,
    pub format: Q8,
    /// The number of elements; 0 if the settings do not use the moment.
    pub len: usize,
    /// The value that all elements start from.
    pub start: f64,
    pub storage: Storage,
}

impl State {
    /// The state of a tensor before its first step.
    pub(crate) fn of_tensor(
        optimizer: &dyn DynOptimizer,
        storages: &[Storage],
        len: usize,
    ) -> Self {
        let plan = |moment| {
            let start = optimizer.moment_start(moment);
            Plan {
                name: optimizer.moment_name(moment),
                format: optimizer.moment_format(moment),
                len: if start.is_some() { len } else { 0 },
                start: start.unwrap_or(0.0),
                storage: storages.get(moment).copied().unwrap_or_default(),
            }
        };
        let mut state = Self::new(len, (0..optimizer.moment_count()).map(plan).collect());
        state.names.rule = Some(optimizer.moment_layout().rule);
        state
    }

    /// The state of `len` parameters, with these moments.
    pub(crate) fn new(len: usize, plans: Vec<Plan>) -> Self {
        let kept = plans.iter().filter(|plan| plan.len > 0).count();
        let mut state = Self {
            names: Names { rule: None, all: [""; MOMENTS] },
            formats: [Q8::Signed; MOMENTS],
            moments: [const { Owned::NONE }; MOMENTS],
            count: 0,
            len,
            steps: 0,
            first: None,
            scratch: RowScratch::default(),
        };
        let mut place = 0;
        for (position, plan) in plans.into_iter().enumerate() {
            if plan.len > 0 {
                place += 1;
            }
            let stagger = Stagger { place: if plan.len > 0 { place } else { 0 }, kept };
            let mut moment = Owned::zeros(plan.storage, plan.len, stagger);
            if plan.start != 0.0 {
                moment.get_mut().fill(plan.start, plan.format);
            }
            state.names.all[position] = plan.name;
            state.formats[position] = plan.format;
            state.moments[position] = moment;
            state.count = position + 1;
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

    /// The number of steps taken. Steps that were left out do not count.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Sets the number of steps taken, to restore a checkpoint.
    pub fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }

    /// The number of the tensor's first element among all elements of the model, if it was
    /// [set](Self::set_first).
    pub fn first(&self) -> Option<u64> {
        self.first
    }

    /// Sets the number of the tensor's first element, on which random bits depend: see
    /// [`Tensor::with_first`]. Without it, they depend on the position of the tensor in a call.
    pub fn set_first(&mut self, first: impl Into<Option<u64>>) {
        self.first = first.into();
    }

    /// The moments and their names, in the order of [`Rule::MOMENT_NAMES`](crate::rule::Rule::MOMENT_NAMES), without
    /// the moments that the settings do not use.
    pub fn moments(&self) -> impl Iterator<Item = (&'static str, MomentRef<'_>)> {
        let moments = self.names.all.iter().zip(&self.moments).take(self.count);
        moments.map(|(&name, moment)| (name, moment.get())).filter(|(_, moment)| !moment.is_empty())
    }

    /// The moment with this name, if there is one.
    pub fn moment(&self, name: &str) -> Option<MomentRef<'_>> {
        let position = self.position(name)?;
        Some(self.moments[position].get())
    }

    /// The moment with this name, to be written.
    pub fn moment_mut(&mut self, name: &str) -> Option<Moment<'_>> {
        let position = self.position(name)?;
        Some(self.moments[position].get_mut())
    }

    /// The moment with this name, converted to `f32`; `None` if there is no such moment, and only then.
    pub fn moment_to_f32(&self, name: &str) -> Option<Vec<f32>> {
        let position = self.position(name)?;
        // The lengths fit, since the arrays are the state's own.
        self.moments[position].get().to_f32(self.formats[position]).ok()
    }

    /// Sets the moment with this name from numbers in `f32`, rounded to nearest in the moment's storage.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownMoment`] for the name, [`Error::LengthMismatch`] for the number of values.
    pub fn set_moment_from_f32(&mut self, name: &str, values: &[f32]) -> Result<(), Error> {
        let Some(position) = self.position(name) else {
            let known = self.moments().map(|(name, _)| name).collect();
            return Err(Error::UnknownMoment { name: String::from(name), known });
        };
        let format = self.formats[position];
        self.moments[position].get_mut().set_f32(values, format)
    }

    fn position(&self, name: &str) -> Option<usize> {
        let position = self.names.all[..self.count].iter().position(|&known| known == name)?;
        (!self.moments[position].get().is_empty() || self.len == 0).then_some(position)
    }

    /// Makes a tensor with these moments, for one call. The call counts its step in this state.
    #[inline]
    pub fn tensor<'a>(
        &'a mut self,
        param: impl Into<Param<'a>>,
        grad: impl Into<Grad<'a>>,
    ) -> Tensor<'a> {
        let [a, b, c, d] = &mut self.moments;
        // Made in its place: to move a tensor takes as long as a step of some elements.
        Tensor {
            param: param.into(),
            grad: grad.into(),
            moments: [a.get_mut(), b.get_mut(), c.get_mut(), d.get_mut()],
            passed: self.count,
            names: Some(&self.names),
            steps: &mut self.steps,
            first: self.first,
            first_in_call: 0,
            precision_in_call: Precision::Mixed,
        }
    }

    /// The moments of a tensor of `len` elements, all in `F`, if the optimizer of the layout has made them and still
    /// uses the same ones.
    #[inline]
    pub(crate) fn moments_of<F: Float>(
        &mut self,
        layout: &MomentLayout,
        len: usize,
    ) -> Option<[&mut [F]; MOMENTS]> {
        if self.names.rule != Some(layout.rule) || self.len != len {
            return None;
        }
        let mut moments = [(); MOMENTS].map(|()| &mut [][..]);
        let places = moments.iter_mut().zip(&mut self.moments).zip(layout.used);
        for ((place, moment), is_used) in places.take(layout.count) {
            let moment = moment.get_mut();
            if moment.is_empty() == is_used {
                return None;
            }
            if !moment.is_empty() {
                *place = F::moment_mut_of(moment.0)?;
            }
        }
        Some(moments)
    }

    /// The moments, their names, the step count, and memory for sorting rows.
    pub(crate) fn parts_mut(&mut self) -> Parts<'_> {
        let mut moments = [(); MOMENTS].map(|()| Moment::none());
        for (place, moment) in moments.iter_mut().zip(&mut self.moments[..self.count]) {
            *place = moment.get_mut();
        }
        let Self { names, count, steps, first, scratch, .. } = self;
        Parts { moments, count: *count, names, steps, first: *first, scratch }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("State");
        fields.field("steps", &self.steps).field("first", &self.first);
        for (name, moment) in self.moments() {
            fields.field(name, &moment);
        }
        fields.finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::{Adam, DynOptimizer, NAdam, Optimizer, Sgd, Storage};

    #[test]
    fn small_steps_take_their_own_states_and_no_others() {
        let adam = Adam::default();
        let takes = |rule: &dyn DynOptimizer, made_by: &dyn DynOptimizer, storage, len| {
            let mut state = made_by.state_in(storage, 5);
            let found = state.moments_of::<f32>(&rule.moment_layout(), len);
            found.map(|moments| moments.map(|moment| moment.len()))
        };
        assert_eq!(takes(&adam, &adam, Storage::F32, 5), Some([5, 5, 0, 0]));
        assert_eq!(takes(&adam, &adam, Storage::F32, 4), None);
        assert_eq!(takes(&adam, &adam, Storage::Bf16, 5), None);
        assert_eq!(takes(&adam, &adam, Storage::F64, 5), None);
        assert_eq!(takes(&adam, &NAdam::default(), Storage::F32, 5), None);
        let (plain, momentum) = (Sgd::default(), Sgd { momentum: 0.9, ..Sgd::default() });
        assert_eq!(takes(&plain, &plain, Storage::F32, 5), Some([0; 4]));
        assert_eq!(takes(&momentum, &momentum, Storage::F32, 5), Some([5, 0, 0, 0]));
        assert_eq!(takes(&plain, &momentum, Storage::F32, 5), None);
        assert_eq!(takes(&plain, &momentum, Storage::Bf16, 5), None);
        assert_eq!(takes(&momentum, &plain, Storage::F32, 5), None);
    }
}
