//! Eight images that eight pulls at once want, and what Larder's store may look like then.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use larder_e2e::{
    clients::Raw,
    configurator,
    containerd::{Containerd, Pulled, Version},
    digest,
    image::{Edition, Image, SHELF},
    larder::{Ground, Larder, Upstream},
    process::eventually,
    registry::{Kind, Registry},
    relay::{Relay, Shape},
    sandbox::Sandbox,
};

/// Images under the registry's own address, so that containerd can go there by itself; a line to
/// it, Larder, and a containerd that is sent to Larder first.
pub(crate) struct Shelf {
    pub(crate) registry: Registry,
    pub(crate) line: Relay,
    pub(crate) larder: Larder,
    pub(crate) containerd: Containerd,
    pub(crate) images: Vec<Shelved>,
}

/// An image and its name.
pub(crate) struct Shelved {
    repository: String,
    tag: String,
    pub(crate) reference: String,
    pub(crate) image: Image,
}

impl Shelf {
    pub(crate) async fn stocked(
        sandbox: &Sandbox,
        version: Version,
        ground: Ground,
        shape: Shape,
    ) -> Result<Self> {
        let kind = if version == Version::V1_7 { Kind::Distribution } else { Kind::DockerRegistry };
        let registry = Registry::start(kind, &sandbox.folder("up")?).await?;
        let host = registry.address().to_string();
        let mut images = Vec::new();
        for (number, recipe) in (1..).zip(&SHELF) {
            for (tag, edition) in (1..).zip(Edition::ALL) {
                let (repository, tag) = (format!("shelf/app{number}"), tag.to_string());
                let reference = format!("{host}/{repository}:{tag}");
                let image = Image::of(recipe, edition)?;
                image.push(&sandbox.folder("push")?, &reference).await?;
                images.push(Shelved { repository, tag, reference, image });
            }
        }
        let line = Relay::start(registry.address(), shape).await?;
        let upstream = Upstream::at(&host, line.address());
        let larder = Larder::start_on(ground, &sandbox.folder("larder")?, &[upstream]).await?;
        let containerd = Containerd::start(version, &sandbox.folder("c")?).await?;
        configurator::once(&larder, &containerd).await?;
        Ok(Self { registry, line, larder, containerd, images })
    }

    /// Each blob and manifest of a pull, once.
    pub(crate) fn content(&self) -> BTreeMap<&str, u64> {
        let objects = self.images.iter().flat_map(|shelved| {
            let image = &shelved.image;
            image.blobs().chain(image.manifests())
        });
        objects.map(|object| (object.digest.as_str(), object.size)).collect()
    }

    /// Bytes of all that.
    pub(crate) fn size(&self) -> u64 {
        self.content().values().sum()
    }

    /// All images at once; nobody tries twice.
    pub(crate) async fn pull_all(&self) -> Result<Vec<Pulled>> {
        pull_all(&self.containerd, &self.images).await
    }

    /// Takes the images out of containerd.
    pub(crate) async fn remove_all(&self) -> Result<()> {
        for shelved in &self.images {
            self.containerd.remove(&shelved.reference).await?;
        }
        Ok(())
    }

    /// All images at once over plain HTTP from Larder alone.
    pub(crate) async fn fetch_all(&self) -> Result<()> {
        let raw = Raw::new(self.larder.address(), &self.registry.address().to_string())?;
        let fetches = self
            .images
            .iter()
            .map(|shelved| raw.pull(&shelved.repository, &shelved.tag, &shelved.image));
        join_all(fetches).await.into_iter().collect()
    }

    /// Empties Larder.
    pub(crate) async fn wipe(&mut self) -> Result<()> {
        if self.larder.is_started() {
            self.larder.stop().await?;
        }
        fs::remove_dir_all(self.larder.store())?;
        self.larder.start_again().await
    }

    /// The digests of the stored blobs, which are hashed for it.
    pub(crate) fn stored(&self) -> Result<Vec<String>> {
        check_blobs(&self.larder.store())
    }

    /// Checks the store of a running Larder that has just served everything: nothing unfinished,
    /// nothing in quarantine, all blobs there and right.
    pub(crate) async fn check_full_store(&self) -> Result<()> {
        let store = self.larder.store();
        eventually("nothing unfinished is left in partial/", Duration::from_secs(10), || {
            Ok(files(&store.join("partial"))?.is_empty())
        })
        .await?;
        let quarantined = files(&store.join("quarantine"))?;
        ensure!(quarantined.is_empty(), "in quarantine: {quarantined:?}");
        let stored = check_blobs(&store)?;
        for digest in self.content().into_keys() {
            ensure!(stored.iter().any(|stored| stored == digest), "{digest} is not stored");
        }
        Ok(())
    }
}

/// All images at once, beside something that happens to Larder.
pub(crate) async fn pull_all(containerd: &Containerd, images: &[Shelved]) -> Result<Vec<Pulled>> {
    let pulls =
        images.iter().map(|shelved| containerd.pull_exactly(&shelved.reference, &shelved.image));
    join_all(pulls).await.into_iter().collect::<Result<_>>().context("a pull failed")
}

/// Checks what lies in the store of a Larder that was killed: whole blobs under their names, and
/// of unfinished ones the beginning, which can be resumed.
pub(crate) fn check_killed_store(store: &Path, images: &[Shelved]) -> Result<()> {
    check_blobs(store)?;
    for path in files(&store.join("partial/sha256"))? {
        let digest = format!("sha256:{}", name(&path)?);
        let holder = images.iter().find(|shelved| shelved.image.all().contains(&*digest));
        let holder = holder.with_context(|| format!("{digest} is of no image"))?;
        let (wanted, held) = (holder.image.content(&digest)?, fs::read(&path)?);
        ensure!(wanted.starts_with(&held), "the {} bytes of {digest} are wrong", held.len());
    }
    Ok(())
}

/// Hashes every stored blob.
fn check_blobs(store: &Path) -> Result<Vec<String>> {
    let mut stored = Vec::new();
    for path in files(&store.join("blobs"))? {
        let digest = digest::of_file(&path)?;
        ensure!(digest == format!("sha256:{}", name(&path)?), "{} is {digest}", path.display());
        stored.push(digest);
    }
    Ok(stored)
}

fn name(path: &Path) -> Result<&str> {
    path.file_name().and_then(|name| name.to_str()).context("a name of text")
}

/// All files below. What vanishes meanwhile is not there.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))?
        {
            let entry = entry?;
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(_) => found.push(entry.path()),
                Err(_) => {}
            }
        }
    }
    Ok(found)
}
