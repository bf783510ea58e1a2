//! A faulty upstream registry on real sockets.
//!
//! An [`Origin`] serves generated content over hand-written HTTP/1.1, so that everything that can
//! happen on a wire can be made to happen: per repository, for some kinds of requests, for the
//! first so many or for ever, switchable at run time. It remembers every request.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};

mod content;
mod fault;
mod reply;
mod request;
mod serve;
mod sink;
mod wire;

pub use content::{Blob, Door, Image, Manifest, OCI_INDEX, OCI_MANIFEST, Repository, seed, sha512};
pub use fault::{ALWAYS, Fault, On, TOKENS};
pub use request::Seen;
pub use serve::{ANONYMOUS_TOKEN, ROBOT_TOKEN};
pub use sink::Sink;

/// User name and password that open every closed door.
pub const CREDENTIALS: &str = "robot:s3cret";

/// A registry of our own.
#[derive(Debug)]
pub struct Origin {
    shared: Arc<Shared>,
    accept: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    repositories: HashMap<String, Repository>,
    faults: fault::Faults,
    seen: Vec<Seen>,
    connections: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Origin {
    /// A registry on 127.0.0.1 without content.
    pub async fn start() -> Self {
        Self::at(Ipv4Addr::LOCALHOST).await
    }

    /// A registry on one of the addresses of 127.0.0.0/8.
    pub async fn at(address: Ipv4Addr) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { address, state: Mutex::default() });
        let accept = tokio::spawn(accept(listener, shared.clone()));
        Self { shared, accept: Mutex::new(Some(accept)) }
    }

    /// Another registry with the same content, as a CDN or a second endpoint has it.
    pub async fn twin(&self, address: Ipv4Addr) -> Self {
        let twin = Self::at(address).await;
        let mut repositories = self.shared.lock().repositories.clone();
        for repository in repositories.values_mut() {
            repository.door = Door::Open;
        }
        twin.shared.lock().repositories = repositories;
        twin
    }

    /// Closes the port and every connection.
    pub async fn stop(&self) {
        let accept = self.accept.lock().unwrap().take();
        if let Some(accept) = accept {
            accept.abort();
            let _ = accept.await;
        }
    }

    /// Opens the same port again.
    pub async fn restart(&self) {
        self.stop().await;
        let listener = TcpListener::bind(self.shared.address).await.unwrap();
        let accept = tokio::spawn(accept(listener, self.shared.clone()));
        *self.accept.lock().unwrap() = Some(accept);
    }

    pub fn url(&self) -> String {
        self.shared.url()
    }

    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// The token endpoint of this origin.
    pub fn realm(&self) -> String {
        format!("{}/token", self.url())
    }

    pub fn edit(&self, repository: &str, change: impl FnOnce(&mut Repository)) {
        change(self.shared.lock().repositories.entry(repository.to_owned()).or_default());
    }

    /// Generates an image and puts it under a tag.
    pub fn image(&self, repository: &str, tag: &str, seed: u64, layer_size: usize) -> Image {
        let image = Image::generate(seed, layer_size);
        self.edit(repository, |repository| repository.put_image(tag, &image));
        image
    }

    /// Puts a blob of noise into a repository.
    pub fn blob(&self, repository: &str, seed: u64, size: usize) -> Blob {
        let blob = Blob::noise(seed, size);
        self.edit(repository, |repository| repository.put_blob(&blob.bytes));
        blob
    }

    pub fn close_door(&self, repository: &str, door: Door) {
        self.edit(repository, |repository| repository.door = door);
    }

    /// Makes the next `times` requests that match go wrong.
    pub fn inject(&self, repository: &str, on: On, fault: Fault, times: usize) {
        self.shared.lock().faults.inject(repository, on, fault, times);
    }

    /// Takes all faults of a repository away.
    pub fn heal(&self, repository: &str) {
        self.shared.lock().faults.heal(repository);
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.lock().seen.clone()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.shared.lock().seen.clear();
    }

    /// The requests with this method whose path contains `part`.
    pub fn requests(&self, method: &str, part: &str) -> Vec<Seen> {
        let mut seen = self.seen();
        seen.retain(|seen| seen.method == method && seen.path.contains(part));
        seen
    }

    pub fn count(&self, method: &str, part: &str) -> usize {
        self.requests(method, part).len()
    }

    /// How many connections were opened so far.
    pub fn connections(&self) -> u64 {
        self.shared.lock().connections
    }

    /// What arrived, one request a line.
    pub fn story(&self) -> String {
        let lines: Vec<_> = self.seen().iter().map(|seen| format!("    {}", seen.line())).collect();
        lines.join("\n")
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Some(accept) = self.accept.lock().ok().and_then(|mut accept| accept.take()) {
            accept.abort();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, and with it every connection.
    let mut open = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let id = {
            let mut state = shared.lock();
            state.connections += 1;
            state.connections
        };
        let shared = shared.clone();
        open.spawn(async move {
            // The other side may go at any time.
            let _ = serve::connection(stream, id, shared).await;
        });
    }
}
