//! Events, on transitions only.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Resource,
    runtime::events::{Event, EventType, Recorder},
};
use larder_crds::resources::ConditionType;

use crate::{condition::shorten, world::error_chain};

/// The API server's bound of a note.
const MAX_NOTE: usize = 1024;

/// Publishes one event for each condition that changed. That one is lost is no reason to fail.
pub async fn publish<K>(recorder: &Recorder, object: &K, changed: &[&Condition])
where
    K: Resource<DynamicType = ()>,
{
    for condition in changed {
        // What an object is before anything is known of it is no news.
        if condition.status == "Unknown" {
            continue;
        }
        let bad_if_true = [ConditionType::Degraded, ConditionType::Insecure, ConditionType::Shared];
        let bad = if bad_if_true.iter().any(|kind| kind.as_str() == condition.type_) {
            "True"
        } else {
            "False"
        };
        let event = Event {
            type_: if condition.status == bad { EventType::Warning } else { EventType::Normal },
            reason: condition.reason.clone(),
            note: Some(shorten(condition.message.clone(), MAX_NOTE)),
            action: condition.type_.clone(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, &object.object_ref(&())).await {
            tracing::debug!(error = %error_chain(&error), "an event was lost");
        }
    }
}
