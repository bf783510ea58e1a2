//! The folder format of images: `oci-layout`, `index.json`, `blobs/sha256/*`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    Edition, Image, Object, Recipe,
    files::{self, Source},
    layer::{Codec, Layer, Writer},
    program,
};
use crate::digest;

const MEGABYTE: u64 = 1_000_000;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const TAG: &str = "org.opencontainers.image.ref.name";

/// Where the program of an image that runs is.
const PROGRAM: &str = "/wait";

/// The platform that containerd on this machine pulls, in Go's words.
pub(super) fn this_platform() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

fn other_platform() -> &'static str {
    match this_platform() {
        "amd64" => "arm64",
        _ => "amd64",
    }
}

pub(super) fn blob_path(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs").join(digest.replacen(':', "/", 1))
}

/// Writes the layout of a recipe into an empty folder.
pub(super) fn build(layout: &Path, recipe: &Recipe, editions: &[Edition]) -> Result<()> {
    create(layout)?;
    let mut sources = files::endless()?;
    let program = if recipe.runs { Some(program::waiting()?) } else { None };
    let Some(((last_codec, last_size), shared)) = recipe.layers.split_last() else {
        return Ok(());
    };
    let mut layers = Vec::new();
    for (number, (codec, megabytes)) in shared.iter().enumerate() {
        let label = format!("{} layer {number}", recipe.name);
        layers.push(filled(layout, *codec, *megabytes, &label, None, &mut sources)?);
    }
    let mut images = Vec::new();
    for edition in editions {
        let label = format!("{} {}", recipe.name, edition.tag());
        let mut own = layers.clone();
        let program = program.as_deref();
        own.push(filled(layout, *last_codec, *last_size, &label, program, &mut sources)?);
        let foreign = format!("{label} elsewhere");
        let foreign = filled(layout, Codec::Gzip, 0, &foreign, None, &mut sources)?;
        let config = json!({
            "Cmd": [if recipe.runs { PROGRAM } else { "/usr/bin/true" }],
            "Labels": { "dev.larder.edition": edition.tag() },
        });
        let index = write_json(
            layout,
            INDEX,
            &json!({
                "schemaVersion": 2,
                "mediaType": INDEX,
                "manifests": [
                    manifest(layout, other_platform(), &config, &[foreign])?,
                    manifest(layout, this_platform(), &config, &own)?,
                ],
            }),
        )?;
        images.push(tagged(index, edition.tag()));
    }
    finish(layout, &images)
}

/// The folders of an empty layout.
pub(super) fn create(layout: &Path) -> Result<()> {
    let folder = layout.join("blobs/sha256");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))
}

/// What makes a folder of blobs a layout: the list of its images.
pub(super) fn finish(layout: &Path, tagged: &[Value]) -> Result<()> {
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": tagged });
    fs::write(layout.join("index.json"), index.to_string())?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(())
}

/// A descriptor with the name under which clients find it in a layout.
pub(super) fn tagged(mut descriptor: Value, tag: &str) -> Value {
    descriptor["annotations"] = json!({ TAG: tag });
    descriptor
}

/// Writes a layer of `megabytes` (compressed): a file `etc/larder` that says `label`, the program
/// if there is one, then as many of `sources` as it takes.
fn filled(
    layout: &Path,
    codec: Codec,
    megabytes: u64,
    label: &str,
    program: Option<&[u8]>,
    sources: &mut impl Iterator<Item = Source>,
) -> Result<Layer> {
    let mut layer = Writer::new(layout, codec)?;
    layer.file(Path::new("etc/larder"), 0o644, format!("{label}\n").as_bytes())?;
    if let Some(program) = program {
        layer.file(Path::new(PROGRAM.trim_start_matches('/')), 0o755, program)?;
    }
    while layer.size() < megabytes * MEGABYTE {
        let Some(source) = sources.next() else { break };
        // Read whole: a file that grows under way would break the archive.
        let Ok(bytes) = fs::read(&source.path) else { continue };
        let mode = if source.name.starts_with("usr/bin") { 0o755 } else { 0o644 };
        let packed = layer.file(&source.name, mode, &bytes);
        packed.with_context(|| format!("packing {}", source.path.display()))?;
    }
    layer.finish()
}

