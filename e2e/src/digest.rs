//! sha256 of what passes by.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Write},
    path::Path,
};

use anyhow::{Context, Result};
use aws_lc_rs::digest::{Context as Hash, SHA256};

/// `sha256:...` of bytes in memory.
pub fn of(bytes: &[u8]) -> String {
    let mut hash = Hash::new(&SHA256);
    hash.update(bytes);
    print(hash)
}

/// `sha256:...` of a file.
pub fn of_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut hashing = Hashing::new(io::sink());
    io::copy(&mut file, &mut hashing).with_context(|| format!("reading {}", path.display()))?;
    Ok(hashing.finish().1)
}

/// Counts and hashes what is written through it.
pub struct Hashing<W> {
    inner: W,
    hash: Hash,
    size: u64,
}

impl<W: Write> Hashing<W> {
    /// Passes everything on to `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, hash: Hash::new(&SHA256), size: 0 }
    }

    /// Bytes that went through so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The inner writer and the digest of all that went through.
    pub fn finish(self) -> (W, String) {
        (self.inner, print(self.hash))
    }

    /// The inner writer.
    pub fn inner(&self) -> &W {
        &self.inner
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or(bytes));
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn print(hash: Hash) -> String {
    let mut text = "sha256:".to_owned();
    for byte in hash.finish().as_ref() {
        // safe to ignore: writing to a String cannot fail
        let _ = write!(text, "{byte:02x}");
    }
    text
}
