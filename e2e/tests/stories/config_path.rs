//! What Larder says about containerd's `config_path`, and what containerd then does.

use anyhow::{Result, ensure};
use larder_e2e::{
    containerd::{ConfigPath, Containerd, Version},
    image::{Edition, Image, SMALL},
    registry::Kind,
    relay::Shape,
    sandbox::Sandbox,
};
use larder_node_cache::containerd::{Verdict, inspect_files};

use crate::node::{HOST, Kitchen, tagged};

on_every_containerd! {
    a_missing_config_path_is_found_and_no_mirror_is_used
    a_config_path_of_one_folder_is_effective
    a_config_path_with_a_colon_is_effective_exactly_where_containerd_splits_it
}

async fn a_missing_config_path_is_found_and_no_mirror_is_used(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    prediction_comes_true(sandbox, version, ConfigPath::Missing, "ConfigPathMissing").await
}

async fn a_config_path_of_one_folder_is_effective(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    prediction_comes_true(sandbox, version, ConfigPath::Single, "").await
}

async fn a_config_path_with_a_colon_is_effective_exactly_where_containerd_splits_it(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    let reason = match version {
        Version::V1_6 | Version::V1_7 => "",
        Version::V2_4 => "ColonConfigPath",
    };
    prediction_comes_true(sandbox, version, ConfigPath::Colon, reason).await
}

/// The registry's name does not resolve: a pull that works went through the mirror.
async fn prediction_comes_true(
    sandbox: &Sandbox,
    version: Version,
    config_path: ConfigPath,
    reason: &str,
) -> Result<()> {
    let image = Image::of(&SMALL, Edition::First)?;
    let mut kitchen = Kitchen::with(sandbox, Kind::Distribution, &image, Shape::LOOPBACK).await?;
    let containerd = Containerd::start_with(version, &sandbox.folder("c")?, config_path).await?;
    containerd.mirror(HOST, kitchen.larder.address())?;

    let verdict = inspect_files(&containerd.config_file(), &containerd.certs_dir());
    ensure!(verdict.reason() == reason, "{version}, {config_path:?}: {verdict:?}");
    if verdict == Verdict::Effective {
        containerd.pull_exactly(&tagged("1"), &image).await?;
    } else {
        let pulled = containerd.pull(&tagged("1")).await;
        ensure!(pulled.is_err(), "{version} uses the mirror in spite of {verdict:?}");
        kitchen.upstream_was_silent().await?;
    }
    let served = kitchen.larder.metrics().await?.served(HOST);
    ensure!((served > 0) == (verdict == Verdict::Effective), "{served} bytes served: {verdict:?}");
    Ok(())
}
