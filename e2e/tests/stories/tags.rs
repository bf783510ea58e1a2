//! Tags that move.

use anyhow::{Result, ensure};
use larder_e2e::{
    containerd::Version,
    image::{Edition, Image, SMALL},
    sandbox::Sandbox,
};

use crate::node::{HOST, Node, tagged};

on_every_containerd! {
    a_moved_tag_is_pulled_at_the_next_pull_and_only_what_changed_is_fetched
}

async fn a_moved_tag_is_pulled_at_the_next_pull_and_only_what_changed_is_fetched(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    let (mut node, first) = Node::with(sandbox, version, &SMALL).await?;
    let second = Image::of(&SMALL, Edition::Second)?;
    ensure!(first.index != second.index, "the editions are the same");
    node.containerd.pull_exactly(&tagged("1"), &first).await?;
    let before = node.kitchen.larder.metrics().await?.fetched(HOST);

    node.kitchen.push(sandbox, &second, "1").await?;
    // Removed first, so that containerd itself has nothing left to share.
    node.containerd.remove(&tagged("1")).await?;
    node.containerd.pull_exactly(&tagged("1"), &second).await?;

    let new: Vec<_> = second
        .blobs()
        .chain(second.manifests())
        .filter(|object| !first.all().contains(object.digest.as_str()))
        .collect();
    let digests = new.iter().map(|object| object.digest.as_str());
    node.kitchen.registry.sent_once(node.kitchen.earlier, digests).await?;
    let fetched = node.kitchen.larder.metrics().await?.fetched(HOST) - before;
    let changed: u64 = new.iter().map(|object| object.size).sum();
    ensure!(fetched == changed, "{fetched} bytes fetched where {changed} changed");
    Ok(())
}
