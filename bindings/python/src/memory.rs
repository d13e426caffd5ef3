//! Where the elements of a tensor lie, and how that is remembered.

use core::{
    ffi::c_void,
    fmt::{self, Display, Formatter},
    slice,
};

use crate::dlpack::{self, DataType, DlTensor};

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    F32,
    F64,
    Bf16,
    F16,
    /// Pairs of `f32`.
    C64,
    /// Pairs of `f64`.
    C128,
    U8,
    I16,
    I64,
    Other,
}

impl Kind {
    /// From DLPack's.
    pub fn of(dtype: DataType) -> Self {
        match (dtype.code, dtype.bits, dtype.lanes) {
            (2, 32, 1) => Self::F32,
            (2, 64, 1) => Self::F64,
            (4, 16, 1) => Self::Bf16,
            (2, 16, 1) => Self::F16,
            (5, 64, 1) => Self::C64,
            (5, 128, 1) => Self::C128,
            (1, 8, 1) => Self::U8,
            (0, 16, 1) => Self::I16,
            (0, 64, 1) => Self::I64,
            _ => Self::Other,
        }
    }

    /// The type of the numbers that the elements consist of.
    pub fn real(self) -> Self {
        match self {
            Self::C64 => Self::F32,
            Self::C128 => Self::F64,
            other => other,
        }
    }

    /// The numbers in an element.
    pub fn reals(self) -> usize {
        match self {
            Self::C64 | Self::C128 => 2,
            _ => 1,
        }
    }

    /// The bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Self::C128 => 16,
            Self::F64 | Self::C64 | Self::I64 => 8,
            Self::F32 => 4,
            Self::Bf16 | Self::F16 | Self::I16 => 2,
            Self::U8 | Self::Other => 1,
        }
    }

    /// The alignment that slices of the numbers need.
    fn align(self) -> usize {
        match self.real() {
            Self::F64 => align_of::<f64>(),
            Self::I64 => align_of::<i64>(),
            Self::F32 => align_of::<f32>(),
            Self::Bf16 | Self::F16 | Self::I16 => align_of::<u16>(),
            _ => 1,
        }
    }

    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64 | Self::Bf16 | Self::F16)
    }

    pub fn is_complex(self) -> bool {
        self.reals() == 2
    }
}

/// The names that numpy and PyTorch have for types.
impl Display for Kind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "float32",
            Self::F64 => "float64",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
            Self::C64 => "complex64",
            Self::C128 => "complex128",
            Self::U8 => "uint8",
            Self::I16 => "int16",
            Self::I64 => "int64",
            Self::Other => "another type",
        })
    }
}

/// Where a tensor's elements lie, for a moment: until the tensor is changed or its framework is called.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub data: *mut c_void,
    pub kind: Kind,
    pub is_cpu: bool,
    pub shape: &'a [i64],
    pub strides: &'a [i64],
}

