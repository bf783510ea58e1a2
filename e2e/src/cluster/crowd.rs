//! A crowd of nodes that are not there: KWOK keeps them and their pods, and one responder reports for
//! all of their caches, over real HTTP at an address for each.

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use axum::{
    Json, Router,
    extract::{ConnectInfo, State, connect_info::Connected},
    response::{IntoResponse, Response},
    routing::get,
    serve::IncomingStream,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use super::{Cluster, NAMESPACE, api, kubeconfig, network};
use crate::{
    digest,
    process::{self, Daemon},
    tools,
};

/// The network of the crowd, all of it at this machine.
const NETWORK: &str = "10.200.0.0/16";
const ADMIN_PORT: u16 = 5056;
const HASH: &str = "larder.dev/config-hash";
/// Between two looks at which pod has been told what.
const LOOK: Duration = Duration::from_secs(1);

/// A pod is Running and Ready at once, with its node's address; a deleted one is gone at once. What
/// KWOK ships for nodes would overwrite their runtime, so there is a stage that does nothing.
const STAGES: &str = r#"apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-ready}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: '.metadata.deletionTimestamp', operator: DoesNotExist}
    - {key: '.status.phase', operator: In, values: [Pending]}
  next:
    statusTemplate: |
      {{ $now := Now }}
      phase: Running
      startTime: {{ $now | Quote }}
      conditions:
      - {type: Initialized, status: "True", lastTransitionTime: {{ $now | Quote }}}
      - {type: Ready, status: "True", lastTransitionTime: {{ $now | Quote }}}
      - {type: ContainersReady, status: "True", lastTransitionTime: {{ $now | Quote }}}
      {{ $addresses := NodeIPsWith .spec.nodeName }}
      hostIP: {{ index $addresses 0 | Quote }}
      podIP: {{ index $addresses 0 | Quote }}
      podIPs: [{ip: {{ index $addresses 0 | Quote }}}]
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-delete}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: '.metadata.deletionTimestamp', operator: Exists}
  next: {delete: true}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: node-kept}
spec:
  resourceRef: {apiGroup: v1, kind: Node}
  selector:
    matchExpressions:
    - {key: '.status.phase', operator: In, values: [Never]}
  next: {statusTemplate: 'phase: Running'}
"#;

/// The nodes. Dropping it ends what keeps them.
pub struct Crowd {
    _kwok: Daemon,
    responder: JoinHandle<()>,
    looking: JoinHandle<()>,
}

/// By address of the node: UID of its pod, and the configuration that it was told last.
type Pods = Arc<Mutex<HashMap<IpAddr, (String, String)>>>;

impl Crowd {
    /// Makes that many nodes, which are Ready, and reports for their caches on `hosts`.
    pub async fn start(cluster: &Cluster, nodes: u16, hosts: &[String]) -> Result<Self> {
        let folder = cluster.folder.join("crowd");
        fs::create_dir_all(&folder)?;
        let stages = folder.join("stages.yaml");
        fs::write(&stages, STAGES)?;
        network::ip(&folder, &["route", "add", "local", NETWORK, "dev", "lo"]).await?;
        let mut kwok = process::command(&tools::built("kwok/kwok")?, &folder);
        kwok.arg("--kubeconfig").arg(cluster.kubeconfig()).arg("--config").arg(&stages).args([
            "--manage-all-nodes=false",
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
            "--node-lease-duration-seconds=40",
        ]);
        let log = folder.join("kwok.log");
        let kwok = Daemon::start("kwok", kwok, &log, &log)?;
        create(cluster, nodes).await?;
        let pods = Pods::default();
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, ADMIN_PORT)).await?;
        let router = Router::new()
            .route("/report", get(report))
            .with_state((Arc::clone(&pods), hosts.to_vec()))
            .into_make_service_with_connect_info::<Called>();
        let responder = tokio::spawn(async move {
            // It ends with the story.
            let _ = axum::serve(listener, router).await;
        });
        let looking = tokio::spawn(look(client(cluster)?, pods));
        Ok(Self { _kwok: kwok, responder, looking })
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.responder.abort();
        self.looking.abort();
    }
}

fn client(cluster: &Cluster) -> Result<reqwest::Client> {
    api::client(cluster.authority.pem())
}

fn url(path: &str) -> String {
    format!("https://{}{path}", network::api_server())
}

