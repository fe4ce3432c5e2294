//! flannel's names for its keys, and reading them.

use etcd_client::{Client, Error, GetOptions, KeyValue, KvClient, ResponseHeader};
use twill_backends::lease::LeaseKey;

use crate::store::Revision;
use crate::store::table::{Listing, Record};

/// The most keys asked for at once: more come in pages of one revision.
const PAGE: i64 = 10_000;
/// The largest answer accepted. The library's limit of 4 MiB is passed by some 14,000 leases.
pub(super) const ANSWER_LIMIT: usize = 256 << 20;
/// The names flannel gives its keys.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    pub(super) config: String,
    /// With the trailing slash, unlike flannel, which also lists what only begins like it.
    pub(super) subnets: String,
}

impl Keys {
    pub(super) fn below(prefix: &str) -> Self {
        Self { config: format!("{prefix}/config"), subnets: format!("{prefix}/subnets/") }
    }

    pub(super) fn of(&self, key: &LeaseKey) -> String {
        format!("{}{key}", self.subnets)
    }

    /// The first key after all of `subnets`.
    pub(super) fn end(&self) -> String {
        format!("{}0", self.subnets.trim_end_matches('/'))
    }

    /// What `key` is called without the prefix. Bytes that are no text are shown as `\u{fffd}`: they name no subnet.
    pub(super) fn strip(&self, key: &[u8]) -> LeaseKey {
        let bytes = key.strip_prefix(self.subnets.as_bytes()).unwrap_or(key);
        LeaseKey::new(String::from_utf8_lossy(bytes))
    }

    pub(super) fn record(&self, kv: &KeyValue) -> Record {
        Record {
            key: self.strip(kv.key()),
            value: kv.value().to_vec(),
            revision: kv.mod_revision().unsigned_abs(),
            created: kv.create_revision().unsigned_abs(),
            grant: (kv.lease() != 0).then(|| kv.lease()),
        }
    }
}

pub(super) fn number(header: Option<&ResponseHeader>) -> u64 {
    header.map_or(0, |header| header.revision().unsigned_abs())
}

pub(super) fn revision(header: Option<&ResponseHeader>) -> Revision {
    Revision { cluster: header.map_or(0, ResponseHeader::cluster_id), number: number(header) }
}

pub(super) fn kv_client(client: &Client) -> KvClient {
    client.kv_client().max_decoding_message_size(ANSWER_LIMIT)
}

/// The configuration, and the revision at which it was read.
pub(super) async fn config(client: &Client, key: String) -> Result<(Option<Vec<u8>>, Revision), Error> {
    let found = kv_client(client).get(key, None).await?;
    Ok((found.kvs().first().map(|kv| kv.value().to_vec()), revision(found.header())))
}

/// All leases at one revision: one range, unless they are more than a page.
pub(super) async fn list(client: &Client, keys: &Keys) -> Result<Listing, Error> {
    let mut kv = kv_client(client);
    let mut listing = Listing::default();
    let mut start = keys.subnets.clone().into_bytes();
    loop {
        let mut options = GetOptions::new().with_range(keys.end()).with_limit(PAGE);
        if listing.revision != Revision::default() {
            options = options.with_revision(i64::try_from(listing.revision.number).unwrap_or(0));
        }
        let page = kv.get(start, Some(options)).await?;
        if listing.revision == Revision::default() {
            listing.revision = revision(page.header());
        }
        listing.records.extend(page.kvs().iter().map(|kv| keys.record(kv)));
        match page.kvs().last() {
            Some(last) if page.more() => start = [last.key(), &[0]].concat(),
            _ => return Ok(listing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_flannels() {
        let keys = Keys::below("/coreos.com/network");
        assert_eq!(keys.config, "/coreos.com/network/config");
        assert_eq!(keys.of(&LeaseKey::new("10.5.52.0-24")), "/coreos.com/network/subnets/10.5.52.0-24");
        assert_eq!(keys.strip(b"/coreos.com/network/subnets/10.5.52.0-24").as_str(), "10.5.52.0-24");
        assert_eq!(keys.strip(b"/coreos.com/network/subnets/\xff").as_str(), "\u{fffd}");
    }

    #[test]
    fn the_range_holds_every_lease_and_nothing_that_only_begins_like_it() {
        for keys in [Keys::below("/coreos.com/network"), Keys::below("")] {
            let range = keys.subnets.clone()..keys.end();
            assert!(range.contains(&keys.of(&LeaseKey::new("\u{10ffff}"))));
            for outside in [keys.config.clone(), keys.subnets.replace("subnets/", "subnetsX/a")] {
                assert!(!range.contains(&outside), "{outside}");
            }
        }
    }
}
