//! The scenes of the pictures, drawn by plotters on any of its backends.

use anyhow::Result;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::canvas::{Rgb, TEXT_HEIGHT};
use crate::clip::{View, inside, pieces};
use crate::look::{Line, Look, Marker};
use crate::race::Entry;
use crate::report::count;
use crate::surface::Point;

/// The size of everything drawn; animations show it at half.
pub const WIDTH: u32 = 1560;
pub const HEIGHT: u32 = 960;

/// The right part, for the legend.
const LEGEND: u32 = 510;
const TOP: u32 = 70;
const BOTTOM: u32 = 100;
const LINE_HEIGHT: i32 = 44;

const TEXT: RGBColor = RGBColor(40, 40, 40);
const CONTOUR: RGBColor = RGBColor(190, 190, 190);

/// A background and the runs before it.
pub struct Scene<'a> {
    pub title: String,
    /// Below the picture, line by line.
    pub caption: Vec<String>,
    pub axes: [&'static str; 2],
    /// The part of the plane that is shown.
    pub view: View,
    pub contours: Vec<Vec<Point>>,
    pub marks: Vec<Mark>,
    /// How to write a number on the y axis.
    pub y_tick: fn(f64) -> String,
    /// The title of the legend's last column.
    pub arrival: String,
    pub entries: &'a [Entry],
}

/// A point with a name.
pub struct Mark {
    pub name: &'static str,
    pub point: Point,
    /// Whether the name stands above the point instead of below.
    pub above: bool,
}

type Area<DB> = DrawingArea<DB, Shift>;
type Chart<'a, DB> = ChartContext<'a, DB, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Every colour of a scene but white.
pub fn inks() -> Vec<Rgb> {
    let looks = Look::ALL.iter().map(|look| look.color);
    let inks = looks.chain([TEXT, CONTOUR]);
    inks.map(|RGBColor(red, green, blue)| [red, green, blue]).collect()
}

