//! The configuration of the node caches. No I/O.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use larder_crds::{
    node::{API_VERSION, NodeConfig, Upstream},
    resources::UpstreamRegistry,
};

use crate::{
    proxy_cache::validate::ValidCache,
    upstream_registry::validate::{Named, files_hash, validate},
};

/// Key and file name of the NodeConfig.
pub const CONFIG_FILE: &str = "node.yaml";
/// Key and file name of the token that reports need.
pub const REPORT_TOKEN: &str = "report-token";

/// The upstreams of a configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Upstreams {
    /// Entries, by host.
    pub entries: Vec<Upstream>,
    /// Files that they name.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// The valid ones of `chosen`, and of the others what was in force before, if anything was: a
/// Secret that is deleted by mistake must not end the mirror of a registry.
pub fn last_good(
    chosen: &[Arc<UpstreamRegistry>],
    all: &[Arc<UpstreamRegistry>],
    named: &Named,
    before: Option<(&ConfigMap, &Secret)>,
) -> Upstreams {
    let before =
        before.map(|(config_map, secret)| in_force(config_map, secret)).unwrap_or_default();
    let mut upstreams = Upstreams::default();
    for registry in chosen {
        let host = &registry.spec.host;
        let already = upstreams.entries.iter().any(|entry| entry.host == *host);
        match validate(registry, all, named) {
            Ok(valid) => {
                upstreams.entries.retain(|entry| entry.host != *host);
                upstreams.entries.push(valid.entry);
                upstreams.files.extend(valid.files);
            }
            Err(_) if already => {}
            Err(_) => {
                let Some(old) = before.entries.iter().find(|entry| entry.host == *host) else {
                    continue;
                };
                let named = [
                    &old.tls.ca_file,
                    &old.tls.client_cert_file,
                    &old.tls.client_key_file,
                    &old.credentials_file,
                ];
                let files = named.into_iter().filter_map(|name| before.files.get_key_value(name));
                for (name, content) in files {
                    upstreams.files.entry(name.clone()).or_insert_with(|| content.clone());
                }
                upstreams.entries.push(old.clone());
            }
        }
    }
    upstreams
}

fn in_force(config_map: &ConfigMap, secret: &Secret) -> Upstreams {
    let text = config_map.data.as_ref().and_then(|data| data.get(CONFIG_FILE));
    let parsed = text.and_then(|text| NodeConfig::parse(text).ok());
    let files =
        secret.data.iter().flatten().map(|(name, data)| (name.clone(), data.0.clone())).collect();
    Upstreams { entries: parsed.map(|parsed| parsed.config.upstreams).unwrap_or_default(), files }
}

/// The document. Its first line changes when a file beside it does, so that its hash, by which a
/// node says what it has, covers those as well.
pub fn render(valid: &ValidCache, upstreams: &Upstreams, token: &str) -> String {
    let mut files = upstreams.files.clone();
    files.insert(REPORT_TOKEN.to_owned(), token.as_bytes().to_vec());
    let config = NodeConfig {
        api_version: API_VERSION.to_owned(),
        kind: "NodeConfig".to_owned(),
        storage: valid.storage.clone(),
        containerd: valid.containerd.clone(),
        report_token_file: REPORT_TOKEN.to_owned(),
        upstreams: upstreams.entries.clone(),
    };
    // It is made of texts and numbers only.
    let document = serde_yaml::to_string(&config).unwrap_or_default();
    format!("# files sha256={}\n{document}", files_hash(&files))
}
