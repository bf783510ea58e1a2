//! G13, G14: slow and half-open clients, and a server in a memory cgroup of 128 MiB.

use std::{net::SocketAddr, time::Duration};

use larder_e2e::soak::Soak;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    cgroup::MemoryCgroup,
    clients::{Download, half_open},
    process::Process,
    settings::{alone, ended, setting, tell},
};
use crate::{
    faulty::{ALWAYS, Blob, Fault, On, Origin},
    larder::{Larder, NodeConfig, Upstream},
};

const HOST: &str = "reg.test";
const APP: &str = "team/app";
/// A repository whose blob takes as long as the test.
const SLOW: &str = "team/slow";

const LIMIT: u64 = 128 << 20;
const MAX_RSS: u64 = 96 << 10;
const STREAMS: usize = 256;
const HALF_OPEN: usize = 2000;
/// The promise; the server's own bound is 9 s.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

/// Nothing, half a request line, half the headers.
const HALVES: [&str; 3] =
    ["", "GET /v2/team/ap", "GET /v2/ HTTP/1.1\r\nHost: larder\r\nX-A: b\r\n"];

fn path(repository: &str, blob: &Blob) -> String {
    format!("/v2/{repository}/blobs/{}?ns={HOST}", blob.digest)
}

/// Reads 4 KiB a second.
async fn slowly(
    address: SocketAddr,
    path: String,
    blob: Blob,
    until: Instant,
) -> Result<(), String> {
    let told = |error: std::io::Error| format!("slow: {error}");
    let mut download = Download::start(address, &path, blob.bytes).await.map_err(told)?;
    while Instant::now() < until {
        download.step(4 << 10).await.map_err(told)?;
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Half-opens connections, one after the other, each `wait` after the one before was closed. The
/// longest that one stayed.
async fn half_opens(
    address: SocketAddr,
    half: &'static str,
    wait: Duration,
    until: Instant,
) -> Result<Duration, String> {
    let mut longest = Duration::ZERO;
    loop {
        sleep(wait).await;
        let stayed =
            half_open(address, half).await.map_err(|error| format!("half open: {error}"))?;
        longest = longest.max(stayed);
        if Instant::now() >= until {
            return Ok(longest);
        }
    }
}

/// Pulls every 50 ms; the times to the first byte, sorted.
async fn pulls(address: SocketAddr, path: &str, blob: &Blob, until: Instant) -> Vec<Duration> {
    let mut times = Vec::new();
    while Instant::now() < until {
        let started = Instant::now();
        let pulled = Download::start(address, path, blob.bytes.clone()).await;
        let pulled = pulled.expect("a pull beside slow clients");
        times.push(started.elapsed());
        pulled.finish().await.expect("a pull beside slow clients");
        sleep(Duration::from_millis(50)).await;
    }
    times.sort();
    times
}

fn p99(sorted: &[Duration]) -> Duration {
    sorted[(sorted.len() * 99 / 100).min(sorted.len() - 1)]
}

/// What a crowd of slow and half-open clients cost.
#[derive(Debug)]
struct Cost {
    /// KiB.
    peak_rss: u64,
    /// The longest that a half-open connection stayed.
    half_open: Duration,
    /// The 99th percentile of the time to the first byte of other clients.
    beside: Duration,
}

impl Cost {
    /// Which promises are broken.
    fn broken(&self) -> Vec<String> {
        let Self { peak_rss, half_open, beside } = self;
        [
            (*half_open > CLOSED_WITHIN, format!("a half-open connection stayed {half_open:?}")),
            (*peak_rss > MAX_RSS, format!("peak RSS {peak_rss} KiB")),
            (*beside >= Duration::from_millis(500), format!("pulls wait {beside:?}")),
        ]
        .into_iter()
        .filter_map(|(broken, how)| broken.then_some(how))
        .collect()
    }
}

/// A machine that does something else for a second breaks a promise that is measured in seconds. It
/// does not do so twice; a server that is too slow does.
#[tokio::test(flavor = "multi_thread")]
async fn g13_g14_slow_and_half_open_clients_fit_into_128_mib_and_disturb_nobody() {
    let _turn = alone().await;
    let soak = Soak::of("load-slow", 1, 1);
    let first = slow_and_half_open().await.broken();
    if !first.is_empty() {
        tell(&format!("once more, because {}", first.join(" and ")));
        let second = slow_and_half_open().await.broken();
        assert!(second.is_empty(), "twice: {first:?}, then {second:?}");
    }
    ended(soak, STREAMS + HALF_OPEN);
}

async fn slow_and_half_open() -> Cost {
    let seconds = setting("LARDER_LOAD_SECONDS", 12);
    let origin = Origin::start().await;
    let (small, large) = (origin.blob(APP, 1, 1 << 20), origin.blob(APP, 2, 64 << 20));
    let growing = origin.blob(SLOW, 3, 64 << 20);
    let every = Duration::from_millis(seconds * 1000 / 256);
    origin.inject(SLOW, On::BlobGets, Fault::Drip { from: 0, step: 256 << 10, every }, ALWAYS);

    // Declared before the server, so that it is removed after it.
    let group = MemoryCgroup::with_limit(LIMIT);
    let launcher = group.launcher();
    let config = NodeConfig::new([Upstream::at(HOST, &origin)]);
    let mut larder = Larder::stopped(&config).through(&launcher.each_ref().map(String::as_str));
    // What a container with this limit should set: one pool of freed memory, not one a thread. Saves
    // 6 MiB here and costs nothing measurable.
    larder.set("MALLOC_ARENA_MAX", "1");
    larder.start().await;
    let (address, process) = (larder.pull_address(), Process(larder.id()));
    for blob in [&small, &large] {
        let download = Download::start(address, &path(APP, blob), blob.bytes.clone()).await;
        download.unwrap().finish().await.unwrap();
        assert!(larder.store().gets(&blob.digest).await);
    }
    let idle = process.rss();
    let small_path = path(APP, &small);
    let quiet = pulls(address, &small_path, &small, Instant::now() + Duration::from_secs(1)).await;

    let until = Instant::now() + Duration::from_secs(seconds);
    let mut slow = JoinSet::new();
    for index in 0..STREAMS {
        let (path, blob) = if index % 4 == 0 {
            (path(SLOW, &growing), &growing)
        } else {
            (path(APP, &large), &large)
        };
        slow.spawn(slowly(address, path, blob.clone(), until));
    }
    let mut halves = JoinSet::new();
    for index in 0..HALF_OPEN {
        // Spread over a second: what finds the kernel's queue full is never seen by the server, and
        // who then says nothing is never told.
        let wait = Duration::from_micros(500 * index as u64);
        halves.spawn(half_opens(address, HALVES[index % HALVES.len()], wait, until));
    }
    let watch = async {
        let (mut rss, mut sockets, mut usage, mut threads) = (0, 0, 0, 0);
        while Instant::now() < until {
            larder.id();
            rss = process.rss().max(rss);
            sockets = group.sockets().max(sockets);
            usage = group.usage().max(usage);
            threads = process.threads().max(threads);
            sleep(Duration::from_millis(200)).await;
        }
        (rss, sockets, usage, threads)
    };
    let beside = pulls(address, &small_path, &small, until);
    let ((rss, sockets, usage, threads), beside) = tokio::join!(watch, beside);
    sleep_until(until).await;
    let mut longest = Duration::ZERO;
    while let Some(ended) = halves.join_next().await {
        longest = longest.max(ended.unwrap().expect("half-open connections are taken"));
    }
    while let Some(ended) = slow.join_next().await {
        ended.unwrap().expect("slow clients get their bytes");
    }

    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    tell(&format!(
        "{STREAMS} slow + {HALF_OPEN} half-open for {seconds} s: RSS {idle} -> {rss} KiB (peak {}), {threads} threads, \
         cgroup {} KiB, sockets {} KiB; half-open closed after {:.1} s at most; \
         pulls p99 {:.1} ms quiet, {:.1} ms beside ({} pulls)",
        process.peak_rss(),
        usage >> 10,
        sockets >> 10,
        longest.as_secs_f64(),
        ms(p99(&quiet)),
        ms(p99(&beside)),
        beside.len(),
    ));
    larder.id();
    assert_eq!(group.oom_kills(), 0);
    let peak_rss = process.peak_rss();
    larder.kill().await;
    Cost { peak_rss, half_open: longest, beside: p99(&beside) }
}
