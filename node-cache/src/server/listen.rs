//! Accepting connections. `axum::serve` installs no timer, so its header timeout never fires
//! (axum#2741); this loop does.

use std::{convert::Infallible, future::Future, net::SocketAddr, time::Duration};

use axum::Router;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{net::TcpListener, time::sleep};
use tower::ServiceExt;

use super::flush::{Flushes, Tracked};

/// How long a client may take for its request's head, and how long a connection may idle between
/// requests. Go clients send a request again if an idle connection was closed under it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// More headers than any registry client sends (containerd: 6).
const MAX_HEADERS: usize = 64;
/// How long open streams may take to end at shutdown. Below the 30 s that Kubernetes waits.
pub const GRACE: Duration = Duration::from_secs(25);

/// Who sent a request; an extension of every request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Serves `router` until `shutdown`, then stops accepting and lets open requests finish for at
/// most [`GRACE`].
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    let graceful = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_headers(MAX_HEADERS);
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: waiting lets some be closed.
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = &mut shutdown => break,
        };
        // Small answers must not wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let (router, flushes) = (router.clone(), Flushes::default());
        let counted = flushes.clone();
        let service = service_fn(move |mut request: http::Request<Incoming>| {
            let (router, flushes) = (router.clone(), counted.clone());
            async move {
                request.extensions_mut().insert(Peer(peer));
                let answer = router.oneshot(request.map(axum::body::Body::new)).await;
                let answer = answer.unwrap_or_else(|never| match never {});
                Ok::<_, Infallible>(answer.map(|body| flushes.before_failure(body)))
            }
        });
        let connection = graceful
            .watch(builder.serve_connection(TokioIo::new(Tracked::new(stream, flushes)), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                // Clients that fetch in chunks close after each: not an error worth a warning.
                tracing::trace!(%error, "a connection ended");
            }
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = sleep(GRACE) => tracing::warn!("streams were still open after the grace period"),
    }
}
