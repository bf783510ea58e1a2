//! The whole client against real sockets.

mod answers;
mod authorization;
mod endpoints;
mod fake;
mod redirects;
mod tls;

use std::{io, sync::Arc, time::Duration};

use http::Method;
use tokio::time::Instant;

use super::{Request, Response, Target, Upstream, UpstreamError};
use crate::config::{Config, Identity};

/// SHA-256 of nothing.
const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const CREDENTIALS: &str = "{username: robot, password: canary-password}";
/// `robot:canary-password`
const BASIC: &str = "Basic cm9ib3Q6Y2FuYXJ5LXBhc3N3b3Jk";

/// An upstream with these endpoints; `more` are further lines of its configuration, which may
/// name `files`.
fn upstream_with(endpoints: &[&str], more: &str, files: &[(&str, &str)]) -> Upstream {
    let listed: Vec<_> = endpoints.iter().map(|url| format!("{{url: \"{url}\"}}")).collect();
    let text = format!(
        "apiVersion: node.larder.dev/v1alpha1\n\
         kind: NodeConfig\n\
         storage: {{path: /unused, capacity: 1Gi, minFree: \"20%\"}}\n\
         upstreams:\n\
         - host: reg.example\n  \
           endpoints: [{}]\n  \
           timeouts: {{connect: 1s, firstByte: 1s, stall: 10s}}\n{more}",
        listed.join(", ")
    );
    let read = |name: &str| {
        let found = files.iter().find(|(file, _)| *file == name);
        found
            .map(|(_, content)| content.as_bytes().to_vec())
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    };
    let config = Config::parse(&text, &read).unwrap();
    assert_eq!(config.rejected, []);
    Upstream::new(config.upstreams.into_values().next().unwrap()).unwrap()
}

fn upstream(endpoints: &[&str]) -> Upstream {
    upstream_with(endpoints, "", &[])
}

/// With credentials, for requests as [`Identity::Configured`].
fn with_credentials(endpoints: &[&str], more: &str) -> Upstream {
    let more = format!("  credentialsFile: credentials\n{more}");
    upstream_with(endpoints, &more, &[("credentials", CREDENTIALS)])
}

fn manifest(method: Method, identity: Identity) -> Request {
    let target = Target::Manifest("library/nginx".parse().unwrap(), "1.27".parse().unwrap());
    Request {
        method,
        target,
        accept: Some("application/vnd.oci.image.index.v1+json, */*".to_owned()),
        range: None,
        identity,
        first_endpoint: 0,
    }
}

fn blob(range: Option<(u64, Option<u64>)>) -> Request {
    Request {
        target: Target::Blob("library/nginx".parse().unwrap(), DIGEST.parse().unwrap()),
        accept: None,
        range,
        ..get()
    }
}

fn get() -> Request {
    manifest(Method::GET, Identity::Anonymous)
}

fn get_as_configured() -> Request {
    manifest(Method::GET, Identity::Configured)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

async fn send(upstream: &Upstream, request: Request) -> Result<Response, UpstreamError> {
    upstream.send(request, soon()).await
}

/// The body of an answer that must come.
async fn body(upstream: &Upstream, request: Request) -> String {
    let answer = send(upstream, request).await.unwrap();
    text(answer).await
}

async fn text(answer: Response) -> String {
    let body = answer.read_all(1 << 20, soon()).await.unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

/// The reason of an error that must be [`UpstreamError::Denied`].
async fn denied(upstream: &Upstream, request: Request) -> String {
    match send(upstream, request).await {
        Err(UpstreamError::Denied { reason, .. }) => reason,
        other => panic!("expected Denied, got {other:?}"),
    }
}

/// The reason of an error that must be [`UpstreamError::Unavailable`].
async fn unavailable(upstream: &Upstream, request: Request) -> String {
    match send(upstream, request).await {
        Err(UpstreamError::Unavailable { reason, .. }) => reason,
        other => panic!("expected Unavailable, got {other:?}"),
    }
}

/// Runs `all` at once.
async fn at_once<T>(all: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    futures_util::future::join_all(all).await
}

#[tokio::test]
async fn requests_are_built_from_scratch() {
    let registry = fake::start(|_| fake::ok("hello")).await;
    let upstream = Arc::new(upstream(&[&registry.url("/base/")]));
    let shared = upstream.clone();
    let elsewhere = tokio::spawn(async move { body(&shared, get()).await });
    assert_eq!(elsewhere.await.unwrap(), "hello");
    assert_eq!(
        body(&upstream, blob(Some((5, Some(9))))).await,
        "hello",
        "200 for a range is an answer"
    );
    let seen = registry.seen();
    assert_eq!(seen[0].target, "/base/v2/library/nginx/manifests/1.27");
    let agent = format!("larder-node/{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(seen[0].header("user-agent"), agent);
    assert_eq!(seen[0].header("accept"), "application/vnd.oci.image.index.v1+json, */*");
    assert_eq!(seen[1].header("accept"), "*/*");
    assert_eq!(seen[1].header("range"), "bytes=5-9");
    for request in &seen {
        assert_eq!(request.header("accept-encoding"), "");
        assert_eq!(request.header("authorization"), "");
    }
    assert_eq!(registry.connections(), 1, "connections are kept");
    assert_eq!(upstream.requests(), 2);
    assert_eq!(format!("{upstream:?}"), "Upstream { host: reg.example, .. }");
}
