//! The table of faults: what an upstream does, what the client must see, what the upstream may
//! have seen, and what is in the store afterwards.
//!
//! One server, and for every case an upstream of its own (breakers are per endpoint), all cases at
//! once. The expectations are those of formats.md 4 and 5.

use std::net::Ipv4Addr;

use futures_util::future::join_all;

use crate::larder::{Larder, eventually};

mod auth;
mod body;
mod case;
mod check;
mod hang;
mod manifest;
mod range;
mod redirect;
mod status;
mod want;

use case::{Case, Ground};

/// Every case of the table.
fn table() -> Vec<&'static Case> {
    [
        body::CASES,
        hang::CASES,
        range::CASES,
        status::CASES,
        manifest::CASES,
        redirect::CASES,
        auth::CASES,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The cases whose names contain `LARDER_CASE`, all by default.
fn selected() -> Vec<&'static Case> {
    let wanted = std::env::var("LARDER_CASE").unwrap_or_default();
    table().into_iter().filter(|case| case.name.contains(&wanted)).collect()
}

#[test]
fn every_case_of_the_table_has_a_name_of_its_own() {
    let mut names: Vec<_> = table().iter().map(|case| case.name).collect();
    // They are labels of host names.
    assert!(names.iter().all(|name| name.len() <= 63), "{names:?}");
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), table().len());
    assert!(names.len() >= 45, "{}", names.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_an_upstream_ends_as_promised() {
    let cases = selected();
    let grounds: Vec<_> = join_all(cases.iter().map(|case| Ground::prepare(case))).await;
    let upstreams = cases.iter().zip(&grounds).map(|(case, ground)| {
        (case.arrange)(ground);
        (case.upstream)(ground, ground.upstream())
    });
    let larder = Larder::serving(upstreams).await;

    let runs = cases.iter().zip(&grounds).map(|(case, ground)| case.run(ground, &larder));
    let mut failures: Vec<String> = join_all(runs).await.into_iter().flatten().collect();
    failures.extend(miscounted(&cases, &larder).await);

    let (failed, all) = (failures.len(), cases.len());
    assert!(failures.is_empty(), "{failed} failures in {all} cases\n{}", failures.join("\n"));
}

/// The one thing that cannot be told apart by case: how much was quarantined.
async fn miscounted(cases: &[&Case], larder: &Larder) -> Option<String> {
    let least: f64 = cases.iter().map(|case| f64::from(case.quarantined.0)).sum();
    let most: f64 = cases.iter().map(|case| f64::from(case.quarantined.1)).sum();
    let count = async || larder.metrics().await.sum("larder_node_quarantined_total", &[]);
    eventually(5, async || count().await >= least).await;
    let count = count().await;
    let files = larder.store().quarantined();
    (!(least..=most).contains(&count)).then(|| {
        format!("larder_node_quarantined_total is {count}, not {least} to {most}; files: {files:?}")
    })
}

/// Addresses of other hosts; the upstreams are on 127.0.0.1.
const FOREIGN: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SINK: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
