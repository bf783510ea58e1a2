//! How often images were pulled and when last. Soft state, in memory.

use std::{collections::HashMap, sync::Mutex};

use jiff::Timestamp;

use crate::oci::{Digest, Repository, UpstreamHost};

/// How one image was used since the process started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageUse {
    /// Manifest requests with a body (`GET`).
    pub pulls: u64,
    /// When the last one was.
    pub last_pull: Timestamp,
}

type Key = (UpstreamHost, Repository, Digest);

/// Use counts by image.
#[derive(Debug, Default)]
pub struct Usage {
    images: Mutex<HashMap<Key, ImageUse>>,
}

impl Usage {
    /// Counts one pull.
    pub fn record(
        &self,
        host: &UpstreamHost,
        repository: &Repository,
        digest: &Digest,
        now: Timestamp,
    ) {
        let key = (host.clone(), repository.clone(), digest.clone());
        let mut images = self.images.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let entry = images.entry(key).or_insert(ImageUse { pulls: 0, last_pull: now });
        entry.pulls += 1;
        entry.last_pull = now;
    }

    /// The use of one image, if it was used.
    pub fn get(
        &self,
        host: &UpstreamHost,
        repository: &Repository,
        digest: &Digest,
    ) -> Option<ImageUse> {
        let key = (host.clone(), repository.clone(), digest.clone());
        let images = self.images.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        images.get(&key).copied()
    }
}
