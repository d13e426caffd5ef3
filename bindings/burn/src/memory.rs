//! The memory of burn's tensors on burn-flex.

use std::ops::Range;

use adamant::{Grad, Param, Storage};
use burn::{
    Tensor,
    backend::{Flex, tensor::FloatTensor},
    tensor::{DType, PrimitiveConversionError},
};
use half::{bf16, f16};

use crate::Error;

/// A tensor's memory, its type, shape and strides.
pub(crate) type Memory = FloatTensor<Flex>;

/// The memory of a tensor without autodiff, of a type that adamant supports. `name` is for the error.
pub(crate) fn memory<const D: usize>(
    tensor: Tensor<D>,
    name: impl FnOnce() -> String,
) -> Result<Memory, Error> {
    let memory = match tensor.try_into_primitive::<Flex>() {
        Ok(memory) => memory,
        Err(
            PrimitiveConversionError::BackendMismatch(reason)
            | PrimitiveConversionError::KindMismatch(reason),
        ) => return Err(Error::Backend { tensor: name(), reason }),
    };
    match memory.dtype() {
        DType::F32 | DType::F64 | DType::BF16 | DType::F16 => Ok(memory),
        dtype => Err(Error::DType { tensor: name(), dtype }),
    }
}

/// The same elements in contiguous memory: the same memory, or a copy.
pub(crate) fn contiguous(memory: Memory) -> Memory {
    match memory.layout().contiguous_offsets() {
        Some(_) => memory,
        None => memory.to_contiguous(),
    }
}

/// The range of the elements of contiguous memory in its storage.
fn range(memory: &Memory) -> Range<usize> {
    let (start, end) = memory.layout().contiguous_offsets().unwrap_or_default();
    start..end
}

/// The number of elements.
pub(crate) fn len(memory: &Memory) -> usize {
    memory.layout().num_elements()
}

/// The elements of a parameter in contiguous memory, to be stepped. Those in bf16 are rounded at random if
/// `stochastic`, to nearest if not.
///
/// Memory that another tensor shares is copied first.
pub(crate) fn param(memory: &mut Memory, stochastic: bool) -> Param<'_> {
    fn part<T>(elements: &mut [T], range: Range<usize>) -> &mut [T] {
        // Never: the range is that of the layout. The step would refuse the length.
        elements.get_mut(range).unwrap_or(&mut [])
    }
    let range = range(memory);
    match memory.dtype() {
        DType::F64 => part(memory.storage_mut::<f64>(), range).into(),
        DType::F16 => part(memory.storage_mut::<f16>(), range).into(),
        DType::BF16 if stochastic => Param::stochastic(part(memory.storage_mut::<bf16>(), range)),
        DType::BF16 => part(memory.storage_mut::<bf16>(), range).into(),
        _ => part(memory.storage_mut::<f32>(), range).into(),
    }
}

/// The elements of a gradient in contiguous memory.
pub(crate) fn grad(memory: &Memory) -> Grad<'_> {
    fn part<T>(elements: &[T], range: Range<usize>) -> &[T] {
        elements.get(range).unwrap_or(&[])
    }
    let range = range(memory);
    match memory.dtype() {
        DType::F64 => part(memory.storage::<f64>(), range).into(),
        DType::F16 => part(memory.storage::<f16>(), range).into(),
        DType::BF16 => part(memory.storage::<bf16>(), range).into(),
        _ => part(memory.storage::<f32>(), range).into(),
    }
}

/// The storage of a parameter's moments: `wanted`, or by default F64 for parameters in F64 and F32 for others.
pub(crate) fn moments_for(
    dtype: DType,
    wanted: Option<Storage>,
    parameter: impl FnOnce() -> String,
) -> Result<Storage, Error> {
    match (dtype, wanted) {
        (DType::F64, None) => Ok(Storage::F64),
        (_, None) => Ok(Storage::F32),
        (dtype, Some(storage)) if (dtype == DType::F64) != (storage == Storage::F64) => {
            Err(Error::Moments { parameter: parameter(), dtype, storage })
        }
        (_, Some(storage)) => Ok(storage),
    }
}

/// These tests have no backend beside burn-flex. But a tensor with autodiff is one of another backend, too, until
/// `inner` has taken that off.
#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn a_tensor_of_another_backend_is_refused_by_name_with_what_burn_says() {
        let tensor = Tensor::<1>::ones([3], &Device::default().autodiff());
        let name = || "the gradient of layers.0.weight".into();
        let error = memory(tensor.clone(), name).expect_err("another backend");
        let message = error.to_string();
        let start = "the gradient of layers.0.weight is not in the memory of burn-flex: ";
        let reason = message.strip_prefix(start).expect("the name and what is wrong");
        assert!(reason.contains("autodiff"), "{reason}");
        assert!(memory(tensor.inner(), name).is_ok());
    }
}