impl<'a> Seen<'a> {
    /// # Safety
    ///
    /// `tensor` was described by its framework, and is as it was for `'a`.
    pub unsafe fn new(tensor: &'a DlTensor) -> Self {
        let of = |array: *mut i64| match usize::try_from(tensor.ndim) {
            // SAFETY: DLPack: `ndim` elements.
            Ok(dims) if dims > 0 && !array.is_null() => unsafe {
                slice::from_raw_parts(array, dims)
            },
            _ => &[],
        };
        Self {
            data: tensor.data.wrapping_byte_add(tensor.byte_offset as usize),
            kind: Kind::of(tensor.dtype),
            is_cpu: dlpack::is_host(tensor.device.kind),
            shape: of(tensor.shape),
            strides: of(tensor.strides),
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().map(|&size| usize::try_from(size).unwrap_or(0)).product()
    }

    /// Whether it has elements but no memory: its storage was freed.
    pub fn is_freed(&self) -> bool {
        self.data.is_null() && self.len() > 0
    }

    /// Whether each element lies where its type may. Memory of bytes can be seen as numbers that do not:
    /// `frombuffer(bytes, offset=1)`.
    #[inline]
    pub fn is_aligned(&self) -> bool {
        (self.data as usize).is_multiple_of(self.kind.align()) || self.len() == 0
    }

    /// Whether the elements fill their memory without gaps or overlaps, in whatever order.
    pub fn is_dense(&self) -> bool {
        // Before DLPack 1.2, no strides stood for those of a contiguous array.
        if self.shape.contains(&0) || self.strides.len() != self.shape.len() {
            return true;
        }
        // The usual order, which needs no memory.
        let mut expected = 1;
        let is_contiguous = self.shape.iter().zip(self.strides).rev().all(|(&size, &stride)| {
            let fits = size == 1 || stride == expected;
            expected = expected.saturating_mul(size);
            fits
        });
        if is_contiguous {
            return true;
        }
        let mut dims: Vec<(i64, i64)> = (self.strides.iter().copied())
            .zip(self.shape.iter().copied())
            .filter(|&(_, size)| size > 1)
            .collect();
        dims.sort_unstable();
        let mut expected = 1;
        dims.into_iter().all(|(stride, size)| {
            let fits = stride == expected;
            expected = expected.saturating_mul(size);
            fits
        })
    }
}

/// What is remembered of a tensor from one step to the next, to see whether it is still the same.
#[derive(Clone, Default)]
pub struct Facts {
    pub data: usize,
    pub kind: Option<Kind>,
    /// The number of elements.
    pub len: usize,
    /// Shape and strides, one after the other.
    dims: Box<[i64]>,
    rank: usize,
}

impl Facts {
    pub fn of(seen: &Seen<'_>) -> Self {
        let mut dims = seen.shape.to_vec();
        if seen.strides.len() == seen.shape.len() {
            dims.extend(seen.strides);
        } else {
            // Before DLPack 1.2, no strides stood for those of a contiguous array.
            let mut strides: Vec<i64> = seen
                .shape
                .iter()
                .rev()
                .scan(1, |next, &size| {
                    let stride = *next;
                    *next *= size;
                    Some(stride)
                })
                .collect();
            strides.reverse();
            dims.extend(strides);
        }
        Self {
            data: seen.data as usize,
            kind: Some(seen.kind),
            len: seen.len(),
            dims: dims.into(),
            rank: seen.shape.len(),
        }
    }

    pub fn shape(&self) -> &[i64] {
        &self.dims[..self.rank]
    }

    pub fn strides(&self) -> &[i64] {
        &self.dims[self.rank..]
    }

    /// The same memory as the pairs of numbers that complex elements are: a last dimension more.
    pub fn as_pairs(&self) -> Self {
        let strides = self.strides().iter().map(|stride| 2 * stride);
        let dims = self.shape().iter().copied().chain([2]).chain(strides).chain([1]);
        Self { dims: dims.collect(), rank: self.rank + 1, len: 2 * self.len, ..*self }
    }

    /// Whether the tensor is where it was, as it was.
    #[inline]
    pub fn hold(&self, seen: &Seen<'_>) -> bool {
        self.data == seen.data as usize && self.kind == Some(seen.kind) && self.is_laid_out(seen)
    }

    /// Whether a tensor has the same shape and strides.
    #[inline]
    pub fn is_laid_out(&self, seen: &Seen<'_>) -> bool {
        // The few numbers are compared here: a call of memcmp takes longer.
        let dims = seen.shape.iter().chain(seen.strides);
        self.rank == seen.shape.len() && self.dims.iter().eq(dims)
    }

    /// Whether element follows element in the same order; both arrays are dense.
    pub fn is_ordered_like(&self, other: &Self) -> bool {
        let strides = self.strides().iter().zip(other.strides()).zip(self.shape());
        self.shape() == other.shape()
            && (self.len == 0
                || strides.into_iter().all(|((own, other), &size)| size == 1 || own == other))
    }

    /// Whether element follows element in the same order; both tensors are dense.
    pub fn has_order_of(&self, seen: &Seen<'_>) -> bool {
        let strides = self.strides().iter().zip(seen.strides);
        self.shape() == seen.shape
            && (self.len == 0
                || strides.zip(self.shape()).all(|((own, other), &size)| size == 1 || own == other))
    }
}
