use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use proptest::prelude::*;

use super::*;

/// Made once: it takes longer than any test.
static RULES: LazyLock<Rules> = LazyLock::new(|| Rules::new().unwrap());

fn redactor(secrets: &[&str]) -> Redactor {
    let mut known = Secrets::default();
    secrets.iter().for_each(|secret| known.add("passwords", secret));
    Redactor::new(&known, RULES.clone()).unwrap()
}

fn cleaned(text: &str) -> String {
    String::from_utf8(redactor(&[]).clean(text.as_bytes()).bytes).unwrap()
}

/// Where nobody knows what is secret, its place says it.
#[test]
fn what_is_named_as_a_secret_goes() {
    for (text, want) in [
        (
            r#"{"Probe":{"Port":8475,"Key":"f00d"},"NodeID":"n"}"#,
            r#"{"Probe":{"Port":8475,"Key":"***"},"NodeID":"n"}"#,
        ),
        (r#"{"Key" : "a\"b", "x":1}"#, r#"{"Key" : "***", "x":1}"#),
        (r#"value="{\"Probe\":{\"Key\":\"f00d\"}}" x=1"#, r#"value="{\"Probe\":{\"Key\":\"***" x=1"#),
        (r#"{"etcd_Password":"x y","token": 77}"#, r#"{"etcd_Password":"***","token": ***}"#),
        (r#"{"node":"n","machine":"0123abcd"}"#, r#"{"node":"n","machine":"***"}"#),
        ("twill agent --etcd-password hunter2 --v 1", "twill agent --etcd-password *** --v 1"),
        ("-etcd-password=hunter2 -v=1", "-etcd-password=*** -v=1"),
        ("agent\0--etcd-password\0hunter2\0--v=1\0", "agent\0--etcd-password\0***\0--v=1\0"),
        ("--etcd-password 'hun ter' x", "--etcd-password '***' x"),
        ("TWILL_ETCD_PASSWORD=a b;c\nV=1", "TWILL_ETCD_PASSWORD=***\nV=1"),
        (
            r#"Environment="FLANNELD_ETCD_PASSWORD=a b" "V=1""#,
            r#"Environment="FLANNELD_ETCD_PASSWORD=***" "V=1""#,
        ),
        ("  token: abc.def\n  server: x", "  token: ***\n  server: x"),
        ("client-key-data: LS0t\n", "client-key-data: ***\n"),
        ("password=\"a b\" next=1", "password=\"***\" next=1"),
        ("GET /v1?token=abc&x=1 HTTP/1.1", "GET /v1?token=***&x=1 HTTP/1.1"),
        ("http://root:hunter2@10.0.0.1:2379,http://b:1", "http://***@10.0.0.1:2379,http://b:1"),
        ("https://u:p@ss@h/x", "https://***@h/x"),
        ("etcdctl --user root:hunter2 get x", "etcdctl --user root:*** get x"),
        ("curl -u root:hunter2 x", "curl -u root:*** x"),
        ("Authorization: Basic cm9vdDp4\r\nHost: x", "Authorization: ***\r\nHost: x"),
        ("with bearer abc.def-123 x", "with bearer *** x"),
        ("t eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc_-9 x", "t *** x"),
        (
            "a\n-----BEGIN EC PRIVATE KEY-----\nMHcC\nAQ==\n-----END EC PRIVATE KEY-----\nb",
            "a\n-----BEGIN EC PRIVATE KEY-----***-----END EC PRIVATE KEY-----\nb",
        ),
        ("-----BEGIN PRIVATE KEY-----\nMHcC", "-----BEGIN PRIVATE KEY-----***"),
    ] {
        let once = cleaned(text);
        assert_eq!(once, want);
        assert_eq!(cleaned(&once), want, "what is gone is not removed again");
    }
}

/// A bundle is of use only with everything else in it.
#[test]
fn what_a_maintainer_needs_stays() {
    for text in [
        r#"{"lease":{"key":"10.244.1.0-24","standing":"held"},"build":"0.1.0","peers":[{"key":"10.244.2.0-24"}]}"#,
        r#"{"PublicIP":"1.2.3.4","BackendType":"wireguard","BackendData":{"PublicKey":"q/k="}}"#,
        "10.244.2.0/24 via 10.244.2.0 dev flannel.1 proto 70 onlink mtu 1400\n",
        "0a:00:00:00:00:09 dev flannel.1 dst 192.168.77.2 self permanent\n",
        "etcd /coreos.com/network at http://127.0.0.1:2379,https://[::1]:2379\n",
        "--etcd-keyfile /etc/etcd/client.key --etcd-certfile /etc/etcd/client.pem --etcd-username root",
        "chain senders { ip saddr . @th,160,32 { 192.168.77.2 . 10.244.2.0/24 } counter packets 3 bytes 9 }",
        "twill_probe_rtt_seconds{quantile=\"0.99\"} 0.0003\n",
        "broken   no-agent  /run/twill/34a6738e/agent.sock\n  next    systemctl start twill\n",
        "next: give --etcd-username and TWILL_ETCD_PASSWORD, or a client certificate",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    ] {
        assert_eq!(cleaned(text), text);
    }
}

#[test]
fn a_command_line_keeps_its_shape_and_hides_its_secrets() {
    let (rules, mut secrets) = (RULES.clone(), Secrets::default());
    let words =
        ["twill", "agent", "--etcd-username", "root", "--etcd-password", "pw -1", "--x-token=t0ken", "--v=1"];
    let words = rules.words(&words.map(str::to_owned), &mut secrets);
    assert_eq!(words.join(" "), "twill agent --etcd-username root --etcd-password *** --x-token=*** --v=1");
    let env = [("TWILL_ETCD_PASSWORD", "hunter2"), ("TWILL_V", "1")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert_eq!(rules.variables(&env, &mut secrets), ["TWILL_ETCD_PASSWORD=***", "TWILL_V=1"]);
    assert_eq!(format!("{secrets:?}"), "3 secrets");
    let cleaned = Redactor::new(&secrets, rules).unwrap().clean(b"pw -1, t0ken, hunter2, root");
    assert_eq!(cleaned.bytes, b"***, ***, ***, root");
    assert_eq!(cleaned.removed.values().sum::<usize>(), 3);
}

#[test]
fn a_key_in_pem_goes_line_by_line() {
    let mut secrets = Secrets::default();
    secrets.add_pem(
        "private keys",
        "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqG\nSM49AgE=\n-----END PRIVATE KEY-----\n",
    );
    let redactor = Redactor::new(&secrets, RULES.clone()).unwrap();
    let cleaned = redactor.clean(b"a MIGHAgEAMBMGByqG b SM49AgE= c -----END PRIVATE KEY-----");
    assert_eq!(cleaned.bytes, b"a *** b *** c -----END PRIVATE KEY-----");
}

#[test]
fn what_is_too_short_to_look_for_goes_where_it_is_named() {
    let redactor = redactor(&["abc"]);
    assert_eq!(redactor.clean(b"abc --etcd-password abc").bytes, b"abc --etcd-password ***");
}

/// The ways in which a known secret may come into a file.
fn written(secret: &str, how: usize) -> Vec<u8> {
    let inside = |before: &str| format!("{before}{secret}zz");
    let bytes = |text: &str| text.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    match how {
        0 => secret.as_bytes().to_vec(),
        1 => serde_json::Value::from(secret).to_string().into_bytes(),
        2 => serde_json::Value::from(serde_json::Value::from(secret).to_string()).to_string().into_bytes(),
        3 => format!("{secret:?}").into_bytes(),
        4 => STANDARD.encode(inside("")).into_bytes(),
        5 => STANDARD.encode(inside("u:")).into_bytes(),
        6 => URL_SAFE.encode(inside("u")).into_bytes(),
        7 => secret.bytes().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes(),
        8 => secret.bytes().map(|byte| format!("{byte:02X}")).collect::<String>().into_bytes(),
        _ => bytes(secret).into_bytes(),
    }
}

fn contains(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|window| window == needle)
}

proptest! {
    /// Whatever the secrets are and whatever is around them, none of their forms is left, and cleaning twice is cleaning.
    #[test]
    fn no_form_of_a_known_secret_is_left(
        secrets in prop::collection::vec("[ -)+-~]{6,24}", 1..4),
        pieces in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..10, prop::collection::vec(any::<u8>(), 0..12)), 0..12),
    ) {
        let names: Vec<&str> = secrets.iter().map(String::as_str).collect();
        let redactor = redactor(&names);
        let mut text = Vec::new();
        for (which, how, noise) in &pieces {
            text.extend_from_slice(noise);
            text.push(b'\n');
            text.extend(written(which.get::<String>(&secrets), *how));
            text.push(b'\n');
        }
        let once = redactor.clean(&text).bytes;
        for secret in &secrets {
            for how in [0, 1, 3, 7, 8, 9] {
                prop_assert!(!contains(&once, &written(secret, how)), "{secret:?} {how}");
            }
            for how in [4, 5, 6] {
                let form = written(secret, how);
                // The ends depend on what stands beside it.
                prop_assert!(!contains(&once, &form[3..form.len() - 4]), "{secret:?} {how}");
            }
        }
        prop_assert_eq!(&redactor.clean(&once).bytes, &once);
    }

    /// To look for the beginnings finds what to look for the whole does.
    #[test]
    fn it_is_as_if_each_form_were_looked_for_whole(
        secrets in prop::collection::vec("[ab]{4,40}", 1..6),
        pieces in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..40, "[ab]{0,3}"), 0..10),
    ) {
        let mut text = String::new();
        for (which, length, noise) in &pieces {
            let secret = which.get::<String>(&secrets);
            text += &secret[..secret.len().min(*length)];
            text += noise;
        }
        let all: Vec<Vec<u8>> = secrets.iter().flat_map(|secret| forms::of(secret.as_bytes())).collect();
        let whole = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&all).unwrap();
        let names: Vec<&str> = secrets.iter().map(String::as_str).collect();
        let cleaned = redactor(&names).clean(text.as_bytes());
        prop_assert_eq!(cleaned.bytes, whole.replace_all(&text, &vec![MARK; all.len()]).into_bytes());
        prop_assert_eq!(cleaned.removed.values().sum::<usize>(), whole.find_iter(&text).count());
    }

    /// What has neither a secret nor a name of one is as it was, byte for byte.
    #[test]
    fn what_is_no_secret_stays(text in "[ -9;-~\n]{0,200}") {
        let named = ["pass", "secret", "token", "credential", "key", "machine", "auth", "bearer", "eyj", "-u", "://"];
        prop_assume!(!named.iter().any(|name| text.to_ascii_lowercase().contains(name)));
        let cleaned = redactor(&["Xyzzy7-plugh9-nobody"]).clean(text.as_bytes());
        prop_assert_eq!((cleaned.bytes, cleaned.removed.len()), (text.into_bytes(), 0));
    }
}
