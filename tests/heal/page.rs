//! The page in a real browser: what it shows of three hosts while a link is cut, what five hundred cost, and who may look.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};
use twill::agent::board::View;
use twill::agent::status::Status;
use twill::lab::probe::http_get;
use twill::lab::{Netns, UPLINK};
use twill::telemetry::http::{Listeners, Server, bind_health};

use crate::browser::{Browser, need_browser};
use crate::fabric::{Fabric, Families, need_namespaces, options, wait_for};

const VXLAN: &str = r#"{"Type":"vxlan"}"#;
/// What the issue allows to be transferred until 500 hosts are drawn, in bytes.
const TRANSFER: u64 = 250 << 10;
/// The keys of the WebDriver protocol.
const RIGHT: &str = "\u{e014}";
const END: &str = "\u{e010}";
const TAB: &str = "\u{e004}";

/// Nothing was complained of, and nothing was asked of anybody but this server.
fn assert_clean(browser: &Browser, url: &str) {
    assert_quiet(browser);
    let asked: BTreeSet<String> = asked(&browser.network(), url).into_values().collect();
    assert_eq!(asked, BTreeSet::from([url.to_owned(), format!("{url}v1/events")]));
}

/// Nothing stands in the page's console. The browser has pages of its own, which have theirs.
fn assert_quiet(browser: &Browser) {
    let own = |entry: &Value| entry["message"].as_str().is_some_and(|text| text.starts_with("chrome"));
    let complaints: Vec<Value> = browser.log("browser").into_iter().filter(|entry| !own(entry)).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// The requests of a page, by their ids: where they went. The browser has pages of its own.
fn asked(events: &[Value], page: &str) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let sent = events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
    let ours = sent.map(|event| &event["params"]).filter(|sent| sent["documentURL"] == page);
    let asked = ours.map(|sent| (text(&sent["requestId"]), text(&sent["request"]["url"])));
    asked.filter(|(_, url)| !url.starts_with("data:")).collect()
}

/// The cells of the matrix in the row of a host, each with its kind.
fn row(browser: &Browser, key: &str) -> Vec<(String, String)> {
    let script = format!(
        "return [...document.querySelectorAll('#map tr[data-key=\"{key}\"] td')].map((cell) => [cell.className, cell.innerText])"
    );
    serde_json::from_value(browser.eval(&script)).unwrap()
}

fn kinds(row: &[(String, String)]) -> Vec<&str> {
    row.iter().map(|(kind, _)| kind.as_str()).collect()
}

/// What readers of the screen are told there is: each role with its name.
fn accessible(browser: &Browser) -> Vec<(String, String)> {
    let tree = browser.devtools("Accessibility.getFullAXTree", &json!({}));
    let nodes = tree["nodes"].as_array().unwrap().iter().filter(|node| node["ignored"] == false);
    let text = |value: &Value| value["value"].as_str().unwrap_or_default().to_owned();
    nodes.map(|node| (text(&node["role"]), text(&node["name"]))).collect()
}

#[test]
fn three_hosts_are_well_then_a_link_is_cut_and_it_heals() {
    need_browser!();
    let fabric = Fabric::new(Families::V4, VXLAN, &[]);
    let key = fabric.status(1)["lease"]["key"].as_str().unwrap().to_owned();
    let name = key.replace('-', "/");
    let url = format!("http://{}/", fabric.agents[0].healthz());
    let browser = Browser::open(&fabric.lab.hosts[0].net, 1440, 900);
    browser.go(&url);
    browser.wait_text("h1", "All 3 hosts are well");
    let well = row(&browser, &key);
    assert!(!kinds(&well).iter().any(|kind| ["cut", "poor", "unknown"].contains(kind)), "{well:?}");
    assert_eq!(browser.eval("return document.querySelectorAll('#picture .host.good').length"), 2);
    browser.screenshot("page-3-well");
    browser.prefers_dark(true);
    browser.screenshot("page-3-well-dark");
    browser.prefers_dark(false);

    fabric.lab.hosts[1].net.link_down(UPLINK).unwrap();
    wait_for("a matrix that turns", || {
        let row = row(&browser, &key);
        // Through the fabric, from host to host, and all in all.
        let turned = kinds(&row).iter().filter(|kind| **kind == "cut").count() == 3;
        turned.then_some(()).ok_or(row)
    });
    // Why stands there in words, and is said to those who do not see.
    browser.wait_text("h1", "1 of 2 other hosts is cut off");
    browser.wait_text("#reason", &format!("{name}: "));
    browser.wait_text("#fault-list", "peer-unreachable");
    browser.wait_text("#detail", "cut off: peer-down");
    browser.wait_text("#event-list", &format!("peer {key} peer-down"));
    browser.wait_text("#table", "peer-down");
    let said = browser.eval("return document.querySelector('#announce[aria-live=polite]').textContent");
    assert!(said.as_str().unwrap().contains("Trouble: "), "{said}");
    println!("REASON {}", browser.text("#reason"));
    browser.screenshot("page-3-cut");
    browser.prefers_dark(true);
    browser.screenshot("page-3-cut-dark");

    fabric.lab.readdress(1).unwrap();
    wait_for("a matrix that turns back", || {
        let row = row(&browser, &key);
        let back = row.last().is_some_and(|(_, verdict)| verdict == "ok") && !kinds(&row).contains(&"cut");
        back.then_some(()).ok_or(row)
    });
    // The last that is told of it, by whatever verdicts it came back.
    wait_for("an event that says so", || {
        let texts = "[...document.querySelectorAll('#event-list li span')].map((span) => span.textContent)";
        let last = browser.eval(&format!("return {texts}.find((text) => text.startsWith('peer {key} '))"));
        let over = last.as_str().is_some_and(|text| text.contains(" ok, was "));
        over.then_some(()).ok_or(last)
    });
    browser.prefers_dark(false);
    browser.screenshot("page-3-healed");
    assert_eq!(browser.eval("return document.body.dataset.live"), "live");
    assert_clean(&browser, &url);
}

