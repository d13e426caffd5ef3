//! How each optimizer is drawn: colour, kind of line and marker.

use plotters::style::RGBColor;

use crate::method::Method;

/// The kind of line, by family.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Solid,
    Dashed,
    Dotted,
}

/// The mark at the end, by family.
#[derive(Clone, Copy)]
pub enum Marker {
    Circle,
    Triangle,
    Square,
}

#[derive(Clone, Copy)]
pub struct Look {
    pub color: RGBColor,
    pub line: Line,
    pub marker: Marker,
}

impl Look {
    /// In the order of [`Method::ALL`]: three families, each with its line and marker, so that
    /// colours need to differ within a family only. Those of Okabe and Ito, 2008, without the yellow,
    /// which is pale on white, and two dark ones of Tol, 2021: told apart by colour-blind readers too.
    pub const ALL: [Self; 9] = [
        Self::new(RGBColor(0, 0, 0), Line::Dashed, Marker::Circle),
        Self::new(RGBColor(0, 114, 178), Line::Dashed, Marker::Circle),
        Self::new(RGBColor(86, 180, 233), Line::Dashed, Marker::Circle),
        Self::new(RGBColor(0, 158, 115), Line::Dotted, Marker::Triangle),
        Self::new(RGBColor(136, 34, 85), Line::Dotted, Marker::Triangle),
        Self::new(RGBColor(230, 159, 0), Line::Dotted, Marker::Triangle),
        Self::new(RGBColor(213, 94, 0), Line::Solid, Marker::Square),
        Self::new(RGBColor(204, 121, 167), Line::Solid, Marker::Square),
        Self::new(RGBColor(51, 34, 136), Line::Solid, Marker::Square),
    ];

    const fn new(color: RGBColor, line: Line, marker: Marker) -> Self {
        Self { color, line, marker }
    }

    pub fn of(method: Method) -> Self {
        Self::ALL[method as usize]
    }
}
