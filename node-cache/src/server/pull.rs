//! Reading a pull request. No I/O: text becomes types here, and nobody looks at the URL again.

use std::fmt;

use http::{HeaderMap, Method, Uri, header};
use percent_encoding::percent_decode_str;

use super::Refusal;
use crate::{
    cache::RangeSpec,
    oci::{Digest, ErrorCode, ParseNameError, Reference, Repository, UpstreamHost},
};

/// A well-formed request for something that a registry has.
#[derive(Clone, Debug, PartialEq)]
pub struct PullRequest {
    /// `HEAD` rather than `GET`.
    pub head: bool,
    /// None for `/v2/` itself.
    pub image: Option<ImageRequest>,
    /// The headers that matter.
    pub headers: PullHeaders,
}

/// Something of a repository.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageRequest {
    /// Which upstream; whether it is configured is not known here.
    pub host: UpstreamHost,
    /// Its repository, with `library/` where Docker Hub means it.
    pub repository: Repository,
    /// What of the repository.
    pub resource: Resource,
    /// How the client wrote it, for links and lists that lead back to us.
    pub written: Written,
}

/// The client's own spelling.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// `<name>` in `/v2/<name>/tags/list`.
    pub name: String,
    /// The path, percent-encoded as it came.
    pub path: String,
    /// The value of `ns`, if that is how the upstream was named.
    pub ns: Option<String>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// `manifests/<reference>`
    Manifest(Reference),
    /// `blobs/<digest>`
    Blob(Digest),
    /// `tags/list`, with the query for the upstream.
    Tags(String),
    /// `referrers/<digest>`
    Referrers {
        /// Whom they refer to.
        digest: Digest,
        /// Only those of this type.
        artifact_type: Option<String>,
        /// For the upstream.
        query: String,
    },
}

/// The headers that matter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PullHeaders {
    /// All `Accept` lines as one.
    pub(super) accept: Option<String>,
    range: Option<RangeSpec>,
    if_range: Option<String>,
    if_none_match: Option<String>,
    /// Whether containerd is the client: `containerd/` and a version is all that it says.
    pub(super) of_containerd: bool,
}

/// The longest path and query that any client of a registry needs is some 600 bytes.
const MAX_URI: usize = 4096;