#[test]
fn it_is_used_without_a_mouse_and_without_eyes() {
    need_browser!();
    let fabric = Fabric::new(Families::V4, VXLAN, &[]);
    let names: Vec<String> = [1, 2].map(|at| fabric.subnet(at, false).to_string()).into();
    let browser = Browser::open(&fabric.lab.hosts[0].net, 1440, 900);
    browser.go(&format!("http://{}/", fabric.agents[0].healthz()));
    browser.wait_text("h1", "All 3 hosts are well");
    let tree = accessible(&browser);
    for role in ["banner", "main", "contentinfo", "listbox", "table", "heading"] {
        let there = tree.iter().any(|(found, _)| found == role);
        assert!(there, "nobody is told of a {role}: {tree:#?}");
    }
    for name in &names {
        let told = |role: &str, part: &str| {
            tree.iter().any(|(r, n)| r == role && n.contains(name) && n.contains(part))
        };
        assert!(told("option", "reached") && told("rowheader", ""), "{name}: {tree:#?}");
    }
    let nameless: Vec<_> = tree
        .iter()
        .filter(|(role, name)| {
            ["button", "link", "option", "region", "listbox"].contains(&&**role) && name.is_empty()
        })
        .collect();
    assert!(nameless.is_empty(), "{nameless:?}");
    // By keys alone: the link that skips to the table comes first, then the picture.
    browser.press(TAB);
    assert_eq!(browser.eval("return document.activeElement.className"), "skip");
    browser.press(TAB);
    assert_eq!(browser.eval("return document.activeElement.id"), "picture");
    let chosen = |browser: &Browser| browser.text("#detail h3");
    browser.press(END);
    let last = chosen(&browser);
    browser.press("\u{e011}");
    let first = chosen(&browser);
    assert_eq!(BTreeSet::from([&first, &last]), names.iter().collect::<BTreeSet<_>>());
    browser.press(RIGHT);
    assert_eq!(chosen(&browser), last);
    let active = "return document.getElementById(document.activeElement.getAttribute('aria-activedescendant')).ariaLabel";
    assert!(browser.eval(active).as_str().unwrap().starts_with(&last));
}

/// A host among 500: most are well, and some are not, each in its way.
fn many(count: u32) -> Status {
    let peer = |n: u32| {
        let sick = ["port-eaten", "peer-down", "one-way", "agent-down", "unknown"];
        let verdict = if n % 53 == 7 { sick[(n / 53) as usize % sick.len()] } else { "ok" };
        let cut = ["port-eaten", "peer-down", "one-way"].contains(&verdict);
        let path = if n % 9 == 1 {
            "direct"
        } else if n % 61 == 5 {
            "userspace"
        } else {
            "kernel"
        };
        let loss = if cut {
            1.0
        } else if n % 97 == 3 {
            0.047
        } else {
            0.0
        };
        let rtt = 120 + u64::from(n * 7919 % 500) * if n % 31 == 1 { 60 } else { 2 };
        let way = |way: &str, address: String| {
            json!({
                "way": way, "family": "ipv4", "address": address, "up": verdict != "unknown" && !cut, "rtt_p50_us": rtt, "rtt_p99_us": rtt * 4,
                "loss": loss, "loss_there": loss, "mtu": 1450, "sent": 900, "answered": 880, "answer_age_ms": 700,
            })
        };
        let (subnet, public) =
            (format!("10.244.{}.0", n % 256), format!("192.0.{}.{}", 2 + n / 250, n % 250));
        let subnet = if n < 256 { subnet } else { format!("10.245.{}.0", n - 256) };
        let ways = if verdict == "unknown" {
            json!([])
        } else {
            json!([way("overlay", subnet.clone()), way("underlay", public.clone())])
        };
        let cause = if verdict == "ok" {
            String::new()
        } else {
            format!("what is sent to {public} is not answered, over IPv4")
        };
        let mtu = if n % 113 == 9 { 1350 } else { 1450 };
        json!({
            "key": format!("{subnet}-24"), "node": format!("6f1d7a52-0b7e-4f0a-9a53-{n:012x}"), "public": [public], "backend": "vxlan",
            "held": n % 211 == 17, "probe": { "verdict": verdict, "cause": cause, "path": path, "mtu": mtu, "mtu_wanted": 1450, "ways": ways },
        })
    };
    let mut status: Value = serde_json::from_str(include_str!("page.json")).unwrap();
    status["peers"] = (1..count).map(peer).collect();
    status["network"]["pools"][0]["leased"] = json!(count);
    serde_json::from_value(status).unwrap()
}

