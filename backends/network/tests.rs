use proptest::prelude::*;
use serde_json::json;

use super::*;

fn cause(text: &str) -> String {
    let fault = NetworkConfig::parse(text).expect_err(text);
    assert_eq!(fault.code, Code::BadConfig);
    fault.cause
}

fn v4(text: &str) -> String {
    described(NetworkConfig::parse(text).unwrap().pools.v4.unwrap())
}

fn v6(text: &str) -> String {
    described(NetworkConfig::parse(text).unwrap().pools.v6.unwrap())
}

fn described(pool: Pool) -> String {
    format!("{} /{} {}..{}", pool.network, pool.subnet_len, pool.min, pool.max)
}

/// flannel's TestConfigDefaults, TestIPv6ConfigDefaults, TestConfigOverrides and TestIPv6ConfigOverrides.
#[test]
fn flannels_own_tests_hold() {
    assert_eq!(v4(r#"{"network":"10.3.0.0/16"}"#), "10.3.0.0/16 /24 10.3.1.0..10.3.255.0");
    assert_eq!(
        v6(r#"{"enableIPv6":true,"ipv6Network":"fc00::/48","enableIPv4":false}"#),
        "fc00::/48 /64 fc00:0:0:1::..fc00:0:0:ffff::"
    );
    assert_eq!(
        v4(
            r#"{"Network":"10.3.0.0/16","SubnetMin":"10.3.5.0","SubnetMax":"10.3.8.0","SubnetLen":28,"Backend":{"Type":"x"}}"#
        ),
        "10.3.0.0/16 /28 10.3.5.0..10.3.8.0"
    );
    assert_eq!(
        v6(
            r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/48","IPv6SubnetMin":"fc00:0:0:1::",
               "IPv6SubnetMax":"fc00:0:0:f::","IPv6SubnetLen":124}"#
        ),
        "fc00::/48 /124 fc00:0:0:1::..fc00:0:0:f::"
    );
}

#[test]
fn defaults_follow_the_size_of_the_network() {
    for (network, want) in [
        ("10.5.0.0/16", "10.5.0.0/16 /24 10.5.1.0..10.5.255.0"),
        ("10.5.1.2/16", "10.5.0.0/16 /24 10.5.1.0..10.5.255.0"),
        ("10.0.0.0/8", "10.0.0.0/8 /24 10.0.1.0..10.255.255.0"),
        ("10.5.0.0/22", "10.5.0.0/22 /24 10.5.1.0..10.5.3.0"),
        ("10.5.0.0/23", "10.5.0.0/23 /25 10.5.0.128..10.5.1.128"),
        ("10.5.0.0/28", "10.5.0.0/28 /30 10.5.0.4..10.5.0.12"),
        ("128.0.0.0/1", "128.0.0.0/1 /24 128.0.1.0..255.255.255.0"),
        ("255.255.255.240/28", "255.255.255.240/28 /30 255.255.255.244..255.255.255.252"),
        ("0.0.0.0/8", "0.0.0.0/8 /24 0.0.1.0..0.255.255.0"),
    ] {
        assert_eq!(v4(&json!({"Network": network}).to_string()), want);
    }
    for (network, want) in [
        ("fd00:5::/62", "fd00:5::/62 /64 fd00:5:0:1::..fd00:5:0:3::"),
        ("fd00:5::/63", "fd00:5::/63 /65 fd00:5:0:0:8000::..fd00:5:0:1:8000::"),
        ("fd00:5::/124", "fd00:5::/124 /126 fd00:5::4..fd00:5::c"),
        ("fd00:5::77/48", "fd00:5::/48 /64 fd00:5:0:1::..fd00:5:0:ffff::"),
        ("8000::/1", "8000::/1 /64 8000:0:0:1::..ffff:ffff:ffff:ffff::"),
    ] {
        let text = json!({"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": network});
        assert_eq!(v6(&text.to_string()), want);
    }
}

#[test]
fn limits_are_flannels() {
    let v4 = |fields: &str| format!(r#"{{"Network":"10.5.0.0/16",{fields}}}"#);
    let v6 = |fields: &str| {
        format!(r#"{{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/48",{fields}}}"#)
    };
    for fields in [
        r#""SubnetLen":18"#,
        r#""SubnetLen":30"#,
        r#""SubnetLen":0"#,
        r#""SubnetMin":"10.5.0.0""#,
        r#""SubnetMin":"0.0.0.0","SubnetMax":"0.0.0.0""#,
        r#""SubnetMin":"10.5.9.0","SubnetMax":"10.5.9.0""#,
        r#""SubnetLen":25,"SubnetMin":"10.5.0.128","SubnetMax":"10.5.255.128""#,
    ] {
        assert!(NetworkConfig::parse(&v4(fields)).is_ok(), "{fields}");
    }
    for fields in [
        r#""IPv6SubnetLen":50"#,
        r#""IPv6SubnetLen":126"#,
        r#""IPv6SubnetMin":"fd00:5::","IPv6SubnetMax":"fd00:5::""#,
        r#""IPv6SubnetMin":"::","IPv6SubnetMax":null"#,
    ] {
        assert!(NetworkConfig::parse(&v6(fields)).is_ok(), "{fields}");
    }
    for (text, want) in [
        (v4(r#""SubnetLen":31"#), "SubnetLen is 31; at most 30 is possible"),
        (v4(r#""SubnetLen":300"#), "SubnetLen is 300; at most 30 is possible"),
        (v4(r#""SubnetLen":17"#), "SubnetLen is 17, so that Network 10.5.0.0/16 does not hold four subnets"),
        (v4(r#""SubnetMin":"10.4.255.0""#), "SubnetMin 10.4.255.0 is outside Network 10.5.0.0/16"),
        (v4(r#""SubnetMax":"10.6.0.0""#), "SubnetMax 10.6.0.0 is outside Network 10.5.0.0/16"),
        (v4(r#""SubnetMin":"10.5.1.1""#), "SubnetMin 10.5.1.1 is not the first address of a /24"),
        (v4(r#""SubnetMax":"10.5.9.128""#), "SubnetMax 10.5.9.128 is not the first address of a /24"),
        (
            v4(r#""SubnetMin":"10.5.9.0","SubnetMax":"10.5.8.0""#),
            "SubnetMin 10.5.9.0 is above SubnetMax 10.5.8.0",
        ),
        (v4(r#""SubnetMax":"10.5.0.0""#), "SubnetMin 10.5.1.0 is above SubnetMax 10.5.0.0"),
        (v4(r#""EnableIPv6":true"#), "IPv6Network is missing"),
        (v6(r#""IPv6SubnetLen":127"#), "IPv6SubnetLen is 127; at most 126 is possible"),
        (
            v6(r#""IPv6SubnetLen":49"#),
            "IPv6SubnetLen is 49, so that IPv6Network fd00:5::/48 does not hold four subnets",
        ),
        (v6(r#""IPv6SubnetMin":"fd00:6::""#), "IPv6SubnetMin fd00:6:: is outside IPv6Network fd00:5::/48"),
        (v6(r#""IPv6SubnetMax":"fd00:5::1""#), "IPv6SubnetMax fd00:5::1 is not the first address of a /64"),
        (
            v6(r#""IPv6SubnetMin":"fd00:5:0:2::","IPv6SubnetMax":"fd00:5:0:1::""#),
            "IPv6SubnetMin fd00:5:0:2:: is above IPv6SubnetMax fd00:5:0:1::",
        ),
    ] {
        assert_eq!(cause(&text), want);
    }
}

#[test]
fn networks_must_be_there_large_enough_and_of_their_family() {
    let none = "EnableIPv4 is false and EnableIPv6 is not true, so that no family is left";
    let v6 = |net: &str| format!(r#"{{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"{net}"}}"#);
    for (text, want) in [
        ("{}".to_owned(), "Network is missing"),
        (r#"{"Network":"0.0.0.0/0"}"#.to_owned(), "Network is missing"),
        (r#"{"Network":"10.0.0.0/0"}"#.to_owned(), "Network is missing"),
        (r#"{"Network":"10.5.0.0/29"}"#.to_owned(), "Network 10.5.0.0/29 is too small: /28 at most"),
        (r#"{"Network":"10.5.0.0/32"}"#.to_owned(), "Network 10.5.0.0/32 is too small: /28 at most"),
        (
            r#"{"Network":"10.5.0.0/32","SubnetLen":30}"#.to_owned(),
            "SubnetLen is 30, so that Network 10.5.0.0/32 does not hold four subnets",
        ),
        (r#"{"EnableIPv4":false}"#.to_owned(), none),
        (r#"{"EnableIPv4":false,"Network":"10.5.0.0/16"}"#.to_owned(), none),
        (v6("::/0"), "IPv6Network is missing"),
        (v6("fd00::/125"), "IPv6Network fd00::/125 is too small: /124 at most"),
        (v6("fd00::/128"), "IPv6Network fd00::/128 is too small: /124 at most"),
        (v6("::ffff:10.5.0.0/112"), "IPv6Network ::ffff:10.5.0.0/112 holds IPv4 addresses in IPv6 notation"),
        (v6("::/64"), "IPv6Network ::/64 holds IPv4 addresses in IPv6 notation"),
    ] {
        assert_eq!(cause(&text), want);
    }
}

#[test]
fn wrong_types_are_named() {
    let net4 = r#"an IPv4 network in quotes, such as "10.5.0.0/16""#;
    let net6 = r#"an IPv6 network in quotes, such as "fd00:5::/48""#;
    let (addr4, addr6) = ("an IPv4 address in quotes", "an IPv6 address in quotes, or null");
    let object = r#"an object such as {"Type":"vxlan"}"#;
    for (name, value, expected) in [
        ("Network", "null", net4),
        ("Network", "10", net4),
        ("Network", r#""""#, net4),
        ("Network", r#""10.5.0.0""#, net4),
        ("Network", r#""10.5.0.0/33""#, net4),
        ("Network", r#""fd00::/48""#, net4),
        ("IPv6Network", "null", net6),
        ("IPv6Network", r#""10.5.0.0/16""#, net6),
        ("IPv6Network", r#""fd00::/129""#, net6),
        ("SubnetMin", "null", addr4),
        ("SubnetMax", r#""fd00::""#, addr4),
        ("IPv6SubnetMin", "1", addr6),
        ("IPv6SubnetMax", r#""10.5.0.0""#, addr6),
        ("SubnetLen", r#""24""#, "a whole number"),
        ("SubnetLen", "24.0", "a whole number"),
        ("SubnetLen", "-1", "a whole number"),
        ("IPv6SubnetLen", "true", "a whole number"),
        ("EnableIPv4", "1", "true or false"),
        ("EnableIPv6", r#""true""#, "true or false"),
        ("EnableNFTables", "0", "true or false"),
        ("Backend", r#""vxlan""#, object),
        ("Backend", "[]", object),
    ] {
        let text = format!(r#"{{"Network":"10.5.0.0/16","{name}":{value}}}"#);
        assert_eq!(cause(&text), format!("{name} is {value}; expected {expected}"));
    }
    assert_eq!(
        cause(r#"{"Network":"10.5.0.0/16","Backend":{"Type":1}}"#),
        "Backend.Type is 1; expected a string"
    );
}

#[test]
fn names_in_any_case_duplicates_and_nulls_are_gos() {
    for text in [
        r#"{"NETWORK":"10.3.0.0/16","nEtWoRk":"10.5.0.0/16"}"#,
        r#"{"Network":"10.3.0.0/16","Network":"10.5.0.0/16","Unknown":[{}]}"#,
        r#"{"Network":"10.5.0.0/16","SubnetLen":null,"EnableIPv4":null,"EnableIPv6":null}"#,
        r#"{"Network":"10.5.0.0/16","EnableIPv4":true,"enableipv4":null}"#,
        r#"{"Network":"10.5.0.0/16","SubnetLen":20,"subnetlen":24}"#,
    ] {
        assert_eq!(v4(text), "10.5.0.0/16 /24 10.5.1.0..10.5.255.0", "{text}");
    }
    let twice = r#"{"Network":"10.3.0.0/33","Network":"10.5.0.0/16"}"#;
    assert!(cause(twice).starts_with(r#"Network is "10.3.0.0/33""#));
    let reset = r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48","IPv6SubnetMin":"fd00:0:0:2::","IPv6SubnetMin":null}"#;
    assert_eq!(v6(reset), "fd00::/48 /64 fd00:0:0:1::..fd00:0:0:ffff::");
}

#[test]
fn what_is_no_json_object_is_refused() {
    for text in [
        "",
        "null",
        "[]",
        "10.5.0.0/16",
        r#"{"Network":10.5.0.0/16}"#,
        r#"{"Network":"10.5.0.0/16"} x"#,
        r#"{"Network":"10.5.0.0/16"}{}"#,
        r#"{"Network":"10.5.0.0/16",}"#,
        r#"{"Network":"10.5.0.0/16""#,
    ] {
        assert!(!cause(text).is_empty());
    }
    let fault = NetworkConfig::parse(r#"{"Network":"10.5.0.0/29"}"#).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "network config: Network 10.5.0.0/29 is too small: /28 at most; next: correct it: twill config set JSON"
    );
}

#[test]
fn a_disabled_family_leaves_no_pool() {
    let config = NetworkConfig::parse(
        r#"{"EnableIPv6":true,"EnableNFTables":true,"Network":"10.5.0.0/16","IPv6Network":"fd00:5::/48"}"#,
    )
    .unwrap();
    let names: Vec<_> = config.networks().iter().map(|(_, net)| net.to_string()).collect();
    assert_eq!(names, ["10.5.0.0/16", "fd00:5::/48"]);
    assert!(config.nftables);
    let config = NetworkConfig::parse(r#"{"Network":"10.5.0.0/16","IPv6Network":"fd00::/127"}"#).unwrap();
    assert!(config.pools.v6.is_none() && !config.nftables);
}

#[test]
fn an_absent_backend_is_told_from_one_without_type() {
    let with = |backend: &str| {
        let config = NetworkConfig::parse(&format!(r#"{{"Network":"10.5.0.0/16"{backend}}}"#)).unwrap();
        (config.backend.is_some(), config.options().kind())
    };
    assert_eq!(with(""), (false, None));
    assert_eq!(with(r#","Backend":null"#), (true, None));
    assert_eq!(with(r#","Backend":{}"#), (true, None));
    assert_eq!(with(r#","backend":{"Type":"VXLAN"}"#), (true, Some("vxlan".to_owned())));
    assert_eq!(with(r#","Backend":{"Type":"udp"},"backend":{"VNI":1}"#), (true, None));
}

fn seeds() -> impl Strategy<Value = Value> {
    let texts = [
        "",
        "10.5.0.0/16",
        "fd00::/48",
        "10.5.0.0/33",
        "fd00::/129",
        "/",
        "255.255.255.255/0",
        "::/1",
        "::",
        "10.5.4.0",
        "fd00:0:0:4::",
        "0.0.0.0",
        "ffff::/16",
        "255.255.255.255-32",
    ];
    prop_oneof![
        prop::sample::select(texts.to_vec()).prop_map(Value::from),
        (0_u64..140).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(Value::Null),
        Just(json!({"Type": "vxlan"})),
    ]
}

/// A network of either family with a length that may or may not fit.
fn networks() -> impl Strategy<Value = Value> {
    let v4 = (any::<u32>(), 0_u8..=32, prop::option::of(0_u8..34)).prop_map(|(addr, prefix, len)| {
        json!({"Network": format!("{}/{prefix}", Ipv4Addr::from(addr)), "SubnetLen": len})
    });
    let v6 = (any::<u128>(), 0_u8..=128, prop::option::of(0_u8..130)).prop_map(|(addr, prefix, len)| {
        let net = format!("{}/{prefix}", Ipv6Addr::from(addr));
        json!({"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": net, "IPv6SubnetLen": len})
    });
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        if let Err(fault) = NetworkConfig::parse(&text) {
            prop_assert!(!fault.cause.is_empty());
        }
    }

    #[test]
    fn any_object_gives_whole_pools_or_a_reason(fields in prop::collection::vec((
        prop::sample::select(vec![
            "Network", "IPv6Network", "SubnetLen", "IPv6SubnetLen", "SubnetMin", "SubnetMax", "IPv6SubnetMin",
            "IPv6SubnetMax", "EnableIPv4", "EnableIPv6", "Backend", "x",
        ]),
        seeds(),
    ), 0..6)) {
        let object: Map<String, Value> = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        match NetworkConfig::parse(&Value::Object(object).to_string()) {
            Ok(config) => prop_assert!(config.pools.iter().all(|(_, pool)| pool.size() > 0)),
            Err(fault) => prop_assert!(!fault.cause.is_empty()),
        }
    }

    #[test]
    fn a_valid_pool_is_in_its_network(text in networks()) {
        let Ok(config) = NetworkConfig::parse(&text.to_string()) else { return Ok(()) };
        for (family, pool) in config.pools.iter() {
            prop_assert_eq!(pool.family(), family);
            prop_assert!(pool.network.prefix_len() + 2 <= pool.subnet_len);
            prop_assert!(pool.subnet_len <= family.bits() - 2);
            for index in [0, pool.size() / 2, pool.size() - 1] {
                let subnet = pool.nth(index).unwrap();
                prop_assert!(pool.network.contains(&subnet) && pool.holds(&subnet));
                prop_assert_eq!(pool.overlapped(&subnet), Some((index, index)));
            }
            let count = 1_u128 << (pool.subnet_len - pool.network.prefix_len());
            prop_assert_eq!(pool.size(), count - 1);
        }
    }
}
