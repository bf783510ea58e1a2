//! Many clients at once.

use anyhow::Result;
use larder_e2e::{
    clients, configurator,
    containerd::{Containerd, Version},
    image::{Edition, Image, SMALL},
    registry::Kind,
    relay::Shape,
    sandbox::{Sandbox, Told, story},
};

use crate::node::{HOST, Kitchen, REPOSITORY, tagged};

#[test]
fn eight_clients_at_once_on_a_cold_image_cost_distribution_each_blob_once() -> Told {
    story(async |sandbox| eight_clients_at_once(sandbox, Kind::Distribution).await)
}

#[test]
fn eight_clients_at_once_on_a_cold_image_cost_docker_registry_each_blob_once() -> Told {
    story(async |sandbox| eight_clients_at_once(sandbox, Kind::DockerRegistry).await)
}

/// Three containerds, skopeo, crane and three clients of plain HTTP.
async fn eight_clients_at_once(sandbox: &Sandbox, kind: Kind) -> Result<()> {
    let image = Image::of(&SMALL, Edition::First)?;
    // At the speed of loopback the first would be through before the last has asked.
    let shape = Shape { rate: 8_000_000, ..Shape::GIGABIT };
    let kitchen = Kitchen::with(sandbox, kind, &image, shape).await?;
    let [oldest, middle, newest] = Version::ALL.map(async |version| {
        let containerd = Containerd::start(version, &sandbox.folder(&version.to_string())?).await?;
        configurator::once(&kitchen.larder, &containerd).await?;
        anyhow::Ok(containerd)
    });
    let (oldest, middle, newest) = tokio::try_join!(oldest, middle, newest)?;

    let name = tagged("1");
    let path_form = kitchen.larder.path_form(&name);
    let (skopeo, crane) = (sandbox.folder("skopeo")?, sandbox.folder("crane")?);
    let raw = kitchen.raw()?;
    let pull = || raw.pull(REPOSITORY, "1", &image);
    tokio::try_join!(
        oldest.pull_exactly(&name, &image),
        middle.pull_exactly(&name, &image),
        newest.pull_exactly(&name, &image),
        clients::skopeo_copy(&path_form, &skopeo, &image),
        clients::crane_pull(&path_form, &crane, &image),
        pull(),
        pull(),
        pull(),
    )?;

    kitchen.registry.sent_once(kitchen.earlier, image.all()).await?;
    let fetched = kitchen.larder.metrics().await?.fetched(HOST);
    anyhow::ensure!(
        fetched == image.size_of_all(),
        "{fetched} bytes fetched for {}",
        image.size_of_all()
    );
    Ok(())
}
