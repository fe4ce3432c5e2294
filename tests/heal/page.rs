//! The page in a real browser: what it shows of three hosts while a link is cut, what five hundred cost, and who may look.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use serde_json::{Value, json};
use twill::agent::board::View;
use twill::agent::status::Status;
use twill::lab::probe::http_get;
use twill::lab::{Netns, UPLINK};
use twill::telemetry::http::{Listeners, Server, bind_health};

use twill_backends::lease::LeaseKey;
use twill_backends::probe::hearsay::{Matrix, Telling};
use twill_backends::probe::row::{Said, Short};
use twill_backends::probe::{Finding, Measured, Up, Verdict, Way};

use crate::browser::{Browser, need_browser};
use crate::fabric::{Fabric, Families, need_namespaces, options, wait_for};
use crate::faults::{drop_at, mend};

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
    browser.wait_text("#detail", "cut off: peer-down for ");
    // The browser counts on by itself, in the details and in the table.
    for place in ["#for", "#table tbody tr.cut td.number"] {
        let before = browser.text(place);
        assert!(before.ends_with(" s") || before.contains(" min"), "{place}: {before}");
        wait_for("a longer time", || {
            let after = browser.text(place);
            (after != before).then_some(()).ok_or(after)
        });
    }
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

/// The cells of the matrix that are about two hosts: from which to which, and of which kind.
fn cells(browser: &Browser) -> BTreeMap<(String, String), String> {
    let script = "return [...document.querySelectorAll('#grid td[data-from]')].map((cell) => [cell.dataset.from, cell.dataset.to, cell.className])";
    let cells: Vec<(String, String, String)> = serde_json::from_value(browser.eval(script)).unwrap();
    cells.into_iter().map(|(from, to, kind)| ((from, to), kind)).collect()
}

/// Waits until these directions are cut, and packets pass in all others.
fn wait_cut(browser: &Browser, hosts: usize, cut: &[(&str, &str)]) {
    wait_for("a matrix with these directions cut", || {
        let cells = cells(browser);
        let is = |(from, to): &(String, String), kind: &str| match cut.contains(&(from, to)) {
            true => kind == "cut",
            // What was lost is counted for a while.
            false => kind == "poor" || kind == "good" || kind.starts_with("heat"),
        };
        let right = cells.len() == hosts * (hosts - 1) && cells.iter().all(|(pair, kind)| is(pair, kind));
        right.then_some(()).ok_or(cells)
    });
}

/// What a cell says to those who do not see it.
fn spoken(browser: &Browser, from: &str, to: &str) -> String {
    let script = format!(
        "return document.querySelector('#grid td[data-from=\"{from}\"][data-to=\"{to}\"]').getAttribute('aria-label')"
    );
    browser.eval(&script).as_str().unwrap().to_owned()
}

#[test]
fn two_hosts_that_cannot_talk_are_seen_from_a_third() {
    need_browser!();
    let fabric = Fabric::new(Families::V4, VXLAN, &[]);
    let hosts = &fabric.lab.hosts;
    let keys = [1, 2].map(|at| fabric.status(at)["lease"]["key"].as_str().unwrap().to_owned());
    let [one, two] = [&*keys[0], &*keys[1]];
    let url = format!("http://{}/", fabric.agents[0].healthz());
    let browser = Browser::open(&hosts[0].net, 1440, 900);
    browser.go(&url);
    browser.wait_text("h1", "All 3 hosts are well");
    wait_cut(&browser, 3, &[]);
    browser.screenshot("page-matrix-well");

    // One direction, as long as only that is lost, and the other host says why.
    drop_at(&hosts[2], &format!("ip saddr {}", hosts[1].addresses[0]));
    wait_cut(&browser, 3, &[(one, two)]);
    browser.wait_text("h1", "This host reaches all, and others do not: 1 direction is cut");
    wait_for("both sides' words", || {
        let said = spoken(&browser, one, two);
        let both =
            said.contains("cut off") && said.contains("says one-way: ") && said.contains("says peer-down: ");
        both.then_some(()).ok_or(said)
    });
    println!("REASON {}", browser.text("#pairs"));
    browser.screenshot("page-matrix-one-way");
    drop_at(&hosts[1], &format!("ip saddr {}", hosts[2].addresses[0]));
    wait_cut(&browser, 3, &[(one, two), (two, one)]);
    browser.wait_text("#pairs", &format!("{} → {}: cut off", one.replace('-', "/"), two.replace('-', "/")));
    browser.wait_text("#pairs", "nothing comes from");
    browser.screenshot("page-matrix-cut");
    browser.prefers_dark(true);
    browser.screenshot("page-matrix-cut-dark");

    // By keys: from this host's cell about one of the two to what that one says of the other.
    browser.eval("document.querySelector('#grid td[tabindex=\"0\"]').focus()");
    browser.press("\u{e015}\u{e014}");
    let active = browser.eval("const { from, to } = document.activeElement.dataset; return [from, to]");
    assert!(active == json!([one, two]) || active == json!([two, one]), "{active}");
    let shown = browser.text("#pair");
    assert_eq!(shown, spoken(&browser, active[0].as_str().unwrap(), active[1].as_str().unwrap()));

    hosts[1..].iter().for_each(mend);
    wait_cut(&browser, 3, &[]);
    browser.prefers_dark(false);
    browser.screenshot("page-matrix-healed");
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
    for role in ["banner", "main", "contentinfo", "listbox", "table", "grid", "heading"] {
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
            "held": n % 211 == 17, "probe": { "verdict": verdict, "cause": cause, "since_s": n * 37, "path": path, "mtu": mtu, "mtu_wanted": 1450, "ways": ways },
        })
    };
    let mut status: Value = serde_json::from_str(include_str!("page.json")).unwrap();
    status["peers"] = (1..count).map(peer).collect();
    status["network"]["pools"][0]["leased"] = json!(count);
    serde_json::from_value(status).unwrap()
}

