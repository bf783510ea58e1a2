//! Unfinished downloads.

use std::{fs::File, os::unix::fs::FileExt, path::PathBuf, sync::Arc};

use bytes::Bytes;
use rustix::fs::FallocateFlags;

use super::{Store, StoreError, at, files};
use crate::oci::Digest;

/// The file of an unfinished download. It holds bytes only, and its length is how far the download
/// got; what the bytes are worth is found out by hashing them again.
#[derive(Clone, Debug)]
pub struct Partial {
    digest: Digest,
    path: PathBuf,
    file: Arc<File>,
}

impl Store {
    /// Opens the unfinished download of `digest`, or begins one. The caller sees to it that there
    /// is only one at a time.
    pub fn partial(&self, digest: &Digest) -> Result<Partial, StoreError> {
        let path = self.layout.partial(digest);
        let file = Arc::new(files::open_or_create(&path)?);
        Ok(Partial { digest: digest.clone(), path, file })
    }

    /// The unfinished download of `digest`, if an earlier attempt left one.
    pub fn leftover(&self, digest: &Digest) -> Result<Option<Partial>, StoreError> {
        if self.layout.partial(digest).exists() { self.partial(digest).map(Some) } else { Ok(None) }
    }

    /// Makes a verified download a stored blob: fsync, rename, fsync of both folders.
    pub fn commit(&self, partial: &Partial) -> Result<(), StoreError> {
        let path = self.layout.blob(&partial.digest);
        let folder = path.parent().unwrap_or(self.layout.root());
        files::create_folder(folder)?;
        at("cannot sync", &partial.path, partial.file.sync_all())?;
        at("cannot rename to", &path, std::fs::rename(&partial.path, &path))?;
        files::sync_folder(folder)?;
        // `blobs/<alg>` too: the two-digit folder may be new.
        files::sync_folder(folder.parent().unwrap_or(folder))?;
        self.record_stored(&partial.digest, &path)
    }

    /// Moves a complete download with the wrong content out of the way.
    pub fn quarantine_partial(&self, partial: &Partial) -> Result<(), StoreError> {
        self.move_to_quarantine(&partial.path, &partial.digest)
    }
}

impl Partial {
    /// The open file, for readers that follow the download.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// How many bytes are there.
    pub fn length(&self) -> Result<u64, StoreError> {
        Ok(at("cannot inspect", &self.path, self.file.metadata())?.len())
    }

    /// Reserves disk space up to `total` bytes without changing the length, so that a full disk is
    /// found before a client was promised anything.
    pub fn reserve(&self, total: u64) -> Result<(), StoreError> {
        if total == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, total) {
            // The file system cannot reserve; the writes themselves will tell.
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            result => at("cannot reserve space for", &self.path, result.map_err(Into::into)),
        }
    }

    /// Writes `bytes` at `offset`.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        at("cannot write", &self.path, self.file.write_all_at(bytes, offset))
    }

    /// Reads up to `len` bytes at `offset`; fewer only at the end of the file.
    pub fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        at("cannot read", &self.path, super::read_at(&self.file, offset, len))
    }

    /// Cuts the file to `len` bytes.
    pub fn truncate(&self, len: u64) -> Result<(), StoreError> {
        at("cannot truncate", &self.path, self.file.set_len(len))
    }

    /// Gives reserved space beyond the length back, keeping the bytes for a later resume.
    pub fn release_reserved(&self) -> Result<(), StoreError> {
        let len = self.length()?;
        self.truncate(len)
    }

    /// Removes it.
    pub fn discard(&self) -> Result<(), StoreError> {
        files::remove(&self.path)
    }
}
