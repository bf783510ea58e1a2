//! How often images were pulled and when last. Soft state: what a crash loses is a few seconds.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;

use crate::oci::{Digest, Repository, UpstreamHost};

/// How one image was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageUse {
    /// Manifest requests with a body (`GET`).
    pub pulls: u64,
    /// When the last one was.
    pub last_pull: Timestamp,
}

/// An image: where it was asked for, and its manifest.
pub(super) type ImageKey = (UpstreamHost, Repository, Digest);

/// Images that are remembered; some 300 bytes each. Beyond that the ones unused for longest go.
const MAX_IMAGES: usize = 20_000;

/// Use counts by image.
#[derive(Debug, Default)]
pub struct Usage {
    images: Mutex<Images>,
}

#[derive(Debug, Default)]
struct Images {
    uses: HashMap<ImageKey, ImageUse>,
    changed: HashSet<ImageKey>,
}

impl Usage {
    fn images(&self) -> MutexGuard<'_, Images> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one pull.
    pub fn record(
        &self,
        host: &UpstreamHost,
        repository: &Repository,
        digest: &Digest,
        now: Timestamp,
    ) {
        let key = (host.clone(), repository.clone(), digest.clone());
        let mut images = self.images();
        let entry = images.uses.entry(key.clone()).or_insert(ImageUse { pulls: 0, last_pull: now });
        entry.pulls += 1;
        entry.last_pull = now;
        images.changed.insert(key);
        images.prune();
    }

    /// The use of every image.
    pub(super) fn all(&self) -> Vec<(ImageKey, ImageUse)> {
        self.images().uses.iter().map(|(key, used)| (key.clone(), *used)).collect()
    }

    /// The use of one image, if it was used.
    pub fn get(
        &self,
        host: &UpstreamHost,
        repository: &Repository,
        digest: &Digest,
    ) -> Option<ImageUse> {
        let key = (host.clone(), repository.clone(), digest.clone());
        self.images().uses.get(&key).copied()
    }

    /// Adds what an earlier process counted.
    pub(super) fn remember(&self, earlier: impl IntoIterator<Item = (ImageKey, ImageUse)>) {
        let mut images = self.images();
        for (key, earlier) in earlier {
            let entry = images.uses.entry(key).or_insert(ImageUse { pulls: 0, ..earlier });
            entry.pulls += earlier.pulls;
            entry.last_pull = entry.last_pull.max(earlier.last_pull);
        }
        images.prune();
    }

    /// What has changed since the last call, for writing down; `None` for what is forgotten.
    pub(super) fn take_changes(&self) -> Vec<(ImageKey, Option<ImageUse>)> {
        let mut images = self.images();
        let changed = std::mem::take(&mut images.changed);
        changed
            .into_iter()
            .map(|key| {
                let used = images.uses.get(&key).copied();
                (key, used)
            })
            .collect()
    }

    /// These could not be written down.
    pub(super) fn put_back(&self, changes: impl IntoIterator<Item = ImageKey>) {
        self.images().changed.extend(changes);
    }
}

impl Images {
    /// Forgets a tenth at once, so that this is rare.
    fn prune(&mut self) {
        if self.uses.len() <= MAX_IMAGES {
            return;
        }
        let mut by_age: Vec<_> =
            self.uses.iter().map(|(key, used)| (used.last_pull, key.clone())).collect();
        by_age.sort_by_key(|(last, _)| *last);
        for (_, key) in by_age.into_iter().take(MAX_IMAGES / 10) {
            self.uses.remove(&key);
            self.changed.insert(key);
        }
    }
}

#[cfg(test)]
impl Usage {
    /// As if it had never been used.
    pub(super) fn forget(&self, host: &UpstreamHost, repository: &Repository, digest: &Digest) {
        self.images().uses.remove(&(host.clone(), repository.clone(), digest.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn the_images_unused_for_longest_are_forgotten_when_there_are_too_many() {
        let usage = Usage::default();
        let host: UpstreamHost = "docker.io".parse().unwrap();
        let repository: Repository = "library/nginx".parse().unwrap();
        let digest = |n: usize| Digest::of(Algorithm::Sha256, &n.to_le_bytes());
        for n in 0..=MAX_IMAGES {
            let now = Timestamp::from_second(i64::try_from(n).unwrap()).unwrap();
            usage.record(&host, &repository, &digest(n), now);
        }
        assert!(usage.get(&host, &repository, &digest(0)).is_none());
        assert!(usage.get(&host, &repository, &digest(MAX_IMAGES)).is_some());
        assert!(usage.images().uses.len() < MAX_IMAGES);
    }
}
