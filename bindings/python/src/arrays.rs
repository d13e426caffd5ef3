//! Functions on arrays of any framework: numpy, PyTorch, JAX, whatever lends its memory by `__dlpack__`.

use core::slice;

use adamant::{
    AnyOptimizer, DynOptimizer, Element, Exec, Grad, Group, Isa, MOMENTS, Moment, NormOrder,
    Outcome, Param, Q8, StepOptions, Tensor, Threads,
};
use half::{bf16, f16};
use pyo3::{
    exceptions::{PyBufferError, PyTypeError, PyValueError},
    prelude::*,
    types::{PyDict, PyTuple},
};

use crate::{
    dlpack::Lent,
    error::exception,
    memory::{Facts, Kind, Seen},
    settings, threads,
};

/// An array whose elements fill their memory, in whatever order.
pub struct Array<'py> {
    lent: Lent<'py>,
    name: String,
    pub kind: Kind,
    /// The number of elements.
    pub len: usize,
    facts: Facts,
}

impl<'py> Array<'py> {
    /// Borrows an array to read it.
    pub fn read(object: &Bound<'py, PyAny>, name: impl Into<String>) -> PyResult<Self> {
        let name = name.into();
        let lent = Lent::of(object).map_err(|error| {
            let py = object.py();
            let new = PyTypeError::new_err(format!("{name} cannot lend its memory: {error}"));
            new.set_cause(py, Some(error));
            new
        })?;
        // SAFETY: lent, and alive while `lent` is.
        let seen = unsafe { Seen::new(&lent.tensor) };
        if !seen.is_cpu {
            return Err(PyValueError::new_err(format!("{name} is not on the CPU")));
        }
        if !seen.is_dense() {
            let (shape, strides) = (seen.shape, seen.strides);
            return Err(PyValueError::new_err(format!(
                "{name} does not fill its memory without gaps or overlaps (shape {shape:?}, strides \
                 {strides:?})"
            )));
        }
        if seen.is_freed() {
            return Err(PyValueError::new_err(format!("{name} has no memory")));
        }
        let (kind, len) = (seen.kind, seen.len());
        if kind == Kind::Other {
            return Err(PyTypeError::new_err(format!("{name} is of a type that is not supported")));
        }
        let facts = Facts::of(&seen);
        Ok(Self { lent, name, kind, len, facts })
    }

    /// Borrows an array to write it.
    pub fn write(object: &Bound<'py, PyAny>, name: impl Into<String>) -> PyResult<Self> {
        let array = Self::read(object, name)?;
        if array.lent.is_read_only {
            return Err(PyBufferError::new_err(format!("{} is read-only", array.name)));
        }
        Ok(array)
    }

    fn expect(&self, kind: Kind, len: usize) -> PyResult<()> {
        if self.kind != kind {
            let (name, found) = (&self.name, self.kind);
            return Err(PyTypeError::new_err(format!("{name} is of {found:?}, not of {kind:?}")));
        }
        if self.len != len {
            let (name, found) = (&self.name, self.len);
            return Err(PyValueError::new_err(format!("{name} has {found} elements, not {len}")));
        }
        Ok(())
    }

    /// The elements.
    ///
    /// # Safety
    ///
    /// They are of `T`, and nobody writes them while the result lives.
    pub unsafe fn elements<T>(&self) -> &[T] {
        let data = self.data();
        match self.len {
            0 => &[],
            // SAFETY: dense and alive; the caller's promise.
            len => unsafe { slice::from_raw_parts(data as *const T, len) },
        }
    }

    /// The elements.
    ///
    /// # Safety
    ///
    /// They are of `T`, and nobody else uses them while the result lives.
    pub unsafe fn elements_mut<T>(&mut self) -> &mut [T] {
        let data = self.data();
        match self.len {
            0 => &mut [],
            // SAFETY: dense and alive; the caller's promise.
            len => unsafe { slice::from_raw_parts_mut(data as *mut T, len) },
        }
    }

    pub fn data(&self) -> usize {
        self.lent.tensor.data.wrapping_byte_add(self.lent.tensor.byte_offset as usize) as usize
    }

    /// The memory, from its first byte to the one after its last.
    pub fn range(&self) -> core::ops::Range<usize> {
        self.data()..self.data() + self.len * self.kind.bytes()
    }
}

