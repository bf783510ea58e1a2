//! One upstream's checked configuration.

use std::time::Duration;

use larder_crds::node::{self, AccessMode};
use reqwest::Url;

use super::{Credentials, Globs, ReadFile, Secret};
use crate::oci::{Repository, Tag, UpstreamHost};

/// One upstream, checked, with the files that it names read.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamConfig {
    /// The key under which clients ask for it.
    pub host: UpstreamHost,
    /// Base URLs in the order of preference; at least one. Without a trailing slash in the path.
    pub endpoints: Vec<Url>,
    /// Who may read what.
    pub access: Access,
    /// What the cache may present to the upstream.
    pub credentials: Option<Credentials>,
    /// How certificates are checked.
    pub tls: TlsSettings,
    /// Hosts that may see the credentials besides the upstream's own registrable domain.
    pub token_realms: Vec<UpstreamHost>,
    /// HTTP, HTTPS or SOCKS5 proxy.
    pub proxy: Option<Url>,
    /// How tags are kept fresh.
    pub tags: TagPolicy,
    /// Which repositories are served.
    pub repositories: RepositoryFilter,
    /// How long the upstream may take.
    pub timeouts: Timeouts,
}

/// Who may read what.
#[derive(Clone, Debug, PartialEq)]
pub enum Access {
    /// What an anonymous client may read.
    Anonymous,
    /// The listed repositories with the cache's credentials, others as in `Anonymous`.
    Shared(Globs),
}

/// As whom a request goes to the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// Without credentials: proves that anybody may read.
    Anonymous,
    /// With the configured credentials, or without if there are none.
    Configured,
}

/// How certificates are checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsSettings {
    /// PEM certificate authorities, trusted besides the system's.
    pub ca: Option<Vec<u8>>,
    /// PEM certificate chain and private key for client authentication.
    pub identity: Option<Secret>,
    /// The certificate is not checked, and plain HTTP is allowed.
    pub insecure: bool,
}

/// How tags are kept fresh.
#[derive(Clone, Debug, PartialEq)]
pub struct TagPolicy {
    /// How long a tag is served without asking; zero asks every time.
    pub refresh_interval: Duration,
    /// How long after its last check a tag is served while the upstream fails.
    pub stale_if_error: Duration,
    /// How long "no such tag" is remembered.
    pub negative_ttl: Duration,
    /// Tags that never move.
    pub immutable: Globs,
}

/// Which repositories are served.
#[derive(Clone, Debug, PartialEq)]
pub struct RepositoryFilter {
    allow: Globs,
    deny: Globs,
}

/// How long the upstream may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a connection stands.
    pub connect: Duration,
    /// Until the response's headers.
    pub first_byte: Duration,
    /// Between two bytes of a body as a client sees it.
    pub stall: Duration,
}

/// What is wrong with an upstream's configuration.
#[derive(Debug)]
pub(super) struct FieldError {
    pub(super) field: String,
    pub(super) message: String,
}

type Checked<T> = Result<T, FieldError>;

fn wrong<T>(field: impl Into<String>, message: impl Into<String>) -> Checked<T> {
    Err(FieldError { field: field.into(), message: message.into() })
}

impl RepositoryFilter {
    /// Whether the repository may be served.
    pub fn allows(&self, repository: &Repository) -> bool {
        self.allow.matches(repository.as_str()) && !self.deny.matches(repository.as_str())
    }
}

impl TagPolicy {
    /// Whether the tag never moves.
    pub fn is_immutable(&self, tag: &Tag) -> bool {
        self.immutable.matches(tag.as_str())
    }
}

impl UpstreamConfig {
    /// Checks every field; the first that is wrong is named.
    pub(super) fn check(written: node::Upstream, read_file: ReadFile<'_>) -> Checked<Self> {
        let node::Upstream {
            host,
            endpoints,
            access,
            credentials_file,
            tls,
            token_realms,
            proxy,
            tags,
            repositories,
            timeouts,
        } = written;
        let host: UpstreamHost = match host.parse() {
            Ok(host) => host,
            Err(error) => return wrong("host", format!("{host:?}: {error}")),
        };
        let insecure = !tls.insecure_reason.trim().is_empty();
        let credentials = match read_text(&credentials_file, "credentialsFile", read_file)? {
            None => None,
            Some(text) => match Credentials::parse(&text, &host) {
                Ok(credentials) => Some(credentials),
                Err(error) => return wrong("credentialsFile", error.to_string()),
            },
        };
        Ok(Self {
            endpoints: check_endpoints(&host, endpoints, insecure)?,
            access: check_access(access, credentials.is_some())?,
            credentials,
            tls: check_tls(&tls, insecure, read_file)?,
            token_realms: check_realms(token_realms)?,
            proxy: check_proxy(&proxy)?,
            tags: TagPolicy {
                refresh_interval: tags.refresh_interval.get(),
                stale_if_error: tags.stale_if_error.get(),
                negative_ttl: tags.negative_ttl.get(),
                immutable: compile("tags.immutable", tags.immutable)?,
            },
            repositories: RepositoryFilter {
                allow: compile("repositories.allow", repositories.allow)?,
                deny: compile("repositories.deny", repositories.deny)?,
            },
            timeouts: Timeouts {
                // The bounds are those of the promise to clients: headers or an error within
                // 10 s, and no body that is silent for 10 s.
                connect: within("timeouts.connect", timeouts.connect, 10)?,
                first_byte: within("timeouts.firstByte", timeouts.first_byte, 10)?,
                stall: within("timeouts.stall", timeouts.stall, 10)?,
            },
            host,
        })
    }

