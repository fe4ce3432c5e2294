//! What a pass complains about besides operations that the kernel refused.

use twill_backends::diff::Op;
use twill_backends::fault::{Code, Fault};
use twill_backends::state::{Link, LinkName, NetState};

use super::LINK_ROUNDS;
use crate::kernel::ForeignRoute;

/// A link that cannot be made as wanted, with the attribute that differs.
pub(super) fn never_settles(name: &LinkName, want: &Link, have: &Link) -> Fault {
    let found = format!("{have:?}");
    let attribute = [
        ("kind", want.kind != have.kind, format!("{:?}, wanted {:?}", have.kind, want.kind)),
        ("address", want.mac != have.mac, format!("{}, wanted {}", have.mac, want.mac)),
        ("mtu", want.mtu != have.mtu, format!("{}, wanted {}", have.mtu, want.mtu)),
        ("up", want.up != have.up, format!("{}, wanted {}", have.up, want.up)),
        ("alias", want.alias != have.alias, format!("{}, wanted {}", have.alias, want.alias)),
        ("addresses", want.addrs != have.addrs, format!("{:?}, wanted {:?}", have.addrs, want.addrs)),
    ]
    .into_iter()
    .find(|(_, differs, _)| *differs)
    .map_or(found, |(attribute, _, values)| format!("{attribute} reads {values}"));
    let cause = format!("does not read back as written after {LINK_ROUNDS} attempts: {attribute}");
    Fault::new(Code::KernelRefused, name.to_string(), cause)
}

/// A link that is gone each time it was made by this operation.
pub(super) fn never_stays(op: &Op) -> Fault {
    let cause = format!("gone after each of {LINK_ROUNDS} attempts; something else manages this device");
    Fault::new(Code::KernelRefused, op.to_string(), cause)
}

/// Routes of others that take packets away from wanted ones.
#[must_use]
pub fn shadows(want: &NetState, foreign: &[ForeignRoute]) -> Vec<Fault> {
    let shadowed = |f: &&ForeignRoute| {
        want.routes.iter().any(|(key, _)| {
            key.dst.contains(&f.dst) && (key.dst.prefix_len() < f.dst.prefix_len() || f.metric <= key.metric)
        })
    };
    let cause = |f: &ForeignRoute| {
        Fault::new(Code::ForeignRoute, f.dst.to_string(), format!("foreign route: {}", f.line))
    };
    foreign.iter().filter(shadowed).map(cause).collect()
}
