//! MNIST's own file format, IDX: big-endian header, then one byte per pixel or label.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use flate2::bufread::MultiGzDecoder;

use crate::data::{DataSet, Pictures};

/// A magic number is this plus the number of dimensions.
const UNSIGNED_BYTES: u32 = 0x800;

/// The first two bytes of every gzip file; an IDX file begins with two zeros.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Reads MNIST's four files from a folder.
///
/// The last sixth of the training set, 10,000 of 60,000, becomes the validation split.
pub fn mnist(folder: &Path) -> Result<DataSet> {
    let known = read_pictures(folder, "train")?;
    let test = read_pictures(folder, "t10k")?;
    let trained = known.len() - known.len() / 6;

    let data = DataSet {
        name: "MNIST",
        train: known.select(0..trained)?,
        validation: known.select(trained..known.len())?,
        test: test.select(0..test.len())?,
        hidden: 128,
    };
    ensure!(data.validation.len() > 0, "{}: too few training pictures", folder.display());
    ensure!(
        data.pixels() == data.test.images.ncols(),
        "{}: the test pictures are not as large as the training pictures",
        folder.display()
    );
    Ok(data)
}

fn read_pictures(folder: &Path, prefix: &str) -> Result<Pictures> {
    let ([count, _, _], pixels) = read_file(folder, &format!("{prefix}-images-idx3-ubyte"))?;
    let ([_], labels) = read_file(folder, &format!("{prefix}-labels-idx1-ubyte"))?;
    let width = pixels.len() / count.max(1);
    Pictures::new(pixels, labels, width, u8::MAX)
        .with_context(|| format!("{}: the {prefix} files", folder.display()))
}

fn read_file<const D: usize>(folder: &Path, name: &str) -> Result<([usize; D], Vec<u8>)> {
    let (path, file) = open(folder, name)?;
    decode(BufReader::new(file)).with_context(|| path.display().to_string())
}

/// Opens `name` or `name.gz`.
fn open(folder: &Path, name: &str) -> Result<(PathBuf, File)> {
    for path in [folder.join(name), folder.join(format!("{name}.gz"))] {
        match File::open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        }
    }
    bail!("{} has neither {name} nor {name}.gz", folder.display())
}

/// Decodes an IDX file, gzipped or not: its first bytes decide, not its name.
fn decode<const D: usize>(mut file: impl BufRead) -> Result<([usize; D], Vec<u8>)> {
    if file.fill_buf()?.starts_with(&GZIP) { parse(MultiGzDecoder::new(file)) } else { parse(file) }
}

/// Returns the dimensions and the data of an IDX file of unsigned bytes in `D` dimensions.
fn parse<const D: usize>(mut file: impl Read) -> Result<([usize; D], Vec<u8>)> {
    let magic = read_u32(&mut file)?;
    let expected = UNSIGNED_BYTES + D as u32;
    ensure!(
        magic == expected,
        "wrong file: its magic number is {magic:#010x} instead of {expected:#010x}"
    );

    let mut dimensions = [0; D];
    for dimension in &mut dimensions {
        *dimension = read_u32(&mut file)? as usize;
    }
    let size = dimensions.iter().try_fold(1_usize, |size, &n| size.checked_mul(n));
    let size = size.with_context(|| format!("impossible dimensions {dimensions:?}"))?;

    // Grows with what the file holds: the header could promise anything.
    let mut bytes = Vec::new();
    file.by_ref().take(size as u64).read_to_end(&mut bytes).context("damaged or truncated file")?;
    ensure!(bytes.len() == size, "truncated file: {} of {size} bytes of data", bytes.len());
    // Also makes gzip compare its checksum.
    let more = file.read(&mut [0]).context("damaged or truncated file")?;
    ensure!(more == 0, "wrong file: it goes on after {size} bytes of data");
    Ok((dimensions, bytes))
}

