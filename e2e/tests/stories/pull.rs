//! A cold pull, and one from the cache.

use anyhow::{Result, ensure};
use larder_e2e::{
    containerd::Version,
    image::{BIG, Image, SMALL},
    sandbox::{Sandbox, Told},
};

use crate::node::{HOST, Node, REPOSITORY, tagged};

on_every_containerd! {
    a_cold_pull_asks_the_upstream_for_each_blob_once
    an_image_is_pulled_again_while_the_upstream_is_stopped
    an_image_is_pulled_again_after_larder_was_restarted
}

async fn a_cold_pull_asks_the_upstream_for_each_blob_once(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    let (node, image) = Node::with(sandbox, version, &SMALL).await?;
    node.containerd.pull_exactly(&tagged("1"), &image).await?;
    check_cold_pull(&node, &image).await
}

/// Six layers of gzip and zstd, about 300 MB.
#[test]
fn a_big_image_comes_through_whole() -> Told {
    crate::told_with(Version::V2_4, async |sandbox, version| {
        let (node, image) = Node::with(sandbox, version, &BIG).await?;
        node.containerd.pull_exactly(&tagged("1"), &image).await?;
        check_cold_pull(&node, &image).await
    })
}

async fn check_cold_pull(node: &Node, image: &Image) -> Result<()> {
    let kitchen = &node.kitchen;
    let fetched = image.blobs().chain(image.manifests()).map(|object| object.digest.as_str());
    kitchen.registry.sent_once(kitchen.earlier, fetched).await?;
    let requests = kitchen.registry.requests().await?;
    for object in &image.other_platform {
        let asked =
            requests.iter().skip(kitchen.earlier).any(|request| request.sent(&object.digest));
        ensure!(!asked, "{} of another platform was fetched", object.digest);
    }
    let metrics = kitchen.larder.metrics().await?;
    let (fetched, served) = (metrics.fetched(HOST), metrics.served(HOST));
    ensure!(fetched == image.size(), "{fetched} bytes fetched for {}", image.size());
    ensure!(served == image.size(), "{served} bytes served of {}", image.size());
    Ok(())
}

async fn an_image_is_pulled_again_while_the_upstream_is_stopped(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    let (mut node, image) = Node::with(sandbox, version, &SMALL).await?;
    node.containerd.pull_exactly(&tagged("1"), &image).await?;
    node.containerd.remove(&tagged("1")).await?;
    node.kitchen.forget_requests().await?;
    node.kitchen.registry.stop()?;

    let served = node.kitchen.larder.metrics().await?.served(HOST);
    node.containerd.pull_exactly(&tagged("1"), &image).await?;
    node.containerd.remove(&tagged("1")).await?;
    let by_digest = format!("{HOST}/{REPOSITORY}@{}", image.index.digest);
    node.containerd.pull_exactly(&by_digest, &image).await?;

    node.kitchen.upstream_was_silent().await?;
    let metrics = node.kitchen.larder.metrics().await?;
    let served = metrics.served(HOST) - served;
    ensure!(served == 2 * image.size(), "{served} bytes served, twice {} expected", image.size());
    ensure!(metrics.requests(HOST, "stale") > 0, "nothing was counted as stale");
    ensure!(metrics.requests(HOST, "hit") > 0, "nothing was counted as a hit");
    Ok(())
}

async fn an_image_is_pulled_again_after_larder_was_restarted(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    let (mut node, image) = Node::with(sandbox, version, &SMALL).await?;
    node.containerd.pull_exactly(&tagged("1"), &image).await?;
    node.containerd.remove(&tagged("1")).await?;
    node.kitchen.larder.stop().await?;
    node.kitchen.larder.start_again().await?;
    node.kitchen.registry.stop()?;
    node.kitchen.forget_requests().await?;

    node.containerd.pull_exactly(&tagged("1"), &image).await?;
    node.kitchen.upstream_was_silent().await
}
