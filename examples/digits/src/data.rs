//! Labelled pictures of digits, split for training, validation and test.

use anyhow::{Context, Result, bail, ensure};
use ndarray::Array2;
use rand::SeedableRng;
use rand::seq::SliceRandom;

use crate::Random;

/// Labels run from 0 to 9.
pub const CLASSES: usize = 10;

/// Fixes the split of the digits, which `--seed` does not change.
const SPLIT_SEED: u64 = 0;

/// Pictures as they are stored: one byte per pixel.
pub struct Pictures {
    pixels: Vec<u8>,
    labels: Vec<u8>,
    /// Pixels per picture.
    width: usize,
    /// The pixel value that becomes 1.
    brightest: u8,
}

/// Pictures ready for training: one row each, pixels from 0 to 1.
pub struct Samples {
    pub images: Array2<f32>,
    pub labels: Vec<u8>,
}

/// The samples for training, for choosing a learning rate, and for the test.
pub struct DataSet {
    pub name: &'static str,
    pub train: Samples,
    pub validation: Samples,
    pub test: Samples,
    /// Units in the hidden layer of a network that suits this data.
    pub hidden: usize,
}

impl Pictures {
    /// Checks that every label has its picture and names a digit.
    pub fn new(pixels: Vec<u8>, labels: Vec<u8>, width: usize, brightest: u8) -> Result<Self> {
        ensure!(width > 0 && !labels.is_empty(), "there are no pictures");
        ensure!(
            pixels.len() == labels.len() * width,
            "{} labels do not fit {} pictures",
            labels.len(),
            pixels.len() / width
        );
        let stray = labels.iter().position(|&label| usize::from(label) >= CLASSES);
        if let Some(index) = stray {
            bail!("label {} of picture {index} is not a digit from 0 to 9", labels[index]);
        }
        Ok(Self { pixels, labels, width, brightest })
    }

    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Copies the pictures at the given positions.
    pub fn select(&self, positions: impl ExactSizeIterator<Item = usize>) -> Result<Samples> {
        let mut values = Vec::with_capacity(positions.len() * self.width);
        let mut labels = Vec::with_capacity(positions.len());
        for position in positions {
            let picture = &self.pixels[position * self.width..][..self.width];
            values
                .extend(picture.iter().map(|&pixel| f32::from(pixel) / f32::from(self.brightest)));
            labels.push(self.labels[position]);
        }
        let images = Array2::from_shape_vec((labels.len(), self.width), values)?;
        Ok(Samples { images, labels })
    }
}

impl Samples {
    pub fn len(&self) -> usize {
        self.labels.len()
    }
}

impl DataSet {
    /// Pixels per picture.
    pub fn pixels(&self) -> usize {
        self.train.images.ncols()
    }
}

/// The 1,797 digits of `examples/data`: 60% to train, 20% to validate, 20% to test.
pub fn digits() -> Result<DataSet> {
    let pictures = parse_csv(include_bytes!("../../data/digits.csv")).context("digits.csv")?;

    let mut order: Vec<usize> = (0..pictures.len()).collect();
    order.shuffle(&mut Random::seed_from_u64(SPLIT_SEED));
    let (train, rest) = order.split_at(pictures.len() * 3 / 5);
    let (validation, test) = rest.split_at(rest.len() / 2);

    Ok(DataSet {
        name: "digits",
        train: pictures.select(train.iter().copied())?,
        validation: pictures.select(validation.iter().copied())?,
        test: pictures.select(test.iter().copied())?,
        hidden: 32,
    })
}

/// Reads lines of a label and its pixels, from 0 to 16, after a line of headings.
fn parse_csv(text: &[u8]) -> Result<Pictures> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    let mut reader = csv::Reader::from_reader(text);
    let width = reader.headers()?.len().saturating_sub(1);
    for record in reader.deserialize() {
        let (label, picture): (u8, Vec<u8>) = record?;
        labels.push(label);
        pixels.extend(picture);
    }
    Pictures::new(pixels, labels, width, 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_split_uses_every_picture_once() {
        let data = digits().unwrap();
        let sizes = [&data.train, &data.validation, &data.test].map(Samples::len);
        assert_eq!(sizes, [1078, 359, 360]);

        let ink = |samples: &Samples| samples.images.sum();
        let split = ink(&data.train) + ink(&data.validation) + ink(&data.test);
        let pictures = parse_csv(include_bytes!("../../data/digits.csv")).unwrap();
        assert_eq!(split, ink(&pictures.select(0..1797).unwrap()));
    }

    #[test]
    fn pixels_run_from_zero_to_one() {
        let images = digits().unwrap().train.images;
        assert_eq!(images.iter().copied().fold(f32::INFINITY, f32::min), 0.0);
        assert_eq!(images.iter().copied().fold(0.0, f32::max), 1.0);
    }

    #[test]
    fn pictures_reject_a_label_above_nine() {
        let error = Pictures::new(vec![0; 2], vec![3, 10], 1, 255).err().unwrap();
        assert_eq!(error.to_string(), "label 10 of picture 1 is not a digit from 0 to 9");
    }

    #[test]
    fn pictures_reject_a_missing_label() {
        let error = Pictures::new(vec![0; 12], vec![1, 2], 4, 255).err().unwrap();
        assert_eq!(error.to_string(), "2 labels do not fit 3 pictures");
    }
}