/// Refuses arrays that are written and share memory with another one.
pub fn check_apart(written: &[&Array<'_>], read: &[&Array<'_>]) -> PyResult<()> {
    for (number, one) in written.iter().enumerate() {
        for other in written[number + 1..].iter().chain(read) {
            let (a, b) = (one.range(), other.range());
            if a.start < b.end && b.start < a.end {
                let (one, other) = (&one.name, &other.name);
                return Err(PyValueError::new_err(format!("{one} and {other} share memory")));
            }
        }
    }
    Ok(())
}

fn format_of(name: &str) -> PyResult<Q8> {
    match name {
        "signed" => Ok(Q8::Signed),
        "squares" => Ok(Q8::Squares),
        "unsigned" => Ok(Q8::Unsigned),
        _ => Err(PyValueError::new_err(format!(
            "format is {name:?}, but must be signed, squares or unsigned"
        ))),
    }
}

/// Turns numbers into codes of 8 bits and a scale for each 256 of them.
#[pyfunction]
pub fn q8_encode(
    py: Python<'_>,
    format: &str,
    values: &Bound<'_, PyAny>,
    codes: &Bound<'_, PyAny>,
    scales: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let format = format_of(format)?;
    let values = Array::read(values, "values")?;
    let mut codes = Array::write(codes, "codes")?;
    let mut scales = Array::write(scales, "scales")?;
    values.expect(Kind::F32, values.len)?;
    codes.expect(Kind::U8, values.len)?;
    scales.expect(Kind::F32, Q8::scales(values.len))?;
    check_apart(&[&codes, &scales], &[&values])?;
    // SAFETY: of these types, and apart; Python code that uses them meanwhile races.
    let (values, codes, scales) =
        unsafe { (values.elements(), codes.elements_mut(), scales.elements_mut()) };
    py.detach(|| format.encode(values, codes, scales)).map_err(exception)
}

/// Turns codes of 8 bits and a scale for each 256 of them into numbers.
#[pyfunction]
pub fn q8_decode(
    py: Python<'_>,
    format: &str,
    codes: &Bound<'_, PyAny>,
    scales: &Bound<'_, PyAny>,
    values: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let format = format_of(format)?;
    let codes = Array::read(codes, "codes")?;
    let scales = Array::read(scales, "scales")?;
    let mut values = Array::write(values, "values")?;
    codes.expect(Kind::U8, values.len)?;
    scales.expect(Kind::F32, Q8::scales(values.len))?;
    values.expect(Kind::F32, values.len)?;
    check_apart(&[&values], &[&codes, &scales])?;
    // SAFETY: of these types, and apart; Python code that uses them meanwhile races.
    let (codes, scales, values) =
        unsafe { (codes.elements(), scales.elements(), values.elements_mut()) };
    py.detach(|| format.decode(codes, scales, values)).map_err(exception)
}

impl<'py> Array<'py> {
    /// As an array of bfloat16, which frameworks without that type pass as `int16`.
    fn reinterpreted(mut self, is_bf16: bool) -> Self {
        if is_bf16 && self.lent.tensor.dtype.bits == 16 {
            self.kind = Kind::Bf16;
        }
        self
    }

    /// The number of numbers: two for each complex element.
    fn reals(&self) -> usize {
        self.len * self.kind.reals()
    }

    /// Refuses an array whose elements do not stand in the order of another one's.
    fn expect_order_of(&self, other: &Self) -> PyResult<()> {
        self.expect_order(&other.name, &other.facts, true)
    }

    /// Refuses a moment of another shape than its parameter's, where complex numbers may be pairs, or of
    /// another order. Of parameters that are not numpy's, `numpy.py` does not see the order: their moments
    /// have that of C.
    fn expect_moment_of(&self, param: &Self, is_numpy: bool) -> PyResult<()> {
        match param.kind.is_complex() && !self.kind.is_complex() {
            true => self.expect_order(&param.name, &param.facts.as_pairs(), is_numpy),
            false => self.expect_order(&param.name, &param.facts, is_numpy),
        }
    }

    fn expect_order(&self, name: &str, expected: &Facts, has_strides: bool) -> PyResult<()> {
        let own = &self.facts;
        let fits = match has_strides {
            true => own.is_ordered_like(expected),
            false => own.shape() == expected.shape(),
        };
        if fits {
            return Ok(());
        }
        Err(PyValueError::new_err(format!(
            "{} has shape {:?} and strides {:?}, but {name} has {:?} and {:?}",
            self.name,
            own.shape(),
            own.strides(),
            expected.shape(),
            expected.strides(),
        )))
    }

