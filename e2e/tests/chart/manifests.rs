//! What the chart makes of its values.

use std::{collections::BTreeSet, fs};

use serde_json::{Value, json};

use crate::helm::{REPOSITORY, find, helm, names, objects, rendered, root};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn operator(objects: &[Value]) -> &Value {
    &find(objects, "Deployment", "larder-operator")["spec"]["template"]
}

fn variable<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    env.iter()
        .find(|variable| variable["name"] == name)
        .unwrap_or_else(|| panic!("{name}: {env:?}"))
}

#[tokio::test]
async fn by_default_there_is_an_operator_and_what_it_needs() {
    let all = rendered(&[]).await;
    let expected = [
        "ClusterRole larder-operator",
        "ClusterRole larder-uninstall",
        "ClusterRoleBinding larder-operator",
        "ClusterRoleBinding larder-uninstall",
        "CustomResourceDefinition proxycaches.larder.dev",
        "CustomResourceDefinition upstreamregistries.larder.dev",
        "Deployment larder-operator",
        "Job larder-uninstall",
        "PodDisruptionBudget larder-operator",
        "Role larder-operator",
        "RoleBinding larder-operator",
        "ServiceAccount larder-operator",
        "ServiceAccount larder-uninstall",
    ];
    assert_eq!(names(&all).into_iter().collect::<BTreeSet<_>>(), expected.map(String::from).into());
    assert_eq!(find(&all, "Deployment", "larder-operator")["spec"]["replicas"], 2);
    let budget = find(&all, "PodDisruptionBudget", "larder-operator");
    assert_eq!(budget["spec"]["minAvailable"], 1);
    let pod = operator(&all);
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["image"], "registry.example.com/larder:0.1.0");
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    assert_eq!(variable(pod, "LARDER_NODE_IMAGE")["value"], "registry.example.com/larder:0.1.0");
    assert_eq!(variable(pod, "LARDER_NODE_ARCHITECTURES")["value"], "amd64");
    assert_eq!(container["ports"], json!([{"name": "metrics", "containerPort": 8080}]));
    let spread = &pod["spec"]["topologySpreadConstraints"][0];
    assert_eq!(spread["topologyKey"], "kubernetes.io/hostname");
}

