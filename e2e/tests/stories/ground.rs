//! The ground under Larder gives way: its folder is deleted, its disk is full, out of inodes or
//! read-only. No pull fails for it.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use larder_e2e::{
    containerd::Version,
    disk::{Disk, Format},
    larder::Ground,
    process::{POLL, eventually},
    relay::Shape,
    sandbox::{Sandbox, Told},
    soak::Soak,
};

use crate::shelf::{Shelf, pull_all};

/// All images take about two seconds.
const SLOW: Shape = Shape { rate: 11_000_000, latency: Duration::from_millis(1) };

on_every_containerd! {
    the_whole_data_folder_is_deleted_under_eight_pulls
    the_blobs_are_deleted_under_eight_pulls
    f04_pulls_through_a_disk_smaller_than_the_images
    f04_pulls_through_a_disk_without_inodes
    f06_the_disk_turns_read_only_under_eight_pulls_and_is_so_at_the_next_start
    f06_larder_stores_again_after_its_disk_was_remounted_for_writing
}

async fn the_whole_data_folder_is_deleted_under_eight_pulls(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    deleted(&format!("deleted-all-{version}"), "", sandbox, version).await
}

async fn the_blobs_are_deleted_under_eight_pulls(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    deleted(&format!("deleted-blobs-{version}"), "blobs", sandbox, version).await
}

async fn deleted(case: &str, part: &str, sandbox: &Sandbox, version: Version) -> Result<()> {
    let mut soak = Soak::of(case, 1, 10);
    let mut shelf = Shelf::stocked(sandbox, version, Ground::default(), SLOW).await?;
    for seed in soak.seeds() {
        let outcome = delete_once(&shelf, part, seed).await;
        soak.note(seed, outcome);
        shelf.remove_all().await?;
        // What the next start needs is there again, whatever this process made of it.
        shelf.larder.kill()?;
        shelf.larder.start_again().await?;
    }
    soak.end()
}

async fn delete_once(shelf: &Shelf, part: &str, seed: u64) -> Result<()> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let size = shelf.size();
    let some = shelf.line.carried().down + rng.u64(0..size * 8 / 10);
    let Shelf { larder, containerd, images, line, .. } = shelf;
    let delete = async {
        let reached = || Ok(line.carried().down >= some);
        // Later runs may find all in the store, and the line silent.
        let _ = eventually("Larder has some of it", Duration::from_secs(3), reached).await;
        delete_all(&larder.store().join(part)).await
    };
    let (pulled, deleted) = tokio::join!(pull_all(containerd, images), delete);
    pulled.context("while the folder was deleted")?;
    deleted?;
    shelf.remove_all().await?;
    shelf.pull_all().await.context("after the folder was deleted")?;
    Ok(())
}

// Without containerd, whose release makes no difference here.
#[test]
fn larder_fills_its_folder_again_after_the_blobs_were_deleted() -> Told {
    crate::told_with(Version::V2_4, async |sandbox, version| {
        fills_again("blobs", sandbox, version).await
    })
}

#[test]
fn larder_fills_its_folder_again_after_all_of_it_was_deleted() -> Told {
    crate::told_with(Version::V2_4, async |sandbox, version| {
        fills_again("", sandbox, version).await
    })
}

/// The upstream gone, Larder alone has it: it was stored anew.
async fn fills_again(part: &str, sandbox: &Sandbox, version: Version) -> Result<()> {
    let mut shelf = Shelf::stocked(sandbox, version, Ground::default(), Shape::LOOPBACK).await?;
    shelf.fetch_all().await?;
    delete_all(&shelf.larder.store().join(part)).await?;
    shelf.fetch_all().await.context("after the folder was deleted")?;
    shelf.registry.stop()?;
    shelf.fetch_all().await.context("from Larder alone")
}

/// `rm -rf`, against somebody who may be creating files meanwhile.
async fn delete_all(folder: &Path) -> Result<()> {
    eventually("the folder is deleted", Duration::from_secs(5), || {
        Ok(fs::remove_dir_all(folder).is_ok() || !folder.exists())
    })
    .await
}

async fn f04_pulls_through_a_disk_smaller_than_the_images(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    let case = format!("full-disk-{version}");
    on_a_small_disk(&case, Format::Tmpfs(12), sandbox, version).await
}

async fn f04_pulls_through_a_disk_without_inodes(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    let case = format!("inodes-{version}");
    on_a_small_disk(&case, Format::Ext4WithInodes(64, 64), sandbox, version).await
}

