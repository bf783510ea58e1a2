//! A real Prometheus scrapes a real node cache, and finds everything that the alerts and the
//! dashboard ask for.

use std::{collections::BTreeMap, fs, net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use larder_crds::resources::{ConditionType, NodeCounts, ProxyCacheStatus, UpstreamRegistryStatus};
use larder_e2e::{
    larder::{Ground, Larder, Upstream},
    prometheus::Prometheus,
    sandbox::{Told, story},
};
use larder_operator::metrics::{Metrics, UpstreamNodes};
use prometheus::{Registry, TextEncoder};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::helm::root;

const PROMETHEUS: ([u8; 4], u16) = ([127, 0, 0, 1], 9090);

/// What an operator exports of a cache and a registry that are as they should be.
fn of_an_operator() -> Result<String> {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry)?;
    metrics.lead();
    let condition = |kind: ConditionType| {
        serde_json::from_value(json!({
            "type": kind.as_str(), "status": "True", "reason": "Any", "message": "",
            "lastTransitionTime": "2026-11-24T10:00:00Z",
        }))
    };
    let cache = ProxyCacheStatus {
        conditions: vec![condition(ConditionType::Accepted)?],
        nodes: Some(NodeCounts::default()),
        ..ProxyCacheStatus::default()
    };
    metrics.cache("default", &cache, &[]);
    let registry_status = UpstreamRegistryStatus {
        conditions: vec![condition(ConditionType::Accepted)?],
        ..UpstreamRegistryStatus::default()
    };
    metrics.upstream("docker-io", "docker.io", &registry_status, UpstreamNodes::default());
    Ok(TextEncoder::new().encode_to_string(&registry.gather())?)
}

/// Answers every request with the same text.
async fn exports(listener: TcpListener, text: String) {
    while let Ok((mut stream, _)) = listener.accept().await {
        // A scrape is one packet, and one that breaks off is tried again.
        let _ = stream.read(&mut [0; 4096]).await;
        let head =
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close";
        let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

fn jobs(node: SocketAddr, operator: SocketAddr) -> String {
    json!([
        {"job_name": "larder-node",
         "static_configs": [{"targets": [node], "labels": {"node": "n1"}}]},
        {"job_name": "larder-operator", "static_configs": [{"targets": [operator]}]},
    ])
    .to_string()
}

#[test]
fn every_query_of_rules_and_dashboard_finds_its_metrics_and_labels() -> Told {
    story(async |sandbox| {
        // Nobody listens there: a node cache that has never reached its upstream exports all the same.
        let upstream = Upstream::at("docker.io", SocketAddr::from(([127, 0, 0, 1], 9)));
        let state = ("LARDER_MIRROR_STATE".to_owned(), "/nowhere/state".to_owned());
        let ground = Ground { environment: vec![state], ..Ground::default() };
        let larder = Larder::start_on(ground, &sandbox.folder("larder")?, &[upstream]).await?;
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let jobs = jobs(larder.admin_address(), listener.local_addr()?);
        tokio::spawn(exports(listener, of_an_operator()?));

        let folder = sandbox.folder("prometheus")?;
        let prometheus = Prometheus::start(&folder, SocketAddr::from(PROMETHEUS), &jobs).await?;
        prometheus.scrapes(2, Duration::from_secs(30)).await?;
        let read = |name: &str| fs::read_to_string(root().join("charts/larder/files").join(name));
        let (rules, dashboard) = (read("alerts.yaml")?, read("dashboard.json")?);
        let queries = prometheus.every_query(&rules, &dashboard).await?;
        ensure!(queries > 30, "only {queries} queries");

        // And it would say so if one did not.
        let wrong = BTreeMap::from([
            ("larder_node_mirror_state", "larder_node_mirrors"),
            ("state=\"Full\"", "state=\"Fulll\""),
            ("{{node}} store {{state}}", "{{host}} store"),
            ("sum by (upstream)", "sum by (registry)"),
            ("$__rate_interval])", "5 minutes])"),
        ]);
        for (right, wrong) in wrong {
            let (rules, dashboard) = (rules.replace(right, wrong), dashboard.replace(right, wrong));
            let found = prometheus.every_query(&rules, &dashboard).await;
            ensure!(found.is_err(), "{wrong} instead of {right} is not noticed");
        }
        Ok(())
    })
}
