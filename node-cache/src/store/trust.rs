//! How a stored file is recognised as the one that was verified.

use std::{fs::Metadata, os::unix::fs::MetadataExt};

/// What a file looked like right after it was verified. Whoever changes its content through the
/// file system changes the ctime as well, which cannot be set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) ctime: (i64, i64),
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

/// The unit of `st_blocks`, whatever the file system's block size (stat(2)).
const BLOCK: u64 = 512;

/// What the file occupies on the disk.
pub(super) fn allocated(metadata: &Metadata) -> u64 {
    metadata.blocks() * BLOCK
}
