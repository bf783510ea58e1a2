//! Clients that name the upstream in the path.

use anyhow::Result;
use larder_e2e::{
    clients,
    image::{Edition, Image, SMALL},
    registry::Kind,
    relay::{Mode, Shape},
    sandbox::{Sandbox, Told, story},
};

use crate::node::{Kitchen, tagged};

#[test]
fn skopeo_and_crane_copy_an_image_of_distribution_by_its_path() -> Told {
    story(async |sandbox| both_copy(sandbox, Kind::Distribution).await)
}

#[test]
fn skopeo_and_crane_copy_an_image_of_docker_registry_by_its_path() -> Told {
    story(async |sandbox| both_copy(sandbox, Kind::DockerRegistry).await)
}

/// Both platforms, every blob hashed: first from the upstream, then without it.
async fn both_copy(sandbox: &Sandbox, kind: Kind) -> Result<()> {
    let image = Image::of(&SMALL, Edition::First)?;
    let mut kitchen = Kitchen::with(sandbox, kind, &image, Shape::LOOPBACK).await?;
    let reference = kitchen.larder.path_form(&tagged("1"));
    let (cold, warm) = (sandbox.folder("cold")?, sandbox.folder("warm")?);
    clients::skopeo_copy(&reference, &cold, &image).await?;
    kitchen.registry.sent_once(kitchen.earlier, image.all()).await?;
    clients::crane_pull(&reference, &cold, &image).await?;
    kitchen.registry.sent_once(kitchen.earlier, image.all()).await?;

    kitchen.forget_requests().await?;
    kitchen.line.set(Mode::Refuse).await?;
    clients::crane_pull(&reference, &warm, &image).await?;
    clients::skopeo_copy(&reference, &warm, &image).await?;
    kitchen.upstream_was_silent().await
}
