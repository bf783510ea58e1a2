//! G9, G15: very many malformed requests from a seeded generator.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use larder_e2e::soak::Soak;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout},
};

use self::generator::{Fate, Generator, Request};
use super::{
    process::Process,
    settings::{alone, ended, setting, tell},
};
use crate::{
    faulty::Origin,
    larder::{Larder, Upstream},
};

mod generator;
mod random;

const HOST: &str = "reg.test";
const APP: &str = "team/app";

const WORKERS: u64 = 16;
/// Requests before the first look at the memory: caches of verdicts and buffers fill once.
const WARM_UP: u64 = 3000;
/// An answer or a closed connection within this.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// KiB.
const MAX_GROWTH: u64 = 16 << 10;
/// Nobody is asked for more of an answer.
const MAX_ANSWER: usize = 64 << 10;

/// What came back.
#[derive(Debug)]
struct Outcome {
    statuses: Vec<u16>,
    hung: bool,
}

/// Sends a request and reads until the connection is closed or all answers are there.
async fn send(address: SocketAddr, request: &Request) -> Outcome {
    let mut answer = Vec::new();
    let exchange = async {
        let Ok(mut stream) = TcpStream::connect(address).await else { return };
        // Closing with a reset leaves no port in TIME_WAIT, and tests that as well.
        let _ = stream.set_zero_linger();
        // The server may refuse before it has read everything.
        let _ = stream.write_all(&request.bytes).await;
        if !request.is_whole() {
            let _ = stream.shutdown().await;
        }
        while matches!(stream.read_buf(&mut answer).await, Ok(1..)) {
            let all_there = statuses(&answer).is_some_and(|all| all.len() >= request.answers);
            if all_there || answer.len() > MAX_ANSWER {
                return;
            }
        }
    };
    let hung = timeout(MAX_WAIT, exchange).await.is_err();
    Outcome { statuses: statuses(&answer).unwrap_or_default(), hung }
}

/// The status of every head; bodies here have no such line. `None` while the last head is
/// incomplete.
fn statuses(bytes: &[u8]) -> Option<Vec<u16>> {
    // To a request of HTTP/1.0 that is what the answer is.
    let begins = |line: &[u8]| matches!(line, b"HTTP/1.1 " | b"HTTP/1.0 ");
    let starts = bytes.windows(9).enumerate().filter(|(_, line)| begins(line));
    let heads: Vec<&[u8]> = starts.map(|(at, _)| &bytes[at..]).collect();
    heads.last()?.windows(4).find(|four| *four == b"\r\n\r\n")?;
    let status = |head: &[u8]| std::str::from_utf8(head.get(9..12)?).ok()?.parse().ok();
    heads.into_iter().map(status).collect()
}

fn wrong(request: &Request, outcome: &Outcome) -> Option<String> {
    let right = !outcome.hung
        && (!outcome.statuses.is_empty() || !request.is_http())
        && outcome.statuses.iter().all(|status| match request.fate {
            Fate::Refused => (400..500).contains(status),
            // Some mutations mean nothing, and pipelines begin well.
            Fate::Anything => (200..500).contains(status),
        });
    let shown: String = request.bytes.escape_ascii().to_string().chars().take(200).collect();
    let length = request.bytes.len();
    (!right).then(|| format!("{}: {outcome:?} for {length} bytes: {shown}", request.kind))
}

/// Sends so many requests of each worker's own kind of chance.
async fn flood(address: SocketAddr, seed: u64, count: u64, blob: &str) -> (Vec<String>, Duration) {
    let left = Arc::new(AtomicU64::new(count));
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let left = left.clone();
        let mut generator = Generator::new(seed * 1_000_003 + worker, blob);
        workers.spawn(async move {
            let (mut found, mut longest) = (Vec::new(), Duration::ZERO);
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok()
            {
                let request = generator.next();
                let started = Instant::now();
                let outcome = send(address, &request).await;
                longest = longest.max(started.elapsed());
                if found.len() < 5 {
                    found.extend(wrong(&request, &outcome));
                }
            }
            (found, longest)
        });
    }
    let (mut found, mut longest) = (Vec::new(), Duration::ZERO);
    while let Some(ended) = workers.join_next().await {
        let (wrong, time) = ended.unwrap();
        found.extend(wrong);
        longest = longest.max(time);
    }
    (found, longest)
}

#[tokio::test(flavor = "multi_thread")]
async fn g09_g15_malformed_requests_are_refused_and_leave_nothing_behind() {
    let _turn = alone().await;
    let soak = Soak::of("load-malformed", 1, 1);
    let count = setting("LARDER_LOAD_REQUESTS", 50_000);
    let seed = setting("LARDER_LOAD_SEED", 1);
    let origin = Origin::start().await;
    let image = origin.image(APP, "v1", 1, 4000);
    let mut larder = Larder::serving([Upstream::at(HOST, &origin)]).await;
    let path = format!("/v2/{APP}/blobs/{}?ns={HOST}", image.layer.digest);
    larder.get(&path).send().await.is_whole(&image.layer.bytes);
    let (address, process) = (larder.pull_address(), Process(larder.id()));

    let (mut found, _) = flood(address, seed ^ 0x5eed, WARM_UP, &image.layer.digest).await;
    let (before, started) = (process.rss(), Instant::now());
    let (more, longest) = flood(address, seed, count, &image.layer.digest).await;
    found.extend(more);
    let (after, elapsed) = (process.rss(), started.elapsed());
    let series = larder.metrics().await.len();
    tell(&format!(
        "{count} malformed requests (seed {seed}): {:.1} s, the longest {:.2} s, RSS {before} -> {after} KiB, \
         {series} series, {} requests reached the upstream",
        elapsed.as_secs_f64(),
        longest.as_secs_f64(),
        origin.seen().len(),
    ));
    larder.id();
    assert!(found.is_empty(), "{} wrong, among them:\n{}", found.len(), found.join("\n"));
    assert_eq!(larder.log().lines_with("panicked"), Vec::<String>::new());
    assert!(after.saturating_sub(before) <= MAX_GROWTH, "RSS {before} -> {after} KiB");
    assert!(series <= 150 + 25, "{series} series");
    larder.get(&path).send().await.is_whole(&image.layer.bytes);
    ended(soak, usize::try_from(count).unwrap());
}
