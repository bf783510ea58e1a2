//! G12: many clients at once.

use std::{sync::Arc, time::Duration};

use larder_e2e::soak::Soak;
use tokio::{task::JoinSet, time::Instant};

use super::{
    clients::Download,
    process::Process,
    settings::{alone, ended, setting, tell},
};
use crate::{
    faulty::{ALWAYS, Fault, On, Origin},
    larder::{Larder, Upstream},
};

const APP: &str = "team/app";
const HOST: &str = "reg.test";

/// Waits for all; the distinct errors with how often each came.
async fn errors(mut clients: JoinSet<std::io::Result<()>>) -> Vec<String> {
    let mut errors = std::collections::BTreeMap::<String, usize>::new();
    while let Some(ended) = clients.join_next().await {
        if let Err(error) = ended.unwrap() {
            *errors.entry(error.to_string()).or_default() += 1;
        }
    }
    errors.into_iter().map(|(error, count)| format!("{count} x {error}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn g12_every_client_of_a_stored_blob_gets_all_its_bytes() {
    let _turn = alone().await;
    let soak = Soak::of("load-warm", 1, 1);
    let clients = setting("LARDER_LOAD_CLIENTS", 512);
    let size = usize::try_from(setting("LARDER_LOAD_MIB", 16) << 20).unwrap();
    let origin = Origin::start().await;
    let blob = origin.blob(APP, 1, size);
    let mut larder = Larder::serving([Upstream::at(HOST, &origin)]).await;
    let path = format!("/v2/{APP}/blobs/{}?ns={HOST}", blob.digest);
    let address = larder.pull_address();
    Download::start(address, &path, blob.bytes.clone()).await.unwrap().finish().await.unwrap();
    assert!(larder.store().gets(&blob.digest).await);

    let process = Process(larder.id());
    let (started, cpu) = (Instant::now(), process.cpu());
    let mut crowd = JoinSet::new();
    for _ in 0..clients {
        let (path, expected) = (path.clone(), blob.bytes.clone());
        crowd.spawn(async move { Download::start(address, &path, expected).await?.finish().await });
    }
    let errors = errors(crowd).await;
    let (elapsed, cpu) = (started.elapsed().as_secs_f64(), process.cpu_since(cpu));
    #[expect(clippy::cast_precision_loss, reason = "for display")]
    let bytes = size as f64 * clients as f64;
    tell(&format!(
        "{clients} clients of {} MiB: {elapsed:.1} s, {:.2} GB/s, server {:.2} CPU s/GiB, peak RSS {} KiB",
        size >> 20,
        bytes / elapsed / 1e9,
        cpu.as_secs_f64() / (bytes / f64::from(1 << 30)),
        process.peak_rss(),
    ));
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(origin.count("GET", "/blobs/"), 1, "{}", origin.story());
    larder.id();
    ended(soak, usize::try_from(clients).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn g12_two_hundred_and_fifty_six_clients_of_a_cold_blob_cost_one_fetch() {
    const CLIENTS: usize = 256;
    const SIZE: usize = 24 << 20;
    let _turn = alone().await;
    let soak = Soak::of("load-cold", 1, 1);
    let origin = Arc::new(Origin::start().await);
    let blob = origin.blob(APP, 2, SIZE);
    // 24 MiB in 3 s.
    let every = Duration::from_millis(30);
    origin.inject(APP, On::BlobGets, Fault::Drip { from: 0, step: 256 << 10, every }, ALWAYS);
    let mut larder = Larder::serving([Upstream::at(HOST, &origin)]).await;
    let path = format!("/v2/{APP}/blobs/{}?ns={HOST}", blob.digest);
    let address = larder.pull_address();
    let mut crowd = JoinSet::new();
    for _ in 0..CLIENTS {
        let (path, expected, origin) = (path.clone(), blob.bytes.clone(), origin.clone());
        crowd.spawn(async move {
            let download = Download::start(address, &path, expected).await?;
            // What the upstream had sent when the first byte was here.
            let sent = origin.requests("GET", "/blobs/")[0].sent();
            if sent >= SIZE as u64 {
                return Err(std::io::Error::other("the first byte came after the last"));
            }
            download.finish().await
        });
    }
    let started = Instant::now();
    assert_eq!(errors(crowd).await, Vec::<String>::new());
    assert_eq!(origin.count("GET", "/blobs/"), 1, "{}", origin.story());
    assert!(larder.store().gets(&blob.digest).await);
    tell(&format!(
        "{CLIENTS} clients of a cold blob: 1 fetch, {:.1} s, peak RSS {} KiB",
        started.elapsed().as_secs_f64(),
        Process(larder.id()).peak_rss(),
    ));
    ended(soak, CLIENTS);
}
