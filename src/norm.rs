//! The norm of gradients, for clipping and for loss scalers.

use half::{bf16, f16};
use pulp::{Simd, WithSimd};

use crate::{
    Error, Exec, Group, Tensor, Threads, array::GradArray, element::Narrow, isa::Cpu, lanes::TILE,
    partition, words::Words,
};

/// The Euclidean norm of all gradients of a model, taken as one vector.
///
/// ```text
/// norm = sqrt(sum of g^2 over all elements of all tensors)
/// ```
///
/// It is infinite or NaN if any gradient is, or if the norm itself is beyond `f64`: what a loss scaler
/// asks for is `norm.is_finite()`, see
/// [`StepOptions::skip_nonfinite`](crate::StepOptions::skip_nonfinite). Squares are summed
/// in `f64`, so that none overflows or is lost. The relative error is below 1e-12 for as many as 2^40
/// gradients.
///
/// The order of the sum depends on the lengths of the tensors alone: the same bits on every
/// instruction set and thread count. Nothing is allocated. It reads the gradients once; as in
/// [`Optimizer`](crate::Optimizer), the threads of the caller's pool share the work.
///
/// A step that clips computes the norm itself, of gradients of any types: see
/// [`StepOptions::max_norm`](crate::StepOptions::max_norm).
///
/// # Examples
///
/// Clipping by the global norm, as in `torch.nn.utils.clip_grad_norm_`:
///
/// ```
/// use adamant::{clip_factor, grad_norm};
///
/// let (weight_grad, bias_grad) = (vec![3.0_f32; 4], vec![-4.0; 4]);
/// let norm = grad_norm(&[&weight_grad, &bias_grad])?;
/// assert_eq!(norm, 10.0);
/// assert!((clip_factor(norm, 1.0) - 0.1).abs() < 1e-6);
/// # Ok::<(), adamant::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::UnknownIsa`] or [`Error::IsaUnavailable`] for the instruction set.
pub fn grad_norm<E: GradElement>(grads: &[&[E]]) -> Result<f64, Error> {
    grad_norm_on(Exec::default(), grads)
}

/// [`grad_norm`], run as told.
///
/// # Errors
///
/// As [`grad_norm`].
pub fn grad_norm_on<E: GradElement>(exec: Exec<'_>, grads: &[&[E]]) -> Result<f64, Error> {
    Ok(norm(exec, exec.cpu()?, grads))
}

/// The norm of the gradients of all groups.
pub(crate) fn of_groups(exec: Exec<'_>, cpu: Cpu, groups: &[Group<'_, '_>]) -> f64 {
    match groups {
        [group] => norm(exec, cpu, group.tensors),
        groups => norm(exec, cpu, groups),
    }
}

/// The norm of the gradients of some tensors.
fn norm<T: Gradients>(exec: Exec<'_>, cpu: Cpu, tensors: &[T]) -> f64 {
    let parallel = !matches!(exec.threads, Threads::Serial);
    let parallel = parallel && partition::is_worth_entering(len(tensors));
    let norm = |scale: f64| {
        let sum = Sum { cpu, parallel, scale };
        sum.of_tensors(tensors).sqrt() / scale
    };
    let plain = norm(1.0);
    // The squares of f32 and less fit into f64 with room to spare. Those of f64 may have to be taken of
    // smaller or larger numbers.
    if !T::ARE_F64 || (FAR.recip()..FAR).contains(&plain) {
        return plain;
    }
    norm(if plain < 1.0 { 1.0 / SCALE } else { SCALE })
}

fn len<T: Gradients>(tensors: &[T]) -> usize {
    tensors.iter().map(Gradients::len).sum()
}

/// What the gradients are to be multiplied by so that their norm is at most `max_norm`.
///
/// ```text
/// min(1, max_norm / (norm + 1e-6))
/// ```
///
/// PyTorch's formula. It is 0 or NaN where the norm is not finite.
pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    let factor = max_norm / (norm + 1e-6);
    if factor > 1.0 { 1.0 } else { factor }
}

/// A type of gradients: `f32`, `f64`, `bf16` or `f16`; sealed.
pub trait GradElement: Squares {}

impl<E: Squares> GradElement for E {}

/// Private, so that [`GradElement`] is sealed.
pub trait Squares: Copy + Send + Sync + 'static {
    /// Adds the squares of a block, each times the square of `scale`, to some sums.
    fn add_squares<S: Simd>(simd: S, block: &[Self], scale: f64, sums: &mut [f64; SUMS]);
}

/// Norms beyond are taken of scaled gradients.
const FAR: f64 = 1e140;
/// 2^-600: gradients of up to 1e308 have squares then, and those that have none do not count.
const SCALE: f64 = f64::from_bits((1023 - 600) << 52);

/// Partial sums: element j of a block belongs to sum j modulo this.
const SUMS: usize = 32;
/// Elements that are summed up one after the other.
const BLOCK: usize = 4096;
/// Blocks of a piece that is worth another thread.
const PIECE: usize = 8;

