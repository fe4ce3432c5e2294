//! What the guard's table counts.

use std::net::IpAddr;
use std::sync::Arc;

use futures::future::{join, join_all};
use serde_json::Value;

use super::sets::Set;
use crate::datapath::peers::Amount;
use crate::filter::nft::{Nft, text};
use crate::filter::{Counted, Counters, FilterError};

/// How to learn what is counted by the table of this name, and by the elements of these sets of it.
pub(super) fn counters(nft: Nft, table: String, senders: Vec<Set>) -> Counters {
    let asked = Arc::new((nft, table, senders));
    Counters::new(move || {
        let asked = Arc::clone(&asked);
        async move {
            let (nft, table, senders) = &*asked;
            let senders = senders.iter().copied().map(|set| async move {
                listed(nft, &["list", "set", "inet", table, &set.to_string()]).await
            });
            let counters = ["list", "counters", "table", "inet", table];
            let (counters, senders) = join(listed(nft, &counters), join_all(senders)).await;
            // Of a peer with both families, one alone would be less than was told before.
            let senders = senders.into_iter().collect::<Option<Vec<_>>>()?;
            Some(Counted {
                dropped: dropped(&counters?).collect(),
                received: senders.iter().flat_map(|set| received(set)).collect(),
            })
        }
    })
}

/// What nft lists; nothing of what is not there, and `None` if that is not known.
async fn listed(nft: &Nft, args: &[&str]) -> Option<Vec<Value>> {
    match nft.list(args).await {
        Err(FilterError::Failed { .. }) => Some(Vec::new()),
        listed => listed.ok(),
    }
}

/// Packets by the name of the counter, from what `nft -j list counters` prints.
fn dropped(objects: &[Value]) -> impl Iterator<Item = (String, u64)> {
    let counters = objects.iter().filter_map(|object| object.get("counter"));
    counters.map(|counter| {
        (text(counter, "name").to_owned(), counter.get("packets").and_then(Value::as_u64).unwrap_or_default())
    })
}

/// How much each sender sent, from what `nft -j list set` prints.
fn received(objects: &[Value]) -> impl Iterator<Item = (IpAddr, Amount)> {
    let elements = objects.iter().filter_map(|object| object.get("set")?.get("elem")?.as_array()).flatten();
    elements.filter_map(|one| {
        let number = |field| one["elem"]["counter"][field].as_u64();
        let amount = Amount { packets: number("packets")?, bytes: number("bytes")? };
        Some((one["elem"]["val"].as_str()?.parse().ok()?, amount))
    })
}

#[cfg(test)]
mod tests {
    use super::super::read::tests::{PRINTED, objects};
    use super::*;

    #[test]
    fn what_was_taken_is_read_by_its_sender() {
        let received: Vec<_> = received(&objects(PRINTED)).collect();
        let traffic = |packets, bytes| Amount { packets, bytes };
        let [v4, v6] = ["192.0.2.7", "2001:db8::7"].map(|addr| addr.parse().unwrap());
        assert_eq!(received, [(v4, traffic(5, 420)), (v6, traffic(0, 0))]);
    }
}
