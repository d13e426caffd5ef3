//! The gradients that a norm is computed from.

use super::tree::Sum;
use crate::{Element, Grad, Group, Tensor, array::GradArray};

/// A tensor that has gradients.
pub(crate) trait Gradients: Sync {
    fn len(&self) -> usize;

    fn are_f64(&self) -> bool;

    /// [`Sum::of_blocks`] of the gradients.
    fn sum_squares(&self, sum: Sum) -> f64;
}

impl<E: Element> Gradients for &[E] {
    fn len(&self) -> usize {
        <[E]>::len(self)
    }

    fn are_f64(&self) -> bool {
        size_of::<E>() == 8
    }

    fn sum_squares(&self, sum: Sum) -> f64 {
        E::grad(self).sum_squares(sum)
    }
}

impl Gradients for Grad<'_> {
    fn len(&self) -> usize {
        Grad::len(self)
    }

    fn are_f64(&self) -> bool {
        matches!(self.0, GradArray::F64(_) | GradArray::F64ToZero(_))
    }

    fn sum_squares(&self, sum: Sum) -> f64 {
        match &self.0 {
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

impl Gradients for Tensor<'_> {
    fn len(&self) -> usize {
        self.grad.len()
    }

    fn are_f64(&self) -> bool {
        self.grad.are_f64()
    }

    fn sum_squares(&self, sum: Sum) -> f64 {
        self.grad.sum_squares(sum)
    }
}

/// A list of tensors.
pub(crate) trait List: Sync {
    type Item: Gradients;

    fn count(&self) -> usize;

    fn item(&self, index: usize) -> &Self::Item;
}

impl<T: Gradients> List for [T] {
    type Item = T;

    fn count(&self) -> usize {
        self.len()
    }

    fn item(&self, index: usize) -> &T {
        &self[index]
    }
}

/// The tensors of all groups. The grouping does not change the sum.
impl<'x> List for [Group<'_, 'x>] {
    type Item = Tensor<'x>;

    fn count(&self) -> usize {
        self.iter().map(|group| group.tensors.len()).sum()
    }

    fn item(&self, mut index: usize) -> &Tensor<'x> {
        let mut groups = self;
        while let [group, rest @ ..] = groups {
            if index < group.tensors.len() || rest.is_empty() {
                return &group.tensors[index];
            }
            (index, groups) = (index - group.tensors.len(), rest);
        }
        unreachable!("no index where there are no tensors")
    }
}
