//! The CNI plugin as a runtime calls it: the real `twill-cni` on a host in a namespace, with the real bridge and
//! host-local plugins, and with shell scripts in their place where they are to fail.

mod agent;
mod cost;
mod failures;
mod gc;
mod golden;
mod lifecycle;
mod rig;
mod stale;
