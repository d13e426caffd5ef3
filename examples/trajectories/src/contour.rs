//! Lines along which a function of two variables has one value: marching squares.

use std::collections::BTreeMap;

use crate::clip::View;
use crate::surface::Point;

/// Cells of the grid in each direction.
const CELLS: usize = 160;

/// An edge of the grid: its lower left corner, and whether it goes up.
type Edge = (usize, usize, bool);

/// The lines on which `value` is `level`, inside of the view.
pub fn lines(value: impl Fn(Point) -> f64, view: View, level: f64) -> Vec<Vec<Point>> {
    let corner = |column: usize, row: usize| {
        let along = |[low, high]: [f64; 2], cell| low + (high - low) * cell as f64 / CELLS as f64;
        [along(view[0], column), along(view[1], row)]
    };
    let height = |column, row| value(corner(column, row)) - level;

    let mut links: BTreeMap<Edge, Vec<Edge>> = BTreeMap::new();
    for column in 0..CELLS {
        for row in 0..CELLS {
            // Counterclockwise: each edge with the signs of its ends.
            let signs = [(0, 0), (1, 0), (1, 1), (0, 1)]
                .map(|(right, up)| height(column + right, row + up) < 0.0);
            let edges = [
                (column, row, false),
                (column + 1, row, true),
                (column, row + 1, false),
                (column, row, true),
            ];
            let crossed: Vec<Edge> =
                (0..4).filter(|&i| signs[i] != signs[(i + 1) % 4]).map(|i| edges[i]).collect();
            // Four crossings are a saddle within one cell; either pairing is as good.
            for pair in crossed.chunks_exact(2) {
                links.entry(pair[0]).or_default().push(pair[1]);
                links.entry(pair[1]).or_default().push(pair[0]);
            }
        }
    }

    let cross = |(column, row, up): Edge| {
        let (from, to) =
            (corner(column, row), corner(column + usize::from(!up), row + usize::from(up)));
        let (low, high) = (value(from) - level, value(to) - level);
        let share = low / (low - high);
        [0, 1].map(|axis| from[axis] + share * (to[axis] - from[axis]))
    };
    let mut lines = Vec::new();
    while let Some(end) = end(&links) {
        lines.push(follow(&mut links, end).into_iter().map(cross).collect());
    }
    lines
}

/// Where a line begins: at the border, or anywhere on what is left, which is closed.
fn end(links: &BTreeMap<Edge, Vec<Edge>>) -> Option<Edge> {
    let open = links.iter().find(|(_, next)| next.len() == 1);
    open.or_else(|| links.iter().next()).map(|(&edge, _)| edge)
}

/// Takes the line that begins here out of the links.
fn follow(links: &mut BTreeMap<Edge, Vec<Edge>>, start: Edge) -> Vec<Edge> {
    let mut line = vec![start];
    let mut at = start;
    while let Some(next) = links.remove(&at) {
        match next.iter().find(|edge| links.contains_key(edge)) {
            Some(&edge) => {
                line.push(edge);
                at = edge;
            }
            None if line.len() > 2 && next.contains(&start) => line.push(start),
            None => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: View = [[-2.0, 2.0], [-2.0, 2.0]];

    /// The tolerance is that of linear interpolation on cells of 1/40.
    #[test]
    fn circle_is_one_closed_line() {
        let lines = lines(|[x, y]| x * x + y * y, VIEW, 1.0);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].first(), lines[0].last());
        assert!(lines[0].iter().all(|[x, y]| (x.hypot(*y) - 1.0).abs() < 1e-3));
    }

    #[test]
    fn hyperbola_is_two_open_lines() {
        let lines = lines(|[x, y]| x * x - y * y, VIEW, 0.5);
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line.first() != line.last()));
    }

    #[test]
    fn level_out_of_reach_has_no_line() {
        assert!(lines(|[x, y]| x * x + y * y, VIEW, -1.0).is_empty());
    }
}