async fn on_a_small_disk(
    case: &str,
    format: Format,
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    let mut soak = Soak::of(case, 1, 10);
    let disk = disk(format, sandbox).await?;
    let ground = Ground { mounts: Some(disk.mounts()), ..Ground::default() };
    let mut shelf = Shelf::stocked(sandbox, version, ground, Shape::LOOPBACK).await?;
    for seed in soak.seeds() {
        let pull = async {
            shelf.pull_all().await?;
            says(&shelf, "Full").await
        };
        soak.note(seed, pull.await);
        shelf.remove_all().await?;
        ensure!(shelf.stored()?.len() < shelf.content().len(), "the disk has room for all of it");
    }
    // The state stays for a minute, too long for every `cargo test`.
    if let (Format::Tmpfs(_), true) = (format, Soak::is_full()) {
        disk.remount("size=64M").await?;
        shelf.pull_all().await.context("on a disk that has grown")?;
        comes_to_say(&shelf, "Ready", Duration::from_secs(90)).await?;
        shelf.check_full_store().await?;
    }
    shelf.larder.kill()?;
    disk.removed().await?;
    soak.end()
}

async fn f06_the_disk_turns_read_only_under_eight_pulls_and_is_so_at_the_next_start(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    let mut soak = Soak::of(&format!("read-only-{version}"), 1, 10);
    let disk = disk(Format::Ext4(128), sandbox).await?;
    let ground = Ground { mounts: Some(disk.mounts()), ..Ground::default() };
    let mut shelf = Shelf::stocked(sandbox, version, ground, SLOW).await?;
    for seed in soak.seeds() {
        let outcome = read_only_once(&mut shelf, &disk, seed).await;
        soak.note(seed, outcome);
        let _ = shelf.larder.kill();
        shelf.remove_all().await?;
        disk.unmount().await?;
        disk.format().await?;
        disk.mount().await?;
        shelf.larder.start_again().await?;
    }
    shelf.larder.kill()?;
    disk.removed().await?;
    soak.end()
}

async fn read_only_once(shelf: &mut Shelf, disk: &Disk, seed: u64) -> Result<()> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let size = shelf.size();
    let some = shelf.line.carried().down + rng.u64(0..size * 8 / 10);
    let Shelf { containerd, images, line, .. } = &*shelf;
    let turn = async {
        let reached = || Ok(line.carried().down >= some);
        eventually("Larder has some of it", Duration::from_secs(10), reached).await?;
        disk.fail_to_read_only()?;
        let written = fs::write(disk.root().join("tried"), "");
        ensure!(written.is_err(), "the disk can still be written");
        Ok(())
    };
    let (pulled, turned) = tokio::join!(pull_all(containerd, images), turn);
    turned?;
    pulled.context("while the disk turned read-only")?;
    shelf.remove_all().await?;
    shelf.pull_all().await.context("on a read-only disk")?;
    says(shelf, "ReadOnly").await?;
    shelf.remove_all().await?;
    shelf.larder.kill()?;
    // One that refuses to start has its port closed, and that is as good.
    let _ = shelf.larder.start_again().await;
    shelf.pull_all().await.context("started on a read-only disk")?;
    Ok(())
}

async fn f06_larder_stores_again_after_its_disk_was_remounted_for_writing(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    let disk = disk(Format::Ext4(128), sandbox).await?;
    let ground = Ground { mounts: Some(disk.mounts()), ..Ground::default() };
    let mut shelf = Shelf::stocked(sandbox, version, ground, Shape::LOOPBACK).await?;
    says(&shelf, "Ready").await?;
    // Nobody may have a file open for writing.
    shelf.larder.stop().await?;
    disk.remount("ro").await?;
    shelf.larder.start_again().await?;
    shelf.pull_all().await.context("on a read-only disk")?;
    says(&shelf, "ReadOnly").await?;
    ensure!(shelf.stored()?.is_empty(), "the disk was written");

    disk.remount("rw").await?;
    comes_to_say(&shelf, "Ready", Duration::from_secs(30)).await?;
    shelf.remove_all().await?;
    shelf.pull_all().await.context("on a disk that can be written again")?;
    shelf.check_full_store().await?;
    shelf.larder.kill()?;
    disk.removed().await
}

/// Checks the state of the store in Larder's report.
async fn says(shelf: &Shelf, wanted: &str) -> Result<()> {
    let state = shelf.larder.report().await?.store.state;
    ensure!(state == wanted, "Larder reports its store as {state} instead of {wanted}");
    Ok(())
}

/// As [`says`], before long.
async fn comes_to_say(shelf: &Shelf, wanted: &str, patience: Duration) -> Result<()> {
    let asked = Instant::now();
    while let Err(error) = says(shelf, wanted).await {
        ensure!(asked.elapsed() < patience, "{error} after {patience:?}");
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// A disk where Larder's store will be.
async fn disk(format: Format, sandbox: &Sandbox) -> Result<Disk> {
    let store = sandbox.folder("larder")?.join("store");
    Disk::mounted(format, &sandbox.folder("disk")?, &store).await
}
