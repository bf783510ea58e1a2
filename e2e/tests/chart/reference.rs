//! The pages of docs/reference that are made of the chart and the programs. Each is stale as soon as
//! what it describes has changed; `UPDATE_DOCS=1 cargo test --workspace --test chart reference` writes
//! them anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write,
    fs,
    path::Path,
};

use larder_crds::{
    node::MirrorReport,
    resources::{ProxyCacheStatus, UpstreamRegistryStatus},
};
use larder_e2e::{process, tools};
use prometheus::{
    Registry,
    proto::{MetricFamily, MetricType},
};
use serde_json::Value;

use crate::helm::{chart, root};

const HOW: &str = "<!-- Generated: UPDATE_DOCS=1 cargo test --workspace --test chart reference -->";

fn is_current(name: &str, text: &str) {
    let path = root().join("docs/reference").join(name);
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "docs/reference/{name} is stale: UPDATE_DOCS=1 cargo test --workspace --test chart reference"
    );
}

/// A text for a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[tokio::test]
async fn the_reference_of_commands_is_what_the_programs_print() {
    let mut page = format!("# Commands\n\n{HOW}\n\nEvery flag has an environment variable.\n");
    for program in [tools::larder_node().unwrap(), tools::larder_operator().unwrap()] {
        let name = program.file_name().unwrap().to_str().unwrap().to_owned();
        let top = help(&program, &[]).await;
        write!(page, "\n## {name}\n\n```\n{top}```\n").unwrap();
        let commands = top.split("Commands:\n").nth(1).unwrap();
        let commands = commands.lines().take_while(|line| line.starts_with(' '));
        let commands = commands.filter(|line| !line.starts_with("   "));
        for command in commands.filter_map(|line| line.split_whitespace().next()) {
            if command != "help" {
                let text = help(&program, &[command]).await;
                write!(page, "\n### {name} {command}\n\n```\n{text}```\n").unwrap();
            }
        }
    }
    assert!(
        page.contains("### larder-node serve") && page.contains("### larder-operator uninstall")
    );
    is_current("cli.md", &page);
}

