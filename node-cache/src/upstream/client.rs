//! The HTTP clients of one upstream, and one exchange with them.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Method};
use reqwest::{Certificate, Client, ClientBuilder, Identity, Response, Url, redirect::Policy};
use tokio::{
    sync::OnceCell,
    time::{Instant, timeout_at},
};

use super::{
    address::Reach,
    breaker::Verdict,
    failure::{Failure, is_stale_connection},
    proxy::Proxies,
    redirect::same_origin,
    resolver::FilteringResolver,
    stats::{ErrorClass, Stats},
};
use crate::config::{Timeouts, UpstreamConfig};

/// Shorter than the 60 s after which load balancers usually close idle connections.
const IDLE: Duration = Duration::from_secs(30);
/// Idle connections that are kept for each host.
const MAX_IDLE: usize = 8;
/// Answers with more bytes of headers are broken. The client itself stops at 100 headers or about
/// 400 KiB.
const MAX_HEADER_BYTES: usize = 32 << 10;

/// Clients that differ in which addresses they may dial. They are separate so that a connection
/// that one of them keeps open cannot be used by another.
pub(super) struct Clients {
    config: Arc<UpstreamConfig>,
    proxies: Proxies,
    /// For the configured endpoints, which may be anywhere.
    endpoint: Client,
    /// For redirects and token services, by reach; built when first needed.
    hops: [OnceCell<Client>; Reach::COUNT],
}

/// One HTTP request.
pub(super) struct Outgoing<'a> {
    pub(super) method: &'a Method,
    pub(super) url: &'a Url,
    pub(super) headers: HeaderMap,
    /// The request is given up at this time, or after the configured time to the first byte.
    pub(super) deadline: Instant,
}

impl Clients {
    pub(super) fn new(config: Arc<UpstreamConfig>) -> Result<Self, reqwest::Error> {
        let proxies = Proxies::new(config.proxy.as_ref(), &|name| std::env::var(name).ok())?;
        let mut builder = builder(&config, &proxies)?;
        // Only the endpoints see the client certificate; hosts that they send us to have not
        // been configured.
        if let Some(identity) = &config.tls.identity {
            builder = builder.identity(Identity::from_pem(identity.expose().as_bytes())?);
        }
        let endpoint = builder.build()?;
        Ok(Self { config, proxies, endpoint, hops: Default::default() })
    }

    /// How far an endpoint that gave this answer may send us. Behind a proxy the peer is not the
    /// endpoint, and only the endpoint's spelling counts.
    pub(super) fn reach(&self, endpoint: &Url, answer: &Response) -> Reach {
        let peer = answer.remote_addr().filter(|_| self.proxies.is_empty());
        Reach::of_endpoint(endpoint, peer.map(|address| address.ip()))
    }

    /// The client for a URL that an endpoint led to: the endpoint's own if it leads back to it.
    pub(super) async fn for_hop(
        &self,
        url: &Url,
        endpoint: &Url,
        reach: Reach,
    ) -> Result<&Client, Failure> {
        if same_origin(url, endpoint) {
            return Ok(&self.endpoint);
        }
        // Reads the system's certificates, some milliseconds, once for each upstream.
        let build = || async {
            let proxies = self.proxies.hosts().to_vec();
            let resolver = FilteringResolver { reach, proxies };
            builder(&self.config, &self.proxies)?.dns_resolver(resolver).build()
        };
        self.hops[reach.index()].get_or_try_init(build).await.map_err(Failure::of)
    }

    /// The client for a configured endpoint.
    pub(super) fn for_endpoint(&self) -> &Client {
        &self.endpoint
    }

    /// What a failure after `waited` says about the peer's health. Whoever got less than a second
    /// (or than the configured times, if they are shorter) because time ran out cannot tell.
    pub(super) fn verdict(&self, failure: &Failure, waited: Duration) -> Option<Verdict> {
        let Timeouts { connect, first_byte, stall: _ } = self.config.timeouts;
        let enough = connect.min(first_byte).min(Duration::from_secs(1));
        if !failure.is_peers() || (failure.class() == ErrorClass::Timeout && waited < enough) {
            return None;
        }
        Some(Verdict::Failing(None))
    }

    /// Sends a request and waits for the headers of the answer.
    pub(super) async fn exchange(
        &self,
        client: &Client,
        outgoing: Outgoing<'_>,
        stats: &Stats,
    ) -> Result<Response, Failure> {
        let Outgoing { method, url, headers, deadline } = outgoing;
        let started = Instant::now();
        let deadline = deadline.min(started + self.config.timeouts.first_byte);
        let send = || {
            stats.count_request();
            client.request(method.clone(), url.clone()).headers(headers.clone()).send()
        };
        let answer = async {
            match send().await {
                Err(error) if is_stale_connection(&error) => send().await,
                answer => answer,
            }
        };
        let outcome = match timeout_at(deadline, Box::pin(answer)).await {
            Err(_) => {
                let waited = deadline.duration_since(started).as_secs_f32();
                let reason = format!("no answer within {waited:.1} s");
                Err(Failure::new(ErrorClass::Timeout, reason))
            }
            Ok(Err(error)) => Err(Failure::of(error)),
            Ok(Ok(answer)) if header_bytes(answer.headers()) > MAX_HEADER_BYTES => {
                Err(Failure::new(ErrorClass::Broken, "the headers are too large"))
            }
            Ok(Ok(answer)) => Ok(answer),
        };
        let host = url.host_str().unwrap_or_default();
        let elapsed = started.elapsed();
        match &outcome {
            Ok(answer) => {
                let code = answer.status().as_u16();
                tracing::debug!(%method, host, path = url.path(), code, ?elapsed, "upstream answered");
            }
            Err(failure) => {
                let (class, reason) = (failure.class().name(), failure.reason());
                tracing::debug!(%method, host, path = url.path(), class, reason, ?elapsed, "no answer");
            }
        }
        outcome
    }
}

/// What all clients of an upstream have in common.
fn builder(config: &UpstreamConfig, proxies: &Proxies) -> Result<ClientBuilder, reqwest::Error> {
    let mut builder = Client::builder()
        .user_agent(concat!("larder-node/", env!("CARGO_PKG_VERSION")))
        // One connection and TCP window for each blob; and HTTP/2 costs twice the CPU.
        .http1_only()
        .redirect(Policy::none())
        .referer(false)
        .connect_timeout(config.timeouts.connect)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MAX_IDLE)
        .no_proxy();
    for rule in proxies.rules() {
        builder = builder.proxy(rule);
    }
    if let Some(ca) = &config.tls.ca {
        builder = builder.tls_certs_merge(Certificate::from_pem_bundle(ca)?);
    }
    Ok(builder.tls_danger_accept_invalid_certs(config.tls.insecure))
}

fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}
