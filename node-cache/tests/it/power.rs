//! Power cuts at random moments, on real file systems.
//!
//! A cut is a forced shutdown of the file system without flushing its log: what it has not sent to
//! its medium is lost. Each run fills the store with content of its own, cuts, and looks at what is
//! there after the file system has been mounted again.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::future::join_all;
use larder_e2e::{
    disk::{Disk, Format},
    soak::Soak,
};
use larder_node_cache::oci::{Algorithm, Digest};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::{
    faulty::{ALWAYS, Fault, On, Origin},
    larder::{Answer, End, Larder, NodeConfig, Upstream, eventually, files_below},
};

const HOST: &str = "reg.test";
/// The bound for a start after a power cut.
const READY_WITHIN: Duration = Duration::from_secs(2);
/// Runs on one file system before it is made anew. A run leaves some 8 MiB, nothing is evicted.
const RUNS_ON_ONE: u64 = 20;
/// mkfs.xfs wants at least 300.
const MEBIBYTES: u64 = 320;

#[tokio::test]
async fn f02_ext4_loses_its_power_while_the_store_is_filled() {
    cut_again_and_again("power-ext4", Format::Ext4(MEBIBYTES)).await;
}

#[tokio::test]
async fn f02_xfs_loses_its_power_while_the_store_is_filled() {
    cut_again_and_again("power-xfs", Format::Xfs(MEBIBYTES)).await;
}

async fn cut_again_and_again(case: &str, format: Format) {
    let mut soak = Soak::of(case, 25, 150);
    let mut bench = Bench::set_up(format).await;
    for (run, seed) in (0_u64..).zip(soak.seeds()) {
        if run > 0 && run.is_multiple_of(RUNS_ON_ONE) {
            bench.new_file_system().await;
        }
        let outcome = bench.cut_once(seed).await;
        let failed = outcome.is_err();
        soak.note(seed, outcome);
        if failed {
            bench.new_file_system().await;
        }
    }
    bench.larder.kill().await;
    bench.disk.removed().await.unwrap();
    // Some for a machine that does other things meanwhile: other tests run beside this one.
    let slow = &bench.slow_starts;
    assert!(slow.len() <= 3 + soak.seeds().count() / 100, "not ready in time: {slow:?}");
    soak.end().unwrap();
}

struct Bench {
    origin: Origin,
    larder: Larder,
    disk: Disk,
    slow_starts: Vec<Duration>,
    _media: TempDir,
}

/// Something that is pulled: its path and its bytes.
struct Wanted {
    path: String,
    bytes: Bytes,
}

impl Bench {
    async fn set_up(format: Format) -> Self {
        let origin = Origin::start().await;
        let mut larder = Larder::stopped(&NodeConfig::new([Upstream::at(HOST, &origin)]));
        let media = tempfile::Builder::new().prefix("larder-it-").tempdir().unwrap();
        let store = larder.folder().join("store");
        let disk = Disk::mounted(format, media.path(), &store).await.unwrap();
        larder.on(disk.mounts());
        larder.start().await;
        Self { origin, larder, disk, slow_starts: vec![], _media: media }
    }

    async fn new_file_system(&mut self) {
        self.larder.kill().await;
        // A run that failed half-way may have left it unmounted.
        let _ = self.disk.unmount().await;
        self.disk.format().await.unwrap();
        self.disk.mount().await.unwrap();
        self.origin.restart().await;
        self.larder.start().await;
    }

    async fn cut_once(&mut self, seed: u64) -> Result<()> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let repository = format!("power/r{seed}");
        let content = self.content(&repository, &mut rng);
        // From a few milliseconds to beyond the last rename.
        let delay = Duration::from_millis(rng.u64(0..700));
        let calls = content.iter().map(|wanted| self.larder.get(&wanted.path).send());
        let cut = async {
            sleep(delay).await;
            self.disk.cut_power().await
        };
        let (answers, cut) = tokio::join!(join_all(calls), cut);
        cut?;
        for (wanted, answer) in content.iter().zip(&answers) {
            never_wrong(wanted, answer).context("before the cut")?;
        }
        self.larder.kill().await;
        self.disk.unmount().await?;
        self.disk.mount().await?;

        check_files(&self.larder.store_path()).context("on the disk after the cut")?;
        self.origin.stop().await;
        let began = Instant::now();
        self.larder.start().await;
        self.slow_starts.extend(Some(began.elapsed()).filter(|took| *took > READY_WITHIN));

