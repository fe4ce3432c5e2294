//! `twill lease`.

use std::time::Duration;

use serde_json::{Value, json};
use twill_backends::family::Family;
use twill_backends::lease::{LeaseKey, Subnets};

use super::{Outcome, with_store};
use crate::agent::socket::{Ask, ask};
use crate::cli::{Owner, Release};
use crate::config::Site;
use crate::store::{Entry, LeaseAdmin, Owner as For};
use crate::style::{Cell, STRONG, Table, paint};

/// Prints all leases.
pub(super) async fn list(site: &Site, json: bool) -> Outcome {
    let entries = with_store!(&site.store, |store| store.entries().await)?;
    Ok(if json { lines(&entries) } else { table(&entries) })
}

/// Makes a reservation.
pub(super) async fn reserve(site: &Site, subnets: Subnets, owner: Owner) -> Outcome {
    let owner = match owner {
        Owner::Node(id) => For::Node(id.to_string()),
        Owner::PublicIp(addr) => For::Address(addr),
    };
    let key = with_store!(&site.store, |store| store.reserve(&subnets, &owner).await)?;
    Ok(format!("{key} reserved\n"))
}

/// Gives a lease back: any by its key, this host's own through its agent.
pub(super) async fn release(site: &Site, which: Release) -> Outcome {
    match which {
        Release::Own => {
            let key = ask(&site.socket(), Ask::Release).await?;
            Ok(format!("{} released; the agent has ended\n", key.as_str().unwrap_or_default()))
        }
        Release::Key(key) => {
            let key = LeaseKey::new(key);
            if with_store!(&site.store, |store| store.revoke(&key).await)? {
                Ok(format!(
                    "{key} released; an agent that runs on its host claims it again, unless it is asked there: twill \
                     lease release --own\n"
                ))
            } else {
                Err(format!("there is no lease {key}; next: twill lease list").into())
            }
        }
    }
}

fn lines(entries: &[Entry]) -> String {
    entries.iter().fold(String::new(), |text, entry| format!("{text}{}\n", object(entry)))
}

fn object(entry: &Entry) -> Value {
    let expires_in_s = entry.expires_in.map(|left| left.as_secs());
    match &entry.lease {
        Ok(lease) => json!({
            "key": entry.key.as_str(),
            "public_ip": lease.attrs.public_ip,
            "public_ipv6": lease.attrs.public_ipv6,
            "backend": lease.attrs.backend_type,
            "node": lease.attrs.node_id,
            "permanent": entry.permanent,
            "expires_in_s": expires_in_s,
        }),
        Err(fault) => json!({
            "key": entry.key.as_str(),
            "fault": fault.to_string(),
            "permanent": entry.permanent,
            "expires_in_s": expires_in_s,
        }),
    }
}

fn table(entries: &[Entry]) -> String {
    let mut table = Table::default();
    table.row(["LEASE", "PUBLIC", "BACKEND", "EXPIRES", "NODE"].map(|name| paint(STRONG, name)));
    entries.iter().for_each(|entry| table.row(row(entry).map(Cell::from)));
    table.to_string()
}

fn row(entry: &Entry) -> [String; 5] {
    let [public, backend, node] = match &entry.lease {
        Ok(lease) => {
            let public = Family::ALL.iter().filter_map(|family| lease.attrs.public(*family));
            let public = public.map(|addr| addr.to_string()).collect::<Vec<_>>().join(",");
            let backend = lease.attrs.backend_type.clone().unwrap_or_else(|| "-".to_owned());
            [public, backend, lease.attrs.node_id.clone().unwrap_or_else(|| "-".to_owned())]
        }
        Err(fault) => ["-".to_owned(), "-".to_owned(), format!("unusable: {}", fault.cause)],
    };
    [entry.key.to_string(), public, backend, left(entry), node]
}

/// How long a lease lives unless it is renewed.
pub(super) fn left(entry: &Entry) -> String {
    match entry.expires_in {
        _ if entry.permanent => "never".to_owned(),
        Some(left) => hours(left),
        None => "unknown".to_owned(),
    }
}

fn hours(left: Duration) -> String {
    let minutes = left.as_secs() / 60;
    format!("{}h{:02}m", minutes / 60, minutes % 60)
}
