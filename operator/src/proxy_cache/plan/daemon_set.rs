//! The pods of a cache. No I/O.

use std::{collections::BTreeMap, path::Path};

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet},
        core::v1::{
            Affinity, Capabilities, ConfigMapProjection, Container, ContainerPort,
            EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction, HostPathVolumeSource,
            LocalObjectReference, NodeAffinity, NodeSelector, NodeSelectorRequirement,
            ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
            ProjectedVolumeSource, ResourceRequirements, SeccompProfile, SecretProjection,
            SecurityContext, Toleration, Volume, VolumeMount, VolumeProjection,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use kube::ResourceExt;

use super::{CONFIG_FILE, Installed};
use crate::{
    labels,
    proxy_cache::{placement::Architecture, validate::ValidCache},
};

/// User and group of the servers: a uid of Larder's own, because 65532 is that of half the world's
/// images.
pub const UID: i64 = 50555;

const CONFIG_DIR: &str = "/etc/larder";
const STATE_DIR: &str = "/run/larder";
const STATE_FILE: &str = "/run/larder/mirror.yaml";

/// The DaemonSet's spec.
pub(super) fn spec(valid: &ValidCache, installed: &Installed) -> DaemonSetSpec {
    let name = valid.cache.name_any();
    let pod = &valid.cache.spec.pod;
    let one_in_ten = IntOrString::String("10%".to_owned());
    let at_once =
        pod.update_strategy.as_ref().and_then(|strategy| strategy.max_unavailable.clone());
    DaemonSetSpec {
        selector: LabelSelector {
            match_labels: Some(labels::selector(&name)),
            ..LabelSelector::default()
        },
        template: PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some(labels::labels(&name)),
                annotations: Some(BTreeMap::from([(
                    labels::ADMIN_PORT.to_owned(),
                    valid.cache.spec.endpoint.admin_port.to_string(),
                )])),
                ..ObjectMeta::default()
            }),
            spec: Some(pod_spec(valid, installed)),
        },
        update_strategy: Some(DaemonSetUpdateStrategy {
            type_: Some("RollingUpdate".to_owned()),
            rolling_update: Some(RollingUpdateDaemonSet {
                max_unavailable: Some(at_once.unwrap_or(one_in_ten)),
                max_surge: None,
            }),
        }),
        ..DaemonSetSpec::default()
    }
}

fn pod_spec(valid: &ValidCache, installed: &Installed) -> PodSpec {
    let spec = &valid.cache.spec;
    let nodes = spec.nodes.clone().unwrap_or_default();
    let everything = Toleration { operator: Some("Exists".to_owned()), ..Toleration::default() };
    let mut node_selector = BTreeMap::from([("kubernetes.io/os".to_owned(), "linux".to_owned())]);
    node_selector.extend(nodes.node_selector);
    let class = spec.pod.priority_class_name.clone();
    PodSpec {
        host_network: Some(true),
        dns_policy: Some("Default".to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        priority_class_name: Some(class.unwrap_or_else(|| "system-node-critical".to_owned())),
        termination_grace_period_seconds: Some(30),
        node_selector: Some(node_selector),
        tolerations: Some(nodes.tolerations.unwrap_or_else(|| vec![everything])),
        affinity: Some(Affinity {
            node_affinity: Some(affinity(nodes.affinity, &installed.architectures)),
            ..Affinity::default()
        }),
        image_pull_secrets: (!installed.pull_secrets.is_empty()).then(|| {
            installed
                .pull_secrets
                .iter()
                .map(|name| LocalObjectReference { name: name.clone() })
                .collect()
        }),
        security_context: Some(PodSecurityContext {
            fs_group: Some(UID),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            se_linux_options: spec.pod.se_linux_options.clone(),
            ..PodSecurityContext::default()
        }),
        // In this order: the server is a native sidecar, started before the configurator and stopped
        // after it, so that mirrors are withdrawn while it still answers.
        init_containers: Some(vec![own(valid, installed), server(valid, installed)]),
        containers: vec![configurator(valid, installed)],
        volumes: Some(volumes(valid)),
        ..PodSpec::default()
    }
}

/// The user's affinity, and the architectures that the image is made for.
fn affinity(user: Option<NodeAffinity>, architectures: &[Architecture]) -> NodeAffinity {
    let arch = NodeSelectorRequirement {
        key: "kubernetes.io/arch".to_owned(),
        operator: "In".to_owned(),
        values: Some(architectures.iter().map(ToString::to_string).collect()),
    };
    let mut affinity = user.unwrap_or_default();
    let required =
        affinity.required_during_scheduling_ignored_during_execution.get_or_insert_with(|| {
            NodeSelector {
                node_selector_terms: vec![k8s_openapi::api::core::v1::NodeSelectorTerm::default()],
            }
        });
    for term in &mut required.node_selector_terms {
        term.match_expressions.get_or_insert_default().push(arch.clone());
    }
    affinity
}

fn container(
    name: &str,
    command: &str,
    arguments: Vec<String>,
    installed: &Installed,
    valid: &ValidCache,
) -> Container {
    let image = valid.cache.spec.pod.image.clone();
    let mut args = vec![command.to_owned()];
    args.extend(arguments);
    Container {
        name: name.to_owned(),
        image: Some(image.unwrap_or_else(|| installed.image.clone())),
        image_pull_policy: Some(installed.pull_policy.clone()),
        command: Some(vec!["/larder-node".to_owned()]),
        args: Some(args),
        ..Container::default()
    }
}

fn security(user: i64, capability: Option<&str>) -> SecurityContext {
    SecurityContext {
        run_as_user: Some(user),
        run_as_group: Some(user),
        run_as_non_root: Some(user != 0),
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: capability.map(|name| vec![name.to_owned()]),
        }),
        ..SecurityContext::default()
    }
}

