//! What a registry holds: generated blobs, manifests, tags.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use larder_node_cache::oci::{Algorithm, Digest};
use serde_json::{Value, json};

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Bytes without a pattern, the same ones for the same seed.
pub fn noise(seed: u64, size: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    Bytes::from(bytes)
}

/// A seed of one's own for a story, so that no two stories share a blob.
pub fn seed(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

pub fn sha256(bytes: &[u8]) -> String {
    Digest::of(Algorithm::Sha256, bytes).to_string()
}

pub fn sha512(bytes: &[u8]) -> String {
    Digest::of(Algorithm::Sha512, bytes).to_string()
}

/// Bytes with their digest.
#[derive(Clone, Debug)]
pub struct Blob {
    pub digest: String,
    pub bytes: Bytes,
}

impl Blob {
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { digest: sha256(&bytes), bytes }
    }

    pub fn noise(seed: u64, size: usize) -> Self {
        Self::new(noise(seed, size))
    }
}

/// A manifest as it goes over the wire.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub media_type: String,
    pub digest: String,
    pub bytes: Bytes,
}

impl Manifest {
    pub fn new(media_type: &str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { media_type: media_type.to_owned(), digest: sha256(&bytes), bytes }
    }

    /// An image of one layer. Written with odd white space: whoever re-serialises it is found out.
    pub fn image(config: &Blob, layer: &Blob) -> Self {
        let body = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, config),
            "layers": [descriptor(OCI_LAYER, layer)],
        });
        Self::new(OCI_MANIFEST, format!("{body:#}\n \n"))
    }

    /// An index of one image.
    pub fn index(image: &Self) -> Self {
        let body = json!({
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [{
                "mediaType": image.media_type, "digest": image.digest, "size": image.bytes.len(),
                "platform": {"os": "linux", "architecture": "amd64"},
            }],
        });
        Self::new(OCI_INDEX, format!("\t{body}"))
    }
}

fn descriptor(media_type: &str, blob: &Blob) -> Value {
    json!({"mediaType": media_type, "digest": blob.digest, "size": blob.bytes.len()})
}

/// An image: index, manifest, config, one layer.
#[derive(Clone, Debug)]
pub struct Image {
    pub index: Manifest,
    pub manifest: Manifest,
    pub config: Blob,
    pub layer: Blob,
}

impl Image {
    /// An image of its own for every seed.
    pub fn generate(seed: u64, layer_size: usize) -> Self {
        let layer = Blob::noise(seed, layer_size);
        let config =
            Blob::new(format!("{{\"architecture\":\"amd64\",\"os\":\"linux\",\"seed\":{seed}}}"));
        let manifest = Manifest::image(&config, &layer);
        Self { index: Manifest::index(&manifest), manifest, config, layer }
    }
}

/// One repository.
#[derive(Clone, Debug, Default)]
pub struct Repository {
    pub blobs: HashMap<String, Bytes>,
    pub manifests: HashMap<String, Manifest>,
    pub tags: BTreeMap<String, String>,
    pub door: Door,
}

/// Who may read a repository.
#[derive(Clone, Debug, Default)]
pub enum Door {
    /// Everybody, without a token.
    #[default]
    Open,
    /// `robot:s3cret`, asked for with `Basic`.
    Basic,
    /// Whoever has a token; `public` repositories take anonymous ones.
    Bearer {
        /// Where tokens are to be had.
        realm: String,
        /// Whether an anonymous token opens it.
        public: bool,
    },
}

impl Repository {
    pub fn put_blob(&mut self, bytes: &Bytes) {
        self.blobs.insert(sha256(bytes), bytes.clone());
        self.blobs.insert(sha512(bytes), bytes.clone());
    }

    pub fn put_manifest(&mut self, manifest: &Manifest) {
        self.manifests.insert(manifest.digest.clone(), manifest.clone());
        self.manifests.insert(sha512(&manifest.bytes), manifest.clone());
    }

    pub fn put_image(&mut self, tag: &str, image: &Image) {
        self.put_blob(&image.layer.bytes);
        self.put_blob(&image.config.bytes);
        self.put_manifest(&image.manifest);
        self.put_manifest(&image.index);
        self.tags.insert(tag.to_owned(), image.index.digest.clone());
    }

    pub fn manifest(&self, reference: &str) -> Option<&Manifest> {
        self.manifests.get(self.tags.get(reference).map_or(reference, String::as_str))
    }
}
