//! Walking the store: what is there and how large it is.

use std::{
    collections::HashSet, fs, os::unix::fs::MetadataExt, path::Path, sync::atomic::Ordering,
};

use serde::Serialize;

use super::{Store, StoreError, at};
use crate::oci::{Digest, Repository, Tag, UpstreamHost, manifest};

/// Manifests and blobs that are added up for one image; the largest in use have some 200.
const MAX_PARTS: usize = 1_000;

/// How full the store is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreUsage {
    /// Allocated by blobs, unfinished downloads and quarantine.
    pub used: u64,
    /// The configured bound.
    pub capacity: u64,
    /// Free on the file system for an unprivileged user.
    pub free: u64,
    /// Stored blobs, manifests included.
    pub blobs: u64,
}

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
    /// Manifest requests since the process started.
    pub pulls: u64,
    /// Last of them, RFC 3339; absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_pull: Option<String>,
    /// When the tag was first seen to point there, RFC 3339.
    pub last_modified: String,
}

impl Store {
    /// Adds up the files. Reads one folder after the other; costs about 10 us per blob.
    pub fn measure(&self) -> Result<StoreUsage, StoreError> {
        let mut usage =
            StoreUsage { capacity: self.capacity.load(Ordering::Relaxed), ..StoreUsage::default() };
        let mut blobs = 0;
        usage.used += allocated(&self.layout.blobs(), &mut blobs)?;
        usage.blobs = blobs;
        usage.used += allocated(&self.layout.partials(), &mut 0)?;
        usage.used += allocated(&self.layout.quarantine(), &mut 0)?;
        let root = self.layout.root();
        let disk = at("cannot inspect", root, rustix::fs::statvfs(root).map_err(Into::into))?;
        usage.free = disk.f_bavail * disk.f_frsize;
        Ok(usage)
    }

    /// Every tag that is on record, sorted by upstream, repository and tag, at most `limit`.
    pub fn catalog(&self, limit: usize) -> Result<Vec<CatalogEntry>, StoreError> {
        let mut entries = Vec::new();
        let repos = self.layout.repos();
        for host in names(&repos)? {
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
        for name in names(folder)? {
            if entries.len() >= limit {
                return Ok(());
            }
            match name.as_str() {
                "_links" | "_shared" => {}
                "_tags" => {
                    let Ok(repository) = path.parse::<Repository>() else {
                        continue;
                    };
                    for tag in names(&folder.join("_tags"))? {
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
        let Some(blob) = self.blob(digest)? else {
            return Ok(0);
        };
        if blob.size > manifest::MAX_SIZE as u64 {
            return Ok(blob.size);
        }
        let len = usize::try_from(blob.size).unwrap_or(usize::MAX);
        let bytes =
            at("cannot read", &self.layout.blob(digest), super::read_at(&blob.file, 0, len))?;
        let children = manifest::children(&bytes);
        let mut size = blob.size;
        for manifest in &children.manifests {
            size += self.image_size(manifest, seen)?;
        }
        for blob in children.blobs {
            if seen.len() < MAX_PARTS && !seen.contains(&blob) {
                size += self.blob(&blob)?.map_or(0, |blob| blob.size);
                seen.insert(blob);
            }
        }
        Ok(size)
    }
}

/// Names in a folder, sorted; none if it is not there. Names that are not text are not ours.
fn names(folder: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        entries => at("cannot list", folder, entries)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = at("cannot list", folder, entry)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Allocated bytes of all files below, which are counted in `files`.
fn allocated(folder: &Path, files: &mut u64) -> Result<u64, StoreError> {
    /// The unit of `st_blocks`, whatever the file system's block size (stat(2)).
    const BLOCK: u64 = 512;
    let mut bytes = 0;
    for name in names(folder)? {
        let path = folder.join(name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => bytes += allocated(&path, files)?,
            Ok(metadata) => {
                *files += 1;
                bytes += metadata.blocks() * BLOCK;
            }
            // Gone between listing and looking.
            Err(_) => {}
        }
    }
    Ok(bytes)
}
