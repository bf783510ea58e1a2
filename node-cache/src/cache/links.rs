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

    /// Whether the upstream was seen to have `digest` in this repository. If the disk does not tell,
    /// the upstream will be asked.
    pub(super) async fn has(&self, place: &Place, digest: &Digest) -> bool {
        let key = (place.key(), digest.clone());
        if self.known.contains_key(&key) {
            return true;
        }
        let ((host, repository), digest) = key.clone();
        let look = looking(&self.store, move |store| store.has_link(&host, &repository, &digest));
        let found = look.await.unwrap_or_else(|error| {
            self.failed(&error, "cannot look for a link");
            false
        });
        if found {
            self.known.insert(key, ());
        }
        found
    }

    /// Whether anything of this repository was ever fetched in access mode `Shared`: it is then
    /// not known to be what anybody may read. If the disk does not tell, neither is anything else.
    pub(super) async fn were_shared(&self, place: &Place) -> bool {
        let key = place.key();
        if let Some(shared) = self.shared.get(&key) {
            return shared;
        }
        let (host, repository) = key.clone();
        let look = looking(&self.store, move |store| store.was_shared(&host, &repository)).await;
        match look {
            Ok(shared) => {
                self.shared.insert(key, shared);
                shared
            }
            Err(error) => {
                self.failed(&error, "cannot look for the mark of shared content");
                true
            }
        }
    }

    fn failed(&self, error: &StoreError, what: &'static str) {
        if error.is_expected() {
            return;
        }
        self.errors.inc();
        tracing::error!(%error, "{what}");
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
            self.failed(&error, "cannot write a link");
        }
    }
}
