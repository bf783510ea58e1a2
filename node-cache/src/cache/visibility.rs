//! Which repositories anybody may read.
//!
//! Asked only where the cache has credentials that the client may not have: without credentials
//! every fetch proves by itself that anybody may read, and in `Shared` repositories everybody may
//! by configuration.

use std::{sync::Arc, time::Duration};

use http::Method;
use moka::sync::Cache as Memory;
use tokio::time::Instant;

use super::{Cache, Error, Place, PlaceKey};
use crate::{
    config::Identity,
    upstream::{Request, Target, UpstreamError},
};

const YES_LASTS: Duration = Duration::from_hours(1);
const NO_LASTS: Duration = Duration::from_mins(1);

#[derive(Clone, Copy, Debug)]
struct Verdict {
    public: bool,
    at: Instant,
}

/// What a remembered verdict is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Public,
    /// Good, but due to be looked at again; nobody waits for that.
    PublicDue,
    Private,
    Unknown,
}

/// The verdicts, by repository.
#[derive(Debug)]
pub(super) struct Visibility {
    verdicts: Memory<PlaceKey, Verdict>,
    refreshing: Memory<PlaceKey, ()>,
}

impl Default for Visibility {
    fn default() -> Self {
        Self {
            verdicts: Memory::new(20_000),
            // Bounds the background checks to one per repository and 10 s.
            refreshing: Memory::builder()
                .max_capacity(20_000)
                .time_to_live(Duration::from_secs(10))
                .build(),
        }
    }
}

fn standing(verdict: Option<Verdict>, now: Instant, stale: Duration) -> Standing {
    let Some(verdict) = verdict else {
        return Standing::Unknown;
    };
    let age = now.saturating_duration_since(verdict.at);
    match verdict.public {
        true if age < YES_LASTS => Standing::Public,
        true if age < YES_LASTS + stale => Standing::PublicDue,
        false if age < NO_LASTS => Standing::Private,
        _ => Standing::Unknown,
    }
}

impl Visibility {
    /// Takes what an anonymous request told. What says nothing about it (a timeout, a 500) leaves
    /// the verdict as it is.
    pub(super) fn learn<T>(&self, place: &Place, result: &Result<T, UpstreamError>) {
        match result {
            Ok(_) => {
                self.verdicts.insert(place.key(), Verdict { public: true, at: Instant::now() });
            }
            Err(UpstreamError::Denied { .. }) => {
                self.verdicts.insert(place.key(), Verdict { public: false, at: Instant::now() });
            }
            Err(UpstreamError::NotFound { .. }) => self.verdicts.invalidate(&place.key()),
            Err(_) => {}
        }
    }
}

impl Cache {
    /// Whether the repository must be proven to be public: the cache has credentials, or had them
    /// when it fetched, and they are not shared with everybody for it.
    pub(super) async fn needs_proof(&self, place: &Place) -> bool {
        let config = place.upstream.config();
        if config.shares(&place.repository) {
            return false;
        }
        config.credentials.is_some() || self.links.were_shared(place).await
    }

    /// The second gate, for requests that name a digest: passes if the repository is known to be
    /// public, or proves it with an anonymous HEAD of `target`.
    pub(super) async fn check_visibility(
        self: &Arc<Self>,
        place: &Place,
        target: &Target,
        deadline: Instant,
    ) -> Result<(), Error> {
        if !self.needs_proof(place).await {
            return Ok(());
        }
        let verdict = self.visibility.verdicts.get(&place.key());
        let stale = place.upstream.config().stale_window();
        match standing(verdict, Instant::now(), stale) {
            Standing::Public => Ok(()),
            Standing::PublicDue => {
                self.refresh_visibility(place.clone(), target.clone());
                Ok(())
            }
            Standing::Private => Err(Error::refused(format!(
                "{}/{} is not readable anonymously; larder serves it only in access mode Shared, so \
                 the registry itself is asked with the pod's own credentials",
                place.host(),
                place.repository
            ))),
            Standing::Unknown => self.prove_visibility(place, target.clone(), deadline).await,
        }
    }

    async fn prove_visibility(
        &self,
        place: &Place,
        target: Target,
        deadline: Instant,
    ) -> Result<(), Error> {
        let request = anonymous_head(target);
        let result = match place.upstream.send(request.clone(), deadline).await {
            // Some registries answer only GET: its headers say the same, the body is dropped.
            Err(UpstreamError::MethodRefused { .. }) => {
                let request = Request { method: Method::GET, ..request };
                place.upstream.send(request, deadline).await
            }
            result => result,
        };
        let result = result.map(drop);
        self.visibility.learn(place, &result);
        Ok(result?)
    }

    fn refresh_visibility(self: &Arc<Self>, place: Place, target: Target) {
        let refreshing = &self.visibility.refreshing;
        if refreshing.contains_key(&place.key()) {
            return;
        }
        refreshing.insert(place.key(), ());
        let cache = self.clone();
        self.tasks.spawn(async move {
            // The outcome is in the verdict.
            let _ = cache.prove_visibility(&place, target, super::deadline()).await;
        });
    }
}

fn anonymous_head(target: Target) -> Request {
    let accept =
        matches!(target, Target::Manifest(..)).then(|| crate::oci::manifest::ACCEPT.to_owned());
    Request {
        method: Method::HEAD,
        target,
        accept,
        range: None,
        identity: Identity::Anonymous,
        first_endpoint: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_yes_lasts_an_hour_and_a_no_a_minute() {
        let now = Instant::now();
        let stale = Duration::from_hours(24);
        let table = [
            (None, 0, Standing::Unknown),
            (Some(true), 0, Standing::Public),
            (Some(true), 3_599, Standing::Public),
            (Some(true), 3_600, Standing::PublicDue),
            (Some(true), 3_600 + 86_399, Standing::PublicDue),
            (Some(true), 3_600 + 86_400, Standing::Unknown),
            (Some(false), 59, Standing::Private),
            (Some(false), 60, Standing::Unknown),
        ];
        for (public, age, expected) in table {
            let verdict = public.map(|public| Verdict { public, at: now });
            let later = now + Duration::from_secs(age);
            assert_eq!(standing(verdict, later, stale), expected, "{public:?} after {age} s");
        }
    }
}
