//! Steps of arrays.

use std::sync::Arc;

use adamant::{
    AnyOptimizer, DynOptimizer, Error, Group, Moment, Outcome, Q8, StepOptions, Tensor,
    rule::MOMENTS,
};
use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    intern,
    prelude::*,
    pybacked::PyBackedStr,
    types::{PyDict, PyString, PyTuple},
};

use super::{
    borrowed::{Array, Name, check_apart},
    with_exec,
};
use crate::{
    dlpack::Lender,
    error::exception,
    in_use::{InUse, Ranges},
    memory::Kind,
    settings,
};

/// A moment: one array, or codes and scales.
enum MomentArray<'py, 'n> {
    None,
    Plain(Array<'py, 'n>),
    Q8(Array<'py, 'n>, Array<'py, 'n>),
}

/// The arrays of a parameter.
struct ArrayTensor<'py, 'n> {
    param: Array<'py, 'n>,
    grad: Array<'py, 'n>,
    moments: Vec<MomentArray<'py, 'n>>,
    state: &'n Bound<'py, PyAny>,
}

/// `(name, param, grad, moments, state, bf16, is_numpy)`; `state` counts the steps; `bf16` says of param, grad
/// and each moment whether its `int16` are bfloat16, and `is_numpy` of param whether it is numpy's.
type Described<'py> = (
    PyBackedStr,
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    Vec<(PyBackedStr, Bound<'py, PyAny>)>,
    Bound<'py, PyAny>,
    Vec<bool>,
    bool,
);

impl<'py, 'n> ArrayTensor<'py, 'n> {
    fn of(lender: &Lender<'py>, described: &'n Described<'py>, zeroed: bool) -> PyResult<Self> {
        let (name, param, grad, moments, state, bf16, is_numpy) = described;
        let is_bf16 = |position: usize| bf16.get(position).copied().unwrap_or(false);
        let param = Array::write(lender, param, &**name)?.reinterpreted(is_bf16(0));
        param.expect_numbers()?;
        let grad_name = Name(["", "the gradient", name]);
        let grad = match zeroed {
            true => Array::write(lender, grad, grad_name)?,
            false => Array::read(lender, grad, grad_name)?,
        };
        let grad = grad.reinterpreted(is_bf16(1));
        grad.expect_numbers()?;
        grad.expect_order_of(&param)?;
        if grad.kind.is_complex() != param.kind.is_complex() {
            return Err(PyTypeError::new_err(format!(
                "{} is of {}, but the parameter is of {}",
                grad.name, grad.kind, param.kind
            )));
        }
        let moments = moments.iter().enumerate().map(|(position, (moment, array))| {
            if array.is_none() {
                return Ok(MomentArray::None);
            }
            if let Ok(pair) = array.cast::<PyTuple>() {
                let (codes, scales): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair.extract()?;
                let codes = Array::write(lender, &codes, Name(["codes", moment, name]))?;
                let scales = Array::write(lender, &scales, Name(["scales", moment, name]))?;
                codes.expect(Kind::U8, param.reals())?;
                codes.expect_moment_of(&param, *is_numpy)?;
                scales.expect(Kind::F32, Q8::scales(param.reals()))?;
                return Ok(MomentArray::Q8(codes, scales));
            }
            let array = Array::write(lender, array, Name(["", moment, name]))?;
            let array = array.reinterpreted(is_bf16(2 + position));
            array.expect_numbers()?;
            if array.reals() != param.reals() {
                let (name, len, expected) = (array.name, array.reals(), param.reals());
                return Err(PyValueError::new_err(format!(
                    "{name} has {len} numbers, not {expected}"
                )));
            }
            array.expect_moment_of(&param, *is_numpy)?;
            Ok(MomentArray::Plain(array))
        });
        let moments = moments.collect::<PyResult<Vec<_>>>()?;
        Ok(Self { param, grad, moments, state })
    }

    /// A number of the state: how many steps were taken, or where the random bits begin.
    fn number(&self, name: &Bound<'py, PyString>) -> PyResult<u64> {
        let value = self.state.getattr(name)?;
        value.extract().map_err(|_| {
            let param = self.param.name;
            PyValueError::new_err(format!(
                "{name} in the state of {param} is {value}, but must be a whole number from 0 to 2^64 - 1"
            ))
        })
    }

    fn written(&self) -> impl Iterator<Item = &Array<'py, 'n>> {
        let moments = self.moments.iter().flat_map(|moment| match moment {
            MomentArray::None => [None, None],
            MomentArray::Plain(array) => [Some(array), None],
            MomentArray::Q8(codes, scales) => [Some(codes), Some(scales)],
        });
        moments.flatten().chain([&self.param])
    }

    /// # Safety
    ///
    /// Nobody else uses the arrays for `'a`, for which they live.
    unsafe fn tensor<'a>(
        &self,
        steps: &'a mut u64,
        first: u64,
        is_stochastic: bool,
        zeroed: bool,
    ) -> Tensor<'a> {
        let mut moments = [const { None }; MOMENTS];
        // SAFETY: the caller's promise.
        unsafe {
            for (place, moment) in moments.iter_mut().zip(&self.moments) {
                *place = Some(match moment {
                    MomentArray::None => Moment::none(),
                    MomentArray::Plain(array) => array.moment(),
                    MomentArray::Q8(codes, scales) => Moment::q8(codes.numbers(), scales.numbers()),
                });
            }
            Tensor::new(self.param.param(is_stochastic), self.grad.grad(zeroed), steps)
                .with_moments(moments.into_iter().flatten())
                .with_first(first)
        }
    }
}

