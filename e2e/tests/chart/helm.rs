//! Real Helm on the chart of this checkout.

use std::path::{Path, PathBuf};

use larder_e2e::{
    process::{self, Output},
    tools,
};
use serde_json::Value;

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The chart's folder.
pub(crate) fn chart() -> PathBuf {
    root().join("charts/larder")
}

/// Runs `helm COMMAND CHART ARGUMENTS`.
pub(crate) async fn helm(command: &[&str], arguments: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    let mut helm = process::command(&tools::built("helm/helm").unwrap(), home.path());
    helm.args(command).arg(chart()).args(arguments);
    process::output(helm).await.unwrap()
}

/// What has no default.
pub(crate) const REPOSITORY: &str = "image.repository=registry.example.com/larder";

/// Every object that the chart makes of these values (`a.b=c`, or JSON: `a.b={"c":1}`) and a repository.
pub(crate) async fn rendered(values: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["--namespace", "larder-system", "--set", REPOSITORY];
    for value in values {
        let is_json = value.split_once('=').is_some_and(|(_, value)| value.starts_with(['{', '[']));
        arguments.extend([if is_json { "--set-json" } else { "--set" }, value]);
    }
    let output = helm(&["template", "mine"], &arguments).await;
    assert!(output.status.success(), "{values:?}: {}", output.stderr);
    objects(&output.stdout)
}

/// The documents of a YAML stream; those without a word are none.
pub(crate) fn objects(text: &str) -> Vec<Value> {
    let documents = text.split("\n---\n").map(|document| document.trim_start_matches("---\n"));
    let values = documents.map(|document| {
        serde_yaml::from_str::<Value>(document)
            .unwrap_or_else(|error| panic!("{error}:\n{document}"))
    });
    values.filter(|value| !value.is_null()).collect()
}

/// The only object of that kind and name.
pub(crate) fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found: Vec<_> = objects
        .iter()
        .filter(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        .collect();
    assert_eq!(found.len(), 1, "{kind} {name} in {:?}", names(objects));
    found[0]
}

/// `Kind name` of each.
pub(crate) fn names(objects: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let name =
        |object: &Value| format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]));
    objects.iter().map(name).collect()
}
