//! Which nodes a cache is meant for, as the scheduler would decide. No I/O.

use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration,
};
use kube::ResourceExt;
use larder_crds::resources::ProxyCache;

/// Architectures of the node cache's image.
pub const ARCHITECTURES: [&str; 1] = ["amd64"];

/// Which nodes a cache is meant for.
#[derive(Clone, Copy, Debug)]
pub struct Placement<'a> {
    cache: &'a ProxyCache,
}

impl<'a> Placement<'a> {
    /// Where this cache's pods go.
    pub fn of(cache: &'a ProxyCache) -> Self {
        Self { cache }
    }

    /// Whether a node gets a pod.
    pub fn allows(self, node: &Node) -> bool {
        let labels = node.labels();
        let has = |key: &str, value: &str| labels.get(key).is_some_and(|found| found == value);
        if !has("kubernetes.io/os", "linux") {
            return false;
        }
        if !ARCHITECTURES.iter().any(|arch| has("kubernetes.io/arch", arch)) {
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
        assert!(Placement::of(&cache).allows(&node(&json!({}), &taint)));
        assert!(
            !Placement::of(&cache)
                .allows(&node(&json!({"kubernetes.io/os": "windows"}), &json!([])))
        );
        assert!(
            !Placement::of(&cache)
                .allows(&node(&json!({"kubernetes.io/arch": "riscv64"}), &json!([])))
        );
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
            assert_eq!(Placement::of(&cache).allows(&node(labels, &taints)), expected, "{nodes}");
        }
    }
}
