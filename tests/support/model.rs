//! Groups of tensors of any rules, types and step counts, and one checker of calls that step all of them.

use std::rc::Rc;

use adamant::{
    DynOptimizer, Error, Grad, Group, Isa, Moment, Outcome, Param, Report, StepOptions, Tensor,
};

use super::{
    AnyRule, Columns, columns, exec,
    mixed::{MixedColumns, Types, assert_same_norm, check_norm, factor_of, needs_norm, outcome_of},
};

impl dyn AnyRule {
    pub fn optimizer(&self) -> &dyn DynOptimizer {
        self
    }

    /// A tensor of the rule, with numbers from a seed, in some types or in `f64`.
    pub fn tensor(&self, seed: u64, len: usize, steps: u64, types: Option<Types>) -> AnyTensor {
        let special = seed.is_multiple_of(5);
        let Some(types) = types else {
            let (columns, to_zero) = (columns(self, seed, len, special), seed.is_multiple_of(2));
            return AnyTensor::Double { columns, to_zero, steps };
        };
        let columns = columns(self, seed, len, special);
        let mut tensor = MixedColumns::new(self, &columns, types, seed << 20);
        tensor.steps = steps;
        AnyTensor::Mixed(tensor)
    }

    /// Takes the next step of a tensor with the reference.
    fn reference(&self, tensor: &mut AnyTensor, options: &StepOptions<'_>) {
        match tensor {
            AnyTensor::Mixed(columns) => columns.reference(self, options),
            AnyTensor::Double { columns, steps, .. } => {
                *steps += 1;
                let StepOptions { grad_factor, flush_subnormals, .. } = *options;
                columns.reference_with(self, *steps, grad_factor, flush_subnormals);
                tensor.zero_grad();
            }
        }
    }
}

/// A tensor of any types.
#[derive(Clone)]
#[allow(clippy::large_enum_variant, reason = "a test has a few of them")]
pub enum AnyTensor {
    /// Computed in `f32`.
    Mixed(MixedColumns),
    /// All `f64`.
    Double { columns: Columns<f64>, to_zero: bool, steps: u64 },
}

impl AnyTensor {
    pub fn tensor(&mut self) -> Tensor<'_> {
        match self {
            Self::Mixed(columns) => columns.tensor(),
            Self::Double { columns: Columns { param, grad, moments }, to_zero, steps } => {
                let grad = if *to_zero { Grad::zeroed(grad) } else { Grad::from(&*grad) };
                Tensor::new(Param::from(param), grad, steps)
                    .with_moments(moments.iter_mut().map(Moment::from))
            }
        }
    }

    pub fn steps(&self) -> u64 {
        match self {
            Self::Mixed(columns) => columns.steps,
            Self::Double { steps, .. } => *steps,
        }
    }

    fn grads(&self) -> Vec<f64> {
        match self {
            Self::Mixed(columns) => columns.grads().into_iter().map(f64::from).collect(),
            Self::Double { columns, .. } => columns.grad.clone(),
        }
    }

    fn zero_grad(&mut self) {
        if let Self::Double { columns, to_zero: true, .. } = self {
            columns.grad.fill(0.0);
        }
    }

    fn leave_out(&mut self, options: &StepOptions<'_>) {
        match self {
            Self::Mixed(columns) => columns.leave_out(options),
            Self::Double { .. } if !options.keep_grads => self.zero_grad(),
            Self::Double { .. } => {}
        }
    }

    #[track_caller]
    pub fn assert_same_bits(&self, expected: &Self, context: &dyn Fn() -> String) {
        assert_eq!(self.steps(), expected.steps(), "steps counted: {}", context());
        match (self, expected) {
            (Self::Mixed(found), Self::Mixed(expected)) => {
                found.assert_same_bits(expected, context);
                found.check_guards();
            }
            (Self::Double { columns, .. }, Self::Double { columns: expected, .. }) => {
                columns.assert_same_bits(expected, context);
            }
            _ => panic!("other types: {}", context()),
        }
    }
}

/// Groups of tensors.
#[derive(Clone)]
pub struct Model(pub Vec<(Rc<dyn AnyRule>, Vec<AnyTensor>)>);

