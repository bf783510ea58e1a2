//! Downloads under way: one per digest, whoever asks, however many ask. A download outlives its
//! clients.
//!
//! Hashing a stored blob that is not trusted is the same thing with another source: readers follow
//! how far it has come, and the last byte is held back until the digest is right.

mod verify;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use super::{
    Error, Place, PlaceKey,
    fill::{self, Fill, Origin},
    links::Links,
    setback::{Setback, Setbacks},
};
use crate::{
    metrics::{FillEnd, Metrics},
    oci::Digest,
    store::{Content, Store},
    upstream::UpstreamError,
};

/// How far a download has come.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// Bytes that are in the file.
    pub(super) frontier: u64,
    /// Length of the whole, once known.
    pub(super) total: Option<u64>,
    /// What is going on.
    pub(super) stage: Stage,
    /// Where the bytes are; set before `frontier` leaves zero.
    pub(super) content: Option<Content>,
}

/// What a download is doing.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// Nothing came yet; the length may be unknown.
    Opening,
    /// The upstream answered; the length is known if it says so.
    Streaming,
    /// Every byte is there, and the digest is right.
    Verified,
    /// It ended before that.
    Failed(Failure),
}

/// Why a download ended early.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The upstream has no such content, refuses it, or cannot be reached.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The bytes are not what the digest says.
    #[error("the bytes from {from} are not what the digest says")]
    Mismatch {
        /// Where they came from.
        from: String,
        /// Whether they came in more than one piece, so that one source may still be good.
        pieced: bool,
    },
    /// No byte came for too long, and no endpoint took over.
    #[error("{from} stopped sending: {reason}")]
    Stalled {
        /// The upstream.
        from: String,
        /// What happened last.
        reason: String,
    },
    /// Nothing to do: the content was stored a moment ago.
    #[error("stored meanwhile")]
    Stored,
    /// The disk failed.
    #[error("the store failed: {reason}")]
    Store {
        /// The operation and its error.
        reason: String,
    },
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Upstream(error) => error.into(),
            // The path and the cause are in the log; a client has no use for them.
            Failure::Store { .. } => Self::unavailable("larder's store failed"),
            other => Self::unavailable(other.to_string()),
        }
    }
}

impl Progress {
    /// How many bytes may be given away: all but the last one, until the digest is right.
    pub(super) fn visible(&self) -> u64 {
        match (&self.stage, self.total) {
            (Stage::Verified, _) => self.frontier,
            (_, Some(total)) => self.frontier.min(total.saturating_sub(1)),
            (_, None) => self.frontier.saturating_sub(1),
        }
    }

    /// Whether it will not change any more.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Verified | Stage::Failed(_))
    }
}

/// One download under way, or over.
#[derive(Debug)]
pub(super) struct Download {
    /// Whose 200 started it; none when the bytes come from the store itself.
    origin: Option<PlaceKey>,
    progress: watch::Sender<Progress>,
    /// Ranges far ahead of the frontier that are fetched on the side.
    pub(super) side_ranges: Arc<Semaphore>,
}

/// At most this many fetches on the side for one blob; the next client is sent to the upstream.
const SIDE_RANGES: usize = 4;

impl Download {
    fn new(origin: Option<PlaceKey>) -> Self {
        let start = Progress { frontier: 0, total: None, stage: Stage::Opening, content: None };
        Self {
            origin,
            progress: watch::Sender::new(start),
            side_ranges: Arc::new(Semaphore::new(SIDE_RANGES)),
        }
    }

    /// Whether the upstream's answer to this very download shows that `place` has the content.
    pub(super) fn proves(&self, place: &Place) -> bool {
        self.origin.as_ref() == Some(&place.key())
    }

    /// Whether its bytes come from an upstream rather than from the store.
    pub(super) fn dials_out(&self) -> bool {
        self.origin.is_some()
    }

    /// Follows the progress.
    pub(super) fn follow(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }
}

