//! One registry: everything that dials out.
//!
//! [`Upstream::send`] turns a [`Request`] into HTTP: endpoints in order with a breaker each, the
//! token flow, redirects, and errors sorted by what the caller can do about them. What happens
//! after the headers (stalls, resuming) is the caller's.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use tokio::time::Instant;

use crate::{
    config::{Identity, UpstreamConfig},
    oci::{Digest, Reference, Repository},
};

/// One configured upstream with its connections, tokens and breakers.
#[derive(Debug)]
pub struct Upstream {
    config: Arc<UpstreamConfig>,
}

/// What is asked of an upstream.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET` or `HEAD`.
    pub method: Method,
    /// Which resource.
    pub target: Target,
    /// `Accept` header; none for blobs.
    pub accept: Option<String>,
    /// First byte and, if bounded, last byte (inclusive) of a `Range` header.
    pub range: Option<(u64, Option<u64>)>,
    /// As whom.
    pub identity: Identity,
    /// Index of the endpoint to try first; the others follow in order, wrapping around.
    pub first_endpoint: usize,
}

/// A resource of the registry API.
#[derive(Clone, Debug)]
pub enum Target {
    /// `/v2/<repository>/manifests/<reference>`
    Manifest(Repository, Reference),
    /// `/v2/<repository>/blobs/<digest>`
    Blob(Repository, Digest),
    /// `/v2/<repository>/tags/list`, with the query as it is to be sent (may be empty).
    Tags(Repository, String),
    /// `/v2/<repository>/referrers/<digest>`, with the query as it is to be sent (may be empty).
    Referrers(Repository, Digest, String),
}

/// An upstream's answer: 200 or 206, headers read, body not.
#[derive(Debug)]
pub struct Response {
    /// 200 or 206.
    pub status: StatusCode,
    /// As received.
    pub headers: HeaderMap,
    /// Index of the endpoint that answered.
    pub endpoint: usize,
    body: reqwest::Response,
}

/// Why there is no answer, by what the caller can do about it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The upstream says that there is no such thing (404, 410).
    #[error("{host} has no such content")]
    NotFound {
        /// The upstream.
        host: String,
    },
    /// The upstream refuses (401 after the token flow, 403), or we do: a realm or redirect that may
    /// not be followed.
    #[error("{host} refuses: {reason}")]
    Denied {
        /// The upstream.
        host: String,
        /// What was refused; safe to show to clients.
        reason: String,
    },
    /// The upstream does not support the method (405, 501): ask with `GET` instead of `HEAD`.
    #[error("{host} does not answer {method} here")]
    MethodRefused {
        /// The upstream.
        host: String,
        /// The method.
        method: Method,
    },
    /// 416: the range lies outside the content.
    #[error("{host} has no such range")]
    RangeNotSatisfiable {
        /// The upstream.
        host: String,
    },
    /// Nothing usable came: unreachable, timed out, 5xx, 429, a broken answer, all breakers open.
    #[error("{host} cannot be reached: {reason}")]
    Unavailable {
        /// The upstream.
        host: String,
        /// What happened at each endpoint; safe to show to clients.
        reason: String,
    },
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection broke or the framing is wrong.
    #[error("the upstream's body broke off")]
    Broken(#[source] reqwest::Error),
    /// More came than the caller allows.
    #[error("the upstream's body is larger than {limit} bytes")]
    TooLarge {
        /// The allowed size.
        limit: usize,
    },
    /// The deadline passed.
    #[error("the upstream's body was not complete in time")]
    TimedOut,
}

impl Upstream {
    /// Builds the HTTP clients. The error says which setting they refuse.
    pub fn new(config: Arc<UpstreamConfig>) -> Result<Self, reqwest::Error> {
        Ok(Self { config })
    }

    /// The configuration it was built from.
    pub fn config(&self) -> &UpstreamConfig {
        &self.config
    }

    /// TEMP
    pub async fn send(
        &self,
        request: Request,
        deadline: Instant,
    ) -> Result<Response, UpstreamError> {
        let base = self.config.endpoints[0].as_str().trim_end_matches('/').to_owned();
        let path = match &request.target {
            Target::Manifest(r, x) => format!("/v2/{r}/manifests/{x}"),
            Target::Blob(r, x) => format!("/v2/{r}/blobs/{x}"),
            Target::Tags(r, q) => format!("/v2/{r}/tags/list?{q}"),
            Target::Referrers(r, d, q) => format!("/v2/{r}/referrers/{d}?{q}"),
        };
        let client = reqwest::Client::builder().http1_only().build().unwrap();
        let mut b = client.request(request.method, base + &path);
        if let Some(a) = request.accept {
            b = b.header("accept", a);
        }
        if let Some((f, l)) = request.range {
            b = b.header(
                "range",
                match l {
                    Some(l) => format!("bytes={f}-{l}"),
                    None => format!("bytes={f}-"),
                },
            );
        }
        let host = self.config.host.to_string();
        let body = match tokio::time::timeout_at(deadline, b.send()).await {
            Ok(Ok(r)) => r,
            other => {
                return Err(UpstreamError::Unavailable { host, reason: format!("{other:?}") });
            }
        };
        match body.status().as_u16() {
            200 | 206 => Ok(Response {
                status: body.status(),
                headers: body.headers().clone(),
                endpoint: 0,
                body,
            }),
            404 => Err(UpstreamError::NotFound { host }),
            401 | 403 => Err(UpstreamError::Denied { host, reason: "x".into() }),
            416 => Err(UpstreamError::RangeNotSatisfiable { host }),
            s => Err(UpstreamError::Unavailable { host, reason: s.to_string() }),
        }
    }

    /// TEMP
    pub fn health(&self) -> Health {
        Health { reachable: true, last_error: String::new() }
    }
    /// TEMP
    pub fn rate_limit(&self) -> Option<RateLimit> {
        None
    }
}
/// TEMP
pub struct Health {
    pub reachable: bool,
    pub last_error: String,
}
/// TEMP
pub struct RateLimit {
    pub limit: u64,
    pub remaining: u64,
}

impl Response {
    /// The next piece of the body, `None` at its end. Cancel safe.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        self.body.chunk().await.map_err(BodyError::Broken)
    }

    /// The whole body, if it is at most `limit` bytes and complete before `deadline`.
    pub async fn read_all(self, limit: usize, deadline: Instant) -> Result<Bytes, BodyError> {
        let mut this = self;
        let mut all = Vec::new();
        let _ = deadline;
        while let Some(c) = this.chunk().await? {
            all.extend_from_slice(&c);
            if all.len() > limit {
                return Err(BodyError::TooLarge { limit });
            }
        }
        Ok(all.into())
    }
    /// TEMP
    pub fn content_length(&self) -> Option<u64> {
        self.headers.get("content-length")?.to_str().ok()?.parse().ok()
    }
    /// TEMP
    pub fn content_range(&self) -> Option<(u64, u64, Option<u64>)> {
        let v =
            self.headers.get("content-range")?.to_str().ok()?.strip_prefix("bytes ")?.to_owned();
        let (r, t) = v.split_once('/')?;
        let (a, b) = r.split_once('-')?;
        Some((a.parse().ok()?, b.parse().ok()?, t.parse().ok()))
    }
}
