//! nftables: one table of our own. Rendered as JSON, loaded by `nft -j -f -`, compared structurally.
//!
//! # Why `serde_json::Value`
//!
//! The `nftables` crate cannot read back what nft 1.0.6 prints (`"flags": "fully-random"` where its type wants
//! a list), and comparing needs both directions in one form.
//!
//! # Why pod-to-outside only
//!
//! flannel also hides the source of traffic that enters the fabric, and of traffic between two other hosts'
//! pods. Here a source is rewritten only where the answer could not come back otherwise: from a pod to an
//! address outside the fabric. Multicast and packets that carry kube-proxy's mark are left alone.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use twill_backends::filter::{Filter, FilterNet, multicast};

use super::step::Step;
use super::tools::Tools;
use super::{FilterError, PolicyDrop};

/// flanneld's tables in its nftables mode: family and name.
pub(super) const FLANNELD: [(&str, &str); 2] = [("ip", "flannel-ipv4"), ("ip6", "flannel-ipv6")];

/// The first nft that flanneld's nftables mode works with.
const OLDEST: (u64, u64, u64) = (1, 0, 1);
/// The mark that says kube-proxy has masqueraded already.
const KUBE_PROXY_MARK: u32 = 0x4000;
const LOAD: &[&str] = &["-j", "-f", "-"];

/// Our table on this host.
#[derive(Debug)]
pub(super) struct Nft {
    tools: Tools,
    table: String,
    version: OnceCell<()>,
    fully_random: OnceCell<bool>,
}

impl Nft {
    pub(super) fn new(tools: Tools, instance: &str) -> Self {
        Self {
            tools,
            table: format!("twill-{instance}"),
            version: OnceCell::new(),
            fully_random: OnceCell::new(),
        }
    }

    pub(super) fn table(&self) -> &str {
        &self.table
    }

    pub(super) fn tools(&self) -> &Tools {
        &self.tools
    }

    pub(super) fn installed(&self) -> bool {
        self.tools.has("nft")
    }

    /// Family and name of every table. As text: nft 1.0.6 prints random memory for the flags of a dormant table
    /// in JSON, or crashes, whosever table it is.
    pub(super) async fn tables(&self) -> Result<BTreeSet<(String, String)>, FilterError> {
        self.version.get_or_try_init(|| self.recent()).await?;
        let printed = self.tools.run("nft", &["list", "tables"], None).await?;
        let words = printed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        Ok(words
            .filter_map(|words| match *words {
                ["table", family, name, ..] => Some((family.to_owned(), name.trim_matches('"').to_owned())),
                _ => None,
            })
            .collect())
    }

    /// Refuses a tool that is too old.
    async fn recent(&self) -> Result<(), FilterError> {
        let printed = self.tools.run("nft", &["--version"], None).await?;
        match super::iptables::version(&printed) {
            Some(found) if found >= OLDEST => Ok(()),
            Some((a, b, c)) => Err(FilterError::TooOld { found: format!("{a}.{b}.{c}") }),
            None => Err(FilterError::Unreadable { command: "--version".to_owned(), detail: printed }),
        }
    }

    /// The transaction that makes our table what `want` says, unless it is.
    pub(super) async fn plan(
        &self,
        want: &Filter,
        tables: &BTreeSet<(String, String)>,
    ) -> Result<Option<Step>, FilterError> {
        let there = tables.contains(&("inet".to_owned(), self.table.clone()));
        if !want.wants_rules() {
            return Ok(there.then(|| delete("inet", &self.table, "no rule is wanted")));
        }
        let random = match &want.masquerade {
            Some(masquerade) if masquerade.random_fully => self.fully_random().await?,
            Some(_) | None => false,
        };
        let objects = render(&self.table, want, random);
        let wanted = canonical(&objects);
        let (found, why) = match there {
            false => (Vec::new(), "the table is missing".to_owned()),
            true => match self.list(&["list", "table", "inet", &self.table]).await {
                Ok(found) => {
                    let found = canonical(&found);
                    let why = difference(&wanted, &found);
                    (found, why)
                }
                Err(e @ FilterError::Denied { .. }) => return Err(e),
                // Whatever makes it unreadable goes with it.
                Err(e) => (Vec::new(), e.to_string()),
            },
        };
        if found == wanted {
            return Ok(None);
        }
        Ok(Some(Step {
            load: true,
            what: format!("load nftables table inet {}", self.table),
            why,
            close: comments(&found) == comments(&wanted),
            seen: Value::Array(found).to_string(),
            program: "nft".to_owned(),
            args: LOAD,
            input: transaction(&self.table, &objects),
        }))
    }

