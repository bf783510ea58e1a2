//! What the next process should know: which files were verified, how blobs and images were used.
//! Soft state in one database file; if it is lost, every blob is hashed once more and counts start
//! at zero.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use jiff::Timestamp;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{
    ledger::BlobRecord,
    trust::Stamp,
    usage::{ImageKey, ImageUse},
    worth::Rank,
};
use crate::oci::Digest;

/// inode, size, ctime (seconds, nanoseconds), uses, rank, last use (seconds since 1970). A size of
/// [`NO_STAMP`] means that the file was not verified.
type BlobRow = (u64, u64, i64, i64, u32, u64, i64);
const NO_STAMP: u64 = u64::MAX;

/// Another number when a row changes its meaning: an older table is then not read.
const BLOBS: TableDefinition<'_, &str, BlobRow> = TableDefinition::new("blobs-1");
/// `host repository digest` -> pulls, last pull (seconds since 1970).
const IMAGES: TableDefinition<'_, &str, (u64, i64)> = TableDefinition::new("images-1");
/// Where the scrub is.
const CURSORS: TableDefinition<'_, &str, &str> = TableDefinition::new("cursors-1");
const SCRUB: &str = "scrub";

/// Rows are small and read once, at start.
const CACHE: usize = 4 << 20;

/// The open database.
#[derive(Debug)]
pub(super) struct Counters {
    database: Database,
}

/// What an earlier process wrote down.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// With the time of the last use.
    pub(super) blobs: HashMap<Digest, (BlobRecord, Timestamp)>,
    pub(super) images: Vec<(ImageKey, ImageUse)>,
    pub(super) scrubbed: Option<Digest>,
}

/// What is to be written down.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) blobs: Vec<(Digest, Option<BlobRecord>)>,
    pub(super) images: Vec<(ImageKey, Option<ImageUse>)>,
    pub(super) scrubbed: Option<Digest>,
}

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CountersError {
    #[error(transparent)]
    Database(#[from] Box<redb::Error>),
    #[error("the database is damaged: {0}")]
    Damaged(String),
}

fn database(error: impl Into<redb::Error>) -> CountersError {
    CountersError::Database(Box::new(error.into()))
}

impl Counters {
    /// Opens or creates the database and reads it whole.
    pub(super) fn open(path: &Path) -> Result<(Self, Remembered), CountersError> {
        // A damaged file must not end the process, whatever it contains.
        catch_unwind(AssertUnwindSafe(|| {
            let opened = Database::builder().set_cache_size(CACHE).create(path);
            let counters = Self { database: opened.map_err(database)? };
            let remembered = counters.read()?;
            Ok((counters, remembered))
        }))
        .unwrap_or_else(|_| Err(CountersError::Damaged("it cannot be read".to_owned())))
    }

    fn read(&self) -> Result<Remembered, CountersError> {
        let mut remembered = Remembered::default();
        let reading = self.database.begin_read().map_err(database)?;
        let absent =
            |error: &redb::TableError| matches!(error, redb::TableError::TableDoesNotExist(_));
        match reading.open_table(BLOBS) {
            Ok(table) => {
                for row in table.iter().map_err(database)? {
                    let (key, value) = row.map_err(database)?;
                    // A row that says nothing is left out; the file will be hashed.
                    if let Ok(digest) = key.value().parse() {
                        remembered.blobs.insert(digest, blob_record(value.value()));
                    }
                }
            }
            Err(error) if absent(&error) => {}
            Err(error) => return Err(database(error)),
        }
        match reading.open_table(IMAGES) {
            Ok(table) => {
                for row in table.iter().map_err(database)? {
                    let (key, value) = row.map_err(database)?;
                    let (pulls, last) = value.value();
                    if let (Some(key), Ok(last_pull)) =
                        (image_key(key.value()), Timestamp::from_second(last))
                    {
                        remembered.images.push((key, ImageUse { pulls, last_pull }));
                    }
                }
            }
            Err(error) if absent(&error) => {}
            Err(error) => return Err(database(error)),
        }
        match reading.open_table(CURSORS) {
            Ok(table) => {
                let cursor = table.get(SCRUB).map_err(database)?;
                remembered.scrubbed = cursor.and_then(|cursor| cursor.value().parse().ok());
            }
            Err(error) if absent(&error) => {}
            Err(error) => return Err(database(error)),
        }
        Ok(remembered)
    }

    /// Writes all of it, durably, or nothing.
    pub(super) fn write(&self, changes: &Changes, now: Timestamp) -> Result<(), CountersError> {
        let writing = self.database.begin_write().map_err(database)?;
        {
            let mut blobs = writing.open_table(BLOBS).map_err(database)?;
            for (digest, record) in &changes.blobs {
                let key = digest.to_string();
                match record {
                    Some(record) => {
                        let row = blob_row(record, now);
                        blobs.insert(key.as_str(), row).map_err(database)?;
                    }
                    None => drop(blobs.remove(key.as_str()).map_err(database)?),
                }
            }
            let mut images = writing.open_table(IMAGES).map_err(database)?;
            for ((host, repository, digest), used) in &changes.images {
                let key = format!("{host} {repository} {digest}");
                match used {
                    Some(used) => {
                        let row = (used.pulls, used.last_pull.as_second());
                        images.insert(key.as_str(), row).map_err(database)?;
                    }
                    None => drop(images.remove(key.as_str()).map_err(database)?),
                }
            }
            if let Some(digest) = &changes.scrubbed {
                let mut cursors = writing.open_table(CURSORS).map_err(database)?;
                cursors.insert(SCRUB, digest.to_string().as_str()).map_err(database)?;
            }
        }
        writing.commit().map_err(database)
    }
}

fn blob_row(record: &BlobRecord, now: Timestamp) -> BlobRow {
    let (inode, size, ctime) = match record.stamp {
        Some(stamp) => (stamp.inode, stamp.size, stamp.ctime),
        None => (0, NO_STAMP, (0, 0)),
    };
    (inode, size, ctime.0, ctime.1, record.uses, record.rank.stored(), now.as_second())
}

fn blob_record((inode, size, sec, nsec, uses, rank, last): BlobRow) -> (BlobRecord, Timestamp) {
    let stamp =
        (size != NO_STAMP).then_some(Stamp { inode, size, ctime: (sec, nsec), mtime: (0, 0) });
    let last = Timestamp::from_second(last).unwrap_or_default();
    (BlobRecord { stamp, uses, rank: Rank::from_stored(rank) }, last)
}

fn image_key(text: &str) -> Option<ImageKey> {
    let mut parts = text.split(' ');
    let key =
        (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(key)
}
