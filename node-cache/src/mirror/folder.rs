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

/// All names of the registry whose folder is called `name`, in the same order.
pub fn candidates_beside(name: &str) -> Vec<String> {
    let port = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((host, number)) = name.strip_suffix('_').and_then(|rest| rest.rsplit_once('_'))
        && port(number)
    {
        return vec![name.to_owned(), format!("{host}:{number}")];
    }
    match name.rsplit_once(':') {
        Some((host, number)) => vec![format!("{host}_{number}_"), name.to_owned()],
        None => vec![name.to_owned()],
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
            for name in &names {
                assert_eq!(candidates_beside(name), names);
            }
        }
        assert_eq!(candidates_beside("a_b_"), ["a_b_"]);
    }
}
