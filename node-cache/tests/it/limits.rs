//! What the server does at the bounds of its store, and what it knows after a restart.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use larder_e2e::{
    disk::{Disk, Format},
    soak::Soak,
};
use serde_json::Value;

use crate::{
    faulty::{ALWAYS, Blob, Fault, On, Origin},
    larder::{Larder, NodeConfig, Upstream, eventually},
};

const HOST: &str = "reg.test";
const APP: &str = "team/app";
const MIB: usize = 1 << 20;

fn path(blob: &Blob) -> String {
    format!("/v2/{APP}/blobs/{}?ns={HOST}", blob.digest)
}

async fn small_store(origin: &Origin, capacity: &str) -> Larder {
    let config = NodeConfig::new([Upstream::at(HOST, origin)]).capacity(capacity);
    Larder::with(config).await
}

async fn report(larder: &Larder) -> Value {
    serde_json::from_str(&larder.admin("/report").send().await.text()).unwrap()
}

/// What the file system has given out, at one instant. Adding up files while they are renamed and
/// removed would count some twice.
fn allocated_on(root: &Path) -> u64 {
    let disk = rustix::fs::statvfs(root).unwrap();
    (disk.f_blocks - disk.f_bfree) * disk.f_frsize
}

#[tokio::test(flavor = "multi_thread")]
async fn f04_what_does_not_fit_is_passed_through_whole_and_in_ranges() {
    let origin = Origin::start().await;
    let large = origin.blob(APP, 71, 70 * MIB);
    let small = origin.blob(APP, 72, MIB);
    let larder = small_store(&origin, "64Mi").await;

    larder.get(&path(&large)).send().await.is_whole(&large.bytes);
    assert!(!larder.store().has(&large.digest));
    let from = 69 * MIB;
    let answer = larder.get(&path(&large)).range(&format!("bytes={from}-")).send().await;
    assert_eq!(answer.status, 206, "{}", answer.line());
    assert_eq!(answer.body, large.bytes[from..]);
    let answer = larder.get(&path(&large)).range("bytes=-1000").send().await;
    assert_eq!((answer.status, &answer.body[..]), (206, &large.bytes[70 * MIB - 1000..]));
    let answer = larder.get(&path(&large)).range("bytes=99999999999-").send().await;
    assert_eq!(answer.status, 416, "{}", answer.line());
    assert!(larder.metrics().await.requests(HOST, "pass_through") >= 3.0);
    assert_eq!(report(&larder).await["store"]["state"], "Full");

    larder.get(&path(&small)).send().await.is_whole(&small.bytes);
    assert!(larder.store().gets(&small.digest).await, "what fits is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_passed_through_is_resumed_and_verified_like_everything_else() {
    let origin = Origin::start().await;
    let large = origin.blob(APP, 73, 70 * MIB);
    let larder = small_store(&origin, "64Mi").await;
    // The download that finds out, then the connection of the body itself, breaks.
    origin.inject(APP, On::BlobGets, Fault::FinAt(30 * MIB), 2);
    larder.get(&path(&large)).send().await.is_whole(&large.bytes);

    origin.inject(APP, On::BlobGets, Fault::FlipAt(60 * MIB), ALWAYS);
    let answer = larder.get(&path(&large)).send().await;
    assert_ne!(answer.body, large.bytes, "the fault did not bite");
    assert!(answer.body.len() < large.bytes.len(), "a whole body with wrong bytes has left");
}

#[tokio::test(flavor = "multi_thread")]
async fn g16_the_store_stays_within_its_capacity_while_pulls_push_each_other_out() {
    // Each takes more than the minute for which nothing is given up.
    let mut soak = Soak::of("capacity", 1, 5);
    for seed in soak.seeds() {
        evict_once(seed).await;
        soak.note(seed, Ok(()));
    }
    soak.end().unwrap();
}

async fn evict_once(seed: u64) {
    let origin = Origin::start().await;
    let capacity = 64 * MIB as u64;
    let first: Vec<_> = (0..5).map(|n| origin.blob(APP, 100 * seed + n, 10 * MIB)).collect();
    let second: Vec<_> = (0..8).map(|n| origin.blob(APP, 100 * seed + 10 + n, 6 * MIB)).collect();
    let config = NodeConfig::new([Upstream::at(HOST, &origin)]).capacity("64Mi");
    let mut larder = Larder::stopped(&config);
    let media = tempfile::Builder::new().prefix("larder-it-").tempdir().unwrap();
    let store = larder.folder().join("store");
    let disk = Disk::mounted(Format::Ext4(192), media.path(), &store).await.unwrap();
    larder.on(disk.mounts());
    let root = disk.root();
    let empty = allocated_on(&root);
    larder.start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let worst = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let mut worst = 0;
            while !stop.load(Ordering::Relaxed) {
                worst = worst.max(allocated_on(&root) - empty);
                std::thread::sleep(Duration::from_millis(10));
            }
            worst
        }
    });
    for blob in &first {
        larder.get(&path(blob)).send().await.is_whole(&blob.bytes);
        assert!(larder.store().gets(&blob.digest).await);
    }
    // Nothing that was read within the last minute is given up: these are passed through.
    let answer = larder.get(&path(&second[0])).send().await;
    answer.is_whole(&second[0].bytes);
    for blob in &first {
        assert!(larder.store().has(&blob.digest), "given up within a minute");
    }
    tokio::time::sleep(Duration::from_secs(61)).await;
    let answers = join_all(second.iter().map(|blob| larder.get(&path(blob)).send())).await;
    for (answer, blob) in answers.iter().zip(&second) {
        answer.is_whole(&blob.bytes);
    }
    for blob in &second {
        assert!(larder.store().gets(&blob.digest).await, "it fits when the old ones go");
    }
    stop.store(true, Ordering::Relaxed);
    let worst = worst.join().unwrap();
    assert!(worst <= capacity, "{} bytes over", worst - capacity);
    assert!(worst > capacity / 2, "the samples saw nothing: {worst}");
    assert!(larder.metrics().await.sum("larder_node_evicted_total", &[]) >= 4.0);
    larder.kill().await;
    disk.removed().await.unwrap();
}

