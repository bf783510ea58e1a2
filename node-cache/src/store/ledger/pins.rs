//! Who has a blob open.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::Ledger;
use crate::oci::Digest;

/// The ledger of a store, shared with everything that has a blob open.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct SharedLedger(Arc<Mutex<Ledger>>);

impl SharedLedger {
    pub(in crate::store) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a blob or an unfinished download from being given up while the pin lives.
    pub(in crate::store) fn pin(&self, digest: &Digest) -> Pin {
        self.lock().pin(digest);
        Pin { ledger: self.clone(), digest: digest.clone() }
    }
}

/// While it lives, the blob stays.
#[derive(Debug)]
pub(in crate::store) struct Pin {
    ledger: SharedLedger,
    digest: Digest,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.ledger.lock().unpin(&self.digest, Instant::now());
    }
}
