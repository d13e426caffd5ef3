//! Ratings that users give to items, drawn from a hidden truth.

use rand::RngExt;
use rand::seq::SliceRandom;

/// Standard deviation of the noise in a rating: no forecast has a smaller error.
pub const NOISE: f64 = 0.5;

/// How many hidden tastes decide over a rating.
const TASTES: usize = 4;

/// Standard deviation of how generous a user is, and of how good an item.
const OFFSET: f64 = 0.5;

/// The users and the items, from which ratings are drawn.
pub struct World {
    users: Side,
    items: Side,
}

/// All users, or all items.
struct Side {
    frequency: Zipf,
    /// For each one its tastes, and how generous or good it is.
    truth: Vec<[f32; TASTES + 1]>,
}

/// A choice among rows of which few are frequent and most are rare.
struct Zipf {
    /// The frequencies of the most frequent rows, added up.
    cumulative: Vec<f64>,
    /// The rows by frequency.
    by_frequency: Vec<u32>,
}

/// Ratings in the order in which they were given.
pub struct Ratings {
    users: Vec<u32>,
    items: Vec<u32>,
    values: Vec<f32>,
}

/// Some ratings, each by a user of an item; both may come several times.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    pub users: &'a [u32],
    pub items: &'a [u32],
    pub values: &'a [f32],
}

impl World {
    pub fn new(random: &mut impl RngExt, [users, items]: [u32; 2], skew: f64) -> Self {
        Self { users: Side::new(random, users, skew), items: Side::new(random, items, skew) }
    }

    pub fn draw(&self, random: &mut impl RngExt, count: usize) -> Ratings {
        let (mut users, mut items, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..count {
            let (user, item) = (self.users.draw(random), self.items.draw(random));
            users.push(user);
            items.push(item);
            values.push(self.truth(user, item) + uniform(random, NOISE));
        }
        Ratings { users, items, values }
    }

    fn truth(&self, user: u32, item: u32) -> f32 {
        let [.., generous] = self.users.truth[user as usize];
        let [.., good] = self.items.truth[item as usize];
        let tastes = self.users.truth[user as usize].iter().zip(&self.items.truth[item as usize]);
        tastes.take(TASTES).map(|(user, item)| user * item).sum::<f32>() + generous + good
    }
}

impl Side {
    fn new(random: &mut impl RngExt, rows: u32, skew: f64) -> Self {
        // Of this strength, tastes make for a standard deviation of 1 in a rating.
        let taste = (TASTES as f64).powf(-0.25);
        let mut truth = || {
            let mut truth = [0.0; TASTES + 1];
            truth[..TASTES].fill_with(|| uniform(random, taste));
            truth[TASTES] = uniform(random, OFFSET);
            truth
        };
        let truth = (0..rows).map(|_| truth()).collect();
        Self { frequency: Zipf::new(random, rows, skew), truth }
    }

    fn draw(&self, random: &mut impl RngExt) -> u32 {
        self.frequency.draw(random)
    }
}

impl Zipf {
    /// A row is as frequent as 1 / k^skew, where k is its rank, from 1.
    fn new(random: &mut impl RngExt, rows: u32, skew: f64) -> Self {
        let mut sum = 0.0;
        let mut add = |rank: u32| {
            sum += f64::from(rank).powf(-skew);
            sum
        };
        let cumulative = (1..=rows).map(&mut add).collect();
        // Frequent rows lie anywhere in a table, not side by side.
        let mut by_frequency: Vec<u32> = (0..rows).collect();
        by_frequency.shuffle(random);
        Self { cumulative, by_frequency }
    }

    fn draw(&self, random: &mut impl RngExt) -> u32 {
        let last = self.cumulative.len() - 1;
        let place = random.random::<f64>() * self.cumulative[last];
        let rank = self.cumulative.partition_point(|&end| end <= place);
        self.by_frequency[rank.min(last)]
    }
}

impl Ratings {
    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn all(&self) -> Batch<'_> {
        Batch { users: &self.users, items: &self.items, values: &self.values }
    }

    /// All ratings, some at a time.
    pub fn batches(&self, size: usize) -> impl ExactSizeIterator<Item = Batch<'_>> {
        let rows = self.users.chunks(size).zip(self.items.chunks(size));
        let batches = rows.zip(self.values.chunks(size));
        batches.map(|((users, items), values)| Batch { users, items, values })
    }

    /// The error of a forecast that knows nothing but the mean.
    pub fn standard_deviation(&self) -> f64 {
        let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / self.len() as f64;
        let middle = mean(&mut self.values.iter().map(|&value| f64::from(value)));
        mean(&mut self.values.iter().map(|&value| (f64::from(value) - middle).powi(2))).sqrt()
    }
}

/// Uniform around 0.
fn uniform(random: &mut impl RngExt, standard_deviation: f64) -> f32 {
    let bound = (standard_deviation * 3_f64.sqrt()) as f32;
    random.random_range(-bound..bound)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::Random;

    #[test]
    fn second_row_by_frequency_comes_half_as_often_as_the_first() {
        let mut random = Random::seed_from_u64(1);
        let zipf = Zipf::new(&mut random, 10, 1.0);
        let mut counts = [0; 10];
        for _ in 0..100_000 {
            counts[zipf.draw(&mut random) as usize] += 1;
        }
        let count = |rank: usize| f64::from(counts[zipf.by_frequency[rank] as usize]);
        // Within four standard deviations of a count of 17,000.
        assert!((count(1) / count(0) - 0.5).abs() < 0.02);
        assert!((count(9) / count(0) - 0.1).abs() < 0.01);
    }

    #[test]
    fn ratings_are_the_truth_but_for_the_noise() {
        let mut random = Random::seed_from_u64(1);
        let world = World::new(&mut random, [100, 100], 1.0);
        let ratings = world.draw(&mut random, 100_000);
        let mut sum = 0.0;
        for batch in ratings.batches(1) {
            let error = batch.values[0] - world.truth(batch.users[0], batch.items[0]);
            sum += f64::from(error).powi(2);
        }
        assert!(((sum / 1e5).sqrt() / NOISE - 1.0).abs() < 0.01);
        assert!(ratings.standard_deviation() > 2.0 * NOISE);
    }
}
