//! Serving manifests. They are small: fetched whole, verified, then sent.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use moka::{future, sync};
use tokio::{sync::Semaphore, time::Instant};

use super::{
    Cache, Error, Place, PlaceKey, blocking, looking,
    proof::{Kind, Proof},
};
use crate::{
    config::Identity,
    metrics::Outcome,
    oci::{
        Digest, Reference, Tag,
        manifest::{self, InvalidManifest},
    },
    store::{Store, TagRecord},
    upstream::{Request, Target},
};

/// A manifest, as the upstream sent it.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Digest of `bytes`.
    pub digest: Digest,
    /// For `Content-Type`, without parameters.
    pub media_type: String,
    /// Never re-serialised.
    pub bytes: Bytes,
}

/// A manifest and how it came about.
#[derive(Clone, Debug)]
pub struct ManifestAnswer {
    /// The manifest.
    pub manifest: Arc<Manifest>,
    /// How it came about.
    pub outcome: Outcome,
    /// Whether the upstream could not be asked if it is still this one.
    pub stale: bool,
}

/// Manifests in memory, and fetches under way.
#[derive(Debug)]
pub(super) struct Manifests {
    recent: sync::Cache<Digest, Arc<Manifest>>,
    /// Where the disk was looked at not long ago.
    looked: sync::Cache<(PlaceKey, Digest), ()>,
    fetches: future::Cache<(PlaceKey, Digest), Result<Arc<Manifest>, Error>>,
    permits: Semaphore,
}

/// Fetches at once, which bounds their memory to 4 MiB times that.
const FETCHES: usize = 16;

/// Memory for manifests that are asked for again and again.
const RECENT_BYTES: u64 = 8 << 20;

/// How often it is made sure that a manifest which is answered from memory is on disk as well. It
/// may never have got there, for the disk was full or read-only, or somebody emptied the folder; the
/// next start would not find it.
const LOOKED_FOR: Duration = Duration::from_mins(1);

impl Default for Manifests {
    fn default() -> Self {
        let weigh = |_: &Digest, manifest: &Arc<Manifest>| {
            u32::try_from(manifest.bytes.len()).unwrap_or(u32::MAX)
        };
        Self {
            recent: sync::Cache::builder().max_capacity(RECENT_BYTES).weigher(weigh).build(),
            looked: sync::Cache::builder().max_capacity(10_000).time_to_live(LOOKED_FOR).build(),
            // Only joins what is under way: the outcome is removed as soon as it is there.
            fetches: future::Cache::builder()
                .max_capacity(1_000)
                .time_to_live(Duration::from_secs(1))
                .build(),
            permits: Semaphore::new(FETCHES),
        }
    }
}

impl Cache {
    /// `GET` or `HEAD` of a manifest by digest. Never waits for the upstream if it is stored.
    pub async fn manifest(
        self: &Arc<Self>,
        place: &Place,
        digest: &Digest,
    ) -> Result<ManifestAnswer, Error> {
        let deadline = super::deadline();
        Self::check_policy(place)?;
        let target = manifest_target(place, digest);
        self.check_visibility(place, &target, deadline).await?;
        self.manifest_by_digest(place, digest, deadline).await
    }

    /// Counts a pull of the manifest, for the catalog.
    pub fn count_pull(&self, place: &Place, digest: &Digest) {
        self.store.usage().record(place.host(), &place.repository, digest, Timestamp::now());
        self.store.count_use(digest);
    }