/// The downloads under way.
#[derive(Debug)]
pub(super) struct Downloads {
    active: Mutex<HashMap<Digest, Arc<Download>>>,
    setbacks: Setbacks,
    store: Arc<Store>,
    links: Arc<Links>,
    metrics: Metrics,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Downloads {
    pub(super) fn new(
        store: Arc<Store>,
        links: Arc<Links>,
        metrics: Metrics,
        tasks: TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        let active = Mutex::default();
        Self { active, setbacks: Setbacks::default(), store, links, metrics, tasks, cancel }
    }

    fn active(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Download>>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The download of `digest`, if one is under way.
    pub(super) fn current(&self, digest: &Digest) -> Option<Arc<Download>> {
        self.active().get(digest).cloned()
    }

    /// How `digest` failed a client within the last 30 s.
    pub(super) fn setback(&self, digest: &Digest) -> Option<Setback> {
        self.setbacks.get(digest)
    }

    /// A body of `digest` ended at `position` because nothing more came.
    pub(super) fn note_silence(&self, digest: &Digest, position: u64) {
        let next_endpoint = self.setback(digest).map_or(0, |setback| setback.next_endpoint);
        self.setbacks.record(digest, Setback { held: position, next_endpoint });
    }

    /// The download of `digest`, started from `place` if there is none. The flag says whether this
    /// call started it.
    pub(super) fn join_or_start(
        self: &Arc<Self>,
        place: &Place,
        digest: &Digest,
    ) -> (Arc<Download>, bool) {
        let mut active = self.active();
        if let Some(download) = active.get(digest) {
            return (download.clone(), false);
        }
        let download = Arc::new(Download::new(Some(place.key())));
        active.insert(digest.clone(), download.clone());
        drop(active);
        self.spawn(place.clone(), digest.clone(), download.clone(), false);
        (download, true)
    }

    fn spawn(
        self: &Arc<Self>,
        place: Place,
        digest: Digest,
        download: Arc<Download>,
        single_source: bool,
    ) {
        let downloads = self.clone();
        let task = async move {
            let guard = Listed { downloads: &downloads, digest: &digest, download: &download };
            let started = Instant::now();
            let fill = Fill {
                store: downloads.store.clone(),
                links: downloads.links.clone(),
                fetched: downloads.metrics.fetched(place.host()),
                quarantined: downloads.metrics.quarantined.clone(),
                store_errors: downloads.metrics.store_errors.clone(),
                origin: Origin { place: place.clone(), digest: digest.clone() },
                first_endpoint: downloads.setback(&digest).map_or(0, |s| s.next_endpoint),
                single_source,
            };
            let mut run = std::pin::pin!(fill.run(download.progress.clone()));
            let result = tokio::select! {
                result = &mut run => result,
                () = downloads.cancel.cancelled() => {
                    if matches!(download.progress.borrow().stage, Stage::Verified) {
                        // Only the disk is left to do.
                        run.await
                    } else {
                        Err(interrupted(&place))
                    }
                }
            };
            let end = End { result, elapsed: started.elapsed(), single_source };
            downloads.finish(&place, &digest, &download, end);
            drop(guard);
        };
        // Under the request that started it, so that the log tells which one that was.
        self.tasks.spawn(task.instrument(tracing::Span::current()));
    }

    /// Takes the download off the list, remembers how it failed, and lets readers know last: who
    /// comes after that finds the list and the store in their final state.
    fn finish(
        self: &Arc<Self>,
        place: &Place,
        digest: &Digest,
        download: &Arc<Download>,
        End { result, elapsed, single_source }: End,
    ) {
        let bytes = download.progress.borrow().frontier;
        let (upstream, repository) = (place.host(), &place.repository);
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let again = match &result {
            Ok(end) => {
                self.setbacks.clear(digest);
                self.metrics.fill(upstream, *end);
                let outcome = end.as_str();
                tracing::info!(%upstream, %repository, %digest, bytes, elapsed_ms, outcome, "fill");
                false
            }
            Err(fill::Ended { failure: Failure::Stored, .. }) => false,
            Err(fill::Ended { failure: Failure::Upstream(error), .. })
                if !matches!(error, UpstreamError::Unavailable { .. }) =>
            {
                // The client is told; it is nothing that went wrong.
                tracing::debug!(%upstream, %repository, %digest, %error, "no fill");
                false
            }
            Err(ended) => {
                let fill::Ended { failure, held, next_endpoint } = ended;
                let mismatch = matches!(failure, Failure::Mismatch { .. });
                let not_kept = matches!(failure, Failure::Store { .. });
                let end = match (mismatch, not_kept) {
                    (true, _) => FillEnd::Mismatch,
                    (_, true) => FillEnd::NotKept,
                    _ => FillEnd::Interrupted,
                };
                // What the disk does not take is passed through.
                if bytes > 0 && !not_kept {
                    let setback = Setback { held: *held, next_endpoint: *next_endpoint };
                    self.setbacks.record(digest, setback);
                }
                self.metrics.fill(upstream, end);
                let (outcome, error) = (end.as_str(), failure);
                tracing::warn!(%upstream, %repository, %digest, bytes, elapsed_ms, outcome, %error, "fill");
                // Once: an upstream whose bytes are wrong in one piece as well stays wrong.
                matches!(failure, Failure::Mismatch { pieced: true, .. }) && !single_source
            }
        };
        let mut active = self.active();
        if again {
            // Pieces of two sources did not fit together: fetch the whole from one.
            let next = Arc::new(Download::new(Some(place.key())));
            active.insert(digest.clone(), next.clone());
            drop(active);
            self.spawn(place.clone(), digest.clone(), next, true);
        } else {
            active.remove(digest);
            drop(active);
        }
        if let Err(ended) = result {
            download.progress.send_modify(|p| p.stage = Stage::Failed(ended.failure));
        }
    }
}

fn interrupted(place: &Place) -> fill::Ended {
    let from = place.host().to_string();
    let reason = "larder-node is shutting down".to_owned();
    let failure = Failure::Stalled { from, reason };
    fill::Ended { failure, held: 0, next_endpoint: 0 }
}

/// How a download's task ended.
struct End {
    result: Result<FillEnd, fill::Ended>,
    elapsed: Duration,
    single_source: bool,
}

/// Takes a download off the list whatever becomes of its task: one that panicked would otherwise
/// be followed for ever.
struct Listed<'a> {
    downloads: &'a Downloads,
    digest: &'a Digest,
    download: &'a Arc<Download>,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        let mut active = self.downloads.active();
        if active.get(self.digest).is_some_and(|listed| Arc::ptr_eq(listed, self.download)) {
            active.remove(self.digest);
        }
        drop(active);
        if self.download.progress.borrow().is_over() {
            return;
        }
        let reason = "the download was abandoned".to_owned();
        let failure = Failure::Store { reason };
        self.download.progress.send_modify(|progress| progress.stage = Stage::Failed(failure));
    }
}
