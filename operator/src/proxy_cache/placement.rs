//! Which nodes a cache is meant for, as the scheduler would decide. No I/O.

use std::{collections::BTreeMap, fmt, sync::Arc};

use clap::ValueEnum;
use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration,
};
use kube::ResourceExt;
use larder_crds::resources::ProxyCache;

use super::problems::first_of;

/// What the image of the node cache may be built for, as nodes are labelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Architecture {
    /// x86-64.
    Amd64,
    /// 64-bit ARM.
    Arm64,
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        })
    }
}

/// Which nodes a cache is meant for.
#[derive(Clone, Copy, Debug)]
pub struct Placement<'a> {
    cache: &'a ProxyCache,
    architectures: &'a [Architecture],
}

impl<'a> Placement<'a> {
    /// Where this cache's pods go, with an image for these architectures.
    pub fn of(cache: &'a ProxyCache, architectures: &'a [Architecture]) -> Self {
        Self { cache, architectures }
    }

    /// Whether a node gets a pod.
    pub fn allows(self, node: &Node) -> bool {
        self.has_image_for(node) && self.chooses(node)
    }

    /// What to say about the nodes that the cache is meant for and the image is not, if there are any.
    pub fn without_image(self, nodes: &[Arc<Node>]) -> Option<String> {
        let mut by_architecture = BTreeMap::<&str, Vec<String>>::new();
        for node in nodes.iter().filter(|node| self.chooses(node) && !self.has_image_for(node)) {
            by_architecture.entry(architecture(node)).or_default().push(node.name_any());
        }
        let nodes = match by_architecture.values().map(Vec::len).sum() {
            0 => return None,
            1 => "1 node has".to_owned(),
            count => format!("{count} nodes have"),
        };
        let named = by_architecture.iter_mut().map(|(architecture, names)| {
            names.sort();
            format!("{architecture}: {}", first_of(names))
        });
        Some(format!(
            "{nodes} an architecture that the image is not built for ({}): set the chart's image.architectures",
            named.collect::<Vec<_>>().join("; ")
        ))
    }

    fn has_image_for(self, node: &Node) -> bool {
        let found = architecture(node);
        self.architectures.iter().any(|built| built.to_string() == found)
    }

    /// Whether a node would get a pod if the image ran there.
    fn chooses(self, node: &Node) -> bool {
        let labels = node.labels();
        let has = |key: &str, value: &str| labels.get(key).is_some_and(|found| found == value);
        if !has("kubernetes.io/os", "linux") {
            return false;
        }
        let Some(nodes) = &self.cache.spec.nodes else {
            return true;
        };
        if !nodes.node_selector.iter().all(|(key, value)| has(key, value)) {
            return false;
        }
        let required = nodes.affinity.as_ref().and_then(|affinity| {
            affinity.required_during_scheduling_ignored_during_execution.as_ref()
        });
        if let Some(required) = required
            && !required.node_selector_terms.iter().any(|term| matches(term, node))
        {
            return false;
        }
        let Some(tolerations) = &nodes.tolerations else {
            return true;
        };
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
        taints.into_iter().flatten().all(|taint| {
            taint.effect == "PreferNoSchedule"
                || is_daemon_sets_own(&taint.key)
                || tolerations.iter().any(|toleration| tolerates(toleration, taint))
        })
    }
}

fn architecture(node: &Node) -> &str {
    node.labels().get("kubernetes.io/arch").map_or("unknown", String::as_str)
}

/// Taints that the DaemonSet controller tolerates by itself.
fn is_daemon_sets_own(key: &str) -> bool {
    [
        "not-ready",
        "unreachable",
        "disk-pressure",
        "memory-pressure",
        "pid-pressure",
        "unschedulable",
        "network-unavailable",
    ]
    .iter()
    .any(|own| key.strip_prefix("node.kubernetes.io/") == Some(own))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    let key = toleration.key.as_deref().unwrap_or_default();
    match toleration.operator.as_deref() {
        Some("Exists") => key.is_empty() || key == taint.key,
        _ => {
            key == taint.key
                && toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default()
        }
    }
}

fn matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let name = node.name_any();
    expressions
        .iter()
        .all(|wanted| holds(wanted, node.labels().get(&wanted.key).map(String::as_str)))
        && fields
            .iter()
            .all(|wanted| holds(wanted, (wanted.key == "metadata.name").then_some(name.as_str())))
}

