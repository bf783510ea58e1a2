//! One layer: files -> tar -> compressed -> blob.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use flate2::{Compression, write::GzEncoder};

use super::{Object, layout::blob_path};
use crate::digest::Hashing;

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// What every registry holds.
    Gzip,
    /// What newer builds make.
    Zstd,
}

impl Codec {
    fn media_type(self) -> &'static str {
        match self {
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// A layer that lies in the layout.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) blob: Object,
    pub(super) media_type: &'static str,
    pub(super) diff_id: String,
}

type Blob = Hashing<BufWriter<File>>;

enum Encoder {
    Gzip(GzEncoder<Blob>),
    Zstd(zstd::Encoder<'static, Blob>),
}

impl Encoder {
    fn new(codec: Codec, blob: Blob) -> io::Result<Self> {
        Ok(match codec {
            Codec::Gzip => Self::Gzip(GzEncoder::new(blob, Compression::fast())),
            Codec::Zstd => Self::Zstd(zstd::Encoder::new(blob, 1)?),
        })
    }

    /// Bytes that came out so far.
    fn size(&self) -> u64 {
        match self {
            Self::Gzip(encoder) => encoder.get_ref().size(),
            Self::Zstd(encoder) => encoder.get_ref().size(),
        }
    }

    fn finish(self) -> io::Result<Blob> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl Write for Encoder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

/// A layer that is being written. The same files make the same bytes on every machine: no owner,
/// no time.
pub(super) struct Writer {
    layout: PathBuf,
    codec: Codec,
    archive: tar::Builder<Hashing<Encoder>>,
    folders: BTreeSet<PathBuf>,
}

impl Writer {
    /// An empty layer of a layout.
    pub(super) fn new(layout: &Path, codec: Codec) -> Result<Self> {
        let blob = Hashing::new(BufWriter::new(File::create(layout.join("layer"))?));
        let archive = tar::Builder::new(Hashing::new(Encoder::new(codec, blob)?));
        Ok(Self { layout: layout.to_owned(), codec, archive, folders: BTreeSet::new() })
    }

    /// Adds a file, and before it the folders above it: a runtime would make them on its own, but
    /// not each one with the same mode.
    pub(super) fn file(&mut self, name: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
        let mut above: Vec<_> = name.ancestors().skip(1).collect();
        above.retain(|folder| !folder.as_os_str().is_empty());
        for folder in above.into_iter().rev() {
            if self.folders.insert(folder.to_owned()) {
                let mut header = header(0, 0o755);
                header.set_entry_type(tar::EntryType::Directory);
                self.archive.append_data(&mut header, folder, io::empty())?;
            }
        }
        self.archive.append_data(&mut header(bytes.len() as u64, mode), name, bytes)?;
        Ok(())
    }

    /// Compressed bytes so far.
    pub(super) fn size(&self) -> u64 {
        self.archive.get_ref().inner().size()
    }

    /// Puts it among the blobs.
    pub(super) fn finish(self) -> Result<Layer> {
        let (encoder, diff_id) = self.archive.into_inner()?.finish();
        let blob = encoder.finish()?;
        let size = blob.size();
        let (mut file, digest) = blob.finish();
        file.flush()?;
        fs::rename(self.layout.join("layer"), blob_path(&self.layout, &digest))
            .with_context(|| format!("keeping layer {digest}"))?;
        let media_type = self.codec.media_type();
        Ok(Layer { blob: Object { digest, size }, media_type, diff_id })
    }
}

fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
