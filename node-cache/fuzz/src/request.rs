//! What clients send.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use larder_node_cache::{
    cache::RangeSpec,
    oci::{Repository, UpstreamHost},
    server::{ImageRequest, PullRequest, Resource},
};

use super::first_line;

/// Longer ones are refused whatever they say.
const MAX_URI: usize = 4096;

/// A request: a line `METHOD TARGET`, then lines of headers.
///
/// What is accepted names a repository that stays within its folder, and written in its plainest
/// form it is the same request again. What is refused is the client's fault.
pub fn path(data: &[u8]) {
    let (line, lines) = first_line(data);
    let Some((method, uri)) = read_line(line) else { return };
    let headers = read_headers(lines);
    match PullRequest::parse(&method, &uri, &headers) {
        Err(refusal) => {
            assert!(refusal.status.is_client_error(), "{refusal:?}");
            assert!(!refusal.message.is_empty());
        }
        Ok(request) => {
            assert_eq!(request.head, method == Method::HEAD);
            assert!(method == Method::GET || request.head, "{method}");
            let Some(image) = request.image else { return };
            check_repository(&image.repository);
            assert_eq!(image.written.path, uri.path());
            if image.host.is_docker_hub() {
                assert!(!image.repository.is_single_segment(), "{}", image.repository);
            }
            check_plainest_form(&image);
        }
    }
}

fn read_line(line: &[u8]) -> Option<(Method, Uri)> {
    let (method, target) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    Some((method.parse().ok()?, target.parse().ok()?))
}

fn read_headers(lines: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n').take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

fn check_repository(repository: &Repository) {
    let text = repository.as_str();
    assert!(text.len() <= 255);
    assert!(!text.contains(".."), "{text:?}");
    for segment in text.split('/') {
        assert!(!segment.is_empty() && !segment.starts_with(['.', '_', '-']), "{text:?}");
        assert!(segment.bytes().all(|byte| byte.is_ascii_lowercase()
            || byte.is_ascii_digit()
            || b"._-".contains(&byte)));
    }
    assert_eq!(text.parse().as_ref(), Ok(repository));
}

fn check_plainest_form(image: &ImageRequest) {
    let name = &image.repository;
    let rest = match &image.resource {
        Resource::Manifest(reference) => format!("manifests/{reference}?"),
        Resource::Blob(digest) => format!("blobs/{digest}?"),
        Resource::Tags(query) => format!("tags/list?{query}&"),
        Resource::Referrers { digest, query, .. } => format!("referrers/{digest}?{query}&"),
    };
    let plain = format!("/v2/{name}/{rest}ns={}", encoded(image.host.as_str()));
    // Encoding can make a query three times as long.
    if plain.len() > MAX_URI {
        return;
    }
    let uri = plain.parse().expect("what was parsed can be written");
    let again = PullRequest::parse(&Method::GET, &uri, &HeaderMap::new());
    let again = again.expect("what was accepted is accepted again").image.expect("of an image");
    assert_eq!(again.host, image.host);
    assert_eq!(again.repository, image.repository);
    assert_eq!(again.resource, image.resource, "{plain}");
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        let _ = write!(encoded, "%{byte:02X}");
        encoded
    })
}

/// The name of a registry.
///
/// What is accepted is one authority of a URL and nothing besides, and is its own spelling.
pub fn ns(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(host) = text.parse::<UpstreamHost>() else { return };
    assert_eq!(host.as_str().parse().as_ref(), Ok(&host), "{text:?}");
    assert!(!host.as_str().contains(['/', '\\', '@', '?', '#', '%', ' ']), "{host}");
    assert!(!host.as_str().contains(".."), "{host}");
    assert_eq!(host.as_str(), host.as_str().to_ascii_lowercase());
    let endpoint: Uri = host.default_endpoint().parse().expect("an endpoint is a URL");
    assert_eq!(endpoint.path(), "/");
    let authority = endpoint.authority().expect("an endpoint has a host").as_str();
    assert!(host.is_docker_hub() || authority == host.as_str(), "{authority} for {host}");
}

/// Eight bytes of a length, then a `Range` header.
///
/// A range lies within the content, starts where it says, and is no longer than it says.
pub fn range(data: &[u8]) {
    let Some((total, header)) = data.split_first_chunk::<8>() else { return };
    let total = u64::from_le_bytes(*total);
    let Ok(header) = std::str::from_utf8(header) else { return };
    let Some(spec) = RangeSpec::parse(header) else { return };
    let plain = match spec {
        RangeSpec::From(first) => format!("bytes={first}-"),
        RangeSpec::Between(first, last) => format!("bytes={first}-{last}"),
        RangeSpec::Last(length) => format!("bytes=-{length}"),
    };
    assert_eq!(RangeSpec::parse(&plain), Some(spec), "{header:?}");
    let Some(range) = spec.resolve(total) else {
        let satisfiable = match spec {
            RangeSpec::From(first) | RangeSpec::Between(first, _) => first < total,
            RangeSpec::Last(length) => length > 0 && total > 0,
        };
        assert!(!satisfiable, "{spec:?} of {total}");
        return;
    };
    assert!(range.start < range.end && range.end <= total, "{spec:?} of {total}");
    match spec {
        RangeSpec::From(first) => assert_eq!((range.start, range.end), (first, total)),
        RangeSpec::Between(first, last) => {
            assert_eq!(range.start, first);
            assert!(range.end - 1 <= last);
        }
        RangeSpec::Last(length) => {
            assert_eq!(range.end, total);
            assert!(range.end - range.start <= length);
        }
    }
    assert!(spec.start().is_none_or(|first| first == range.start));
}
