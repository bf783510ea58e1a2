//! An API server that fails: a proxy in front of the real one, with real HTTP on a real socket.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use reqwest::{Certificate, Client};
use serde_json::json;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use super::{
    Cluster,
    kubeconfig::{ADMIN, token},
    network::api_server,
};

/// What is wrong with the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Every request is answered with that status.
    Always(u16),
    /// Every request that would change something is.
    Writes(u16),
    /// Every request waits that long before it is passed on.
    Slow(Duration),
}

/// Whether requests for leases meet the fault too. If they do, an operator loses its lease, and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leases {
    Fail,
    Pass,
}

/// Speaks plain HTTP to whoever knows its kubeconfig, and TLS to the API server. Ends when dropped.
pub struct FaultProxy {
    kubeconfig: PathBuf,
    fault: watch::Sender<(Fault, Leases)>,
    cuts: watch::Sender<u64>,
    counters: Arc<Counters>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counters {
    all: AtomicU64,
    writes: AtomicU64,
}

#[derive(Clone)]
struct Pass {
    client: Client,
    fault: watch::Receiver<(Fault, Leases)>,
    cuts: watch::Receiver<u64>,
    counters: Arc<Counters>,
}

impl FaultProxy {
    /// Starts one that passes everything on.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        let authority = Certificate::from_pem(cluster.authority.pem().as_bytes())?;
        // No timeout: watches are answers that do not end.
        let client = Client::builder().tls_certs_only([authority]).no_proxy().build()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let kubeconfig = cluster.folder.join("fault-proxy.kubeconfig");
        fs::write(&kubeconfig, text(listener.local_addr()?))?;
        let (fault, seen_fault) = watch::channel((Fault::None, Leases::Fail));
        let (cuts, seen_cuts) = watch::channel(0);
        let counters = Arc::new(Counters::default());
        let pass =
            Pass { client, fault: seen_fault, cuts: seen_cuts, counters: Arc::clone(&counters) };
        let router = Router::new().fallback(answer).with_state(pass);
        let task = tokio::spawn(async move {
            // It ends with the story.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { kubeconfig, fault, cuts, counters, task })
    }

    /// With which clients come through it, as the admin.
    pub fn kubeconfig(&self) -> &std::path::Path {
        &self.kubeconfig
    }

    /// From now on that is wrong.
    pub fn fail(&self, fault: Fault) {
        self.fault.send_replace((fault, Leases::Fail));
    }

    /// The same, but leases are renewed and tried for as if nothing was wrong.
    pub fn fail_but_for_leases(&self, fault: Fault) {
        self.fault.send_replace((fault, Leases::Pass));
    }

    /// Cuts every answer that is still coming: all watches.
    pub fn drop_watches(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// How many requests there were.
    pub fn requests(&self) -> u64 {
        self.counters.all.load(Ordering::Relaxed)
    }

    /// How many of them would change something, but for the renewals of leases.
    pub fn writes(&self) -> u64 {
        self.counters.writes.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn text(address: SocketAddr) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "u", "user": {"token": token(ADMIN)}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    })
    .to_string()
}

async fn answer(State(pass): State<Pass>, request: Request) -> Response {
    pass.counters.all.fetch_add(1, Ordering::Relaxed);
    let lease = request.uri().path().contains("/leases");
    if request.method() != Method::GET && !lease {
        pass.counters.writes.fetch_add(1, Ordering::Relaxed);
    }
    let fault = match *pass.fault.borrow() {
        (_, Leases::Pass) if lease => Fault::None,
        (fault, _) => fault,
    };
    match fault {
        Fault::Always(status) => return failure(status),
        Fault::Writes(status) if request.method() != Method::GET => return failure(status),
        Fault::Slow(wait) => tokio::time::sleep(wait).await,
        Fault::None | Fault::Writes(_) => {}
    }
    match pass_on(pass, request).await {
        Ok(response) => response,
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
    }
}

async fn pass_on(mut pass: Pass, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().context("a request has a path")?;
    let url = format!("https://{}{target}", api_server());
    let body = axum::body::to_bytes(body, 4 << 20).await?;
    let mut headers = parts.headers;
    headers.remove(header::HOST);
    let asked = pass.client.request(parts.method, url).headers(headers).body(body);
    let answer = asked.send().await?;
    let (status, headers) = (answer.status(), end_to_end(answer.headers()));
    pass.cuts.mark_unchanged();
    let body = answer.bytes_stream().take_until(async move {
        // An error means that the proxy ends, which cuts it too.
        let _ = pass.cuts.changed().await;
    });
    Ok((status, headers, Body::from_stream(body)).into_response())
}

/// Without those of the one connection.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONNECTION);
    headers
}

/// As the API server says it.
fn failure(status: u16) -> Response {
    let reason = match status {
        409 => "Conflict",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "a fault of the story", "reason": reason, "code": status,
    });
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::RETRY_AFTER, "1")];
    (status, headers, body.to_string()).into_response()
}