impl PullRequest {
    /// Reads a request. What it is refused for depends on nothing but its own text: not on the
    /// configuration, not on what is stored.
    pub fn parse(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Self, Refusal> {
        let head = match *method {
            Method::GET => false,
            Method::HEAD => true,
            _ => return Err(Refusal::method(method)),
        };
        check_framing(uri, headers)?;
        let path = percent_decode_str(uri.path())
            .decode_utf8()
            .map_err(|_| Refusal::new(ErrorCode::NameInvalid, "the path is not UTF-8"))?;
        let headers = PullHeaders::read(headers);
        if path == "/v2" || path == "/v2/" {
            return Ok(Self { head, image: None, headers });
        }
        let Some((name, kind, last)) = path.strip_prefix("/v2/").and_then(split) else {
            return Err(Refusal::route(&path));
        };
        let mut query = Query::read(uri.query().unwrap_or_default())?;
        let resource = match (kind, last) {
            ("manifests", reference) => Resource::Manifest(parse_reference(reference)?),
            ("blobs", digest) => Resource::Blob(parse_digest(digest)?),
            ("referrers", digest) => Resource::Referrers {
                digest: parse_digest(digest)?,
                query: query.upstream(),
                artifact_type: query.take("artifactType"),
            },
            ("tags", "list") => Resource::Tags(query.upstream()),
            _ => return Err(Refusal::route(&path)),
        };
        let ns = query.take("ns");
        let (host, repository) = match &ns {
            Some(ns) => (parse_host(ns)?, parse_repository(name)?),
            None => split_host(name)?,
        };
        let repository = match repository {
            // What `docker pull nginx` means (containerd's own `ParseDockerRef` does the same).
            short if host.is_docker_hub() && short.is_single_segment() => {
                short.within("library").map_err(|error| invalid_name(&error))?
            }
            repository => repository,
        };
        let written = Written { name: name.to_owned(), path: uri.path().to_owned(), ns };
        Ok(Self {
            head,
            image: Some(ImageRequest { host, repository, resource, written }),
            headers,
        })
    }
}

/// Requests that a registry client never sends, and a smuggler might (T12).
fn check_framing(uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let refuse = |message: &str| Err(Refusal::new(ErrorCode::Unsupported, message));
    if uri.authority().is_some() {
        return refuse("this is a registry, not a proxy: send the path alone");
    }
    let length = uri.path().len() + uri.query().map_or(0, str::len);
    if length > MAX_URI {
        return refuse("the path is longer than 4096 bytes");
    }
    let has_length = headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    if has_length || headers.contains_key(header::TRANSFER_ENCODING) {
        return refuse("a request to read has no body");
    }
    Ok(())
}

/// `<name>/<kind>/<last>`. The name may itself have segments that are called `manifests`, so the
/// split is at the end.
fn split(rest: &str) -> Option<(&str, &str, &str)> {
    let (rest, last) = rest.rsplit_once('/')?;
    let (name, kind) = rest.rsplit_once('/')?;
    Some((name, kind, last))
}

fn parse_host(text: &str) -> Result<UpstreamHost, Refusal> {
    let unknown = |_| Refusal::new(ErrorCode::NameUnknown, "ns does not name a registry");
    text.parse().map_err(unknown)
}

fn parse_repository(text: &str) -> Result<Repository, Refusal> {
    text.parse().map_err(|error| invalid_name(&error))
}

fn invalid_name(error: &ParseNameError) -> Refusal {
    Refusal::new(ErrorCode::NameInvalid, error.to_string())
}

/// The path form: the first segment is the registry.
fn split_host(name: &str) -> Result<(UpstreamHost, Repository), Refusal> {
    let hint = "name the registry: /v2/<registry>/<repository>/..., for example \
                /v2/docker.io/library/nginx/manifests/latest, or add ?ns=<registry>";
    let unknown = || Refusal::new(ErrorCode::NameUnknown, hint);
    let Some((host, repository)) = name.split_once('/') else {
        // `nginx` alone is a well-formed name of nothing that is served.
        parse_repository(name)?;
        return Err(unknown());
    };
    let repository = parse_repository(repository)?;
    Ok((host.parse().map_err(|_| unknown())?, repository))
}

fn parse_reference(text: &str) -> Result<Reference, Refusal> {
    text.parse().map_err(|error: ParseNameError| {
        let code = match error {
            ParseNameError::Digest(_) => ErrorCode::DigestInvalid,
            _ => ErrorCode::TagInvalid,
        };
        Refusal::new(code, error.to_string())
    })
}

fn parse_digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|error: crate::oci::ParseDigestError| {
        Refusal::new(ErrorCode::DigestInvalid, error.to_string())
    })
}

/// A query as pairs; each name at most once.
struct Query(Vec<(String, String)>);

impl Query {
    fn read(text: &str) -> Result<Self, Refusal> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (Ok(name), Ok(value)) =
                (percent_decode_str(name).decode_utf8(), percent_decode_str(value).decode_utf8())
            else {
                return Err(Refusal::new(ErrorCode::Unsupported, "the query is not UTF-8"));
            };
            if pairs.iter().any(|(known, _)| *known == name) {
                let message = "the query names a parameter twice";
                return Err(Refusal::new(ErrorCode::Unsupported, message));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(pairs))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let index = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(index).1)
    }

    /// Everything but `ns`, encoded anew: a registry may page with parameters of its own.
    fn upstream(&self) -> String {
        let encode =
            |text| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
        let parts: Vec<String> = self
            .0
            .iter()
            .filter(|(name, _)| name != "ns")
            .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
            .collect();
        parts.join("&")
    }
}

