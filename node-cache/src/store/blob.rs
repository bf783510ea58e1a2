//! Stored content.

use std::{fs::File, io, os::unix::fs::FileExt, path::PathBuf, sync::Arc};

use bytes::{Bytes, BytesMut};

use super::{Store, StoreError, at, files, trust::Stamp};
use crate::oci::Digest;

/// A stored blob, open for reading. It stays readable when the file is unlinked.
#[derive(Clone, Debug)]
pub struct Blob {
    /// The open file; read it with [`read_at`].
    pub file: Arc<File>,
    /// Bytes.
    pub size: u64,
    /// Whether it is provably the file that was verified. If not, hash it before or while sending.
    pub trusted: bool,
    stamp: Stamp,
}

/// Enough to compare a few bad copies of one blob; they count as used space.
const KEPT_IN_QUARANTINE: usize = 8;

impl Store {
    /// Opens a stored blob, `None` if it is not stored.
    pub fn blob(&self, digest: &Digest) -> Result<Option<Blob>, StoreError> {
        if self.trust.is_condemned(digest) {
            return Ok(None);
        }
        let path = self.layout.blob(digest);
        let Some(file) = files::open_regular(&path)? else {
            return Ok(None);
        };
        let metadata = at("cannot inspect", &path, file.metadata())?;
        let stamp = Stamp::of(&metadata);
        Ok(Some(Blob {
            file: Arc::new(file),
            size: metadata.len(),
            trusted: self.trust.covers(digest, stamp),
            stamp,
        }))
    }

    /// Records that the whole of `blob` was hashed and is what its name says.
    pub fn trust(&self, digest: &Digest, blob: &Blob) {
        self.trust.record(digest, blob.stamp);
    }

    /// Stores content that is already verified, such as a manifest.
    pub fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.layout.blob(digest);
        files::write_atomically(&self.layout.partials(), &path, bytes)?;
        self.record_stored(digest, &path)
    }

    pub(super) fn record_stored(&self, digest: &Digest, path: &PathBuf) -> Result<(), StoreError> {
        // The rename itself moved the ctime, so the stamp is taken after it.
        let metadata = at("cannot inspect", path, std::fs::symlink_metadata(path))?;
        self.trust.record(digest, Stamp::of(&metadata));
        Ok(())
    }

    /// Has the blob hashed again before it is served the next time.
    pub fn distrust(&self, digest: &Digest) {
        self.trust.forget(digest);
    }

    /// Moves a stored blob that is not what its name says out of the way. If the disk does not
    /// allow that, the file counts as absent all the same.
    pub fn quarantine_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        self.trust.forget(digest);
        let moved = self.move_to_quarantine(&self.layout.blob(digest), digest);
        moved.inspect_err(|_| self.trust.condemn(digest))
    }

    /// Moves a file aside for inspection and bounds the number of files kept so.
    pub(super) fn move_to_quarantine(
        &self,
        path: &PathBuf,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        let folder = self.layout.quarantine();
        let name = format!("{}-{}", digest.algorithm().name(), digest.hex());
        // The folder is trimmed below, so one of the first names is free.
        let target = (0..=KEPT_IN_QUARANTINE)
            .map(|number| folder.join(format!("{name}.{number}")))
            .find(|target| !target.exists());
        match target {
            Some(target) => match std::fs::rename(path, target) {
                // Another request was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                result => at("cannot move to quarantine", path, result)?,
            },
            None => files::remove(path)?,
        }
        self.trim_quarantine()
    }

    fn trim_quarantine(&self) -> Result<(), StoreError> {
        let folder = self.layout.quarantine();
        let mut files = Vec::new();
        for entry in at("cannot list", &folder, std::fs::read_dir(&folder))? {
            let path = at("cannot list", &folder, entry)?.path();
            // One that is gone was removed by another request.
            if let Ok(modified) = path.metadata().and_then(|metadata| metadata.modified()) {
                files.push((modified, path));
            }
        }
        files.sort();
        let surplus = files.len().saturating_sub(KEPT_IN_QUARANTINE);
        files.iter().take(surplus).try_for_each(|(_, path)| super::files::remove(path))
    }
}

/// Reads up to `len` bytes at `offset`; fewer only at the end of the file.
pub fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Bytes> {
    let mut buffer = BytesMut::zeroed(len);
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer.freeze())
}
