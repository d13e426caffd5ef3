//! How many bytes a step reads and writes.

use crate::{
    data::{Batch, Ratings},
    way::Way,
};

/// Rows of a table that the batches list.
#[derive(Clone, Copy, Default)]
pub struct Listed {
    /// A row counts as often as it is listed.
    all: usize,
    /// A row counts once a batch.
    distinct: usize,
    batches: usize,
}

impl Listed {
    /// The rows of users, and those of items.
    pub fn count(ratings: &Ratings, batch: usize) -> [Self; 2] {
        let mut listed = [Self::default(); 2];
        for Batch { users, items, .. } in ratings.batches(batch) {
            for (listed, rows) in listed.iter_mut().zip([users, items]) {
                let mut distinct = rows.to_vec();
                distinct.sort_unstable();
                distinct.dedup();
                listed.all += rows.len();
                listed.distinct += distinct.len();
                listed.batches += 1;
            }
        }
        listed
    }

    pub fn distinct_a_batch(self) -> f64 {
        self.distinct as f64 / self.batches as f64
    }

    /// Bytes that a step moves on average, of a table of `rows` by `width`, wherever they lie, in
    /// memory or in a cache.
    ///
    /// ```text
    /// lazy              6 distinct + listed
    /// dense-equivalent  6 distinct + 6 distinct + listed
    /// dense             7 rows + 3 listed + distinct      times 4 width bytes
    /// ```
    ///
    /// A step reads and writes a row three times, as parameter and two moments, and reads its
    /// gradients, one for each time that it is listed. Catching up reads and writes the three once
    /// more, though not those of rows that the batch before listed: so this is a bound. A dense step
    /// reads one more row of gradients for each row of the table; to get there, the listed gradients
    /// are read and added to what is there, and cleared afterwards.
    ///
    /// Left out are the indices, which are a few bytes a row to sort, and the few rows (32 at most)
    /// that catch up in a step because they have waited for thousands.
    pub fn bytes(self, way: Way, rows: usize, width: usize) -> f64 {
        let (listed, distinct) = (self.all as f64 / self.batches as f64, self.distinct_a_batch());
        let moved = match way {
            Way::Lazy => 6.0 * distinct + listed,
            Way::DenseEquivalent => 12.0 * distinct + listed,
            Way::Dense => 7.0 * rows as f64 + 3.0 * listed + distinct,
        };
        moved * (width * size_of::<f32>()) as f64
    }
}
