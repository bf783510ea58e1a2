//! What the API server says, kept up to date by watches: the observations that every reconcile
//! starts from. Only the fields that are used are kept: 1,000 whole nodes and pods are 60 MiB.

use std::{fmt::Debug, hash::Hash, sync::Arc};

use futures_util::{StreamExt, stream::BoxStream};
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{ConfigMap, Node, Pod, Secret, Service},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher,
    },
};
use larder_crds::resources::{ProxyCache, UpstreamRegistry};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::labels;

/// What the API server says.
#[derive(Clone)]
pub struct World {
    /// All ProxyCaches.
    pub caches: Store<ProxyCache>,
    /// All UpstreamRegistries.
    pub registries: Store<UpstreamRegistry>,
    /// All nodes: labels, taints, runtime.
    pub nodes: Store<Node>,
    /// Our pods in our namespace: labels, annotations, node, addresses, conditions.
    pub pods: Store<Pod>,
    /// Our DaemonSets.
    pub daemon_sets: Store<DaemonSet>,
    /// Our Services.
    pub services: Store<Service>,
    /// Every ConfigMap of our namespace: users name some of them.
    pub config_maps: Store<ConfigMap>,
    /// Every Secret of our namespace but Helm's: users name some of them.
    pub secrets: Store<Secret>,
    changed: Arc<Notify>,
}

/// Runs the watches; ends only with the process.
pub type Watches = BoxStream<'static, ()>;

impl World {
    /// Begins to watch. Nothing is known until [`Self::wait_until_known`] has returned, and only
    /// while `Watches` is polled.
    pub fn watch(client: &Client, namespace: &str) -> (Self, Watches) {
        let changed = Arc::new(Notify::new());
        let mut all = Vec::new();
        let ours = || {
            let manager = labels::FIELD_MANAGER;
            watcher::Config::default().labels(&format!("app.kubernetes.io/managed-by={manager}"))
        };
        let any = watcher::Config::default;
        let world = Self {
            caches: keep(Api::all(client.clone()), any(), |_| {}, &changed, &mut all),
            registries: keep(Api::all(client.clone()), any(), |_| {}, &changed, &mut all),
            nodes: keep(Api::all(client.clone()), any(), prune_node, &changed, &mut all),
            pods: keep(
                Api::namespaced(client.clone(), namespace),
                watcher::Config::default().labels("app.kubernetes.io/name=larder-node"),
                prune_pod,
                &changed,
                &mut all,
            ),
            daemon_sets: keep(
                Api::namespaced(client.clone(), namespace),
                ours(),
                prune_meta,
                &changed,
                &mut all,
            ),
            services: keep(
                Api::namespaced(client.clone(), namespace),
                ours(),
                prune_meta,
                &changed,
                &mut all,
            ),
            config_maps: keep(
                Api::namespaced(client.clone(), namespace),
                any(),
                prune_meta,
                &changed,
                &mut all,
            ),
            secrets: keep(
                Api::namespaced(client.clone(), namespace),
                // A release is up to 1 MiB, and Helm keeps ten of each.
                any().fields("type!=helm.sh/release.v1"),
                prune_meta,
                &changed,
                &mut all,
            ),
            changed,
        };
        (world, futures_util::stream::select_all(all).boxed())
    }

    /// Waits until every kind has been listed once.
    pub async fn wait_until_known(&self) -> anyhow::Result<()> {
        self.caches.wait_until_ready().await?;
        self.registries.wait_until_ready().await?;
        self.nodes.wait_until_ready().await?;
        self.pods.wait_until_ready().await?;
        self.daemon_sets.wait_until_ready().await?;
        self.services.wait_until_ready().await?;
        self.config_maps.wait_until_ready().await?;
        self.secrets.wait_until_ready().await?;
        Ok(())
    }

    /// Says that something changed which no watch sees: a poll has ended.
    pub fn touch(&self) {
        self.changed.notify_one();
    }

    /// Returns after a change; several in a row count as one.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The object of that name.
    pub fn secret(&self, name: &str) -> Option<Arc<Secret>> {
        find(&self.secrets, name)
    }

    /// The object of that name.
    pub fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
        find(&self.config_maps, name)
    }

    /// The object of that name.
    pub fn daemon_set(&self, name: &str) -> Option<Arc<DaemonSet>> {
        find(&self.daemon_sets, name)
    }

    /// The object of that name.
    pub fn service(&self, name: &str) -> Option<Arc<Service>> {
        find(&self.services, name)
    }

    /// The pods of a cache.
    pub fn pods_of(&self, cache: &str) -> Vec<Arc<Pod>> {
        let mut pods = self.pods.state();
        pods.retain(|pod| pod.labels().get(labels::CACHE).is_some_and(|name| name == cache));
        pods
    }
}

fn find<K>(store: &Store<K>, name: &str) -> Option<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.find(|object| object.meta().name.as_deref() == Some(name))
}

fn keep<K>(
    api: Api<K>,
    config: watcher::Config,
    prune: fn(&mut K),
    changed: &Arc<Notify>,
    all: &mut Vec<BoxStream<'static, ()>>,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Eq + Hash,
{
    let (store, writer) = reflector::store();
    let changed = changed.clone();
    let watched = watcher(api, config)
        .default_backoff()
        .modify(prune)
        .reflect(writer)
        .for_each(move |event| {
            match event {
                Ok(_) => changed.notify_one(),
                Err(error) => {
                    let kind = K::kind(&());
                    tracing::warn!(%kind, error = %error_chain(&error), "a watch failed; it is tried again");
                }
            }
            std::future::ready(())
        });
    all.push(futures_util::stream::once(watched).boxed());
    store
}

/// An error with its causes, on one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // kube's messages often have their cause in them already.
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

fn prune_meta<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

fn prune_node(node: &mut Node) {
    prune_meta(node);
    node.metadata.annotations = None;
    if let Some(spec) = &mut node.spec {
        *spec = k8s_openapi::api::core::v1::NodeSpec {
            taints: spec.taints.take(),
            unschedulable: spec.unschedulable,
            ..Default::default()
        };
    }
    if let Some(status) = &mut node.status {
        *status = k8s_openapi::api::core::v1::NodeStatus {
            node_info: status.node_info.take(),
            ..Default::default()
        };
    }
}

fn prune_pod(pod: &mut Pod) {
    prune_meta(pod);
    if let Some(spec) = &mut pod.spec {
        *spec = k8s_openapi::api::core::v1::PodSpec {
            node_name: spec.node_name.take(),
            ..Default::default()
        };
    }
    if let Some(status) = &mut pod.status {
        status.conditions.get_or_insert_default().retain(|condition| condition.type_ == "Ready");
    }
}
