//! `twill config`.

use super::{Outcome, with_store};
use crate::config::Site;
use crate::store::LeaseAdmin;

/// Checks a network configuration and writes it.
pub(super) async fn set(site: &Site, json: &str) -> Outcome {
    with_store!(&site.store, |store| store.set_config_text(json).await)?;
    Ok(String::new())
}

/// Prints the network configuration.
pub(super) async fn get(site: &Site) -> Outcome {
    let text = with_store!(&site.store, |store| store.config_text().await)?;
    Ok(format!("{}\n", text.trim_end()))
}
