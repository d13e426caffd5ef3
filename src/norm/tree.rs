//! The order of a sum: a binary tree of tensors, and below each tensor of its blocks. Its shape depends only on
//! the numbers of tensors and blocks. Threads sum up subtrees, and the caller joins these sums along the tree.

use core::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::{
    NormOrder,
    blocks::{BLOCK, OfBlock, Summed},
    gradients::{Gradients, List},
};
use crate::{
    Threads,
    isa::Cpu,
    pieces,
    simd::{Simd, WithSimd},
};

/// The largest number of subtrees that threads share: more than any machine of today has threads, and 12 KiB of
/// stack.
const MOST_SUBTREES: usize = 256;
/// The number of subtrees that is aimed at.
const SUBTREES: usize = 128;
/// The smallest number of elements of a subtree that is worth a piece of its own.
const LEAST: usize = 8 * BLOCK;
/// The number of gradients that are summed up in the time of one element of a dense step. In f32, a step moves
/// 28 bytes an element, and a sum 4.
const GRADS_PER_ELEMENT: usize = 4;

/// A node of the tree: some tensors, or some blocks of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    tensor: usize,
    tensors: usize,
    /// The first block, if there is only one tensor.
    block: usize,
    blocks: usize,
}

impl Node {
    const NONE: Self = Self { tensor: 0, tensors: 0, block: 0, blocks: 0 };

    fn new<L: List + ?Sized>(all: &L, tensor: usize, tensors: usize) -> Self {
        let blocks = if tensors == 1 { blocks(all.item(tensor)) } else { 0 };
        Self { tensor, tensors, block: 0, blocks }
    }

    /// The two nodes below, if there are any.
    fn split<L: List + ?Sized>(self, all: &L) -> Option<[Self; 2]> {
        let Self { tensor, tensors, block, blocks } = self;
        if tensors > 1 {
            let left = tensors / 2;
            return Some([
                Self::new(all, tensor, left),
                Self::new(all, tensor + left, tensors - left),
            ]);
        }
        let left = blocks / 2;
        let right = Self { block: block + left, blocks: blocks - left, ..self };
        (left > 0).then_some([Self { blocks: left, ..self }, right])
    }

    fn is_whole_tensor<L: List + ?Sized>(self, all: &L) -> bool {
        self.tensors == 1 && self.blocks == blocks(all.item(self.tensor))
    }

    /// The number of elements.
    fn len<L: List + ?Sized>(self, all: &L) -> usize {
        if self.tensors == 1 {
            let rest = all.item(self.tensor).len() - self.block * BLOCK;
            return rest.min(self.blocks.saturating_mul(BLOCK));
        }
        total(all, self.tensor..self.tensor + self.tensors)
    }
}

fn blocks<T: Gradients>(tensor: &T) -> usize {
    tensor.len().div_ceil(BLOCK)
}

/// The number of elements of some tensors. Gradients may share memory, so the sum can exceed `usize`, at least
/// on 32 bits. It is used only to choose the pieces.
fn total<L: List + ?Sized>(all: &L, tensors: Range<usize>) -> usize {
    tensors.map(|tensor| all.item(tensor).len()).fold(0, usize::saturating_add)
}

/// The subtrees that are pieces, from left to right.
struct Subtrees {
    nodes: [Node; MOST_SUBTREES],
    count: usize,
}

impl Subtrees {
    fn new<L: List + ?Sized>(all: &L, len: usize) -> Self {
        let mut found = Self { nodes: [Node::NONE; MOST_SUBTREES], count: 0 };
        let root = Node::new(all, 0, all.count());
        let mut limit = (len / SUBTREES).max(LEAST);
        // A deep tree has many small subtrees beside the large ones. With a larger limit there are fewer.
        while !found.collect(all, root, len, limit) {
            found.count = 0;
            limit = limit.saturating_mul(2);
        }
        found
    }

    /// Collects the largest nodes of at most `limit` elements; false if there are too many of them.
    fn collect<L: List + ?Sized>(&mut self, all: &L, node: Node, len: usize, limit: usize) -> bool {
        if len > limit
            && let Some([left, right]) = node.split(all)
        {
            let (left_len, right_len) = (left.len(all), right.len(all));
            return self.collect(all, left, left_len, limit)
                && self.collect(all, right, right_len, limit);
        }
        let Some(place) = self.nodes.get_mut(self.count) else { return false };
        *place = node;
        self.count += 1;
        true
    }
}

/// The sum of squares or of absolute values, or the largest absolute value, depending on the order of the norm.
/// `block` and `blocks` are the range of blocks within a tensor.
#[derive(Clone, Copy)]
pub(crate) struct Sum {
    order: NormOrder,
    cpu: Cpu,
    scale: f64,
    block: usize,
    blocks: usize,
}

