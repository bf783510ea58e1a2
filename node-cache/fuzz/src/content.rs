//! Digests and manifests.

use http::HeaderValue;
use larder_node_cache::oci::{
    Algorithm, Digest,
    manifest::{children, media_type},
};

use super::first_line;

/// A digest as text, and as the digest of the input.
///
/// It prints as it was written, and its parts are safe as file names.
pub fn digest(data: &[u8]) {
    for algorithm in Algorithm::ALL {
        let digest = Digest::of(algorithm, data);
        assert_eq!(digest.to_string().parse().as_ref(), Ok(&digest));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(digest) = text.parse::<Digest>() else { return };
    assert_eq!(digest.to_string(), text);
    assert!(digest.hex().bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(Digest::from_parts(digest.algorithm(), digest.hex()), Ok(digest));
}

/// A `Content-Type`, then the bytes of a manifest.
///
/// The type that is found may stand in a header; sent with that header, the same bytes have the
/// same type. What a manifest names was in its bytes.
pub fn manifest(data: &[u8]) {
    let (header, body) = first_line(data);
    let header = std::str::from_utf8(header).ok();
    for header in [None, header] {
        let Ok(found) = media_type(body, header) else { continue };
        assert!(HeaderValue::from_str(&found).is_ok() && found.len() <= 255, "{found:?}");
        assert!(found.contains('/') && !found.contains([';', ' ', ',']), "{found:?}");
        assert_eq!(media_type(body, Some(&found)).as_ref(), Ok(&found));
    }
    let named = children(body);
    let all: Vec<Digest> = named.manifests.into_iter().chain(named.blobs).collect();
    let length: usize = all.iter().map(|digest| digest.to_string().len()).sum();
    assert!(length <= body.len(), "{} digests in {} bytes", all.len(), body.len());
}
