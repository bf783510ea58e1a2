//! Stored content.

use std::{fs::File, io, sync::Arc, time::Instant};

use bytes::Bytes;

use super::{
    Store, StoreError,
    disk::Disk,
    ledger::{BlobRecord, Pin, Victim},
    trust::{Stamp, allocated},
};
use crate::oci::Digest;

/// The bytes of a stored blob or an unfinished download. Nothing gives it up while this lives, and
/// it stays readable when the file is unlinked.
#[derive(Clone, Debug)]
pub struct Content(Arc<Open>);

#[derive(Debug)]
struct Open {
    file: File,
    /// How the file of a stored blob looked when it was opened; none while it is being written.
    opened: Option<Stamp>,
    disk: Disk,
    _pin: Pin,
}

impl Content {
    pub(super) fn new(file: File, opened: Option<Stamp>, disk: Disk, pin: Pin) -> Self {
        Self(Arc::new(Open { file, opened, disk, _pin: pin }))
    }

    /// Whether nobody has written to the file of a stored blob since it was opened: what was read
    /// from it is then what was verified. Blocks.
    pub fn is_unchanged(&self) -> bool {
        let Some(opened) = self.0.opened else {
            return true;
        };
        // Not the ctime, which moves when the name is taken away.
        self.0.file.metadata().is_ok_and(|now| Stamp::of(&now).is_same_content(opened))
    }

    /// Reads up to `len` bytes at `offset`; fewer only at the end of the file. Blocks.
    pub fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.0.disk.read_at(&self.0.file, offset, len)
    }

    /// The same into a buffer; how many bytes of it are filled. Blocks.
    pub fn read_into(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.disk.read_into(&self.0.file, offset, buffer)
    }

    /// Has the next reads see the disk rather than the kernel's memory of it.
    pub fn drop_cached(&self) {
        Disk::drop_cached(&self.0.file);
    }

    pub(super) fn file(&self) -> &File {
        &self.0.file
    }
}

