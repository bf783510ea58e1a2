//! Under which names containerd looks for a registry's folder.

use crate::oci::UpstreamHost;

/// The folder for registries without one of their own.
pub const DEFAULT: &str = "_default";

/// The names in the order in which containerd tries them; the first is also the one to create.
/// A colon cannot stand in a file name everywhere, so containerd has a form without.
pub fn candidates(host: &UpstreamHost) -> Vec<String> {
    let host = host.as_str();
    // As containerd does it: by the last colon, also that of an IPv6 address without a port.
    match host.rsplit_once(':') {
        Some((name, port)) => vec![format!("{name}_{port}_"), host.to_owned()],
        None => vec![host.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_without_a_colon_comes_first() {
        for (host, names) in [
            ("docker.io", vec!["docker.io"]),
            ("reg.test:5000", vec!["reg.test_5000_", "reg.test:5000"]),
            ("[::1]:5000", vec!["[::1]_5000_", "[::1]:5000"]),
        ] {
            assert_eq!(candidates(&host.parse().unwrap()), names);
        }
    }
}
