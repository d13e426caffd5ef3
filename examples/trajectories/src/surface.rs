//! Functions of two variables, with where to start and what counts as arriving.

use crate::clip::View;
use crate::race::Problem;

/// A point of the plane.
pub type Point = [f64; 2];

/// A function to walk down on.
pub struct Surface {
    pub title: &'static str,
    /// The beginning of the pictures' names.
    pub file: &'static str,
    pub value: fn(Point) -> f64,
    pub gradient: fn(Point) -> Point,
    pub start: Point,
    pub goal: Goal,
    /// No chosen path has a longer step on its way.
    pub longest_step: f64,
    /// Steps of every run.
    pub steps: usize,
    /// The part of the plane in the pictures.
    pub view: View,
    /// Where the contour lines run.
    pub levels: Vec<f64>,
}

/// The goal of a path.
#[derive(Clone, Copy)]
pub enum Goal {
    /// To come this near to the minimum.
    Near { minimum: Point, distance: f64 },
    /// To get this far from the x axis, the saddle's ridge.
    Leave { distance: f64 },
}

impl Problem for Surface {
    fn start(&self) -> Vec<f64> {
        self.start.to_vec()
    }

    fn steps(&self) -> usize {
        self.steps
    }

    fn gradient(&self, params: &[f64], grads: &mut [f64]) {
        grads.copy_from_slice(&(self.gradient)([params[0], params[1]]));
    }

    fn point(&self, _step: usize, params: &[f64]) -> Point {
        [params[0], params[1]]
    }

    fn remaining(&self, point: Point) -> f64 {
        match self.goal {
            Goal::Near { minimum, distance: near } => distance(point, minimum) - near,
            Goal::Leave { distance: far } => far - point[1].abs(),
        }
    }

    fn is_allowed(&self, path: &[Point]) -> bool {
        let end = match self.goal {
            Goal::Near { .. } => None,
            // Beyond, the gradient grows without end.
            Goal::Leave { .. } => path.iter().position(|&point| self.remaining(point) <= 0.0),
        };
        let way = end.map_or(path, |end| &path[..=end]);
        way.windows(2).all(|pair| distance(pair[0], pair[1]) <= self.longest_step)
    }
}

fn distance([from_x, from_y]: Point, [to_x, to_y]: Point) -> f64 {
    (to_x - from_x).hypot(to_y - from_y)
}

/// Beale's function: a flat valley at the foot of steep walls.
pub fn beale() -> Surface {
    Surface {
        title: "Beale's function",
        file: "beale",
        value: |[x, y]| beale_terms(x, y).map(|(term, _, _)| term * term).iter().sum(),
        gradient: |[x, y]| {
            let terms = beale_terms(x, y);
            [
                terms.map(|(term, by_x, _)| 2.0 * term * by_x).iter().sum(),
                terms.map(|(term, _, by_y)| 2.0 * term * by_y).iter().sum(),
            ]
        },
        start: [1.0, 1.5],
        goal: Goal::Near { minimum: [3.0, 0.5], distance: 0.1 },
        longest_step: 1.5,
        steps: 500,
        view: [[-1.0, 4.5], [-2.2, 2.0]],
        levels: powers(0.02, 2.5, 12),
    }
}

/// The terms `c - x + x y^n`, each with its derivatives by x and by y.
fn beale_terms(x: f64, y: f64) -> [(f64, f64, f64); 3] {
    [(1.5, 1), (2.25, 2), (2.625, 3)].map(|(c, n)| {
        let power = y.powi(n - 1);
        (c - x + x * power * y, power * y - 1.0, f64::from(n) * x * power)
    })
}

/// A bowl, 50 times as steep across as along.
///
/// It lies askew: along an axis, dividing each coordinate by its own scale would make it round.
pub fn long_valley() -> Surface {
    Surface {
        title: "Long valley: (2x+y)\u{b2}/10 + 5(2y-x)\u{b2}",
        file: "long-valley",
        value: |[x, y]| 0.1 * (2.0 * x + y).powi(2) + 5.0 * (2.0 * y - x).powi(2),
        gradient: |[x, y]| {
            let (along, across) = (0.2 * (2.0 * x + y), 10.0 * (2.0 * y - x));
            [2.0 * along - across, along + 2.0 * across]
        },
        start: [-4.0, -1.0],
        goal: Goal::Near { minimum: [0.0, 0.0], distance: 0.1 },
        longest_step: 1.5,
        steps: 300,
        view: [[-4.5, 2.5], [-2.5, 1.5]],
        levels: powers(0.03, 2.0, 11),
    }
}

/// A saddle, started beside its ridge.
pub fn saddle_point() -> Surface {
    Surface {
        title: "Saddle point: x\u{b2} - y\u{b2}",
        file: "saddle-point",
        value: |[x, y]| x * x - y * y,
        gradient: |[x, y]| [2.0 * x, -2.0 * y],
        start: [1.0, 1e-4],
        goal: Goal::Leave { distance: 0.5 },
        longest_step: 0.1,
        steps: 200,
        view: [[-0.6, 1.2], [-0.4, 1.0]],
        levels: (-12..15).map(|level| 0.1 * f64::from(level)).collect(),
    }
}

fn powers(first: f64, factor: f64, count: i32) -> Vec<f64> {
    (0..count).map(|power| first * factor.powi(power)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tolerance covers differences of second order over 1e-5.
    #[test]
    fn gradients_match_central_differences() {
        for surface in [beale(), long_valley(), saddle_point()] {
            for [x, y] in [surface.start, [0.3, -0.7], [-1.1, 0.4], [2.5, 0.6]] {
                let h = 1e-5;
                let value = surface.value;
                let slopes = [
                    (value([x + h, y]) - value([x - h, y])) / (2.0 * h),
                    (value([x, y + h]) - value([x, y - h])) / (2.0 * h),
                ];
                let gradient = (surface.gradient)([x, y]);
                for (slope, derivative) in slopes.into_iter().zip(gradient) {
                    let error = (slope - derivative).abs();
                    assert!(error < 1e-6 * derivative.abs().max(1.0), "{}", surface.title);
                }
            }
        }
    }

    #[test]
    fn minima_are_flat_and_zero() {
        for surface in [beale(), long_valley()] {
            let Goal::Near { minimum, .. } = surface.goal else { panic!("no minimum") };
            assert_eq!((surface.value)(minimum), 0.0);
            assert_eq!((surface.gradient)(minimum), [0.0, 0.0]);
        }
    }
}
