//! Positions in the tensors of all groups.

use core::ops::Range;

use crate::tensor::{GRAIN, Group, Place, Run};

/// A position in the tensors of all groups, which only moves forward.
pub(super) struct Cursor<'a, 'g, 'x> {
    pub(super) groups: &'a [Group<'g, 'x>],
    pub(super) group: usize,
    pub(super) tensor: usize,
    /// The number of elements before the tensor.
    pub(super) before: usize,
}

impl<'a, 'x> Cursor<'a, '_, 'x> {
    /// Calls `run` with the elements of a range: once for each group that has some of them.
    #[inline]
    #[allow(unsafe_code, reason = "threads share tensors, each for elements of its own")]
    pub(super) fn run(&mut self, range: Range<usize>, mut run: impl FnMut(usize, Run<'a, 'x>)) {
        let mut start = self.seek(range.start);
        let mut group = self.group;
        let end = self.seek(range.end);
        while group <= self.group {
            let tensors = match self.groups.get(group) {
                Some(group) => &*group.tensors,
                None => return,
            };
            let end =
                if group == self.group { end } else { Place { tensor: tensors.len(), element: 0 } };
            if start != end {
                // SAFETY: `pieces::run` gives each thread ranges of its own, and a place depends only on the
                // number of its element. So no two runs share an element.
                run(group, unsafe { Run::new(tensors, start, end) });
            }
            (group, start) = (group + 1, Place { tensor: 0, element: 0 });
        }
    }

    /// The place of the block of an element, which is given by its number among all.
    #[inline]
    fn seek(&mut self, element: usize) -> Place {
        while let Some(group) = self.groups.get(self.group) {
            while let Some(tensor) = group.tensors.get(self.tensor) {
                let inside = element - self.before;
                if inside < tensor.len() {
                    return Place { tensor: self.tensor, element: inside / GRAIN * GRAIN };
                }
                self.before += tensor.len();
                self.tensor += 1;
            }
            if self.group + 1 == self.groups.len() {
                break;
            }
            (self.group, self.tensor) = (self.group + 1, 0);
        }
        Place { tensor: self.tensor, element: 0 }
    }
}
