//! A small HTTP/1.1 client that hides nothing.

use std::{fmt::Write as _, io, net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{Answer, End};

/// More than any bound of the server; an answer that takes longer is [`End::Hung`].
const PATIENCE: Duration = Duration::from_mins(1);

/// A request in the making.
#[derive(Clone, Debug)]
pub struct Call {
    address: SocketAddr,
    head: String,
    raw: Option<Vec<u8>>,
    is_head: bool,
}

impl Call {
    pub fn new(address: SocketAddr, method: &str, path: &str) -> Self {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n");
        Self { address, head, raw: None, is_head: method == "HEAD" }
    }

    pub(super) fn raw(address: SocketAddr, bytes: &[u8]) -> Self {
        let is_head = bytes.starts_with(b"HEAD ");
        Self { address, head: String::new(), raw: Some(bytes.to_owned()), is_head }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        let _ = write!(self.head, "{name}: {value}\r\n");
        self
    }

    pub fn range(self, range: &str) -> Self {
        self.header("Range", range)
    }

    /// Sends the request and reads the answer to its end.
    pub async fn send(self) -> Answer {
        self.open().await.finish().await
    }

    /// Sends the request and reads the head of the answer.
    pub async fn open(self) -> Reading {
        let mut reading = Reading::new(self.is_head);
        let bytes = self.raw.unwrap_or_else(|| format!("{}\r\n", self.head).into_bytes());
        let opening = async {
            let mut stream = TcpStream::connect(self.address).await.map_err(|_| End::Refused)?;
            // The server may refuse and close before it has read everything.
            let _ = stream.write_all(&bytes).await;
            reading.stream = Some(stream);
            reading.read_head().await
        };
        let opened = timeout(PATIENCE, opening).await.unwrap_or(Err(End::Hung));
        if let Err(end) = opened {
            reading.end = Some(end);
        }
        reading
    }
}

/// How the body's end is told.
#[derive(Clone, Copy, Debug)]
enum Framing {
    Length(usize),
    Chunked,
    Close,
}

/// An answer that is being read.
#[derive(Debug)]
pub struct Reading {
    stream: Option<TcpStream>,
    is_head: bool,
    answer: Answer,
    raw: BytesMut,
    body: BytesMut,
    framing: Framing,
    end: Option<End>,
    started: Instant,
    last_byte: Instant,
}

impl Reading {
    fn new(is_head: bool) -> Self {
        let answer = Answer {
            status: 0,
            headers: Vec::new(),
            body: Bytes::new(),
            end: End::Hung,
            head_after: Duration::ZERO,
            first_byte: None,
            longest_gap: Duration::ZERO,
            elapsed: Duration::ZERO,
        };
        Self {
            stream: None,
            is_head,
            answer,
            raw: BytesMut::new(),
            body: BytesMut::new(),
            framing: Framing::Close,
            end: None,
            started: Instant::now(),
            last_byte: Instant::now(),
        }
    }

    pub fn status(&self) -> u16 {
        self.answer.status
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.answer.header(name)
    }

    /// The body so far.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Reads until at least `length` bytes of the body are there; `false` if it ended before.
    pub async fn reach(&mut self, length: usize) -> bool {
        let reaching = async {
            while self.body.len() < length && self.end.is_none() {
                self.more().await;
            }
        };
        let _ = timeout(PATIENCE, reaching).await;
        self.body.len() >= length
    }

    /// Reads to the end.
    pub async fn finish(mut self) -> Answer {
        let finishing = async {
            while self.end.is_none() {
                self.more().await;
            }
        };
        let _ = timeout(PATIENCE, finishing).await;
        self.answer.end = self.end.unwrap_or(End::Hung);
        if self.answer.end != End::Complete {
            // The silence before the end counts too.
            self.answer.longest_gap = self.answer.longest_gap.max(self.last_byte.elapsed());
        }
        self.answer.elapsed = self.started.elapsed();
        self.answer.body = self.body.freeze();
        self.answer
    }

    async fn read(&mut self) -> Result<(), End> {
        let Some(stream) = &mut self.stream else {
            return Err(End::Refused);
        };
        self.raw.reserve(128 << 10);
        match stream.read_buf(&mut self.raw).await {
            Ok(0) => Err(End::Fin),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(End::Reset),
            Err(_) => Err(End::Fin),
        }
    }

    async fn read_head(&mut self) -> Result<(), End> {
        let end = loop {
            if let Some(end) = self.raw.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end;
            }
            self.read().await?;
        };
        self.answer.head_after = self.started.elapsed();
        self.last_byte = Instant::now();
        let head = self.raw.split_to(end + 4);
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        self.answer.status = status.and_then(|status| status.parse().ok()).unwrap_or(0);
        self.answer.headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let length = self.header("content-length").and_then(|text| text.parse().ok());
        let chunked = self.header("transfer-encoding").is_some();
        self.framing = match length {
            _ if self.is_head || matches!(self.status(), 204 | 304) => Framing::Length(0),
            _ if chunked => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => Framing::Close,
        };
        self.take_body();
        Ok(())
    }

    async fn more(&mut self) {
        match self.read().await {
            Ok(()) => self.take_body(),
            Err(End::Fin) if matches!(self.framing, Framing::Close) && self.answer.status > 0 => {
                self.end = Some(End::Complete);
            }
            Err(end) => self.end = Some(end),
        }
    }

    /// Moves what is body from the raw bytes to the body.
    fn take_body(&mut self) {
        let before = self.body.len();
        match self.framing {
            Framing::Close => self.body.unsplit(self.raw.split()),
            Framing::Length(length) => {
                let missing = length - self.body.len();
                let here = self.raw.split_to(missing.min(self.raw.len()));
                self.body.extend_from_slice(&here);
                if self.body.len() == length {
                    self.end = Some(End::Complete);
                }
            }
            Framing::Chunked => self.take_chunks(),
        }
        if self.body.len() > before || self.end.is_some() {
            let gap = self.last_byte.elapsed();
            self.answer.longest_gap = self.answer.longest_gap.max(gap);
            self.last_byte = Instant::now();
            if self.body.len() > before {
                self.answer.first_byte.get_or_insert(self.started.elapsed());
            }
        }
    }

    fn take_chunks(&mut self) {
        while let Some(line) = self.raw.windows(2).position(|bytes| bytes == b"\r\n") {
            let size = std::str::from_utf8(&self.raw[..line]).unwrap_or_default();
            let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
            let whole = line + 2 + size + 2;
            if self.raw.len() < whole {
                return;
            }
            let chunk = self.raw.split_to(whole);
            self.body.extend_from_slice(&chunk[line + 2..line + 2 + size]);
            if size == 0 {
                self.end = Some(End::Complete);
                return;
            }
        }
    }
}
