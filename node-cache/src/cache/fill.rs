//! One download from an upstream into the store.
//!
//! ```text
//! upstream --chunks--> [batch while the last one is written] --blocking pool--> file + hash
//!                                                                   |
//!                                              Progress: readers follow the frontier
//! ```
//! A connection that breaks or falls silent is replaced where it stopped; clients notice nothing.

mod sink;
mod source;

use std::sync::Arc;

use futures_util::FutureExt;
use prometheus::IntCounter;
use tokio::{
    sync::watch,
    time::{Duration, Instant, timeout_at},
};

use super::{
    blocking,
    download::{Failure, Progress, Stage},
    links::Links,
};
use crate::{
    metrics::FillEnd,
    oci::Hasher,
    store::{Partial, Store, StoreError},
    upstream::UpstreamError,
};
use sink::{Sink, Writing};
pub(super) use source::{Origin, Source};

/// What one download needs.
pub(super) struct Fill {
    pub(super) store: Arc<Store>,
    pub(super) links: Arc<Links>,
    pub(super) fetched: IntCounter,
    pub(super) quarantined: IntCounter,
    pub(super) store_errors: IntCounter,
    pub(super) origin: Origin,
    pub(super) first_endpoint: usize,
    /// Take everything from one endpoint, nothing from an earlier attempt.
    pub(super) single_source: bool,
}

/// How a download ended that did not succeed.
pub(super) struct Ended {
    pub(super) failure: Failure,
    /// Bytes that remain good.
    pub(super) held: u64,
    /// Which endpoint the next attempt should try first.
    pub(super) next_endpoint: usize,
}

/// Bytes collected while the previous ones are being written.
const BATCH: usize = 1 << 20;
/// Why the bytes stopped coming.
enum Pause {
    /// The body ended where it should.
    Complete,
    /// It broke; the reason.
    Broken(String),
    /// It fell silent.
    Silent,
}

/// What there is of a blob before its download.
enum Look {
    Stored,
    Nothing,
    Partial(Partial, u64),
}

impl Fill {
    pub(super) async fn run(self, progress: watch::Sender<Progress>) -> Result<FillEnd, Ended> {
        let (mut sink, mut source) = self.start(&progress).await?;
        let (partial, total, held) = (sink.partial.clone(), source.total, sink.frontier);
        if total.is_some_and(|total| total < held) {
            // What an earlier attempt left is longer than the content.
            return Err(self.reject(partial, true, source.response.endpoint).await);
        }
        self.links.remember(&self.origin.place, &self.origin.digest);
        progress.send_modify(|progress| {
            progress.total = total;
            progress.stage = Stage::Streaming;
        });

        let mut pieced = held > 0;
        let mut answered = source.response.endpoint;
        let mut fruitless = 0;
        let mut last_byte = Instant::now();
        while total != Some(sink.frontier) {
            let endpoint = source.response.endpoint;
            let before = sink.frontier;
            let (returned, pause) = self.pump(sink, source, total, &mut last_byte).await;
            sink = match returned {
                Ok(sink) => sink,
                Err(error) => {
                    self.give_up(&partial).await;
                    return Err(self.failed(self.store_failure(&error), before));
                }
            };
            fruitless = if sink.frontier > before { 0 } else { fruitless + 1 };
            let (reason, next) = match pause {
                Pause::Complete => break,
                Pause::Broken(reason) if fruitless == 0 => (reason, endpoint),
                Pause::Broken(reason) => (reason, endpoint + 1),
                Pause::Silent => ("no byte for too long".to_owned(), endpoint + 1),
            };
            if self.single_source {
                let from = self.origin.place.host().to_string();
                self.discard(&partial).await;
                return Err(Ended {
                    failure: Failure::Stalled { from, reason },
                    held: 0,
                    next_endpoint: next,
                });
            }
            tracing::debug!(digest = %self.origin.digest, frontier = sink.frontier, reason, "resuming a download");
            pieced = true;
            answered = endpoint;
            let give_up = last_byte + self.patience();
            source = match self.origin.resume(sink.frontier, total, next, fruitless, give_up).await
            {
                Ok(source) => source,
                Err(failure) => {
                    let failure = failure.unwrap_or_else(|| Failure::Stalled {
                        from: self.origin.place.host().to_string(),
                        reason,
                    });
                    self.give_up(&partial).await;
                    return Err(Ended { failure, held: sink.frontier, next_endpoint: next });
                }
            };
        }
        self.conclude(sink, pieced, answered).await
    }

