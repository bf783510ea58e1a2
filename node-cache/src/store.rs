//! The files on disk. The only code that touches the data directory.
//!
//! The files are the truth: a blob file that is there was verified against its name, a link says
//! that an upstream served that digest in that repository, a tag record says where a tag pointed.
//! What is kept in memory and in the counters (which files are trusted, how they are used, how much
//! there is) can be lost without harm.
//!
//! Space is booked in the ledger before it is allocated, under one lock (the admission), so
//! that the bounds hold at every moment. Blobs are given up by worth; see `store/worth.rs`.
//!
//! All functions block; callers run them on the blocking pool.

mod blob;
mod counters;
mod disk;
mod error;
mod health;
mod inventory;
mod layout;
mod ledger;
mod open;
mod partial;
mod room;
mod scrub;
mod tags;
mod trust;
mod usage;
mod walk;
mod worth;

use std::{
    collections::HashMap,
    fs::File,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use jiff::Timestamp;

pub use blob::{Blob, Content};
use counters::Counters;
use disk::Disk;
pub use error::StoreError;
use health::Health;
pub use health::StoreState;
pub use inventory::CatalogEntry;
use layout::Layout;
use ledger::{BlobRecord, SharedLedger};
pub use partial::Partial;
pub use room::Limits;
pub use scrub::{Scrub, Scrubbed};
pub use tags::TagRecord;
pub use usage::{ImageUse, Usage};

use crate::oci::{Digest, Repository, UpstreamHost};

/// The data directory, held by at most one process.
#[derive(Debug)]
pub struct Store {
    layout: Layout,
    disk: Disk,
    ledger: SharedLedger,
    health: Arc<Health>,
    usage: Usage,
    limits: Mutex<Limits>,
    /// Held while room is made and used, and while files get or lose their names.
    admission: Mutex<()>,
    /// Whether all files are in the ledger.
    accounted: (Mutex<bool>, Condvar),
    counters: Mutex<Option<Counters>>,
    /// What the last process wrote down of blobs that the walk has not come to yet.
    remembered: Mutex<HashMap<Digest, (BlobRecord, Timestamp)>>,
    scrubbed: Mutex<Option<Digest>>,
    written_cursor: Mutex<Option<Digest>>,
    evicted: AtomicU64,
    /// Held for its lock: a second process on the same folder must not write.
    lock: Mutex<Option<File>>,
    /// Why this process does not have the folder.
    detached: Mutex<Option<StoreState>>,
}

/// How full the store is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreUsage {
    /// What state it is in.
    pub state: StoreState,
    /// Allocated by blobs, unfinished downloads, quarantine, tags and links.
    pub used: u64,
    /// The configured bound.
    pub capacity: u64,
    /// Free on the file system for an unprivileged user; 0 if it does not say.
    pub free: u64,
    /// Stored blobs, manifests included.
    pub blobs: u64,
    /// Blobs and unfinished downloads that were given up since the process started.
    pub evicted: u64,
}

/// A folder of `repos` and a few below it come with the first link of a repository.
const FOLDERS_OF_A_REPOSITORY: u64 = 3 * 4096;
/// A name of 64 hex digits in a folder (ext4: 72 bytes, and folders are three quarters full).
const NAME: u64 = 128;

impl Store {
    /// Opens or creates the folder and takes it for this process. While that is not possible,
    /// because the disk is read-only, full or failing or another process has the folder, the store
    /// serves what it can read and keeps nothing; [`Store::attach`] tries again.
    ///
    /// # Errors
    /// The folder is not one that can be used: not a folder, open to others, of another version.
    pub fn open(root: &Path, limits: Limits) -> Result<Self, StoreError> {
        let store = Self {
            layout: Layout::new(root.to_owned()),
            disk: Disk::new(root),
            ledger: SharedLedger::default(),
            health: Arc::default(),
            usage: Usage::default(),
            limits: Mutex::new(limits),
            admission: Mutex::default(),
            accounted: (Mutex::new(false), Condvar::new()),
            counters: Mutex::default(),
            remembered: Mutex::default(),
            scrubbed: Mutex::default(),
            written_cursor: Mutex::default(),
            evicted: AtomicU64::new(0),
            lock: Mutex::default(),
            detached: Mutex::default(),
        };
        match store.attach() {
            Err(error @ (StoreError::Unsafe { .. } | StoreError::Version { .. })) => Err(error),
            Err(error) => {
                tracing::error!(
                    %error,
                    "the store cannot be taken; nothing new is kept until it can"
                );
                Ok(store)
            }
            Ok(_) => Ok(store),
        }
    }

