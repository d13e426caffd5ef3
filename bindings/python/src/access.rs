//! How PyTorch is asked where the elements of a tensor lie: anew in each step, since it can move them without
//! telling anybody (`param.data = ...`).

use core::ffi::c_void;
use std::sync::Mutex;

use pyo3::{
    exceptions::PyTypeError,
    ffi, intern,
    prelude::*,
    types::{PyString, PyTuple, PyType},
};

use crate::{
    dlpack::{self, DlTensor, ToTensor},
    memory::{Kind, Seen},
};

/// The descriptor of an attribute, which is faster than looking it up.
struct Getter(ffi::descrgetfunc, Py<PyAny>);

impl Getter {
    /// Of an attribute of a type.
    fn of(base: &Bound<'_, PyAny>, name: &str) -> Option<Self> {
        let descriptor = base.getattr(name).ok()?;
        // SAFETY: a live type and a slot that has this type of function or is null.
        let get =
            unsafe { ffi::PyType_GetSlot(ffi::Py_TYPE(descriptor.as_ptr()), ffi::Py_tp_descr_get) };
        // SAFETY: the type of the slot, by its documentation.
        let get: Option<ffi::descrgetfunc> = unsafe { core::mem::transmute(get) };
        Some(Self(get?, descriptor.unbind()))
    }

    /// The attribute of an object.
    ///
    /// # Safety
    ///
    /// The object is of the type that the attribute was found at, or of a subtype.
    #[inline]
    unsafe fn get<'py>(&self, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let Self(get, descriptor) = self;
        // SAFETY: the descriptor's own function, called with an object of its type and that object's type, as
        // an access of the attribute would.
        unsafe {
            let object_type = object.get_type_ptr().cast();
            let found = get(descriptor.as_ptr(), object.as_ptr(), object_type);
            Bound::from_owned_ptr_or_err(object.py(), found)
        }
    }
}

/// How tensors of one framework are looked at.
pub struct Access {
    to_tensor: Option<ToTensor>,
    /// Types whose tensors are nothing but memory: `torch.Tensor`, `torch.nn.Parameter`.
    plain: Vec<Py<PyType>>,
    grad: Option<Getter>,
    requires_grad: Option<Getter>,
    version: Option<Getter>,
    dtypes: Vec<(Py<PyAny>, Kind)>,
    /// Shapes and strides of tensors that were looked at in the slow way.
    kept: Mutex<Vec<i64>>,
}

impl Access {
    /// For PyTorch. `types` are nothing but memory; the first one is `torch.Tensor`.
    pub fn new(torch: &Bound<'_, PyAny>, types: Vec<Py<PyType>>) -> PyResult<Self> {
        let tensor = torch.getattr("Tensor")?;
        let base = torch.getattr("_C")?.getattr("TensorBase").ok();
        let getter = |name| Getter::of(base.as_ref()?, name);
        let (grad, requires_grad) = (getter("grad"), getter("requires_grad"));
        let version = getter("_version");
        let mut dtypes = Vec::new();
        for (name, kind) in [
            ("float32", Kind::F32),
            ("float64", Kind::F64),
            ("bfloat16", Kind::Bf16),
            ("float16", Kind::F16),
            ("complex64", Kind::C64),
            ("complex128", Kind::C128),
            ("uint8", Kind::U8),
            ("int16", Kind::I16),
            ("int64", Kind::I64),
        ] {
            dtypes.push((torch.getattr(name)?.unbind(), kind));
        }
        let to_tensor = dlpack::to_tensor_of(&tensor);
        let kept = Mutex::default();
        Ok(Self { to_tensor, plain: types, grad, requires_grad, version, dtypes, kept })
    }

    /// Does without the fast way to look at tensors, for tests of the slow one.
    pub fn without_exchange_api(mut self) -> Self {
        self.to_tensor = None;
        self
    }

