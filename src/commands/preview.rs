//! `twill plan` and `twill cleanup`: what an agent would do, and the undoing of what one did.

use tokio::sync::watch;

use super::world::Real;
use super::{Failure, Outcome, with_store};
use crate::agent::Agent;
use crate::agent::identity::Identity;
use crate::agent::lock::Lock;
use crate::agent::preview::Preview;
use crate::agent::privilege::may_change_network;
use crate::agent::survey::Survey;
use crate::config::Config;
use crate::telemetry;

/// Prints the operations that an agent would do, each with its reason. Nothing is written.
pub(super) async fn plan(config: Config) -> Outcome {
    telemetry::warnings_to_stderr(config.verbosity);
    let lines = Preview::from(&survey(&config).await?).lines();
    if lines.is_empty() {
        return Ok("nothing to do: this host is as it should be\n".to_owned());
    }
    Ok(lines.join("\n") + "\n")
}

/// Looks at the leases and at this host.
pub(super) async fn survey(config: &Config) -> Result<Survey, Failure> {
    let identity = Identity::peek(&config.site.state_dir());
    let (ready, _) = watch::channel(false);
    with_store!(&config.site.store, |store| {
        Agent::new(Real::open(store, config)?, config.clone(), identity, ready).survey().await
    })
}

/// Removes what is ours from this host. The lease stays, so that an agent that starts again has the same subnet.
pub(super) async fn clean_up(config: Config, firewall_only: bool) -> Outcome {
    telemetry::warnings_to_stderr(config.verbosity);
    may_change_network()?;
    let _lock = Lock::take(&config.site.run_dir())?;
    let identity = Identity::peek(&config.site.state_dir());
    let (ready, _) = watch::channel(false);
    let lines = with_store!(&config.site.store, |store| {
        Agent::new(Real::open(store, &config)?, config.clone(), identity, ready).remove(firewall_only).await?
    });
    if lines.is_empty() {
        return Ok("nothing of ours is left on this host\n".to_owned());
    }
    Ok(lines.join("\n") + "\n")
}
