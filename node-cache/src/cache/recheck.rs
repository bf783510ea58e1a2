//! Blobs that were sent whole and are asked for again soon after.
//!
//! A node pulls a blob once. Who asks twice may have got bytes that were not what the digest says:
//! damage underneath the file system changes no ctime. So the second time the file is hashed before
//! it is sent, and a client that was given bad bytes once is not given them again.

use std::time::Duration;

use moka::sync::Cache;

use crate::oci::Digest;

/// The kubelet tries again after 10 s, doubling to 5 min.
const MEMORY: Duration = Duration::from_mins(10);

/// What was sent whole, and what was hashed for that reason, within the last ten minutes.
#[derive(Debug)]
pub(super) struct Rechecks {
    sent: Cache<Digest, ()>,
    checked: Cache<Digest, ()>,
}

impl Default for Rechecks {
    fn default() -> Self {
        let memory = || Cache::builder().max_capacity(10_000).time_to_live(MEMORY).build();
        Self { sent: memory(), checked: memory() }
    }
}

impl Rechecks {
    /// The last byte of a whole blob is on its way.
    pub(super) fn sent(&self, digest: &Digest) {
        self.sent.insert(digest.clone(), ());
    }

    /// Whether the blob should be hashed before it is sent again; at most once in ten minutes, so
    /// that many pulls of one image cost one more read of it.
    pub(super) fn is_due(&self, digest: &Digest) -> bool {
        if !self.sent.contains_key(digest) || self.checked.contains_key(digest) {
            return false;
        }
        self.checked.insert(digest.clone(), ());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn what_was_sent_whole_is_hashed_once_when_it_is_asked_for_again() {
        let rechecks = Rechecks::default();
        let digest = Digest::of(Algorithm::Sha256, b"blob");
        assert!(!rechecks.is_due(&digest), "never sent");
        rechecks.sent(&digest);
        assert!(rechecks.is_due(&digest));
        rechecks.sent(&digest);
        assert!(!rechecks.is_due(&digest), "it was hashed a moment ago");
        assert!(!rechecks.is_due(&Digest::of(Algorithm::Sha256, b"other")));
    }
}
