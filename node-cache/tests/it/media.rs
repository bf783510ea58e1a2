//! Damage underneath the file system: the medium changes its mind about a byte, and no time stamp
//! tells. Only reading everything again finds that out.

use std::{
    fs::{File, OpenOptions},
    io::Read,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use larder_e2e::{
    disk::{Disk, Format},
    soak::Soak,
};
use rustix::fs::{Advice, fadvise};

use crate::{
    faulty::{Blob, Origin},
    larder::{End, Larder, NodeConfig, Upstream, eventually},
};

const APP: &str = "team/app";
const HOST: &str = "reg.test";
/// How often everything is read again.
const PERIOD: Duration = Duration::from_secs(5);
/// What a busy machine may add; less than another half of a period.
const LATE: Duration = Duration::from_secs(2);
/// Blobs that are damaged and that nobody asks for, and those that somebody does ask for.
const AT_ONCE: usize = 8;

#[tokio::test]
async fn f05_what_rots_on_the_medium_is_found_within_a_period() {
    let mut soak = Soak::of("media", 3, 50);
    let origin = Origin::start().await;
    let mut larder = Larder::stopped(&NodeConfig::new([Upstream::at(HOST, &origin)]));
    let media = tempfile::Builder::new().prefix("larder-it-").tempdir().unwrap();
    let store = larder.folder().join("store");
    let disk = Disk::mounted(Format::Ext4(128), media.path(), &store).await.unwrap();
    larder.on(disk.mounts());
    larder.set("LARDER_SCRUB_PERIOD", &format!("{}s", PERIOD.as_secs()));
    larder.start().await;
    for seed in soak.seeds() {
        let outcome = rot_once(&larder, &disk, &origin, seed).await;
        soak.note(seed, outcome);
    }
    larder.kill().await;
    disk.removed().await.unwrap();
    soak.end().unwrap();
}

/// Everything that was written has a place on the medium.
fn sync(larder: &Larder) {
    rustix::fs::syncfs(File::open(larder.store_path()).unwrap()).unwrap();
}

fn path(blob: &Blob) -> String {
    format!("/v2/{APP}/blobs/{}?ns={HOST}", blob.digest)
}

async fn rot_once(larder: &Larder, disk: &Disk, origin: &Origin, seed: u64) -> Result<()> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut fresh = Vec::new();
    for _ in 0..2 * AT_ONCE {
        let blob = origin.blob(APP, rng.u64(..), rng.usize(10_000..200_000));
        larder.get(&path(&blob)).send().await.is_whole(&blob.bytes);
        ensure!(larder.store().gets(&blob.digest).await, "{} is not stored", blob.digest);
        fresh.push(blob);
    }
    sync(larder);
    for blob in &fresh {
        rot(&disk.medium(), &larder.store().blob(&blob.digest), blob, &mut rng)?;
    }
    let damaged = Instant::now();
    let (unasked, asked) = fresh.split_at(AT_ONCE);
    // Whoever asks before it is found hashes what came, as every client does: one failed attempt.
    let mut failed = 0;
    for blob in asked {
        let is_good = async || {
            let answer = larder.get(&path(blob)).send().await;
            answer.status == 200 && answer.end == End::Complete && answer.body == blob.bytes
        };
        if !is_good().await {
            failed += 1;
            ensure!(is_good().await, "two failed attempts at {}", blob.digest);
        }
    }
    ensure!(failed > 0, "the damage shows in no answer");
    let found = async || unasked.iter().all(|blob| !larder.store().has(&blob.digest));
    let in_time = eventually((2 * PERIOD).as_secs(), found).await;
    let took = damaged.elapsed();
    ensure!(in_time && took < PERIOD + LATE, "not all found within a period, but {took:?}");
    for blob in &fresh {
        let answer = larder.get(&path(blob)).send().await;
        let whole = answer.end == End::Complete && answer.body == blob.bytes;
        ensure!(whole, "{} is not healed: {}", blob.digest, answer.line());
        ensure!(larder.store().gets(&blob.digest).await, "{} is not stored again", blob.digest);
    }
    Ok(())
}

/// Flips a byte of a stored blob where it lies on the medium, and has the kernel forget what it
/// knows of the file.
fn rot(medium: &Path, file: &Path, blob: &Blob, rng: &mut fastrand::Rng) -> Result<()> {
    // Noise: its first bytes are nowhere else, unless an older copy of it was there.
    let needle = &blob.bytes[..64];
    let stored = File::open(file)?;
    stored.sync_all()?;
    let mut content = Vec::new();
    File::open(medium)?.read_to_end(&mut content)?;
    let device = OpenOptions::new().read(true).write(true).open(medium)?;
    // ext4 begins files at a block.
    let starts = content.chunks(1024).enumerate().filter(|(_, chunk)| chunk.starts_with(needle));
    let starts: Vec<u64> = starts.map(|(block, _)| block as u64 * 1024).collect();
    ensure!(!starts.is_empty(), "{} is not on the medium", blob.digest);
    // In the first block: where the others lie is the file system's affair.
    let offset = rng.u64(0..1024);
    for start in starts {
        let mut byte = [0];
        device.read_exact_at(&mut byte, start + offset)?;
        device.write_all_at(&[byte[0] ^ 1], start + offset)?;
    }
    device.sync_all()?;
    fadvise(&stored, 0, None, Advice::DontNeed).context("dropping the file's pages")?;
    // Through what is open: the scrub may have found it already, and moved it.
    let mut now = vec![0; blob.bytes.len()];
    stored.read_exact_at(&mut now, 0)?;
    ensure!(now != blob.bytes, "the file still reads as it was");
    Ok(())
}