    /// As whom content of `repository` is fetched.
    pub fn shares(&self, repository: &Repository) -> bool {
        match &self.access {
            Access::Anonymous => false,
            Access::Shared(listed) => listed.matches(repository.as_str()),
        }
    }

    /// The stale window, for records that were last checked at some time.
    pub fn stale_window(&self) -> Duration {
        self.tags.stale_if_error
    }
}

fn check_endpoints(
    host: &UpstreamHost,
    written: Vec<node::Endpoint>,
    insecure: bool,
) -> Checked<Vec<Url>> {
    let mut urls: Vec<String> = written.into_iter().map(|endpoint| endpoint.url).collect();
    if urls.is_empty() {
        urls.push(host.default_endpoint());
    }
    let mut endpoints = Vec::with_capacity(urls.len());
    for (index, text) in urls.into_iter().enumerate() {
        let field = format!("endpoints[{index}].url");
        let mut url = match Url::parse(&text) {
            Ok(url) if url.host_str().is_some() => url,
            _ => {
                return wrong(
                    field,
                    format!("{text:?} is not a URL such as https://reg.example.com"),
                );
            }
        };
        if !url.username().is_empty() || url.password().is_some() {
            return wrong(field, "a URL must not carry credentials; use credentialsFile");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return wrong(field, "a base URL has no query and no fragment");
        }
        match url.scheme() {
            "https" => {}
            "http" if insecure || is_loopback(&url) => {}
            "http" => {
                let message = "http:// is neither encrypted nor authenticated; use https://, or \
                               say in tls.insecureReason why it is acceptable";
                return wrong(field, message);
            }
            other => return wrong(field, format!("{other}:// is not supported, use https://")),
        }
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        endpoints.push(url);
    }
    Ok(endpoints)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn check_access(written: node::Access, has_credentials: bool) -> Checked<Access> {
    match (written.mode, written.repositories.is_empty()) {
        (AccessMode::Anonymous, true) => Ok(Access::Anonymous),
        (AccessMode::Anonymous, false) => wrong(
            "access.repositories",
            "only mode Shared has a list; remove it or set access.mode: Shared",
        ),
        (AccessMode::Shared, true) => wrong(
            "access.repositories",
            "mode Shared needs the repositories that everybody on the node may read",
        ),
        (AccessMode::Shared, false) if !has_credentials => {
            wrong("credentialsFile", "mode Shared needs credentials")
        }
        (AccessMode::Shared, false) => {
            Ok(Access::Shared(compile("access.repositories", written.repositories)?))
        }
    }
}

fn check_tls(written: &node::Tls, insecure: bool, read_file: ReadFile<'_>) -> Checked<TlsSettings> {
    let ca = read_text(&written.ca_file, "tls.caFile", read_file)?;
    if let Some(text) = &ca {
        let parsed = reqwest::Certificate::from_pem_bundle(text.as_bytes());
        if !parsed.is_ok_and(|certificates| !certificates.is_empty()) {
            return wrong("tls.caFile", format!("{:?} holds no PEM certificate", written.ca_file));
        }
    }
    let certificate = read_text(&written.client_cert_file, "tls.clientCertFile", read_file)?;
    let key = read_text(&written.client_key_file, "tls.clientKeyFile", read_file)?;
    let identity = match (certificate, key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => {
            let pem = format!("{certificate}\n{key}");
            if reqwest::Identity::from_pem(pem.as_bytes()).is_err() {
                let message = "expected a PEM certificate here and its unencrypted PEM private \
                               key in tls.clientKeyFile";
                return wrong("tls.clientCertFile", message);
            }
            Some(Secret::new(pem))
        }
        (Some(_), None) => return wrong("tls.clientKeyFile", "tls.clientCertFile needs it"),
        (None, Some(_)) => return wrong("tls.clientCertFile", "tls.clientKeyFile needs it"),
    };
    Ok(TlsSettings { ca: ca.map(String::into_bytes), identity, insecure })
}

fn check_realms(written: Vec<String>) -> Checked<Vec<UpstreamHost>> {
    let parse = |(index, text): (usize, String)| match text.parse() {
        Ok(host) => Ok(host),
        Err(error) => wrong(format!("tokenRealms[{index}]"), format!("{text:?}: {error}")),
    };
    written.into_iter().enumerate().map(parse).collect()
}

fn check_proxy(text: &str) -> Checked<Option<Url>> {
    if text.is_empty() {
        return Ok(None);
    }
    match Url::parse(text) {
        Ok(url)
            if url.host_str().is_some()
                && matches!(url.scheme(), "http" | "https" | "socks5" | "socks5h") =>
        {
            Ok(Some(url))
        }
        // The text is not repeated: a proxy URL may carry a password.
        _ => wrong("proxy", "expected http://, https://, socks5:// or socks5h:// with a host"),
    }
}

fn compile(field: &str, patterns: Vec<String>) -> Checked<Globs> {
    Globs::compile(patterns).or_else(|error| wrong(field, error.to_string()))
}

fn within(field: &str, written: larder_crds::Duration, most: u64) -> Checked<Duration> {
    let duration = written.get();
    if duration.is_zero() || duration > Duration::from_secs(most) {
        return wrong(field, format!("{written} is out of range: more than 0s, at most {most}s"));
    }
    Ok(duration)
}

fn read_text(name: &str, field: &str, read_file: ReadFile<'_>) -> Checked<Option<String>> {
    if name.is_empty() {
        return Ok(None);
    }
    let bytes = match read_file(name) {
        Ok(bytes) => bytes,
        Err(error) => return wrong(field, format!("cannot read {name:?}: {error}")),
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(_) => wrong(field, format!("{name:?} is not text")),
    }
}
