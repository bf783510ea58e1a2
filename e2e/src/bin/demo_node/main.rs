//! `make demo-node`: what Larder does for a node, with real parts and measured numbers.
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

use kitchen::{Bytes, Kitchen, REPOSITORY};
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
    let (layers, size) = (first.layers.len(), megabytes(first.size()));
    say(&format!("  {layers} layers, gzip and zstd, {size}, in an index of two platforms"))?;

    say(
        "Starting distribution 3.1.2, a line of 1 Gbit/s and 20 ms to it, Larder, containerd 2.4.2",
    )?;
    let mut kitchen = Kitchen::open(sandbox, &first).await?;
    let mut table = Table::of("containerd pulls, unpacking included");

    say(
        "Pulling without Larder, once as a rehearsal (a first pull is slower), once for the table",
    )?;
    kitchen.pull_directly(&first).await?;
    kitchen.remove_everything().await?;
    let meter = kitchen.meter().await?;
    let took = kitchen.pull_directly(&first).await?;
    table.add("direct pull, without Larder", took, meter.read(&kitchen).await?)?;
    kitchen.remove_everything().await?;

    say("Running larder-node configure, which sends containerd to Larder without restarting it")?;
    let (file, text) = kitchen.configure().await?;
    say(&format!("  It wrote {} into containerd's folder of mirrors:", file.display()))?;
    say(&indented(&text))?;

    say("Pulling through Larder, which has nothing yet")?;
    let (took, bytes) = pull(&kitchen, &first, first.size() + HEADERS).await?;
    table.add("cold, through Larder", took, bytes)?;

    say("Pulling through Larder again, after containerd has removed the image")?;
    let (took, bytes) = pull(&kitchen, &first, HEADERS).await?;
    table.add("warm: removed and pulled again", took, bytes)?;

    say("Emptying Larder, then 8 clients at once: containerd, crane and six of plain HTTP")?;
    kitchen.empty_larder().await?;
    let (took, bytes) = eight_at_once(sandbox, &kitchen, &first).await?;
    table.add("8 clients at once, cold, the last one", took, bytes)?;

    say("Moving the tag: the second edition differs in its last layer")?;
    kitchen.push(&second).await?;
    let (took, bytes) = pull(&kitchen, &second, changed(&first, &second) + HEADERS).await?;
    table.add("the tag has moved, image removed", took, bytes)?;

    let alone = bytes_alone(&mut kitchen, &second).await?;

    say("Cutting the line. First without Larder:")?;
    kitchen.line.set(Mode::Refuse).await?;
    let error = kitchen.pull_directly(&second).await.err();
    let error = error.context("a direct pull worked without an upstream")?;
    let error = format!("{error:#}");
    let reason = error.lines().find(|line| line.contains("larder-cri:")).unwrap_or(&error);
    say(&format!("  fails, as it must: {reason}"))?;
    say("Then through Larder, by tag")?;
    let (took, bytes) = pull(&kitchen, &second, 0).await?;
    table.add("upstream down (a direct pull fails)", took, bytes)?;

    say("Ending larder-node configure by SIGTERM")?;
    let took = kitchen.withdraw().await?;
    say(&format!(
        "  {:.2} s, and all of containerd's folder is as before: names, modes, contents",
        took.as_secs_f64()
    ))?;
    kitchen.close().await?;
    say(&format!("\n{table}"))?;
    say(&format!("{alone}"))?;
    say(&format!("All of it in {:.0} s. Nothing is left running.", started.elapsed().as_secs_f64()))
}

/// Pulls through Larder into a containerd that has nothing, and empties it again. The line must
/// carry `at_most` so many bytes.
async fn pull(kitchen: &Kitchen, image: &Image, at_most: u64) -> Result<(Duration, Bytes)> {
    let meter = kitchen.meter().await?;
    let took = kitchen.pull(image).await?;
    let bytes = meter.read(kitchen).await?;
    check_line(bytes, at_most)?;
    kitchen.remove_everything().await?;
    Ok((took, bytes))
}

fn check_line(bytes: Bytes, at_most: u64) -> Result<()> {
    let Bytes { upstream, .. } = bytes;
    ensure!(upstream <= at_most, "the line carried {upstream} bytes where {at_most} are enough");
    Ok(())
}

/// The same image fetched blob after blob by plain HTTP, without a containerd that unpacks it.
async fn bytes_alone(kitchen: &mut Kitchen, image: &Image) -> Result<Table> {
    say("Emptying Larder once more, for the bytes alone: plain HTTP, one blob after the other")?;
    kitchen.empty_larder().await?;
    let mut table = Table::of("the bytes alone, by plain HTTP");
    let steps = [
        ("direct, without Larder", kitchen.raw_directly()?, image.size() + HEADERS),
        ("cold, through Larder", kitchen.raw()?, image.size() + HEADERS),
        ("warm", kitchen.raw()?, HEADERS),
    ];
    for (step, client, at_most) in steps {
        let meter = kitchen.meter().await?;
        let asked = Instant::now();
        client.pull(REPOSITORY, "1", image).await?;
        let took = asked.elapsed();
        let bytes = meter.read(kitchen).await?;
        check_line(bytes, at_most)?;
        table.add(step, took, bytes)?;
    }
    Ok(table)
}

/// Until the last one has it.
async fn eight_at_once(
    sandbox: &Sandbox,
    kitchen: &Kitchen,
    image: &Image,
) -> Result<(Duration, Bytes)> {
    let folder = sandbox.folder("crane")?;
    let reference = kitchen.path_form();
    let raw = kitchen.raw()?;
    let plain = (0..PLAIN_CLIENTS).map(|_| raw.pull(REPOSITORY, "1", image));
    let meter = kitchen.meter().await?;
    let asked = Instant::now();
    tokio::try_join!(
        kitchen.pull(image),
        clients::crane_pull(&reference, &folder, image),
        futures_util::future::try_join_all(plain),
    )?;
    let took = asked.elapsed();
    let bytes = meter.read(kitchen).await?;
    // crane takes the other platform's few kilobytes as well.
    check_line(bytes, image.size_of_all() + HEADERS)?;
    kitchen.remove_everything().await?;
    Ok((took, bytes))
}

fn indented(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(|line| format!("    {line}")).collect();
    lines.join("\n")
}

/// Bytes of what one image has and the other has not.
fn changed(from: &Image, to: &Image) -> u64 {
    let known = from.all();
    let all = to.blobs().chain(to.manifests());
    all.filter(|object| !known.contains(object.digest.as_str())).map(|object| object.size).sum()
}

fn say(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}
