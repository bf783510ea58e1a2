//! One layer: files -> tar -> compressed -> blob.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
};

use anyhow::{Context, Result};
use flate2::{Compression, write::GzEncoder};

use super::{Object, files::Source, layout::blob_path};
use crate::digest::Hashing;

const MEGABYTE: u64 = 1_000_000;

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

/// Writes a layer of `megabytes` (compressed): a file `etc/larder` that says `label`, then as many
/// of `sources` as it takes.
pub(super) fn build(
    layout: &Path,
    codec: Codec,
    megabytes: u64,
    label: &str,
    sources: &mut impl Iterator<Item = Source>,
) -> Result<Layer> {
    let unnamed = layout.join("layer");
    let blob = Hashing::new(BufWriter::new(File::create(&unnamed)?));
    let mut archive = tar::Builder::new(Hashing::new(Encoder::new(codec, blob)?));

    let text = format!("{label}\n");
    let mut header = header(text.len() as u64, 0o644);
    archive.append_data(&mut header, "etc/larder", text.as_bytes())?;
    while archive.get_ref().inner().size() < megabytes * MEGABYTE {
        let Some(source) = sources.next() else { break };
        append(&mut archive, &source)
            .with_context(|| format!("packing {}", source.path.display()))?;
    }

    let (encoder, diff_id) = archive.into_inner()?.finish();
    let blob = encoder.finish()?;
    let size = blob.size();
    let (mut file, digest) = blob.finish();
    file.flush()?;
    fs::rename(&unnamed, blob_path(layout, &digest))?;
    Ok(Layer { blob: Object { digest, size }, media_type: codec.media_type(), diff_id })
}

fn append(archive: &mut tar::Builder<impl Write>, source: &Source) -> Result<()> {
    // Read whole: a file that grows under way would break the archive.
    let Ok(bytes) = fs::read(&source.path) else {
        return Ok(());
    };
    let executable = source.name.starts_with("usr/bin");
    let mut header = header(bytes.len() as u64, if executable { 0o755 } else { 0o644 });
    archive.append_data(&mut header, &source.name, bytes.as_slice())?;
    Ok(())
}

/// The same on every machine: no owner, no time of its own.
fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header
}
