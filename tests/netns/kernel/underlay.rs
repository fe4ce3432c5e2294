//! Interface selection and the preflight on real links.

use super::*;
use twill::kernel::preflight::{Plans, check};
use twill::kernel::{KernelError, UnderlayChoice};
use twill_backends::family::PerFamily;

const DUAL: PerFamily<()> = PerFamily { v4: Some(()), v6: Some(()) };

fn choice() -> UnderlayChoice {
    UnderlayChoice { families: DUAL, ..UnderlayChoice::default() }
}

#[test]
fn each_way_of_asking_finds_eth0() {
    in_namespace(async |kernel| {
        ip("link add eth1 type bridge");
        ip("link set eth1 up");
        ip("addr add 172.16.0.1/24 dev eth1");
        assert!(matches!(kernel.underlay(&choice()).await, Err(KernelError::NoUnderlay(_))));
        ip("route add default via 192.168.77.254");
        ip("-6 route add default via fd77::fe");
        ip("route add 10.77.0.0/16 via 192.168.77.254");
        for choice in [
            choice(),
            UnderlayChoice { names: vec!["eth7".to_owned(), "eth0".to_owned()], ..choice() },
            UnderlayChoice { names: vec!["192.168.77.1".to_owned()], ..choice() },
            UnderlayChoice { names: vec!["fd77::1".to_owned()], ..choice() },
            UnderlayChoice { patterns: vec![regex::Regex::new("77").unwrap()], ..choice() },
            UnderlayChoice { can_reach: Some(addr("10.77.1.1")), ..choice() },
            UnderlayChoice { public: PerFamily { v4: Some(addr("192.168.77.1")), v6: None }, ..choice() },
        ] {
            let underlay = kernel.underlay(&choice).await.unwrap();
            assert_eq!(underlay.name, name("eth0"), "{choice:?}");
            assert_eq!(
                underlay.addrs,
                PerFamily { v4: Some(addr("192.168.77.1")), v6: Some(addr("fd77::1")) }
            );
            let on_link: Vec<String> = underlay.on_link.iter().map(ToString::to_string).collect();
            assert_eq!(on_link, ["192.168.77.0/24", "fd77::/64"]);
            assert_eq!(underlay.mtu, 1500);
        }
    });
}

#[test]
fn what_cannot_be_reached_is_told() {
    in_namespace(async |kernel| {
        let choice = UnderlayChoice { can_reach: Some(addr("203.0.113.1")), ..choice() };
        let error = kernel.underlay(&choice).await.unwrap_err().to_string();
        assert_eq!(error, "no underlay interface: the way to 203.0.113.1: there is no route");
    });
}

#[test]
fn the_preflight_passes_our_own_and_refuses_others() {
    in_namespace(async |kernel| {
        let plans = Plans { networks: vec!["10.5.0.0/16".parse().unwrap()], ..Plans::default() };
        converge(&kernel, &want()).await;
        ip("route add 10.5.44.0/24 via 192.168.77.3 dev eth0");
        let facts = kernel.facts(None).await.unwrap();
        assert_eq!(check(&facts, &scope(), &plans).refusals, []);
        ip("link add docker0 type bridge");
        ip("addr add 10.5.17.1/24 dev docker0");
        ip("route add 10.5.8.0/24 via 192.168.77.8 dev eth0 proto static");
        let facts = kernel.facts(None).await.unwrap();
        let refusals = check(&facts, &scope(), &plans).refusals;
        assert_eq!(
            refusals.iter().map(|refusal| refusal.cause.as_str()).collect::<Vec<_>>(),
            [
                "address 10.5.17.1/24 on docker0 lies in the pod network 10.5.0.0/16",
                "the route `10.5.8.0/24 via 192.168.77.8 dev eth0 proto static` lies in the pod network 10.5.0.0/16",
            ]
        );
    });
}
