//! `make demo`: what Larder does for a node, with real parts and measured numbers.
//!
//! distribution 3.1.2 stands behind a line of 1 Gbit/s and 20 ms there and back; containerd 2.4.2
//! pulls an image of 300 MB through the CRI, as the kubelet would. Bytes from the upstream are what
//! the line carried, bytes from the cache what Larder's own metrics count.

mod kitchen;
mod table;

use std::{
    io::{self, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use larder_e2e::{
    clients,
    image::{BIG, Edition, Image},
    relay::Mode,
    sandbox::{Sandbox, story},
};

use kitchen::{Kitchen, REPOSITORY};
use table::{Table, megabytes};

fn main() -> ExitCode {
    match story(show) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // safe to ignore: without a terminal there is nobody to tell
            let _ = writeln!(io::stderr(), "\nThe demo failed: {failure:?}");
            ExitCode::FAILURE
        }
    }
}

/// What the line may carry besides bodies: headers of a dozen answers.
const HEADERS: u64 = 64 << 10;
/// Of 8 clients at once. One is containerd, one crane, the others plain HTTP.
const PLAIN_CLIENTS: usize = 6;

async fn show(sandbox: &Sandbox) -> Result<()> {
    let started = Instant::now();
    say(
        "Building two editions of an image from this machine's own files (kept for the next time)",
    )?;
    let first = Image::of(&BIG, Edition::First)?;
    let second = Image::of(&BIG, Edition::Second)?;
    say(&format!(
        "  {} layers, gzip and zstd, {}, in an index of two platforms",
        first.layers.len(),
        megabytes(first.size())
    ))?;

    say(
        "Starting distribution 3.1.2, a line of 1 Gbit/s and 20 ms to it, Larder, containerd 2.4.2",
    )?;
    let mut kitchen = Kitchen::open(sandbox, &first).await?;
    let mut table = Table::new();

    say("Pulling without Larder")?;
    let meter = kitchen.meter().await?;
    let pulled = kitchen.pull_directly(&first).await?;
    table.add(
        "direct pull, without Larder",
        pulled,
        meter.read(&kitchen).await?,
    )?;
    kitchen.remove_everything().await?;

    say("Pulling through Larder, which has nothing yet")?;
    let meter = kitchen.meter().await?;
    let pulled = kitchen.pull(&first).await?;
    let bytes = meter.read(&kitchen).await?;
    ensure!(
        bytes.upstream < first.size() + HEADERS,
        "the line carried {}",
        megabytes(bytes.upstream)
    );
    table.add("cold, through Larder", pulled, bytes)?;
    kitchen.remove_everything().await?;

    say("Pulling through Larder again, after containerd has removed the image")?;
    let meter = kitchen.meter().await?;
    let pulled = kitchen.pull(&first).await?;
    let bytes = meter.read(&kitchen).await?;
    ensure!(
        bytes.upstream < HEADERS,
        "the line carried {}",
        megabytes(bytes.upstream)
    );
    table.add("warm: removed and pulled again", pulled, bytes)?;
    kitchen.remove_everything().await?;

    say("Emptying Larder, then 8 clients at once: containerd, crane and six of plain HTTP")?;
    kitchen.empty_larder(sandbox).await?;
    let meter = kitchen.meter().await?;
    let took = eight_at_once(sandbox, &kitchen, &first).await?;
    let bytes = meter.read(&kitchen).await?;
    // crane takes the other platform's few kilobytes as well.
    ensure!(
        bytes.upstream < first.size_of_all() + HEADERS,
        "the line carried {}",
        megabytes(bytes.upstream)
    );
    table.add("8 clients at once, cold, the last one", took, bytes)?;
    kitchen.remove_everything().await?;

    say("Moving the tag: the second edition differs in its last layer")?;
    kitchen.push(&second).await?;
    let meter = kitchen.meter().await?;
    let pulled = kitchen.pull(&second).await?;
    let bytes = meter.read(&kitchen).await?;
    let changed = changed(&first, &second);
    ensure!(
        bytes.upstream < changed + HEADERS,
        "the line carried {}",
        megabytes(bytes.upstream)
    );
    table.add("the tag has moved, image removed", pulled, bytes)?;
    kitchen.remove_everything().await?;

    say("Cutting the line. First without Larder:")?;
    kitchen.line.set(Mode::Refuse).await?;
    let error = kitchen.pull_directly(&second).await.err();
    let error = error.context("a direct pull worked without an upstream")?;
    let error = format!("{error:#}");
    let reason = error
        .lines()
        .find(|line| line.contains("larder-cri:"))
        .unwrap_or(&error);
    say(&format!("  fails, as it must: {reason}"))?;
    say("Then through Larder, by tag")?;
    let meter = kitchen.meter().await?;
    let pulled = kitchen.pull(&second).await?;
    let bytes = meter.read(&kitchen).await?;
    ensure!(
        bytes.upstream == 0,
        "a cut line carried {}",
        megabytes(bytes.upstream)
    );
    table.add("upstream down (a direct pull fails)", pulled, bytes)?;

    kitchen.close().await?;
    say(&format!("\n{table}"))?;
    say(&format!(
        "All of it in {:.0} s. Nothing is left running.",
        started.elapsed().as_secs_f64()
    ))
}

/// Until the last one has it.
async fn eight_at_once(sandbox: &Sandbox, kitchen: &Kitchen, image: &Image) -> Result<Duration> {
    let folder = sandbox.folder("crane")?;
    let reference = kitchen.path_form();
    let raw = kitchen.raw()?;
    let plain = (0..PLAIN_CLIENTS).map(|_| raw.pull(REPOSITORY, "1", image));
    let asked = Instant::now();
    tokio::try_join!(
        kitchen.pull(image),
        clients::crane_pull(&reference, &folder, image),
        futures_util::future::try_join_all(plain),
    )?;
    Ok(asked.elapsed())
}

/// Bytes of what one image has and the other has not.
fn changed(from: &Image, to: &Image) -> u64 {
    let known = from.all();
    let all = to.blobs().chain(to.manifests());
    all.filter(|object| !known.contains(object.digest.as_str()))
        .map(|object| object.size)
        .sum()
}

fn say(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}
