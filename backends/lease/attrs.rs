//! The value of a lease: JSON, byte for byte as flanneld writes it, with fields of ours at its end.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value, json};

use super::{Attrs, Listener};
use crate::json::Fields;

/// Why a value is not that of a lease, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadAttrs(String);

impl fmt::Display for BadAttrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the value of the lease does not decode: {}", self.0)
    }
}

impl std::error::Error for BadAttrs {}

impl Attrs {
    /// The JSON a store keeps: `{"PublicIP":"192.168.77.1","PublicIPv6":null,"BackendType":"vxlan",…}`.
    ///
    /// `PublicIP` and `PublicIPv6` are always there, the other fields when they have a value. Go also writes `<`, `>`
    /// and `&` inside strings as escapes, which no decoder can tell from the characters.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut object = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            object.extend(value.map(|value| (name.to_owned(), value)));
        };
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty()).map(Value::String);
        let v4 = self.public_ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
        put("PublicIP", Some(v4.to_string().into()));
        put("PublicIPv6", Some(self.public_ipv6.map(|addr| addr.to_string()).into()));
        put("BackendType", text(&self.backend_type));
        put("BackendData", self.backend_data.clone());
        put("BackendV6Data", self.backend_v6_data.clone());
        put("NodeID", text(&self.node_id));
        put("Session", text(&self.session));
        let probe = self.probe.as_ref().map(|probe| json!({ "Port": probe.port, "Key": probe.secret }));
        put("Probe", probe);
        Value::Object(object).to_string().into_bytes()
    }

    /// Reads such JSON as flanneld does: names in any case, the last of several counts, unknown ones are ignored.
    ///
    /// An address of zeros and an empty string are no value. A `null` as `BackendData` is a value, as in Go.
    ///
    /// # Errors
    /// It is no JSON object, or a field has the wrong type; `"PublicIP":null` has.
    pub fn decode(value: &[u8]) -> Result<Self, BadAttrs> {
        Fields::parse(value).and_then(|fields| Self::read(&fields)).map_err(BadAttrs)
    }

    fn read(fields: &Fields) -> Result<Self, String> {
        let v4 = fields.custom("PublicIP", "an IPv4 address in quotes", |v| v.as_str()?.parse().ok())?;
        let v6 = fields.custom("PublicIPv6", "an IPv6 address in quotes, or null", |v| {
            if v.is_null() { Some(None) } else { v.as_str()?.parse().ok().map(Some) }
        })?;
        let text = |name| {
            let text = fields.scalar(name, "a string", Value::as_str)?;
            Ok::<_, String>(text.filter(|text| !text.is_empty()).map(str::to_owned))
        };
        Ok(Self {
            public_ip: v4.filter(|addr: &Ipv4Addr| !addr.is_unspecified()),
            public_ipv6: v6.flatten().filter(|addr: &Ipv6Addr| !addr.is_unspecified()),
            backend_type: text("BackendType")?,
            backend_data: fields.raw("BackendData").cloned(),
            backend_v6_data: fields.raw("BackendV6Data").cloned(),
            node_id: text("NodeID")?,
            session: text("Session")?,
            probe: fields.raw("Probe").and_then(listener),
        })
    }
}

