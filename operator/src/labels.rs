//! Names that Larder puts on its objects: labels, annotations, the field manager.

use std::collections::BTreeMap;

use aws_lc_rs::digest;

/// Owner of the fields that the operator sets by server-side apply.
pub const FIELD_MANAGER: &str = "larder-operator";
/// Names the `ProxyCache` that an object belongs to.
pub const CACHE: &str = "larder.dev/proxycache";
/// Hash of what was applied, so that a field that is planned no longer is noticed as well.
pub const APPLIED_HASH: &str = "larder.dev/applied-hash";
/// On pods: hash of the configuration that they should have. Writing it makes the kubelet look at
/// once; without, it looks every 41 to 69 s.
pub const CONFIG_HASH: &str = "larder.dev/config-hash";
/// On pods: where their admin port is.
pub const ADMIN_PORT: &str = "larder.dev/admin-port";

/// The labels that select the pods of a cache; they never change.
pub fn selector(cache: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "larder-node".to_owned()),
        (CACHE.to_owned(), cache.to_owned()),
    ])
}

/// The labels of every object of a cache.
pub fn labels(cache: &str) -> BTreeMap<String, String> {
    let mut labels = selector(cache);
    labels.extend([
        ("app.kubernetes.io/instance".to_owned(), cache.to_owned()),
        ("app.kubernetes.io/component".to_owned(), "node-cache".to_owned()),
        ("app.kubernetes.io/part-of".to_owned(), "larder".to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), FIELD_MANAGER.to_owned()),
    ]);
    labels
}

/// The name of a cache's objects.
pub fn object_name(cache: &str) -> String {
    format!("larder-{cache}")
}

/// Lower-case hex SHA-256.
pub fn hash(bytes: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        use std::fmt::Write;
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_what_sha256sum_prints() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hash(b""), empty);
    }
}
