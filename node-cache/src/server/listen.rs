//! Accepting connections. `axum::serve` installs no timer, so its header timeout never fires
//! (axum#2741); this loop does.

use std::{convert::Infallible, future::Future, net::SocketAddr, pin::Pin, time::Duration};

use axum::Router;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::flush::{Flushes, Tracked};

/// How long a client may take for its request's head, and how long a connection may idle between
/// requests. Go clients send a request again if an idle connection was closed under it. With 2,000
/// such connections closing took 0.3 s more, and 10 s is the promise.
const HEAD_TIMEOUT: Duration = Duration::from_secs(9);
/// More headers than any registry client sends (containerd: 6).
const MAX_HEADERS: usize = 64;
/// The longest head, and how much of a body hyper takes before the client took what is there. Its
/// own 400 KiB for each were 130 MiB more with 256 slow clients, and 400 KiB of junk in a header
/// were taken. Registry clients send less than 4 KiB, tokens included.
const MAX_BUFFER: usize = 16 << 10;
/// How long open streams may take to end at shutdown. Below the 30 s that Kubernetes waits.
pub const GRACE: Duration = Duration::from_secs(25);

/// Who sent a request; an extension of every request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Serves `router` until `shutdown`, then stops accepting and lets open requests finish for at
/// most [`GRACE`].
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    let graceful = GracefulShutdown::new();
    let closing = CancellationToken::new();
    let mut shutdown = std::pin::pin!(shutdown);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_headers(MAX_HEADERS);
    builder.max_buf_size(MAX_BUFFER);
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
        let (router, builder) = (router.clone(), builder.clone());
        let (watcher, waiting) = (graceful.watcher(), closing.clone());
        tokio::spawn(async move {
            // Who sends nothing costs next to nothing: hyper's state and buffers come after this.
            let first = timeout(HEAD_TIMEOUT, stream.readable());
            if let Some(Ok(Ok(()))) = waiting.run_until_cancelled_owned(first).await {
                conversation(&builder, router, stream, peer, watcher).await;
            }
        });
    }
    drop(listener);
    closing.cancel();
    tokio::select! {
        () = graceful.shutdown() => {}
        () = sleep(GRACE) => tracing::warn!("streams were still open after the grace period"),
    }
}

/// One connection, request by request. In a box, so that it has no room in the task before.
fn conversation(
    builder: &http1::Builder,
    router: Router,
    stream: TcpStream,
    peer: SocketAddr,
    watcher: Watcher,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let flushes = Flushes::default();
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
    let stream = TokioIo::new(Tracked::new(stream, flushes));
    let connection = watcher.watch(builder.serve_connection(stream, service));
    Box::pin(async move {
        if let Err(error) = connection.await {
            // Clients that fetch in chunks close after each: not an error worth a warning.
            tracing::trace!(%error, "a connection ended");
        }
    })
}
