use std::sync::Arc;

use larder_crds::{
    node::NodeConfig,
    resources::{ProxyCache, UpstreamRegistry},
};
use serde_json::{Value, json};

use super::*;
use crate::{proxy_cache::validate::validate, upstream_registry::validate::Named};

fn cache(spec: &Value) -> ValidCache {
    let cache: ProxyCache = serde_json::from_value(json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "ProxyCache",
        "metadata": {"name": "main", "uid": "u1"}, "spec": spec,
    }))
    .unwrap();
    validate(&Arc::new(cache), &[], &[], &[]).unwrap()
}

fn registry(spec: &Value) -> Arc<UpstreamRegistry> {
    let registry = json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "UpstreamRegistry",
        "metadata": {"name": "r"}, "spec": spec,
    });
    Arc::new(serde_json::from_value(registry).unwrap())
}

fn installed() -> Installed {
    Installed {
        namespace: "larder".to_owned(),
        image: "reg/larder:1".to_owned(),
        pull_policy: "IfNotPresent".to_owned(),
        pull_secrets: Vec::new(),
        architectures: vec![Architecture::Amd64, Architecture::Arm64],
    }
}

fn planned(spec: &Value, chosen: &[Arc<UpstreamRegistry>], before: Option<&Objects>) -> Objects {
    let before = before.map(|objects| (&objects.config_map, &objects.secret));
    let upstreams = last_good(chosen, chosen, &Named::default(), before);
    plan(&cache(spec), &upstreams, "t".repeat(64), &installed()).unwrap()
}

fn config(objects: &Objects) -> NodeConfig {
    let text = &objects.config_map.data.as_ref().unwrap()[CONFIG_FILE];
    let parsed = NodeConfig::parse(text).unwrap();
    assert_eq!((parsed.rejected, parsed.unknown_fields), (Vec::new(), Vec::new()));
    parsed.config
}

#[test]
fn every_object_has_its_name_labels_and_owner() {
    let objects = planned(&json!({}), &[registry(&json!({"host": "docker.io"}))], None);
    let all = [
        &objects.config_map.metadata,
        &objects.secret.metadata,
        &objects.daemon_set.metadata,
        &objects.service.metadata,
    ];
    for metadata in all {
        assert_eq!(metadata.name.as_deref(), Some("larder-main"));
        assert_eq!(metadata.namespace.as_deref(), Some("larder"));
        assert_eq!(metadata.labels.as_ref().unwrap()[labels::CACHE], "main");
        let owner = &metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!(
            (&*owner.uid, owner.controller, owner.block_owner_deletion),
            ("u1", Some(true), Some(true))
        );
    }
}

#[test]
fn no_container_has_more_rights_than_it_needs() {
    let objects = planned(&json!({}), &[], None);
    let pod = objects.daemon_set.spec.template.spec.unwrap();
    assert_eq!(pod.automount_service_account_token, Some(false));
    let containers: Vec<_> =
        pod.init_containers.unwrap().into_iter().chain(pod.containers).collect();
    let rights: Vec<_> = containers
        .iter()
        .map(|container| {
            let security = container.security_context.as_ref().unwrap();
            assert_eq!(security.read_only_root_filesystem, Some(true));
            assert_eq!(security.allow_privilege_escalation, Some(false));
            let capabilities = security.capabilities.as_ref().unwrap();
            assert_eq!(capabilities.drop, Some(vec!["ALL".to_owned()]));
            (&*container.name, security.run_as_user.unwrap(), capabilities.add.clone())
        })
        .collect();
    let chown = Some(vec!["CHOWN".to_owned()]);
    assert_eq!(rights, [("own", 0, chown), ("server", UID, None), ("configurator", 0, None)]);
}

#[test]
fn pods_go_where_the_image_runs_whatever_else_a_user_asks_for() {
    let term = json!({"matchExpressions": [{"key": "size", "operator": "Exists"}]});
    let terms = json!({"nodeSelectorTerms": [term, term]});
    let asked = json!({"requiredDuringSchedulingIgnoredDuringExecution": terms});
    for (spec, terms) in [(json!({}), 1), (json!({"nodes": {"affinity": asked}}), 2)] {
        let pod = planned(&spec, &[], None).daemon_set.spec.template.spec.unwrap();
        let affinity = pod.affinity.unwrap().node_affinity.unwrap();
        let required = affinity.required_during_scheduling_ignored_during_execution.unwrap();
        assert_eq!(required.node_selector_terms.len(), terms);
        for term in required.node_selector_terms {
            let arch = term.match_expressions.unwrap().pop().unwrap();
            assert_eq!((&*arch.key, &*arch.operator), ("kubernetes.io/arch", "In"));
            assert_eq!(arch.values.unwrap(), ["amd64", "arm64"]);
        }
    }
}

#[test]
fn a_changed_registry_changes_the_configuration_and_no_pod() {
    let one = planned(&json!({}), &[registry(&json!({"host": "docker.io"}))], None);
    let changed = json!({"host": "docker.io", "tags": {"refreshInterval": "60s"}});
    let other = planned(&json!({}), &[registry(&changed)], None);
    assert_ne!(one.config_hash, other.config_hash);
    assert_eq!(one.daemon_set, other.daemon_set);
    assert_eq!(config(&other).upstreams[0].tags.refresh_interval.to_string(), "1m");
}

#[test]
fn what_was_good_stays_when_a_registry_becomes_invalid_and_goes_when_it_is_deleted() {
    let before = planned(&json!({}), &[registry(&json!({"host": "docker.io"}))], None);
    let broken = registry(&json!({"host": "docker.io", "credentials": {"secretName": "gone"}}));
    let after = planned(&json!({}), std::slice::from_ref(&broken), Some(&before));
    assert_eq!(config(&after).upstreams, config(&before).upstreams);
    assert_eq!(config(&planned(&json!({}), &[broken], None)).upstreams, []);
    assert_eq!(config(&planned(&json!({}), &[], Some(&before))).upstreams, []);
}

#[test]
fn a_configuration_that_does_not_fit_says_so() {
    let globs: Vec<_> = (0..100).map(|n| format!("{n:0255}")).collect();
    let chosen: Vec<_> = (0..50)
        .map(|n| registry(&json!({"host": format!("r{n}.example"), "repositories": {"allow": globs, "deny": globs}})))
        .collect();
    let upstreams = last_good(&chosen, &chosen, &Named::default(), None);
    let rejected = plan(&cache(&json!({})), &upstreams, String::new(), &installed()).unwrap_err();
    assert_eq!(rejected.reason, CacheReason::ConfigTooLarge);
    assert!(rejected.message.contains("50 upstreams"), "{}", rejected.message);
}

#[test]
fn distributions_have_their_own_folders_and_mounts() {
    let objects = planned(&json!({"containerd": {"distribution": "K3s"}}), &[], None);
    let folder = "/var/lib/rancher/k3s/agent/etc/containerd";
    assert_eq!(
        config(&objects).containerd.certs_dir.to_str().unwrap(),
        format!("{folder}/certs.d")
    );
    let volumes = objects.daemon_set.spec.template.spec.unwrap().volumes.unwrap();
    let paths: Vec<_> =
        volumes.into_iter().filter_map(|volume| volume.host_path).map(|path| path.path).collect();
    assert_eq!(paths, ["/var/lib/larder", folder, &format!("{folder}/certs.d")]);
}