/// Writes configuration and manifest; returns the manifest's descriptor with its platform.
pub(super) fn manifest(
    layout: &Path,
    architecture: &str,
    config: &Value,
    layers: &[Layer],
) -> Result<Value> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| &layer.diff_id).collect();
    let history: Vec<_> = layers.iter().map(|_| json!({ "created_by": "larder" })).collect();
    let config = write_json(
        layout,
        CONFIG,
        &json!({
            "architecture": architecture,
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": history,
        }),
    )?;
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| json!({ "mediaType": layer.media_type, "digest": layer.blob.digest, "size": layer.blob.size }))
        .collect();
    let mut descriptor = write_json(
        layout,
        MANIFEST,
        &json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": layers,
        }),
    )?;
    descriptor["platform"] = json!({ "architecture": architecture, "os": "linux" });
    Ok(descriptor)
}

/// Writes a document as a blob; returns its descriptor.
fn write_json(layout: &Path, media_type: &str, document: &Value) -> Result<Value> {
    let text = document.to_string();
    let digest = digest::of(text.as_bytes());
    fs::write(blob_path(layout, &digest), &text)?;
    Ok(json!({ "mediaType": media_type, "digest": digest, "size": text.len() }))
}

/// Follows the digests from the tag down.
pub(super) fn read(layout: &Path, edition: Edition) -> Result<Image> {
    let text = fs::read_to_string(layout.join("index.json"))?;
    let tags: Value = serde_json::from_str(&text)?;
    let tagged =
        find(&tags["manifests"], |descriptor| descriptor["annotations"][TAG] == edition.tag())?;
    let index = read_json(layout, tagged)?;
    let of_platform = |architecture: &str| {
        find(&index["manifests"], |descriptor| {
            descriptor["platform"]["architecture"] == architecture
        })
    };
    let ours = of_platform(this_platform())?;
    let manifest = read_json(layout, ours)?;
    let others = of_platform(other_platform())?;
    let foreign = read_json(layout, others)?;
    let mut other_platform = vec![object(others)?, object(&foreign["config"])?];
    other_platform.extend(objects(&foreign["layers"])?);
    Ok(Image {
        layout: layout.to_owned(),
        edition,
        index: object(tagged)?,
        manifest: object(ours)?,
        config: object(&manifest["config"])?,
        layers: objects(&manifest["layers"])?,
        other_platform,
    })
}

fn read_json(layout: &Path, descriptor: &Value) -> Result<Value> {
    let path = blob_path(layout, &object(descriptor)?.digest);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(serde_json::from_str(&text)?)
}

fn find(descriptors: &Value, wanted: impl Fn(&Value) -> bool) -> Result<&Value> {
    let mut descriptors = descriptors.as_array().into_iter().flatten();
    descriptors
        .find(|descriptor| wanted(descriptor))
        .context("a descriptor is missing in the layout")
}

fn object(descriptor: &Value) -> Result<Object> {
    let digest = descriptor["digest"].as_str().context("a descriptor without digest")?.to_owned();
    let size = descriptor["size"].as_u64().context("a descriptor without size")?;
    Ok(Object { digest, size })
}

fn objects(descriptors: &Value) -> Result<Vec<Object>> {
    descriptors.as_array().into_iter().flatten().map(object).collect()
}

/// The digests of a layout that a client wrote, after all its blobs have been hashed.
pub fn verify(layout: &Path) -> Result<BTreeSet<String>> {
    let folder = layout.join("blobs/sha256");
    let mut digests = BTreeSet::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))? {
        let path = entry?.path();
        let digest = digest::of_file(&path)?;
        ensure!(blob_path(layout, &digest) == path, "{} holds {digest}", path.display());
        digests.insert(digest);
    }
    Ok(digests)
}
