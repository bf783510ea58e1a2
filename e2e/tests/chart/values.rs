//! What the chart's schema refuses, and what it says then.

use std::fs;

use serde_json::Value;

use crate::helm::{REPOSITORY, chart, find, helm, rendered};

#[tokio::test]
async fn helm_lint_finds_nothing() {
    for arguments in [&[][..], &["--strict"]] {
        let output = helm(&["lint"], arguments).await;
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(output.status.success() && said.contains("0 chart(s) failed"), "{said}");
        assert!(!said.contains("[WARNING]") && !said.contains("[ERROR]"), "{said}");
    }
}

#[tokio::test]
async fn a_bad_value_is_named_with_what_is_allowed() {
    let table = [
        ("image.repository=larder@sha256:1", "/image/repository", "pattern '^[^@]*$'"),
        ("image.architectures=[]", "/image/architectures", "minItems"),
        ("image.architectures=[\"x86_64\"]", "/image/architectures/0", "'amd64', 'arm64'"),
        ("image.architectures=amd64", "/image/architectures", "want array"),
        ("image.tag=a b", "/image/tag", "pattern"),
        ("image.digest=sha256:1234", "/image/digest", "sha256:[0-9a-f]{64}"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy", "'IfNotPresent', 'Always', 'Never'"),
        ("image.pullSecrets=mine", "/image/pullSecrets", "want array"),
        ("image.pullSecrets=[{\"name\":\"mine\"}]", "/image/pullSecrets/0", "want string"),
        ("image.repo=mine", "/image", "'repo' not allowed"),
        ("images.repository=mine", "''", "'images' not allowed"),
        ("operator.replicas=two", "/operator/replicas", "want integer"),
        ("operator.replicas=6", "/operator/replicas", "maximum: got 6, want 5"),
        ("operator.replicas=-1", "/operator/replicas", "minimum: got -1, want 0"),
        ("operator.logFormat=xml", "/operator/logFormat", "'json', 'pretty'"),
        ("operator.env=[{\"value\":\"x\"}]", "/operator/env/0", "'name'"),
        ("operator.env.HTTPS_PROXY=x", "/operator/env", "want array"),
        ("operator.podLabels={\"a\":1}", "/operator/podLabels/a", "want string"),
        ("operator.nodeSelector=[]", "/operator/nodeSelector", "want object"),
        ("operator.tolerations={\"key\":\"a\"}", "/operator/tolerations", "want array"),
        (
            "operator.podDisruptionBudget.enabled=maybe",
            "/operator/podDisruptionBudget/enabled",
            "want boolean",
        ),
        ("uninstall.timeoutSeconds=1", "/uninstall/timeoutSeconds", "minimum: got 1, want 5"),
        ("uninstall.timeoutSeconds=300", "/uninstall/timeoutSeconds", "want 240"),
        ("uninstall.deleteProxyCaches=no", "/uninstall/deleteProxyCaches", "want boolean"),
        ("monitoring.enabled=true", "/monitoring", "'enabled' not allowed"),
        ("monitoring.monitors.interval=fast", "/monitoring/monitors/interval", "(ms|s|m)"),
        ("monitoring.monitors.interval=30", "/monitoring/monitors/interval", "want string"),
        ("monitoring.rules.runbookUrl=wiki", "/monitoring/rules/runbookUrl", "https?://"),
        ("monitoring.rules.labels=[\"a\"]", "/monitoring/rules/labels", "want object"),
        ("monitoring.dashboard.namespace=Graf/ana", "/monitoring/dashboard/namespace", "pattern"),
        ("commonLabels.team=[\"a\"]", "/commonLabels/team", "want string"),
    ];
    for (value, place, allowed) in table {
        let is_json = value.split_once('=').is_some_and(|(_, value)| value.starts_with(['{', '[']));
        let set = if is_json { "--set-json" } else { "--set" };
        let output = helm(&["template", "mine"], &[set, value]).await;
        let said = output.stderr;
        assert!(!output.status.success(), "{value} is taken");
        assert!(said.contains(place) && said.contains(allowed), "{value}: {said}");
    }
}

#[tokio::test]
async fn without_a_repository_helm_says_how_to_get_an_image() {
    for arguments in [&[][..], &["--set", "image.repository=", "--set", "image.tag=v1"]] {
        let output = helm(&["template", "mine"], arguments).await;
        let said = output.stderr;
        assert!(!output.status.success(), "{arguments:?} are taken");
        for part in
            ["image.repository is required", "make image", "skopeo copy", "--set image.repo"]
        {
            assert!(said.contains(part), "no {part} in {said}");
        }
    }
}

/// Deployments, budgets and monitors select by some of these labels.
#[tokio::test]
async fn labels_that_the_chart_sets_are_not_overridden() {
    let objects = rendered(&[]).await;
    let own = find(&objects, "Deployment", "larder-operator")["metadata"]["labels"].clone();
    let own = own.as_object().unwrap();
    assert!(own.contains_key("app.kubernetes.io/name") && own.len() == 7, "{own:?}");
    let places = [
        "commonLabels",
        "operator.labels",
        "operator.podLabels",
        "monitoring.monitors.labels",
        "monitoring.rules.labels",
        "monitoring.dashboard.labels",
    ];
    for (place, label) in places.iter().flat_map(|place| own.keys().map(move |key| (place, key))) {
        let value = format!("{place}={{\"{label}\":\"x\"}}");
        let output =
            helm(&["template", "mine"], &["--set", REPOSITORY, "--set-json", &value]).await;
        let at = format!("/{}/{}", place.replace('.', "/"), label.replace('/', "~1"));
        assert!(!output.status.success(), "{value} is taken");
        assert!(output.stderr.contains(&at), "{value}: {}", output.stderr);
    }
}

/// Every value that is documented can be checked, and every check is of a value.
#[test]
fn the_schema_knows_exactly_the_values_that_there_are() {
    let values = fs::read_to_string(chart().join("values.yaml")).unwrap();
    let values: Value = serde_yaml::from_str(&values).unwrap();
    let schema = fs::read_to_string(chart().join("values.schema.json")).unwrap();
    let mut schema: Value = serde_json::from_str(&schema).unwrap();
    // Helm puts it into the values of every chart.
    schema["properties"].as_object_mut().unwrap().remove("global").unwrap();
    compare("", &values, &schema);
}

fn compare(place: &str, value: &Value, schema: &Value) {
    let Some(properties) = schema["properties"].as_object() else { return };
    assert_eq!(schema["additionalProperties"], false, "{place} takes anything");
    let value = value.as_object().unwrap_or_else(|| panic!("{place} is no object"));
    let mut known: Vec<_> = properties.keys().collect();
    let mut there: Vec<_> = value.keys().collect();
    known.sort();
    there.sort();
    assert_eq!(known, there, "{place}");
    for (name, value) in value {
        compare(&format!("{place}.{name}"), value, &properties[name]);
    }
}
