//! Answers: the only place where statuses and registry headers are set.

use axum::{body::Body, response::Response};
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::json;

use super::pull::{PullHeaders, Written, etag};
use crate::{
    cache::{self, BlobAnswer, Error, ErrorKind, ListAnswer, ManifestAnswer},
    metrics::Outcome,
    oci::{Digest, ErrorCode, UpstreamHost, manifest},
};

/// A request that no upstream will be asked about.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// For the body.
    pub code: ErrorCode,
    /// For the body: what is wrong, without anything of the request that could be a secret.
    pub message: String,
    /// 400, 404 or 405: always the client's fault.
    pub status: StatusCode,
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let status = match code {
            ErrorCode::NameUnknown => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_REQUEST,
        };
        Self { code, message: message.into(), status }
    }

    pub(super) fn method(method: &Method) -> Self {
        let message =
            format!("{method} is not supported: this cache only serves pulls (GET, HEAD)");
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self { code: ErrorCode::Unsupported, message, status }
    }

    pub(super) fn route(path: &str) -> Self {
        let shown: String = path.chars().take(80).collect();
        let message = format!("{shown:?} is not part of the pull API");
        Self { code: ErrorCode::Unsupported, message, status: StatusCode::NOT_FOUND }
    }
}

pub(super) fn refusal(refusal: &Refusal, head: bool) -> Response {
    error(refusal.status, refusal.code, &refusal.message, head)
}

/// An error of the cache. `not_found` is the code for content of this kind.
pub(super) fn failure(failure: &Error, not_found: ErrorCode, head: bool) -> (Response, Outcome) {
    let status = match failure.kind {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Refused => StatusCode::FORBIDDEN,
        ErrorKind::Unavailable | ErrorKind::Unusable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Range(_) => StatusCode::RANGE_NOT_SATISFIABLE,
    };
    let mut response = error(status, failure.kind.code(not_found), &failure.message, head);
    if let ErrorKind::Range(total) = failure.kind {
        set(&mut response, header::CONTENT_RANGE, &format!("bytes */{total}"));
    }
    (response, failure.outcome())
}

fn error(status: StatusCode, code: ErrorCode, message: &str, head: bool) -> Response {
    let body = json!({"errors": [{"code": code.as_str(), "message": message, "detail": null}]});
    let mut response = json_body(status, "application/json", &body.to_string(), head);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        set(&mut response, header::ALLOW, "GET, HEAD");
    }
    response
}

/// `/v2/`: the API is there.
pub(super) fn ping(head: bool) -> Response {
    json_body(StatusCode::OK, "application/json", "{}", head)
}

pub(super) fn manifest(
    answer: &ManifestAnswer,
    headers: &PullHeaders,
    body: Option<cache::Body>,
) -> Response {
    let manifest = &answer.manifest;
    let mut response = if headers.has(&manifest.digest) {
        plain(StatusCode::NOT_MODIFIED, no_body())
    } else {
        let mut response = plain(StatusCode::OK, body.map_or_else(Body::empty, Body::from_stream));
        set(&mut response, header::CONTENT_TYPE, &manifest.media_type);
        set(&mut response, header::CONTENT_LENGTH, &manifest.bytes.len().to_string());
        response
    };
    identify(&mut response, &manifest.digest);
    if answer.stale {
        // RFC 9111 dropped the header, but clients that show warnings know this code.
        set(&mut response, header::WARNING, "110 larder \"Response is Stale\"");
    }
    response
}

pub(super) fn blob(digest: &Digest, answer: BlobAnswer, headers: &PullHeaders) -> Response {
    let BlobAnswer { total, range, body, outcome: _ } = answer;
    if headers.has(digest) {
        let mut response = plain(StatusCode::NOT_MODIFIED, no_body());
        identify(&mut response, digest);
        return response;
    }
    let body = body.map_or_else(no_body, Body::from_stream);
    let (status, length) = match range {
        Some(range) => (StatusCode::PARTIAL_CONTENT, Some(range.end - range.start)),
        None => (StatusCode::OK, total),
    };
    let mut response = plain(status, body);
    if let (Some(range), Some(total)) = (range, total) {
        let value = format!("bytes {}-{}/{total}", range.start, range.end - 1);
        set(&mut response, header::CONTENT_RANGE, &value);
    }
    if let Some(length) = length {
        set(&mut response, header::CONTENT_LENGTH, &length.to_string());
    }
    set(&mut response, header::CONTENT_TYPE, "application/octet-stream");
    set(&mut response, header::ACCEPT_RANGES, "bytes");
    identify(&mut response, digest);
    response
}

/// No bytes, of content that may have some: axum writes the length of `Body::empty()`, 0, into
/// answers that do not state theirs.
fn no_body() -> Body {
    Body::from_stream(
        futures_util::stream::empty::<Result<bytes::Bytes, std::convert::Infallible>>(),
    )
}

/// Content named by a digest never changes.
fn identify(response: &mut Response, digest: &Digest) {
    set(response, header::ETAG, &etag(digest));
    set(response, header::HeaderName::from_static("docker-content-digest"), &digest.to_string());
}

pub(super) fn tags(list: &ListAnswer, written: &Written, head: bool) -> Response {
    list_body("application/json", list, written, head)
}

pub(super) fn referrers(list: &ListAnswer, written: &Written, head: bool) -> Response {
    let mut response = list_body(manifest::OCI_INDEX, list, written, head);
    if let Some(filters) = &list.filters_applied {
        set(&mut response, header::HeaderName::from_static("oci-filters-applied"), filters);
    }
    response
}

fn list_body(media_type: &str, list: &ListAnswer, written: &Written, head: bool) -> Response {
    let text = String::from_utf8_lossy(&list.body);
    let mut response = json_body(StatusCode::OK, media_type, &text, head);
    if let Some(next) = &list.next {
        let ns = match &written.ns {
            Some(ns) => format!(
                "&ns={}",
                percent_encoding::utf8_percent_encode(ns, percent_encoding::NON_ALPHANUMERIC)
            ),
            None => String::new(),
        };
        set(&mut response, header::LINK, &format!("<{}?{next}{ns}>; rel=\"next\"", written.path));
    }
    response
}

fn json_body(status: StatusCode, media_type: &str, text: &str, head: bool) -> Response {
    let body = if head { Body::empty() } else { Body::from(text.to_owned()) };
    let mut response = plain(status, body);
    set(&mut response, header::CONTENT_TYPE, media_type);
    set(&mut response, header::CONTENT_LENGTH, &text.len().to_string());
    response
}

fn plain(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    // Clients from before OCI recognise a registry by it.
    let version = header::HeaderName::from_static("docker-distribution-api-version");
    set(&mut response, version, "registry/2.0");
    set(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    response
}

/// Says which upstream answered (distribution-spec, "Registry Proxying").
pub(super) fn with_namespace(mut response: Response, host: &UpstreamHost) -> Response {
    set(&mut response, header::HeaderName::from_static("oci-namespace"), host.as_str());
    response
}

fn set(response: &mut Response, name: header::HeaderName, value: &str) {
    // Every value is made of validated parts; one that is not is left out rather than sent.
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
