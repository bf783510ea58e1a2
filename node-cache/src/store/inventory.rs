//! The catalog: which images are stored and how they are used.

use std::{collections::HashSet, path::Path};

use serde::Serialize;

use super::{Store, StoreError, error::at};
use crate::oci::{Digest, Repository, Tag, UpstreamHost, manifest};

/// Manifests and blobs that are added up for one image; the largest in use have some 200.
const MAX_PARTS: usize = 1_000;

/// One image of the catalog: a tag and what it points to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CatalogEntry {
    /// `docker.io`.
    pub upstream: String,
    /// `library/nginx`.
    pub repository: String,
    /// `1.27`.
    pub tag: String,
    /// Digest of the manifest or index.
    pub digest: String,
    /// Bytes of the stored content that belongs to the tag's manifest: the manifest, and the
    /// configuration and layers it names, as far as they are stored.
    pub size: u64,
    /// Manifest requests, also those to earlier processes.
    pub pulls: u64,
    /// Last of them, RFC 3339; absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_pull: Option<String>,
    /// When the tag was first seen to point there, RFC 3339.
    pub last_modified: String,
}

impl Store {
    /// Every tag that is on record, sorted by upstream, repository and tag, at most `limit`.
    pub fn catalog(&self, limit: usize) -> Result<Vec<CatalogEntry>, StoreError> {
        let mut entries = Vec::new();
        let repos = self.layout.repos();
        for host in self.disk.names(&repos)? {
            let Ok(upstream) = host.parse::<UpstreamHost>() else {
                continue;
            };
            self.catalog_below(&upstream, &repos.join(&host), "", limit, &mut entries)?;
        }
        Ok(entries)
    }

    fn catalog_below(
        &self,
        host: &UpstreamHost,
        folder: &Path,
        path: &str,
        limit: usize,
        entries: &mut Vec<CatalogEntry>,
    ) -> Result<(), StoreError> {
        for name in self.disk.names(folder)? {
            if entries.len() >= limit {
                return Ok(());
            }
            match name.as_str() {
                "_links" | "_shared" => {}
                "_tags" => {
                    let Ok(repository) = path.parse::<Repository>() else {
                        continue;
                    };
                    for tag in self.disk.names(&folder.join("_tags"))? {
                        if entries.len() >= limit {
                            return Ok(());
                        }
                        let Ok(tag) = tag.parse::<Tag>() else {
                            continue;
                        };
                        if let Some(entry) = self.catalog_entry(host, &repository, &tag)? {
                            entries.push(entry);
                        }
                    }
                }
                segment => {
                    let below = match path {
                        "" => segment.to_owned(),
                        path => format!("{path}/{segment}"),
                    };
                    self.catalog_below(host, &folder.join(segment), &below, limit, entries)?;
                }
            }
        }
        Ok(())
    }

    fn catalog_entry(
        &self,
        host: &UpstreamHost,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<Option<CatalogEntry>, StoreError> {
        let Some(record) = self.tag(host, repository, tag)? else {
            return Ok(None);
        };
        let used = self.usage.get(host, repository, &record.digest);
        Ok(Some(CatalogEntry {
            upstream: host.to_string(),
            repository: repository.to_string(),
            tag: tag.to_string(),
            size: self.image_size(&record.digest, &mut HashSet::new())?,
            digest: record.digest.to_string(),
            pulls: used.map_or(0, |used| used.pulls),
            last_pull: used.map(|used| used.last_pull.to_string()),
            last_modified: record.modified_at.to_string(),
        }))
    }

    /// Bytes of a manifest and of what it names, as far as stored, each digest once. A crafted
    /// manifest that names thousands is not followed to its end.
    fn image_size(&self, digest: &Digest, seen: &mut HashSet<Digest>) -> Result<u64, StoreError> {
        if seen.len() >= MAX_PARTS || !seen.insert(digest.clone()) {
            return Ok(0);
        }
        let path = self.layout.blob(digest);
        // Without a pin: listing is not using.
        let Some(file) = self.disk.open_regular(&path)? else {
            return Ok(0);
        };
        let length = self.disk.metadata(&path, &file)?.len();
        if length > manifest::MAX_SIZE as u64 {
            return Ok(length);
        }
        let len = usize::try_from(length).unwrap_or(usize::MAX);
        let bytes = at("cannot read", &path, self.disk.read_at(&file, 0, len))?;
        let children = manifest::children(&bytes);
        let mut size = length;
        for manifest in &children.manifests {
            size += self.image_size(manifest, seen)?;
        }
        for blob in children.blobs {
            if seen.len() < MAX_PARTS && !seen.contains(&blob) {
                size += self.layout.blob(&blob).symlink_metadata().map_or(0, |found| found.len());
                seen.insert(blob);
            }
        }
        Ok(size)
    }
}
