//! Images of real files of this machine, built once and kept as OCI layouts.
//!
//! A layout holds every [`Edition`] of an image under a tag of its own. Editions share all layers
//! but the last, small one: pushing another one under the same name is what moves a tag.

mod files;
mod layer;
mod layout;
mod program;
pub mod static_image;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};

use crate::{digest, process, tools};
pub use layer::Codec;
pub use layout::verify;
pub use program::waiting as waiting_program;

/// Part of the name under which images are kept: raise it when they are built differently.
const RECIPE: &str = "3";

/// What an image is made of.
#[derive(Debug)]
pub struct Recipe {
    name: &'static str,
    /// Codec and compressed megabytes of each layer. The last one is the edition's own.
    layers: &'static [(Codec, u64)],
    /// Whether a container can be made of it: it then waits until it is told to stop.
    runs: bool,
}

/// Three layers, about 4 MB: quick to pull.
pub const SMALL: Recipe = Recipe {
    name: "small",
    layers: &[(Codec::Gzip, 2), (Codec::Zstd, 2), (Codec::Gzip, 0)],
    runs: false,
};

/// The same as [`SMALL`] for pods: its program waits for SIGTERM, or ends at once when the first
/// argument is `done`.
pub const APP: Recipe = Recipe {
    name: "app",
    layers: &[(Codec::Gzip, 2), (Codec::Zstd, 2), (Codec::Gzip, 0)],
    runs: true,
};

/// One layer with that program and nothing else: what keeps a pod's namespaces.
pub const PAUSE: Recipe = Recipe { name: "pause", layers: &[(Codec::Gzip, 0)], runs: true };

/// Four images of four layers, about 5 MB each; with both editions eight, two of which share all
/// layers but the last.
pub const SHELF: [Recipe; 4] =
    [shelf("shelf-1"), shelf("shelf-2"), shelf("shelf-3"), shelf("shelf-4")];

const fn shelf(name: &'static str) -> Recipe {
    let layers = &[(Codec::Gzip, 1), (Codec::Zstd, 3), (Codec::Gzip, 1), (Codec::Zstd, 0)];
    Recipe { name, layers, runs: false }
}

/// Six layers, about 300 MB: what a language runtime with its libraries looks like. Its program is
/// that of [`APP`].
pub const BIG: Recipe = Recipe {
    name: "big",
    layers: &[
        (Codec::Gzip, 96),
        (Codec::Zstd, 76),
        (Codec::Gzip, 60),
        (Codec::Zstd, 40),
        (Codec::Zstd, 24),
        (Codec::Gzip, 4),
    ],
    runs: true,
};

/// One of the images of a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edition {
    /// What is pushed first.
    First,
    /// The same but for its last layer and a label.
    Second,
}

impl Edition {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::First, Self::Second];

    fn tag(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Second => "second",
        }
    }
}

/// Something with a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// `sha256:...`.
    pub digest: String,
    /// Bytes.
    pub size: u64,
}

/// A multi-arch image: an index of two platforms, of which this machine's is the real one.
#[derive(Clone, Debug)]
pub struct Image {
    layout: PathBuf,
    edition: Edition,
    /// The index, which a tag points to.
    pub index: Object,
    /// The manifest of this machine's platform.
    pub manifest: Object,
    /// The configuration of this machine's platform; containerd's id of the image.
    pub config: Object,
    /// The layers of this machine's platform.
    pub layers: Vec<Object>,
    /// Manifest, configuration and layer of the other platform, which no node asks for.
    pub other_platform: Vec<Object>,
}

impl Image {
    /// Takes it from the image cache, or builds it there first.
    pub fn of(recipe: &Recipe, edition: Edition) -> Result<Self> {
        layout::read(&kept(recipe)?, edition)
    }

    /// What a pull on this machine fetches from `/blobs/`.
    pub fn blobs(&self) -> impl Iterator<Item = &Object> {
        self.layers.iter().chain([&self.config])
    }

    /// What a pull on this machine fetches from `/manifests/`.
    pub fn manifests(&self) -> impl Iterator<Item = &Object> {
        [&self.index, &self.manifest].into_iter()
    }

    /// Bytes that a pull on this machine fetches.
    pub fn size(&self) -> u64 {
        self.blobs().chain(self.manifests()).map(|object| object.size).sum()
    }

    /// Bytes of both platforms: what a copy of the whole image fetches.
    pub fn size_of_all(&self) -> u64 {
        self.size() + self.other_platform.iter().map(|object| object.size).sum::<u64>()
    }

    /// Every digest of both platforms.
    pub fn all(&self) -> BTreeSet<&str> {
        let objects = self.blobs().chain(self.manifests()).chain(&self.other_platform);
        objects.map(|object| object.digest.as_str()).collect()
    }

    /// The bytes of a blob or manifest of it.
    pub fn content(&self, digest: &str) -> Result<Vec<u8>> {
        let path = layout::blob_path(&self.layout, digest);
        fs::read(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Pushes both platforms to `HOST:PORT/REPOSITORY:TAG` over plain HTTP, as they are.
    pub async fn push(&self, home: &Path, reference: &str) -> Result<()> {
        let mut command = process::command(&tools::debian("skopeo")?, home);
        command
            .args(["copy", "--all", "--preserve-digests", "--dest-tls-verify=false", "--quiet"])
            .arg(format!("oci:{}:{}", self.layout.display(), self.edition.tag()))
            .arg(format!("docker://{reference}"));
        process::run(command).await.with_context(|| format!("pushing {reference}"))?;
        Ok(())
    }
}

/// The layout of a recipe. Built only if it is not there: by one thread of this process, and what
/// another process builds meanwhile is the same.
fn kept(recipe: &Recipe) -> Result<PathBuf> {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _alone = BUILDING.lock();

    let cache = tools::image_cache()?;
    let path = cache.join(format!("{}-{}", recipe.name, key(recipe)?));
    if path.exists() {
        return Ok(path);
    }
    fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
    let building = tempfile::Builder::new().prefix(".build-").tempdir_in(&cache)?;
    layout::build(building.path(), recipe, &Edition::ALL)?;
    if let Err(error) = fs::rename(building.path(), &path)
        && !path.exists()
    {
        return Err(error).with_context(|| format!("keeping {}", path.display()));
    }
    forget_older(&cache, recipe, &path);
    Ok(path)
}

/// Images are made of what is installed: another set of packages, other images.
fn key(recipe: &Recipe) -> Result<String> {
    let packages = fs::read("/var/lib/dpkg/status").context("the list of installed packages")?;
    let what = format!("{RECIPE} {recipe:?} {} {}", std::env::consts::ARCH, digest::of(&packages));
    let digest = digest::of(what.as_bytes());
    Ok(digest.trim_start_matches("sha256:").chars().take(16).collect())
}

/// Removes what was built from other packages a day ago or earlier, and what was never finished.
/// In use or not: a story that fails for it is told again.
fn forget_older(cache: &Path, recipe: &Recipe, current: &Path) {
    const KEPT: Duration = Duration::from_hours(24);
    let prefix = format!("{}-", recipe.name);
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let built = entry.metadata().and_then(|metadata| metadata.modified());
        let old = built
            .is_ok_and(|built| SystemTime::now().duration_since(built).is_ok_and(|age| age > KEPT));
        if old
            && entry.path() != current
            && (name.starts_with(&prefix) || name.starts_with(".build-"))
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
