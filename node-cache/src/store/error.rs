//! Why a store cannot be opened, read or written.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::layout;

/// Why a store cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An operation on a file failed.
    #[error("{action} {path}: {cause}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed. In the text already, because a log line has no causes.
        cause: io::Error,
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
    /// The bytes do not fit, and what is stored may not be given up for them.
    #[error("there is no room for {needed} bytes: {reason}")]
    Full {
        /// Bytes that were asked for.
        needed: u64,
        /// Which bound is in the way.
        reason: &'static str,
    },
    /// The disk was found to take no writes a moment ago, and is left alone for a while.
    #[error("the disk takes no writes at the moment")]
    NotWritable,
    /// The disk did not answer in time, or did not a moment ago.
    #[error("the disk did not answer within 5 s")]
    Silent,
    /// The process is ending.
    #[error("larder-node is shutting down")]
    ShuttingDown,
}

/// What an error says about the disk as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Out of space, quota or inodes.
    Full,
    /// The file system, or the folder, is not writable.
    ReadOnly,
    /// The operation failed.
    Failed,
    /// It did not come back.
    Silent,
    /// It was not tried.
    Refused,
}

impl StoreError {
    /// Whether it is expected when a store is at its limits, so that it is no news.
    pub fn is_expected(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::NotWritable)
    }

    pub(super) fn class(&self) -> Class {
        match self {
            Self::Io { cause, .. } => match cause.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Class::Full,
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                    Class::ReadOnly
                }
                _ => Class::Failed,
            },
            Self::Full { .. } => Class::Full,
            Self::Silent => Class::Silent,
            Self::Locked { .. }
            | Self::Version { .. }
            | Self::Unsafe { .. }
            | Self::NotWritable
            | Self::ShuttingDown => Class::Refused,
        }
    }
}

/// Attaches the path to an I/O error.
pub(super) fn at<T>(
    action: &'static str,
    path: &Path,
    result: io::Result<T>,
) -> Result<T, StoreError> {
    result.map_err(|cause| StoreError::Io { action, path: path.to_owned(), cause })
}
