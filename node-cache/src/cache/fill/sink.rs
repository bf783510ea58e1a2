//! Where a download's bytes go: the file, the hash, and the frontier that readers follow.

use std::sync::Arc;

use bytes::Bytes;
use tokio::{sync::watch, task::JoinHandle};

use super::BATCH;
use crate::{
    cache::download::Progress,
    oci::Hasher,
    store::{Partial, Store, StoreError},
};

/// Steps in which a download of unknown length reserves space.
const RESERVE_STEP: u64 = 64 << 20;

/// The file, the hash and the frontier. It moves to the blocking pool and back with every batch.
pub(super) struct Sink {
    pub(super) store: Arc<Store>,
    pub(super) partial: Partial,
    pub(super) hasher: Hasher,
    pub(super) frontier: u64,
    pub(super) reserved: u64,
    pub(super) progress: watch::Sender<Progress>,
}

impl Sink {
    /// Hashes the first `held` bytes of the file.
    pub(super) fn rehash(mut self, held: u64) -> Result<Self, StoreError> {
        while self.frontier < held {
            let step = usize::try_from(held - self.frontier).unwrap_or(BATCH).min(BATCH);
            let bytes = self.partial.read_at(self.frontier, step)?;
            if bytes.is_empty() {
                break;
            }
            self.hasher.update(&bytes);
            self.frontier += bytes.len() as u64;
            self.publish();
        }
        Ok(self)
    }

    pub(super) fn write(mut self, batch: &[Bytes]) -> Result<Self, StoreError> {
        for bytes in batch {
            let end = self.frontier + bytes.len() as u64;
            if self.progress.borrow().total.is_none() && end > self.reserved {
                self.reserved = end.next_multiple_of(RESERVE_STEP);
                self.store.reserve(&self.partial, self.reserved)?;
            }
            self.partial.write_at(self.frontier, bytes)?;
            self.hasher.update(bytes);
            self.frontier = end;
        }
        self.publish();
        Ok(self)
    }

    fn publish(&self) {
        self.progress.send_modify(|progress| progress.frontier = self.frontier);
    }
}

/// The sink, or the batch that has it.
pub(super) enum Writing {
    Idle(Sink),
    Busy(JoinHandle<Result<Sink, StoreError>>),
}

impl Writing {
    pub(super) async fn settle(self) -> Result<Sink, StoreError> {
        match self {
            Self::Idle(sink) => Ok(sink),
            Self::Busy(task) => match task.await {
                Ok(result) => result,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => Err(StoreError::ShuttingDown),
                },
            },
        }
    }
}
