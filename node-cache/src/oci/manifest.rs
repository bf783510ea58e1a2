//! What a manifest's bytes say about themselves.

use serde::Deserialize;

use super::Digest;

/// Image manifest, OCI.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Image index, OCI.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Image manifest, Docker schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Manifest list, Docker schema 2.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Artifact manifest, withdrawn from OCI 1.1 before its release but still in registries.
pub const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";

/// What the cache asks an upstream for, whatever the client asked for: with a narrower list some
/// registries convert the manifest, and the tag would then point at the conversion.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.oci.artifact.manifest.v1+json, */*;q=0.1";

/// Largest manifest that is cached: 4 MiB, which containerd allows as well (its own bound is
/// 4 * 1048 * 1048 bytes).
pub const MAX_SIZE: usize = 4 << 20;

/// Why bytes are not a manifest that may be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidManifest {
    /// Not a JSON object.
    #[error("the upstream's answer is not a JSON manifest")]
    NotJson,
    /// Docker schema 1, whose digest does not cover its bytes.
    #[error("Docker schema 1 manifests are not supported")]
    Schema1,
    /// The media type in the header and the one in the body differ.
    #[error("the manifest says it is {body:?} but was sent as {header:?}")]
    MediaType {
        /// From `Content-Type`.
        header: String,
        /// From the body's `mediaType`.
        body: String,
    },
    /// It has `manifests` as well as `layers` or `config`, so that two readers could see two
    /// different images (GHSA-qq97-vm5h-rrhg).
    #[error("the manifest is ambiguous: it is an index and an image at once")]
    Ambiguous,
    /// Nothing in it tells what it is.
    #[error("the manifest's media type is unknown")]
    Unknown,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// The media type of a manifest, from its own bytes where they tell. `content_type` is the
/// upstream's header, if the bytes came with one.
pub fn media_type(bytes: &[u8], content_type: Option<&str>) -> Result<String, InvalidManifest> {
    let shape: Shape = serde_json::from_slice(bytes).map_err(|_| InvalidManifest::NotJson)?;
    if shape.fs_layers.is_some() || shape.schema_version == Some(1) {
        return Err(InvalidManifest::Schema1);
    }
    if shape.manifests.is_some() && (shape.layers.is_some() || shape.config.is_some()) {
        return Err(InvalidManifest::Ambiguous);
    }
    // Parameters such as `charset` are not part of the type. Generic types say nothing.
    let header = content_type
        .map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
        .filter(|value| {
            !matches!(
                value.as_str(),
                "" | "application/json" | "application/octet-stream" | "text/plain"
            )
        });
    match (shape.media_type, header) {
        (Some(body), Some(header)) if !body.eq_ignore_ascii_case(&header) => {
            Err(InvalidManifest::MediaType { header, body })
        }
        (Some(body), _) if is_media_type(&body) => Ok(body),
        (None, Some(header)) if is_media_type(&header) && header != "text/html" => Ok(header),
        (None, _) if shape.manifests.is_some() => Ok(OCI_INDEX.to_owned()),
        (None, _) if shape.layers.is_some() && shape.config.is_some() => {
            Ok(OCI_MANIFEST.to_owned())
        }
        _ => Err(InvalidManifest::Unknown),
    }
}

/// What a manifest names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Children {
    /// Manifests of an index.
    pub manifests: Vec<Digest>,
    /// Configuration and layers of an image.
    pub blobs: Vec<Digest>,
}

/// The digests that a manifest names; none for what is not a manifest. For display only: that a
/// manifest names a digest gives nobody the right to read it.
pub fn children(bytes: &[u8]) -> Children {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Manifest {
        manifests: Vec<Descriptor>,
        config: Option<Descriptor>,
        layers: Vec<Descriptor>,
    }
    #[derive(Deserialize)]
    struct Descriptor {
        digest: String,
    }
    let digests = |descriptors: Vec<Descriptor>| {
        descriptors.into_iter().filter_map(|child| child.digest.parse().ok()).collect()
    };
    let Ok(manifest) = serde_json::from_slice::<Manifest>(bytes) else {
        return Children::default();
    };
    Children {
        manifests: digests(manifest.manifests),
        blobs: digests(manifest.config.into_iter().chain(manifest.layers).collect()),
    }
}

/// Whether `text` may stand in a `Content-Type` header: `type/subtype` of token characters.
fn is_media_type(text: &str) -> bool {
    let token = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    text.len() <= 255
        && text.split_once('/').is_some_and(|(kind, subtype)| token(kind) && token(subtype))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_media_type_is_read_from_the_bytes_or_else_from_the_header() {
        let docker = format!(r#"{{"schemaVersion":2,"mediaType":"{DOCKER_LIST}","manifests":[]}}"#);
        let shouted = r#"{"mediaType":"application/VND.example+json"}"#;
        let table: [(&str, Option<&str>, &str); 7] = [
            (shouted, Some("application/vnd.example+json"), "application/VND.example+json"),
            (&docker, Some(DOCKER_LIST), DOCKER_LIST),
            (&docker, None, DOCKER_LIST),
            (&docker, Some("application/json; charset=utf-8"), DOCKER_LIST),
            (r#"{"schemaVersion":2,"manifests":[]}"#, None, OCI_INDEX),
            (r#"{"schemaVersion":2,"config":{},"layers":[]}"#, None, OCI_MANIFEST),
            (r#"{"x":1}"#, Some("application/vnd.example+json"), "application/vnd.example+json"),
        ];
        for (body, header, expected) in table {
            assert_eq!(media_type(body.as_bytes(), header).as_deref(), Ok(expected), "{body}");
        }
    }

    #[test]
    fn t07_manifests_that_two_readers_could_read_differently_are_refused() {
        let list_as_image = format!(r#"{{"mediaType":"{DOCKER_LIST}","manifests":[]}}"#);
        let table: [(&str, Option<&str>, InvalidManifest); 7] = [
            ("<html>login</html>", Some("text/html"), InvalidManifest::NotJson),
            ("[]", None, InvalidManifest::NotJson),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, None, InvalidManifest::Schema1),
            (r#"{"manifests":[],"layers":[]}"#, Some(OCI_INDEX), InvalidManifest::Ambiguous),
            (
                &list_as_image,
                Some(OCI_MANIFEST),
                InvalidManifest::MediaType {
                    header: OCI_MANIFEST.to_owned(),
                    body: DOCKER_LIST.to_owned(),
                },
            ),
            (r#"{"error":"x"}"#, Some("application/json"), InvalidManifest::Unknown),
            (r#"{"mediaType":"a/b\r\nX: y","layers":[]}"#, None, InvalidManifest::Unknown),
        ];
        for (body, header, expected) in table {
            assert_eq!(media_type(body.as_bytes(), header), Err(expected), "{body}");
        }
    }
}
