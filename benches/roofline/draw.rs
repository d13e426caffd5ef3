//! Pictures of runs: the fraction of the limit over the size.

use std::{collections::BTreeMap, error::Error, fs, path::Path};

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde::Deserialize;

use crate::report::elements;

/// A run, as far as a picture needs it, from its JSON file.
#[derive(Deserialize)]
pub struct Run {
    header: Header,
    rows: Vec<Point>,
}

#[derive(Deserialize)]
struct Header {
    cpu: String,
    caches: Vec<String>,
    isa: String,
}

#[derive(Deserialize)]
struct Point {
    case: String,
    dtype: String,
    isa: String,
    elements: f64,
    threads: usize,
    fraction_of_limit: f64,
}

/// Type, threads and instruction set.
type Key<'a> = (&'a str, usize, &'a str);

/// A line of a picture.
struct Line {
    label: String,
    points: Vec<(f64, f64)>,
    width: u32,
}

/// Bytes of memory for each `f32` parameter of Adam: itself, its gradient and two moments.
const RESIDENT: f64 = 16.0;

impl Run {
    /// Reads the JSON file of a run.
    pub fn read(path: &Path) -> Result<Self, Box<dyn Error>> {
        let named = |error: &dyn Error| format!("{}: {error}", path.display());
        let json = fs::read(path).map_err(|error| named(&error))?;
        Ok(serde_json::from_slice(&json).map_err(|error| named(&error))?)
    }

    /// The points of Adam on one tensor.
    fn lines(&self) -> BTreeMap<Key<'_>, Vec<(f64, f64)>> {
        let mut lines: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.case == "dense") {
            let line =
                lines.entry((row.dtype.as_str(), row.threads, row.isa.as_str())).or_default();
            line.push((row.elements, row.fraction_of_limit));
        }
        lines
    }

    /// The number of parameters in `f32` that fit into each cache for data, and its name.
    fn caches(&self) -> Vec<(f64, String)> {
        let cache = |text: &String| {
            let (name, size) = text.split_once(' ')?;
            let name = name.strip_suffix('d').unwrap_or(name);
            let (number, unit) = size.split_at(size.len().checked_sub(1)?);
            let unit = match unit {
                "K" => 1024.0,
                "M" => 1024.0 * 1024.0,
                _ => return None,
            };
            let bytes = number.parse::<f64>().ok()? * unit;
            (!name.ends_with('i')).then(|| (bytes / RESIDENT, name.to_owned()))
        };
        self.header.caches.iter().filter_map(cache).collect()
    }

    /// Draws a line for each type, number of threads and instruction set, and a mark for each cache.
    pub fn draw(&self, path: &Path) -> Result<(), Box<dyn Error>> {
        let lines = self.lines().into_iter().map(|((dtype, threads, isa), points)| Line {
            label: format!("{isa}, {dtype}, {}", of_threads(threads)),
            points,
            width: if threads == 1 { 2 } else { 4 },
        });
        let title = format!("Adam: fraction of the machine's limit, {}", self.header.cpu);
        draw(path, &title, &lines.collect::<Vec<_>>(), &self.caches())
    }
}

/// Draws a line for each run: Adam in `f32`, on the CPU's best instruction set, on one thread.
pub fn compare(runs: &[Run], path: &Path) -> Result<(), Box<dyn Error>> {
    let line = |run: &Run| {
        let label = format!("{}, {}", run.header.cpu, run.header.isa);
        let points = run.lines().remove(&("f32", 1, run.header.isa.as_str()));
        let points = points.ok_or_else(|| format!("the run on {label} has no case `dense`"))?;
        Ok(Line { label, points, width: 2 })
    };
    let lines = runs.iter().map(line).collect::<Result<Vec<_>, String>>()?;
    // The caches of several CPUs differ, and so their marks would tell nothing.
    let caches = if let [run] = runs { run.caches() } else { vec![] };
    draw(path, "Adam in f32, one thread: fraction of each machine's limit", &lines, &caches)
}

fn of_threads(threads: usize) -> String {
    if threads == 1 { "1 thread".into() } else { format!("{threads} threads") }
}

const SIZE: (u32, u32) = (960, 560);
/// The top of the scale; fractions over 1 happen where the limit was measured in a worse moment.
const TOP: f64 = 1.2;

fn draw(
    path: &Path,
    title: &str,
    lines: &[Line],
    caches: &[(f64, String)],
) -> Result<(), Box<dyn Error>> {
    let sizes = lines.iter().flat_map(|line| &line.points).map(|point| point.0);
    let (least, most) = sizes.fold((f64::MAX, 0.0_f64), |(a, b), x| (a.min(x), b.max(x)));
    if least >= most {
        return Err("the case `dense` at two sizes at least is needed for a picture".into());
    }

    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .margin_right(28)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d((least..most).log_scale().base(2.0), 0.0..TOP)?;
    chart
        .configure_mesh()
        .x_desc("elements")
        .y_desc("fraction of the limit (the slower of streaming and dividing)")
        .x_label_formatter(&|x| elements(x.round() as usize))
        .light_line_style(TRANSPARENT)
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 16))
        .draw()?;

    chart.draw_series(LineSeries::new([(least, 1.0), (most, 1.0)], BLACK.stroke_width(1)))?;
    let grey = RGBColor(110, 110, 110);
    for (place, name) in caches.iter().filter(|(place, _)| (least..most).contains(place)) {
        let bottom_to_top = [(*place, 0.0), (*place, TOP)];
        chart.draw_series(DashedLineSeries::new(bottom_to_top, 4, 4, grey.into()))?;
        let style = ("sans-serif", 13).into_font().color(&grey);
        let style = style.pos(Pos::new(HPos::Right, VPos::Top));
        let label = format!("{name} is full ");
        chart.draw_series([Text::new(label, (*place, TOP - 0.02), style)])?;
    }
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(line.width);
        chart.draw_series(LineSeries::new(line.points.iter().copied(), style).point_size(3))?;
    }
    key(&root, lines)?;
    root.present()?;
    Ok(())
}

/// Writes the lines' labels inside the picture, on the lower left, where lines are rarely found.
fn key(
    root: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    lines: &[Line],
) -> Result<(), Box<dyn Error>> {
    const LINE: i32 = 18;
    let longest = lines.iter().map(|line| line.label.len()).max().unwrap_or(0) as i32;
    let (left, bottom) = (86, SIZE.1 as i32 - 70);
    let top = bottom - LINE * lines.len() as i32;
    let corners = [(left - 8, top - 8), (left + 40 + 8 * longest, bottom + 4)];
    root.draw(&Rectangle::new(corners, WHITE.mix(0.85).filled()))?;
    for ((index, line), colour) in lines.iter().enumerate().zip(COLOURS.iter().cycle()) {
        let y = top + LINE * index as i32 + LINE / 2;
        let stroke = colour.stroke_width(line.width);
        root.draw(&PathElement::new([(left, y), (left + 24, y)], stroke))?;
        let style = ("sans-serif", 14).into_font().color(&BLACK);
        let style = style.pos(Pos::new(HPos::Left, VPos::Center));
        root.draw(&Text::new(line.label.clone(), (left + 32, y), style))?;
    }
    Ok(())
}

/// Okabe and Ito's colours, which colour-blind readers can tell apart.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
    RGBColor(150, 150, 150),
];
