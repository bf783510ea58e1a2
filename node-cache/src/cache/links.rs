//! Which repository is known to have which digest.

use std::sync::Arc;

use moka::sync::Cache;

use super::{Place, PlaceKey, blocking};
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
}

/// Some 300 bytes each.
const KNOWN: u64 = 20_000;

impl Links {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store, known: Cache::new(KNOWN) }
    }

    /// Whether the upstream was seen to have `digest` in this repository.
    pub(super) async fn has(&self, place: &Place, digest: &Digest) -> Result<bool, StoreError> {
        let key = (place.key(), digest.clone());
        if self.known.contains_key(&key) {
            return Ok(true);
        }
        let (store, ((host, repository), digest)) = (self.store.clone(), key.clone());
        let found = blocking(move || Ok(store.has_link(&host, &repository, &digest))).await?;
        if found {
            self.known.insert(key, ());
        }
        Ok(found)
    }

    /// The same as [`add`](Self::add) in memory alone, at once; the caller has the file written.
    pub(super) fn remember(&self, place: &Place, digest: &Digest) {
        self.known.insert((place.key(), digest.clone()), ());
    }

    /// Records that the upstream answered 200 for `digest` in this repository. The memory knows at
    /// once; the file follows.
    pub(super) async fn add(&self, place: &Place, digest: &Digest) -> Result<(), StoreError> {
        self.remember(place, digest);
        let key = (place.key(), digest.clone());
        let (store, ((host, repository), digest)) = (self.store.clone(), key);
        blocking(move || store.link(&host, &repository, &digest)).await
    }
}
