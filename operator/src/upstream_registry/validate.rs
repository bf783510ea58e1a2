//! From an `UpstreamRegistry` to what a node cache is told about it. No I/O.

mod pem;

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;
use larder_crds::{
    Duration,
    node::{self, Upstream},
    resources::{
        AccessMode, CaBundle, KeyRef, Tags, Timeouts, Tls, UpstreamReason, UpstreamRegistry,
    },
};

use crate::labels;

/// What users' objects say, by name, from Larder's namespace.
#[derive(Clone, Debug, Default)]
pub struct Named {
    /// Secrets.
    pub secrets: BTreeMap<String, Arc<Secret>>,
    /// ConfigMaps.
    pub config_maps: BTreeMap<String, Arc<ConfigMap>>,
}

/// An entry of the node caches' configuration, and the files that it names.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidUpstream {
    /// The entry.
    pub entry: Upstream,
    /// Files beside the configuration, by name.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// Why an UpstreamRegistry is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// One of a closed list.
    pub reason: UpstreamReason,
    /// The field, what is wrong with it, and what to do.
    pub message: String,
}

type Checked<T> = Result<T, Rejected>;

fn rejected<T>(reason: UpstreamReason, message: impl Into<String>) -> Checked<T> {
    Err(Rejected { reason, message: message.into() })
}

/// Checks one registry against all of them and the objects that it names.
pub fn validate(
    registry: &UpstreamRegistry,
    all: &[Arc<UpstreamRegistry>],
    named: &Named,
) -> Checked<ValidUpstream> {
    let spec = &registry.spec;
    if let Some(owner) = older_with_same_host(registry, all) {
        let message = format!(
            "spec.host: UpstreamRegistry {owner} is older and has {} already; delete one of the two",
            spec.host
        );
        return rejected(UpstreamReason::HostTaken, message);
    }
    let mut entry = Upstream::new(&spec.host);
    let mut files = BTreeMap::new();
    entry.endpoints = spec
        .endpoints
        .iter()
        .map(|endpoint| node::Endpoint { url: endpoint.url.clone() })
        .collect();
    let tls = spec.tls.clone().unwrap_or_default();
    let insecure = tls.insecure.as_ref().map(|insecure| insecure.reason.clone());
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        // As the rule of the definition, which an object may be older than.
        if endpoint.url.to_ascii_lowercase().starts_with("http:") && insecure.is_none() {
            let message = format!(
                "spec.endpoints[{index}].url: {} has no TLS; use https, or say in spec.tls.insecure.reason \
                 why that is acceptable",
                endpoint.url
            );
            return rejected(UpstreamReason::InvalidSpec, message);
        }
    }
    entry.tls = check_tls(&tls, &spec.host, named, &mut files)?;
    entry.tls.insecure_reason = insecure.unwrap_or_default();
    if let Some(credentials) = &spec.credentials {
        let name = file_name("credentials", &spec.host, "");
        let text = check_credentials(&credentials.secret_name, &spec.host, named)?;
        files.insert(name.clone(), text);
        entry.credentials_file = name;
    }
    if let Some(access) = &spec.access {
        if access.mode == AccessMode::Shared && spec.credentials.is_none() {
            let message =
                "spec.access.mode: Shared needs spec.credentials: it is with them that pods read";
            return rejected(UpstreamReason::InvalidSpec, message);
        }
        entry.access = node::Access {
            mode: match access.mode {
                AccessMode::Anonymous => node::AccessMode::Anonymous,
                AccessMode::Shared => node::AccessMode::Shared,
            },
            repositories: access.repositories.clone(),
        };
    }
    entry.token_realms.clone_from(&spec.token_realms);
    entry.proxy = spec.proxy.clone().unwrap_or_default();
    entry.tags = check_tags(&spec.tags.clone().unwrap_or_default())?;
    if let Some(repositories) = &spec.repositories {
        if !repositories.allow.is_empty() {
            entry.repositories.allow.clone_from(&repositories.allow);
        }
        entry.repositories.deny.clone_from(&repositories.deny);
    }
    entry.timeouts = check_timeouts(&spec.timeouts.clone().unwrap_or_default())?;
    Ok(ValidUpstream { entry, files })
}