/// Steps arrays, and counts the step in their states. Whether it was taken, and the norm of the gradients if it
/// was needed.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "the caller is `numpy.py` alone")]
pub fn step_arrays(
    py: Python<'_>,
    optimizer: &str,
    settings: &Bound<'_, PyDict>,
    arrays: Vec<Described<'_>>,
    stochastic_rounding: bool,
    grad_factor: f64,
    max_grad_norm: Option<f64>,
    skip_nonfinite: bool,
    zero_grad: bool,
    threads: Option<usize>,
    isa: Option<&str>,
    seed: u64,
) -> PyResult<(bool, Option<f64>)> {
    let (optimizer, lender) = (optimizer_of(optimizer, settings)?, Lender::new(py)?);
    let arrays = arrays.iter().map(|described| ArrayTensor::of(&lender, described, zero_grad));
    let arrays = arrays.collect::<PyResult<Vec<_>>>()?;
    let grads = |zeroed| arrays.iter().filter(move |_| zeroed).map(|array| &array.grad);
    let written = || arrays.iter().flat_map(ArrayTensor::written).chain(grads(zero_grad));
    check_apart(written(), grads(!zero_grad))?;
    // Other threads may step the same arrays: their counts are read when nobody does.
    let ranges = (Arc::new(ranges_of(written())), ranges_of(grads(!zero_grad)));
    let _in_use = InUse::wait(py, ranges.0, ranges.1)?;
    let counts = |name| arrays.iter().map(move |array| array.number(name)).collect();
    let (step, first) = (intern!(py, "step"), intern!(py, "first"));
    let (mut steps, firsts): (Vec<u64>, PyResult<Vec<u64>>) = (counts(step)?, counts(first));

    let tensors = arrays.iter().zip(&mut steps).zip(firsts?).map(|((array, steps), first)| {
        // SAFETY: lent for as long as `arrays` live, apart, and in use by no other step; other code that uses
        // them meanwhile races.
        unsafe { array.tensor(steps, first, stochastic_rounding, zero_grad) }
    });
    let mut tensors: Vec<Tensor<'_>> = tensors.collect();
    let report = with_exec(py, threads, isa, |exec| {
        let options = StepOptions {
            exec,
            grad_factor,
            max_norm: max_grad_norm,
            skip_nonfinite,
            seed,
            ..StepOptions::default()
        };
        py.detach(|| adamant::step(&mut [Group::new(&optimizer, &mut tensors)], &options))
            .map_err(|error| named(error, &arrays))
    })?;
    drop(tensors);
    let is_taken = report.outcome == Outcome::Taken;
    if is_taken {
        for (array, steps) in arrays.iter().zip(steps) {
            array.state.setattr(step, steps)?;
        }
    }
    Ok((is_taken, report.grad_norm))
}

/// The exception for an error of a step. The core numbers tensors; here they have names.
fn named(error: Error, arrays: &[ArrayTensor<'_, '_>]) -> PyErr {
    let Error::TypeMismatch { tensor, argument, found, expected } = error else {
        return exception(error);
    };
    let Some(ArrayTensor { param, grad, .. }) = arrays.get(tensor) else { return exception(error) };
    PyTypeError::new_err(match argument {
        "grad" => format!(
            "{} is of {}, which does not go with a parameter of {}",
            grad.name, grad.kind, param.kind
        ),
        _ => {
            format!("{argument} of {} is of {found}, which does not go with {expected}", param.name)
        }
    })
}

fn ranges_of<'a, 'py: 'a, 'n: 'a>(arrays: impl Iterator<Item = &'a Array<'py, 'n>>) -> Ranges {
    let ranges = arrays.map(Array::range).enumerate();
    let mut ranges: Ranges =
        ranges.map(|(number, range)| (range.start, range.end, number)).collect();
    ranges.retain(|(start, end, _)| start < end);
    ranges.sort_unstable();
    ranges
}

fn optimizer_of(name: &str, settings: &Bound<'_, PyDict>) -> PyResult<AnyOptimizer> {
    let mut optimizer = AnyOptimizer::new(name).map_err(exception)?;
    for (setting, value) in settings.iter() {
        settings::set(&mut optimizer, setting.extract::<&str>()?, &value)?;
    }
    optimizer.check().map_err(exception)?;
    Ok(optimizer)
}

/// The settings of an optimizer with their defaults, and its moments: name, what each number starts from
/// (`None` if the settings do without it), and format of 8 bits.
#[pyfunction]
#[allow(clippy::type_complexity, reason = "a pair of lists, as Python reads it")]
pub fn describe<'py>(
    py: Python<'py>,
    optimizer: &str,
    settings: &Bound<'py, PyDict>,
) -> PyResult<(Bound<'py, PyDict>, Vec<(&'static str, Option<f64>, &'static str)>)> {
    let optimizer = optimizer_of(optimizer, settings)?;
    let found = PyDict::new(py);
    for setting in optimizer.settings() {
        match optimizer.get(setting.name).map_err(exception)? {
            adamant::settings::SettingValue::Number(value) => {
                found.set_item(setting.name, value)?
            }
            adamant::settings::SettingValue::Count(value) => found.set_item(setting.name, value)?,
            adamant::settings::SettingValue::Flag(value) => found.set_item(setting.name, value)?,
            adamant::settings::SettingValue::Choice(value) => {
                found.set_item(setting.name, value)?
            }
            _ => {}
        }
    }
    let moments = (0..optimizer.moment_count()).map(|moment| {
        let format = settings::format_name(optimizer.moment_format(moment));
        (optimizer.moment_name(moment), optimizer.moment_start(moment), format)
    });
    Ok((found, moments.collect()))
}
