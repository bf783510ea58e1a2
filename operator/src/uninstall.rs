//! `larder-operator uninstall`: what `helm uninstall` runs first, while everything is still there.

use std::time::Duration;

use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, PropagationPolicy},
};
use larder_crds::resources::ProxyCache;
use tokio::time::sleep;

use crate::world::error_chain;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// Deletes every ProxyCache in the foreground: the API server keeps the object until its pods are
/// gone, and those go after they have withdrawn their mirror files. Gives up after `timeout`, also
/// on an API server that takes a request and never answers.
pub async fn run(client: Client, timeout: Duration) {
    if tokio::time::timeout(timeout, delete_all(&Api::all(client))).await.is_err() {
        tracing::warn!(
            "gave up waiting: a node or the API server may be unreachable. The mirror files of such a \
             node name a closed port, which containerd passes over; when it is back, its pod withdraws \
             them, if the ProxyCaches are deleted: look with kubectl get pcache"
        );
    }
}

async fn delete_all(caches: &Api<ProxyCache>) {
    let foreground = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Foreground),
        ..DeleteParams::default()
    };
    let (mut told, mut known) = (Vec::new(), String::new());
    loop {
        match caches.list(&ListParams::default()).await {
            Ok(list) if list.items.is_empty() => break,
            Ok(list) => {
                let names: Vec<_> = list.iter().map(ResourceExt::name_any).collect();
                if names != told {
                    tracing::info!(
                        ?names,
                        "waiting for node caches to withdraw their mirror files"
                    );
                    told = names;
                }
                let left = list.iter().filter(|cache| cache.metadata.deletion_timestamp.is_none());
                for cache in left {
                    delete(caches, &cache.name_any(), &foreground).await;
                }
            }
            // Without the definition there is no object either.
            Err(kube::Error::Api(answer)) if answer.code == 404 => break,
            Err(error) => {
                // It is tried twice a second, and says the same for a while.
                let problem = error_chain(&error);
                if problem != known {
                    tracing::warn!(error = problem, "the ProxyCaches cannot be listed");
                    known = problem;
                }
            }
        }
        sleep(LOOK).await;
    }
    tracing::info!("no ProxyCache is left; the nodes are as they were");
}

async fn delete(caches: &Api<ProxyCache>, name: &str, how: &DeleteParams) {
    if let Err(error) = caches.delete(name, how).await {
        tracing::warn!(name, error = %error_chain(&error), "not deleted yet");
    }
}