/// The registry that wins over this one: the older, then the one whose name comes first.
fn older_with_same_host(
    registry: &UpstreamRegistry,
    all: &[Arc<UpstreamRegistry>],
) -> Option<String> {
    let age = |registry: &UpstreamRegistry| {
        (registry.metadata.creation_timestamp.clone().map(|time| time.0), registry.name_any())
    };
    all.iter()
        .filter(|other| other.spec.host == registry.spec.host)
        .filter(|other| other.name_any() != registry.name_any())
        .filter(|other| other.metadata.deletion_timestamp.is_none())
        .find(|other| age(other) < age(registry))
        .map(|other| other.name_any())
}

/// A name that is allowed as a key of a Secret: hosts with a port have a colon.
fn file_name(kind: &str, host: &str, ending: &str) -> String {
    format!("{kind}-{}{ending}", host.replace(':', "_"))
}

fn check_tags(tags: &Tags) -> Checked<node::Tags> {
    let mut checked = node::Tags { immutable: tags.immutable.clone(), ..node::Tags::default() };
    if let Some(text) = &tags.refresh_interval {
        checked.refresh_interval = duration("spec.tags.refreshInterval", text)?;
    }
    if let Some(text) = &tags.stale_if_error {
        checked.stale_if_error = duration("spec.tags.staleIfError", text)?;
    }
    Ok(checked)
}

fn check_timeouts(timeouts: &Timeouts) -> Checked<node::Timeouts> {
    let mut checked = node::Timeouts::default();
    if let Some(text) = &timeouts.connect {
        checked.connect = duration("spec.timeouts.connect", text)?;
    }
    if let Some(text) = &timeouts.first_byte {
        checked.first_byte = duration("spec.timeouts.firstByte", text)?;
    }
    if let Some(text) = &timeouts.stall {
        checked.stall = duration("spec.timeouts.stall", text)?;
    }
    Ok(checked)
}

fn duration(field: &str, text: &str) -> Checked<Duration> {
    text.parse().or_else(|error| rejected(UpstreamReason::InvalidSpec, format!("{field}: {error}")))
}

fn check_tls(
    tls: &Tls,
    host: &str,
    named: &Named,
    files: &mut BTreeMap<String, Vec<u8>>,
) -> Checked<node::Tls> {
    let mut checked = node::Tls::default();
    if let Some(bundle) = &tls.ca_bundle {
        let (field, pem) = ca_bundle(bundle, named)?;
        if let Err(problem) = pem::check_authorities(&pem) {
            return rejected(UpstreamReason::CaInvalid, format!("{field} {problem}"));
        }
        checked.ca_file = file_name("ca", host, ".crt");
        files.insert(checked.ca_file.clone(), pem);
    }
    if let Some(client) = &tls.client_certificate {
        let field = "spec.tls.clientCertificate.secretName";
        let secret = secret(field, &client.secret_name, named)?;
        let key = |key: &str| secret_key(field, &client.secret_name, secret, key);
        let (certificate, private) = (key("tls.crt")?, key("tls.key")?);
        if !pem::fit_together(&certificate, &private) {
            let message = format!(
                "{field}: tls.crt and tls.key of Secret {} must be a PEM certificate (X.509) and the private key that belongs to it",
                client.secret_name
            );
            return rejected(UpstreamReason::ClientCertificateInvalid, message);
        }
        checked.client_cert_file = file_name("client", host, ".crt");
        checked.client_key_file = file_name("client", host, ".key");
        files.insert(checked.client_cert_file.clone(), certificate);
        files.insert(checked.client_key_file.clone(), private);
    }
    Ok(checked)
}

fn ca_bundle(bundle: &CaBundle, named: &Named) -> Checked<(String, Vec<u8>)> {
    let field = "spec.tls.caBundle";
    if let Some(text) = &bundle.inline {
        return Ok((format!("{field}.inline"), text.clone().into_bytes()));
    }
    if let Some(KeyRef { name, key }) = &bundle.config_map {
        let field = format!("{field}.configMap: key {key} of ConfigMap {name}");
        let Some(found) = named.config_maps.get(name) else {
            let message =
                format!("{field}: there is no such ConfigMap in Larder's namespace; create it");
            return rejected(UpstreamReason::ConfigMapNotFound, message);
        };
        let text = found
            .data
            .as_ref()
            .and_then(|data| data.get(key))
            .map(|text| text.clone().into_bytes());
        let binary =
            || found.binary_data.as_ref().and_then(|data| data.get(key)).map(|data| data.0.clone());
        return match text.or_else(binary) {
            Some(pem) => Ok((field, pem)),
            None => rejected(
                UpstreamReason::CaInvalid,
                format!("{field}: the ConfigMap has no such key"),
            ),
        };
    }
    if let Some(KeyRef { name, key }) = &bundle.secret {
        let label = format!("{field}.secret: key {key} of Secret {name}");
        let found = secret("spec.tls.caBundle.secret.name", name, named)?;
        return Ok((label.clone(), secret_key(&label, name, found, key)?));
    }
    rejected(
        UpstreamReason::InvalidSpec,
        format!("{field} needs one of inline, configMap and secret"),
    )
}