/// What the hosts of a status say of each other: some of them nothing, most of them good.
fn matrix(status: &Status) -> Matrix {
    let hosts: BTreeMap<LeaseKey, Short> = (1..)
        .zip(&status.peers)
        .map(|(number, peer)| (LeaseKey::new(peer.key.clone()), Short::of(number << 32)))
        .collect();
    let all: Vec<Short> = [Short::of(0)].into_iter().chain(hosts.values().copied()).collect();
    let full = all.len() <= twill_backends::probe::hearsay::FULL;
    let said = |from: usize, to: usize| {
        let cut = (from * 31 + to * 17) % 499 == 7;
        let rtt = 90 + (from * 7919 + to * 104_729) % 900 * if from.abs_diff(to) > 40 { 30 } else { 1 };
        let way = Measured {
            up: if cut { Up::No } else { Up::Yes },
            p50: Some(Duration::from_micros(rtt as u64)),
            loss: Some(if cut { 1.0 } else { 0.0 }),
            ..Measured::nothing(Way::Overlay, [10, 244, 1, 0].into())
        };
        let verdict = if cut { Verdict::OneWay } else { Verdict::Ok };
        Said::of(&Finding { verdict, ways: vec![way], ..Finding::default() })
    };
    let row = |from: usize| {
        let others = (0..all.len()).filter(|to| *to != from).map(|to| (all[to], said(from, to)));
        let (failing, others): (Vec<_>, Vec<_>) = others.partition(|(_, said)| said.fails());
        let count = failing.len() as u16;
        let cells = if full { [failing, others].concat() } else { failing };
        Telling { age: (from % 23 == 3).then_some(Duration::from_secs(40)), failing: count, cells }
    };
    let heard = (1..all.len()).filter(|from| from % 41 != 9);
    Matrix { own: all[0], hosts, full, rows: heard.map(|from| (all[from], row(from))).collect() }
}

/// Serves a status to those on `net`.
fn serve(net: &Netns, status: Status) -> (Server, SocketAddr) {
    let view = View::of_fabric(status.clone(), Some(matrix(&status)));
    let dir = tempfile::tempdir().unwrap();
    net.run(|| {
        let tcp = bind_health("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = tcp.local_addr().unwrap();
        let unix = UnixListener::bind(dir.path().join("http.sock")).unwrap();
        unix.set_nonblocking(true).unwrap();
        (Server::start(Listeners { tcp: Some(tcp), page: None, unix }, view).unwrap(), addr)
    })
    .unwrap()
}

/// What the page of so many hosts took until now is within what it may.
fn assert_cheap(browser: &Browser, url: &str, hosts: usize) {
    let at = |name: &str| {
        browser.eval(&format!("return performance.getEntriesByName('{name}')[0].startTime")).as_f64().unwrap()
    };
    let (paint, drawn) = (at("first-contentful-paint"), at("drawn"));
    let events = browser.network();
    let asked = asked(&events, url);
    let received =
        events.iter().filter(|event| event["method"] == "Network.dataReceived").map(|event| &event["params"]);
    let ours = received.filter(|data| data["requestId"].as_str().is_some_and(|id| asked.contains_key(id)));
    let bytes: u64 = ours.filter_map(|data| data["dataLength"].as_u64()).sum();
    println!("PAGE {hosts} hosts: first paint {paint:.0} ms, all drawn {drawn:.0} ms, {bytes} bytes");
    assert!(bytes > 50_000 && bytes <= TRANSFER, "{bytes}");
    assert!(paint < 5_000.0 && drawn < 10_000.0, "{paint} {drawn}");
    let asked: BTreeSet<&str> = asked.values().map(String::as_str).collect();
    assert_eq!(asked, BTreeSet::from([url, &*format!("{url}v1/events")]));
}

#[test]
fn every_pair_of_sixty_four_hosts_has_its_cell() {
    need_browser!();
    let net = Netns::new("page", false).unwrap();
    let browser = Browser::open(&net, 1440, 900);
    let (_server, addr) = serve(&net, many(64));
    let url = format!("http://{addr}/");
    browser.go(&url);
    let drawn = wait_for("every cell", || {
        let cells = cells(&browser);
        let known = cells.values().filter(|kind| *kind != "unknown").count();
        (cells.len() == 64 * 63 && known > 60 * 63).then_some(known).ok_or((cells.len(), known))
    });
    println!("PAGE 64 hosts: {drawn} of {} pairs known", 64 * 63);
    assert_cheap(&browser, &url, 64);
    browser.screenshot("page-64");
    browser.prefers_dark(true);
    browser.screenshot("page-64-dark");
    assert_quiet(&browser);
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
    browser.wait_text("#matrix-hint", "487 of 499 other hosts told");
    browser.wait_text("#pairs", "says one-way: what ");
    // How long each is as it is: host 53 + 7 is cut off, and 37 s for each number.
    let lasts = browser
        .eval("return document.querySelector('#table tr[data-key=\"10.244.60.0-24\"] td.number').innerText");
    assert!(lasts == "37 min" || lasts == "38 min", "{lasts}");
    // What is not the same all over was painted.
    let painted = "const d = document.getElementById('dots'), p = d.getContext('2d').getImageData(0, 0, d.width, d.height).data; \
                   const seen = new Set(); for (let at = 0; at < p.length; at += 4) seen.add(p[at] * 65536 + p[at + 1] * 256 + p[at + 2]); return [d.width, seen.size]";
    let painted = browser.eval(painted);
    assert!(painted[0] == 1000 && painted[1].as_u64() > Some(4), "{painted}");
    assert_cheap(&browser, &url, 500);
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