impl Model {
    /// Takes a step of all groups in one call.
    pub fn step(&mut self, options: &StepOptions<'_>) -> Result<Report, Error> {
        let mut tensors: Vec<_> = (self.0.iter_mut())
            .map(|(rule, tensors)| {
                let tensors: Vec<_> = tensors.iter_mut().map(AnyTensor::tensor).collect();
                (rule.optimizer(), tensors)
            })
            .collect();
        let groups = tensors.iter_mut().map(|(optimizer, tensors)| Group::new(*optimizer, tensors));
        adamant::step(&mut groups.collect::<Vec<_>>(), options)
    }

    pub fn tensors(&self) -> impl Iterator<Item = &AnyTensor> + Clone {
        self.0.iter().flat_map(|(_, tensors)| tensors)
    }

    /// Takes some steps of all groups. Fails unless:
    ///
    /// - each step gives the bits of the reference for each tensor by itself, and writes nothing else;
    /// - a step that must be left out or refused changes nothing but gradients that are to be zeroed;
    /// - the norm of all gradients is right, and has the same bits everywhere.
    ///
    /// Returns the outcome of each step; `None` if it was refused.
    #[track_caller]
    pub fn check(&self, steps: usize, options: &StepOptions<'_>) -> Vec<Option<Outcome>> {
        let (mut found, mut expected) = (self.clone(), self.clone());
        let outcomes = (0..steps).map(|_| {
            let elsewhere = needs_norm(options).then(|| {
                let exec = exec(Isa::Scalar, false);
                found.clone().step(&StepOptions { exec, ..*options })
            });
            let report = found.step(options);
            if let (Some(elsewhere), Ok(report)) = (elsewhere, &report) {
                assert_same_norm(report, &elsewhere.expect("the same call"));
            }
            expected.follow(&report, options)
        });
        let outcomes: Vec<_> = outcomes.collect();
        for (group, ((rule, found), (_, expected))) in found.0.iter().zip(&expected.0).enumerate() {
            for (number, (found, expected)) in found.iter().zip(expected).enumerate() {
                found.assert_same_bits(expected, &|| {
                    format!("tensor {number} of group {group}, {rule:?}, {options:?}")
                });
            }
        }
        outcomes
    }

    /// Repeats with the reference what a call has done: a step, or none if the call left it out or was refused.
    /// Fails if the call had no reason for that, or reported another norm. Returns the outcome; `None` if the
    /// call was refused.
    #[track_caller]
    pub fn follow(
        &mut self,
        found: &Result<Report, Error>,
        options: &StepOptions<'_>,
    ) -> Option<Outcome> {
        let report = match found {
            Ok(report) => report,
            Err(error) => {
                // Clipping has made the factor too small.
                let is_like = matches!(error, Error::Option { name: "grad_factor", .. });
                assert!(is_like && options.max_norm.is_some(), "{error}");
                let factor = if let Error::Option { value, .. } = error { *value } else { 1.0 };
                assert!(!self.holds(factor), "{factor:e} is refused");
                return None;
            }
        };
        let grads: Vec<_> = self.tensors().flat_map(AnyTensor::grads).collect();
        check_norm(report, options, &grads);
        let factor = factor_of(options, report.grad_norm);
        assert_eq!(report.outcome, outcome_of(factor));
        if let Some(grad_factor) = factor {
            assert!(self.holds(grad_factor), "{grad_factor:e} is not refused");
        }
        for (rule, tensors) in &mut self.0 {
            for tensor in tensors {
                match factor {
                    Some(grad_factor) => {
                        rule.reference(tensor, &StepOptions { grad_factor, ..*options });
                    }
                    None => tensor.leave_out(options),
                }
            }
        }
        Some(report.outcome)
    }

    /// Whether the types of all steps can hold a factor.
    fn holds(&self, factor: f64) -> bool {
        self.tensors().all(|tensor| match tensor {
            AnyTensor::Mixed(_) => (factor as f32).is_normal(),
            AnyTensor::Double { .. } => factor.is_normal(),
        })
    }
}