    /// Base chains of any table but ours whose policy drops what is forwarded.
    pub(super) async fn forward_drops(&self) -> Result<Vec<PolicyDrop>, FilterError> {
        let objects = self.list(&["list", "chains"]).await?;
        let chains = objects.iter().filter_map(|object| object.get("chain"));
        Ok(chains.filter(|chain| text(chain, "table") != self.table).filter_map(policy_drop).collect())
    }

    /// Whether kernel and tool take `fully-random`: tried once, as a dry run.
    async fn fully_random(&self) -> Result<bool, FilterError> {
        let answer = self.fully_random.get_or_try_init(|| async {
            let net = |s: &str| s.parse::<IpNet>().ok();
            let nets = net("192.0.2.0/24").map(|n| FilterNet { network: n, subnet: n }).into_iter().collect();
            let masquerade = Some(twill_backends::filter::Masquerade { random_fully: true });
            let probe = Filter { nets, masquerade, forward: false };
            let name = format!("{}-probe", self.table);
            let check = async |random| {
                let input = transaction(&name, &render(&name, &probe, random));
                self.tools.run("nft", &["-c", "-j", "-f", "-"], Some(&input)).await
            };
            if check(true).await.is_ok() {
                return Ok(true);
            }
            // Only a host that takes the plain form is one that lacks just this flag.
            check(false).await.map(|_| false)
        });
        answer.await.copied()
    }

    /// The objects `nft -j` prints, without its own version line.
    async fn list(&self, args: &[&str]) -> Result<Vec<Value>, FilterError> {
        let unreadable = |detail| FilterError::Unreadable { command: args.join(" "), detail };
        let printed = self.tools.run("nft", &[&["-j"], args].concat(), None).await?;
        let mut value: Value = serde_json::from_str(&printed).map_err(|e| unreadable(e.to_string()))?;
        let Some(Value::Array(objects)) = value.get_mut("nftables").map(Value::take) else {
            return Err(unreadable("no list `nftables`".to_owned()));
        };
        Ok(objects.into_iter().filter(|o| o.get("metainfo").is_none()).collect())
    }
}

/// The transaction that removes a table.
pub(super) fn delete(family: &str, name: &str, why: &str) -> Step {
    let input = json!({"nftables": [{"delete": {"table": {"family": family, "name": name}}}]});
    Step {
        load: false,
        what: format!("delete nftables table {family} {name}"),
        why: why.to_owned(),
        seen: String::new(),
        close: false,
        program: "nft".to_owned(),
        args: LOAD,
        input: input.to_string(),
    }
}

/// The table as `nft -j list table` would print it, handles aside.
fn render(table: &str, want: &Filter, random: bool) -> Vec<Value> {
    let mut objects = vec![json!({"table": {"family": "inet", "name": table}})];
    let chain = |name: &str, kind: &str, hook: &str, prio: i32| {
        json!({"chain": {"family": "inet", "table": table, "name": name, "type": kind, "hook": hook,
            "prio": prio, "policy": "accept"}})
    };
    let rule = |chain: &str, comment: &str, expr: Vec<Value>| json!({"rule": {"family": "inet", "table": table, "chain": chain, "comment": comment, "expr": expr}});
    if want.masquerade.is_some() {
        objects.push(chain("postrouting", "nat", "postrouting", 100));
        let marked = json!({"match": {"op": "==", "left": {"&": [{"meta": {"key": "mark"}}, KUBE_PROXY_MARK]},
            "right": KUBE_PROXY_MARK}});
        objects.push(rule("postrouting", "marked by kube-proxy", vec![marked, json!({"return": null})]));
        for FilterNet { network, .. } in &want.nets {
            let how = if random { json!({"flags": ["fully-random"]}) } else { Value::Null };
            let expr = vec![
                address("saddr", "==", network),
                address("daddr", "!=", network),
                address("daddr", "!=", &multicast(network)),
                json!({"masquerade": how}),
            ];
            objects.push(rule("postrouting", "pods to outside", expr));
        }
    }
    if want.forward {
        objects.push(chain("forward", "filter", "forward", 0));
        for FilterNet { network, .. } in &want.nets {
            for (field, comment) in [("saddr", "from the fabric"), ("daddr", "to the fabric")] {
                objects.push(rule(
                    "forward",
                    comment,
                    vec![address(field, "==", network), json!({"accept": null})],
                ));
            }
        }
    }
    objects
}

