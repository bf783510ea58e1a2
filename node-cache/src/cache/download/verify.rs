//! Hashing a stored blob, as a download whose bytes come from the store itself.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Download, Downloads, Failure, Listed, Progress, Stage};
use crate::{
    cache::blocking,
    oci::{Digest, Hasher},
    store::Blob,
};

impl Downloads {
    /// Hashes a stored blob that is not trusted, as a download that readers can follow.
    pub(in crate::cache) fn verify(self: &Arc<Self>, digest: &Digest, blob: Blob) -> Arc<Download> {
        let mut active = self.active();
        if let Some(download) = active.get(digest) {
            return download.clone();
        }
        let download = Arc::new(Download::new(None));
        download.progress.send_modify(|progress| {
            progress.total = Some(blob.size);
            progress.content = Some(blob.content.clone());
            progress.stage = Stage::Streaming;
        });
        active.insert(digest.clone(), download.clone());
        drop(active);
        let (downloads, digest) = (self.clone(), digest.clone());
        let following = download.clone();
        self.tasks.spawn(async move {
            let guard = Listed { downloads: &downloads, digest: &digest, download: &following };
            let (hashing, wanted) = (following.progress.clone(), digest.clone());
            let (store, stored) = (downloads.store.clone(), blob);
            let result = blocking(move || {
                let good = hash_stored(&stored, &wanted, &hashing);
                if good {
                    store.trust(&wanted, &stored);
                } else {
                    store.quarantine_blob(&wanted)?;
                }
                Ok(good)
            })
            .await;
            downloads.active().remove(&digest);
            let stage = match result {
                Ok(true) => Stage::Verified,
                other => {
                    downloads.metrics.quarantined.inc();
                    if let Err(error) = other {
                        tracing::error!(%digest, %error, "quarantine failed");
                    }
                    tracing::error!(%digest, "a stored blob is not what its name says; it is fetched again");
                    Stage::Failed(Failure::Mismatch { from: "the store".to_owned(), pieced: false })
                }
            };
            following.progress.send_modify(|progress| progress.stage = stage);
            drop(guard);
        });
        download
    }
}

/// Hashes the file and publishes how far it has come. An unreadable file is not good.
fn hash_stored(blob: &Blob, digest: &Digest, progress: &watch::Sender<Progress>) -> bool {
    const STEP: usize = 1 << 20;
    let mut hasher = Hasher::new(digest.algorithm());
    let mut offset = 0;
    while offset < blob.size {
        match blob.content.read_at(offset, STEP) {
            Ok(bytes) if !bytes.is_empty() => {
                hasher.update(&bytes);
                offset += bytes.len() as u64;
                progress.send_modify(|progress| progress.frontier = offset.min(blob.size));
            }
            _ => return false,
        }
    }
    offset == blob.size && hasher.finish() == *digest
}