fn holds(wanted: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    let listed = found.is_some_and(|found| values.iter().any(|value| value == found));
    let number = |text: &str| text.parse::<i64>().ok();
    let compare = |holds: fn(&i64, &i64) -> bool| {
        let bound = values.first().and_then(|value| number(value));
        matches!((found.and_then(number), bound), (Some(found), Some(bound)) if holds(&found, &bound))
    };
    match wanted.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compare(i64::gt),
        "Lt" => compare(i64::lt),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(labels: &serde_json::Value, taints: &serde_json::Value) -> Node {
        let mut all = json!({"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"});
        all.as_object_mut().unwrap().extend(labels.as_object().unwrap().clone());
        serde_json::from_value(
            json!({"metadata": {"name": "n1", "labels": all}, "spec": {"taints": taints}}),
        )
        .unwrap()
    }

    fn cache(nodes: &serde_json::Value) -> ProxyCache {
        serde_json::from_value(json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "ProxyCache", "metadata": {"name": "main"},
            "spec": {"nodes": nodes},
        }))
        .unwrap()
    }

    #[test]
    fn by_default_every_linux_node_of_the_images_architecture_has_a_cache_tainted_or_not() {
        let cache = cache(&json!(null));
        let taint =
            json!([{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]);
        let placement = Placement::of(&cache, &[Architecture::Amd64]);
        assert!(placement.allows(&node(&json!({}), &taint)));
        for other in
            [json!({"kubernetes.io/os": "windows"}), json!({"kubernetes.io/arch": "arm64"})]
        {
            assert!(!placement.allows(&node(&other, &json!([]))), "{other}");
        }
        let both = Placement::of(&cache, &[Architecture::Amd64, Architecture::Arm64]);
        assert!(both.allows(&node(&json!({"kubernetes.io/arch": "arm64"}), &json!([]))));
    }

    #[test]
    fn nodes_that_are_chosen_and_that_the_image_does_not_run_on_are_named() {
        let named = |name: &str, labels: &serde_json::Value| {
            let mut node = node(labels, &json!([]));
            node.metadata.name = Some(name.to_owned());
            Arc::new(node)
        };
        let arm = json!({"kubernetes.io/arch": "arm64", "pool": "a"});
        let nodes = [
            named("n1", &json!({"pool": "a"})),
            named("n8", &arm),
            named("n7", &arm),
            named("n6", &json!({"kubernetes.io/arch": "arm64", "pool": "b"})),
            named("n5", &json!({"kubernetes.io/arch": "s390x", "pool": "a"})),
            named("n4", &json!({"kubernetes.io/os": "windows", "pool": "a"})),
        ];
        let cache = cache(&json!({"nodeSelector": {"pool": "a"}}));
        let said = |architectures: &[Architecture], nodes: &[Arc<Node>]| {
            Placement::of(&cache, architectures).without_image(nodes)
        };
        assert_eq!(
            said(&[Architecture::Amd64], &nodes).unwrap(),
            "3 nodes have an architecture that the image is not built for (arm64: n7, n8; s390x: n5): \
             set the chart's image.architectures"
        );
        let both = [Architecture::Amd64, Architecture::Arm64];
        assert!(said(&both, &nodes).unwrap().starts_with("1 node has an architecture"));
        assert_eq!(said(&both, &nodes[..4]), None);
        let many: Vec<_> = (10..30).map(|number| named(&format!("n{number}"), &arm)).collect();
        let text = said(&[Architecture::Amd64], &many).unwrap();
        assert!(text.contains("(arm64: n10, n11, n12 and 17 more)"), "{text}");
    }

    #[test]
    fn selectors_affinity_and_tolerations_decide_as_the_scheduler_does() {
        let affinity = |operator: &str, values: &[&str]| {
            json!({"affinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "size", "operator": operator, "values": values}]}
            ]}}})
        };
        let sized = json!({"size": "4"});
        let gpu = json!([{"key": "gpu", "value": "a100", "effect": "NoSchedule"}]);
        let tolerations = |toleration: serde_json::Value| json!({"tolerations": [toleration]});
        let table = [
            (json!({"nodeSelector": {"size": "4"}}), &sized, json!([]), true),
            (json!({"nodeSelector": {"size": "5"}}), &sized, json!([]), false),
            (affinity("In", &["3", "4"]), &sized, json!([]), true),
            (affinity("NotIn", &["4"]), &sized, json!([]), false),
            (affinity("Exists", &[]), &sized, json!([]), true),
            (affinity("DoesNotExist", &[]), &sized, json!([]), false),
            (affinity("Gt", &["3"]), &sized, json!([]), true),
            (affinity("Lt", &["3"]), &sized, json!([]), false),
            (tolerations(json!({"key": "gpu", "operator": "Exists"})), &sized, gpu.clone(), true),
            (tolerations(json!({"key": "gpu", "value": "a100"})), &sized, gpu.clone(), true),
            (tolerations(json!({"key": "gpu", "value": "h100"})), &sized, gpu.clone(), false),
            (
                tolerations(json!({"key": "gpu", "operator": "Exists", "effect": "NoExecute"})),
                &sized,
                gpu,
                false,
            ),
        ];
        for (nodes, labels, taints, expected) in table {
            let cache = cache(&nodes);
            let placement = Placement::of(&cache, &[Architecture::Amd64]);
            assert_eq!(placement.allows(&node(labels, &taints)), expected, "{nodes}");
        }
    }
}