fn address(field: &str, op: &str, net: &IpNet) -> Value {
    let protocol = if net.addr().is_ipv6() { "ip6" } else { "ip" };
    let addr = net.network().to_string();
    let right = if net.prefix_len() == net.max_prefix_len() {
        json!(addr)
    } else {
        json!({"prefix": {"addr": addr, "len": net.prefix_len()}})
    };
    json!({"match": {"op": op, "left": {"payload": {"protocol": protocol, "field": field}}, "right": right}})
}

/// Replaces the whole table at once. nft 1.0.6 has no `destroy`: adding first makes the deletion sure to work.
fn transaction(table: &str, objects: &[Value]) -> String {
    let this = json!({"table": {"family": "inet", "name": table}});
    let mut commands = vec![json!({"add": this}), json!({"delete": this})];
    commands.extend(objects.iter().map(|object| json!({"add": object})));
    json!({"nftables": commands}).to_string()
}

/// Objects in one order, without what the kernel numbers and with one spelling of what nft spells in two ways.
fn canonical(objects: &[Value]) -> Vec<Value> {
    let mut objects = objects.to_vec();
    for object in &mut objects {
        for inner in object.as_object_mut().into_iter().flat_map(|o| o.values_mut()) {
            if let Some(fields) = inner.as_object_mut() {
                fields.remove("handle");
            }
            if let Some(expressions) = inner.get_mut("expr").and_then(Value::as_array_mut) {
                expressions.iter_mut().for_each(list_flags);
            }
        }
    }
    objects.sort_by_key(place);
    objects
}

/// `"flags": "x"` and `"flags": ["x"]` are one thing.
fn list_flags(expression: &mut Value) {
    for statement in expression.as_object_mut().into_iter().flat_map(|e| e.values_mut()) {
        if let Some(flags) = statement.get_mut("flags")
            && flags.is_string()
        {
            *flags = json!([flags.take()]);
        }
    }
}

/// Tables, then chains by name, then rules by chain: a stable sort keeps the order of the rules.
fn place(object: &Value) -> (u8, String) {
    if object.get("table").is_some() {
        (0, String::new())
    } else if let Some(chain) = object.get("chain") {
        (1, text(chain, "name").to_owned())
    } else if let Some(rule) = object.get("rule") {
        (3, text(rule, "chain").to_owned())
    } else {
        (2, object.to_string())
    }
}

/// What differs, said by the first object that does.
fn difference(wanted: &[Value], found: &[Value]) -> String {
    if let Some(lost) = wanted.iter().find(|object| !found.contains(object)) {
        return format!("{} is missing or altered", name(lost));
    }
    match found.iter().find(|object| !wanted.contains(object)) {
        Some(foreign) => format!("{} is not ours", name(foreign)),
        None => "its rules are out of order or repeated".to_owned(),
    }
}

fn name(object: &Value) -> String {
    if let Some(rule) = object.get("rule") {
        return format!("rule `{}` of chain {}", text(rule, "comment"), text(rule, "chain"));
    }
    let kind = object.as_object().and_then(|o| o.iter().next());
    kind.map_or_else(String::new, |(kind, inner)| format!("{kind} {}", text(inner, "name")))
}

fn comments(objects: &[Value]) -> Vec<&str> {
    objects.iter().filter_map(|object| object.get("rule")).map(|rule| text(rule, "comment")).collect()
}

