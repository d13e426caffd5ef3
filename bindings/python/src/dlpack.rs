//! DLPack, the interface by which frameworks lend each other memory, as far as it is used here:
//! <https://dmlc.github.io/dlpack/latest/c_api.html>.

use core::ffi::{c_int, c_void};

use pyo3::{
    exceptions::PyTypeError,
    ffi, intern,
    prelude::*,
    types::{PyCapsule, PyDict},
};

/// Whether this process reads and writes the memory of a kind of device: the CPU, or what CUDA or ROCm pinned.
#[pyfunction]
pub fn is_host(kind: i32) -> bool {
    const CPU: i32 = 1;
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

/// A tensor in a capsule of `__dlpack__`, which keeps the memory alive: the capsule's destructor gives it
/// back, since the capsule is not marked as used.
pub struct Lent<'py> {
    _capsule: Bound<'py, PyCapsule>,
    pub tensor: DlTensor,
    pub is_read_only: bool,
}

/// Borrows memory of any object that has `__dlpack__`.
pub struct Lender<'py> {
    /// The arguments of `__dlpack__`: made once for all arrays of a call.
    arguments: Bound<'py, PyDict>,
}

impl<'py> Lender<'py> {
    pub fn new(py: Python<'py>) -> PyResult<Self> {
        let arguments = PyDict::new(py);
        arguments.set_item(intern!(py, "max_version"), (1, 0))?;
        Ok(Self { arguments })
    }

    /// Borrows the memory of an object.
    pub fn borrow(&self, object: &Bound<'py, PyAny>) -> PyResult<Lent<'py>> {
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