    fn failed(&self, failure: Failure, held: u64) -> Ended {
        Ended { failure, held, next_endpoint: self.first_endpoint }
    }

    /// Asks the upstream and gets the file ready. Nothing is created for content that the upstream
    /// does not give.
    async fn start(&self, progress: &watch::Sender<Progress>) -> Result<(Sink, Source), Ended> {
        let store_failed = |error: StoreError| self.failed(self.store_failure(&error), 0);
        let leftover = match self.look().await.map_err(store_failed)? {
            Look::Stored => return Err(self.failed(Failure::Stored, 0)),
            Look::Nothing => None,
            Look::Partial(partial, held) => Some((partial, held)),
        };
        let held = leftover.as_ref().map_or(0, |(_, held)| *held);
        let asked = self.origin.connect(held, self.first_endpoint, Instant::now() + super::BUDGET);
        let upstream_failed = |error: UpstreamError| self.failed(error.into(), held);
        let (sink, source) = if let Some((partial, held)) = leftover {
            // The file is hashed again while the upstream is asked: what it holds may never have
            // reached the disk before a power cut.
            let unreadable = partial.clone();
            let sink = self.sink(partial, progress);
            let (sink, source) = tokio::join!(blocking(move || sink.rehash(held)), asked);
            if sink.is_err() {
                // What cannot be read is of no use to the next attempt either.
                self.discard(&unreadable).await;
            }
            (sink.map_err(store_failed)?, source.map_err(upstream_failed)?)
        } else {
            let source = asked.await.map_err(upstream_failed)?;
            let (store, digest) = (self.store.clone(), self.origin.digest.clone());
            let created = blocking(move || {
                let partial = store.partial(&digest)?;
                partial.truncate(0)?;
                Ok(partial)
            });
            (self.sink(created.await.map_err(store_failed)?, progress), source)
        };
        if let Some(total) = source.total {
            let (store, partial) = (self.store.clone(), sink.partial.clone());
            if let Err(error) = blocking(move || store.reserve(&partial, total)).await {
                self.give_up(&sink.partial).await;
                return Err(self.failed(self.store_failure(&error), held));
            }
        }
        Ok((sink, source))
    }

    /// What is there already: by an earlier attempt, or by a download that ended between the
    /// request's look at the store and now.
    async fn look(&self) -> Result<Look, StoreError> {
        let (store, digest, fresh) =
            (self.store.clone(), self.origin.digest.clone(), self.single_source);
        blocking(move || {
            if store.blob(&digest)?.is_some() {
                return Ok(Look::Stored);
            }
            // Before the upstream is asked for bytes that could not be kept.
            store.check_writable()?;
            match store.leftover(&digest)? {
                Some(partial) if !fresh => {
                    let held = partial.length()?;
                    Ok(Look::Partial(partial, held))
                }
                _ => Ok(Look::Nothing),
            }
        })
        .await
    }

    fn sink(&self, partial: Partial, progress: &watch::Sender<Progress>) -> Sink {
        progress.send_modify(|progress| progress.content = Some(partial.content().clone()));
        Sink {
            store: self.store.clone(),
            partial,
            hasher: Hasher::new(self.origin.digest.algorithm()),
            frontier: 0,
            reserved: 0,
            progress: progress.clone(),
        }
    }