    /// The numbers.
    ///
    /// # Safety
    ///
    /// They are of `T`, and nobody else uses them for `'a`, for which they live.
    unsafe fn numbers<'a, T>(&self) -> &'a mut [T] {
        match self.reals() {
            0 => &mut [],
            // SAFETY: dense; the caller's promise.
            len => unsafe { slice::from_raw_parts_mut(self.data() as *mut T, len) },
        }
    }

    /// # Safety
    ///
    /// Nobody else uses the array for `'a`, for which it lives; here and below.
    unsafe fn param<'a>(&self, stochastic: bool) -> Param<'a> {
        // SAFETY: the caller's promise, here and below; the types are those that were found.
        unsafe {
            match self.kind.real() {
                Kind::F64 => self.numbers::<f64>().into(),
                Kind::Bf16 if stochastic => Param::stochastic(self.numbers()),
                Kind::Bf16 => self.numbers::<bf16>().into(),
                Kind::F16 => self.numbers::<f16>().into(),
                _ => self.numbers::<f32>().into(),
            }
        }
    }

    unsafe fn grad<'a>(&self, zeroed: bool) -> Grad<'a> {
        unsafe fn of<'a, E: Element>(array: &Array<'_>, zeroed: bool) -> Grad<'a> {
            // SAFETY: as above; one that is only read may be shared with others who read it.
            unsafe {
                match (zeroed, array.reals()) {
                    (true, _) => Grad::zeroed(array.numbers::<E>()),
                    (false, 0) => E::grad(&[]),
                    (false, len) => E::grad(slice::from_raw_parts(array.data() as *const E, len)),
                }
            }
        }
        // SAFETY: as above.
        unsafe {
            match self.kind.real() {
                Kind::F64 => of::<f64>(self, zeroed),
                Kind::Bf16 => of::<bf16>(self, zeroed),
                Kind::F16 => of::<f16>(self, zeroed),
                _ => of::<f32>(self, zeroed),
            }
        }
    }

    unsafe fn moment<'a>(&self) -> Moment<'a> {
        // SAFETY: as above.
        unsafe {
            match self.kind.real() {
                Kind::F64 => self.numbers::<f64>().into(),
                Kind::Bf16 => self.numbers::<bf16>().into(),
                Kind::F16 => self.numbers::<f16>().into(),
                _ => self.numbers::<f32>().into(),
            }
        }
    }

    fn expect_numbers(&self) -> PyResult<()> {
        match self.kind.is_float() || self.kind.is_complex() {
            true => Ok(()),
            false => Err(PyTypeError::new_err(format!(
                "{} is of {:?}, but must be of float32, float64, bfloat16, float16 or complex",
                self.name, self.kind
            ))),
        }
    }
}

/// A moment: one array, or codes and scales.
enum MomentArray<'py> {
    None,
    Plain(Array<'py>),
    Q8(Array<'py>, Array<'py>),
}

/// The arrays of a parameter.
struct ArrayTensor<'py> {
    param: Array<'py>,
    grad: Array<'py>,
    moments: Vec<MomentArray<'py>>,
    steps: u64,
    first: u64,
}

/// `(name, param, grad, moments, steps, first, bf16)`; `bf16` says of param, grad and each moment whether
/// its `int16` are bfloat16.
type Described<'py> = (
    String,
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    Vec<(String, Bound<'py, PyAny>)>,
    u64,
    u64,
    Vec<bool>,
);

