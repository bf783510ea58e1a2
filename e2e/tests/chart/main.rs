//! The Helm chart without a cluster: what real Helm renders and refuses, what real promtool says of
//! the alerts, whether a real Prometheus finds what they and the dashboard ask for, and the reference
//! pages that are made of the code.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod alerts;
mod helm;
mod manifests;
mod queries;
mod reference;
mod values;
