//! What the store needs done while nobody asks for it.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::Metrics,
    store::{Scrub, Scrubbed, Store, StoreError},
};

/// Uses and verified files are written down at this pace, which is what a crash loses; and a disk
/// that others fill is noticed.
const ROUND: Duration = Duration::from_secs(5);

/// All files are looked at this often, for what others changed and what is of no use any more.
const WALK: Duration = Duration::from_hours(1);

/// Starts the rounds and the scrub (none if `scrub_period` is zero). The handle ends after `cancel`.
pub fn start(
    store: &Arc<Store>,
    metrics: &Metrics,
    scrub_period: Duration,
    cancel: &CancellationToken,
) -> JoinHandle<()> {
    if !scrub_period.is_zero() {
        start_scrub(store, metrics, scrub_period, cancel);
    }
    let (store, metrics, cancel) = (store.clone(), metrics.clone(), cancel.clone());
    tokio::spawn(async move {
        let mut next_walk = Instant::now();
        let mut known = String::new();
        loop {
            let walk = Instant::now() >= next_walk;
            let kept = store.clone();
            let round = tokio::task::spawn_blocking(move || one_round(&kept, walk)).await;
            match round {
                Ok(Err(error)) if !error.is_expected() => {
                    metrics.store_errors.inc();
                    // A disk that stays broken is news once.
                    let problem = error.to_string();
                    if problem != known {
                        tracing::warn!(%error, "the store needs help; it is tried again every 5 s");
                        known = problem;
                    }
                }
                Ok(Ok(())) => {
                    known.clear();
                    if walk {
                        next_walk = Instant::now() + WALK;
                    }
                }
                _ => {}
            }
            if cancel.run_until_cancelled(tokio::time::sleep(ROUND)).await.is_none() {
                return;
            }
        }
    })
}

fn one_round(store: &Store, walk: bool) -> Result<(), StoreError> {
    let taken = store.attach()?;
    if taken {
        tracing::info!("the folder of the store is taken");
    }
    let walked = if walk || taken { walk_over(store) } else { Ok(()) };
    // Whatever was wrong with one file: the bounds hold, and what is known is written down.
    store.keep_floor()?;
    store.write_counters();
    walked
}

fn walk_over(store: &Store) -> Result<(), StoreError> {
    let started = std::time::Instant::now();
    store.account()?;
    let (blobs, elapsed_ms) = (store.measure().blobs, started.elapsed().as_millis());
    tracing::info!(blobs, elapsed_ms, "the store is accounted for");
    store.tidy()
}

fn start_scrub(
    store: &Arc<Store>,
    metrics: &Metrics,
    period: Duration,
    cancel: &CancellationToken,
) {
    let scrub = Scrub::new(store.clone(), period, cancel.clone());
    let metrics = metrics.clone();
    let run = move || {
        scrub.run(&mut |found| match found {
            Scrubbed::Damaged(digest) => {
                metrics.quarantined.inc();
                tracing::error!(%digest, "the scrub found a damaged blob; it will be fetched again");
            }
            Scrubbed::Pass { blobs } => {
                metrics.scrubs.inc();
                tracing::debug!(blobs, "the scrub has read everything once");
            }
        });
    };
    // A thread of its own, because it sleeps most of the time.
    if let Err(error) = std::thread::Builder::new().name("scrub".to_owned()).spawn(run) {
        tracing::warn!(%error, "there is no scrub");
    }
}
