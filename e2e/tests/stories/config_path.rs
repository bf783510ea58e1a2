//! What `larder-node configure` says about containerd's `config_path`, and what containerd then
//! does.

use anyhow::{Result, ensure};
use larder_crds::node::{ExistingHosts, MirrorReason, MirrorState};
use larder_e2e::{
    configurator::Configurator,
    containerd::{ConfigPath, Containerd, Version},
    image::{Edition, Image, SMALL},
    registry::Kind,
    relay::Shape,
    sandbox::{Sandbox, Told},
    snapshot::Snapshot,
};

use crate::node::{HOST, Kitchen, tagged, told_with};

on_every_containerd! {
    a_missing_config_path_is_found_and_no_mirror_is_used
    a_config_path_of_one_folder_is_effective
    a_config_path_in_a_file_that_is_imported_is_effective
    a_config_path_with_a_colon_is_effective_exactly_where_containerd_splits_it
}

async fn a_missing_config_path_is_found_and_no_mirror_is_used(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    let reason = MirrorReason::ConfigPathMissing;
    prediction_comes_true(sandbox, version, ConfigPath::Missing, reason).await
}

async fn a_config_path_of_one_folder_is_effective(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    prediction_comes_true(sandbox, version, ConfigPath::Single, MirrorReason::None).await
}

async fn a_config_path_in_a_file_that_is_imported_is_effective(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    prediction_comes_true(sandbox, version, ConfigPath::DropIn, MirrorReason::None).await
}

async fn a_config_path_with_a_colon_is_effective_exactly_where_containerd_splits_it(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    let reason = match version {
        Version::V1_6 | Version::V1_7 => MirrorReason::None,
        Version::V2_4 => MirrorReason::ColonConfigPath,
    };
    prediction_comes_true(sandbox, version, ConfigPath::Colon, reason).await
}

/// containerd 2.4 takes the list for one name; the repair makes that name lead to the folder.
#[test]
fn a_config_path_with_a_colon_is_repaired_on_request_and_left_as_it_was() -> Told {
    told_with(Version::V2_4, async |sandbox, version| {
        let image = Image::of(&SMALL, Edition::First)?;
        let kind = Kind::Distribution;
        let mut kitchen = Kitchen::with(sandbox, kind, &image, Shape::LOOPBACK).await?;
        let folder = sandbox.folder("c")?;
        let containerd = Containerd::start_with(version, &folder, ConfigPath::Colon).await?;
        let empty = Snapshot::of(&containerd.certs_dir())?;
        let mut configurator = Configurator::start_repairing(&kitchen.larder, &containerd)?;
        configurator.reaches(MirrorState::Mirrored).await?;
        containerd.pull_exactly(&tagged("1"), &image).await?;
        let served = kitchen.larder.metrics().await?.served(HOST);
        ensure!(served > 0, "the pull did not come through Larder");
        configurator.stop().await?;
        let certs_dir = Snapshot::of(&containerd.certs_dir())?;
        ensure!(certs_dir == empty, "in certs.d is left: {certs_dir}");
        // The first folder of the literal path: "certs.d:" and then the rest of the list.
        let literal = folder.join("certs.d:");
        ensure!(literal.symlink_metadata().is_err(), "{} is left", literal.display());
        kitchen.forget_requests().await?;
        containerd.remove(&tagged("1")).await?;
        let pulled = containerd.pull(&tagged("1")).await;
        ensure!(pulled.is_err(), "the mirror is still there");
        kitchen.upstream_was_silent().await
    })
}

/// The registry's name does not resolve: a pull that works went through the mirror.
async fn prediction_comes_true(
    sandbox: &Sandbox,
    version: Version,
    config_path: ConfigPath,
    reason: MirrorReason,
) -> Result<()> {
    let image = Image::of(&SMALL, Edition::First)?;
    let mut kitchen = Kitchen::with(sandbox, Kind::Distribution, &image, Shape::LOOPBACK).await?;
    let containerd = Containerd::start_with(version, &sandbox.folder("c")?, config_path).await?;
    let existing = ExistingHosts::Prepend;
    let mut configurator = Configurator::start(&kitchen.larder, &containerd, existing)?;

    let effective = reason == MirrorReason::None;
    let state = if effective { MirrorState::Mirrored } else { MirrorState::NotEffective };
    let status = configurator.reaches(state).await?;
    ensure!(status.reason == reason, "{version}, {config_path:?}: {status:?}");
    if effective {
        containerd.pull_exactly(&tagged("1"), &image).await?;
    } else {
        let pulled = containerd.pull(&tagged("1")).await;
        ensure!(pulled.is_err(), "{version} uses the mirror in spite of {status:?}");
        kitchen.upstream_was_silent().await?;
    }
    let served = kitchen.larder.metrics().await?.served(HOST);
    ensure!((served > 0) == effective, "{served} bytes served: {status:?}");
    configurator.stop().await
}
