//! A picture in memory that plotters draws on, with letters of its own: no fonts of the system.

use std::convert::Infallible;

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind,
    FontStyle,
};

/// Red, green and blue.
pub type Rgb = [u8; 3];

/// All letters have this height, whatever the text's style asks for.
pub const TEXT_HEIGHT: u32 = RasterHeight::Size32.val() as u32;

/// Row after row of colours, from the upper left.
#[derive(Clone)]
pub struct Canvas {
    pub pixels: Vec<Rgb>,
    width: u32,
    height: u32,
}

type Drawn = Result<(), DrawingErrorKind<Infallible>>;

impl Canvas {
    pub fn new(width: u32, height: u32) -> Self {
        Self { pixels: vec![[u8::MAX; 3]; (width * height) as usize], width, height }
    }

    /// The picture at half its size, each pixel the mean of four: this smooths what plotters, which
    /// knows whole pixels only, draws askew.
    pub fn halved(&self) -> Vec<Rgb> {
        let width = self.width as usize;
        let rows = self.pixels.chunks_exact(2 * width);
        let halved = rows.flat_map(|rows| {
            (0..width / 2).map(move |x| {
                let four = [2 * x, 2 * x + 1, width + 2 * x, width + 2 * x + 1];
                [0, 1, 2].map(|channel| {
                    let sum: u16 = four.iter().map(|&at| u16::from(rows[at][channel])).sum();
                    (sum / 4) as u8
                })
            })
        });
        halved.collect()
    }

    fn blend(&mut self, x: i32, y: i32, color: BackendColor, coverage: f64) {
        let inside = (0..self.width as i32).contains(&x) && (0..self.height as i32).contains(&y);
        if !inside {
            return;
        }
        let pixel = &mut self.pixels[y as usize * self.width as usize + x as usize];
        let (red, green, blue) = color.rgb;
        for (old, new) in pixel.iter_mut().zip([red, green, blue]) {
            let share = color.alpha * coverage;
            *old = (f64::from(*old) * (1.0 - share) + f64::from(new) * share).round() as u8;
        }
    }
}

impl DrawingBackend for &mut Canvas {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        Ok(())
    }

    fn draw_pixel(&mut self, (x, y): BackendCoord, color: BackendColor) -> Drawn {
        self.blend(x, y, color, 1.0);
        Ok(())
    }

    /// Draws a line with round ends.
    fn draw_line<S: BackendStyle>(
        &mut self,
        from: BackendCoord,
        to: BackendCoord,
        style: &S,
    ) -> Drawn {
        let reach = f64::from(style.stroke_width()) / 2.0 + 0.5;
        let margin = reach.ceil() as i32;
        let [from_x, from_y, to_x, to_y] = [from.0, from.1, to.0, to.1].map(f64::from);
        let (along_x, along_y) = (to_x - from_x, to_y - from_y);
        let square = (along_x * along_x + along_y * along_y).max(1.0);
        for y in from.1.min(to.1) - margin..=from.1.max(to.1) + margin {
            for x in from.0.min(to.0) - margin..=from.0.max(to.0) + margin {
                let (dx, dy) = (f64::from(x) - from_x, f64::from(y) - from_y);
                let share = ((dx * along_x + dy * along_y) / square).clamp(0.0, 1.0);
                let distance = (dx - share * along_x).hypot(dy - share * along_y);
                let coverage = (reach - distance).clamp(0.0, 1.0);
                if coverage > 0.0 {
                    self.blend(x, y, style.color(), coverage);
                }
            }
        }
        Ok(())
    }

    /// Draws line by line: plotters' own way grows spikes where a path turns back.
    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        path: I,
        style: &S,
    ) -> Drawn {
        let mut points = path.into_iter();
        let Some(mut from) = points.next() else { return Ok(()) };
        for to in points {
            self.draw_line(from, to, style)?;
            from = to;
        }
        Ok(())
    }

    fn draw_text<S: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &S,
        pos: BackendCoord,
    ) -> Drawn {
        let weight = match style.style() {
            FontStyle::Bold => FontWeight::Bold,
            _ => FontWeight::Regular,
        };
        let (width, height) = self.estimate_text_size(text, style)?;
        let left = match style.anchor().h_pos {
            HPos::Left => 0,
            HPos::Center => -(width as i32) / 2,
            HPos::Right => -(width as i32),
        };
        let top = match style.anchor().v_pos {
            VPos::Top => 0,
            VPos::Center => -(height as i32) / 2,
            VPos::Bottom => -(height as i32),
        };
        let mut letter_left = left;
        for letter in text.chars().filter_map(|c| get_raster(c, weight, RasterHeight::Size32)) {
            for (row, y) in letter.rows().zip(top..) {
                for (&ink, x) in row.iter().zip(letter_left..) {
                    let (x, y) = style.transform().transform(x, y);
                    self.blend(pos.0 + x, pos.1 + y, style.color(), f64::from(ink) / 255.0);
                }
            }
            letter_left += letter.width() as i32;
        }
        Ok(())
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        _style: &S,
    ) -> Result<(u32, u32), DrawingErrorKind<Infallible>> {
        let letter = get_raster_width(FontWeight::Regular, RasterHeight::Size32);
        Ok(((text.chars().count() * letter) as u32, TEXT_HEIGHT))
    }
}
