//! The queries of a rule file and of a dashboard of Grafana.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A query that is shipped.
#[derive(Debug, PartialEq)]
pub(super) struct Shipped {
    /// Where, for people.
    pub(super) place: String,
    /// With every variable replaced.
    pub(super) query: String,
    /// Labels that its legend shows.
    pub(super) labels: Vec<String>,
}

/// All of them.
pub(super) fn shipped(rules: &str, dashboard: &str) -> Result<Vec<Shipped>> {
    let rules: Value = serde_yaml::from_str(rules).context("the rules")?;
    let dashboard: Value = serde_json::from_str(dashboard).context("the dashboard")?;
    let mut shipped = Vec::new();
    for rule in list(&rules["groups"])?.iter().flat_map(|group| list(&group["rules"])).flatten() {
        shipped.push(Shipped {
            place: format!("alert {}", text(&rule["alert"])?),
            query: text(&rule["expr"])?.to_owned(),
            labels: Vec::new(),
        });
    }
    let variables = list(&dashboard["templating"]["list"])?;
    let names = variables.iter().map(|variable| text(&variable["name"]));
    let names = names.collect::<Result<Vec<_>>>()?;
    for panel in list(&dashboard["panels"])?.iter().filter(|panel| panel["type"] != "row") {
        for target in list(&panel["targets"])? {
            shipped.push(Shipped {
                place: format!("panel {}", text(&panel["title"])?),
                query: replace(text(&target["expr"])?, &names)?,
                labels: shown(text(&target["legendFormat"])?),
            });
        }
    }
    for variable in variables.iter().filter(|variable| variable["type"] == "query") {
        let place = format!("variable {}", text(&variable["name"])?);
        let query = text(&variable["query"])?;
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (metric, label) = inner
            .and_then(|inner| inner.split_once(", "))
            .with_context(|| format!("{place}: {query} is not label_values(METRIC, LABEL)"))?;
        let query = format!("count by ({label}) ({metric})");
        shipped.push(Shipped { place, query, labels: Vec::new() });
    }
    Ok(shipped)
}

fn list(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().with_context(|| format!("no list: {value}"))
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("no text: {value}"))
}

/// As Grafana does it when everything is selected.
fn replace(query: &str, variables: &[&str]) -> Result<String> {
    let mut replaced = query.replace("$__rate_interval", "1m");
    for variable in variables {
        replaced = replaced.replace(&format!("\"${variable}\""), "\".*\"");
    }
    ensure!(!replaced.contains('$'), "a variable that is not known in {query}");
    Ok(replaced)
}

/// The labels of `{{node}} {{state}}`.
fn shown(legend: &str) -> Vec<String> {
    let pieces = legend.split("{{").skip(1).filter_map(|piece| piece.split_once("}}"));
    pieces.map(|(label, _)| label.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "groups: [{name: g, rules: [{alert: Down, expr: up == 0}]}]";
    const DASHBOARD: &str = r#"{
        "templating": {"list": [
            {"name": "source", "type": "datasource"},
            {"name": "node", "type": "query", "query": "label_values(a, node)"}]},
        "panels": [
            {"type": "row", "title": "r"},
            {"type": "stat", "title": "p", "targets": [
                {"expr": "rate(a{node=~\"$node\"}[$__rate_interval])", "legendFormat": "{{node}} x"}]}]}"#;

    #[test]
    fn queries_of_rules_panels_and_variables_are_found() {
        let found = shipped(RULES, DASHBOARD).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|one| (one.place.as_str(), one.query.as_str(), one.labels.join(",")))
            .collect();
        let expected = [
            ("alert Down", "up == 0", String::new()),
            ("panel p", "rate(a{node=~\".*\"}[1m])", "node".to_owned()),
            ("variable node", "count by (node) (a)", String::new()),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn an_unknown_variable_is_an_error() {
        let dashboard = DASHBOARD.replace("$node", "$nodes");
        assert!(shipped(RULES, &dashboard).unwrap_err().to_string().contains("nodes"));
    }
}
