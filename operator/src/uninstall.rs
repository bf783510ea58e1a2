//! `larder-operator uninstall`: what `helm uninstall` runs first, while everything is still there.

use std::time::Duration;

use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, PropagationPolicy},
};
use larder_crds::resources::ProxyCache;
use tokio::time::{Instant, sleep};

use crate::world::error_chain;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// Deletes every ProxyCache in the foreground: the API server keeps the object until its pods are
/// gone, and those go after they have withdrawn their mirror files. Gives up after `timeout`.
pub async fn run(client: Client, timeout: Duration) {
    let caches: Api<ProxyCache> = Api::all(client);
    let until = Instant::now() + timeout;
    let foreground = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Foreground),
        ..DeleteParams::default()
    };
    let mut told = false;
    loop {
        let left = match caches.list(&ListParams::default()).await {
            Ok(list) => list.items,
            // Without the definition there is no object either.
            Err(kube::Error::Api(answer)) if answer.code == 404 => Vec::new(),
            Err(error) => {
                tracing::warn!(error = %error_chain(&error), "the ProxyCaches cannot be listed");
                if Instant::now() >= until {
                    return;
                }
                sleep(LOOK).await;
                continue;
            }
        };
        if left.is_empty() {
            tracing::info!("no ProxyCache is left; the nodes are as they were");
            return;
        }
        let names: Vec<_> = left.iter().map(ResourceExt::name_any).collect();
        if !told {
            tracing::info!(?names, "deleting ProxyCaches; node caches withdraw their mirror files");
            told = true;
        }
        if Instant::now() >= until {
            tracing::warn!(
                ?names,
                "gave up waiting: a node may be unreachable. Its mirror files name a closed port, which \
                 containerd passes over; when it is back, its pod withdraws them"
            );
            return;
        }
        for cache in left.iter().filter(|cache| cache.metadata.deletion_timestamp.is_none()) {
            if let Err(error) = caches.delete(&cache.name_any(), &foreground).await {
                tracing::warn!(name = cache.name_any(), error = %error_chain(&error), "not deleted yet");
            }
        }
        sleep(LOOK).await;
    }
}
