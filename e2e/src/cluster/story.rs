//! Telling a story on a cluster.

use std::{
    panic::AssertUnwindSafe,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, anyhow};
use futures_util::FutureExt;

use super::{Cluster, Options};
use crate::sandbox::{Sandbox, Told, message, story_of};

/// A story that is not over by then hangs. Inside the sandbox's own, so that the cluster can still
/// be asked what is the matter.
const PATIENCE: Duration = Duration::from_mins(18);
const SANDBOX_PATIENCE: Duration = Duration::from_mins(22);

/// Two clusters at once would only make each other miss their times.
static ALONE: Mutex<()> = Mutex::new(());

/// Boots a cluster, tells a story on it and ends it, however the story ends. A failure comes with
/// what the cluster has to say.
pub fn story<F>(options: Options, tell: F) -> Told
where
    F: AsyncFnOnce(&Sandbox, &mut Cluster) -> Result<()> + Send,
{
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    story_of(SANDBOX_PATIENCE, async |sandbox| {
        let mut cluster = Cluster::boot(sandbox, options).await?;
        let telling = AssertUnwindSafe(tell(sandbox, &mut cluster)).catch_unwind();
        let told = match tokio::time::timeout(PATIENCE, telling).await {
            Ok(Ok(told)) => told,
            Ok(Err(panic)) => Err(anyhow!("{}", message(&*panic))),
            Err(_) => Err(anyhow!("the story hangs: not over after {PATIENCE:?}")),
        };
        match told.and_then(|()| cluster.check_running()) {
            Ok(()) => cluster.stop().await,
            Err(error) => {
                let dump = cluster.dump().await;
                // Not to hide what went wrong first.
                let stopped = cluster.stop().await.err();
                let stopped = stopped.map(|error| format!("\nand then: {error:#}"));
                Err(anyhow!("{error:#}\n{dump}{}", stopped.unwrap_or_default()))
            }
        }
    })
}
