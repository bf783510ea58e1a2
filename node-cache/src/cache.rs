//! The policy: what is served from the store, what is fetched, what is refused.
//!
//! ```text
//! manifest by tag      upstream HEAD (or not: freshness) -> digest -> manifest by digest
//! manifest by digest   store, else upstream GET, verified before the first byte
//! blob                 store, else one download that every request follows; while the disk is full
//!                      or broken, each request its own (bypass)
//! ```
//! Every answer passes two gates first: may this repository be served ([`Place`]), and was its
//! content proven to be readable (`visibility`, `links`).

mod aside;
mod blob;
mod bypass;
mod download;
mod error;
mod fill;
mod freshness;
mod links;
mod listing;
mod manifest;
mod proof;
mod range;
mod reader;
mod recheck;
mod setback;
mod tag;
mod visibility;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use blob::BlobAnswer;
pub use error::{Error, ErrorKind};
pub use listing::ListAnswer;
pub use manifest::{Manifest, ManifestAnswer};
pub use range::{ByteRange, RangeSpec};
pub use reader::{Body, OpenStreams, Truncated};

use crate::{
    metrics::Metrics,
    oci::{Repository, UpstreamHost},
    store::{Store, StoreError},
    upstream::Upstream,
};

/// Until headers or an error are on their way: the promise is 10 s, and half a second is kept for
/// what happens around it.
const BUDGET: Duration = Duration::from_millis(9_500);
/// The same while an older answer could be given instead.
const BUDGET_WITH_STALE: Duration = Duration::from_secs(3);

/// How long a look at the disk may take before it counts as silent. A hung disk must not hang
/// pulls: containerd waits 30 s for each request, and for ever in the middle of a body.
const LOOK: Duration = Duration::from_secs(5);

/// The cache. One per process.
#[derive(Debug)]
pub struct Cache {
    store: Arc<Store>,
    links: Arc<links::Links>,
    downloads: Arc<download::Downloads>,
    visibility: visibility::Visibility,
    manifests: manifest::Manifests,
    tags: tag::TagChecks,
    rechecks: Arc<recheck::Rechecks>,
    streams: OpenStreams,
    metrics: Metrics,
    tasks: TaskTracker,
}

/// Where content is asked for: a repository of a configured upstream.
#[derive(Clone, Debug)]
pub struct Place {
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// Its repository.
    pub repository: Repository,
}

type PlaceKey = (UpstreamHost, Repository);

impl Place {
    /// The upstream's host.
    pub fn host(&self) -> &UpstreamHost {
        &self.upstream.config().host
    }

    fn key(&self) -> PlaceKey {
        (self.host().clone(), self.repository.clone())
    }
}

impl Cache {
    /// A cache over `store`. Downloads run on `tasks` and are broken off by `cancel`, after which
    /// the next process resumes them.
    pub fn new(
        store: Arc<Store>,
        metrics: Metrics,
        tasks: TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        let links =
            Arc::new(links::Links::new(store.clone(), tasks.clone(), metrics.store_errors.clone()));
        Self {
            downloads: Arc::new(download::Downloads::new(
                store.clone(),
                links.clone(),
                metrics.clone(),
                tasks.clone(),
                cancel,
            )),
            links,
            visibility: visibility::Visibility::default(),
            manifests: manifest::Manifests::default(),
            tags: tag::TagChecks::default(),
            rechecks: Arc::default(),
            streams: OpenStreams::new(metrics.open_streams.clone()),
            metrics,
            tasks,
            store,
        }
    }

    /// The first gate: what the configuration does not allow is passed by.
    fn check_policy(place: &Place) -> Result<(), Error> {
        if place.upstream.config().repositories.allows(&place.repository) {
            return Ok(());
        }
        Err(Error::refused(format!(
            "larder does not serve {}/{}: its repository filter excludes it; pull from the registry itself",
            place.host(),
            place.repository
        )))
    }

    fn store_failed(&self, error: &StoreError) {
        if error.is_expected() {
            tracing::debug!(%error, "not stored");
            return;
        }
        self.metrics.store_errors.inc();
        tracing::error!(%error, "the store failed");
    }
}

fn deadline() -> Instant {
    Instant::now() + BUDGET
}

/// A look at the store that a client waits for. One that takes too long counts as failed, and the
/// disk is left alone for a while.
async fn looking<T, F>(store: &Arc<Store>, operation: F) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
{
    let looked_at = store.clone();
    let look = tokio::time::timeout(LOOK, blocking(move || operation(&looked_at)));
    look.await.unwrap_or_else(|_| {
        store.fell_silent();
        Err(StoreError::Silent)
    })
}

/// Runs a blocking operation on the store off the asynchronous threads.
async fn blocking<T, F>(operation: F) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, StoreError> + Send + 'static,
{
    match tokio::task::spawn_blocking(operation).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down; nobody will see the answer.
            Err(_) => Err(StoreError::ShuttingDown),
        },
    }
}
