//! Bodies that end early, ended so that nothing sent before is lost.
//!
//! When a body fails, hyper drops the connection together with what it has not written yet: a piece
//! of up to 1 MiB. The client would have to ask for those bytes again, and for a body with a bad
//! digest it would not get "all but the last byte". So the failure waits until hyper has flushed: it
//! calls `poll_flush` of the transport exactly when its own buffer is empty.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::watch,
    time::timeout,
};

/// Counts how often everything that was to be written had been.
#[derive(Clone, Debug, Default)]
pub(super) struct Flushes(Arc<watch::Sender<u64>>);

/// A client that takes nothing for this long loses what it did not take.
const PATIENCE: Duration = Duration::from_secs(10);

impl Flushes {
    /// The same body, whose failure comes only after the bytes before it were written.
    pub(super) fn before_failure(self, body: Body) -> Body {
        let seen = *self.0.borrow();
        let state = (body.into_data_stream(), self, seen);
        Body::from_stream(stream::unfold(state, |(mut body, flushes, seen)| async move {
            let item: Result<Bytes, axum::Error> = body.next().await?;
            if item.is_err() {
                let mut flushed = flushes.0.subscribe();
                // Past the time, or without a connection, there is nothing to wait for.
                let _ = timeout(PATIENCE, flushed.wait_for(|count| *count > seen)).await;
            }
            // The piece is buffered after this; a later flush has it written.
            let seen = *flushes.0.borrow();
            Some((item, (body, flushes, seen)))
        }))
    }
}

/// A connection that counts its flushes.
pub(super) struct Tracked {
    stream: TcpStream,
    flushes: Flushes,
}

impl Tracked {
    pub(super) fn new(stream: TcpStream, flushes: Flushes) -> Self {
        Self { stream, flushes }
    }
}

impl AsyncRead for Tracked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Tracked {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.flushes.0.send_modify(|count| *count += 1);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
