//! The alerts: real promtool takes them, each fires when it should and has a section that says what
//! to do.

use std::{collections::BTreeSet, fs, path::PathBuf};

use larder_e2e::{process, tools};
use serde_json::Value;

use crate::helm::root;

const RUNBOOK: &str = "https://larder.dev/docs/guide/alerts.md#";

async fn promtool(arguments: &[&str]) -> process::Output {
    let home = tempfile::tempdir().unwrap();
    let mut command = process::command(&tools::debian("promtool").unwrap(), home.path());
    command.args(arguments);
    process::output(command).await.unwrap()
}

fn file(path: &str) -> PathBuf {
    root().join(path).canonicalize().unwrap()
}

fn yaml(path: &str) -> Value {
    serde_yaml::from_str(&fs::read_to_string(file(path)).unwrap()).unwrap()
}

fn alerts() -> Vec<Value> {
    let groups = yaml("charts/larder/files/alerts.yaml");
    groups["groups"][0]["rules"].as_array().unwrap().clone()
}

fn name(alert: &Value) -> &str {
    alert["alert"].as_str().unwrap()
}

#[tokio::test]
async fn promtool_takes_the_rules_and_they_fire_when_they_should() {
    let rules = file("charts/larder/files/alerts.yaml");
    let checked = promtool(&["check", "rules", rules.to_str().unwrap()]).await;
    let said = format!("{}{}", checked.stdout, checked.stderr);
    assert!(checked.status.success(), "{said}");
    assert!(said.contains(&format!("{} rules found", alerts().len())), "{said}");
    let tests = file("e2e/tests/chart/alerts.yaml");
    let tested = promtool(&["test", "rules", tests.to_str().unwrap()]).await;
    assert!(tested.status.success(), "{}{}", tested.stdout, tested.stderr);
}

#[test]
fn each_alert_has_a_case_that_fires_and_one_that_does_not() {
    let cases = yaml("e2e/tests/chart/alerts.yaml");
    let of_all = |fires: bool| -> BTreeSet<String> {
        let cases = cases["tests"].as_array().unwrap().iter();
        let cases = cases.flat_map(|case| case["alert_rule_test"].as_array().unwrap());
        let cases = cases.filter(|case| case["exp_alerts"].as_array().unwrap().is_empty() != fires);
        cases.map(|case| case["alertname"].as_str().unwrap().to_owned()).collect()
    };
    let all: BTreeSet<_> = alerts().iter().map(|alert| name(alert).to_owned()).collect();
    assert!(all.len() >= 8, "{all:?}");
    assert_eq!(of_all(true), all);
    assert_eq!(of_all(false), all);
}

#[test]
fn each_alert_says_how_bad_it_is_what_is_wrong_and_where_to_read_on() {
    let guide = fs::read_to_string(file("docs/guide/alerts.md")).unwrap();
    for alert in &alerts() {
        let name = name(alert);
        let severity = alert["labels"]["severity"].as_str().unwrap();
        assert!(["info", "warning", "critical"].contains(&severity), "{name}: {severity}");
        let annotations = &alert["annotations"];
        for text in ["summary", "description"] {
            assert!(
                annotations[text].as_str().is_some_and(|text| text.len() > 20),
                "{name}: {text}"
            );
        }
        let anchor = annotations["runbook_url"].as_str().unwrap().strip_prefix(RUNBOOK);
        assert_eq!(anchor, Some(name.to_lowercase().as_str()), "{name}");
        let section = guide.split(&format!("\n## {name}\n")).nth(1);
        let section = section.unwrap_or_else(|| panic!("docs/guide/alerts.md: no section {name}"));
        let section = section.split("\n## ").next().unwrap();
        for part in ["**Means.**", "**Look.**", "**Do.**"] {
            assert!(section.contains(part), "docs/guide/alerts.md, {name}: no {part}");
        }
    }
    let sections = guide.lines().filter(|line| line.starts_with("## Larder")).count();
    assert_eq!(sections, alerts().len(), "a section for an alert that there is not");
}