#[tokio::test]
async fn operators_and_the_hook_go_to_nodes_that_the_image_runs_on() {
    let terms = |pod: &Value| {
        let affinity = &pod["spec"]["affinity"]["nodeAffinity"];
        let required = &affinity["requiredDuringSchedulingIgnoredDuringExecution"];
        required["nodeSelectorTerms"].clone()
    };
    let hook = |all: &[Value]| find(all, "Job", "larder-uninstall")["spec"]["template"].clone();
    let built = |architectures: Value| {
        json!([{"matchExpressions": [
            {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
            {"key": "kubernetes.io/arch", "operator": "In", "values": architectures},
        ]}])
    };
    for (values, architectures) in [
        (&[][..], json!(["amd64"])),
        (&["image.architectures=[\"amd64\",\"arm64\"]"], json!(["amd64", "arm64"])),
        // As after `helm upgrade --reuse-values` from a chart without it.
        (&["image.architectures=null"], json!(["amd64"])),
    ] {
        let all = rendered(values).await;
        assert_eq!(terms(operator(&all)), built(architectures.clone()), "{values:?}");
        assert_eq!(terms(&hook(&all)), built(architectures), "{values:?}");
    }
    let own = r#"operator.affinity={"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"a","operator":"Exists"}]}]}},"podAffinity":{"x":1}}"#;
    let all = rendered(&[own]).await;
    let own = json!([{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]);
    assert_eq!(terms(operator(&all)), own);
    assert_eq!(operator(&all)["spec"]["affinity"]["podAffinity"]["x"], 1);
    assert_eq!(terms(&hook(&all)), own);
    assert_eq!(hook(&all)["spec"]["affinity"]["podAffinity"], Value::Null);
}

#[tokio::test]
async fn the_definitions_are_those_of_the_code_and_stay_at_an_uninstall() {
    let all = rendered(&[]).await;
    for plural in ["proxycaches", "upstreamregistries"] {
        let committed =
            fs::read_to_string(root().join(format!("crds/yaml/{plural}.yaml"))).unwrap();
        let mut committed = objects(&committed).remove(0);
        let keep = json!({"helm.sh/resource-policy": "keep"});
        committed["metadata"]["annotations"] = keep;
        let name = format!("{plural}.larder.dev");
        let mut found = find(&all, "CustomResourceDefinition", &name).clone();
        let labels = found["metadata"].as_object_mut().unwrap().remove("labels");
        assert_eq!(labels.unwrap()["app.kubernetes.io/part-of"], "larder");
        assert_eq!(found, committed);
    }
}

#[tokio::test]
async fn objects_refer_to_objects_that_there_are() {
    for values in [&[][..], &["operator.podLabels.app=x", "commonLabels.team=y"]] {
        let all = rendered(values).await;
        let labels = &operator(&all)["metadata"]["labels"];
        for selector in [
            &find(&all, "Deployment", "larder-operator")["spec"]["selector"],
            &find(&all, "PodDisruptionBudget", "larder-operator")["spec"]["selector"],
            &operator(&all)["spec"]["topologySpreadConstraints"][0]["labelSelector"],
        ] {
            for (label, value) in selector["matchLabels"].as_object().unwrap() {
                assert_eq!(labels[label], *value, "{label} in {labels}");
            }
        }
        for (kind, of) in [("RoleBinding", "Role"), ("ClusterRoleBinding", "ClusterRole")] {
            for binding in all.iter().filter(|object| object["kind"] == kind) {
                let role = binding["roleRef"]["name"].as_str().unwrap();
                assert_eq!(binding["roleRef"]["kind"], of);
                find(&all, of, role);
                let subject = &binding["subjects"][0];
                assert_eq!(subject["namespace"], "larder-system");
                find(&all, "ServiceAccount", subject["name"].as_str().unwrap());
            }
        }
        for pod in [operator(&all), &find(&all, "Job", "larder-uninstall")["spec"]["template"]] {
            let account = pod["spec"]["serviceAccountName"].as_str().unwrap();
            find(&all, "ServiceAccount", account);
        }
    }
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_roles_are_small() {
    let all = rendered(&[]).await;
    let mut rules = 0;
    for role in &all {
        let kind = role["kind"].as_str().unwrap();
        if kind != "Role" && kind != "ClusterRole" {
            continue;
        }
        for rule in role["rules"].as_array().unwrap() {
            rules += 1;
            let (groups, resources, verbs) =
                (texts(&rule["apiGroups"]), texts(&rule["resources"]), texts(&rule["verbs"]));
            for word in groups.iter().chain(&resources).chain(&verbs) {
                assert!(!word.contains('*'), "a wildcard in {rule}");
            }
            // Decision 16: owner references delete; the hook's role is compared below.
            if role["metadata"]["name"] == "larder-operator" {
                assert!(!verbs.contains(&"delete"), "{rule}");
            }
            for forbidden in ["escalate", "bind", "impersonate", "deletecollection"] {
                assert!(!verbs.contains(&forbidden), "{rule}");
            }
            for forbidden in ["pods/exec", "pods/attach", "nodes/proxy", "serviceaccounts/token"] {
                assert!(!resources.contains(&forbidden), "{rule}");
            }
            let own_namespace_only = ["secrets", "configmaps", "pods", "daemonsets", "services"];
            if kind == "ClusterRole" {
                for resource in own_namespace_only {
                    assert!(!resources.contains(&resource), "{kind}: {rule}");
                }
            }
            // Nodes and specs are the cluster's and the users'.
            if resources.iter().any(|resource| ["nodes", "upstreamregistries"].contains(resource)) {
                assert_eq!(verbs, ["list", "watch"], "{rule}");
            }
        }
    }
    assert!(rules >= 10, "only {rules} rules");
    let uninstall = find(&all, "ClusterRole", "larder-uninstall");
    let only = json!([{
        "apiGroups": ["larder.dev"], "resources": ["proxycaches"], "verbs": ["list", "delete"],
    }]);
    assert_eq!(uninstall["rules"], only);
}

#[tokio::test]
async fn pods_are_as_restricted_as_pod_security_asks() {
    let all = rendered(&[]).await;
    for pod in [operator(&all), &find(&all, "Job", "larder-uninstall")["spec"]["template"]] {
        let (spec, container) = (&pod["spec"], &pod["spec"]["containers"][0]);
        assert_eq!(spec["containers"].as_array().unwrap().len(), 1);
        let pod_wide = json!({
            "runAsNonRoot": true, "runAsUser": 50555, "runAsGroup": 50555,
            "seccompProfile": {"type": "RuntimeDefault"},
        });
        assert_eq!(spec["securityContext"], pod_wide);
        let own = json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        });
        assert_eq!(container["securityContext"], own);
        assert!(container["resources"]["limits"]["memory"].is_string(), "{container}");
        for forbidden in ["hostNetwork", "hostPID", "hostIPC", "volumes"] {
            assert!(spec[forbidden].is_null(), "{forbidden}: {spec}");
        }
    }
}

#[tokio::test]
async fn an_image_is_named_by_tag_or_digest_and_pulled_with_secrets() {
    let tagged = rendered(&["image.repository=reg.example.com:5000/larder", "image.tag=1.2"]).await;
    assert_eq!(
        operator(&tagged)["spec"]["containers"][0]["image"],
        "reg.example.com:5000/larder:1.2"
    );
    let digest = format!("image.digest={DIGEST}");
    let secrets = "image.pullSecrets=[\"one\",\"two\"]";
    let built = "image.architectures=[\"amd64\",\"arm64\"]";
    let values = ["image.tag=1.2", &digest, secrets, built, "image.pullPolicy=Never"];
    let all = rendered(&values).await;
    let image = format!("registry.example.com/larder@{DIGEST}");
    let pod = operator(&all);
    let job = &find(&all, "Job", "larder-uninstall")["spec"]["template"];
    for pod in [pod, job] {
        assert_eq!(pod["spec"]["containers"][0]["image"], image);
        assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], "Never");
        assert_eq!(pod["spec"]["imagePullSecrets"], json!([{"name": "one"}, {"name": "two"}]));
    }
    assert_eq!(variable(pod, "LARDER_NODE_IMAGE")["value"], image);
    assert_eq!(variable(pod, "LARDER_NODE_PULL_SECRETS")["value"], "one,two");
    assert_eq!(variable(pod, "LARDER_NODE_ARCHITECTURES")["value"], "amd64,arm64");
    assert_eq!(variable(pod, "LARDER_NODE_PULL_POLICY")["value"], "Never");
}

