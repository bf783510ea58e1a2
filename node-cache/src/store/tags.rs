//! Where tags pointed when they were last seen.

use std::{io::Read, time::Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError, error::at};
use crate::oci::{Digest, Repository, Tag, UpstreamHost};

/// What is known of one tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TagRecord {
    /// Where it pointed.
    #[serde(with = "digest_text")]
    pub digest: Digest,
    /// When the upstream last said so.
    pub checked_at: Timestamp,
    /// When it was first seen to point there.
    pub modified_at: Timestamp,
}

mod digest_text {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::oci::Digest;

    pub(super) fn serialize<S: Serializer>(digest: &Digest, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(digest)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// A tag record is some 200 bytes; more is not ours.
const MAX_RECORD: u64 = 4096;
/// What a tag's file occupies on most file systems.
const TAG_FILE: u64 = 4096;

impl Store {
    /// The record of a tag. One that cannot be read counts as none: the upstream will be asked.
    pub fn tag(
        &self,
        host: &UpstreamHost,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<Option<TagRecord>, StoreError> {
        self.check_readable()?;
        let path = self.layout.tag(host, repository, tag);
        let Some(file) = self.disk.open_regular(&path)? else {
            return Ok(None);
        };
        let mut text = Vec::new();
        at("cannot read", &path, file.take(MAX_RECORD).read_to_end(&mut text))?;
        Ok(serde_json::from_slice(&text).ok())
    }

    /// Writes the record of a tag.
    pub fn set_tag(
        &self,
        host: &UpstreamHost,
        repository: &Repository,
        tag: &Tag,
        record: &TagRecord,
    ) -> Result<(), StoreError> {
        self.check_writable()?;
        let path = self.layout.tag(host, repository, tag);
        let text = serde_json::to_vec(record).unwrap_or_default();
        let known = path.is_file();
        let written = self.disk.write_atomically(&self.layout.partials(), &path, &text);
        self.health.wrote(&written, Instant::now());
        if written.is_ok() && !known {
            self.ledger.lock().add_metadata(TAG_FILE);
        }
        written
    }

    /// Forgets a tag that the upstream no longer has.
    pub fn remove_tag(
        &self,
        host: &UpstreamHost,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<(), StoreError> {
        self.disk.remove(&self.layout.tag(host, repository, tag))
    }
}
