//! A listener that nobody should ever talk to.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use tokio::{io::AsyncReadExt, net::TcpListener, task::JoinHandle};

/// Accepts connections, says nothing, remembers everything.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    accept: JoinHandle<()>,
}

impl Sink {
    pub async fn start(address: Ipv4Addr) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let record = heard.clone();
        let accept = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let index = {
                    let mut heard = record.lock().unwrap();
                    heard.push(Vec::new());
                    heard.len() - 1
                };
                let record = record.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                        record.lock().unwrap()[index].extend_from_slice(&buffer[..read]);
                    }
                });
            }
        });
        Self { address, heard, accept }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What every connection so far has said.
    pub fn heard(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        heard.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.accept.abort();
    }
}