impl Sum {
    pub(super) fn new(order: NormOrder, cpu: Cpu, scale: f64) -> Self {
        Self { order, cpu, scale, block: 0, blocks: 0 }
    }

    /// The sum of all tensors. `whole` is called with the sum of each tensor, on any thread.
    pub(super) fn of_tensors<L: List + ?Sized>(
        self,
        threads: Threads<'_>,
        all: &L,
        whole: &(dyn Fn(usize, f64) + Sync),
    ) -> f64 {
        if all.count() == 0 {
            return 0.0;
        }
        let len = total(all, 0..all.count());
        let elements = len / GRADS_PER_ELEMENT;
        if !pieces::may_share(threads, elements) {
            return self.of_node(all, Node::new(all, 0, all.count()), whole);
        }
        let subtrees = Subtrees::new(all, len);
        let nodes = &subtrees.nodes[..subtrees.count];
        let sums = Mutex::new([0.0; MOST_SUBTREES]);
        pieces::run_indexed(threads, elements, nodes.len(), &|numbers| {
            for number in numbers {
                let sum = self.of_node(all, nodes[number], whole);
                sums.lock().unwrap_or_else(PoisonError::into_inner)[number] = sum;
            }
        });
        let sums = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut sums = nodes.iter().copied().zip(sums).peekable();
        self.of_sums(all, Node::new(all, 0, all.count()), &mut sums, whole)
    }

    /// The sum of a node, on this thread.
    fn of_node<L: List + ?Sized>(
        self,
        all: &L,
        node: Node,
        whole: &(dyn Fn(usize, f64) + Sync),
    ) -> f64 {
        if node.tensors > 1
            && let Some([left, right]) = node.split(all)
        {
            return self.add(self.of_node(all, left, whole), self.of_node(all, right, whole));
        }
        let sum = Self { block: node.block, blocks: node.blocks, ..self };
        let sum = all.item(node.tensor).sum_squares(sum);
        if node.is_whole_tensor(all) {
            whole(node.tensor, sum);
        }
        sum
    }

    /// The sum of a node, from the sums of the subtrees, the first of which is the leftmost one below the node.
    fn of_sums<L: List + ?Sized>(
        self,
        all: &L,
        node: Node,
        sums: &mut core::iter::Peekable<impl Iterator<Item = (Node, f64)>>,
        whole: &(dyn Fn(usize, f64) + Sync),
    ) -> f64 {
        if let Some((_, sum)) = sums.next_if(|&(subtree, _)| subtree == node) {
            return sum;
        }
        let Some([left, right]) = node.split(all) else { return 0.0 };
        let left = self.of_sums(all, left, sums, whole);
        let sum = self.add(left, self.of_sums(all, right, sums, whole));
        if node.is_whole_tensor(all) {
            whole(node.tensor, sum);
        }
        sum
    }

    /// The sum of the range of blocks, from all gradients of the tensor.
    pub(crate) fn of_blocks<E: Summed>(self, grads: &[E]) -> f64 {
        self.of_blocks_by(grads.len(), &|block| self.of_block(&grads[block]))
    }

    /// The sum of the node's blocks out of `len` gradients; `of_block` sums up a block.
    pub(crate) fn of_blocks_by(self, len: usize, of_block: &impl Fn(Range<usize>) -> f64) -> f64 {
        let start = self.block * BLOCK;
        let end = start.saturating_add(self.blocks.saturating_mul(BLOCK)).min(len);
        self.of_range(start..end, of_block)
    }

    fn of_range(self, elements: Range<usize>, of_block: &impl Fn(Range<usize>) -> f64) -> f64 {
        let blocks = elements.len().div_ceil(BLOCK);
        if blocks <= 1 {
            return of_block(elements);
        }
        let middle = elements.start + blocks / 2 * BLOCK;
        let left = self.of_range(elements.start..middle, of_block);
        self.add(left, self.of_range(middle..elements.end, of_block))
    }

    /// The sum of a block.
    fn of_block<E: Summed>(self, values: &[E]) -> f64 {
        self.cpu.run(OfBlock { values, order: self.order, scale: self.scale })
    }

    /// The same, inside a dispatch.
    #[inline(always)]
    pub(crate) fn of_block_with<S: Simd, E: Summed>(self, simd: S, values: &[E]) -> f64 {
        OfBlock { values, order: self.order, scale: self.scale }.with_simd(simd)
    }

    pub(crate) fn cpu(self) -> Cpu {
        self.cpu
    }

    fn add(self, left: f64, right: f64) -> f64 {
        match self.order {
            NormOrder::One | NormOrder::Two => left + right,
            NormOrder::Infinity if left > right || left.is_nan() => left,
            NormOrder::Infinity => right,
        }
    }
}
