//! DLPack, the interface by which frameworks lend each other memory, as far as it is used here:
//! <https://dmlc.github.io/dlpack/latest/c_api.html>. numpy's arrays also have a faster one:
//! <https://numpy.org/doc/stable/reference/arrays.interface.html>.

use core::{
    ffi::{c_char, c_int, c_void},
    ptr,
};

use pyo3::{
    exceptions::PyTypeError,
    ffi, intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyCapsule, PyDict, PyType},
};

/// DLPack's kind of device that this process runs on.
const CPU: i32 = 1;

/// Whether this process reads and writes the memory of a kind of device: the CPU, or what CUDA or ROCm pinned.
#[pyfunction]
pub fn is_host(kind: i32) -> bool {
    const CUDA_HOST: i32 = 3;
    const ROCM_HOST: i32 = 11;
    matches!(kind, CPU | CUDA_HOST | ROCM_HOST)
}

/// The name of an array's device, for errors: its framework's, or DLPack's numbers.
#[pyfunction]
pub fn device_name(array: &Bound<'_, PyAny>, kind: i32, id: i32) -> String {
    match array.getattr(intern!(array.py(), "device")) {
        Ok(device) => device.to_string(),
        Err(_) => format!("device {id} of DLPack's kind {kind}"),
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Device {
    pub kind: i32,
    pub id: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct DataType {
    pub code: u8,
    pub bits: u8,
    pub lanes: u16,
}

impl DataType {
    const BFLOAT16: Self = Self { code: 4, bits: 16, lanes: 1 };
}

/// `DLTensor`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct DlTensor {
    pub data: *mut c_void,
    pub device: Device,
    pub ndim: i32,
    pub dtype: DataType,
    pub shape: *mut i64,
    pub strides: *mut i64,
    pub byte_offset: u64,
}

impl DlTensor {
    pub const NONE: Self = Self {
        data: core::ptr::null_mut(),
        device: Device { kind: 0, id: 0 },
        ndim: 0,
        dtype: DataType { code: 0, bits: 0, lanes: 0 },
        shape: core::ptr::null_mut(),
        strides: core::ptr::null_mut(),
        byte_offset: 0,
    };
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Version {
    major: u32,
    minor: u32,
}

/// `DLPackExchangeAPI` up to the function that is used; versions of one major number have the same
/// beginning.
#[repr(C)]
struct ExchangeApi {
    version: Version,
    previous: *const ExchangeApi,
    allocate: *const c_void,
    to_managed: *const c_void,
    from_managed: *const c_void,
    to_tensor: Option<ToTensor>,
}

/// Describes a tensor without owning it, until control is returned to its framework. Returns 0, or -1
/// with a Python exception.
pub type ToTensor = unsafe extern "C" fn(*mut c_void, *mut DlTensor) -> c_int;

/// The function that describes tensors of a type, if the type's framework has one.
pub fn to_tensor_of(tensor_type: &Bound<'_, PyAny>) -> Option<ToTensor> {
    const MAJOR: u32 = 1;
    let capsule = tensor_type.getattr("__dlpack_c_exchange_api__").ok()?;
    let capsule = capsule.cast_into::<PyCapsule>().ok()?;
    let mut api: *const ExchangeApi =
        capsule.pointer_checked(Some(c"dlpack_exchange_api")).ok()?.as_ptr().cast();
    // SAFETY: the protocol: a capsule of this name holds a table that lives as long as the process, with
    // a header that is the same in all versions, and whose `previous` is null or such a table.
    unsafe {
        while (*api).version.major > MAJOR {
            api = (*api).previous;
            if api.is_null() {
                return None;
            }
        }
        if (*api).version.major == MAJOR { (*api).to_tensor } else { None }
    }
}

/// `DLManagedTensor`, of capsules named "dltensor".
#[repr(C)]
struct Managed {
    tensor: DlTensor,
    context: *mut c_void,
    delete: Option<unsafe extern "C" fn(*mut Managed)>,
}

/// `DLManagedTensorVersioned`, of capsules named "dltensor_versioned".
#[repr(C)]
struct ManagedVersioned {
    version: Version,
    context: *mut c_void,
    delete: Option<unsafe extern "C" fn(*mut ManagedVersioned)>,
    flags: u64,
    tensor: DlTensor,
}

const READ_ONLY: u64 = 1;

/// `PyArrayInterface`, of numpy's capsules without a name.
#[repr(C)]
struct ArrayInterface {
    two: c_int,
    dims: c_int,
    kind: c_char,
    item_bytes: c_int,
    flags: c_int,
    shape: *mut isize,
    strides: *mut isize,
    data: *mut c_void,
    descr: *mut ffi::PyObject,
}

impl ArrayInterface {
    const C_CONTIGUOUS: c_int = 1;
    const ALIGNED: c_int = 0x100;
    /// The bytes of a number stand in the order of this machine.
    const NOT_SWAPPED: c_int = 0x200;
    const WRITEABLE: c_int = 0x400;
    /// The flags of nearly all arrays.
    const USUAL: c_int = Self::C_CONTIGUOUS | Self::ALIGNED | Self::NOT_SWAPPED | Self::WRITEABLE;
}

/// A tensor in a capsule of `__dlpack__`, which keeps the memory alive: the capsule's destructor gives it
/// back, since the capsule is not marked as used. Or in one of `__array_struct__`, which does so too.
pub struct Lent<'py> {
    _capsule: Bound<'py, PyCapsule>,
    pub tensor: DlTensor,
    pub is_read_only: bool,
}

/// Borrows memory of any object that has `__dlpack__`.
pub struct Lender<'py> {
    /// The arguments of `__dlpack__`: made once for all arrays of a call.
    arguments: Bound<'py, PyDict>,
    /// `numpy.ndarray`, if numpy was imported.
    ndarray: Option<Bound<'py, PyType>>,
}

impl<'py> Lender<'py> {
    pub fn new(py: Python<'py>) -> PyResult<Self> {
        let arguments = PyDict::new(py);
        arguments.set_item(intern!(py, "max_version"), (1, 0))?;
        Ok(Self { arguments, ndarray: ndarray(py)? })
    }

    /// Whether an object is an array of numpy's.
    #[inline]
    pub fn is_numpy(&self, object: &Bound<'py, PyAny>) -> PyResult<bool> {
        self.ndarray.as_ref().map_or(Ok(false), |ndarray| object.is_instance(ndarray))
    }

    /// Borrows the memory of an object.
    pub fn borrow(&self, object: &Bound<'py, PyAny>) -> PyResult<Lent<'py>> {
        if !self.is_numpy(object)? {
            return self.borrow_by_dlpack(object);
        }
        if let Some(lent) = borrow_from_numpy(object)? {
            return Ok(lent);
        }
        if !is_bfloat16(object)? {
            return self.borrow_by_dlpack(object);
        }
        // numpy lends no type of others.
        let py = object.py();
        let bits = object.call_method1(intern!(py, "view"), (intern!(py, "int16"),))?;
        let mut lent = self.borrow_by_dlpack(&bits)?;
        lent.tensor.dtype = DataType::BFLOAT16;
        Ok(lent)
    }

    fn borrow_by_dlpack(&self, object: &Bound<'py, PyAny>) -> PyResult<Lent<'py>> {
        let py = object.py();
        let method = object.getattr(intern!(py, "__dlpack__"))?;
        let capsule = match method.call((), Some(&self.arguments)) {
            Err(error) if error.is_instance_of::<PyTypeError>(py) => {
                // Producers from before 2024 do not know the argument.
                method.call0()?
            }
            result => result?,
        };
        let capsule = capsule.cast_into::<PyCapsule>()?;
        if let Ok(managed) = capsule.pointer_checked(Some(c"dltensor_versioned")) {
            // SAFETY: the protocol: a capsule of this name holds such a struct, alive while the capsule is.
            let managed = unsafe { managed.cast::<ManagedVersioned>().as_ref() };
            let is_read_only = managed.flags & READ_ONLY != 0;
            return Ok(Lent { tensor: managed.tensor, is_read_only, _capsule: capsule });
        }
        let managed = capsule.pointer_checked(Some(c"dltensor"))?;
        // SAFETY: as above. Capsules without a version cannot be read-only.
        let managed = unsafe { managed.cast::<Managed>().as_ref() };
        Ok(Lent { tensor: managed.tensor, is_read_only: false, _capsule: capsule })
    }
}

/// `numpy.ndarray`; `None` if nobody has imported numpy, which PyTorch does without: then there are no such arrays.
fn ndarray(py: Python<'_>) -> PyResult<Option<Bound<'_, PyType>>> {
    static NDARRAY: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    if let Some(known) = NDARRAY.get(py) {
        return Ok(Some(known.bind(py).clone()));
    }
    let modules = py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?;
    match modules.get_item("numpy")? {
        Some(numpy) if !numpy.is_none() => {
            NDARRAY.import(py, "numpy", "ndarray").map(|found| Some(found.clone()))
        }
        _ => Ok(None),
    }
}

/// Borrows the memory of an array of numpy's, if it is as nearly all are: DLPack takes four times as long.
fn borrow_from_numpy<'py>(array: &Bound<'py, PyAny>) -> PyResult<Option<Lent<'py>>> {
    // DLPack's shapes are of 64 bits.
    if size_of::<isize>() != size_of::<i64>() {
        return Ok(None);
    }
    let capsule = array.getattr(intern!(array.py(), "__array_struct__"))?;
    let capsule = capsule.cast_into::<PyCapsule>()?;
    // SAFETY: numpy's interface: a capsule of this attribute holds such a struct, which lives as the capsule does.
    let interface = unsafe { capsule.pointer_checked(None)?.cast::<ArrayInterface>().as_ref() };
    let is_usual = interface.flags & ArrayInterface::USUAL == ArrayInterface::USUAL;
    if interface.two != 2 || !is_usual {
        return Ok(None);
    }
    let dtype = match (interface.kind as u8, interface.item_bytes) {
        (b'f', bytes @ (2 | 4 | 8)) => DataType { code: 2, bits: 8 * bytes as u8, lanes: 1 },
        (b'c', bytes @ (8 | 16)) => DataType { code: 5, bits: 8 * bytes as u8, lanes: 1 },
        (b'u', 1) => DataType { code: 1, bits: 8, lanes: 1 },
        (b'V', 2) if is_bfloat16(array)? => DataType::BFLOAT16,
        _ => return Ok(None),
    };
    let tensor = DlTensor {
        data: interface.data,
        device: Device { kind: CPU, id: 0 },
        ndim: interface.dims,
        dtype,
        shape: interface.shape.cast(),
        // It is contiguous.
        strides: ptr::null_mut(),
        byte_offset: 0,
    };
    Ok(Some(Lent { tensor, is_read_only: false, _capsule: capsule }))
}

/// Whether an array of numpy's is of the type that ml_dtypes adds.
fn is_bfloat16(array: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = array.py();
    let dtype = array.getattr(intern!(py, "dtype"))?;
    // The name takes numpy a microsecond. The kind of a type that is not numpy's own is that of bytes.
    Ok(dtype.getattr(intern!(py, "kind"))?.eq("V")?
        && dtype.getattr(intern!(py, "name"))?.eq("bfloat16")?)
}

/// Calls a [`ToTensor`].
///
/// # Safety
///
/// `tensor` has the type that `to_tensor` was found at, or a subtype.
pub unsafe fn describe(
    to_tensor: ToTensor,
    py: Python<'_>,
    tensor: *mut ffi::PyObject,
    out: &mut DlTensor,
) -> PyResult<()> {
    // SAFETY: a live object of the right type; the GIL is held.
    match unsafe { to_tensor(tensor.cast(), out) } {
        0 => Ok(()),
        _ => Err(PyErr::fetch(py)),
    }
}
