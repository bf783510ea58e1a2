//! The objects of one cache. No I/O.

mod config;
mod daemon_set;

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::DaemonSet,
        core::v1::{ConfigMap, Secret, Service, ServicePort, ServiceSpec},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Resource, ResourceExt};
use larder_crds::resources::CacheReason;

pub use config::{CONFIG_FILE, REPORT_TOKEN, Upstreams, last_good, render};
pub use daemon_set::UID;

use super::{
    placement::Architecture,
    validate::{Rejected, ValidCache},
};
use crate::labels;

/// What the operator was installed with.
#[derive(Clone, Debug)]
pub struct Installed {
    /// Namespace of the operator and of everything that it makes.
    pub namespace: String,
    /// Image of the node cache.
    pub image: String,
    /// Its pull policy.
    pub pull_policy: String,
    /// Names of pull secrets in the namespace.
    pub pull_secrets: Vec<String>,
    /// Architectures that the image is built for.
    pub architectures: Vec<Architecture>,
}

/// Everything that one cache consists of.
#[derive(Clone, Debug, PartialEq)]
pub struct Objects {
    /// Hash of the configuration, as the node caches report it.
    pub config_hash: String,
    /// The NodeConfig.
    pub config_map: ConfigMap,
    /// Credentials, certificates, report token.
    pub secret: Secret,
    /// The pods.
    pub daemon_set: DaemonSet,
    /// For scraping.
    pub service: Service,
}

/// What an object of the API server may hold: etcd takes 1.5 MiB, the API server 1 MiB of data.
const MAX_DATA: usize = 1 << 20;

/// Plans all objects. `token` is the report token in force, if there is one.
pub fn plan(
    valid: &ValidCache,
    upstreams: &Upstreams,
    token: String,
    installed: &Installed,
) -> Result<Objects, Rejected> {
    let text = render(valid, upstreams, &token);
    let files: usize = upstreams.files.values().map(Vec::len).sum();
    for (what, size) in [("the configuration", text.len()), ("credentials and certificates", files)]
    {
        if size > MAX_DATA - 4096 {
            let message = format!(
                "{what} of {} upstreams is {size} bytes, more than the {MAX_DATA} that an object may hold; \
                 use fewer UpstreamRegistries (spec.upstreams), or shorter lists in them",
                upstreams.entries.len()
            );
            return Err(Rejected { reason: CacheReason::ConfigTooLarge, message });
        }
    }
    let config_hash = labels::hash(text.as_bytes());
    let metadata = || metadata(valid, &installed.namespace);
    let mut secrets: BTreeMap<String, ByteString> = upstreams
        .files
        .iter()
        .map(|(name, data)| (name.clone(), ByteString(data.clone())))
        .collect();
    secrets.insert(REPORT_TOKEN.to_owned(), ByteString(token.into_bytes()));
    Ok(Objects {
        config_hash,
        config_map: ConfigMap {
            metadata: metadata(),
            data: Some(BTreeMap::from([(CONFIG_FILE.to_owned(), text)])),
            ..ConfigMap::default()
        },
        secret: Secret {
            metadata: metadata(),
            type_: Some("Opaque".to_owned()),
            data: Some(secrets),
            ..Secret::default()
        },
        daemon_set: DaemonSet {
            metadata: metadata(),
            spec: daemon_set::spec(valid, installed),
            status: None,
        },
        service: service(valid, metadata()),
    })
}

/// Name, labels and owner of every object, in one place.
fn metadata(valid: &ValidCache, namespace: &str) -> ObjectMeta {
    let name = valid.cache.name_any();
    ObjectMeta {
        name: Some(labels::object_name(&name)),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels::labels(&name)),
        owner_references: valid
            .cache
            .controller_owner_ref(&())
            .map(|owner| vec![OwnerReference { block_owner_deletion: Some(true), ..owner }]),
        ..ObjectMeta::default()
    }
}

fn service(valid: &ValidCache, metadata: ObjectMeta) -> Service {
    Service {
        metadata,
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            selector: Some(labels::selector(&valid.cache.name_any())),
            ports: Some(vec![ServicePort {
                name: Some("metrics".to_owned()),
                port: valid.cache.spec.endpoint.admin_port,
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests;
