//! Events, on transitions only.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Resource,
    runtime::events::{Event, EventType, Recorder},
};
use larder_crds::resources::ConditionType;

use crate::{
    condition::{shorten, transitions},
    world::error_chain,
};

/// The API server's bound of a note.
const MAX_NOTE: usize = 1024;

/// Publishes one event for each condition that is another than `before`. That one is lost is no
/// reason to fail.
pub async fn publish<K>(recorder: &Recorder, object: &K, before: &[Condition], after: &[Condition])
where
    K: Resource<DynamicType = ()>,
{
    for condition in transitions(before, after) {
        // What an object is before anything is known of it is no news.
        if condition.status == "Unknown" {
            continue;
        }
        let event = Event {
            type_: if is_warning(before, condition) {
                EventType::Warning
            } else {
                EventType::Normal
            },
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

/// Whether somebody should look. The first roll-out is not over at its beginning, which is no reason.
fn is_warning(before: &[Condition], condition: &Condition) -> bool {
    use ConditionType::{Available, Degraded, Insecure, MirrorEffective, Shared};
    let is = |kinds: &[ConditionType]| kinds.iter().any(|kind| kind.as_str() == condition.type_);
    if is(&[Degraded, Insecure, Shared]) {
        return condition.status == "True";
    }
    let was_true = before.iter().any(|it| it.type_ == condition.type_ && it.status == "True");
    condition.status == "False" && (was_true || !is(&[Available, MirrorEffective]))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::condition::{Finding, conditions};

    #[test]
    fn the_first_roll_out_warns_nobody_and_what_stops_working_does() {
        use ConditionType::{Accepted, Available, Degraded, MirrorEffective};
        let of = |kind, holds| {
            conditions(vec![Finding::new(kind, holds, "R", "")], &[], None, Timestamp::UNIX_EPOCH)
        };
        for (kind, before, after, warns) in [
            (Available, None, Some(false), false),
            (MirrorEffective, None, Some(false), false),
            (Available, Some(false), Some(true), false),
            (Available, Some(true), Some(false), true),
            (MirrorEffective, Some(true), Some(false), true),
            (Accepted, None, Some(false), true),
            (Degraded, None, Some(true), true),
            (Degraded, Some(true), Some(false), false),
        ] {
            let found = is_warning(&of(kind, before), &of(kind, after)[0]);
            assert_eq!(found, warns, "{kind:?} {before:?} {after:?}");
        }
    }
}