macro_rules! squares {
    ($float:ty) => {
        impl Squares for $float {
            #[inline(always)]
            fn add_squares<S: Simd>(_simd: S, block: &[Self], scale: f64, sums: &mut [f64; SUMS]) {
                let (chunks, rest) = block.as_chunks::<SUMS>();
                // Of its own, so that it stays in registers.
                let mut gathered = *sums;
                for chunk in chunks {
                    for i in 0..SUMS {
                        let value = f64::from(chunk[i]) * scale;
                        gathered[i] += value * value;
                    }
                }
                *sums = gathered;
                for (sum, &value) in sums.iter_mut().zip(rest) {
                    let value = f64::from(value) * scale;
                    *sum += value * value;
                }
            }
        }
    };
}

/// As `f32`, widened a tile at a time.
macro_rules! half_squares {
    ($half:ty) => {
        impl Squares for $half {
            #[inline(always)]
            fn add_squares<S: Simd>(simd: S, block: &[Self], scale: f64, sums: &mut [f64; SUMS]) {
                let (mut tile, lanes) = ([0.0; TILE], Words::<S>::LANES);
                for block in block.chunks(TILE) {
                    let wide = &mut tile[..block.len()];
                    for (wide, narrow) in wide.chunks_mut(lanes).zip(block.chunks(lanes)) {
                        <$half>::widen(simd, narrow).write(wide);
                    }
                    f32::add_squares(simd, wide, scale, sums);
                }
            }
        }
    };
}

squares!(f32);
squares!(f64);
half_squares!(bf16);
half_squares!(f16);

/// A tensor that has gradients.
pub(crate) trait Gradients: Sync {
    /// Whether they are `f64`, or may be.
    const ARE_F64: bool;

    fn len(&self) -> usize;

    fn sum_squares(&self, sum: Sum) -> f64;
}

impl<E: GradElement> Gradients for &[E] {
    const ARE_F64: bool = size_of::<E>() == 8;

    fn len(&self) -> usize {
        <[E]>::len(self)
    }

    fn sum_squares(&self, sum: Sum) -> f64 {
        sum.of_blocks(self)
    }
}

impl Gradients for Tensor<'_> {
    /// Some may be.
    const ARE_F64: bool = true;

    fn len(&self) -> usize {
        self.grad.len()
    }

    fn sum_squares(&self, sum: Sum) -> f64 {
        match &self.grad.0 {
            GradArray::F32(grad) => sum.of_blocks(grad),
            GradArray::F64(grad) => sum.of_blocks(grad),
            GradArray::Bf16(grad) => sum.of_blocks(grad),
            GradArray::F16(grad) => sum.of_blocks(grad),
            GradArray::F32ToZero(grad) => sum.of_blocks(grad),
            GradArray::F64ToZero(grad) => sum.of_blocks(grad),
            GradArray::Bf16ToZero(grad) => sum.of_blocks(grad),
            GradArray::F16ToZero(grad) => sum.of_blocks(grad),
        }
    }
}

impl Gradients for Group<'_, '_> {
    const ARE_F64: bool = true;

    fn len(&self) -> usize {
        Group::len(self)
    }

    fn sum_squares(&self, sum: Sum) -> f64 {
        sum.of_tensors(self.tensors)
    }
}

/// A sum of squares. Its shape is a binary tree over tensors, and then over blocks, that depends on
/// their number alone.
#[derive(Clone, Copy)]
pub(crate) struct Sum {
    cpu: Cpu,
    parallel: bool,
    scale: f64,
}

impl Sum {
    fn of_tensors<T: Gradients>(self, tensors: &[T]) -> f64 {
        match tensors {
            [] => 0.0,
            [tensor] => tensor.sum_squares(self),
            _ => {
                let (left, right) = tensors.split_at(tensors.len() / 2);
                let worth_it = self.is_worth_it(len(left).min(len(right)));
                let [left, right] =
                    partition::join(worth_it, || self.of_tensors(left), || self.of_tensors(right));
                left + right
            }
        }
    }

    pub(crate) fn of_blocks<E: GradElement>(self, values: &[E]) -> f64 {
        let blocks = values.len().div_ceil(BLOCK);
        if blocks <= 1 {
            return self.cpu.run(OfBlock { values, scale: self.scale });
        }
        let (left, right) = values.split_at(blocks / 2 * BLOCK);
        let worth_it = self.is_worth_it(left.len());
        let [left, right] =
            partition::join(worth_it, || self.of_blocks(left), || self.of_blocks(right));
        left + right
    }

    fn is_worth_it(self, len: usize) -> bool {
        self.parallel && len >= PIECE * BLOCK
    }
}

struct OfBlock<'a, E> {
    values: &'a [E],
    scale: f64,
}

impl<E: GradElement> WithSimd for OfBlock<'_, E> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let mut sums = [0.0; SUMS];
        E::add_squares(simd, self.values, self.scale, &mut sums);
        let mut half = SUMS / 2;
        while half > 0 {
            for i in 0..half {
                sums[i] += sums[i + half];
            }
            half /= 2;
        }
        sums[0]
    }
}
