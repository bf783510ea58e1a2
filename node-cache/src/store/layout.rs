//! Where things are. No I/O.
//!
//! ```text
//! larder-layout                                   version, and the lock
//! counters.redb                                   soft state: verified files, uses, pulls
//! blobs/<alg>/<first 2 hex>/<hex>                 verified content, manifests included
//! partial/<alg>/<hex>                             bytes of an unfinished download; length = how far
//! quarantine/<alg>-<hex>.<n>                      content that was not what its name said
//! repos/<host>/<repository>/_tags/<tag>           JSON: where the tag pointed when last seen
//! repos/<host>/<repository>/_links/<alg>/<hex>    empty: the upstream has this digest here
//! repos/<host>/<repository>/_shared               empty: some of it was fetched in access mode Shared
//! ```
//!
//! `_tags`, `_links` and `_shared` cannot collide with a repository's segment, which starts with a letter or
//! digit. A host with a port keeps its colon.

use std::path::{Path, PathBuf};

use crate::oci::{Algorithm, Digest, Repository, Tag, UpstreamHost};

/// Content of the version file.
pub(super) const VERSION: &str = "larder-layout 1\n";

/// The paths of one data directory.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn version(&self) -> PathBuf {
        self.root.join("larder-layout")
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.blobs().join(digest.algorithm().name()).join(&hex[..2]).join(hex)
    }

    pub(super) fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    pub(super) fn partial(&self, digest: &Digest) -> PathBuf {
        self.partials().join(digest.algorithm().name()).join(digest.hex())
    }

    pub(super) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    pub(super) fn counters(&self) -> PathBuf {
        self.root.join("counters.redb")
    }

    pub(super) fn repos(&self) -> PathBuf {
        self.root.join("repos")
    }

    fn repository(&self, host: &UpstreamHost, repository: &Repository) -> PathBuf {
        self.repos().join(host.as_str()).join(repository.as_str())
    }

    pub(super) fn tag(&self, host: &UpstreamHost, repository: &Repository, tag: &Tag) -> PathBuf {
        self.repository(host, repository).join("_tags").join(tag.as_str())
    }

    pub(super) fn shared(&self, host: &UpstreamHost, repository: &Repository) -> PathBuf {
        self.repository(host, repository).join("_shared")
    }

    pub(super) fn link(
        &self,
        host: &UpstreamHost,
        repository: &Repository,
        digest: &Digest,
    ) -> PathBuf {
        self.repository(host, repository)
            .join("_links")
            .join(digest.algorithm().name())
            .join(digest.hex())
    }

    /// Every folder that is there from the start.
    pub(super) fn fixed_folders(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.blobs(), self.partials(), self.quarantine(), self.repos()];
        for algorithm in Algorithm::ALL {
            folders.push(self.blobs().join(algorithm.name()));
            folders.push(self.partials().join(algorithm.name()));
        }
        folders
    }
}
