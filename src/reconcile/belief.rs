//! What is believed of the kernel, and whether that is in doubt.

use std::collections::BTreeSet;

use twill_backends::diff::{Key, Op};
use twill_backends::state::NetState;

/// A state, once there was an observation. In doubt nothing is compared with it, but it goes on telling what others did
/// from echoes of what was done by ourselves: while one operation is refused, belief is in doubt all the time.
#[derive(Debug, Default)]
pub(super) struct Belief {
    net: Option<NetState>,
    doubted: bool,
}

impl Belief {
    pub(super) const fn observed(net: NetState) -> Self {
        Self { net: Some(net), doubted: false }
    }

    pub(super) const fn doubt(&mut self) {
        self.doubted = true;
    }

    /// The state, unless it has to be read.
    pub(super) fn certain(&self) -> Option<&NetState> {
        self.net.as_ref().filter(|_| !self.doubted)
    }

    /// An operation was done.
    pub(super) fn apply(&mut self, op: &Op) {
        if let Some(net) = &mut self.net {
            net.apply(op);
        }
    }

    /// Objects are as these operations left them. Returns those of which something else was believed.
    pub(super) fn hear(&mut self, ops: &[Op]) -> BTreeSet<Key> {
        // Without a state nothing can be told from an echo, and the observation to come covers it.
        let Some(net) = &mut self.net else { return BTreeSet::new() };
        let mut differing = BTreeSet::new();
        for op in ops {
            if !net.has(op) {
                net.apply(op);
                differing.insert(op.key());
            }
        }
        differing
    }
}
