//! `UpstreamRegistry`: what is said about one registry. What is done with it is a matter of the
//! caches that use it.

mod status;
pub mod validate;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    runtime::controller::Action,
};
use larder_crds::resources::UpstreamRegistry;

use self::validate::Named;
use crate::{Ctx, events, labels, proxy_cache::validate::selected, world::World};

/// Says in its status how one UpstreamRegistry is.
pub async fn reconcile(
    registry: Arc<UpstreamRegistry>,
    ctx: Arc<Ctx>,
) -> Result<Action, kube::Error> {
    if registry.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let world = &ctx.world;
    let all = world.registries.state();
    let outcome = validate::validate(&registry, &all, &named(world));
    let name = registry.name_any();
    let used = world.caches.state().iter().any(|cache| {
        selected(cache, &all)
            .is_ok_and(|chosen| chosen.iter().any(|registry| registry.name_any() == name))
    });
    let (answers, polled) = ctx.fleet.answers();
    let reports: Vec<_> =
        answers.values().filter_map(|answer| answer.report.as_ref().ok()).collect();
    let seen = status::Seen { used, reports: &reports, polled };
    let before = registry.status.clone().unwrap_or_default();
    let after = status::status(&registry, &outcome, &seen, Timestamp::now());
    ctx.metrics.upstream(&name, &registry.spec.host, &after, seen.nodes(&registry.spec.host));
    let key = format!("UpstreamRegistry/{name}");
    if status::is_due(&before, &after, ctx.written.since(&key)) {
        let api: Api<UpstreamRegistry> = Api::all(ctx.client.clone());
        let patch = serde_json::json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "UpstreamRegistry", "status": after,
        });
        let parameters = PatchParams::apply(labels::FIELD_MANAGER).force();
        match api.patch_status(&name, &parameters, &Patch::Apply(&patch)).await {
            Ok(_) => {}
            Err(kube::Error::Api(answer)) if answer.code == 404 => {
                return Ok(Action::await_change());
            }
            Err(error) => return Err(error),
        }
        ctx.written.now(&key);
        events::publish(&ctx.recorder, &*registry, &before.conditions, &after.conditions).await;
    }
    Ok(Action::requeue(Duration::from_mins(1)))
}

/// What users' objects say, by name.
pub fn named(world: &World) -> Named {
    Named {
        secrets: world
            .secrets
            .state()
            .into_iter()
            .map(|secret| (secret.name_any(), secret))
            .collect(),
        config_maps: world
            .config_maps
            .state()
            .into_iter()
            .map(|config_map| (config_map.name_any(), config_map))
            .collect(),
    }
}
