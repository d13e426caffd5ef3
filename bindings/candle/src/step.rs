//! The step of all variables, and candle's interface.

use std::collections::HashMap;

use adamant::{AnyOptimizer, Group, Report, StepOptions, settings::SettingValue};
use candle_core::{Tensor, Var, backprop::GradStore};

use crate::{
    Error, VarOptimizer, memory,
    optimizer::{Parameter, new_state},
};

impl VarOptimizer {
    /// Takes a step with these options instead of [`options`](Self::options). They can borrow a pool of
    /// threads, or have a norm that is already known.
    ///
    /// # Errors
    ///
    /// [`Error::GradShape`], [`Error::SharedGrad`], [`Error::Device`] or [`Error::DType`] for a gradient,
    /// [`Error::Step`] for settings, options and types that do not go together.
    pub fn step_with(
        &mut self,
        grads: &GradStore,
        options: &StepOptions<'_>,
    ) -> Result<Report, Error> {
        let mut names = Vec::with_capacity(self.params.len());
        let mut states = Vec::with_capacity(self.params.len());
        let mut vars: Vec<&Tensor> = Vec::with_capacity(self.params.len());
        let mut var_grads = Vec::with_capacity(self.params.len());
        let mut addresses = HashMap::with_capacity(self.params.len());
        let mut counts = vec![0; self.groups.len()];
        for Parameter { name, var, group, state, first, address } in &mut self.params {
            addresses.insert(*address, &**name);
            let Some(grad) = grads.get(var) else { continue };
            var_grads.push(memory::check_grad(name, var, grad)?);
            let optimizer = &self.groups[*group];
            states
                .push(state.get_or_insert_with(|| new_state(optimizer, self.moments, var, *first)));
            names.push(&**name);
            vars.push(var);
            counts[*group] += 1;
        }
        for (name, grad) in names.iter().zip(&var_grads) {
            if let Some(&variable) = addresses.get(&memory::address(grad)) {
                let (name, variable) = (String::from(*name), variable.into());
                return Err(Error::SharedGrad { name, variable });
            }
        }

        let (mut storages, grad_storages) = memory::lock(&vars, &var_grads);
        let mut tensors = Vec::with_capacity(states.len());
        for (((state, storage), grad_storage), grad) in
            states.into_iter().zip(&mut storages).zip(&grad_storages).zip(&var_grads)
        {
            let start = grad.layout().start_offset();
            let grad = memory::grad(grad_storage, start..start + grad.elem_count());
            tensors.push(state.tensor(memory::param(storage, self.stochastic), grad));
        }
        let mut rest = &mut *tensors;
        let mut groups = Vec::with_capacity(self.groups.len());
        for (optimizer, count) in self.groups.iter().zip(counts) {
            let (tensors, others) = rest.split_at_mut(count);
            groups.push(Group::new(optimizer, tensors));
            rest = others;
        }
        let report =
            adamant::step(&mut groups, options).map_err(|error| Error::of_step(error, &names))?;
        self.report = Some(report);
        Ok(report)
    }
}

/// Candle's interface. `learning_rate` is that of group 0, and `set_learning_rate` sets that of every group. To
/// set the rate of one group, use [`groups_mut`](VarOptimizer::groups_mut). A rate that is out of its range is
/// refused by the next step.
impl candle_nn::Optimizer for VarOptimizer {
    type Config = AnyOptimizer;

    fn new(vars: Vec<Var>, optimizer: AnyOptimizer) -> candle_core::Result<Self> {
        Ok(Self::new(vars, optimizer)?)
    }

    fn step(&mut self, grads: &GradStore) -> candle_core::Result<()> {
        let options = self.options;
        // The report is kept.
        let _ = self.step_with(grads, &options)?;
        Ok(())
    }

    fn learning_rate(&self) -> f64 {
        match self.groups[0].get("lr") {
            Ok(SettingValue::Number(lr)) => lr,
            // Every optimizer has one.
            _ => f64::NAN,
        }
    }

    fn set_learning_rate(&mut self, lr: f64) {
        for group in &mut self.groups {
            // Cannot fail: every optimizer has one, and it is a number.
            let _ = group.set("lr", lr);
        }
    }
}