#[tokio::test]
async fn after_a_restart_blobs_are_trusted_and_pulls_are_remembered() {
    let origin = Origin::start().await;
    let image = origin.image(APP, "v1", 74, 2 * MIB);
    let mut larder = Larder::serving([Upstream::at(HOST, &origin)]).await;
    let tag = format!("/v2/{APP}/manifests/v1?ns={HOST}");
    larder.get(&tag).send().await;
    larder.get(&path(&image.layer)).send().await.is_whole(&image.layer.bytes);
    assert!(larder.store().gets(&image.layer.digest).await);
    larder.restart().await;
    larder.get(&tag).send().await;
    let catalog: Value =
        serde_json::from_str(&larder.admin("/catalog").send().await.text()).unwrap();
    assert_eq!(catalog["images"][0]["pulls"], 2, "{catalog}");

    larder.get(&path(&image.layer)).send().await.is_whole(&image.layer.bytes);
    assert!(larder.store().quarantined().is_empty());
}

#[tokio::test]
async fn a_hundred_thousand_stored_blobs_do_not_delay_the_start() {
    const BLOBS: usize = 100_000;
    let mut larder = Larder::stopped(&NodeConfig::new([]));
    larder.start().await;
    larder.terminate();
    larder.ended().await;
    let root = larder.folder().join("store/blobs/sha256");
    for shard in 0..256 {
        fs::create_dir_all(root.join(format!("{shard:02x}"))).unwrap();
    }
    for number in 0..BLOBS {
        let name = format!("{:02x}{number:062x}", number % 256);
        // Empty: what is slow is the number of files, not what is in them.
        fs::File::create(root.join(&name[..2]).join(&name)).unwrap();
    }
    // The better of two: at the first the disk is still busy with the files that were just made.
    let mut ready_after = Vec::new();
    for _ in 0..2 {
        if !ready_after.is_empty() {
            larder.kill().await;
        }
        let asked = Instant::now();
        larder.start().await;
        ready_after.push(asked.elapsed());
    }
    assert!(
        ready_after.iter().min() < Some(&Duration::from_secs(2)),
        "ready after {ready_after:?}"
    );
    assert_eq!(larder.admin("/readyz").send().await.status, 200);
    let accounted = eventually(30, async || report(&larder).await["store"]["blobs"] == BLOBS).await;
    assert!(accounted, "{}", report(&larder).await);
    assert_eq!(report(&larder).await["store"]["state"], "Ready");
}