/// What cannot be read is passed over: the lease is as good without.
fn listener(value: &Value) -> Option<Listener> {
    let port = value.get("Port")?.as_u64().and_then(|port| u16::try_from(port).ok())?;
    let secret = value.get("Key")?.as_str()?.to_owned();
    Some(Listener { port, secret }).filter(|probe| probe.port != 0 && !probe.secret.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(attrs: &Attrs) -> String {
        String::from_utf8(attrs.encode()).unwrap()
    }

    /// Values that flanneld wrote.
    #[test]
    fn flannels_bytes_survive() {
        for text in [
            r#"{"PublicIP":"1.2.3.4","PublicIPv6":null}"#,
            r#"{"PublicIP":"0.0.0.0","PublicIPv6":"fd00:77::1","BackendType":"vxlan","BackendV6Data":{"VNI":1,"VtepMAC":"f6:8c:be:44:42:8e"}}"#,
            r#"{"PublicIP":"192.168.77.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"f6:8c:be:44:42:8e"}}"#,
            r#"{"PublicIP":"192.168.77.1","PublicIPv6":"fd00:77::1","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"f6:8c:be:44:42:8e"},"BackendV6Data":{"VNI":1,"VtepMAC":"0a:8c:be:44:42:8e"}}"#,
            r#"{"PublicIP":"192.168.77.1","PublicIPv6":null,"BackendType":"host-gw"}"#,
            r#"{"PublicIP":"192.168.77.1","PublicIPv6":null,"BackendType":"wireguard","BackendData":{"PublicKey":"q/k=","Port":51820}}"#,
            r#"{"PublicIP":"192.168.77.1","PublicIPv6":null,"BackendType":"extension","BackendData":"z a"}"#,
            r#"{"PublicIP":"192.168.77.1","PublicIPv6":null,"BackendType":"x","BackendData":null,"BackendV6Data":[{"b":1,"a":2.5}]}"#,
        ] {
            assert_eq!(encoded(&Attrs::decode(text.as_bytes()).unwrap()), text);
        }
    }

    #[test]
    fn our_fields_come_last() {
        let attrs = Attrs {
            public_ip: Some(Ipv4Addr::new(192, 168, 77, 1)),
            backend_type: Some("vxlan".into()),
            backend_data: Some(json!({"VNI": 1, "VtepMAC": "f6:8c:be:44:42:8e"})),
            node_id: Some("n".into()),
            session: Some("s".into()),
            ..Attrs::default()
        };
        assert_eq!(
            encoded(&attrs),
            r#"{"PublicIP":"192.168.77.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"f6:8c:be:44:42:8e"},"NodeID":"n","Session":"s"}"#
        );
        assert_eq!(encoded(&Attrs::default()), r#"{"PublicIP":"0.0.0.0","PublicIPv6":null}"#);
    }

    #[test]
    fn where_probes_are_answered_is_told_and_the_secret_is_not() {
        let attrs = Attrs { probe: Some(Listener { port: 8475, secret: "s3".into() }), ..Attrs::default() };
        let text = r#"{"PublicIP":"0.0.0.0","PublicIPv6":null,"Probe":{"Port":8475,"Key":"s3"}}"#;
        assert_eq!(encoded(&attrs), text);
        assert!(!format!("{attrs:?}").contains("s3"), "{attrs:?}");
        for useless in [
            "null",
            "7",
            "{}",
            r#"{"Port":0,"Key":"k"}"#,
            r#"{"Port":65536,"Key":"k"}"#,
            r#"{"Port":1,"Key":""}"#,
        ] {
            let text = format!(r#"{{"PublicIP":"0.0.0.0","Probe":{useless}}}"#);
            assert_eq!(Attrs::decode(text.as_bytes()), Ok(Attrs::default()), "{useless}");
        }
    }

    #[test]
    fn reading_is_as_lenient_as_go() {
        let attrs = Attrs::decode(
            br#" {"publicip":"1.1.1.1","x":{},"PUBLICIP":"2.2.2.2","backendtype":"a","BackendType":null,
                 "PublicIPv6":"fd00::1","publicIPv6":null,"nodeid":"","backenddata":1,"BackendData":2} "#,
        );
        let want = Attrs {
            public_ip: Some(Ipv4Addr::new(2, 2, 2, 2)),
            backend_type: Some("a".into()),
            backend_data: Some(json!(2)),
            ..Attrs::default()
        };
        assert_eq!(attrs, Ok(want));
        assert_eq!(Attrs::decode(b"{}"), Ok(Attrs::default()));
        assert_eq!(Attrs::decode(br#"{"PublicIP":"0.0.0.0","PublicIPv6":"::"}"#), Ok(Attrs::default()));
    }

    #[test]
    fn wrong_types_are_named() {
        let v4 = "an IPv4 address in quotes";
        let v6 = "an IPv6 address in quotes, or null";
        for (name, value, expected) in [
            ("PublicIP", "null", v4),
            ("PublicIP", "16909060", v4),
            ("PublicIP", r#""""#, v4),
            ("PublicIP", r#""1.2.3""#, v4),
            ("PublicIP", r#""1.2.3.04""#, v4),
            ("PublicIP", r#""fd00::1""#, v4),
            ("PublicIP", r#""1.2.3.4/24""#, v4),
            ("PublicIPv6", r#""1.2.3.4""#, v6),
            ("PublicIPv6", r#""""#, v6),
            ("PublicIPv6", "false", v6),
            ("BackendType", "1", "a string"),
            ("NodeID", "{}", "a string"),
            ("Session", "[]", "a string"),
        ] {
            let error = Attrs::decode(format!(r#"{{"{name}":{value}}}"#).as_bytes()).unwrap_err();
            let want =
                format!("the value of the lease does not decode: {name} is {value}; expected {expected}");
            assert_eq!(error.to_string(), want);
        }
        for text in [
            "",
            "null",
            "[]",
            r#""x""#,
            "{",
            r#"{"PublicIP":"1.2.3.4"}}"#,
            "\u{0}",
            r#"{"PublicIP":1.2.3.4}"#,
        ] {
            assert!(Attrs::decode(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Attrs::decode(b"{\"BackendType\":\"\xff\"}").is_err());
        assert!(Attrs::decode("[".repeat(100_000).as_bytes()).is_err());
        assert!(Attrs::decode(format!(r#"{{"BackendData":{}"#, "[".repeat(100_000)).as_bytes()).is_err());
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    prop_compose! {
        fn attrs()(
            v4 in prop::option::of(1_u32..), v6 in prop::option::of(1_u128..),
            text in prop::array::uniform3(prop::option::of("\\PC{1,8}")),
            probe in prop::option::of((1_u16.., "\\PC{1,8}")),
            data in prop::array::uniform2(prop::option::of(json_value())),
        ) -> Attrs {
            let [backend_type, node_id, session] = text;
            let [backend_data, backend_v6_data] = data;
            Attrs {
                public_ip: v4.map(Ipv4Addr::from), public_ipv6: v6.map(Ipv6Addr::from),
                backend_type, backend_data, backend_v6_data, node_id, session,
                probe: probe.map(|(port, secret)| Listener { port, secret }),
            }
        }
    }

    fn accepted_is_stable(value: &[u8]) -> Result<(), TestCaseError> {
        if let Ok(attrs) = Attrs::decode(value) {
            prop_assert_eq!(Attrs::decode(&attrs.encode()), Ok(attrs));
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(attrs in attrs()) {
            let bytes = attrs.encode();
            let back = Attrs::decode(&bytes);
            prop_assert_eq!(back.as_ref().map(Attrs::encode), Ok(bytes));
            prop_assert_eq!(back, Ok(attrs));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            accepted_is_stable(&bytes)?;
        }

        #[test]
        fn any_json_is_decoded_or_refused(
            name in prop::sample::select(vec!["PublicIP", "publicipv6", "BackendType", "BackendData", "NodeID"]),
            value in json_value(),
        ) {
            accepted_is_stable(json!({name: value}).to_string().as_bytes())?;
        }

        #[test]
        fn a_damaged_value_is_decoded_or_refused(at in 0_usize..110, byte in any::<u8>()) {
            let mut text = br#"{"PublicIP":"192.168.77.1","PublicIPv6":"fd00::1","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"x"}}"#.to_vec();
            text[at] = byte;
            accepted_is_stable(&text)?;
        }
    }
}