fn policy_drop(chain: &Value) -> Option<PolicyDrop> {
    let (family, table, name) = (text(chain, "family"), text(chain, "table"), text(chain, "name"));
    let forwards = text(chain, "hook") == "forward" && text(chain, "policy") == "drop";
    (forwards && ["ip", "ip6", "inet"].contains(&family)).then(|| PolicyDrop {
        v6: family == "ip6",
        chain: format!("{family} {table} {name}"),
        iptables: family != "inet" && table == "filter" && name == "FORWARD",
    })
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use twill_backends::filter::Masquerade;

    fn want() -> Filter {
        let net = |network: &str, subnet: &str| FilterNet {
            network: network.parse().unwrap(),
            subnet: subnet.parse().unwrap(),
        };
        Filter {
            nets: vec![net("10.5.0.0/16", "10.5.1.0/24"), net("fc00::/48", "fc00:0:0:1::/64")],
            masquerade: Some(Masquerade { random_fully: true }),
            forward: true,
        }
    }

    /// What nft 1.0.6 prints for `want()`.
    fn printed() -> Value {
        serde_json::from_str(include_str!("nft_printed.json")).unwrap()
    }

    fn objects(value: &Value) -> Vec<Value> {
        let all = value["nftables"].as_array().unwrap();
        all.iter().filter(|o| o.get("metainfo").is_none()).cloned().collect()
    }

    #[test]
    fn rendered_reads_like_what_nft_prints() {
        assert_eq!(canonical(&render("twill-x", &want(), true)), canonical(&objects(&printed())));
    }

    #[test]
    fn parts_come_and_go_with_what_is_wanted() {
        let names = |want: &Filter| {
            let all = render("t", want, false);
            all.iter().map(|o| o.as_object().unwrap().keys().next().unwrap().clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&Filter { forward: false, ..want() }), ["table", "chain", "rule", "rule", "rule"]);
        assert_eq!(
            names(&Filter { masquerade: None, ..want() }),
            ["table", "chain", "rule", "rule", "rule", "rule"]
        );
        let plain = Value::Array(render("t", &want(), false)).to_string();
        assert!(plain.contains(r#"{"masquerade":null}"#) && !plain.contains("fully-random"));
    }

    #[test]
    fn every_kind_of_damage_is_seen_and_named() {
        let wanted = canonical(&render("twill-x", &want(), true));
        let good = objects(&printed());
        let rule = |i: usize| good.iter().position(|o| o.get("rule").is_some()).unwrap() + i;
        let why = |damage: &dyn Fn(&mut Vec<Value>)| {
            let mut found = good.clone();
            damage(&mut found);
            assert_ne!(canonical(&found), wanted);
            difference(&wanted, &canonical(&found))
        };
        assert!(why(&|f| f.clear()).contains("table twill-x is missing"));
        assert!(why(&|f| drop(f.remove(rule(1)))).contains("rule `pods to outside` of chain postrouting"));
        assert!(why(&|f| f[rule(1)]["rule"]["expr"][0]["match"]["op"] = json!("!=")).contains("altered"));
        assert!(why(&|f| f[rule(1)]["rule"]["expr"][3]["masquerade"] = Value::Null).contains("altered"));
        assert!(why(&|f| f[0]["table"]["flags"] = json!("dormant")).contains("table twill-x"));
        assert!(why(&|f| f[1]["chain"]["policy"] = json!("drop")).contains("chain postrouting"));
        assert!(why(&|f| f.push(f[rule(0)].clone())).contains("repeated"));
        assert!(why(&|f| f.swap(rule(0), rule(1))).contains("out of order"));
        assert!(why(&|f| f.push(json!({"set": {"name": "s"}}))).contains("set s is not ours"));
    }

    #[test]
    fn one_transaction_replaces_the_table() {
        let input: Value = serde_json::from_str(&transaction("t", &render("t", &want(), true))).unwrap();
        let verbs: Vec<String> = input["nftables"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c.as_object().unwrap().keys().next().unwrap().clone())
            .collect();
        assert_eq!(&verbs[..3], ["add", "delete", "add"]);
        assert!(verbs[3..].iter().all(|v| v == "add"));
    }

    #[test]
    fn a_host_network_is_written_as_a_plain_address() {
        let one: IpNet = "10.0.0.1/32".parse().unwrap();
        assert_eq!(address("saddr", "==", &one)["match"]["right"], json!("10.0.0.1"));
    }

    #[test]
    fn only_forward_chains_that_drop_are_obstacles() {
        let chain = |family: &str, hook: &str, policy: &str| {
            policy_drop(
                &json!({"family": family, "table": "filter", "name": "FORWARD", "hook": hook, "policy": policy}),
            )
        };
        let drop = chain("ip", "forward", "drop").unwrap();
        assert!(drop.iptables && drop.to_string().contains("--firewall iptables"));
        assert!(chain("ip6", "forward", "drop").unwrap().to_string().contains("ip6tables -P FORWARD ACCEPT"));
        assert!(!chain("inet", "forward", "drop").unwrap().iptables);
        assert_eq!(chain("ip", "forward", "accept"), None);
        assert_eq!(chain("ip", "input", "drop"), None);
        assert_eq!(chain("bridge", "forward", "drop"), None);
    }
}