fn resources(cpu: &str, memory: &str, limit: &str) -> ResourceRequirements {
    let quantity = |text: &str| Quantity(text.to_owned());
    ResourceRequirements {
        requests: Some(BTreeMap::from([
            ("cpu".to_owned(), quantity(cpu)),
            ("memory".to_owned(), quantity(memory)),
        ])),
        // No CPU limit: a throttled cache would make pulls slower than none.
        limits: Some(BTreeMap::from([("memory".to_owned(), quantity(limit))])),
        ..ResourceRequirements::default()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None }
}

fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                api_version: Some("v1".to_owned()),
            }),
            ..EnvVarSource::default()
        }),
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Gives the hostPath folder to the server's user: the kubelet's fsGroup does not.
fn own(valid: &ValidCache, installed: &Installed) -> Container {
    let store = text(&valid.storage.path);
    let arguments = vec![
        "--data".to_owned(),
        store.clone(),
        "--uid".to_owned(),
        UID.to_string(),
        "--gid".to_owned(),
        UID.to_string(),
    ];
    Container {
        security_context: Some(security(0, Some("CHOWN"))),
        resources: Some(resources("10m", "16Mi", "64Mi")),
        volume_mounts: Some(vec![mount("store", &store, false)]),
        ..container("own", "own", arguments, installed, valid)
    }
}

