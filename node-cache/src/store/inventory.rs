//! The catalog: which images are stored and how they are used.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::Path,
};

use jiff::Timestamp;
use serde::Serialize;

use super::{ImageUse, Store, StoreError};
use crate::oci::{Digest, Repository, Tag, UpstreamHost, manifest};

/// Manifests and blobs that are added up for one image; the largest in use have some 200.
const MAX_PARTS: usize = 1_000;

/// One image of the catalog: a tag and what it points to, or a manifest that was pulled by its
/// digest alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CatalogEntry {
    /// `docker.io`.
    pub upstream: String,
    /// `library/nginx`.
    pub repository: String,
    /// `1.27`; empty if no tag that is on record points there.
    pub tag: String,
    /// Digest of the manifest or index.
    pub digest: String,
    /// Bytes of the stored content that belongs to the image: the manifest, and the configuration
    /// and layers it names, as far as they are stored.
    pub size: u64,
    /// Manifest requests, also those to earlier processes.
    pub pulls: u64,
    /// Last of them, RFC 3339; absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_pull: Option<String>,
    /// When the tag was first seen to point there, RFC 3339; without a tag, when the manifest was
    /// first seen.
    pub last_modified: String,
}

/// What was pulled of every repository.
type Uses = HashMap<(UpstreamHost, Repository), Vec<(Digest, ImageUse)>>;

/// A catalog that is being put together.
struct Listing {
    entries: Vec<CatalogEntry>,
    limit: usize,
    uses: Uses,
}

impl Listing {
    fn is_full(&self) -> bool {
        self.entries.len() >= self.limit
    }
}

impl Store {
    /// Every tag that is on record, and every stored manifest that was pulled and that no tag leads
    /// to, directly or by way of an index. Sorted by upstream, repository and tag, at most `limit`.
    pub fn catalog(&self, limit: usize) -> Result<Vec<CatalogEntry>, StoreError> {
        self.check_readable()?;
        let mut uses = Uses::new();
        for ((host, repository, digest), used) in self.usage.all() {
            uses.entry((host, repository)).or_default().push((digest, used));
        }
        let mut listing = Listing { entries: Vec::new(), limit, uses };
        let repos = self.layout.repos();
        for host in self.disk.names(&repos)? {
            let Ok(upstream) = host.parse::<UpstreamHost>() else {
                continue;
            };
            self.catalog_below(&upstream, &repos.join(&host), "", &mut listing)?;
        }
        Ok(listing.entries)
    }

    fn catalog_below(
        &self,
        host: &UpstreamHost,
        folder: &Path,
        path: &str,
        listing: &mut Listing,
    ) -> Result<(), StoreError> {
        let names = self.disk.names(folder)?;
        if names.iter().any(|name| name == "_links" || name == "_tags")
            && let Ok(repository) = path.parse::<Repository>()
        {
            self.catalog_repository(host, &repository, &folder.join("_tags"), listing)?;
        }
        for segment in names.iter().filter(|name| !name.starts_with('_')) {
            if listing.is_full() {
                return Ok(());
            }
            let below = match path {
                "" => segment.clone(),
                path => format!("{path}/{segment}"),
            };
            self.catalog_below(host, &folder.join(segment), &below, listing)?;
        }
        Ok(())
    }

    fn catalog_repository(
        &self,
        host: &UpstreamHost,
        repository: &Repository,
        tags: &Path,
        listing: &mut Listing,
    ) -> Result<(), StoreError> {
        let place = (host.clone(), repository.clone());
        let uses = listing.uses.remove(&place).unwrap_or_default();
        let mut tagged = Vec::new();
        for tag in self.disk.names(tags)? {
            let Ok(tag) = tag.parse::<Tag>() else {
                continue;
            };
            // What is no record, whatever somebody put there, hides no other.
            if let Ok(Some(record)) = self.tag(host, repository, &tag) {
                tagged.push((tag.to_string(), record.digest, record.modified_at));
            }
        }
        // containerd pulls a tag by the digest of its index, and then a manifest of that index.
        let known: BTreeSet<_> = tagged.iter().map(|(_, digest, _)| digest.clone()).collect();
        let pulled: BTreeSet<_> =
            uses.iter().map(|(digest, _)| digest.clone()).filter(|d| !known.contains(d)).collect();
        let named: HashSet<Digest> =
            known.iter().chain(&pulled).flat_map(|digest| self.manifests_of(digest)).collect();
        let untagged =
            pulled.into_iter().filter(|digest| !named.contains(digest)).filter_map(|digest| {
                let link = self.layout.link(host, repository, &digest).symlink_metadata().ok()?;
                let seen = Timestamp::try_from(link.modified().ok()?).ok()?;
                self.layout.blob(&digest).is_file().then_some((String::new(), digest, seen))
            });
        let uses: HashMap<_, _> = uses.into_iter().collect();
        for (tag, digest, modified) in untagged.chain(tagged) {
            if listing.is_full() {
                return Ok(());
            }
            let found = uses.get(&digest);
            listing.entries.push(CatalogEntry {
                upstream: host.to_string(),
                repository: repository.to_string(),
                tag,
                size: self.image_size(&digest, &mut HashSet::new()),
                digest: digest.to_string(),
                pulls: found.map_or(0, |used| used.pulls),
                last_pull: found.map(|used| used.last_pull.to_string()),
                last_modified: modified.to_string(),
            });
        }
        Ok(())
    }

    /// The manifests that a stored index names.
    fn manifests_of(&self, digest: &Digest) -> Vec<Digest> {
        let children = self.manifest_children(digest);
        children.map(|(_, children)| children.manifests).unwrap_or_default()
    }

    /// Size of a stored manifest and what it names; nothing for what cannot be read.
    fn manifest_children(&self, digest: &Digest) -> Option<(u64, manifest::Children)> {
        let path = self.layout.blob(digest);
        // Without a pin: listing is not using.
        let file = self.disk.open_regular(&path).ok()??;
        let length = self.disk.metadata(&path, &file).ok()?.len();
        if length > manifest::MAX_SIZE as u64 {
            return Some((length, manifest::Children::default()));
        }
        let len = usize::try_from(length).unwrap_or(usize::MAX);
        let bytes = self.disk.read_at(&file, 0, len).ok()?;
        Some((length, manifest::children(&bytes)))
    }

    /// Bytes of a manifest and of what it names, as far as stored, each digest once. A crafted
    /// manifest that names thousands is not followed to its end.
    fn image_size(&self, digest: &Digest, seen: &mut HashSet<Digest>) -> u64 {
        if seen.len() >= MAX_PARTS || !seen.insert(digest.clone()) {
            return 0;
        }
        let Some((mut size, children)) = self.manifest_children(digest) else {
            return 0;
        };
        for manifest in &children.manifests {
            size += self.image_size(manifest, seen);
        }
        for blob in children.blobs {
            if seen.len() < MAX_PARTS && !seen.contains(&blob) {
                size += self.layout.blob(&blob).symlink_metadata().map_or(0, |found| found.len());
                seen.insert(blob);
            }
        }
        size
    }
}