        // What it claims to have, it has.
        let calls = content.iter().map(|wanted| self.larder.get(&wanted.path).send());
        for (wanted, answer) in content.iter().zip(join_all(calls).await) {
            never_wrong(wanted, &answer).context("alone after the cut")?;
            let served = (answer.status, answer.end) == (200, End::Complete);
            let without = answer.status == 503;
            ensure!(served || without, "alone, {}: {}", wanted.path, answer.line());
        }
        // A new process: the breaker of this one waits 5 s after the outage.
        self.larder.kill().await;
        self.origin.restart().await;
        self.origin.heal(&repository);
        self.larder.start().await;
        let calls = content.iter().map(|wanted| self.whole(wanted));
        join_all(calls).await.into_iter().collect::<Result<()>>()?;

        let finished = async || self.larder.store().partials().is_empty();
        ensure!(eventually(10, finished).await, "left: {:?}", self.larder.store().partials());
        check_files(&self.larder.store_path()).context("after the next pulls")?;
        let quarantined = self.larder.store().quarantined();
        ensure!(quarantined.is_empty(), "in quarantine: {quarantined:?}");
        self.origin
            .edit(&repository, |repository| *repository = crate::faulty::Repository::default());
        Ok(())
    }

    /// Images and blobs of every size, at a speed that makes the fills last about as long as the
    /// longest delay.
    fn content(&self, repository: &str, rng: &mut fastrand::Rng) -> Vec<Wanted> {
        let mut content = Vec::new();
        for number in 0..3 {
            let tag = format!("v{number}");
            let image = self.origin.image(repository, &tag, rng.u64(..), rng.usize(1..400_000));
            let manifests = [(tag, &image.index), (image.manifest.digest.clone(), &image.manifest)];
            for (reference, manifest) in manifests {
                content.push(Wanted {
                    path: format!("/v2/{repository}/manifests/{reference}?ns={HOST}"),
                    bytes: manifest.bytes.clone(),
                });
            }
            for blob in [&image.config, &image.layer] {
                content.push(of_blob(repository, &blob.digest, &blob.bytes));
            }
        }
        for _ in 0..6 {
            let size = if rng.bool() { rng.usize(0..300_000) } else { rng.usize(1 << 20..3 << 20) };
            let blob = self.origin.blob(repository, rng.u64(..), size);
            content.push(of_blob(repository, &blob.digest, &blob.bytes));
        }
        let (step, every) = (rng.usize(32 << 10..256 << 10), Duration::from_millis(10));
        let slow = Fault::Drip { from: 0, step, every };
        self.origin.inject(repository, On::BlobGets, slow, ALWAYS);
        content
    }

    async fn whole(&self, wanted: &Wanted) -> Result<()> {
        let got = async || {
            let answer = self.larder.get(&wanted.path).send().await;
            answer.status == 200 && answer.end == End::Complete && answer.body == wanted.bytes
        };
        ensure!(eventually(15, got).await, "{} does not come again", wanted.path);
        Ok(())
    }
}

fn of_blob(repository: &str, digest: &str, bytes: &Bytes) -> Wanted {
    let path = format!("/v2/{repository}/blobs/{digest}?ns={HOST}");
    Wanted { path, bytes: bytes.clone() }
}

/// Nothing that is complete is wrong.
fn never_wrong(wanted: &Wanted, answer: &Answer) -> Result<()> {
    let complete = answer.status == 200 && answer.end == End::Complete;
    let right = !complete || answer.body == wanted.bytes;
    ensure!(right, "{} came wrong: {}", wanted.path, answer.line());
    Ok(())
}

/// Every file below `blobs` is what its name says. The server would notice by itself, and so hide a
/// rename that was faster than its bytes.
fn check_files(store: &Path) -> Result<()> {
    let blobs = store.join("blobs");
    for name in files_below(&blobs) {
        let bytes = fs::read(blobs.join(&name)).with_context(|| name.clone())?;
        let mut parts = name.split('/');
        let (algorithm, hex) = (parts.next(), parts.next_back());
        let is = match algorithm {
            Some("sha256") => Digest::of(Algorithm::Sha256, &bytes),
            _ => Digest::of(Algorithm::Sha512, &bytes),
        };
        ensure!(hex == Some(is.hex()), "blobs/{name} has {} bytes of {is}", bytes.len());
    }
    Ok(())
}
