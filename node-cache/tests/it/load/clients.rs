//! Clients that compare what they read with what it must be, and keep nothing.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

/// More than any bound of the server.
const PATIENCE: Duration = Duration::from_mins(2);
/// The longest head of an answer.
const MAX_HEAD: usize = 8 << 10;

/// A body on its way, compared as it comes.
#[derive(Debug)]
pub struct Download {
    stream: TcpStream,
    expected: Bytes,
    buffer: Vec<u8>,
    position: usize,
}

impl Download {
    /// Asks for `path`, reads the head and the first bytes of the body, and checks both.
    pub async fn start(address: SocketAddr, path: &str, expected: Bytes) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: larder\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::with_capacity(MAX_HEAD);
        let body = loop {
            if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n")
                && head.len() > end + 4
            {
                break end + 4;
            }
            if head.len() >= MAX_HEAD || patiently(stream.read_buf(&mut head)).await? == 0 {
                return Err(io::Error::other(format!("no answer: {}", head.escape_ascii())));
            }
        };
        if !head.starts_with(b"HTTP/1.1 200 ") {
            return Err(io::Error::other(format!("refused: {}", head.escape_ascii())));
        }
        let mut download = Self { stream, expected, buffer: Vec::new(), position: 0 };
        download.compare(&head[body..])?;
        Ok(download)
    }

    /// Reads at most `size` bytes; `false` at the end.
    pub async fn step(&mut self, size: usize) -> io::Result<bool> {
        self.buffer.resize(size, 0);
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = patiently(self.stream.read(&mut buffer)).await?;
        self.compare(&buffer[..read])?;
        self.buffer = buffer;
        Ok(read > 0)
    }

    /// Reads to the end, which must be that of the content.
    pub async fn finish(mut self) -> io::Result<()> {
        while self.step(128 << 10).await? {}
        if self.position == self.expected.len() {
            return Ok(());
        }
        Err(io::Error::other(format!("ended after {} bytes", self.position)))
    }

    fn compare(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.position + bytes.len();
        if self.expected.get(self.position..end) != Some(bytes) {
            return Err(io::Error::other(format!("wrong bytes after {}", self.position)));
        }
        self.position = end;
        Ok(())
    }
}

async fn patiently<T>(operation: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(PATIENCE, operation).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::other("hung")),
    }
}

/// Sends `start` of a request and nothing more. How long until the server closed.
pub async fn half_open(address: SocketAddr, start: &str) -> io::Result<Duration> {
    let mut stream = TcpStream::connect(address).await?;
    let opened = Instant::now();
    stream.write_all(start.as_bytes()).await?;
    let mut buffer = [0; 1024];
    while matches!(patiently(stream.read(&mut buffer)).await, Ok(1..)) {}
    Ok(opened.elapsed())
}
