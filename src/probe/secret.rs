//! What only those know who read the store: each host's secret, and the tags made with two of them.
//!
//! # What a tag protects from
//! A pod can send to any host's port, from addresses of its own or, with raw sockets, in the name of its host. It knows
//! no secret, so that nothing it sends is taken for a probe, and nobody answers it. Whoever reads the store, as every
//! agent does, can make a tag in the name of any two hosts. What passes between hosts is not encrypted, and says nothing
//! but what was measured; one who can read it there can repeat it, but a repeated request counts only once, and a repeated
//! answer not at all. What either says of other hosts is shown until its sender's next probe says otherwise.

use std::path::Path;
use std::{fmt, io};

use ring::{digest, hmac};
use twill_backends::probe::echo::{HEADER, TAG};
use uuid::Uuid;

use crate::files;

/// One end: a node, and its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Party {
    /// The node id.
    pub node: String,
    /// What its lease says.
    pub secret: String,
}

impl fmt::Debug for Party {
    /// The secret is in no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Party").field("node", &self.node).finish_non_exhaustive()
    }
}

/// This host's secret: kept in `dir`, so that a restart while the store is away changes nothing.
///
/// # Errors
/// It could not be kept. It is of use all the same, for this process.
pub fn own(dir: &Path) -> (String, io::Result<()>) {
    let path = dir.join("probe.key");
    let kept = std::fs::read_to_string(&path).ok().map(|text| text.trim().to_owned());
    if let Some(kept) = kept.filter(|text| Uuid::try_parse(text).is_ok()) {
        return (kept, Ok(()));
    }
    let fresh = Uuid::new_v4().simple().to_string();
    let written = files::replace(&path, fresh.as_bytes(), 0o600);
    (fresh, written)
}

/// The name that a node has on the wire.
#[must_use]
pub fn name(party: &Party) -> u64 {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in ["twill probe name", &party.node, &party.secret] {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    context.finish().as_ref().iter().take(8).fold(0, |name, byte| name << 8 | u64::from(*byte))
}

/// The key of two nodes: the same on both sides.
#[must_use]
pub fn key(a: &Party, b: &Party) -> hmac::Key {
    let (first, second) = if a.node <= b.node { (a, b) } else { (b, a) };
    let mut context = digest::Context::new(&digest::SHA256);
    for part in ["twill probe key", &first.node, &first.secret, &second.node, &second.secret] {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    hmac::Key::new(hmac::HMAC_SHA256, context.finish().as_ref())
}

/// The tag of what stands before it.
#[must_use]
pub fn tag(key: &hmac::Key, header: &[u8; HEADER]) -> [u8; TAG] {
    let mut tag = [0; TAG];
    tag.copy_from_slice(&hmac::sign(key, header).as_ref()[..TAG]);
    tag
}

/// Whether a probe has the tag of this key.
#[must_use]
pub fn is_tagged(key: &hmac::Key, probe: &[u8]) -> bool {
    let (Some(header), Some(found)) = (probe.first_chunk::<HEADER>(), probe.get(HEADER..HEADER + TAG)) else {
        return false;
    };
    // All of it is looked at: how long that takes tells nobody how much of a guess was right.
    tag(key, header).iter().zip(found).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(node: &str, secret: &str) -> Party {
        Party { node: node.to_owned(), secret: secret.to_owned() }
    }

    #[test]
    fn two_nodes_share_a_key_that_nobody_else_has() {
        let header = [7; HEADER];
        let (a, b) = (party("a", "one"), party("b", "two"));
        let good = tag(&key(&a, &b), &header);
        assert_eq!(good, tag(&key(&b, &a), &header));
        let others = [
            key(&a, &party("b", "other")),
            key(&party("a", "other"), &b),
            key(&a, &party("c", "two")),
            key(&party("ab", ""), &b),
        ];
        for other in others {
            assert_ne!(good, tag(&other, &header));
        }
        assert_ne!(name(&a), name(&b));
        assert_ne!(name(&a), name(&party("a", "other")));
        assert!(!format!("{a:?}").contains("one"), "no log says the secret");
    }

    #[test]
    fn a_probe_without_its_tag_is_none() {
        let key = key(&party("a", "one"), &party("b", "two"));
        let mut probe = [1; HEADER + TAG + 10];
        let tag = tag(&key, &[1; HEADER]);
        assert!(!is_tagged(&key, &probe) && !is_tagged(&key, &probe[..HEADER + 3]) && !is_tagged(&key, &[]));
        probe[HEADER..HEADER + TAG].copy_from_slice(&tag);
        assert!(is_tagged(&key, &probe));
        for at in 0..HEADER + TAG {
            probe[at] ^= 1;
            assert!(!is_tagged(&key, &probe), "{at}");
            probe[at] ^= 1;
        }
    }

    #[test]
    fn the_secret_is_kept_and_made_again_if_it_is_of_no_use() {
        let dir = tempfile::tempdir().unwrap();
        let (first, kept) = own(dir.path());
        kept.unwrap();
        assert_eq!(own(dir.path()).0, first);
        std::fs::write(dir.path().join("probe.key"), "x").unwrap();
        let (second, kept) = own(dir.path());
        kept.unwrap();
        assert_ne!(first, second);
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(own(&dir.path().join("file")).1.is_err());
    }
}
