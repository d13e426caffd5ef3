//! Pictures of equal size as an animated GIF.

use std::collections::HashMap;
use std::io::Write;

use anyhow::Result;
use gif::{Encoder, Frame, Repeat};

use crate::canvas::Rgb;

/// Shades of every ink, from white on.
const SHADES: u16 = 14;

/// Of the palette: what an earlier frame left there.
const UNCHANGED: u8 = u8::MAX;

/// Writes frame after frame.
pub struct Animation<W: Write> {
    encoder: Encoder<W>,
    palette: Palette,
    width: u16,
    height: u16,
    /// The last frame, if there is one.
    shown: Vec<u8>,
}

/// White mixed with inks, and where to find the nearest colour.
struct Palette {
    colors: Vec<Rgb>,
    nearest: HashMap<Rgb, u8>,
}

impl<W: Write> Animation<W> {
    /// Begins an animation of pictures drawn on white with these inks.
    pub fn new(out: W, width: u16, height: u16, inks: &[Rgb]) -> Result<Self> {
        let palette = Palette::new(inks);
        let mut encoder = Encoder::new(out, width, height, palette.colors.as_flattened())?;
        encoder.set_repeat(Repeat::Infinite)?;
        Ok(Self { encoder, palette, width, height, shown: Vec::new() })
    }

    /// Adds a frame, to be shown for so many hundredths of a second.
    pub fn push(&mut self, pixels: &[Rgb], delay: u16) -> Result<()> {
        let wanted: Vec<u8> = pixels.iter().map(|&pixel| self.palette.index(pixel)).collect();
        let width = usize::from(self.width);
        let (left, right, top, bottom) = if self.shown.is_empty() {
            (0, width, 0, usize::from(self.height))
        } else {
            changed(&self.shown, &wanted, width)
        };
        let inside = (top..bottom).flat_map(|row| row * width + left..row * width + right);
        let pixel = |at: usize| match self.shown.get(at) {
            Some(&shown) if shown == wanted[at] => UNCHANGED,
            _ => wanted[at],
        };
        let buffer: Vec<u8> = inside.map(pixel).collect();
        self.encoder.write_frame(&Frame {
            delay,
            transparent: Some(UNCHANGED),
            left: left as u16,
            top: top as u16,
            width: (right - left) as u16,
            height: (bottom - top) as u16,
            buffer: buffer.into(),
            ..Frame::default()
        })?;
        self.shown = wanted;
        Ok(())
    }

    /// Writes the end of the file.
    pub fn finish(self) -> Result<()> {
        Ok(self.encoder.into_inner()?.flush()?)
    }
}

/// The rectangle of all differences, at least one pixel: left, right, top and bottom.
fn changed(old: &[u8], new: &[u8], width: usize) -> (usize, usize, usize, usize) {
    let places = (0..new.len()).filter(|&at| old[at] != new[at]);
    let rectangle = places.fold((width, 0, usize::MAX, 0), |(left, right, top, bottom), at| {
        let (x, y) = (at % width, at / width);
        (left.min(x), right.max(x + 1), top.min(y), bottom.max(y + 1))
    });
    if rectangle.1 == 0 { (0, 1, 0, 1) } else { rectangle }
}

impl Palette {
    fn new(inks: &[Rgb]) -> Self {
        let shade = |ink: Rgb, share: u16| {
            ink.map(|value| (255 - (255 - u16::from(value)) * share / SHADES) as u8)
        };
        let white = std::iter::once([u8::MAX; 3]);
        let shades = inks.iter().flat_map(|&ink| (1..=SHADES).map(move |share| shade(ink, share)));
        Self {
            colors: white.chain(shades).take(usize::from(UNCHANGED)).collect(),
            nearest: HashMap::new(),
        }
    }

    fn index(&mut self, color: Rgb) -> u8 {
        let colors = &self.colors;
        *self.nearest.entry(color).or_insert_with(|| {
            let distance = |candidate: &Rgb| -> u32 {
                candidate.iter().zip(color).map(|(&a, b)| u32::from(a.abs_diff(b)).pow(2)).sum()
            };
            let nearest =
                (0..UNCHANGED).zip(colors).min_by_key(|(_, candidate)| distance(candidate));
            nearest.map_or(0, |(index, _)| index)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_holds_what_changed_and_nothing_else() {
        let (white, ink) = ([255; 3], [213, 94, 0]);
        let mut file = Vec::new();
        let mut animation = Animation::new(&mut file, 4, 3, &[ink]).unwrap();
        let mut pixels = [white; 12];
        animation.push(&pixels, 7).unwrap();
        animation.push(&pixels, 7).unwrap();
        (pixels[5], pixels[10]) = (ink, ink);
        animation.push(&pixels, 300).unwrap();
        animation.finish().unwrap();

        let mut options = gif::DecodeOptions::new();
        options.set_color_output(gif::ColorOutput::RGBA);
        let mut decoder = options.read_info(file.as_slice()).unwrap();
        let mut next = || {
            let frame = decoder.read_next_frame().unwrap().unwrap();
            let place = [frame.left, frame.top, frame.width, frame.height];
            let alpha: Vec<u8> = frame.buffer.iter().skip(3).step_by(4).copied().collect();
            (place, alpha, frame.delay, frame.buffer[..3].to_vec())
        };
        assert_eq!(next(), ([0, 0, 4, 3], vec![255; 12], 7, white.to_vec()));
        assert_eq!(next().1, [0]);
        assert_eq!(next(), ([1, 1, 2, 2], vec![255, 0, 0, 255], 300, ink.to_vec()));
    }
}