fn secret<'a>(field: &str, name: &str, named: &'a Named) -> Checked<&'a Secret> {
    match named.secrets.get(name) {
        Some(secret) => Ok(secret),
        None => rejected(
            UpstreamReason::SecretNotFound,
            format!("{field}: there is no Secret {name} in Larder's namespace; create it"),
        ),
    }
}

fn secret_key(field: &str, name: &str, secret: &Secret, key: &str) -> Checked<Vec<u8>> {
    match secret.data.as_ref().and_then(|data| data.get(key)) {
        Some(data) => Ok(data.0.clone()),
        None => rejected(
            UpstreamReason::SecretInvalid,
            format!("{field}: Secret {name} has no key {key}"),
        ),
    }
}

const DOCKER_CONFIG: &str = "kubernetes.io/dockerconfigjson";
const BASIC: &str = "kubernetes.io/basic-auth";

/// A user name and password as the node cache reads them, whichever form the Secret has.
fn check_credentials(name: &str, host: &str, named: &Named) -> Checked<Vec<u8>> {
    let field = "spec.credentials.secretName";
    let secret = secret(field, name, named)?;
    let kind = secret.type_.as_deref().unwrap_or("Opaque");
    match kind {
        DOCKER_CONFIG => {
            let data = secret_key(field, name, secret, ".dockerconfigjson")?;
            let problem = match serde_json::from_slice::<serde_json::Value>(&data) {
                Ok(document) => docker_entry(&document, host).err(),
                Err(_) => Some("is not JSON".to_owned()),
            };
            match problem {
                None => Ok(data),
                Some(problem) => rejected(
                    UpstreamReason::SecretInvalid,
                    format!("{field}: .dockerconfigjson of Secret {name} {problem}"),
                ),
            }
        }
        BASIC => {
            let text = |key: &str| {
                let data = secret_key(field, name, secret, key)?;
                String::from_utf8(data).or_else(|_| {
                    let message = format!("{field}: {key} of Secret {name} is not UTF-8");
                    rejected(UpstreamReason::SecretInvalid, message)
                })
            };
            let document =
                serde_json::json!({"username": text("username")?, "password": text("password")?});
            Ok(document.to_string().into_bytes())
        }
        other => rejected(
            UpstreamReason::SecretInvalid,
            format!("{field}: Secret {name} has type {other}; expected {DOCKER_CONFIG} or {BASIC}"),
        ),
    }
}

/// Whether a Docker configuration has an entry for the registry that can be used.
fn docker_entry(document: &serde_json::Value, host: &str) -> Result<(), String> {
    let Some(auths) = document.get("auths").and_then(|auths| auths.as_object()) else {
        return Err("has no auths".to_owned());
    };
    let is_host = |key: &str| {
        let key = key.trim_start_matches("https://").trim_start_matches("http://");
        let key = key.split('/').next().unwrap_or_default();
        let hub = ["docker.io", "index.docker.io", "registry-1.docker.io"];
        key == host || (host == "docker.io" && hub.contains(&key))
    };
    let Some((_, entry)) = auths.iter().find(|(key, _)| is_host(key)) else {
        let found: Vec<_> = auths.keys().map(String::as_str).take(5).collect();
        return Err(format!("has no entry for {host}, only for: {}", found.join(", ")));
    };
    let text = |key: &str| entry.get(key).and_then(|value| value.as_str());
    let pair = text("username").is_some() && text("password").is_some();
    let auth = text("auth")
        .is_some_and(|auth| BASE64_STANDARD.decode(auth).is_ok_and(|pair| pair.contains(&b':')));
    if pair || auth {
        return Ok(());
    }
    Err(format!("has an entry for {host} without username and password, or auth"))
}

/// Identifies a set of files, for noticing that one has changed.
pub fn files_hash(files: &BTreeMap<String, Vec<u8>>) -> String {
    let mut all = Vec::new();
    for (name, content) in files {
        all.extend_from_slice(format!("{name} {}\n", labels::hash(content)).as_bytes());
    }
    labels::hash(&all)
}

#[cfg(test)]
mod tests;