#[tokio::test]
async fn one_operator_does_not_keep_its_node_from_being_drained() {
    let all = rendered(&["operator.replicas=1"]).await;
    let spec = &find(&all, "PodDisruptionBudget", "larder-operator")["spec"];
    assert_eq!((&spec["maxUnavailable"], &spec["minAvailable"]), (&json!(1), &Value::Null));
    let without = rendered(&["operator.podDisruptionBudget.enabled=false"]).await;
    assert!(!names(&without).iter().any(|name| name.starts_with("PodDisruptionBudget")));
}

#[tokio::test]
async fn the_hook_can_be_switched_off_and_bounds_itself() {
    let without = rendered(&["uninstall.deleteProxyCaches=false"]).await;
    assert!(!names(&without).iter().any(|name| name.ends_with("larder-uninstall")));
    let all = rendered(&["uninstall.timeoutSeconds=30"]).await;
    let job = find(&all, "Job", "larder-uninstall");
    assert_eq!(job["spec"]["activeDeadlineSeconds"], 90);
    assert_eq!(job["spec"]["backoffLimit"], 0);
    let arguments = json!(["uninstall", "--timeout", "30"]);
    assert_eq!(job["spec"]["template"]["spec"]["containers"][0]["args"], arguments);
    let of_the_hook = all.iter().filter(|object| object["metadata"]["name"] == "larder-uninstall");
    for object in of_the_hook {
        let annotations = &object["metadata"]["annotations"];
        assert_eq!(annotations["helm.sh/hook"], "pre-delete", "{object}");
        let policy = annotations["helm.sh/hook-delete-policy"].as_str().unwrap();
        assert!(policy.contains("before-hook-creation"), "{policy}");
    }
}

#[tokio::test]
async fn labels_annotations_environment_and_placement_are_where_they_belong() {
    let all = rendered(&[
        "commonLabels.team=platform",
        "operator.labels.deployment=yes-it-is",
        "operator.annotations={\"example.com/a\":\"b\"}",
        "operator.podLabels.pod=also",
        "operator.podAnnotations={\"example.com/c\":\"d\"}",
        "operator.env=[{\"name\":\"HTTPS_PROXY\",\"value\":\"http://proxy:3128\"}]",
        "operator.nodeSelector={\"node-role.kubernetes.io/control-plane\":\"\"}",
        "operator.tolerations=[{\"operator\":\"Exists\"}]",
        "operator.priorityClassName=system-cluster-critical",
    ])
    .await;
    for object in &all {
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["team"], "platform", "{object}");
        assert_eq!(labels["app.kubernetes.io/managed-by"], "Helm", "{object}");
        assert_eq!(labels["app.kubernetes.io/part-of"], "larder", "{object}");
        let cluster_wide = ["ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"];
        let namespaced = !cluster_wide.contains(&object["kind"].as_str().unwrap());
        assert_eq!(object["metadata"]["namespace"].is_string(), namespaced, "{object}");
    }
    let deployment = find(&all, "Deployment", "larder-operator");
    assert_eq!(deployment["metadata"]["labels"]["deployment"], "yes-it-is");
    assert_eq!(deployment["metadata"]["annotations"]["example.com/a"], "b");
    let pod = operator(&all);
    assert_eq!(pod["metadata"]["labels"]["pod"], "also");
    assert_eq!(pod["metadata"]["annotations"]["example.com/c"], "d");
    assert_eq!(variable(pod, "HTTPS_PROXY")["value"], "http://proxy:3128");
    assert_eq!(pod["spec"]["priorityClassName"], "system-cluster-critical");
    let job = &find(&all, "Job", "larder-uninstall")["spec"]["template"];
    for pod in [pod, job] {
        assert_eq!(pod["spec"]["nodeSelector"]["node-role.kubernetes.io/control-plane"], "");
        assert_eq!(pod["spec"]["tolerations"], json!([{"operator": "Exists"}]));
    }
}

