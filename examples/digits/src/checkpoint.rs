//! Arrays by name, in a file.
//!
//! Numbers are kept as their bits: JSON has no infinities, and runs that diverge have. A program of
//! your own may prefer a format such as safetensors.

use std::{collections::BTreeMap, fs, io::ErrorKind, path::Path};

use adamant::{Moment, MomentRef};
use anyhow::{Context, Result, bail, ensure};
use half::{
    bf16,
    slice::{HalfBitsSliceExt, HalfFloatSliceExt},
};
use serde::{Deserialize, Serialize};

use crate::precision::Params;

/// Arrays by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint(BTreeMap<String, Array>);

/// The bits of an array.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Array {
    Bits8(Vec<u8>),
    Bits16(Vec<u16>),
    Bits32(Vec<u32>),
    Bits64(Vec<u64>),
}

impl Checkpoint {
    /// Reads a file, if there is one.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        match fs::read(path) {
            Ok(text) => {
                let checkpoint = serde_json::from_slice(&text);
                Ok(Some(checkpoint.with_context(|| format!("cannot read {}", path.display()))?))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes a file. Whatever happens, there is the old file or the new one, never half of one.
    pub fn write(&self, path: &Path) -> Result<()> {
        let unfinished = path.with_extension("unfinished");
        fs::write(&unfinished, serde_json::to_vec(self)?)
            .and_then(|()| fs::File::open(&unfinished)?.sync_all())
            .and_then(|()| fs::rename(&unfinished, path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    pub fn put_steps(&mut self, name: &str, steps: u64) {
        self.put(name, Array::Bits64(vec![steps]));
    }

    pub fn get_steps(&self, name: &str) -> Result<u64> {
        match self.get(name)? {
            Array::Bits64(bits) if bits.len() == 1 => Ok(bits[0]),
            _ => bail!("{name} should be one number"),
        }
    }

    pub fn put_f64(&mut self, name: &str, values: &[f64]) {
        self.put(name, Array::Bits64(values.iter().map(|value| value.to_bits()).collect()));
    }

    pub fn get_f64(&self, name: &str) -> Result<Vec<f64>> {
        match self.get(name)? {
            Array::Bits64(bits) => Ok(bits.iter().map(|&bits| f64::from_bits(bits)).collect()),
            _ => bail!("{name} should be in 64 bits"),
        }
    }

    pub fn put_f32(&mut self, name: &str, values: &[f32]) {
        self.put(name, Array::Bits32(values.iter().map(|value| value.to_bits()).collect()));
    }

    /// Fills an array as long as the one that was put.
    pub fn get_f32(&self, name: &str, values: &mut [f32]) -> Result<()> {
        match self.get(name)? {
            Array::Bits32(bits) => {
                let bits: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
                fill(name, values, &bits)
            }
            _ => bail!("{name} should be in 32 bits"),
        }
    }

    fn put_u16(&mut self, name: &str, bits: &[u16]) {
        self.put(name, Array::Bits16(bits.to_vec()));
    }

    fn get_u16(&self, name: &str, bits: &mut [u16]) -> Result<()> {
        match self.get(name)? {
            Array::Bits16(saved) => fill(name, bits, saved),
            _ => bail!("{name} should be in 16 bits"),
        }
    }

    fn get_bf16(&self, name: &str, values: &mut [bf16]) -> Result<()> {
        self.get_u16(name, values.reinterpret_cast_mut())
    }

    pub fn put_params(&mut self, name: &str, params: &Params) {
        match params {
            Params::F32(params) => self.put_f32(name, params),
            Params::Bf16(params) => self.put_u16(name, params.reinterpret_cast()),
            Params::F32AndBf16(params, copy) => {
                self.put_f32(name, params);
                self.put_u16(&format!("{name}.copy"), copy.reinterpret_cast());
            }
            Params::Split(high, low) => {
                self.put_u16(name, high.reinterpret_cast());
                self.put_u16(&format!("{name}.low"), low);
            }
        }
    }

    pub fn get_params(&self, name: &str, params: &mut Params) -> Result<()> {
        match params {
            Params::F32(params) => self.get_f32(name, params),
            Params::Bf16(params) => self.get_bf16(name, params),
            Params::F32AndBf16(params, copy) => {
                self.get_f32(name, params)?;
                self.get_bf16(&format!("{name}.copy"), copy)
            }
            Params::Split(high, low) => {
                self.get_bf16(name, high)?;
                self.get_u16(&format!("{name}.low"), low)
            }
        }
    }

    pub fn put_moment(&mut self, name: &str, moment: MomentRef<'_>) -> Result<()> {
        match moment {
            MomentRef::F32(values) => self.put_f32(name, values),
            MomentRef::Bf16(values) => self.put_u16(name, values.reinterpret_cast()),
            MomentRef::Q8(codes, scales) => {
                self.put(name, Array::Bits8(codes.to_vec()));
                self.put_f32(&format!("{name}.scales"), scales);
            }
            _ => bail!("{name} is kept in a type that this program does not use"),
        }
        Ok(())
    }

    pub fn get_moment(&self, name: &str, mut moment: Moment<'_>) -> Result<()> {
        let len = moment.len();
        match self.get(name)? {
            Array::Bits32(_) => {
                let mut values = vec![0.0; len];
                self.get_f32(name, &mut values)?;
                moment.copy_from(MomentRef::F32(&values))?;
            }
            Array::Bits16(bits) => moment.copy_from(MomentRef::Bf16(bits.reinterpret_cast()))?,
            Array::Bits8(codes) => {
                let mut scales = vec![0.0; adamant::Q8::scales(len)];
                self.get_f32(&format!("{name}.scales"), &mut scales)?;
                moment.copy_from(MomentRef::Q8(codes, &scales))?;
            }
            Array::Bits64(_) => bail!("{name} should be in 32 bits or less"),
        }
        Ok(())
    }

    fn put(&mut self, name: &str, array: Array) {
        self.0.insert(name.to_owned(), array);
    }

    fn get(&self, name: &str) -> Result<&Array> {
        self.0.get(name).with_context(|| format!("there is no {name}"))
    }
}

fn fill<T: Copy>(name: &str, values: &mut [T], saved: &[T]) -> Result<()> {
    let (len, expected) = (saved.len(), values.len());
    ensure!(len == expected, "{name} has {len} elements and should have {expected}");
    values.copy_from_slice(saved);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_keeps_every_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.json");
        assert_eq!(Checkpoint::read(&path).unwrap(), None);
        let mut checkpoint = Checkpoint::default();
        checkpoint.put_f32("f32", &[0.1, f32::NAN, -0.0]);
        checkpoint.put_f64("f64", &[0.1, f64::INFINITY]);
        checkpoint.put_steps("steps", u64::MAX);
        checkpoint.write(&path).unwrap();
        checkpoint.write(&path).unwrap();
        assert_eq!(Checkpoint::read(&path).unwrap(), Some(checkpoint));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn wrong_lengths_are_errors() {
        let mut checkpoint = Checkpoint::default();
        checkpoint.put_f32("f32", &[0.1, 0.2]);
        assert!(checkpoint.get_f32("f32", &mut [0.0; 3]).is_err());
        assert!(checkpoint.get_f32("missing", &mut [0.0; 2]).is_err());
    }
}