    pub(super) async fn manifest_by_digest(
        self: &Arc<Self>,
        place: &Place,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<ManifestAnswer, Error> {
        if let Some(manifest) = self.stored_manifest(digest).await {
            let linked = self.links.has(place, digest).await;
            let proof = if linked { Proof::Link } else { Proof::Missing };
            self.prove(place, digest, Kind::Manifest, proof, deadline).await?;
            self.see_to_it_that_it_is_kept(place, &manifest);
            return Ok(ManifestAnswer { manifest, outcome: Outcome::Hit, stale: false });
        }
        let key = (place.key(), digest.clone());
        loop {
            let fetch = self.fetch_manifest(place, digest, deadline);
            let entry = self.manifests.fetches.entry(key.clone()).or_insert_with(fetch).await;
            self.manifests.fetches.invalidate(&key).await;
            let fresh = entry.is_fresh();
            match entry.into_value() {
                // Who began it had less time; there is some left.
                Err(error) if !fresh && error.allows_stale() && Instant::now() < deadline => {}
                manifest => {
                    let outcome = if fresh { Outcome::Miss } else { Outcome::Joined };
                    return Ok(ManifestAnswer { manifest: manifest?, outcome, stale: false });
                }
            }
        }
    }

    /// A manifest from memory or disk. Manifests are hashed at every read from disk: they are
    /// small, and it saves the bookkeeping.
    async fn stored_manifest(&self, digest: &Digest) -> Option<Arc<Manifest>> {
        if let Some(manifest) = self.manifests.recent.get(digest) {
            return Some(manifest);
        }
        let wanted = digest.clone();
        let read = looking(&self.store, move |store| read_manifest(store, &wanted)).await;
        // A disk that does not give it is no reason not to ask the upstream.
        match read.unwrap_or_else(|error| {
            self.store_failed(&error);
            ReadManifest::None
        }) {
            ReadManifest::Good(manifest) => {
                let manifest = Arc::new(manifest);
                self.manifests.recent.insert(digest.clone(), manifest.clone());
                Some(manifest)
            }
            ReadManifest::None => None,
            ReadManifest::Quarantined => {
                self.metrics.quarantined.inc();
                tracing::error!(%digest, "a stored manifest is not what its name says; it is fetched again");
                None
            }
        }
    }

    /// Fetches a manifest by digest, from the next endpoint if one sends other bytes.
    async fn fetch_manifest(
        self: &Arc<Self>,
        place: &Place,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<Arc<Manifest>, Error> {
        // Another request's fetch may have ended between this one's look and here.
        if let Some(manifest) = self.manifests.recent.get(digest)
            && self.links.has(place, digest).await
        {
            return Ok(manifest);
        }
        let endpoints = place.upstream.config().endpoints.len();
        let mut problem = Error::unavailable("the upstream gave no manifest");
        for first_endpoint in 0..endpoints.max(2) {
            let request = manifest_request(manifest_target(place, digest), first_endpoint);
            let fetched = self.receive_manifest(place, request, Some(digest), deadline).await?;
            match fetched {
                Ok(manifest) => return Ok(self.keep_manifest(place, manifest)),
                Err(error) => problem = error,
            }
        }
        Err(problem)
    }

    /// Fetches a manifest by tag, for upstreams whose `HEAD` does not tell the digest.
    pub(super) async fn fetch_manifest_by_tag(
        self: &Arc<Self>,
        place: &Place,
        reference: Reference,
        identity: Identity,
        deadline: Instant,
    ) -> Result<Arc<Manifest>, Error> {
        let target = Target::Manifest(place.repository.clone(), reference);
        let request = Request { identity, ..manifest_request(target, 0) };
        let manifest = self.receive_manifest(place, request, None, deadline).await??;
        Ok(self.keep_manifest(place, manifest))
    }

    /// The outer error is the upstream's, the inner one says that its answer is no good.
    async fn receive_manifest(
        &self,
        place: &Place,
        request: Request,
        wanted: Option<&Digest>,
        deadline: Instant,
    ) -> Result<Result<Manifest, Error>, Error> {
        let permit = self.manifests.permits.acquire().await;
        let response = place.upstream.send(request, deadline).await?;
        let content_type = response
            .headers
            .get(http::header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let bytes = match response.read_all(manifest::MAX_SIZE, deadline).await {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Err(error.into())),
        };
        drop(permit);
        self.metrics.fetched(place.host()).inc_by(bytes.len() as u64);
        let algorithm = wanted.map_or(crate::oci::Algorithm::Sha256, Digest::algorithm);
        let digest = Digest::of(algorithm, &bytes);
        if wanted.is_some_and(|wanted| *wanted != digest) {
            self.metrics.quarantined.inc();
            let message = format!("{} sent a manifest with another digest", place.host());
            return Ok(Err(Error::unusable(message)));
        }
        Ok(match manifest::media_type(&bytes, content_type.as_deref()) {
            Ok(media_type) => Ok(Manifest { digest, media_type, bytes }),
            // A login page or an error page: something else than the registry answered.
            Err(error @ InvalidManifest::NotJson) => {
                Err(Error::unavailable(format!("{}: {error}", place.host())))
            }
            Err(error) => Err(Error::unusable(format!("{}: {error}", place.host()))),
        })
    }

    /// Keeps a verified manifest: in memory at once, on disk off the client's path.
    fn keep_manifest(self: &Arc<Self>, place: &Place, manifest: Manifest) -> Arc<Manifest> {
        let manifest = Arc::new(manifest);
        self.manifests.recent.insert(manifest.digest.clone(), manifest.clone());
        self.links.remember(place, &manifest.digest);
        self.see_to_it_that_it_is_kept(place, &manifest);
        manifest
    }

    /// Writes a manifest and its link, off the client's path, unless they are there or it was tried
    /// within a minute.
    fn see_to_it_that_it_is_kept(self: &Arc<Self>, place: &Place, manifest: &Arc<Manifest>) {
        let key = (place.key(), manifest.digest.clone());
        if self.manifests.looked.contains_key(&key) {
            return;
        }
        self.manifests.looked.insert(key.clone(), ());
        let (cache, place, manifest) = (self.clone(), place.clone(), manifest.clone());
        self.tasks.spawn(async move {
            cache.links.write(&place, &manifest.digest).await;
            let store = cache.store.clone();
            let kept = blocking(move || match store.blob(&manifest.digest)? {
                Some(_) => Ok(()),
                None => store.put(&manifest.digest, &manifest.bytes),
            });
            if let Err(error) = kept.await {
                cache.store_failed(&error);
                // A disk that takes nothing says so without being asked; the next request tries again.
                cache.manifests.looked.invalidate(&key);
            }
        });
    }

    /// Passes a request for a tag on with the client's own `Accept`, for a client that does not
    /// take the type that is cached. Not stored: the answer depends on the header. `arrived` is
    /// when the request did.
    pub async fn tag_as_accepted(
        &self,
        place: &Place,
        tag: &Tag,
        accept: String,
        arrived: std::time::Instant,
    ) -> Result<ManifestAnswer, Error> {
        Self::check_policy(place)?;
        let deadline = Instant::from_std(arrived) + super::BUDGET;
        let identity = self.listing_identity(place).await;
        let reference = Reference::Tag(tag.clone());
        let target = Target::Manifest(place.repository.clone(), reference);
        let request = Request { accept: Some(accept), identity, ..manifest_request(target, 0) };
        let manifest = self.receive_manifest(place, request, None, deadline).await??;
        let manifest = Arc::new(manifest);
        Ok(ManifestAnswer { manifest, outcome: Outcome::PassThrough, stale: false })
    }

    /// Writes where a tag points, off the client's path.
    pub(super) fn keep_tag(
        self: &Arc<Self>,
        place: &Place,
        tag: &crate::oci::Tag,
        record: TagRecord,
    ) {
        let (cache, tag) = (self.clone(), tag.clone());
        let (host, repository) = place.key();
        self.tasks.spawn(async move {
            let store = cache.store.clone();
            let written = blocking(move || store.set_tag(&host, &repository, &tag, &record));
            if let Err(error) = written.await {
                cache.store_failed(&error);
            }
        });
    }
}

enum ReadManifest {
    Good(Manifest),
    None,
    Quarantined,
}

fn read_manifest(store: &Store, digest: &Digest) -> Result<ReadManifest, crate::store::StoreError> {
    let Some(blob) = store.blob(digest)? else {
        return Ok(ReadManifest::None);
    };
    let Ok(len) = usize::try_from(blob.size) else {
        return Ok(ReadManifest::None);
    };
    if len > manifest::MAX_SIZE {
        return Ok(ReadManifest::None);
    }
    let intact = blob
        .content
        .read_at(0, len)
        .ok()
        .filter(|bytes| Digest::of(digest.algorithm(), bytes) == *digest);
    let Some(bytes) = intact else {
        store.quarantine_blob(digest)?;
        return Ok(ReadManifest::Quarantined);
    };
    // A blob that is no manifest may be asked for as one; the upstream will say that it is none.
    Ok(match manifest::media_type(&bytes, None) {
        Ok(media_type) => {
            ReadManifest::Good(Manifest { digest: digest.clone(), media_type, bytes })
        }
        Err(_) => ReadManifest::None,
    })
}

fn manifest_target(place: &Place, digest: &Digest) -> Target {
    Target::Manifest(place.repository.clone(), Reference::Digest(digest.clone()))
}

fn manifest_request(target: Target, first_endpoint: usize) -> Request {
    Request {
        method: Method::GET,
        target,
        accept: Some(manifest::ACCEPT.to_owned()),
        range: None,
        identity: Identity::Configured,
        first_endpoint,
    }
}