/// A stored blob, open for reading.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Its bytes.
    pub content: Content,
    /// How many.
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
        self.check_readable()?;
        // Before the look: what is pinned is not given up.
        let pin = self.ledger.pin(digest);
        if self.ledger.lock().is_barred(digest) {
            return Ok(None);
        }
        let path = self.layout.blob(digest);
        let Some(file) = self.disk.open_regular(&path)? else {
            // Somebody else removed it.
            self.ledger.lock().remove(digest);
            return Ok(None);
        };
        let metadata = self.disk.metadata(&path, &file)?;
        let stamp = Stamp::of(&metadata);
        let earlier = self.recollect(digest);
        let mut ledger = self.ledger.lock();
        if !ledger.has(digest) {
            // The walk at start has not come to it yet.
            let record = earlier.unwrap_or_default();
            ledger.insert(digest, allocated(&metadata), record, Some(Instant::now()));
        }
        let trusted = ledger.stamp(digest) == Some(stamp);
        drop(ledger);
        let content = Content::new(file, Some(stamp), self.disk.clone(), pin);
        Ok(Some(Blob { content, size: metadata.len(), trusted, stamp }))
    }

    /// Records that the whole of `blob` was hashed and is what its name says.
    pub fn trust(&self, digest: &Digest, blob: &Blob) {
        self.ledger.lock().set_stamp(digest, Some(blob.stamp));
    }

    /// Counts one use, which keeps the blob in the store for longer.
    pub fn count_use(&self, digest: &Digest) {
        self.ledger.lock().use_once(digest, Instant::now());
    }

    /// Has the blob hashed again before it is served the next time.
    pub fn distrust(&self, digest: &Digest) {
        self.ledger.lock().set_stamp(digest, None);
    }

    /// Stores content that is already verified, such as a manifest.
    pub fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        self.check_writable()?;
        let stored = self.put_with_room(digest, bytes);
        self.health.wrote(&stored, Instant::now());
        stored
    }

    fn put_with_room(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        self.wait_until_accounted()?;
        let admitted = self.admission();
        let room = self.disk.room(self.layout.root())?;
        let wanted = (bytes.len() as u64).next_multiple_of(room.block) + room.block;
        self.make_room(wanted, room)?;
        self.ledger.lock().take_off(wanted);
        drop(admitted);
        let written = self.write_blob(digest, bytes);
        self.ledger.lock().land(wanted);
        written
    }

    fn write_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.layout.blob(digest);
        let written = self.disk.write_temporary(&self.layout.partials(), &path, bytes)?;
        let before = self.disk.metadata(&path, written.as_file())?;
        let admitted = self.admission();
        let file = self.disk.persist(written, &path)?;
        // As with a download: without a stamp it is hashed again, and it is there in any case.
        let after = self.disk.metadata(&path, &file).ok();
        let stamp = after.and_then(|after| Stamp::across_rename(&before, &after));
        let record = BlobRecord { stamp, ..BlobRecord::default() };
        self.ledger.lock().insert(digest, allocated(&before), record, Some(Instant::now()));
        drop(admitted);
        self.disk.sync_folder(path.parent().unwrap_or(&path))
    }

    /// Moves a stored blob that is not what its name says out of the way. If the disk does not
    /// allow that, the file counts as absent all the same.
    pub fn quarantine_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        self.distrust(digest);
        let moved = self.move_to_quarantine(&Victim::Blob(digest.clone()));
        moved.inspect_err(|_| self.ledger.lock().condemn(digest))
    }

    /// Moves a file aside for inspection and bounds the number of files kept so.
    pub(super) fn move_to_quarantine(&self, bad: &Victim) -> Result<(), StoreError> {
        let (digest, path) = match bad {
            Victim::Blob(digest) => (digest, self.layout.blob(digest)),
            Victim::Partial(digest) => (digest, self.layout.partial(digest)),
        };
        let folder = self.layout.quarantine();
        let name = format!("{}-{}", digest.algorithm().name(), digest.hex());
        let _admitted = self.admission();
        self.disk.create_folder(&folder)?;
        // The folder is trimmed below, so one of the first names is free.
        let target = (0..=KEPT_IN_QUARANTINE)
            .map(|number| folder.join(format!("{name}.{number}")))
            .find(|target| !target.exists());
        match target {
            // If it is not there, another request was faster.
            Some(target) => self.disk.rename(&path, &target).map(drop)?,
            None => self.disk.remove(&path)?,
        }
        let mut ledger = self.ledger.lock();
        match bad {
            Victim::Blob(_) => ledger.remove(digest),
            Victim::Partial(_) => ledger.unbook(digest),
        }
        drop(ledger);
        self.trim_quarantine(KEPT_IN_QUARANTINE)
    }

    /// Keeps the newest `kept` files and adds up what they occupy.
    pub(super) fn trim_quarantine(&self, kept: usize) -> Result<(), StoreError> {
        let folder = self.layout.quarantine();
        let mut files = Vec::new();
        for name in self.disk.names(&folder)? {
            let path = folder.join(name);
            // One that is gone was removed by somebody else.
            if let Ok(metadata) = path.symlink_metadata()
                && !metadata.is_dir()
                && let Ok(modified) = metadata.modified()
            {
                files.push((modified, path, allocated(&metadata)));
            }
        }
        files.sort();
        let surplus = files.len().saturating_sub(kept);
        for (_, path, _) in &files[..surplus] {
            self.disk.remove(path)?;
        }
        let bytes = files[surplus..].iter().map(|(_, _, bytes)| bytes).sum();
        self.ledger.lock().set_quarantine(bytes);
        Ok(())
    }

    /// Hashes a stored blob, reading the disk itself; `pace` is called after every MiB and ends the
    /// check by returning false. `None`: it is not stored any more, or the check was ended.
    pub fn is_intact(
        &self,
        digest: &Digest,
        pace: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<bool>, StoreError> {
        const STEP: usize = 1 << 20;
        const PER_FILE: u64 = 4096;
        self.check_readable()?;
        let path = self.layout.blob(digest);
        // Without a pin: a check is not a use.
        let Some(file) = self.disk.open_regular(&path)? else {
            return Ok(None);
        };
        let size = self.disk.metadata(&path, &file)?.len();
        // Opening costs as well, and an empty file is read in no time.
        if !pace(PER_FILE) {
            return Ok(None);
        }
        Disk::drop_cached(&file);
        let mut hasher = crate::oci::Hasher::new(digest.algorithm());
        let mut offset = 0;
        while offset < size {
            let bytes = match self.disk.read_at(&file, offset, STEP) {
                Ok(bytes) if !bytes.is_empty() => bytes,
                Ok(_) => return Ok(Some(false)),
                // A sector that cannot be read is damage too, but not if the disk is gone.
                Err(_) => return self.disk.room(self.layout.root()).map(|_| Some(false)),
            };
            hasher.update(&bytes);
            offset += bytes.len() as u64;
            if !pace(bytes.len() as u64) {
                return Ok(None);
            }
        }
        Disk::drop_cached(&file);
        Ok(Some(hasher.finish() == *digest))
    }
}