async fn create(cluster: &Cluster, nodes: u16) -> Result<()> {
    let client = client(cluster)?;
    let create = |number: u16| {
        let client = client.clone();
        async move {
            let asked = client.post(url("/api/v1/nodes")).body(node(number).to_string());
            let asked = asked.header("content-type", "application/json");
            let answer = asked.bearer_auth(kubeconfig::token(kubeconfig::ADMIN)).send().await?;
            ensure!(answer.status() == StatusCode::CREATED, "{}", answer.text().await?);
            Ok(())
        }
    };
    stream::iter(0..nodes).map(create).buffer_unordered(20).try_collect::<()>().await
}

fn node(number: u16) -> Value {
    let [high, low] = number.to_be_bytes();
    let room = json!({"cpu": "8", "memory": "32Gi", "pods": "110"});
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": format!("fake-{number}"),
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/hostname": format!("fake-{number}"),
            },
        },
        "status": {
            "addresses": [{"type": "InternalIP", "address": format!("10.200.{high}.{low}")}],
            "allocatable": room,
            "capacity": room,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "nodeInfo": {
                "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "containerd://2.4.2",
                "kernelVersion": "6", "kubeProxyVersion": "", "kubeletVersion": "v1.36.3",
                "machineID": "", "operatingSystem": "linux", "osImage": "", "systemUUID": "",
            },
        },
    })
}

async fn look(client: reqwest::Client, pods: Pods) {
    loop {
        // One that fails is made up for by the next one.
        if let Ok(seen) = told(&client).await {
            *pods.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn told(client: &reqwest::Client) -> Result<HashMap<IpAddr, (String, String)>> {
    let pods = list(client).await?;
    let first = config_hash(client).await?;
    let pods = pods.iter().filter_map(|pod| {
        let address = pod["status"]["podIP"].as_str()?.parse().ok()?;
        let uid = pod["metadata"]["uid"].as_str()?.to_owned();
        // One that was told nothing has read its configuration when it was made.
        let hash = pod["metadata"]["annotations"][HASH].as_str().unwrap_or(&first).to_owned();
        Some((address, (uid, hash)))
    });
    Ok(pods.collect())
}

async fn list(client: &reqwest::Client) -> Result<Vec<Value>> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?resourceVersion=0");
    let list = get_json(client, &path).await?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

async fn config_hash(client: &reqwest::Client) -> Result<String> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/larder-default");
    let config = get_json(client, &path).await?;
    let text = config["data"]["node.yaml"].as_str().context("there is a configuration")?;
    Ok(digest::of(text.as_bytes()).trim_start_matches("sha256:").to_owned())
}

async fn get_json(client: &reqwest::Client, path: &str) -> Result<Value> {
    let asked = client.get(url(path)).bearer_auth(kubeconfig::token(kubeconfig::ADMIN));
    let body = asked.send().await?.error_for_status()?.bytes().await?;
    Ok(serde_json::from_slice(&body)?)
}

/// How many pods have been told of the configuration that is in force now.
pub async fn up_to_date(cluster: &Cluster) -> Result<usize> {
    let client = client(cluster)?;
    let hash = config_hash(&client).await?;
    let pods = list(&client).await?;
    Ok(pods.iter().filter(|pod| pod["metadata"]["annotations"][HASH] == hash).count())
}

/// The address that was called.
#[derive(Clone, Copy, Debug)]
struct Called(Option<SocketAddr>);

impl Connected<IncomingStream<'_, TcpListener>> for Called {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(stream.io().local_addr().ok())
    }
}

async fn report(
    State((pods, hosts)): State<(Pods, Vec<String>)>,
    ConnectInfo(Called(address)): ConnectInfo<Called>,
) -> Response {
    let pods = pods.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((uid, hash)) = address.and_then(|address| pods.get(&address.ip())) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let upstreams: serde_json::Map<String, Value> = hosts
        .iter()
        .map(|host| (host.clone(), json!({"accepted": true, "reachable": true, "hits": 7})))
        .collect();
    Json(json!({
        "apiVersion": "node.larder.dev/v1alpha1", "instance": uid, "node": "", "version": "0.1.0",
        "configHash": hash,
        "mirror": {"state": "Mirrored", "reason": "", "hosts": hosts},
        "store": {"state": "Ready", "usedBytes": 1 << 30, "capacityBytes": 20_u64 << 30},
        "upstreams": upstreams,
    }))
    .into_response()
}
