//! The training losses as a picture.

use std::path::Path;

use anyhow::{Context, Result};
use plotters::prelude::*;

use crate::train::Contest;

/// Of Okabe and Ito, 2008: told apart by colour-blind readers too.
const COLORS: [RGBColor; 4] = [
    RGBColor(230, 159, 0),  // orange
    RGBColor(86, 180, 233), // sky blue
    RGBColor(213, 94, 0),   // vermillion
    RGBColor(0, 114, 178),  // blue
];

/// Draws the loss of each contest's chosen trial, on a logarithmic scale, into an SVG file.
pub fn losses(file: &Path, contests: &[Contest]) -> Result<()> {
    draw(file, contests).with_context(|| format!("cannot draw {}", file.display()))
}

fn draw(file: &Path, contests: &[Contest]) -> Result<()> {
    let epochs = contests.iter().map(|contest| contest.winner().losses.len() - 1).max();
    let (lowest, highest) = range(contests);

    let root = SVGBackend::new(file, (800, 500)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(20)
        .x_label_area_size(45)
        .y_label_area_size(65)
        .build_cartesian_2d(0..epochs.unwrap_or(1), (lowest..highest).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("epoch")
        .y_desc("training loss (mean cross entropy, nats)")
        .label_style(("sans-serif", 14))
        .light_line_style(TRANSPARENT)
        .draw()?;

    for (contest, color) in contests.iter().zip(COLORS.iter().cycle()) {
        let style = color.stroke_width(2);
        let points = contest.winner().losses.iter().copied().enumerate();
        chart
            .draw_series(LineSeries::new(points.filter(|&(_, loss)| drawable(loss)), style))?
            .label(format!(
                "{} {}, lr {}",
                contest.network,
                contest.method.name(),
                contest.winner().lr
            ))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(("sans-serif", 14))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.4))
        .draw()?;
    Ok(root.present()?)
}

/// The least and the greatest loss to draw.
fn range(contests: &[Contest]) -> (f64, f64) {
    contests
        .iter()
        .flat_map(|contest| contest.winner().losses.iter().copied())
        .filter(|&loss| drawable(loss))
        .fold((f64::INFINITY, 0.0), |(low, high), loss| (loss.min(low), loss.max(high)))
}

/// Whether a logarithmic axis has a place for it.
fn drawable(loss: f64) -> bool {
    loss.is_finite() && loss > 0.0
}
