//! A server that answers with what a test says, and remembers what it was asked.

use std::{
    collections::HashMap,
    fmt::Write,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// One request as it came in.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) target: String,
    headers: HashMap<String, String>,
}

impl Seen {
    /// The value of a header, empty if it is missing.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What to do with a request.
pub(super) enum Reply {
    /// Status, headers and body.
    Answer(u16, Vec<(String, String)>, String),
    /// Bytes as they are; the connection is closed after them.
    Raw(String),
    /// Nothing, for ever.
    Hang,
    /// Close without an answer.
    Cut,
}

pub(super) fn status(code: u16) -> Reply {
    Reply::Answer(code, Vec::new(), String::new())
}

pub(super) fn ok(body: &str) -> Reply {
    Reply::Answer(200, Vec::new(), body.to_owned())
}

pub(super) fn redirect(location: &str) -> Reply {
    status(307).with("location", location)
}

impl Reply {
    /// Adds a header.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        if let Self::Answer(_, headers, _) = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }
}

pub(super) struct Fake {
    address: SocketAddr,
    scheme: &'static str,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Targets of the requests so far.
    pub(super) fn targets(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.target).collect()
    }

    /// Connections that were accepted, whether or not anything came over them.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

pub(super) async fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Fake {
    start_on("127.0.0.1", None, answer).await
}

pub(super) async fn start_on(
    ip: &str,
    tls: Option<TlsAcceptor>,
    answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
) -> Fake {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let connections = Arc::new(AtomicUsize::new(0));
    let answer = Arc::new(answer);
    let (log, count) = (seen.clone(), connections.clone());
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let (log, answer, tls) = (log.clone(), answer.clone(), tls.clone());
            tokio::spawn(async move {
                match tls {
                    None => serve(stream, &log, &*answer).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(stream, &log, &*answer).await;
                        }
                    }
                }
            });
        }
    });
    Fake { address, scheme, seen, connections, task }
}

/// Answers requests on one connection until the peer is done or a reply ends it.
async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    log: &Mutex<Vec<Seen>>,
    answer: &(impl Fn(&Seen) -> Reply + Sync),
) {
    let mut buffer = Vec::new();
    loop {
        while !buffer.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => buffer.push(byte),
                Err(_) => return,
            }
        }
        let request = parse(&String::from_utf8(std::mem::take(&mut buffer)).unwrap());
        log.lock().unwrap().push(request.clone());
        match answer(&request) {
            Reply::Answer(code, headers, body) => {
                let mut head = format!("HTTP/1.1 {code} X\r\nContent-Length: {}\r\n", body.len());
                for (name, value) in headers {
                    let _ = write!(head, "{name}: {value}\r\n");
                }
                let body = if request.method == "HEAD" { "" } else { &body };
                let _ = stream.write_all(format!("{head}\r\n{body}").as_bytes()).await;
            }
            Reply::Raw(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.shutdown().await;
                return;
            }
            Reply::Hang => tokio::time::sleep(Duration::from_mins(1)).await,
            Reply::Cut => return,
        }
    }
}

fn parse(head: &str) -> Seen {
    let mut lines = head.lines();
    let mut first = lines.next().unwrap().split(' ');
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    Seen {
        method: first.next().unwrap().to_owned(),
        target: first.next().unwrap().to_owned(),
        headers: headers.collect(),
    }
}
