//! Serving tags: the upstream is asked where a tag points, unless the record is fresh enough.

use std::{
    sync::Arc,
    time::{Duration, Instant as StdInstant},
};

use http::Method;
use jiff::Timestamp;
use moka::{Expiry, future};
use tokio::time::{Instant, timeout_at};

use super::{
    BUDGET_WITH_STALE, Cache, Error, ErrorKind, ManifestAnswer, Place, PlaceKey, blocking,
    freshness::{Freshness, freshness},
    looking,
};
use crate::{
    config::Identity,
    metrics::Outcome,
    oci::{Digest, Reference, Tag, manifest},
    store::TagRecord,
    upstream::{Request, Target, UpstreamError},
};

type TagKey = (PlaceKey, Tag);

/// Checks under way, and tags that the upstream does not have.
#[derive(Debug)]
pub(super) struct TagChecks {
    checks: future::Cache<TagKey, Check>,
    missing: future::Cache<TagKey, Missing>,
}

/// What the upstream said, and when it had said it.
#[derive(Clone, Debug)]
struct Check {
    outcome: Result<Digest, Error>,
    ended: Instant,
}

/// A tag that the upstream does not have, and for how long that is remembered.
#[derive(Clone, Debug)]
struct Missing {
    error: Error,
    ttl: Duration,
}

struct MissingExpiry;

impl Expiry<TagKey, Missing> for MissingExpiry {
    fn expire_after_create(
        &self,
        _key: &TagKey,
        missing: &Missing,
        _created_at: StdInstant,
    ) -> Option<Duration> {
        Some(missing.ttl)
    }
}

impl Default for TagChecks {
    fn default() -> Self {
        Self {
            // Long enough for requests that have arrived and were not looked at yet.
            checks: future::Cache::builder()
                .max_capacity(10_000)
                .time_to_live(Duration::from_secs(1))
                .build(),
            missing: future::Cache::builder()
                .max_capacity(10_000)
                .expire_after(MissingExpiry)
                .build(),
        }
    }
}

impl Cache {
    /// `GET` or `HEAD` of a manifest by tag.
    pub async fn tag(self: &Arc<Self>, place: &Place, tag: &Tag) -> Result<ManifestAnswer, Error> {
        Self::check_policy(place)?;
        let (asked, full) = (Instant::now(), super::deadline());
        let ((host, repository), wanted) = (place.key(), tag.clone());
        let record =
            looking(&self.store, move |store| store.tag(&host, &repository, &wanted)).await;
        let record = record.unwrap_or_else(|error| {
            self.store_failed(&error);
            None
        });

        let policy = &place.upstream.config().tags;
        let known = record.map(|record| {
            let now = Timestamp::now();
            // The clock was set back. Counted from here, the record ends after `staleIfError` as
            // any other; from a date in the future it would not.
            if record.checked_at > now {
                self.keep_tag(place, tag, TagRecord { checked_at: now, ..record.clone() });
            }
            let freshness = freshness(&record, policy, tag, now);
            (record, freshness)
        });
        let stale = match known {
            Some((record, Freshness::Fresh)) => {
                let target = tag_target(place, tag);
                self.check_visibility(place, &target, full).await?;
                match self.manifest_by_digest(place, &record.digest, full).await {
                    // It is gone from the store and from the upstream: the tag moved early.
                    Err(error) if error.kind == ErrorKind::NotFound => None,
                    answer => return answer,
                }
            }
            Some((record, Freshness::RevalidateOrStale)) => Some(record),
            Some((_, Freshness::Revalidate)) | None => None,
        };
        let deadline = match stale {
            Some(_) => full.min(Instant::now() + BUDGET_WITH_STALE),
            None => full,
        };
        let refreshed =
            timeout_at(deadline, self.refresh_tag(place, tag, stale.as_ref(), asked, deadline));
        let refreshed = refreshed.await.unwrap_or_else(|_| {
            Err(Error::unavailable(format!("{} did not answer in time", place.host())))
        });
        match (refreshed, stale) {
            (Err(error), Some(record)) if error.allows_stale() => {
                let reason = error.message;
                tracing::debug!(upstream = %place.host(), repository = %place.repository, %tag, reason, "stale tag");
                // Not public any more, or never known to be: no stale answer either.
                let target = tag_target(place, tag);
                self.check_visibility(place, &target, Instant::now()).await?;
                let answer = self.manifest_by_digest(place, &record.digest, full).await?;
                Ok(ManifestAnswer { outcome: Outcome::Stale, stale: true, ..answer })
            }
            (result, _) => result,
        }
    }

