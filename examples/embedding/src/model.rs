//! Matrix factorisation: a rating is the inner product of two rows.

use adamant::{Buffer, table::RowGrads};
use rand::RngExt;

use crate::data::{Batch, Ratings};

/// Bound of the initial factors.
const SPREAD: f32 = 0.1;

/// A row for each user and each item: factors, and in the last column a bias.
///
/// The forecast of a rating is the inner product of the factors, plus both biases.
pub struct Model {
    pub users: Buffer<f32>,
    pub items: Buffer<f32>,
    width: usize,
}

/// The gradient of a batch: for each rating a row for its user and a row for its item.
///
/// Gradients of the same row are not added up here: the step does that.
pub struct Gradient {
    users: Vec<f32>,
    items: Vec<f32>,
    width: usize,
}

/// A rating, with the rows that foretell it.
struct Rated<'a> {
    user: &'a [f32],
    item: &'a [f32],
    value: f32,
}

impl Model {
    /// Small random factors, and biases of zero.
    pub fn new(random: &mut impl RngExt, rows: [usize; 2], width: usize) -> Self {
        // The rows of a batch lie far apart: on huge pages they are found faster than in a `Vec`.
        let [mut users, mut items] = rows.map(|rows| Buffer::zeros(rows * width));
        for row in users.chunks_mut(width).chain(items.chunks_mut(width)) {
            row[..width - 1].fill_with(|| random.random_range(-SPREAD..SPREAD));
        }
        Self { users, items, width }
    }

    /// Writes the gradient of the mean squared error over a batch.
    pub fn gradient(&self, batch: Batch, gradient: &mut Gradient) {
        let Gradient { users, items, width } = gradient;
        users.resize(batch.users.len() * *width, 0.0);
        items.resize(batch.items.len() * *width, 0.0);
        let grads = users.chunks_mut(*width).zip(items.chunks_mut(*width));
        for (rated, (user_grad, item_grad)) in self.rated(batch).zip(grads) {
            let slope = 2.0 * rated.error() / batch.values.len() as f32;
            write_gradient(user_grad, slope, rated.item);
            write_gradient(item_grad, slope, rated.user);
        }
    }

    /// The root of the mean squared error over all ratings.
    pub fn error(&self, ratings: &Ratings) -> f64 {
        let squares = self.rated(ratings.all()).map(|rated| f64::from(rated.error()).powi(2));
        (squares.sum::<f64>() / ratings.len() as f64).sqrt()
    }

    /// The largest difference of a parameter between two models.
    pub fn distance(&self, other: &Self) -> f32 {
        largest(self.params().zip(other.params()).map(|(param, other)| param - other))
    }

    /// The largest size of a parameter.
    pub fn largest(&self) -> f32 {
        largest(self.params())
    }

    fn params(&self) -> impl Iterator<Item = f32> {
        self.users.iter().chain(&*self.items).copied()
    }

    fn rated<'a>(&'a self, batch: Batch<'a>) -> impl Iterator<Item = Rated<'a>> {
        let row = |table: &'a [f32], row: u32| &table[row as usize * self.width..][..self.width];
        let rows = batch.users.iter().zip(batch.items);
        rows.zip(batch.values).map(move |((&user, &item), &value)| Rated {
            user: row(&self.users, user),
            item: row(&self.items, item),
            value,
        })
    }
}

/// The largest size of a number: NaN if there is one, which `f32::max` would ignore.
fn largest(numbers: impl Iterator<Item = f32>) -> f32 {
    numbers.map(f32::abs).max_by(f32::total_cmp).unwrap_or_default()
}

impl Rated<'_> {
    /// By how much the forecast is too high.
    fn error(&self) -> f32 {
        let bias = self.user.len() - 1;
        let products = self.user[..bias].iter().zip(&self.item[..bias]);
        let product: f32 = products.map(|(user, item)| user * item).sum();
        product + self.user[bias] + self.item[bias] - self.value
    }
}

/// Writes a row's gradient, given that of the forecast and the row at the other end of the product.
fn write_gradient(grad: &mut [f32], slope: f32, other: &[f32]) {
    for (grad, other) in grad.iter_mut().zip(other) {
        *grad = slope * other;
    }
    if let Some(bias) = grad.last_mut() {
        *bias = slope;
    }
}

impl Gradient {
    pub fn new(width: usize) -> Self {
        Self { users: Vec::new(), items: Vec::new(), width }
    }

    /// For the table of users.
    pub fn users<'a>(&'a self, batch: Batch<'a>) -> RowGrads<'a, u32, f32> {
        RowGrads::new(batch.users, &self.users, self.width)
    }

    /// For the table of items.
    pub fn items<'a>(&'a self, batch: Batch<'a>) -> RowGrads<'a, u32, f32> {
        RowGrads::new(batch.items, &self.items, self.width)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::Random;
    use crate::data::World;

    const WIDTH: usize = 5;

    /// A table's gradient, with what belongs to the same row added up.
    fn dense(grads: RowGrads<u32, f32>, rows: usize) -> Vec<f32> {
        let mut sums = vec![0.0; rows * WIDTH];
        for (&row, values) in grads.rows.iter().zip(grads.values.chunks(WIDTH)) {
            let place = row as usize * WIDTH;
            sums[place..place + WIDTH].iter_mut().zip(values).for_each(|(sum, x)| *sum += x);
        }
        sums
    }

    /// The loss is a parabola in each parameter, and so differences miss its slope by no more than
    /// rounding: 2^-23 of forecasts and ratings below 4, over a shift of 0.05.
    #[test]
    fn gradient_matches_differences_of_the_loss() {
        let mut random = Random::seed_from_u64(1);
        let ratings = World::new(&mut random, [6, 4], 1.0).draw(&mut random, 20);
        let mut model = Model::new(&mut random, [6, 4], WIDTH);
        let (batch, mut gradient) = (ratings.all(), Gradient::new(WIDTH));
        model.gradient(batch, &mut gradient);
        let mut grads = dense(gradient.users(batch), 6);
        grads.extend(dense(gradient.items(batch), 4));

        for (index, &grad) in grads.iter().enumerate() {
            let mut loss_at = |shift: f32| {
                let param = model.users.iter_mut().chain(&mut *model.items).nth(index).unwrap();
                let before = std::mem::replace(param, *param + shift);
                let loss = model.error(&ratings).powi(2);
                *model.users.iter_mut().chain(&mut *model.items).nth(index).unwrap() = before;
                loss
            };
            let slope = (loss_at(0.05) - loss_at(-0.05)) / 0.1;
            assert!((slope - f64::from(grad)).abs() < 4e-5, "{index}: {slope} and {grad}");
        }
    }

    #[test]
    fn forecast_of_zeros_is_zero() {
        let rated = Rated { user: &[0.0; 3], item: &[0.0; 3], value: 1.5 };
        assert_eq!(rated.error(), -1.5);
    }

    #[test]
    fn largest_sees_nan() {
        assert!(largest([1.0, f32::NAN, -2.0, f32::NAN].into_iter()).is_nan());
        assert!(largest([f32::NAN, 1.0].into_iter()).is_nan());
        assert_eq!(largest([1.0, -2.0].into_iter()), 2.0);
    }
}