impl<'py> ArrayTensor<'py> {
    fn of(described: Described<'py>, zeroed: bool, is_stochastic: bool) -> PyResult<Self> {
        let (name, param, grad, moments, steps, first, bf16) = described;
        let is_bf16 = |position: usize| bf16.get(position).copied().unwrap_or(false);
        let is_numpy = param.get_type().name()? == "ndarray";
        let param = Array::write(&param, name.clone())?.reinterpreted(is_bf16(0));
        param.expect_numbers()?;
        if is_stochastic && param.kind == Kind::F16 {
            return Err(PyValueError::new_err(format!(
                "{name} is of float16, but stochastic_rounding is for bfloat16"
            )));
        }
        let grad_name = format!("the gradient of {name}");
        let grad = match zeroed {
            true => Array::write(&grad, grad_name)?,
            false => Array::read(&grad, grad_name)?,
        };
        let grad = grad.reinterpreted(is_bf16(1));
        grad.expect_numbers()?;
        grad.expect_order_of(&param)?;
        if grad.kind.is_complex() != param.kind.is_complex() {
            return Err(PyTypeError::new_err(format!(
                "{} is of {:?}, but the parameter is of {:?}",
                grad.name, grad.kind, param.kind
            )));
        }
        let moments = moments.into_iter().enumerate().map(|(position, (moment, array))| {
            if array.is_none() {
                return Ok(MomentArray::None);
            }
            let moment = format!("{moment} of {name}");
            if let Ok(pair) = array.cast::<PyTuple>() {
                let (codes, scales): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair.extract()?;
                let codes = Array::write(&codes, format!("codes of {moment}"))?;
                let scales = Array::write(&scales, format!("scales of {moment}"))?;
                codes.expect(Kind::U8, param.reals())?;
                codes.expect_moment_of(&param, is_numpy)?;
                scales.expect(Kind::F32, Q8::scales(param.reals()))?;
                return Ok(MomentArray::Q8(codes, scales));
            }
            let array = Array::write(&array, moment)?.reinterpreted(is_bf16(2 + position));
            array.expect_numbers()?;
            if array.reals() != param.reals() {
                let (name, len, expected) = (&array.name, array.reals(), param.reals());
                return Err(PyValueError::new_err(format!(
                    "{name} has {len} numbers, not {expected}"
                )));
            }
            array.expect_moment_of(&param, is_numpy)?;
            Ok(MomentArray::Plain(array))
        });
        let moments = moments.collect::<PyResult<Vec<_>>>()?;
        Ok(Self { param, grad, moments, steps, first })
    }

    fn written(&self) -> impl Iterator<Item = &Array<'py>> {
        let moments = self.moments.iter().flat_map(|moment| match moment {
            MomentArray::None => [None, None],
            MomentArray::Plain(array) => [Some(array), None],
            MomentArray::Q8(codes, scales) => [Some(codes), Some(scales)],
        });
        moments.flatten().chain([&self.param])
    }
}

/// Refuses arrays that share memory: those that are written, with each other and with those that are read.
fn check_all_apart<'a, 'py: 'a>(
    written: impl Iterator<Item = &'a Array<'py>>,
    read: impl Iterator<Item = &'a Array<'py>>,
) -> PyResult<()> {
    let mut written: Vec<_> = written.filter(|array| array.len > 0).collect();
    written.sort_unstable_by_key(|array| array.data());
    let shared = |one: &Array<'_>, other: &Array<'_>| {
        PyValueError::new_err(format!("{} and {} share memory", one.name, other.name))
    };
    for pair in written.windows(2) {
        if let [one, other] = pair
            && other.range().start < one.range().end
        {
            return Err(shared(one, other));
        }
    }
    for array in read.filter(|array| array.len > 0) {
        let range = array.range();
        let after = written.partition_point(|other| other.range().end <= range.start);
        if let Some(other) = written.get(after)
            && other.range().start < range.end
        {
            return Err(shared(array, other));
        }
    }
    Ok(())
}

/// Steps arrays. Whether the step was taken, and the norm of the gradients if it was needed.
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
    let optimizer = optimizer_of(optimizer, settings)?;
    let isa = isa.map(str::parse::<Isa>).transpose().map_err(exception)?;
    let threads = threads.unwrap_or_else(|| threads::default_threads(py));
    let pool = threads::pool(threads).map_err(exception)?;
    let exec = Exec { isa, threads: pool.as_deref().map_or(Threads::Serial, Threads::Pool) };
    let of = |described| ArrayTensor::of(described, zero_grad, stochastic_rounding);
    let arrays = arrays.into_iter().map(of);
    let mut arrays = arrays.collect::<PyResult<Vec<_>>>()?;
    let grads = |zeroed| arrays.iter().filter(move |_| zeroed).map(|array| &array.grad);
    let written = arrays.iter().flat_map(ArrayTensor::written);
    check_all_apart(written.chain(grads(zero_grad)), grads(!zero_grad))?;

    let mut steps: Vec<u64> = arrays.iter().map(|array| array.steps).collect();
    let tensors = arrays.iter_mut().zip(&mut steps).map(|(array, steps)| {
        let mut moments = [const { None }; MOMENTS];
        for (place, moment) in moments.iter_mut().zip(&array.moments) {
            // SAFETY: lent for as long as `arrays` live, and apart; Python code that uses them meanwhile
            // races. Here and below.
            *place = Some(unsafe {
                match moment {
                    MomentArray::None => Moment::none(),
                    MomentArray::Plain(array) => array.moment(),
                    MomentArray::Q8(codes, scales) => Moment::q8(codes.numbers(), scales.numbers()),
                }
            });
        }
        // SAFETY: as above.
        let (param, grad) =
            unsafe { (array.param.param(stochastic_rounding), array.grad.grad(zero_grad)) };
        Tensor::new(param, grad, steps)
            .with_moments(moments.into_iter().flatten())
            .with_first(array.first)
    });
    let mut tensors: Vec<Tensor<'_>> = tensors.collect();
    let options = StepOptions {
        exec,
        grad_factor,
        max_norm: max_grad_norm,
        skip_nonfinite,
        seed,
        ..StepOptions::default()
    };
    let report = py.detach(|| adamant::step(&mut [Group::new(&optimizer, &mut tensors)], &options));
    let report = report.map_err(exception)?;
    Ok((report.outcome == Outcome::Taken, report.grad_norm))
}