    /// Whether an object is nothing but memory: a tensor of one of the plain types.
    #[inline]
    pub fn is_plain(&self, object: &Bound<'_, PyAny>) -> bool {
        let object_type = object.get_type_ptr();
        self.plain.iter().any(|plain| plain.as_ptr().cast() == object_type)
    }

    /// The kind of a `torch.dtype`.
    pub fn kind_of(&self, dtype: &Bound<'_, PyAny>) -> Option<Kind> {
        self.dtypes.iter().find(|(known, _)| known.is(dtype)).map(|&(_, kind)| kind)
    }

    /// `object.grad`.
    #[inline]
    pub fn grad<'py>(&self, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.get(&self.grad, object, intern!(object.py(), "grad"))
    }

    /// `object.requires_grad`.
    #[inline]
    pub fn requires_grad(&self, object: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.get(&self.requires_grad, object, intern!(object.py(), "requires_grad"))?.is_truthy()
    }

    /// How often PyTorch has counted a write to a tensor.
    #[inline]
    pub fn version(&self, tensor: &Bound<'_, PyAny>) -> PyResult<i64> {
        self.get(&self.version, tensor, intern!(tensor.py(), "_version"))?.extract()
    }

    /// An attribute: by its getter if the tensor is plain, which saves a lookup.
    #[inline]
    fn get<'py>(
        &self,
        getter: &Option<Getter>,
        object: &Bound<'py, PyAny>,
        name: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match getter {
            // SAFETY: a plain tensor is of `TensorBase`, or of a subtype.
            Some(getter) if self.is_plain(object) => unsafe { getter.get(object) },
            _ => object.getattr(name),
        }
    }

    /// Looks at a plain tensor, and runs with where it lies.
    #[inline]
    pub fn look<T>(
        &self,
        tensor: &Bound<'_, PyAny>,
        run: impl FnOnce(Seen<'_>) -> PyResult<T>,
    ) -> PyResult<T> {
        if !self.is_plain(tensor) {
            let name = tensor.get_type().qualname()?;
            return Err(PyTypeError::new_err(format!("{name} is no plain tensor")));
        }
        let Some(to_tensor) = self.to_tensor else { return self.look_slowly(tensor, run) };
        let mut found = DlTensor::NONE;
        // SAFETY: a plain tensor is of the type that the function was found at, or of a subtype.
        unsafe { dlpack::describe(to_tensor, tensor.py(), tensor.as_ptr(), &mut found)? };
        // SAFETY: just described; nothing runs meanwhile that could change it but `run`.
        run(unsafe { Seen::new(&found) })
    }

    /// For versions of PyTorch before 2.10.
    fn look_slowly<T>(
        &self,
        tensor: &Bound<'_, PyAny>,
        run: impl FnOnce(Seen<'_>) -> PyResult<T>,
    ) -> PyResult<T> {
        let py = tensor.py();
        let data: usize = tensor.call_method0(intern!(py, "data_ptr"))?.extract()?;
        let dtype = tensor.getattr(intern!(py, "dtype"))?;
        let kind = self.kind_of(&dtype).unwrap_or(Kind::Other);
        let is_cpu = tensor.getattr(intern!(py, "is_cpu"))?.extract()?;
        // Another thread may have them, also one of the parent that forked this process.
        let mut kept =
            self.kept.try_lock().map(|mut kept| core::mem::take(&mut *kept)).unwrap_or_default();
        kept.clear();
        let shape = tensor.getattr(intern!(py, "shape"))?.cast_into::<PyTuple>()?;
        let strides = tensor.call_method0(intern!(py, "stride"))?.cast_into::<PyTuple>()?;
        for size in shape.iter().chain(strides.iter()) {
            kept.push(size.extract()?);
        }
        let (shape, strides) = kept.split_at(shape.len());
        let data = data as *mut c_void;
        let result = run(Seen { data, kind, is_cpu, shape, strides });
        if let Ok(mut place) = self.kept.try_lock() {
            *place = kept;
        }
        result
    }
}
