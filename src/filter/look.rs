//! The firewall as it is, ours or not: for commands that only look.

use super::iptables::Iptables;
use super::nft::Nft;
use super::tools::Tools;
use super::{FilterError, PolicyDrop};

/// The tables that the compatible front end of nf_tables makes.
const COMPAT: [&str; 4] = ["filter", "nat", "mangle", "raw"];
/// How many rules of each are told.
const SHOWN: usize = 3;

/// What matters of a firewall.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Firewall {
    /// Whether flanneld's chains are there: in iptables mode, ours.
    pub chains: bool,
    /// Chains that drop what is forwarded and that nothing else accepts.
    pub drops: Vec<PolicyDrop>,
    /// Some rules in the older kernel interface.
    pub legacy: Vec<String>,
    /// Some tables of the compatible front end of nf_tables.
    pub compat: Vec<String>,
}

/// Reads it. What is not installed has no rules.
///
/// # Errors
/// nft is installed, and cannot read.
pub async fn look(instance: &str) -> Result<Firewall, FilterError> {
    let tools = Tools::default();
    let nft = Nft::new(tools.clone(), instance);
    let [plain, legacy] = ["", "-legacy"].map(|suffix| Iptables::new(tools.clone(), suffix));
    let mut firewall = Firewall { chains: plain.has_chains().await, ..Firewall::default() };
    firewall.chains |= legacy.has_chains().await;
    if nft.installed() {
        firewall.drops = nft.forward_drops().await?;
        let tables = nft.tables().await?;
        let compat = tables.iter().filter(|(family, name)| {
            ["ip", "ip6"].contains(&family.as_str()) && COMPAT.contains(&name.as_str())
        });
        firewall.compat = compat.map(|(family, name)| format!("table {family} {name}")).take(SHOWN).collect();
    }
    firewall.drops.extend(legacy.forward_drops().await);
    firewall.legacy = legacy.rules().await.into_iter().take(SHOWN).collect();
    Ok(firewall)
}