fn optimizer_of(name: &str, settings: &Bound<'_, PyDict>) -> PyResult<AnyOptimizer> {
    let mut optimizer = AnyOptimizer::new(name).map_err(exception)?;
    for (setting, value) in settings.iter() {
        settings::set(&mut optimizer, &setting.extract::<String>()?, &value)?;
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
            adamant::SettingValue::Number(value) => found.set_item(setting.name, value)?,
            adamant::SettingValue::Count(value) => found.set_item(setting.name, value)?,
            adamant::SettingValue::Flag(value) => found.set_item(setting.name, value)?,
            adamant::SettingValue::Choice(value) => found.set_item(setting.name, value)?,
            _ => {}
        }
    }
    let moments = (0..optimizer.moment_count()).map(|moment| {
        let format = crate::stepper::format_name(optimizer.moment_format(moment));
        (optimizer.moment_name(moment), optimizer.moment_start(moment), format)
    });
    Ok((found, moments.collect()))
}

/// The norm of all gradients, taken as one vector; `order` is 1, 2 or infinity.
#[pyfunction]
pub fn grad_norm(
    py: Python<'_>,
    grads: Vec<(String, Bound<'_, PyAny>, bool)>,
    order: f64,
    threads: Option<usize>,
    isa: Option<&str>,
) -> PyResult<f64> {
    let order = match order {
        1.0 => NormOrder::One,
        2.0 => NormOrder::Two,
        f64::INFINITY => NormOrder::Infinity,
        other => {
            return Err(PyValueError::new_err(format!("ord is {other}, but must be 1, 2 or inf")));
        }
    };
    let isa = isa.map(str::parse::<Isa>).transpose().map_err(exception)?;
    let threads = threads.unwrap_or_else(|| threads::default_threads(py));
    let pool = threads::pool(threads).map_err(exception)?;
    let exec = Exec { isa, threads: pool.as_deref().map_or(Threads::Serial, Threads::Pool) };
    let arrays = grads.into_iter().map(|(name, grad, is_bf16)| {
        let array = Array::read(&grad, name)?.reinterpreted(is_bf16);
        array.expect_numbers()?;
        if order != NormOrder::Two && array.kind.is_complex() {
            let name = &array.name;
            return Err(PyTypeError::new_err(format!("{name} is complex, which takes ord 2")));
        }
        Ok(array)
    });
    let arrays = arrays.collect::<PyResult<Vec<_>>>()?;
    // SAFETY: lent for as long as `arrays` live; they are only read.
    let grads: Vec<Grad<'_>> = arrays.iter().map(|array| unsafe { array.grad(false) }).collect();
    let mut norms = vec![0.0; grads.len()];
    py.detach(|| adamant::grad_norms(order, exec, &grads, &mut norms)).map_err(exception)
}

/// What gradients are to be multiplied by so that their norm is at most `max_norm`:
/// `min(1, max_norm / (norm + 1e-6))`.
#[pyfunction]
pub fn clip_factor(norm: f64, max_norm: f64) -> PyResult<f64> {
    if max_norm.is_nan() || max_norm <= 0.0 {
        return Err(PyValueError::new_err(format!("max_norm is {max_norm}, but must be over 0")));
    }
    Ok(adamant::clip_factor(norm, max_norm))
}
