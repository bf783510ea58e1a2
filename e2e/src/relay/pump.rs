//! Carries the two directions of one connection.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{Bucket, Counters, Mode};

const CHUNK: usize = 256 << 10;
/// Chunks that are under way in one direction: 4 MiB, three times what a gigabit line with 10 ms
/// holds.
const UNDER_WAY: usize = 16;

/// What a connection needs of its line.
pub(super) struct Carry {
    pub(super) mode: watch::Receiver<Mode>,
    pub(super) latency: Duration,
    pub(super) bucket: Arc<Bucket>,
    pub(super) counters: Arc<Counters>,
}

impl Carry {
    /// Until both have said all, or one breaks.
    pub(super) async fn between(self, client: TcpStream, upstream: SocketAddr) -> io::Result<()> {
        // The handshake takes one trip there and back; the kernel has answered the client's already.
        let established = Instant::now() + 2 * self.latency;
        let upstream = TcpStream::connect(upstream).await?;
        client.set_nodelay(true)?;
        upstream.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_upstream, to_upstream) = upstream.into_split();
        let up = self.one_way(from_client, to_upstream, established, None, &self.counters.up);
        let down = self.one_way(
            from_upstream,
            to_client,
            established,
            Some(&self.bucket),
            &self.counters.down,
        );
        tokio::try_join!(up, down)?;
        Ok(())
    }

    async fn one_way(
        &self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        established: Instant,
        bucket: Option<&Bucket>,
        counter: &AtomicU64,
    ) -> io::Result<()> {
        let (enter, mut leave) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
        // Buffers come back: fresh ones would cost more than the copying.
        let (give_back, mut spare) = mpsc::channel(UNDER_WAY);
        let entering = async move {
            loop {
                let mut chunk = spare.try_recv().unwrap_or_else(|_| Vec::with_capacity(CHUNK));
                let read = from.read_buf(&mut chunk).await?;
                if read == 0 {
                    return Ok(());
                }
                if let Some(bucket) = bucket {
                    bucket.take(read).await;
                }
                let arrives = Instant::now().max(established) + self.latency;
                if enter.send((arrives, chunk)).await.is_err() {
                    return Ok(());
                }
            }
        };
        let mut mode = self.mode.clone();
        let leaving = async move {
            while let Some((arrives, mut chunk)) = leave.recv().await {
                sleep_until(arrives).await;
                // Cut from outside when the mode changes again; the sender outlives us.
                let _ = mode.wait_for(|mode| *mode != Mode::Hang).await;
                to.write_all(&chunk).await?;
                counter.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                chunk.clear();
                let _ = give_back.try_send(chunk);
            }
            to.shutdown().await
        };
        tokio::try_join!(entering, leaving)?;
        Ok(())
    }
}