impl PullHeaders {
    fn read(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let accept: Vec<&str> = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let accept = accept.join(", ");
        // A list of every type in use has some 600 bytes; what is longer says nothing more.
        let accept = (!accept.trim().is_empty() && accept.len() <= MAX_URI).then_some(accept);
        Self {
            accept,
            range: text(header::RANGE).and_then(RangeSpec::parse),
            if_range: text(header::IF_RANGE).map(str::to_owned),
            if_none_match: text(header::IF_NONE_MATCH).map(str::to_owned),
            of_containerd: text(header::USER_AGENT)
                .is_some_and(|client| client.starts_with("containerd/")),
        }
    }

    /// Whether the client takes content of this type (RFC 9110 section 12.5.1, without weights).
    pub(super) fn accepts(&self, media_type: &str) -> bool {
        let Some(accept) = &self.accept else {
            return true;
        };
        accept.split(',').any(|range| {
            let range = range.split(';').next().unwrap_or_default().trim();
            range == "*/*"
                || range.eq_ignore_ascii_case(media_type)
                || range
                    .strip_suffix('*')
                    .is_some_and(|prefix| prefix.ends_with('/') && media_type.starts_with(prefix))
        })
    }

    /// The range that is asked for, unless it was meant for other content (`If-Range`).
    pub(super) fn range_for(&self, digest: &Digest) -> Option<RangeSpec> {
        match &self.if_range {
            Some(validator) if *validator != etag(digest) => None,
            _ => self.range,
        }
    }

    /// Whether the client has this content already.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        let etag = etag(digest);
        self.if_none_match.as_ref().is_some_and(|list| {
            list.trim() == "*"
                || list.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag)
        })
    }
}

