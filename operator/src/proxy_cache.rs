//! `ProxyCache`: from one object to a cache on every node, as a sentence.

pub mod placement;
pub mod plan;
mod problems;
mod status;
mod tell;
pub mod validate;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    runtime::controller::Action,
};
use larder_crds::resources::{CacheReason, ProxyCache};

pub use problems::Seen;
pub use status::Outcome;
pub use tell::Teller;

use self::{
    placement::Placement,
    plan::{Objects, REPORT_TOKEN},
    validate::{Rejected, selected, validate},
};
use crate::{Ctx, events, labels, upstream_registry::named};

/// Makes the cluster match one ProxyCache.
pub async fn reconcile(cache: Arc<ProxyCache>, ctx: Arc<Ctx>) -> Result<Action, kube::Error> {
    // It goes; its objects go with it, by their owner references.
    if cache.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let planned = plan_all(&cache, &ctx);
    let outcome = match &planned {
        Ok((objects, hosts)) => match apply(objects, &ctx).await {
            Ok(()) => Outcome::Applied(hosts.clone()),
            // The object is refused for good; everything else is tried again.
            Err(kube::Error::Api(answer)) if answer.code == 422 || answer.code == 403 => {
                Outcome::Rejected(Rejected {
                    reason: CacheReason::ApplyFailed,
                    message: answer.message,
                })
            }
            Err(error) => return Err(error),
        },
        Err(rejected) => Outcome::Rejected(rejected.clone()),
    };
    let hash = planned.as_ref().ok().map(|(objects, _)| objects.config_hash.as_str());
    let seen = look(&cache, hash, &ctx).await?;
    report(&cache, &outcome, &seen, &ctx).await?;
    // Counters that were not due may be in a minute.
    Ok(Action::requeue(Duration::from_mins(1)))
}

type Planned = Result<(Objects, Vec<String>), Rejected>;

fn plan_all(cache: &Arc<ProxyCache>, ctx: &Ctx) -> Planned {
    let world = &ctx.world;
    let all = world.registries.state();
    let valid =
        validate(cache, &world.caches.state(), &world.nodes.state(), &ctx.installed.architectures)?;
    let chosen = selected(cache, &all)?;
    let name = labels::object_name(&cache.name_any());
    let (config_map, secret) = (world.config_map(&name), world.secret(&name));
    let before = config_map.as_deref().zip(secret.as_deref());
    let upstreams = plan::last_good(&chosen, &all, &named(world), before);
    let token = secret
        .as_ref()
        .and_then(|secret| secret.data.as_ref()?.get(REPORT_TOKEN))
        .and_then(|token| String::from_utf8(token.0.clone()).ok())
        .filter(|token| token.len() >= 32)
        .unwrap_or_else(new_token);
    let hosts = upstreams.entries.iter().map(|entry| entry.host.clone()).collect();
    let objects = plan::plan(&valid, &upstreams, token, &ctx.installed)?;
    Ok((objects, hosts))
}

/// 32 random bytes. Without randomness there is none, and reports answer on loopback only.
fn new_token() -> String {
    let mut bytes = [0; 32];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => labels::hash(&bytes),
        Err(_) => String::new(),
    }
}

/// Secrets and configuration before the pods that mount them.
async fn apply(objects: &Objects, ctx: &Ctx) -> Result<(), kube::Error> {
    let name = objects.daemon_set.name_any();
    let world = &ctx.world;
    ctx.applier.apply(&objects.secret, world.secret(&name).as_deref()).await?;
    ctx.applier.apply(&objects.config_map, world.config_map(&name).as_deref()).await?;
    ctx.applier.apply(&objects.daemon_set, world.daemon_set(&name).as_deref()).await?;
    ctx.applier.apply(&objects.service, world.service(&name).as_deref()).await?;
    Ok(())
}

/// Looks at the nodes, and tells pods that do not know of their configuration yet.
async fn look(cache: &ProxyCache, hash: Option<&str>, ctx: &Ctx) -> Result<Seen, kube::Error> {
    let (answers, polled) = ctx.fleet.answers();
    let nodes = ctx.world.nodes.state();
    let placement = Placement::of(cache, &ctx.installed.architectures);
    let mut seen = Seen {
        pods: ctx.world.pods_of(&cache.name_any()),
        without_image: placement.without_image(&nodes),
        nodes,
        answers,
        polled,
        given_up: Vec::new(),
        now: Timestamp::now(),
    };
    if let Some(hash) = hash {
        seen.given_up = ctx.teller.tell(hash, &seen).await?;
    }
    Ok(seen)
}

async fn report(
    cache: &ProxyCache,
    outcome: &Outcome,
    seen: &Seen,
    ctx: &Ctx,
) -> Result<(), kube::Error> {
    let daemon_set = ctx.world.daemon_set(&labels::object_name(&cache.name_any()));
    let before = cache.status.clone().unwrap_or_default();
    let after = status::status(cache, outcome, daemon_set.as_deref(), seen);
    ctx.metrics.cache(&cache.name_any(), &after, &seen.problems());
    let key = format!("ProxyCache/{}", cache.name_any());
    if !status::is_due(&before, &after, ctx.written.since(&key)) {
        return Ok(());
    }
    let api: Api<ProxyCache> = Api::all(ctx.client.clone());
    let patch = serde_json::json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "ProxyCache", "status": after,
    });
    let parameters = PatchParams::apply(labels::FIELD_MANAGER).force();
    match api.patch_status(&cache.name_any(), &parameters, &Patch::Apply(&patch)).await {
        Ok(_) => {}
        // Deleted meanwhile.
        Err(kube::Error::Api(answer)) if answer.code == 404 => return Ok(()),
        Err(error) => return Err(error),
    }
    ctx.written.now(&key);
    events::publish(&ctx.recorder, cache, &before.conditions, &after.conditions).await;
    Ok(())
}
