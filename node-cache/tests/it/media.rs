//! Damage underneath the file system: the medium changes its mind about a byte, and no time stamp
//! tells. Only reading everything again finds that out.

use std::{
    fs::{self, File, OpenOptions},
    io::Read,
    os::unix::fs::FileExt,
    path::Path,
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
const PERIOD: &str = "2s";
/// A period, and the next one for what changed behind the reader's back, on a busy machine.
const FOUND_WITHIN: u64 = 10;
/// Blobs that are damaged at once.
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
    larder.set("LARDER_SCRUB_PERIOD", PERIOD);
    larder.start().await;
    let mut rng = fastrand::Rng::with_seed(11);
    let blobs: Vec<Blob> =
        (0..24).map(|_| origin.blob(APP, rng.u64(..), rng.usize(10_000..1_000_000))).collect();
    for blob in &blobs {
        larder.get(&path(blob)).send().await.is_whole(&blob.bytes);
        assert!(larder.store().gets(&blob.digest).await);
    }
    sync(&larder);
    for seed in soak.seeds() {
        let outcome = rot_once(&larder, &disk, &blobs, seed).await;
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

async fn rot_once(larder: &Larder, disk: &Disk, blobs: &[Blob], seed: u64) -> Result<()> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut chosen: Vec<&Blob> = blobs.iter().collect();
    rng.shuffle(&mut chosen);
    chosen.truncate(AT_ONCE);
    let found = async || larder.metrics().await.sum("larder_node_quarantined_total", &[]);
    let before = found().await;
    sync(larder);
    for blob in &chosen {
        rot(&disk.medium(), &larder.store().blob(&blob.digest), blob, &mut rng)?;
    }
    let wanted = before + f64::from(u32::try_from(AT_ONCE)?);
    let all_found = async || found().await >= wanted;
    // Whoever asks before it is found hashes what came, as every client does: one failed attempt.
    let early = larder.get(&path(chosen[0])).send().await;
    ensure!(early.status == 200, "{}", early.line());
    ensure!(
        eventually(FOUND_WITHIN, all_found).await,
        "{} of {AT_ONCE} found",
        found().await - before
    );
    for blob in &chosen {
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
    let now = fs::read(file)?;
    ensure!(now != blob.bytes, "the file still reads as it was");
    Ok(())
}
