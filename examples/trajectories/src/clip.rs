//! The part of a path that is inside a picture.

use crate::surface::Point;

/// The least and the greatest x, and y.
pub type View = [[f64; 2]; 2];

/// Whether the view shows this point.
pub fn inside(point: Point, view: View) -> bool {
    point.iter().zip(view).all(|(&value, [low, high])| (low..=high).contains(&value))
}

/// The parts of a path that lie within the view.
pub fn pieces(path: &[Point], view: View) -> Vec<Vec<Point>> {
    let mut pieces: Vec<Vec<Point>> = Vec::new();
    for pair in path.windows(2) {
        let Some([from, to]) = clip([pair[0], pair[1]], view) else { continue };
        match pieces.last_mut() {
            Some(piece) if piece.last() == Some(&from) => piece.push(to),
            _ => pieces.push(vec![from, to]),
        }
    }
    pieces
}

/// The part of a line that lies within the view (Liang and Barsky, 1984).
fn clip([from, to]: [Point; 2], view: View) -> Option<[Point; 2]> {
    if !from.iter().chain(&to).all(|value| value.is_finite()) {
        return None;
    }
    let (mut enter, mut leave) = (0.0_f64, 1.0_f64);
    for axis in 0..2 {
        let step = to[axis] - from[axis];
        let [low, high] = view[axis].map(|border| border - from[axis]);
        if step == 0.0 {
            if low > 0.0 || high < 0.0 {
                return None;
            }
        } else {
            let (near, far) = if step > 0.0 { (low, high) } else { (high, low) };
            enter = enter.max(near / step);
            leave = leave.min(far / step);
        }
    }
    let at = |share: f64| match share {
        0.0 => from,
        1.0 => to,
        _ => [0, 1].map(|axis| from[axis] + share * (to[axis] - from[axis])),
    };
    (enter < leave).then(|| [at(enter), at(leave)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: View = [[0.0, 2.0], [0.0, 1.0]];

    #[test]
    fn path_that_leaves_and_returns_has_two_pieces() {
        let path = [[0.5, 0.5], [1.0, 0.5], [1.0, 1.5], [1.5, 1.5], [1.5, 0.5]];
        assert_eq!(
            pieces(&path, VIEW),
            [vec![[0.5, 0.5], [1.0, 0.5], [1.0, 1.0]], vec![[1.5, 1.0], [1.5, 0.5]]]
        );
    }

    #[test]
    fn path_that_crosses_the_view_shows_its_middle() {
        assert_eq!(pieces(&[[-1.0, 0.5], [3.0, 0.5]], VIEW), [[[0.0, 0.5], [2.0, 0.5]]]);
    }

    #[test]
    fn path_outside_or_without_numbers_has_no_pieces() {
        assert!(pieces(&[[-1.0, 0.5], [-1.0, 3.0], [5.0, 3.0]], VIEW).is_empty());
        assert!(pieces(&[[0.5, 0.5], [f64::NAN, 0.5], [0.5, f64::INFINITY]], VIEW).is_empty());
    }
}
