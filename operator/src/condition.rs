//! Conditions: what is said about an object, and since when.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use larder_crds::resources::{CacheReason, ConditionType, UpstreamReason};

/// What a condition is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Of which condition.
    pub kind: ConditionType,
    /// Whether it holds; `None`: not known.
    pub holds: Option<bool>,
    /// One word of a closed list.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Finding {
    /// A finding.
    pub fn new(
        kind: ConditionType,
        holds: Option<bool>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { kind, holds, reason, message: message.into() }
    }

    fn status(&self) -> &'static str {
        match self.holds {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        }
    }
}

/// The conditions for `findings`; those whose status is as before keep their time.
pub fn conditions(
    findings: Vec<Finding>,
    before: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    findings
        .into_iter()
        .map(|finding| {
            let kind = finding.kind.as_str();
            let status = finding.status();
            let since = before
                .iter()
                .find(|condition| condition.type_ == kind && condition.status == status)
                .map_or(Time(now), |condition| condition.last_transition_time.clone());
            Condition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: finding.reason.to_owned(),
                message: shorten(finding.message, MAX_MESSAGE),
                last_transition_time: since,
                observed_generation: generation,
            }
        })
        .collect()
}

/// The API server's bound of a condition's message.
const MAX_MESSAGE: usize = 32_768;

/// Cuts a text at a character, with an ellipsis.
pub fn shorten(mut text: String, most: usize) -> String {
    if text.len() > most {
        let cut = (0..=most.saturating_sub(3)).rev().find(|&at| text.is_char_boundary(at));
        text.truncate(cut.unwrap_or(0));
        text.push('…');
    }
    text
}

/// The conditions whose status or reason is another one than before, for events.
pub fn transitions<'a>(before: &[Condition], after: &'a [Condition]) -> Vec<&'a Condition> {
    let same = |one: &Condition, other: &Condition| {
        one.type_ == other.type_ && one.status == other.status && one.reason == other.reason
    };
    after.iter().filter(|new| !before.iter().any(|old| same(old, new))).collect()
}

/// What of conditions is written at once when it changes. Not messages: they have counts and what
/// nodes say in them, which may be another text at every poll. But what is wrong with the object
/// itself is, for somebody is mending it.
pub fn said(conditions: &[Condition]) -> Vec<Condition> {
    let is_own = |it: &Condition| {
        it.type_ == ConditionType::Accepted.as_str()
            && it.reason != UpstreamReason::RejectedByNodes.as_str()
            // The words are the API server's, or a webhook's.
            && it.reason != CacheReason::ApplyFailed.as_str()
    };
    let said = |it: &Condition| {
        let message = if is_own(it) { it.message.clone() } else { String::new() };
        Condition { message, ..it.clone() }
    };
    conditions.iter().map(said).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn finding(holds: bool, reason: &'static str) -> Finding {
        Finding::new(ConditionType::Accepted, Some(holds), reason, "text")
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let first = conditions(vec![finding(true, "Accepted")], &[], Some(1), at(1));
        let second = conditions(vec![finding(true, "Other")], &first, Some(2), at(2));
        assert_eq!(second[0].last_transition_time, Time(at(1)));
        assert_eq!(second[0].observed_generation, Some(2));
        let third = conditions(vec![finding(false, "Other")], &second, Some(2), at(3));
        assert_eq!(third[0].last_transition_time, Time(at(3)));
    }

    #[test]
    fn an_event_is_worth_a_new_status_or_reason() {
        let first = conditions(vec![finding(true, "Accepted")], &[], Some(1), at(1));
        assert_eq!(transitions(&[], &first).len(), 1);
        let second = conditions(vec![finding(true, "Accepted")], &first, Some(2), at(2));
        assert_eq!(transitions(&first, &second).len(), 0);
        let third = conditions(vec![finding(true, "Other")], &first, Some(2), at(2));
        assert_eq!(transitions(&first, &third).len(), 1);
    }

    #[test]
    fn what_nodes_say_is_not_said_at_once_and_what_is_wrong_with_the_object_is() {
        let of = |kind, reason, message: &str| {
            conditions(vec![Finding::new(kind, Some(false), reason, message)], &[], Some(1), at(1))
        };
        for (kind, reason, at_once) in [
            (ConditionType::Accepted, "SecretInvalid", true),
            (ConditionType::Accepted, "RejectedByNodes", false),
            (ConditionType::Accepted, "ApplyFailed", false),
            (ConditionType::Reachable, "Unreachable", false),
        ] {
            let (one, other) = (of(kind, reason, "one"), of(kind, reason, "other"));
            assert_eq!(said(&one) != said(&other), at_once, "{reason}");
        }
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        assert_eq!(shorten("äöü".to_owned(), 5), "ä…");
        assert_eq!(shorten("abc".to_owned(), 3), "abc");
    }
}
