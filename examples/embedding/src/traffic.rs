//! How many bytes a step reads and writes.

use crate::data::{Batch, Ratings};
use crate::way::Way;

/// Rows of a table that a batch lists, on average over batches.
#[derive(Clone, Copy, Default)]
pub struct Listed {
    /// Each as often as it is listed.
    pub all: f64,
    /// Each once.
    pub distinct: f64,
    /// Each once, without those that the batch before lists too.
    pub waiting: f64,
}

impl Listed {
    /// Rows of users, and rows of items.
    pub fn count(ratings: &Ratings, batch: usize) -> [Self; 2] {
        let batches = ratings.batches(batch);
        let share = 1.0 / batches.len() as f64;
        let (mut listed, mut before) = ([Self::default(); 2], [vec![], vec![]]);
        for (index, Batch { users, items, .. }) in batches.enumerate() {
            let tables = listed.iter_mut().zip(&mut before).zip([users, items]);
            for ((listed, before), rows) in tables {
                let mut distinct = rows.to_vec();
                distinct.sort_unstable();
                distinct.dedup();
                let waits = |row: &&u32| index > 0 && before.binary_search(*row).is_err();
                listed.all += share * rows.len() as f64;
                listed.distinct += share * distinct.len() as f64;
                listed.waiting += share * distinct.iter().filter(waits).count() as f64;
                *before = distinct;
            }
        }
        listed
    }

    /// Bytes that a step of a table of `rows` by `width` reads and writes, wherever they lie, in
    /// memory or in a cache:
    ///
    /// ```text
    /// lazy              6 distinct + all
    /// dense-equivalent  6 distinct + all + 6 waiting
    /// dense             7 rows + 3 all + distinct         times 4 width
    /// ```
    ///
    /// A step reads and writes three arrays of a row, which are the parameters and two moments, and
    /// reads its gradients. To catch up, a row's three arrays are read and written once more, unless
    /// the last step listed the row. A dense step reads a gradient for each row; to get there, the
    /// listed gradients are read, those that lie there for the same row are read and written, and in
    /// the end they are cleared.
    ///
    /// Left out are the indices, which are a few bytes a row, and in dense-equivalent steps the rows,
    /// 32 at most, that catch up because they have waited for very long.
    pub fn bytes(self, way: Way, rows: usize, width: usize) -> f64 {
        let Self { all, distinct, waiting } = self;
        let moved = match way {
            Way::Lazy => 6.0 * distinct + all,
            Way::Series | Way::Replay => 6.0 * distinct + all + 6.0 * waiting,
            Way::Dense => 7.0 * rows as f64 + 3.0 * all + distinct,
        };
        moved * (width * size_of::<f32>()) as f64
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::Random;
    use crate::data::World;

    #[test]
    fn one_row_is_listed_by_every_batch_and_never_waits() {
        let mut random = Random::seed_from_u64(1);
        let ratings = World::new(&mut random, [1, 1], 1.0).draw(&mut random, 12);
        let [users, _] = Listed::count(&ratings, 4);
        assert_eq!([users.all, users.distinct, users.waiting].map(f64::round), [4.0, 1.0, 0.0]);
    }

    /// 4 gradients of 2 rows of 8 floats, of which 1 waited, in a table of 10.
    #[test]
    fn bytes_are_those_of_the_arrays() {
        let listed = Listed { all: 4.0, distinct: 2.0, waiting: 1.0 };
        let rows = |way| listed.bytes(way, 10, 8) / 32.0;
        let [lazy, series, replay, dense] = Way::ALL.map(rows);
        assert_eq!([lazy, series, replay, dense], [16.0, 22.0, 22.0, 84.0]);
    }
}