/// The entity tag of content: its digest.
pub(super) fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest(reference) => write!(f, "manifest {reference}"),
            Self::Blob(digest) => write!(f, "blob {digest}"),
            Self::Tags(_) => f.write_str("tags"),
            Self::Referrers { digest, .. } => write!(f, "referrers {digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(uri: &str) -> Result<PullRequest, Refusal> {
        PullRequest::parse(&Method::GET, &uri.parse().unwrap(), &HeaderMap::new())
    }

    fn hex() -> String {
        "a".repeat(64)
    }

    #[test]
    fn a_request_is_read_into_upstream_repository_and_resource() {
        let digest = format!("sha256:{}", hex());
        let blob = format!("blob {digest}");
        let blob_uri = format!("/v2/library/nginx/blobs/{digest}?ns=docker.io");
        let escaped = format!("/v2/library/nginx/blobs/sha256%3A{}?ns=docker.io", hex());
        let table = [
            (
                "/v2/library/nginx/manifests/1.27?ns=docker.io",
                "docker.io",
                "library/nginx",
                "manifest 1.27",
            ),
            (
                "/v2/nginx/manifests/1.27?ns=registry-1.docker.io",
                "docker.io",
                "library/nginx",
                "manifest 1.27",
            ),
            (
                "/v2/docker.io/nginx/manifests/latest",
                "docker.io",
                "library/nginx",
                "manifest latest",
            ),
            (
                "/v2/a/b/manifests/1?ns=reg.example.com%3A5000",
                "reg.example.com:5000",
                "a/b",
                "manifest 1",
            ),
            ("/v2/reg.example.com:5000/a/manifests/1", "reg.example.com:5000", "a", "manifest 1"),
            // ns wins over the path form.
            ("/v2/ghcr.io/a/manifests/1?ns=quay.io", "quay.io", "ghcr.io/a", "manifest 1"),
            (
                "/v2/ghcr.io/manifests/blobs/manifests/tags",
                "ghcr.io",
                "manifests/blobs",
                "manifest tags",
            ),
            (&blob_uri, "docker.io", "library/nginx", &blob),
            (&escaped, "docker.io", "library/nginx", &blob),
            ("/v2/quay.io/a/b/tags/list?n=5", "quay.io", "a/b", "tags"),
        ];
        for (uri, host, repository, resource) in table {
            let image =
                parse(uri).unwrap_or_else(|refusal| panic!("{uri}: {refusal:?}")).image.unwrap();
            assert_eq!(image.host.as_str(), host, "{uri}");
            assert_eq!(image.repository.as_str(), repository, "{uri}");
            assert_eq!(image.resource.to_string(), resource, "{uri}");
        }
        assert_eq!(parse("/v2/").unwrap().image, None);
        assert_eq!(parse("/v2").unwrap().image, None);
    }

    #[test]
    fn t09_what_is_no_pull_request_is_refused_with_a_code() {
        let table = [
            ("/", ErrorCode::Unsupported),
            ("/v1/", ErrorCode::Unsupported),
            ("/v2/_catalog", ErrorCode::Unsupported),
            ("/v2/a/uploads/x", ErrorCode::Unsupported),
            ("/v2/nginx/manifests/latest", ErrorCode::NameUnknown),
            ("/v2/a/b/manifests/1?ns=..%2F..", ErrorCode::NameUnknown),
            ("/v2/a/b/manifests/1?ns=", ErrorCode::NameUnknown),
            ("/v2/a/b/manifests/1?ns=a%40b", ErrorCode::NameUnknown),
            ("/v2/a/b/manifests/1?ns=a&ns=b", ErrorCode::Unsupported),
            ("/v2/docker.io/../manifests/1", ErrorCode::NameInvalid),
            ("/v2/docker.io/%2e%2e/manifests/1", ErrorCode::NameInvalid),
            ("/v2/docker.io//a/manifests/1", ErrorCode::NameInvalid),
            ("/v2/docker.io/A/manifests/1", ErrorCode::NameInvalid),
            ("/v2/docker.io/a%00/manifests/1", ErrorCode::NameInvalid),
            ("/v2/docker.io/%ff/manifests/1", ErrorCode::NameInvalid),
            ("/v2/docker.io/a/manifests/-x", ErrorCode::TagInvalid),
            ("/v2/docker.io/a/manifests/sha256:x", ErrorCode::DigestInvalid),
            ("/v2/docker.io/a/blobs/latest", ErrorCode::DigestInvalid),
            ("/v2/docker.io/a/blobs/sha256:baddigeststring", ErrorCode::DigestInvalid),
            ("http://other.example/v2/", ErrorCode::Unsupported),
        ];
        for (uri, code) in table {
            assert_eq!(parse(uri).expect_err(uri).code, code, "{uri}");
        }
        let long = format!("/v2/{}/manifests/1", "a/".repeat(2_100));
        assert_eq!(parse(&long).unwrap_err().code, ErrorCode::Unsupported);
    }

    #[test]
    fn list_parameters_reach_the_upstream_encoded_anew_and_without_ns() {
        let uri = "/v2/a/tags/list?last=a%26b&page%3d=x%0d%0ay&n=5&ns=ghcr.io";
        let image = parse(uri).unwrap().image.unwrap();
        assert_eq!(image.resource, Resource::Tags("last=a%26b&page%3D=x%0D%0Ay&n=5".to_owned()));
    }

    #[test]
    fn several_accept_lines_are_one_list() {
        let mut headers = HeaderMap::new();
        headers.append(header::ACCEPT, "application/a+json".parse().unwrap());
        headers.append(header::ACCEPT, "application/b+json;q=0.5, text/*".parse().unwrap());
        let headers = PullHeaders::read(&headers);
        for (media_type, accepted) in [
            ("application/a+json", true),
            ("application/b+json", true),
            ("text/x", true),
            ("image/x", false),
        ] {
            assert_eq!(headers.accepts(media_type), accepted, "{media_type}");
        }
        assert!(PullHeaders::default().accepts("anything/at.all"));
    }

    proptest! {
        #[test]
        fn no_path_makes_the_parser_panic(path in "/v2/[a-z0-9:%/._?=&-]{0,60}") {
            if let Ok(uri) = path.parse() {
                let _ = PullRequest::parse(&Method::GET, &uri, &HeaderMap::new());
            }
        }
    }
}