fn server(valid: &ValidCache, installed: &Installed) -> Container {
    let spec = &valid.cache.spec;
    let probe = |path: &str| Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(spec.endpoint.admin_port),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(5),
        timeout_seconds: Some(2),
        ..Probe::default()
    };
    let arguments = vec![
        "--config".to_owned(),
        format!("{CONFIG_DIR}/{CONFIG_FILE}"),
        "--listen".to_owned(),
        format!("127.0.0.1:{}", spec.endpoint.port),
        "--admin".to_owned(),
        format!("[::]:{}", spec.endpoint.admin_port),
        "--mirror-state".to_owned(),
        STATE_FILE.to_owned(),
    ];
    let mut env = vec![
        field("LARDER_INSTANCE", "metadata.uid"),
        field("LARDER_NODE_NAME", "spec.nodeName"),
        // With glibc's one arena for each thread, 256 slow clients took 97 MiB instead of 86.
        variable("MALLOC_ARENA_MAX", "1"),
    ];
    env.extend(spec.pod.env.clone());
    Container {
        restart_policy: Some("Always".to_owned()),
        security_context: Some(security(UID, None)),
        resources: Some(
            spec.pod.resources.clone().unwrap_or_else(|| resources("50m", "64Mi", "256Mi")),
        ),
        env: Some(env),
        ports: Some(vec![ContainerPort {
            name: Some("metrics".to_owned()),
            container_port: spec.endpoint.admin_port,
            // What the API server makes of it on the host's network.
            host_port: Some(spec.endpoint.admin_port),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        startup_probe: Some(Probe {
            period_seconds: Some(1),
            failure_threshold: Some(120),
            ..probe("/readyz")
        }),
        readiness_probe: Some(probe("/readyz")),
        liveness_probe: Some(Probe { failure_threshold: Some(3), ..probe("/livez") }),
        volume_mounts: Some(vec![
            mount("store", &text(&valid.storage.path), false),
            mount("config", CONFIG_DIR, true),
            mount("state", STATE_DIR, true),
        ]),
        ..container("server", "serve", arguments, installed, valid)
    }
}

fn configurator(valid: &ValidCache, installed: &Installed) -> Container {
    let files = &valid.containerd;
    let arguments = vec![
        "--config".to_owned(),
        format!("{CONFIG_DIR}/{CONFIG_FILE}"),
        "--certs-dir".to_owned(),
        text(&files.certs_dir),
        "--containerd-config".to_owned(),
        text(&files.config_file),
        "--state".to_owned(),
        STATE_FILE.to_owned(),
        "--mirror".to_owned(),
        format!("http://127.0.0.1:{}", valid.cache.spec.endpoint.port),
    ];
    Container {
        security_context: Some(security(0, None)),
        resources: Some(resources("10m", "16Mi", "64Mi")),
        env: Some(vec![field("LARDER_INSTANCE", "metadata.uid")]),
        volume_mounts: Some(vec![
            // The folder of the configuration first: the folder of mirrors may lie in it. The link of
            // colonPathRepair lies there too: /etc/containerd/certs.d:/etc/docker/certs.d. Its file is
            // not mounted read-only on top: of type File, no pod would start on a node without one; of
            // no type, containerd would make a folder of that name on the node; and a file that an
            // editor replaces would stay the old one in the pod.
            mount("containerd", &text(config_dir(valid)), !valid.containerd.colon_path_repair),
            mount("certs", &text(&files.certs_dir), false),
            mount("config", CONFIG_DIR, true),
            mount("state", STATE_DIR, false),
        ]),
        ..container("configurator", "configure", arguments, installed, valid)
    }
}

fn config_dir(valid: &ValidCache) -> &Path {
    valid.containerd.config_file.parent().unwrap_or(Path::new("/"))
}

fn volumes(valid: &ValidCache) -> Vec<Volume> {
    let host = |name: &str, path: &Path, kind: &str| Volume {
        name: name.to_owned(),
        host_path: Some(HostPathVolumeSource { path: text(path), type_: Some(kind.to_owned()) }),
        ..Volume::default()
    };
    let name = labels::object_name(&valid.cache.name_any());
    let config = ConfigMapProjection { name: name.clone(), ..ConfigMapProjection::default() };
    let secret = SecretProjection { name, ..SecretProjection::default() };
    vec![
        host("store", &valid.storage.path, "DirectoryOrCreate"),
        host("containerd", config_dir(valid), ""),
        host("certs", &valid.containerd.certs_dir, "DirectoryOrCreate"),
        Volume {
            name: "config".to_owned(),
            // One volume, so that configuration and secrets change in one step.
            projected: Some(ProjectedVolumeSource {
                default_mode: Some(0o440),
                default_user: None,
                sources: Some(vec![
                    VolumeProjection { config_map: Some(config), ..VolumeProjection::default() },
                    VolumeProjection { secret: Some(secret), ..VolumeProjection::default() },
                ]),
            }),
            ..Volume::default()
        },
        Volume {
            name: "state".to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: Some(Quantity("1Mi".to_owned())),
                ..EmptyDirVolumeSource::default()
            }),
            ..Volume::default()
        },
    ]
}