/// Serves a status to those on `net`.
fn serve(net: &Netns, status: Status) -> (Server, SocketAddr) {
    let dir = tempfile::tempdir().unwrap();
    net.run(|| {
        let tcp = bind_health("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = tcp.local_addr().unwrap();
        let unix = UnixListener::bind(dir.path().join("http.sock")).unwrap();
        unix.set_nonblocking(true).unwrap();
        (Server::start(Listeners { tcp: Some(tcp), page: None, unix }, View::of(status)).unwrap(), addr)
    })
    .unwrap()
}

#[test]
fn five_hundred_hosts_are_drawn_soon_and_with_little() {
    need_browser!();
    let net = Netns::new("page", false).unwrap();
    let browser = Browser::open(&net, 1440, 900);
    let (_server, addr) = serve(&net, many(500));
    let url = format!("http://{addr}/");
    browser.go(&url);
    browser.wait_text("h1", "cut off");
    wait_for("every host in the picture and in the map", || {
        let seen = browser.eval("return [document.querySelectorAll('#picture .host').length, document.querySelectorAll('#map .tile').length]");
        (seen == json!([499, 499])).then_some(()).ok_or(seen)
    });
    let at = |name: &str| {
        browser.eval(&format!("return performance.getEntriesByName('{name}')[0].startTime")).as_f64().unwrap()
    };
    let (paint, drawn) = (at("first-contentful-paint"), at("drawn"));
    let events = browser.network();
    let asked = asked(&events, &url);
    let received =
        events.iter().filter(|event| event["method"] == "Network.dataReceived").map(|event| &event["params"]);
    let ours = received.filter(|data| data["requestId"].as_str().is_some_and(|id| asked.contains_key(id)));
    let bytes: u64 = ours.filter_map(|data| data["dataLength"].as_u64()).sum();
    println!("PAGE 500 hosts: first paint {paint:.0} ms, all drawn {drawn:.0} ms, {bytes} bytes");
    assert!(bytes > 50_000 && bytes <= TRANSFER, "{bytes}");
    assert!(paint < 5_000.0 && drawn < 10_000.0, "{paint} {drawn}");
    let asked: BTreeSet<&str> = asked.values().map(String::as_str).collect();
    assert_eq!(asked, BTreeSet::from([&*url, &*format!("{url}v1/events")]));
    browser.screenshot("page-500");
    browser.prefers_dark(true);
    browser.screenshot("page-500-dark");
    // The next one in trouble, then a filter: both without waiting for the agent.
    let before = browser.text("#detail h3");
    browser.eval("document.getElementById('next-trouble').click()");
    assert_ne!(browser.text("#detail h3"), before);
    browser.eval("const f = document.getElementById('filter'); f.value = 'one-way'; f.dispatchEvent(new Event('input'))");
    let shown = browser.text("#table tbody");
    assert!(!shown.is_empty() && shown.lines().all(|line| line.contains("one-way")), "{shown}");
    assert_quiet(&browser);
}

#[test]
fn others_see_the_page_only_where_it_is_opened_and_go_on_to_after_a_take_over() {
    need_namespaces!();
    let flags = ["--healthz-ip=0.0.0.0", "--ui-listen=0.0.0.0:8474"];
    let mut fabric = Fabric::mixed(Families::V4, VXLAN, [&flags, &[], &[]]);
    let host = fabric.lab.hosts[0].addresses[0];
    let health = SocketAddr::new(host, fabric.agents[0].healthz().port());
    let open = SocketAddr::new(host, 8474);
    let ask =
        |fabric: &Fabric, from: usize, addr, path| http_get(&fabric.lab.hosts[from].net, addr, path).unwrap();
    for path in ["/", "/v1/events"] {
        let (code, body) = ask(&fabric, 1, health, path);
        assert!(
            code == 403 && body.contains("--ui-listen") && body.ends_with("[page-elsewhere]\n"),
            "{path}: {code} {body}"
        );
    }
    for path in ["/healthz", "/readyz", "/v1/status", "/metrics"] {
        assert_eq!(ask(&fabric, 1, health, path).0, 200, "{path}");
    }
    for _ in 0..2 {
        let (code, body) = ask(&fabric, 1, open, "/");
        assert!(code == 200 && body.contains("<title>Twill</title>"), "{code} {body}");
        assert_eq!(ask(&fabric, 1, open, "/v1/status").0, 200);
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(ask(&fabric, 1, open, path).0, 404, "{path}");
        }
        let again = options(fabric.store.clone(), &flags);
        fabric.agents[0].take_over(again).unwrap();
        fabric.wait_ready();
    }
    assert_eq!(ask(&fabric, 0, fabric.agents[0].healthz(), "/").0, 200);
}
