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
    borrowed::{Array, Name, Named, check_apart},
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
    /// It counts the steps.
    state: Bound<'py, PyAny>,
}

/// What all arrays of a call are looked at with.
struct Look<'py, 'n> {
    lender: Lender<'py>,
    /// The names of the moments, and whether the settings use them.
    moments: &'n [(Bound<'py, PyString>, bool)],
    /// Copies the gradient of an array of numpy's into the order of that array, and refuses other shapes: a function of
    /// the gradient, the parameter and its name.
    in_order: Bound<'py, PyAny>,
    zeroed: bool,
}

impl<'py, 'n> Look<'py, 'n> {
    fn tensor(
        &self,
        name: Named<'n>,
        param: &Bound<'py, PyAny>,
        grad: &Bound<'py, PyAny>,
        state: Bound<'py, PyAny>,
    ) -> PyResult<ArrayTensor<'py, 'n>> {
        let is_numpy = self.lender.is_numpy(param)?;
        let param_object = param;
        let param = Array::write(&self.lender, param, name)?;
        param.expect_numbers()?;
        let grad = match is_numpy && !self.zeroed && self.lender.is_numpy(grad)? {
            true => self.grad_in_order(grad, param_object, &param)?,
            false => self.grad(grad, name)?,
        };
        grad.expect_numbers()?;
        grad.expect_order_of(&param)?;
        if grad.kind.is_complex() != param.kind.is_complex() {
            return Err(PyTypeError::new_err(format!(
                "{} is of {}, but the parameter is of {}",
                grad.name, grad.kind, param.kind
            )));
        }
        let arrays = state.getattr(intern!(state.py(), "moments"))?;
        let moments = self.moments.iter().map(|(moment, is_used)| {
            self.moment(&arrays, moment, *is_used, &param, name, is_numpy)
        });
        let moments = moments.collect::<PyResult<Vec<_>>>()?;
        Ok(ArrayTensor { param, grad, moments, state })
    }

    fn grad(&self, grad: &Bound<'py, PyAny>, name: Named<'n>) -> PyResult<Array<'py, 'n>> {
        let name = Name { what: ["", "the gradient"], array: name };
        match self.zeroed {
            true => Array::write(&self.lender, grad, name),
            false => Array::read(&self.lender, grad, name),
        }
    }

    /// A gradient of numpy's in the order of its parameter: itself, or a copy.
    fn grad_in_order(
        &self,
        grad: &Bound<'py, PyAny>,
        param: &Bound<'py, PyAny>,
        borrowed: &Array<'py, 'n>,
    ) -> PyResult<Array<'py, 'n>> {
        let name = borrowed.name.array;
        if let Ok(found) = self.grad(grad, name)
            && found.has_order_of(borrowed)
        {
            return Ok(found);
        }
        let copy = self.in_order.call1((grad, param, name.to_string()))?;
        self.grad(&copy, name)
    }

    fn moment(
        &self,
        arrays: &Bound<'py, PyAny>,
        moment: &'n Bound<'py, PyString>,
        is_used: bool,
        param: &Array<'py, 'n>,
        array: Named<'n>,
        is_numpy: bool,
    ) -> PyResult<MomentArray<'py, 'n>> {
        let found = match arrays.cast::<PyDict>() {
            Ok(arrays) => arrays.get_item(moment)?,
            Err(_) => Some(arrays.call_method1(intern!(arrays.py(), "get"), (moment,))?),
        };
        let found = found.filter(|found| !found.is_none());
        if found.is_some() != is_used {
            let what = match is_used {
                true => "is missing",
                false => "is there, but these settings do not use it",
            };
            return Err(PyValueError::new_err(format!(
                "{moment} of {array} {what}: make new states with init"
            )));
        }
        let Some(found) = found else { return Ok(MomentArray::None) };
        let moment = moment.to_str()?;
        if let Ok(pair) = found.cast::<PyTuple>() {
            let (codes, scales): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair.extract()?;
            let name = |part| Name { what: [part, moment], array };
            let codes = Array::write(&self.lender, &codes, name("codes"))?;
            let scales = Array::write(&self.lender, &scales, name("scales"))?;
            codes.expect(Kind::U8, param.reals())?;
            codes.expect_moment_of(param, is_numpy)?;
            scales.expect(Kind::F32, Q8::scales(param.reals()))?;
            return Ok(MomentArray::Q8(codes, scales));
        }
        let found = Array::write(&self.lender, &found, Name { what: ["", moment], array })?;
        found.expect_numbers()?;
        if found.reals() != param.reals() {
            let (name, len, expected) = (found.name, found.reals(), param.reals());
            return Err(PyValueError::new_err(format!("{name} has {len} numbers, not {expected}")));
        }
        found.expect_moment_of(param, is_numpy)?;
        Ok(MomentArray::Plain(found))
    }
}

impl<'py, 'n> ArrayTensor<'py, 'n> {
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
///
/// `params`, `grads` and `states` are as long as each other, and so are `names`, without which the arrays are
/// `params[0]` and so on. A gradient of `None` leaves its parameter alone. `moments` and `in_order` are those of
/// [`Look`].
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "the caller is `numpy.py` alone")]
pub fn step_arrays<'py>(
    py: Python<'py>,
    optimizer: &str,
    settings: &Bound<'py, PyDict>,
    names: Option<Vec<PyBackedStr>>,
    params: &Bound<'py, PyAny>,
    grads: &Bound<'py, PyAny>,
    states: &Bound<'py, PyAny>,
    moments: Vec<(Bound<'py, PyString>, bool)>,
    in_order: Bound<'py, PyAny>,
    stochastic_rounding: bool,
    grad_factor: f64,
    max_grad_norm: Option<f64>,
    skip_nonfinite: bool,
    zero_grad: bool,
    threads: Option<usize>,
    isa: Option<&str>,
    seed: u64,
) -> PyResult<(bool, Option<f64>)> {
    let optimizer = optimizer_of(optimizer, settings)?;
    let (lender, zeroed) = (Lender::new(py)?, zero_grad);
    let look = Look { lender, moments: &moments, in_order, zeroed };
    let all = params.try_iter()?.zip(grads.try_iter()?).zip(states.try_iter()?);
    let mut arrays = Vec::with_capacity(params.len()?);
    for (place, ((param, grad), state)) in all.enumerate() {
        let (param, grad, state) = (param?, grad?, state?);
        let name = names.as_ref().and_then(|names| names.get(place));
        let name = name.map_or(Named::Param(place), |name| Named::As(name));
        if !grad.is_none() {
            arrays.push(look.tensor(name, &param, &grad, state)?);
        }
    }
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