    async fn refresh_tag(
        self: &Arc<Self>,
        place: &Place,
        tag: &Tag,
        record: Option<&TagRecord>,
        asked: Instant,
        deadline: Instant,
    ) -> Result<ManifestAnswer, Error> {
        let key = (place.key(), tag.clone());
        if let Some(missing) = self.tags.missing.get(&key).await {
            return Err(missing.error);
        }
        let check = async {
            let outcome = self.check_tag(place, tag, deadline).await;
            Check { outcome, ended: Instant::now() }
        };
        // An outcome from before the question would hide a tag that moved in between.
        let too_old = |check: &Check| check.ended < asked;
        let checked = self.tags.checks.entry(key).or_insert_with_if(check, too_old).await;
        let digest = checked.into_value().outcome;
        if let Err(error) = &digest {
            self.forget_tag(place, tag, error).await;
        }
        let mut digest = digest?;
        let answer = match self.manifest_by_digest(place, &digest, deadline).await {
            // It named a digest that it does not have: what the tag itself gives decides.
            Err(error) if error.kind == ErrorKind::NotFound => {
                let reference = Reference::Tag(tag.clone());
                let identity = self.listing_identity(place).await;
                let fetched = self.fetch_manifest_by_tag(place, reference, identity, deadline);
                let manifest = fetched.await?;
                digest = manifest.digest.clone();
                ManifestAnswer { manifest, outcome: Outcome::Miss, stale: false }
            }
            answer => answer?,
        };

        let now = Timestamp::now();
        let unmoved = record.filter(|record| record.digest == digest);
        let modified_at = unmoved.map_or(now, |record| record.modified_at);
        // Without a refresh interval there is a check for every pull. Writing each would be a file
        // per pull; skipping some makes the record look up to a minute older than it is.
        let recent = unmoved.is_some_and(|record| {
            let age = Duration::try_from(now.duration_since(record.checked_at));
            place.upstream.config().tags.refresh_interval.is_zero()
                && age.is_ok_and(|age| age < RECHECK_WRITTEN)
        });
        if !recent {
            self.keep_tag(place, tag, TagRecord { digest, checked_at: now, modified_at });
        }
        let outcome = match answer.outcome {
            Outcome::Hit => Outcome::Revalidated,
            other => other,
        };
        Ok(ManifestAnswer { outcome, ..answer })
    }

    /// Asks the upstream where the tag points.
    async fn check_tag(
        self: &Arc<Self>,
        place: &Place,
        tag: &Tag,
        deadline: Instant,
    ) -> Result<Digest, Error> {
        // Where the cache has credentials of its own, this request is also the proof that
        // anybody may read.
        let identity = self.listing_identity(place).await;
        let request = Request {
            method: Method::HEAD,
            target: tag_target(place, tag),
            accept: Some(manifest::ACCEPT.to_owned()),
            range: None,
            identity,
            first_endpoint: 0,
        };
        let result = place.upstream.send(request, deadline).await;
        if identity == Identity::Anonymous {
            self.visibility.learn(place, &result);
        }
        let told = match result {
            Ok(response) => response.content_digest(),
            // Some registries answer only GET.
            Err(UpstreamError::MethodRefused { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(digest) = told {
            return Ok(digest);
        }
        let reference = Reference::Tag(tag.clone());
        let fetched = self.fetch_manifest_by_tag(place, reference, identity, deadline).await?;
        if identity == Identity::Anonymous {
            self.visibility.learn(place, &Ok(()));
        }
        Ok(fetched.digest.clone())
    }

    /// As whom tags and lists are asked for: anonymously wherever the repository has to be public.
    pub(super) async fn listing_identity(&self, place: &Place) -> Identity {
        let anonymous = self.needs_proof(place).await;
        if anonymous { Identity::Anonymous } else { Identity::Configured }
    }

    /// After a 404 the tag is gone; after a 401 or 403 it is nobody's to read. Neither may be
    /// served stale later.
    async fn forget_tag(&self, place: &Place, tag: &Tag, error: &Error) {
        match error.kind {
            ErrorKind::NotFound => {
                let ttl = place.upstream.config().tags.negative_ttl;
                if !ttl.is_zero() {
                    let missing = Missing { error: error.clone(), ttl };
                    self.tags.missing.insert((place.key(), tag.clone()), missing).await;
                }
            }
            ErrorKind::Refused => {}
            ErrorKind::Unavailable | ErrorKind::Unusable | ErrorKind::Range(_) => return,
        }
        let (store, tag) = (self.store.clone(), tag.clone());
        let (host, repository) = place.key();
        if let Err(error) = blocking(move || store.remove_tag(&host, &repository, &tag)).await {
            self.store_failed(&error);
        }
    }
}

/// Checks of an unmoved tag are written at most this often.
const RECHECK_WRITTEN: Duration = Duration::from_mins(1);

fn tag_target(place: &Place, tag: &Tag) -> Target {
    Target::Manifest(place.repository.clone(), Reference::Tag(tag.clone()))
}
