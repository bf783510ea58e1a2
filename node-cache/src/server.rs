//! The pull API: `/v2/` and below.
//!
//! A request is parsed once (`pull::PullRequest`), answered by the cache, and turned into HTTP
//! in one place (`respond`). Nothing a client sends is passed to an upstream except names,
//! digests, ranges and the parameters of lists, all of which were parsed and are written anew.

pub mod admin;
mod flush;
mod listen;
mod pull;
mod respond;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use axum::{Router, extract::State, response::Response};
use http::{Method, Request};
use tokio::sync::watch;
use tracing::Instrument;

pub use listen::{GRACE, serve};
pub use pull::{ImageRequest, PullHeaders, PullRequest, Resource, Written};
pub use respond::Refusal;

use crate::{
    cache::{Cache, Place},
    metrics::{Metrics, Outcome},
    oci::{ErrorCode, Reference},
    upstreams::Upstreams,
};

/// What the router needs.
#[derive(Clone, Debug)]
pub struct Pulls {
    /// The policy.
    pub cache: Arc<Cache>,
    /// The upstreams in force; swapped whole.
    pub upstreams: watch::Receiver<Arc<Upstreams>>,
    /// What is counted.
    pub metrics: Metrics,
    /// Numbers the requests of this process, for the log.
    pub requests: Arc<AtomicU64>,
}

/// The router of the pull API.
pub fn router(pulls: Pulls) -> Router {
    Router::new().fallback(handle).with_state(pulls)
}

async fn handle(State(pulls): State<Pulls>, request: Request<axum::body::Body>) -> Response {
    let id = pulls.requests.fetch_add(1, Ordering::Relaxed);
    let (parts, _) = request.into_parts();
    let span = tracing::info_span!("request", id);
    async move {
        let started = std::time::Instant::now();
        let head = parts.method == Method::HEAD;
        match PullRequest::parse(&parts.method, &parts.uri, &parts.headers) {
            Ok(request) => pulls.answer(request, started).await,
            Err(refusal) => {
                pulls.metrics.invalid_request();
                tracing::debug!(code = refusal.code.as_str(), reason = refusal.message, "refused");
                respond::refusal(&refusal, head)
            }
        }
    }
    .instrument(span)
    .await
}

/// A request whose upstream is known.
struct Asked {
    resource: Resource,
    headers: PullHeaders,
    head: bool,
    written: Written,
    started: std::time::Instant,
}

impl Pulls {
    async fn answer(&self, request: PullRequest, started: std::time::Instant) -> Response {
        let head = request.head;
        let Some(image) = request.image else {
            return respond::ping(head);
        };
        let Some(upstream) = self.upstreams.borrow().get(&image.host) else {
            self.metrics.invalid_request();
            let message = format!("larder is not configured for the registry {}", image.host);
            tracing::debug!(reason = message, "no such upstream");
            return respond::refusal(&Refusal::new(ErrorCode::NameUnknown, message), head);
        };
        let ImageRequest { host: _, repository, resource, written } = image;
        let place = Place { upstream, repository };
        if written.ns.is_some() && request.headers.of_containerd {
            self.metrics.mirrored(place.host()).inc();
        }
        let asked = Asked { resource, headers: request.headers, head, written, started };
        let (response, outcome) = self.serve(&place, &asked).await;
        self.metrics.request(place.host(), outcome);
        tracing::debug!(
            upstream = %place.host(),
            repository = %place.repository,
            resource = %asked.resource,
            head,
            digest = digest_of(&response),
            outcome = outcome.as_str(),
            status = response.status().as_u16(),
            elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "pull"
        );
        respond::with_namespace(response, place.host())
    }

    async fn serve(&self, place: &Place, asked: &Asked) -> (Response, Outcome) {
        let Asked { resource, headers, head, written, started } = asked;
        let head = *head;
        let cache = &self.cache;
        match resource {
            Resource::Manifest(reference) => {
                let found = match reference {
                    Reference::Tag(tag) => cache.tag(place, tag).await,
                    Reference::Digest(digest) => cache.manifest(place, digest).await,
                };
                let found = match (found, reference) {
                    // A digest names its bytes, whatever the client would rather have.
                    (Ok(found), Reference::Tag(tag))
                        if !headers.accepts(&found.manifest.media_type) =>
                    {
                        let accept = headers.accept.clone().unwrap_or_default();
                        cache.tag_as_accepted(place, tag, accept, *started).await
                    }
                    (found, _) => found,
                };
                match found {
                    Ok(answer) => {
                        if !head {
                            cache.count_pull(place, &answer.manifest.digest);
                        }
                        let body =
                            (!head).then(|| cache.buffered(place, answer.manifest.bytes.clone()));
                        (respond::manifest(&answer, headers, body), answer.outcome)
                    }
                    Err(error) => respond::failure(&error, ErrorCode::ManifestUnknown, head),
                }
            }
            Resource::Blob(digest) => {
                let found = if head {
                    cache.blob_headers(place, digest).await
                } else {
                    cache.blob(place, digest, headers.range_for(digest)).await
                };
                match found {
                    Ok(answer) => {
                        let outcome = answer.outcome;
                        (respond::blob(digest, answer, headers), outcome)
                    }
                    Err(error) => respond::failure(&error, ErrorCode::BlobUnknown, head),
                }
            }
            Resource::Tags(query) => {
                match cache.list_tags(place, &written.name, query.clone()).await {
                    Ok(list) => (respond::tags(&list, written, head), Outcome::PassThrough),
                    Err(error) => respond::failure(&error, ErrorCode::NameUnknown, head),
                }
            }
            Resource::Referrers { digest, artifact_type, query } => {
                let artifact_type = artifact_type.as_deref();
                match cache.referrers(place, digest, artifact_type, query.clone()).await {
                    Ok(list) => (respond::referrers(&list, written, head), Outcome::PassThrough),
                    Err(error) => respond::failure(&error, ErrorCode::NameUnknown, head),
                }
            }
        }
    }
}

/// What was answered, for the log: a tag does not tell.
fn digest_of(response: &Response) -> Option<&str> {
    response.headers().get("docker-content-digest")?.to_str().ok()
}
