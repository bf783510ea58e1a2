//! Which repository is known to have which digest.

use std::sync::Arc;

use moka::sync::Cache;
use prometheus::IntCounter;
use tokio_util::task::TaskTracker;

use super::{Place, PlaceKey, blocking, looking};
use crate::{
    oci::Digest,
    store::{Store, StoreError},
};

/// The links of the store, with those of late in memory: a warm pull asks for a handful of them
/// again and again.
#[derive(Debug)]
pub(super) struct Links {
    store: Arc<Store>,
    known: Cache<(PlaceKey, Digest), ()>,
    shared: Cache<PlaceKey, bool>,
    tasks: TaskTracker,
    errors: IntCounter,
}

/// Some 300 bytes each.
const KNOWN: u64 = 20_000;

impl Links {
    /// Files are written on `tasks`; what fails there is counted in `errors`.
    pub(super) fn new(store: Arc<Store>, tasks: TaskTracker, errors: IntCounter) -> Self {
        Self { store, known: Cache::new(KNOWN), shared: Cache::new(KNOWN), tasks, errors }
    }

    /// Whether the upstream was seen to have `digest` in this repository.
    pub(super) async fn has(&self, place: &Place, digest: &Digest) -> Result<bool, StoreError> {
        let key = (place.key(), digest.clone());
        if self.known.contains_key(&key) {
            return Ok(true);
        }
        let (store, ((host, repository), digest)) = (self.store.clone(), key.clone());
        let found = looking(move || Ok(store.has_link(&host, &repository, &digest))).await?;
        if found {
            self.known.insert(key, ());
        }
        Ok(found)
    }

    /// Whether anything of this repository was ever fetched in access mode `Shared`: it is then
    /// not known to be what anybody may read.
    pub(super) async fn were_shared(&self, place: &Place) -> Result<bool, StoreError> {
        let key = place.key();
        if let Some(shared) = self.shared.get(&key) {
            return Ok(shared);
        }
        let (store, (host, repository)) = (self.store.clone(), key.clone());
        let shared = looking(move || Ok(store.was_shared(&host, &repository))).await?;
        self.shared.insert(key, shared);
        Ok(shared)
    }

    /// Takes note, in memory, that the upstream answered 200 for `digest` in this repository.
    pub(super) fn remember(&self, place: &Place, digest: &Digest) {
        self.known.insert((place.key(), digest.clone()), ());
    }

    /// The same, and has the file written off the client's path.
    pub(super) fn add(self: &Arc<Self>, place: &Place, digest: &Digest) {
        self.remember(place, digest);
        let (links, place, digest) = (self.clone(), place.clone(), digest.clone());
        self.tasks.spawn(async move { links.write(&place, &digest).await });
    }

    /// The same, and writes the file. For content that is being stored this comes first: a link
    /// without content is harmless, content without a link is useless in an outage.
    pub(super) async fn write(&self, place: &Place, digest: &Digest) {
        self.remember(place, digest);
        let (store, digest) = (self.store.clone(), digest.clone());
        let (host, repository) = place.key();
        let shares = place.upstream.config().shares(&repository);
        if shares {
            self.shared.insert(place.key(), true);
        }
        let written = blocking(move || {
            if shares {
                store.mark_shared(&host, &repository)?;
            }
            store.link(&host, &repository, &digest)
        });
        if let Err(error) = written.await {
            self.errors.inc();
            tracing::error!(error = &error as &dyn std::error::Error, "cannot write a link");
        }
    }
}