    /// Moves bytes until the body ends, breaks or falls silent.
    async fn pump(
        &self,
        sink: Sink,
        source: Source,
        total: Option<u64>,
        last_byte: &mut Instant,
    ) -> (Result<Sink, StoreError>, Pause) {
        let Source { mut response, mut skip, total: _ } = source;
        let mut received = sink.frontier;
        let mut sink = Writing::Idle(sink);
        loop {
            // Half of the time for this connection, the other half for another one.
            let half = Instant::now() + self.patience() / 2;
            let silent = half.min(*last_byte + self.patience());
            let Ok(first) = timeout_at(silent, response.chunk()).await else {
                return (sink.settle().await, Pause::Silent);
            };
            let mut batch = Vec::new();
            let mut size = 0;
            let mut next = Some(first);
            let mut pause = None;
            // Whatever has already arrived joins the batch, up to its bound.
            while let Some(chunk) = next.take() {
                match chunk {
                    Ok(Some(mut bytes)) => {
                        self.fetched.inc_by(bytes.len() as u64);
                        let drop = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
                        skip -= drop as u64;
                        let mut bytes = bytes.split_off(drop);
                        if let Some(total) = total {
                            let room = usize::try_from(total - received).unwrap_or(usize::MAX);
                            bytes.truncate(room);
                        }
                        received += bytes.len() as u64;
                        *last_byte = Instant::now();
                        size += bytes.len();
                        if !bytes.is_empty() {
                            batch.push(bytes);
                        }
                        if total == Some(received) {
                            pause = Some(Pause::Complete);
                        } else if size < BATCH {
                            next = response.chunk().now_or_never();
                        }
                    }
                    Ok(None) if total.is_none_or(|total| total == received) && skip == 0 => {
                        pause = Some(Pause::Complete);
                    }
                    Ok(None) => pause = Some(Pause::Broken("the body ended early".to_owned())),
                    Err(error) => pause = Some(Pause::Broken(error.to_string())),
                }
            }
            let waited = Instant::now();
            let settled = sink.settle().await;
            // The disk was slow, not the upstream.
            *last_byte += waited.elapsed();
            sink = match settled {
                Ok(sink) if batch.is_empty() => Writing::Idle(sink),
                Ok(sink) => Writing::Busy(tokio::task::spawn_blocking(move || sink.write(&batch))),
                Err(error) => return (Err(error), Pause::Broken("the store failed".to_owned())),
            };
            if let Some(pause) = pause {
                return (sink.settle().await, pause);
            }
        }
    }

    /// How long no byte may come. A little less than clients are kept waiting, so that the download
    /// is the first to know: what comes next is then answered with 503 at once.
    fn patience(&self) -> Duration {
        self.origin.place.upstream.config().timeouts.stall * 9 / 10
    }

    /// Compares the digest. The last byte is released as soon as it is right; making the file
    /// durable is off the client's path.
    async fn conclude(&self, sink: Sink, pieced: bool, endpoint: usize) -> Result<FillEnd, Ended> {
        let Sink { store: _, partial, hasher, frontier, reserved: _, progress } = sink;
        if hasher.finish() == self.origin.digest {
            progress.send_modify(|progress| {
                progress.total = Some(frontier);
                progress.stage = Stage::Verified;
            });
            self.links.write(&self.origin.place, &self.origin.digest).await;
            let (store, digest) = (self.store.clone(), self.origin.digest.clone());
            let committed = blocking(move || {
                store.commit(&partial).inspect_err(|_| {
                    // After a failed fsync the bytes count as lost, so they are not kept.
                    let _ = store.discard(&partial);
                })
            });
            return match committed.await {
                Ok(()) => Ok(FillEnd::Stored),
                Err(error) => {
                    self.store_failure(&error);
                    tracing::error!(%digest, "a blob cannot be kept");
                    Ok(FillEnd::NotKept)
                }
            };
        }
        Err(self.reject(partial, pieced, endpoint).await)
    }

    /// Moves a file with the wrong bytes out of the way.
    async fn reject(&self, partial: Partial, pieced: bool, endpoint: usize) -> Ended {
        let store = self.store.clone();
        if let Err(error) = blocking(move || store.quarantine_partial(&partial)).await {
            tracing::error!(%error, "quarantine failed");
        }
        self.quarantined.inc();
        let from = self.origin.place.host().to_string();
        let next_endpoint = endpoint + 1;
        Ended { failure: Failure::Mismatch { from, pieced }, held: 0, next_endpoint }
    }

    async fn discard(&self, partial: &Partial) {
        let (store, partial) = (self.store.clone(), partial.clone());
        if let Err(error) = blocking(move || store.discard(&partial)).await {
            self.store_failure(&error);
        }
    }

    fn store_failure(&self, error: &StoreError) -> Failure {
        if error.is_expected() {
            tracing::debug!(digest = %self.origin.digest, %error, "passing through");
        } else {
            self.store_errors.inc();
            tracing::error!(%error, "the store failed in a download");
        }
        Failure::Store { reason: error.to_string() }
    }

    /// Keeps what came for a later attempt; an empty file is removed.
    async fn give_up(&self, partial: &Partial) {
        let (store, partial) = (self.store.clone(), partial.clone());
        if let Err(error) = blocking(move || store.keep(&partial)).await {
            tracing::warn!(
                %error,
                "cannot tidy an unfinished download"
            );
        }
    }
}