fn read_u32(file: &mut impl Read) -> Result<u32> {
    let mut bytes = [0; 4];
    file.read_exact(&mut bytes).context("truncated file: it ends in the header")?;
    Ok(u32::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tempfile::TempDir;

    use super::*;

    fn idx(dimensions: &[u32], data: &[u8]) -> Vec<u8> {
        let magic = UNSIGNED_BYTES + dimensions.len() as u32;
        let header = [&[magic], dimensions].concat();
        let header = header.iter().flat_map(|number| number.to_be_bytes());
        header.chain(data.iter().copied()).collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Twelve training and two test pictures of 2x1 pixels.
    fn small_mnist() -> TempDir {
        let folder = TempDir::new().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        let pixels: Vec<u8> = (0..24).collect();
        write("train-images-idx3-ubyte", &idx(&[12, 2, 1], &pixels));
        write(
            "train-labels-idx1-ubyte.gz",
            &gzip(&idx(&[12], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1])),
        );
        write("t10k-images-idx3-ubyte.gz", &gzip(&idx(&[2, 2, 1], &[0, 51, 102, 255])));
        write("t10k-labels-idx1-ubyte", &idx(&[2], &[7, 8]));
        folder
    }

    /// Replaces one file of [`small_mnist`] and returns the whole message.
    fn message_with(name: &str, bytes: &[u8]) -> String {
        let folder = small_mnist();
        fs::write(folder.path().join(name), bytes).unwrap();
        let message = format!("{:#}", mnist(folder.path()).err().unwrap());
        message.replace(&folder.path().display().to_string(), "DIR").replace('\\', "/")
    }

    #[test]
    fn mnist_reads_plain_and_gzipped_files() {
        let folder = small_mnist();
        let data = mnist(folder.path()).unwrap();
        assert_eq!([data.train.len(), data.validation.len(), data.test.len()], [10, 2, 2]);
        assert_eq!(data.validation.labels, [0, 1]);
        assert_eq!(data.test.images, ndarray::array![[0.0, 0.2], [0.4, 1.0]]);
    }

    #[test]
    fn gzip_is_known_by_its_bytes_not_its_name() {
        let folder = small_mnist();
        let path = folder.path().join("t10k-labels-idx1-ubyte");
        fs::rename(&path, path.with_extension("gz")).unwrap();
        assert_eq!(mnist(folder.path()).unwrap().test.labels, [7, 8]);
    }

    #[test]
    fn missing_file_is_named() {
        let folder = small_mnist();
        fs::remove_file(folder.path().join("t10k-labels-idx1-ubyte")).unwrap();
        let message = mnist(folder.path()).err().unwrap().to_string();
        let names = "has neither t10k-labels-idx1-ubyte nor t10k-labels-idx1-ubyte.gz";
        assert!(message.ends_with(names), "{message}");
    }

    #[test]
    fn labels_in_place_of_images_are_the_wrong_file() {
        assert_eq!(
            message_with("train-images-idx3-ubyte", &idx(&[3], &[1, 2, 3])),
            "DIR/train-images-idx3-ubyte: \
             wrong file: its magic number is 0x00000801 instead of 0x00000803"
        );
    }

    #[test]
    fn every_truncation_is_an_error() {
        let whole = idx(&[12, 2, 1], &[1; 24]);
        for bytes in [whole.clone(), gzip(&whole)] {
            for end in 0..bytes.len() {
                let message = message_with("train-images-idx3-ubyte", &bytes[..end]);
                assert!(message.contains("truncated"), "{end} bytes: {message}");
            }
        }
    }

    #[test]
    fn damaged_gzip_is_an_error() {
        let mut bytes = gzip(&idx(&[2], &[7, 8]));
        let checksum = bytes.len() - 8;
        bytes[checksum] ^= 1;
        let message = message_with("t10k-labels-idx1-ubyte", &bytes);
        assert!(message.contains("damaged"), "{message}");
    }

    #[test]
    fn excess_data_is_an_error() {
        assert_eq!(
            message_with("t10k-labels-idx1-ubyte", &idx(&[2], &[7, 8, 9])),
            "DIR/t10k-labels-idx1-ubyte: wrong file: it goes on after 2 bytes of data"
        );
    }

    #[test]
    fn huge_dimensions_allocate_nothing() {
        let most = u32::MAX;
        for dimensions in [[most, most, most], [most, most, 1], [most, 1, 1]] {
            let message = message_with("train-images-idx3-ubyte", &idx(&dimensions, &[0; 9]));
            let expected = message.contains("impossible") || message.contains("9 of");
            assert!(expected, "{message}");
        }
    }

    #[test]
    fn pictures_and_labels_must_agree() {
        assert_eq!(
            message_with("t10k-labels-idx1-ubyte", &idx(&[1], &[7])),
            "DIR: the t10k files: 1 labels do not fit 2 pictures"
        );
        assert_eq!(
            message_with("t10k-labels-idx1-ubyte", &idx(&[2], &[7, 10])),
            "DIR: the t10k files: label 10 of picture 1 is not a digit from 0 to 9"
        );
        assert_eq!(
            message_with("t10k-images-idx3-ubyte", &idx(&[2, 3, 1], &[0; 6])),
            "DIR: the test pictures are not as large as the training pictures"
        );
    }

    #[test]
    fn empty_files_are_an_error() {
        for dimensions in [[0, 2, 1], [12, 0, 1]] {
            let message = message_with("train-images-idx3-ubyte", &idx(&dimensions, &[]));
            assert!(message.contains("picture"), "{message}");
        }
    }
}
