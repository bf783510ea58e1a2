//! The leader lease: of several operators one acts.

use std::time::Duration;

use kube::Client;
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

/// The lease's name.
const NAME: &str = "larder-operator";
/// For how long a leader that died is waited for. formats.md 9.
const DURATION: u64 = 10;
/// How long before its end the lease is renewed, so that one failed try in 2 s is not the end.
const GRACE: u64 = 6;
/// For giving it back: less than what a pod has to end.
const RELEASE: Duration = Duration::from_secs(3);

/// A lease that is being held, or tried for.
pub struct Lease {
    leads: watch::Receiver<bool>,
    task: JoinHandle<kube_lease_manager::Result<LeaseManager>>,
}

impl Lease {
    /// Begins to try for the lease.
    pub async fn try_for(client: Client, namespace: &str, identity: &str) -> anyhow::Result<Self> {
        let manager = LeaseManagerBuilder::new(client, NAME)
            .with_namespace(namespace)
            .with_identity(identity)
            .with_duration(DURATION)
            .with_grace(GRACE)
            .with_field_manager(crate::labels::FIELD_MANAGER)
            .build()
            .await?;
        let (leads, task) = manager.watch().await;
        Ok(Self { leads, task })
    }

    /// Waits until this operator leads.
    pub async fn won(&mut self) -> anyhow::Result<()> {
        self.leads.wait_for(|leads| *leads).await?;
        Ok(())
    }

    /// Waits until it leads no longer. The process has to end then: another one acts.
    pub async fn lost(&self) {
        let mut leads = self.leads.clone();
        // An error means that nobody renews it any more.
        let _ = leads.wait_for(|leads| !*leads).await;
    }

    /// Gives the lease back, so that another operator need not wait for its end.
    pub async fn release(self) {
        drop(self.leads);
        let given_back = timeout(RELEASE, self.task).await;
        if matches!(given_back, Ok(Ok(Ok(_)))) {
            tracing::info!("gave the lease back");
        } else {
            tracing::warn!("the lease was not given back; another operator waits for its end");
        }
    }
}