impl Scene<'_> {
    /// Draws everything but the runs.
    pub fn draw_background<DB>(&self, root: &Area<DB>) -> Result<()>
    where
        DB: DrawingBackend<ErrorType: 'static>,
    {
        root.fill(&WHITE)?;
        let text = text_style();
        root.draw(&Text::new(
            self.title.clone(),
            (20, 20),
            ("sans-serif", TEXT_HEIGHT, FontStyle::Bold).into_font().color(&TEXT),
        ))?;
        for (line, y) in self.caption.iter().zip((HEIGHT as i32 - 84..).step_by(38)) {
            root.draw(&Text::new(line.clone(), (20, y), text.clone()))?;
        }
        let mut chart = self.chart(root)?;
        chart
            .configure_mesh()
            .disable_mesh()
            .x_desc(self.axes[0])
            .y_desc(self.axes[1])
            .x_labels(7)
            .y_labels(7)
            .x_label_formatter(&|x| tick(*x))
            .y_label_formatter(&|y| (self.y_tick)(*y))
            .axis_style(TEXT)
            .label_style(text.clone())
            .draw()?;
        let place = |&[x, y]: &Point| chart.backend_coord(&(x, y));
        for line in &self.contours {
            let line: Vec<_> = line.iter().map(place).collect();
            root.draw(&PathElement::new(line, CONTOUR.stroke_width(2)))?;
        }
        for mark in &self.marks {
            let (x, y) = place(&mark.point);
            let text_y = if mark.above { y - 40 } else { y + 20 };
            root.draw(&Cross::new((x, y), 10, TEXT.stroke_width(4)))?;
            root.draw(&Text::new(mark.name, (x + 16, text_y), text.clone()))?;
        }
        self.draw_legend(root)
    }

    fn draw_legend<DB>(&self, root: &Area<DB>) -> Result<()>
    where
        DB: DrawingBackend<ErrorType: 'static>,
    {
        let text = text_style().pos(Pos::new(HPos::Left, VPos::Center));
        let right = text.pos(Pos::new(HPos::Right, VPos::Center));
        let left = (WIDTH - LEGEND) as i32 + 10;
        let (rates, counts) = (WIDTH as i32 - 130, WIDTH as i32 - 30);
        let mut y = TOP as i32 + 20;
        root.draw(&Text::new("learning rate", (rates, y), right.clone()))?;
        root.draw(&Text::new("steps*", (counts, y), right.clone()))?;
        for entry in self.entries {
            y += LINE_HEIGHT;
            let look = Look::of(entry.method);
            draw_line(root, &look, &[(left, y), (left + 76, y)])?;
            draw_marker(root, &look, (left + 38, y))?;
            root.draw(&Text::new(entry.method.name(), (left + 92, y), text.clone()))?;
            root.draw(&Text::new(entry.best().lr.to_string(), (rates, y), right.clone()))?;
            root.draw(&Text::new(count(entry.best().arrival), (counts, y), right.clone()))?;
        }
        y += LINE_HEIGHT + 20;
        for (line, y) in format!("* {}", self.arrival).lines().zip((y..).step_by(38)) {
            root.draw(&Text::new(line.to_owned(), (left, y), text.clone()))?;
        }
        Ok(())
    }

    /// Draws the first steps of every run.
    pub fn draw_runs<DB>(&self, root: &Area<DB>, steps: usize) -> Result<()>
    where
        DB: DrawingBackend<ErrorType: 'static>,
    {
        let chart = self.chart(root)?;
        let place = |&[x, y]: &Point| chart.backend_coord(&(x, y));
        // Solid lines first: the gaps of the others let them show.
        for line in [Line::Solid, Line::Dashed, Line::Dotted] {
            for (look, path) in self.looks().filter(|(look, _)| look.line == line) {
                let end = path.len().min(steps + 1);
                for piece in pieces(&path[..end], self.view) {
                    let piece: Vec<_> = piece.iter().map(place).collect();
                    draw_line(root, &look, &piece)?;
                }
            }
        }
        for (look, path) in self.looks() {
            if let Some(point) = path.get(steps).filter(|&&point| inside(point, self.view)) {
                draw_marker(root, &look, place(point))?;
            }
        }
        Ok(())
    }

    /// Writes how far it is.
    pub fn draw_step<DB>(&self, root: &Area<DB>, step: usize) -> Result<()>
    where
        DB: DrawingBackend<ErrorType: 'static>,
    {
        let right = text_style().pos(Pos::new(HPos::Right, VPos::Top));
        let end = (WIDTH - LEGEND) as i32 - 20;
        Ok(root.draw(&Text::new(format!("step {step}"), (end, 20), right))?)
    }

    fn looks(&self) -> impl Iterator<Item = (Look, &[Point])> {
        self.entries.iter().map(|entry| (Look::of(entry.method), entry.best().path.as_slice()))
    }

    /// The part of the picture with the axes.
    fn chart<'a, DB: DrawingBackend>(&self, root: &'a Area<DB>) -> Result<Chart<'a, DB>>
    where
        DB::ErrorType: 'static,
    {
        let [[left, right], [low, high]] = self.view;
        Ok(ChartBuilder::on(root)
            .margin_top(TOP)
            .margin_bottom(BOTTOM)
            .margin_left(16)
            .margin_right(LEGEND + 20)
            .x_label_area_size(84)
            .y_label_area_size(120)
            .build_cartesian_2d(left..right, low..high)?)
    }
}

/// A number without the noise that steps of a tenth gather.
pub fn tick(value: f64) -> String {
    // Adding 0 takes the sign off -0.
    format!("{}", (value * 1000.0).round() / 1000.0 + 0.0)
}

fn text_style() -> TextStyle<'static> {
    ("sans-serif", TEXT_HEIGHT).into_font().color(&TEXT)
}

fn draw_line<DB>(root: &Area<DB>, look: &Look, path: &[(i32, i32)]) -> Result<()>
where
    DB: DrawingBackend<ErrorType: 'static>,
{
    let style = look.color.stroke_width(5);
    match look.line {
        Line::Solid => root.draw(&PathElement::new(path, style))?,
        Line::Dashed => {
            root.draw(&DashedPathElement::new(path.iter().copied(), 18, 12, style))?;
        }
        Line::Dotted => {
            root.draw(&DashedPathElement::new(path.iter().copied(), 3, 9, style))?;
        }
    }
    Ok(())
}

fn draw_marker<DB>(root: &Area<DB>, look: &Look, (x, y): (i32, i32)) -> Result<()>
where
    DB: DrawingBackend<ErrorType: 'static>,
{
    let style = look.color.filled();
    match look.marker {
        Marker::Circle => root.draw(&Circle::new((x, y), 11, style))?,
        Marker::Triangle => root.draw(&TriangleMarker::new((x, y), 14, style))?,
        Marker::Square => {
            root.draw(&Rectangle::new([(x - 10, y - 10), (x + 10, y + 10)], style))?
        }
    }
    Ok(())
}
