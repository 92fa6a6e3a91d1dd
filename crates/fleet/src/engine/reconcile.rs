//! Comparing the whole: what runs with what the rows say. What nobody owns is removed; what is
//! missing is [`super::vitals`]' business.

use std::time::Duration;

use super::EngineError;
use crate::fleet::Fleet;

/// How long a bundle is kept that no recent deployment names.
const KEEP_BUNDLES: Duration = Duration::from_secs(30 * 86_400);

/// Compares what runs with what should.
pub(super) async fn compare(fleet: &Fleet) {
    if let Err(error) = try_compare(fleet).await {
        tracing::warn!(%error, "what runs couldn't be compared with what should");
    }
}

async fn try_compare(fleet: &Fleet) -> Result<(), EngineError> {
    let services = fleet.db.services().await?;
    for (application, group, _) in &services {
        if let Err(error) = fleet.routes.sync(fleet, application, group, "reconcile").await {
            tracing::warn!(application, group, %error, "the proxy isn't as it should be");
        }
    }
    // Containers first, then rows: a container's deployment is written before it is made.
    let running = fleet.containers.list(None).await?;
    let services = fleet.db.services().await?;
    let mut owners = fleet.db.active_ids().await?;
    for (application, group, _) in &services {
        let good = fleet.db.last_good(application, group, "").await?;
        owners.extend(good.map(|good| good.id));
    }
    for replica in running.iter().filter(|replica| !owners.contains(&replica.deployment)) {
        tracing::info!(
            container = replica.id,
            deployment = replica.deployment,
            "nobody's: removed"
        );
        fleet.containers.retire(&replica.id).await?;
    }
    Ok(())
}

/// Forgets bundles that nobody will ask for again.
pub(super) async fn sweep(fleet: &Fleet) -> Result<(), EngineError> {
    let named = fleet.db.forget_bundles(fleet.clock.now() - KEEP_BUNDLES).await?;
    let swept = fleet.bundles.sweep(&named.into_iter().collect())?;
    if swept > 0 {
        tracing::info!(swept, "old bundles are gone");
    }
    Ok(())
}
