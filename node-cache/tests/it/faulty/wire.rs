//! A reply as bytes on a socket, with everything that can go wrong there.

use std::{
    fmt::Write as _,
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

use super::reply::{Framing, Reply, Stop};

const PIECE: usize = 64 << 10;
/// Longer than any deadline of the cache.
const FOREVER: Duration = Duration::from_mins(2);

/// Whether the connection can take another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Open,
    Closed,
}

/// Sends `reply`; counts the body bytes in `sent`.
pub(super) async fn send(
    stream: &mut TcpStream,
    reply: Reply,
    is_head: bool,
    sent: &AtomicU64,
) -> io::Result<After> {
    if reply.hang_before {
        return hang(stream).await;
    }
    stream.write_all(head(&reply).as_bytes()).await?;
    if is_head {
        return Ok(if reply.framing == Framing::Close { After::Closed } else { After::Open });
    }
    let mut at = 0;
    let end = reply.stop.map_or(reply.body.len(), Stop::at);
    while at < end {
        let pace = reply.pace.filter(|pace| at >= pace.from);
        let mut next = end.min(at + pace.map_or(PIECE, |pace| pace.step));
        if let Some(pace) = reply.pace.filter(|pace| at < pace.from) {
            next = next.min(pace.from);
        }
        piece(stream, &reply, reply.body.slice(at..next)).await?;
        sent.fetch_add((next - at) as u64, Ordering::Relaxed);
        at = next;
        if let Some(pace) = pace {
            stream.flush().await?;
            sleep(pace.every).await;
        }
    }
    if reply.endless {
        return endless(stream, &reply, sent).await;
    }
    stream.flush().await?;
    match reply.stop {
        None => {}
        Some(Stop::Fin(_)) => return fin(stream).await,
        Some(Stop::Rst(_)) => {
            // Time to read what has arrived; a reset on its heels could overtake it.
            sleep(Duration::from_millis(200)).await;
            stream.set_zero_linger()?;
            return Ok(After::Closed);
        }
        Some(Stop::Hang(_)) => return hang(stream).await,
    }
    match reply.framing {
        Framing::Length(_) => Ok(After::Open),
        Framing::Close => fin(stream).await,
        Framing::Chunked => {
            stream.write_all(b"0\r\n\r\n").await?;
            Ok(After::Open)
        }
    }
}

fn head(reply: &Reply) -> String {
    let mut head = format!("HTTP/1.1 {} Status\r\n", reply.status);
    for (name, value) in &reply.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    match reply.framing {
        Framing::Length(length) => {
            let _ = write!(head, "Content-Length: {length}\r\n");
        }
        Framing::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
        Framing::Close => head.push_str("Connection: close\r\n"),
    }
    head + "\r\n"
}

async fn piece(stream: &mut TcpStream, reply: &Reply, bytes: Bytes) -> io::Result<()> {
    if reply.framing != Framing::Chunked {
        return stream.write_all(&bytes).await;
    }
    stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
    stream.write_all(&bytes).await?;
    stream.write_all(b"\r\n").await
}

/// Until the other side has had enough, and at the latest when it is clear that it never will.
async fn endless(stream: &mut TcpStream, reply: &Reply, sent: &AtomicU64) -> io::Result<After> {
    while sent.load(Ordering::Relaxed) < 256 << 20 {
        piece(stream, reply, Bytes::from_static(&[b' '; 16 << 10])).await?;
        sent.fetch_add(16 << 10, Ordering::Relaxed);
    }
    hang(stream).await
}

async fn fin(stream: &mut TcpStream) -> io::Result<After> {
    stream.shutdown().await?;
    // Until the other side closes too: closing with unread bytes would turn FIN into RST.
    let _ = tokio::time::timeout(Duration::from_secs(2), drain(stream)).await;
    Ok(After::Closed)
}

async fn hang(stream: &mut TcpStream) -> io::Result<After> {
    let _ = tokio::time::timeout(FOREVER, drain(stream)).await;
    Ok(After::Closed)
}

async fn drain(stream: &mut TcpStream) {
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
}
