//! Which stored blobs may be sent without hashing them again.

use std::{
    collections::{HashMap, HashSet},
    fs::Metadata,
    os::unix::fs::MetadataExt,
    sync::Mutex,
};

use crate::oci::Digest;

/// What a file looked like right after it was verified. Whoever changes its content through the
/// file system changes the ctime as well, which cannot be set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    size: u64,
    ctime: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.size(),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The stamps of verified files. In memory: after a restart each blob is hashed once more, while
/// it is sent for the first time.
#[derive(Debug, Default)]
pub(super) struct Trust {
    stamps: Mutex<HashMap<Digest, Stamp>>,
    /// Known to be bad, and the disk does not let them be moved away.
    condemned: Mutex<HashSet<Digest>>,
}

impl Trust {
    pub(super) fn record(&self, digest: &Digest, stamp: Stamp) {
        self.lock().insert(digest.clone(), stamp);
        self.condemned().remove(digest);
    }

    pub(super) fn forget(&self, digest: &Digest) {
        self.lock().remove(digest);
    }

    pub(super) fn covers(&self, digest: &Digest, stamp: Stamp) -> bool {
        self.lock().get(digest) == Some(&stamp)
    }

    /// From now on the file counts as absent, until another one takes its place.
    pub(super) fn condemn(&self, digest: &Digest) {
        self.condemned().insert(digest.clone());
    }

    pub(super) fn is_condemned(&self, digest: &Digest) -> bool {
        self.condemned().contains(digest)
    }

    fn condemned(&self) -> std::sync::MutexGuard<'_, HashSet<Digest>> {
        self.condemned.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Stamp>> {
        self.stamps.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
