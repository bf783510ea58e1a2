//! The files on disk. The only code that touches the data directory.
//!
//! The files are the truth: a blob file that is there was verified against its name, a link says
//! that an upstream served that digest in that repository, a tag record says where a tag pointed.
//! What is kept in memory (which files are trusted, use counts) can be lost without harm.
//!
//! All functions block; callers run them on the blocking pool.

mod blob;
mod files;
mod inventory;
mod layout;
mod partial;
mod tags;
mod trust;
mod usage;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use larder_crds::ByteSize;

pub use blob::{Blob, read_at};
pub use inventory::{CatalogEntry, StoreUsage};
use layout::Layout;
pub use partial::Partial;
pub use tags::TagRecord;
use trust::Trust;
pub use usage::ImageUse;

use crate::oci::{Digest, Repository, UpstreamHost};

/// The data directory, held by exactly one process.
#[derive(Debug)]
pub struct Store {
    layout: Layout,
    trust: Trust,
    usage: usage::Usage,
    capacity: AtomicU64,
    /// Held for its lock: a second process on the same folder must not write.
    _lock: File,
}

/// Why a store cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An operation on a file failed.
    #[error("{action} {path}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Another process has the folder.
    #[error("{path} is in use by another process; stop it or choose another folder")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The folder was written by another version.
    #[error(
        "{path} has layout {found:?}, this version reads {known:?}; empty the folder or run the \
         version that wrote it",
        known = layout::VERSION
    )]
    Version {
        /// The version file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// The folder could be written by others, who could plant files in it.
    #[error("{path} {problem}")]
    Unsafe {
        /// The folder.
        path: PathBuf,
        /// What is wrong and how to mend it.
        problem: String,
    },
    /// The disk did not answer in time.
    #[error("the disk did not answer within 5 s")]
    Silent,
    /// The process is ending.
    #[error("larder-node is shutting down")]
    ShuttingDown,
}

/// Attaches the path to an I/O error.
fn at<T>(action: &'static str, path: &Path, result: io::Result<T>) -> Result<T, StoreError> {
    result.map_err(|source| StoreError::Io { action, path: path.to_owned(), source })
}

impl Store {
    /// Opens or creates the folder and takes it for this process. Leftovers of unfinished writes
    /// are removed; unfinished downloads are kept, they will be resumed.
    pub fn open(root: &Path, capacity: ByteSize) -> Result<Self, StoreError> {
        let layout = Layout::new(root.to_owned());
        let lock = files::prepare(&layout)?;
        Ok(Self {
            layout,
            trust: Trust::default(),
            usage: usage::Usage::default(),
            capacity: AtomicU64::new(capacity.bytes()),
            _lock: lock,
        })
    }

    /// Changes the capacity while running.
    pub fn set_capacity(&self, capacity: ByteSize) {
        self.capacity.store(capacity.bytes(), Ordering::Relaxed);
    }

    /// Whether `repository` of `host` was seen to have `digest`.
    pub fn has_link(&self, host: &UpstreamHost, repository: &Repository, digest: &Digest) -> bool {
        self.layout.link(host, repository, digest).is_file()
    }

    /// Records that the upstream answered 200 for `digest` in `repository`. Not synced: what a power
    /// cut loses costs one request to the upstream.
    pub fn link(
        &self,
        host: &UpstreamHost,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        let path = self.layout.link(host, repository, digest);
        if path.is_file() {
            return Ok(());
        }
        files::create_empty(&path)
    }

    /// Records that content of `repository` was fetched with credentials that everybody on the
    /// node may use. Durable before any link of it, so that no change of configuration and no
    /// crash can make such content look like what anybody may read.
    pub fn mark_shared(
        &self,
        host: &UpstreamHost,
        repository: &Repository,
    ) -> Result<(), StoreError> {
        let path = self.layout.shared(host, repository);
        if path.is_file() {
            return Ok(());
        }
        files::create_empty(&path)?;
        files::sync_folder(path.parent().unwrap_or(self.layout.root()))
    }

    /// Whether content of `repository` was ever fetched so.
    pub fn was_shared(&self, host: &UpstreamHost, repository: &Repository) -> bool {
        self.layout.shared(host, repository).exists()
    }

    /// Use counts, for the catalog.
    pub fn usage(&self) -> &usage::Usage {
        &self.usage
    }

    /// Makes everything written so far durable.
    pub fn sync(&self) -> Result<(), StoreError> {
        let root = self.layout.root();
        let folder = at("cannot open", root, File::open(root))?;
        at("cannot sync", root, rustix::fs::syncfs(folder).map_err(Into::into))
    }
}

#[cfg(test)]
mod tests;
