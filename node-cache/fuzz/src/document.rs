//! Configurations.

use std::{io, time::Duration};

use larder_crds::node::NodeConfig;
use larder_node_cache::config::Config;

/// A `NodeConfig` as text.
///
/// What was read is written and read the same, and a configuration in force keeps the promises
/// that the data path builds on.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(parsed) = NodeConfig::parse(text) {
        let written = serde_yaml::to_string(&parsed.config).expect("a document can be written");
        let again = NodeConfig::parse(&written).expect("what was written can be read");
        assert_eq!(again.config, parsed.config, "{written}");
        assert!(again.rejected.is_empty() && again.unknown_fields.is_empty(), "{written}");
    }
    let no_files = |_: &str| Err(io::Error::from(io::ErrorKind::NotFound));
    let Ok(config) = Config::parse(text, &no_files) else { return };
    assert!(config.storage.path.is_absolute());
    assert!(config.storage.capacity.bytes() >= 64 << 20);
    for (host, upstream) in &config.upstreams {
        assert_eq!(host, &upstream.host);
        assert!(!upstream.endpoints.is_empty(), "{host}");
        assert!(upstream.credentials.is_none(), "{host} has credentials out of nowhere");
        let timeouts = upstream.timeouts;
        for bound in [timeouts.connect, timeouts.first_byte, timeouts.stall] {
            assert!(bound <= Duration::from_secs(10), "{host}: {bound:?}");
        }
        for endpoint in &upstream.endpoints {
            let plain = endpoint.scheme() == "http";
            assert!(plain || endpoint.scheme() == "https", "{endpoint}");
            assert!(endpoint.password().is_none(), "{endpoint}");
        }
    }
}
