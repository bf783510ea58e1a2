//! Metrics of the operator: `larder_operator_*`.

use std::time::Duration;

use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry,
    core::{AtomicI64, Collector, GenericGauge},
};

/// Metrics of the operator.
#[derive(Clone, Debug)]
pub struct Metrics {
    reconciles: IntCounterVec,
    seconds: HistogramVec,
    leader: IntGauge,
}

impl Metrics {
    /// Registers all of them.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let reconciles = IntCounterVec::new(
            Opts::new("larder_operator_reconciles_total", "Reconciles, by kind and result"),
            &["kind", "result"],
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new("larder_operator_reconcile_seconds", "Time of a reconcile"),
            &["kind"],
        )?;
        let leader: GenericGauge<AtomicI64> =
            IntGauge::new("larder_operator_leader", "1 in the operator that acts")?;
        let all: [Box<dyn Collector>; 3] =
            [Box::new(reconciles.clone()), Box::new(seconds.clone()), Box::new(leader.clone())];
        for collector in all {
            registry.register(collector)?;
        }
        Ok(Self { reconciles, seconds, leader })
    }

    /// Counts one reconcile.
    pub fn reconciled(&self, kind: &str, ok: bool, took: Duration) {
        let result = if ok { "ok" } else { "error" };
        self.reconciles.with_label_values(&[kind, result]).inc();
        self.seconds.with_label_values(&[kind]).observe(took.as_secs_f64());
    }

    /// This operator acts now.
    pub fn lead(&self) {
        self.leader.set(1);
    }
}
