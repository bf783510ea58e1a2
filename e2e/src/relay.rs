//! The line to an upstream: a TCP relay with the rate and the delay of a real one, which counts
//! what it carries and can be broken in the ways that lines and registries break.
//!
//! It runs on a thread of its own, so that what it measures does not wait for the story.

mod bucket;
mod pump;
#[cfg(test)]
mod tests;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use bucket::Bucket;
use pump::Carry;

/// What the line is like while it works.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bytes per second towards the clients, all connections together.
    pub rate: u64,
    /// One way.
    pub latency: Duration,
}

impl Shape {
    /// 1 Gbit/s and 20 ms there and back: a registry on the same continent.
    pub const GIGABIT: Self = Self { rate: 125_000_000, latency: Duration::from_millis(10) };

    /// As fast as loopback.
    pub const LOOPBACK: Self = Self { rate: u64::MAX, latency: Duration::ZERO };
}

/// Whether the line works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It carries.
    Open,
    /// Nobody listens, and every connection is cut.
    Refuse,
    /// It accepts, and nothing ever comes back; the same on connections that were open.
    Hang,
    /// Every request is answered 503.
    Unavailable,
}

/// What a line has carried since it was laid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Bytes from the upstream to clients.
    pub down: u64,
    /// Bytes from clients to the upstream.
    pub up: u64,
    /// Connections accepted, in any mode.
    pub connections: u64,
}

#[derive(Default)]
struct Counters {
    down: AtomicU64,
    up: AtomicU64,
    connections: AtomicU64,
}

type Switch = (Mode, oneshot::Sender<Result<()>>);

/// A line to one upstream. Dropping it cuts it.
pub struct Relay {
    address: SocketAddr,
    counters: Arc<Counters>,
    switches: Option<mpsc::Sender<Switch>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Lays a line to `upstream`, which begins at a free port.
    pub async fn start(upstream: SocketAddr, shape: Shape) -> Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), upstream, shape).await
    }

    /// Lays a line to `upstream` which begins at `address`.
    pub async fn start_at(address: SocketAddr, upstream: SocketAddr, shape: Shape) -> Result<Self> {
        let counters = Arc::new(Counters::default());
        let (switches, orders) = mpsc::channel(1);
        let (ready, bound) = oneshot::channel();
        let line = Line {
            address,
            upstream,
            shape,
            counters: Arc::clone(&counters),
            bucket: Arc::new(Bucket::new(shape.rate)),
        };
        let thread = thread::Builder::new().name("relay".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(line.serve(ready, orders)),
                Err(error) => drop(ready.send(Err(error.into()))),
            }
        })?;
        let address = bound.await.context("the relay's thread ended")??;
        Ok(Self { address, counters, switches: Some(switches), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks or mends it. In force when this returns; what was under way in the old mode is cut,
    /// except that open connections hang with [`Mode::Hang`].
    pub async fn set(&self, mode: Mode) -> Result<()> {
        let (done, answer) = oneshot::channel();
        let switches = self.switches.as_ref().context("the relay runs until it is dropped")?;
        switches.send((mode, done)).await.map_err(|_| anyhow!("the relay's thread ended"))?;
        answer.await.context("the relay's thread ended")?
    }

    /// What it has carried so far.
    pub fn carried(&self) -> Carried {
        Carried {
            down: self.counters.down.load(Ordering::Relaxed),
            up: self.counters.up.load(Ordering::Relaxed),
            connections: self.counters.connections.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.switches = None;
        if let Some(thread) = self.thread.take() {
            // A panic of it has been printed.
            let _ = thread.join();
        }
    }
}

struct Line {
    address: SocketAddr,
    upstream: SocketAddr,
    shape: Shape,
    counters: Arc<Counters>,
    bucket: Arc<Bucket>,
}

impl Line {
    /// Runs until the other end of `orders` is dropped.
    async fn serve(
        self,
        ready: oneshot::Sender<Result<SocketAddr>>,
        mut orders: mpsc::Receiver<Switch>,
    ) {
        let bound = async {
            let listener = TcpListener::bind(self.address).await?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (mut listener, address) = match bound.await {
            Ok((listener, address)) => (Some(listener), address),
            Err(error) => return drop(ready.send(Err(error))),
        };
        drop(ready.send(Ok(address)));

        let (mode, _) = watch::channel(Mode::Open);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                order = orders.recv() => {
                    let Some((wanted, done)) = order else { return };
                    if wanted != Mode::Hang {
                        connections.shutdown().await;
                    }
                    if wanted == Mode::Refuse {
                        listener = None;
                    }
                    mode.send_replace(wanted);
                    let listening = match (wanted, &listener) {
                        (Mode::Open | Mode::Hang | Mode::Unavailable, None) => {
                            TcpListener::bind(address).await.map(|bound| listener = Some(bound))
                        }
                        _ => Ok(()),
                    };
                    drop(done.send(listening.context("listening again")));
                }
                Some(client) = accept(listener.as_ref()) => {
                    self.counters.connections.fetch_add(1, Ordering::Relaxed);
                    let carry = self.carry(mode.subscribe());
                    let upstream = self.upstream;
                    let current = *mode.borrow();
                    connections.spawn(async move {
                        // How a connection ends is its two ends' affair.
                        let _ = match current {
                            Mode::Open => carry.between(client, upstream).await,
                            Mode::Hang => hang(client).await,
                            Mode::Unavailable => refuse_requests(client).await,
                            Mode::Refuse => Ok(()),
                        };
                    });
                }
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
            }
        }
    }

    fn carry(&self, mode: watch::Receiver<Mode>) -> Carry {
        Carry {
            mode,
            latency: self.shape.latency,
            bucket: Arc::clone(&self.bucket),
            counters: Arc::clone(&self.counters),
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> Option<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.ok().map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

/// Keeps the connection until it is cut from outside.
async fn hang(_client: TcpStream) -> std::io::Result<()> {
    std::future::pending().await
}

const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

/// Answers each request head with 503.
async fn refuse_requests(mut client: TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    loop {
        if client.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
        while let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            head.drain(..end + 4);
            client.write_all(REFUSAL).await?;
        }
    }
}
