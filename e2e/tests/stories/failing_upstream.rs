//! An upstream that is down, hangs or answers nonsense, for an image that is in the cache.

use std::time::Instant;

use anyhow::{Result, ensure};
use larder_e2e::{containerd::Version, image::SMALL, relay::Mode, sandbox::Sandbox};

use crate::node::{HOST, Node, REPOSITORY, STALE_WITHIN, tagged};

on_every_containerd! {
    a_tag_is_served_stale_within_three_seconds_while_the_upstream_refuses
    a_tag_is_served_stale_within_three_seconds_while_the_upstream_hangs
    a_tag_is_served_stale_within_three_seconds_while_the_upstream_answers_503
}

async fn a_tag_is_served_stale_within_three_seconds_while_the_upstream_refuses(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    a_tag_is_served_stale(sandbox, version, Mode::Refuse).await
}

async fn a_tag_is_served_stale_within_three_seconds_while_the_upstream_hangs(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    a_tag_is_served_stale(sandbox, version, Mode::Hang).await
}

async fn a_tag_is_served_stale_within_three_seconds_while_the_upstream_answers_503(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    a_tag_is_served_stale(sandbox, version, Mode::Unavailable).await
}

async fn a_tag_is_served_stale(sandbox: &Sandbox, version: Version, mode: Mode) -> Result<()> {
    let (mut node, image) = Node::with(sandbox, version, &SMALL).await?;
    node.containerd.pull_exactly(&tagged("1"), &image).await?;
    node.containerd.remove(&tagged("1")).await?;
    node.kitchen.forget_requests().await?;
    node.kitchen.line.set(mode).await?;

    // The first request is the slow one: later ones find the breaker open.
    let asked = Instant::now();
    let digest = node.kitchen.raw()?.resolve(REPOSITORY, "1").await?;
    let took = asked.elapsed();
    ensure!(digest == image.index.digest, "the tag is {digest}");
    ensure!(took <= STALE_WITHIN, "{took:?} for a tag in mode {mode:?}");

    node.containerd.pull_exactly(&tagged("1"), &image).await?;
    node.kitchen.upstream_was_silent().await?;
    let stale = node.kitchen.larder.metrics().await?.requests(HOST, "stale");
    ensure!(stale >= 2, "{stale} of 2 requests were counted as stale");
    Ok(())
}