#[tokio::test]
async fn monitors_rules_and_dashboard_come_when_they_are_asked_for() {
    let all = rendered(&[
        "monitoring.monitors.enabled=true",
        "monitoring.monitors.labels.release=prometheus",
        "monitoring.monitors.interval=15s",
        "monitoring.rules.enabled=true",
        "monitoring.rules.labels.release=prometheus",
        "monitoring.rules.runbookUrl=https://wiki.example.com/larder",
        "monitoring.dashboard.enabled=true",
        "monitoring.dashboard.namespace=grafana",
    ])
    .await;
    let pods = find(&all, "PodMonitor", "larder-operator");
    assert_eq!(pods["metadata"]["labels"]["release"], "prometheus");
    for (label, value) in pods["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(operator(&all)["metadata"]["labels"][label], *value);
    }
    let endpoint = &pods["spec"]["podMetricsEndpoints"][0];
    assert_eq!((&endpoint["port"], &endpoint["interval"]), (&json!("metrics"), &json!("15s")));
    let services = find(&all, "ServiceMonitor", "larder-node");
    // As `labels::labels` and `plan::service` of the operator have it.
    let selector = json!({"app.kubernetes.io/name": "larder-node"});
    assert_eq!(services["spec"]["selector"]["matchLabels"], selector);
    assert_eq!(services["spec"]["endpoints"][0]["port"], "metrics");
    assert_eq!(services["spec"]["jobLabel"], "app.kubernetes.io/name");

    let rules = find(&all, "PrometheusRule", "larder");
    assert_eq!(rules["metadata"]["labels"]["release"], "prometheus");
    let shipped = fs::read_to_string(root().join("charts/larder/files/alerts.yaml")).unwrap();
    let moved = shipped
        .replace("https://larder.dev/docs/guide/alerts.md", "https://wiki.example.com/larder");
    assert_ne!(shipped, moved);
    assert_eq!(rules["spec"], objects(&moved)[0]);

    let dashboard = find(&all, "ConfigMap", "larder-dashboard");
    assert_eq!(dashboard["metadata"]["namespace"], "grafana");
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    let shipped = fs::read_to_string(root().join("charts/larder/files/dashboard.json")).unwrap();
    assert_eq!(dashboard["data"]["larder.json"].as_str().unwrap().trim(), shipped.trim());
}

#[tokio::test]
async fn notes_say_what_to_apply_and_what_an_uninstall_deletes() {
    let notes = async |values: &[&str]| {
        let mut arguments =
            vec!["--dry-run=client", "--namespace", "larder-system", "--set", REPOSITORY];
        arguments.extend(values.iter().flat_map(|value| ["--set", value]));
        let output = helm(&["install", "mine"], &arguments).await;
        assert!(output.status.success(), "{}", output.stderr);
        output.stdout.split_once("NOTES:").unwrap().1.to_owned()
    };
    let default = notes(&[]).await;
    for part in [
        "kind: UpstreamRegistry",
        "kind: ProxyCache",
        "kubectl label namespace larder-system pod-security.kubernetes.io/enforce=privileged",
        "`helm uninstall mine` DELETES EVERY ProxyCache",
        "kubeadm",
        "k3s",
        "RKE2",
        "MicroK8s",
        "k0s",
        "EKS",
        "GKE",
        "AKS",
    ] {
        assert!(default.contains(part), "no {part} in {default}");
    }
    let kept = notes(&["uninstall.deleteProxyCaches=false"]).await;
    assert!(kept.contains("leaves the node caches running") && !kept.contains("DELETES"), "{kept}");
}
