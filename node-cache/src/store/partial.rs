//! Unfinished downloads.

use std::{path::PathBuf, sync::Arc, time::Instant};

use bytes::Bytes;

use super::{
    Content, Store, StoreError,
    disk::Disk,
    error::at,
    health::Health,
    ledger::{BlobRecord, Victim},
    trust::{Stamp, allocated},
};
use crate::oci::Digest;

/// The file of an unfinished download. It holds bytes only, and its length is how far the download
/// got; what the bytes are worth is found out by hashing them again.
#[derive(Clone, Debug)]
pub struct Partial {
    digest: Digest,
    path: PathBuf,
    content: Content,
    disk: Disk,
    health: Arc<Health>,
}

impl Store {
    /// Opens the unfinished download of `digest`, or begins one. The caller sees to it that there
    /// is only one at a time.
    pub fn partial(&self, digest: &Digest) -> Result<Partial, StoreError> {
        self.check_writable()?;
        let path = self.layout.partial(digest);
        let pin = self.ledger.pin(digest);
        // Not while it is being removed to make room.
        let admitted = self.admission();
        self.disk.part_with_other_names(&path)?;
        let opened = self.disk.open_or_create(&path);
        self.health.wrote(&opened, Instant::now());
        let file = opened?;
        let bytes = allocated(&self.disk.metadata(&path, &file)?);
        let mut ledger = self.ledger.lock();
        let booked = ledger.booked(digest).max(bytes);
        ledger.book(digest, booked, Instant::now());
        drop(ledger);
        drop(admitted);
        Ok(Partial {
            digest: digest.clone(),
            path,
            content: Content::new(file, None, self.disk.clone(), pin),
            disk: self.disk.clone(),
            health: self.health.clone(),
        })
    }

    /// The unfinished download of `digest`, if an earlier attempt left one.
    pub fn leftover(&self, digest: &Digest) -> Result<Option<Partial>, StoreError> {
        if self.layout.partial(digest).exists() { self.partial(digest).map(Some) } else { Ok(None) }
    }

    /// Makes a verified download a stored blob: fsync, rename, fsync of both folders.
    pub fn commit(&self, partial: &Partial) -> Result<(), StoreError> {
        let committed = self.move_into_place(partial);
        self.health.wrote(&committed, Instant::now());
        committed
    }

    fn move_into_place(&self, partial: &Partial) -> Result<(), StoreError> {
        let path = self.layout.blob(&partial.digest);
        let folder = path.parent().unwrap_or(self.layout.root());
        self.disk.create_folder(folder)?;
        // A download of unknown length has reserved more than it needed.
        partial.release_reserved()?;
        self.disk.sync(&partial.path, partial.content.file())?;
        let before = self.disk.metadata(&partial.path, partial.content.file())?;
        let admitted = self.admission();
        if !self.disk.rename(&partial.path, &path)? {
            let gone = std::io::ErrorKind::NotFound.into();
            return at("cannot find", &partial.path, Err(gone));
        }
        // The rename itself moved the ctime, so the stamp is taken after it. Without one the blob is
        // hashed again; it is there in any case.
        let after = self.disk.metadata(&path, partial.content.file()).ok();
        let stamp = after.and_then(|after| Stamp::across_rename(&before, &after));
        let record = BlobRecord { stamp, ..BlobRecord::default() };
        let mut ledger = self.ledger.lock();
        ledger.unbook(&partial.digest);
        ledger.insert(&partial.digest, allocated(&before), record, Some(Instant::now()));
        drop(ledger);
        drop(admitted);
        self.disk.sync_folder(folder)?;
        // `blobs/<alg>` too: the two-digit folder may be new.
        self.disk.sync_folder(folder.parent().unwrap_or(folder))
    }

    /// Removes an unfinished download.
    pub fn discard(&self, partial: &Partial) -> Result<(), StoreError> {
        let _admitted = self.admission();
        self.disk.remove(&partial.path)?;
        self.ledger.lock().unbook(&partial.digest);
        Ok(())
    }

    /// Keeps what came for a later attempt, without what was reserved beyond; an empty file is
    /// removed.
    pub fn keep(&self, partial: &Partial) -> Result<(), StoreError> {
        if partial.length()? == 0 {
            return self.discard(partial);
        }
        partial.release_reserved()?;
        let metadata = self.disk.metadata(&partial.path, partial.content.file())?;
        self.ledger.lock().book(&partial.digest, allocated(&metadata), Instant::now());
        Ok(())
    }

    /// Moves a complete download with the wrong content out of the way.
    pub fn quarantine_partial(&self, partial: &Partial) -> Result<(), StoreError> {
        self.move_to_quarantine(&Victim::Partial(partial.digest.clone()))
    }

    /// Books and reserves disk space for the first `total` bytes of the download, giving up what is
    /// worth least, so that a full disk is found before a client was promised anything.
    pub fn reserve(&self, partial: &Partial, total: u64) -> Result<(), StoreError> {
        let reserved = self.book_and_reserve(partial, total);
        self.health.wrote(&reserved, Instant::now());
        reserved
    }

    fn book_and_reserve(&self, partial: &Partial, total: u64) -> Result<(), StoreError> {
        self.check_writable()?;
        self.wait_until_accounted()?;
        let _admitted = self.admission();
        let room = self.disk.room(self.layout.root())?;
        // One block more than the bytes need, for what the file system keeps about them.
        let wanted = total.next_multiple_of(room.block) + room.block;
        let old = self.ledger.lock().booked(&partial.digest);
        self.make_room(wanted.saturating_sub(old), room)?;
        self.ledger.lock().book(&partial.digest, wanted.max(old), Instant::now());
        let reserved = self.disk.reserve(&partial.path, partial.content.file(), total);
        if reserved.is_err() {
            self.ledger.lock().book(&partial.digest, old, Instant::now());
        }
        reserved
    }
}

impl Partial {
    /// The bytes, for readers that follow the download.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// How many bytes are there.
    pub fn length(&self) -> Result<u64, StoreError> {
        Ok(self.disk.metadata(&self.path, self.content.file())?.len())
    }

    /// Writes `bytes` at `offset`.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let written = self.disk.write_at(&self.path, self.content.file(), offset, bytes);
        self.health.wrote(&written, Instant::now());
        written
    }

    /// Reads up to `len` bytes at `offset`; fewer only at the end of the file.
    pub fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        at("cannot read", &self.path, self.content.read_at(offset, len))
    }

    /// Cuts the file to `len` bytes.
    pub fn truncate(&self, len: u64) -> Result<(), StoreError> {
        self.disk.set_len(&self.path, self.content.file(), len)
    }

    /// Gives reserved space beyond the length back.
    fn release_reserved(&self) -> Result<(), StoreError> {
        let len = self.length()?;
        self.truncate(len)
    }
}