    /// Whether `repository` of `host` was seen to have `digest`.
    pub fn has_link(
        &self,
        host: &UpstreamHost,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<bool, StoreError> {
        self.check_readable()?;
        Ok(self.layout.link(host, repository, digest).is_file())
    }

    /// Records that the upstream answered 200 for `digest` in `repository`. Not synced: what a power
    /// cut loses costs one request to the upstream.
    pub fn link(
        &self,
        host: &UpstreamHost,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        self.check_writable()?;
        let path = self.layout.link(host, repository, digest);
        if path.is_file() {
            return Ok(());
        }
        let folders = path.parent().is_none_or(Path::is_dir);
        let made = self.disk.open_or_create(&path).map(drop);
        self.health.wrote(&made, Instant::now());
        let bytes = if folders { NAME } else { FOLDERS_OF_A_REPOSITORY };
        self.ledger.lock().add_metadata(bytes);
        made
    }

    /// Records that content of `repository` was fetched with credentials that everybody on the
    /// node may use. Durable before any link of it, so that no change of configuration and no
    /// crash can make such content look like what anybody may read.
    pub fn mark_shared(
        &self,
        host: &UpstreamHost,
        repository: &Repository,
    ) -> Result<(), StoreError> {
        self.check_writable()?;
        let path = self.layout.shared(host, repository);
        if path.is_file() {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(self.layout.root());
        let marked = self.disk.open_or_create(&path).and_then(|_| self.disk.sync_folder(folder));
        self.health.wrote(&marked, Instant::now());
        marked
    }

    /// Whether content of `repository` was ever fetched so.
    pub fn was_shared(
        &self,
        host: &UpstreamHost,
        repository: &Repository,
    ) -> Result<bool, StoreError> {
        self.check_readable()?;
        let path = self.layout.shared(host, repository);
        error::at("cannot inspect", &path, path.try_exists())
    }

    /// Use counts, for the catalog.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// How full it is.
    pub fn measure(&self) -> StoreUsage {
        let ledger = self.ledger.lock();
        let (used, blobs) = (ledger.used(), ledger.blobs());
        drop(ledger);
        let readable = self.check_readable();
        let room = readable.and_then(|()| self.disk.room(self.layout.root()));
        StoreUsage {
            state: self.state(),
            used,
            capacity: self.limits().capacity.bytes(),
            free: room.map_or(0, |room| room.free),
            blobs,
            evicted: self.evicted.load(Ordering::Relaxed),
        }
    }

    /// What state it is in.
    pub fn state(&self) -> StoreState {
        if let Some(state) = *self.detached() {
            return state;
        }
        match self.health.state(Instant::now()) {
            StoreState::Ready if !*held(&self.accounted.0) => StoreState::Accounting,
            state => state,
        }
    }

    /// The disk did not come back in time: it is left alone for a while.
    pub fn fell_silent(&self) {
        self.health.fell_silent(Instant::now());
    }

    /// Makes everything written so far durable.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.check_writable()?;
        let root = self.layout.root();
        let folder = error::at("cannot open", root, File::open(root))?;
        error::at("cannot sync", root, rustix::fs::syncfs(folder).map_err(Into::into))
    }

    fn check_readable(&self) -> Result<(), StoreError> {
        if self.health.may_read(Instant::now()) { Ok(()) } else { Err(StoreError::Silent) }
    }

    /// Fails if nothing can be stored at the moment: another process has the folder, or writes
    /// failed a moment ago.
    pub fn check_writable(&self) -> Result<(), StoreError> {
        let taken = self.detached().is_none();
        if taken && self.health.may_write(Instant::now()) {
            return Ok(());
        }
        Err(StoreError::NotWritable)
    }

    /// What the last process wrote down about a blob, once.
    fn recollect(&self, digest: &Digest) -> Option<BlobRecord> {
        self.remembered().remove(digest).map(|(record, _)| record)
    }

    fn admission(&self) -> MutexGuard<'_, ()> {
        held(&self.admission)
    }

    fn limits(&self) -> MutexGuard<'_, Limits> {
        held(&self.limits)
    }

    fn counters(&self) -> MutexGuard<'_, Option<Counters>> {
        held(&self.counters)
    }

    fn remembered(&self) -> MutexGuard<'_, HashMap<Digest, (BlobRecord, Timestamp)>> {
        held(&self.remembered)
    }

    fn scrubbed(&self) -> MutexGuard<'_, Option<Digest>> {
        held(&self.scrubbed)
    }

    fn written_cursor(&self) -> MutexGuard<'_, Option<Digest>> {
        held(&self.written_cursor)
    }

    fn lock(&self) -> MutexGuard<'_, Option<File>> {
        held(&self.lock)
    }

    fn detached(&self) -> MutexGuard<'_, Option<StoreState>> {
        held(&self.detached)
    }
}

/// The data of a store stays usable when a thread that held it panicked: nothing is half done in
/// memory that the next walk would not set right.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