async fn help(program: &Path, command: &[&str]) -> String {
    let home = tempfile::tempdir().unwrap();
    let mut help = process::command(program, home.path());
    help.args(command).arg("--help");
    let printed = process::run(help).await.unwrap();
    printed.lines().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

#[test]
fn the_reference_of_metrics_is_what_the_programs_export() {
    let page = format!(
        "# Metrics\n\n{HOW}\n\n\
         Base units. Every series is there from the start, with zero, so that a rate over it works from the\n\
         first event on. Alerts on them: [../guide/alerts.md](../guide/alerts.md).\n\n\
         ## larder-node\n\n\
         `/metrics` of the admin port. At most 150 series and 25 for each configured upstream, whatever\n\
         clients send. An upstream that is configured no longer leaves none.\n\n{}\n\
         ## larder-operator\n\n\
         `/metrics` of port 8080. At most 50 series, 26 for each ProxyCache and 10 for each UpstreamRegistry;\n\
         those of objects in the operator that leads only.\n\n{}\n\
         Both export `process_*` as well: CPU, memory, file descriptors, start time.\n",
        table(&of_a_node()),
        table(&of_an_operator()),
    );
    is_current("metrics.md", &page);
}

fn of_a_node() -> Vec<MetricFamily> {
    let registry = Registry::new();
    let metrics = larder_node_cache::metrics::Metrics::register(&registry).unwrap();
    let host = "docker.io".parse().unwrap();
    metrics.announce(&host);
    metrics.set_reachable(&host, true);
    metrics.set_rate_limit(&host, 0, 0);
    metrics.set_mirror(&MirrorReport::default());
    metrics.set_store(&larder_node_cache::store::StoreUsage {
        state: larder_node_cache::store::StoreState::Ready,
        used: 0,
        capacity: 0,
        free: 0,
        blobs: 0,
        evicted: 0,
    });
    registry.gather()
}

fn of_an_operator() -> Vec<MetricFamily> {
    let registry = Registry::new();
    let metrics = larder_operator::metrics::Metrics::register(&registry).unwrap();
    let condition = |kind: &str| {
        let text = serde_json::json!({
            "type": kind, "status": "True", "reason": "Any", "message": "",
            "lastTransitionTime": "2026-11-24T10:00:00Z",
        });
        serde_json::from_value(text).unwrap()
    };
    let all = larder_crds::resources::ConditionType::ALL;
    let all: Vec<_> = all.iter().map(|kind| kind.as_str()).collect();
    let of_caches = ["Accepted", "Available", "MirrorEffective", "Degraded"];
    let is_of_caches = |kind: &&&str| of_caches.contains(*kind);
    let cache = ProxyCacheStatus {
        conditions: all.iter().filter(is_of_caches).map(|kind| condition(kind)).collect(),
        ..ProxyCacheStatus::default()
    };
    metrics.cache("a", &cache, &[]);
    let upstream = UpstreamRegistryStatus {
        conditions: all
            .iter()
            .filter(|kind| !is_of_caches(kind) || **kind == "Accepted")
            .map(|kind| condition(kind))
            .collect(),
        ..UpstreamRegistryStatus::default()
    };
    let nodes = larder_operator::metrics::UpstreamNodes::default();
    metrics.upstream("b", "docker.io", &upstream, nodes);
    registry.gather()
}

fn table(families: &[MetricFamily]) -> String {
    let mut text = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for family in families {
        let kind = match family.get_field_type() {
            MetricType::COUNTER => "counter",
            MetricType::GAUGE => "gauge",
            MetricType::HISTOGRAM => "histogram",
            other => panic!("{} is a {other:?}", family.name()),
        };
        let mut labels = BTreeMap::<_, BTreeSet<_>>::new();
        for label in family.get_metric().iter().flat_map(prometheus::proto::Metric::get_label) {
            labels.entry(label.name()).or_default().insert(format!("`{}`", label.value()));
        }
        let labels = labels.into_iter().map(|(name, values)| match name {
            "upstream" => "`upstream`: the registry, as in image names".to_owned(),
            "name" => "`name` of the object".to_owned(),
            "version" => "`version`".to_owned(),
            _ => format!("`{name}`: {}", values.into_iter().collect::<Vec<_>>().join(", ")),
        });
        let labels = labels.collect::<Vec<_>>().join("; ");
        let (name, help) = (family.name(), cell(family.help()));
        writeln!(text, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
    }
    text
}

#[test]
fn the_reference_of_values_is_what_the_chart_says() {
    let read = |name: &str| fs::read_to_string(chart().join(name)).unwrap();
    let text = read("values.yaml");
    let values: Value = serde_yaml::from_str(&text).unwrap();
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    let comments = comments(&text);
    let mut rows = String::new();
    walk("", &values, &schema, &comments, &mut rows);
    let page = format!(
        "# Values of the chart\n\n{HOW}\n\n\
         `helm install larder charts/larder --namespace larder --create-namespace --values mine.yaml`. A value\n\
         that does not exist, or of the wrong kind, is refused.\n\n\
         | value | type | default | meaning |\n|---|---|---|---|\n{rows}"
    );
    is_current("values.md", &page);
}

/// The comment above each key, by the key's path.
fn comments(text: &str) -> BTreeMap<String, String> {
    let mut comments = BTreeMap::new();
    let (mut path, mut comment) = (Vec::<&str>::new(), Vec::new());
    for line in text.lines() {
        let trimmed = line.trim_start();
        let depth = (line.len() - trimmed.len()) / 2;
        if let Some(words) = trimmed.strip_prefix('#') {
            comment.push(words.trim());
        } else if let Some((key, _)) = trimmed.split_once(':') {
            path.truncate(depth);
            path.push(key);
            comments.insert(path.join("."), comment.join(" "));
            comment.clear();
        } else {
            comment.clear();
        }
    }
    comments
}

fn walk(
    place: &str,
    value: &Value,
    schema: &Value,
    comments: &BTreeMap<String, String>,
    rows: &mut String,
) {
    let comment = comments.get(place).map_or("", String::as_str);
    if let Some(properties) = schema["properties"].as_object() {
        if !comment.is_empty() {
            writeln!(rows, "| **`{place}`** | | | {} |", cell(comment)).unwrap();
        }
        for (name, value) in value.as_object().unwrap() {
            let place = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
            walk(&place, value, &properties[name], comments, rows);
        }
        return;
    }
    assert!(!comment.is_empty(), "values.yaml says nothing about {place}");
    let kind = match schema["enum"].as_array() {
        Some(words) => {
            let words = words.iter().map(|word| format!("`{}`", word.as_str().unwrap()));
            words.collect::<Vec<_>>().join(", ")
        }
        None => schema["type"].as_str().unwrap().to_owned(),
    };
    writeln!(rows, "| `{place}` | {kind} | `{}` | {} |", cell(&value.to_string()), cell(comment))
        .unwrap();
}
