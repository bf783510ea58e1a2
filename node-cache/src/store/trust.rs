//! How a stored file is recognised as the one that was verified.

use std::{fs::Metadata, os::unix::fs::MetadataExt};

/// What a file looked like right after it was verified. Whoever changes its content through the
/// file system changes the ctime as well, which cannot be set back.
#[derive(Clone, Copy, Debug, Eq)]
pub(super) struct Stamp {
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) ctime: (i64, i64),
    /// Not written down: it is compared within one process only, where the ctime may move because
    /// of the name.
    pub(super) mtime: (i64, i64),
}

impl PartialEq for Stamp {
    fn eq(&self, other: &Self) -> bool {
        (self.inode, self.size, self.ctime) == (other.inode, other.size, other.ctime)
    }
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.size(),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    /// The stamp of a file that was verified before it got its name, which moves the ctime; none if
    /// somebody wrote to it meanwhile.
    pub(super) fn across_rename(before: &Metadata, after: &Metadata) -> Option<Self> {
        let after = Self::of(after);
        after.is_same_content(Self::of(before)).then_some(after)
    }

    pub(super) fn is_same_content(self, other: Self) -> bool {
        (self.inode, self.size, self.mtime) == (other.inode, other.size, other.mtime)
    }
}

/// The unit of `st_blocks`, whatever the file system's block size (stat(2)).
const BLOCK: u64 = 512;

/// What the file occupies on the disk.
pub(super) fn allocated(metadata: &Metadata) -> u64 {
    metadata.blocks() * BLOCK
}
