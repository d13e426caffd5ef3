//! The memory of candle's tensors: checks, slices of it, and locks.

use std::ops::Range;

use adamant::{Grad, Param};
use candle_core::{CpuStorage, DType, DeviceLocation, Storage, StorageMutRef, StorageRef, Tensor};

use crate::Error;

/// The address of a tensor's storage: tensors that share memory have the same one.
pub(crate) fn address(tensor: &Tensor) -> usize {
    let (storage, _) = tensor.storage_and_layout();
    std::ptr::from_ref(&*storage).addr()
}

/// Fails unless a variable is on the CPU, of a type that adamant supports, contiguous, and the whole of its
/// storage.
pub(crate) fn check_variable(name: &str, variable: &Tensor) -> Result<(), Error> {
    check_kind(format!("variable {name}"), variable.device().location(), variable.dtype())?;
    let (storage, layout) = variable.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        return Err(Error::NotContiguous {
            name: name.into(),
            shape: layout.shape().clone(),
            strides: layout.stride().to_vec(),
        });
    };
    let storage_len = storage_len(&storage);
    if (start, end) != (0, storage_len) {
        return Err(Error::View { name: name.into(), start, end, storage_len });
    }
    Ok(())
}

/// The gradient as a contiguous tensor: the tensor itself, or a copy.
pub(crate) fn check_grad(name: &str, variable: &Tensor, grad: &Tensor) -> Result<Tensor, Error> {
    check_kind(format!("the gradient of {name}"), grad.device().location(), grad.dtype())?;
    if grad.shape() != variable.shape() {
        let (grad, variable) = (grad.shape().clone(), variable.shape().clone());
        return Err(Error::GradShape { name: name.into(), grad, variable });
    }
    Ok(grad.contiguous()?)
}

fn check_kind(tensor: String, location: DeviceLocation, dtype: DType) -> Result<(), Error> {
    if location != DeviceLocation::Cpu {
        return Err(Error::Device { tensor, location });
    }
    match dtype {
        DType::F32 | DType::F64 | DType::BF16 | DType::F16 => Ok(()),
        dtype => Err(Error::DType { tensor, dtype }),
    }
}

/// The number of elements of a storage of floats; 0 of any other.
fn storage_len(storage: &Storage) -> usize {
    match storage {
        Storage::Cpu(CpuStorage::F32(values)) => values.len(),
        Storage::Cpu(CpuStorage::F64(values)) => values.len(),
        Storage::Cpu(CpuStorage::BF16(values)) => values.len(),
        Storage::Cpu(CpuStorage::F16(values)) => values.len(),
        _ => 0,
    }
}

/// The elements of a variable that was checked, to be stepped. Those in bf16 are rounded at random if
/// `stochastic`, to nearest if not.
pub(crate) fn param(storage: &mut Storage, stochastic: bool) -> Param<'_> {
    match storage {
        Storage::Cpu(CpuStorage::F32(values)) => values.into(),
        Storage::Cpu(CpuStorage::F64(values)) => values.into(),
        Storage::Cpu(CpuStorage::BF16(values)) => match stochastic {
            true => Param::stochastic(values),
            false => values.into(),
        },
        Storage::Cpu(CpuStorage::F16(values)) => values.into(),
        // Never, since device and type were checked. The step would refuse the length.
        _ => (&mut [0.0_f32; 0]).into(),
    }
}

/// The elements of a gradient that was checked.
pub(crate) fn grad(storage: &Storage, range: Range<usize>) -> Grad<'_> {
    match storage {
        Storage::Cpu(CpuStorage::F32(values)) => part(values, range).into(),
        Storage::Cpu(CpuStorage::F64(values)) => part(values, range).into(),
        Storage::Cpu(CpuStorage::BF16(values)) => part(values, range).into(),
        Storage::Cpu(CpuStorage::F16(values)) => part(values, range).into(),
        // Never, as above.
        _ => (&[0.0_f32; 0]).into(),
    }
}

/// The elements of a range, or none if it reaches beyond the end: the step refuses that length.
fn part<T>(values: &[T], range: Range<usize>) -> &[T] {
    values.get(range).unwrap_or(&[])
}

/// Locks the storages of all tensors: the first ones to be written, the others to be read.
///
/// Another thread may hold some of these locks and wait for others, as an operation on two variables does. So
/// this function waits for a lock only while it holds none.
pub(crate) fn lock<'a>(
    written: &[&'a Tensor],
    read: &'a [Tensor],
) -> (Vec<StorageMutRef<'a>>, Vec<StorageRef<'a>>) {
    // candle's locks are private, but a guard leads to its lock.
    let lock_of = |tensor: &'a Tensor| StorageRef::rwlock(&tensor.storage_and_layout().0);
    let written: Vec<_> = written.iter().map(|tensor| lock_of(tensor)).collect();
    let read: Vec<_> = read.iter().map(lock_of).collect();
    loop {
        let for_writing: Vec<_> = written.iter().map_while(|lock| lock.try_write()).collect();
        if let Some(busy) = written.get(for_writing.len()) {
            drop(for_writing);
            drop(busy.write());
            continue;
        }
        let for_reading: Vec<_> = read.iter().map_while(|lock| lock.try_read()).collect();
        if let Some(busy) = read.get(for_reading.len()) {
            drop((for_writing, for_reading));
            drop(busy.read());
            continue;
        }
        return (for_writing, for_reading);
    }
}

/// Mistakes that a test cannot make through the public interface: on a machine without a GPU, candle makes no
/// tensors on other devices, and it copies a tensor that is not contiguous when it makes a `Var` of it.
#[cfg(test)]
mod tests {
    use candle_core::{Device, Result};

    use super::*;

    #[test]
    fn tensors_on_other_devices_are_refused_by_name_and_place() {
        for (location, message) in [
            (DeviceLocation::Cuda { gpu_id: 1 }, "Cuda { gpu_id: 1 }"),
            (DeviceLocation::Metal { gpu_id: 0 }, "Metal { gpu_id: 0 }"),
        ] {
            let error = check_kind("variable w".into(), location, DType::F32).expect_err("refused");
            let message = format!("variable w is on {message}, not on the CPU");
            assert_eq!(error.to_string(), message);
        }
        assert!(check_kind("variable w".into(), DeviceLocation::Cpu, DType::F32).is_ok());
    }

    #[test]
    fn variables_that_are_transposed_or_broadcast_are_refused_by_name_and_strides() -> Result<()> {
        let matrix = Tensor::zeros((2, 3), DType::F32, &Device::Cpu)?;
        let error = check_variable("w", &matrix.t()?).expect_err("refused");
        let message = "variable w is not contiguous: shape [3, 2], strides [1, 3]";
        assert_eq!(error.to_string(), message);
        let row = Tensor::zeros((1, 3), DType::F32, &Device::Cpu)?;
        let error = check_variable("w", &row.broadcast_as((2, 3))?).expect_err("refused");
        let message = "variable w is not contiguous: shape [2, 3], strides [0, 1]";
        assert_eq!(error.to_string(), message);
        let error = check_variable("w", &matrix.narrow(0, 1, 1)?).expect_err("refused");
        let message = "variable w is a view: elements 3 to 6 of a storage that has 6";
        assert_eq!(error.to_string(), message);
        assert!(check_variable("w", &matrix).is_ok());
        Ok(())
    }
}
