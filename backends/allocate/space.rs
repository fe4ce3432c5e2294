//! Which subnets of a pool are free.

use ipnet::IpNet;

use crate::network::Pool;

/// A pool and what is taken of it. The cost is that of sorting what is taken, however large the pool.
#[derive(Debug)]
pub(super) struct Space<'a> {
    pool: &'a Pool,
    /// First and last index of each stretch that is taken: ascending, not touching.
    taken: Vec<(u128, u128)>,
}

impl<'a> Space<'a> {
    /// Networks of any size and place may be taken; those outside the pool do not matter.
    pub(super) fn new<'n>(pool: &'a Pool, nets: impl Iterator<Item = &'n IpNet>) -> Self {
        let mut stretches: Vec<_> = nets.filter_map(|net| pool.overlapped(net)).collect();
        stretches.sort_unstable();
        let mut taken: Vec<(u128, u128)> = Vec::with_capacity(stretches.len());
        for (from, to) in stretches {
            match taken.last_mut() {
                Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
                Some(_) | None => taken.push((from, to)),
            }
        }
        Self { pool, taken }
    }

    /// Whether `subnet` can be had.
    pub(super) fn is_free(&self, subnet: &IpNet) -> bool {
        self.pool.holds(subnet)
            && self.pool.overlapped(subnet).is_some_and(|(index, _)| {
                let next = self.taken.partition_point(|(from, _)| *from <= index);
                next.checked_sub(1).is_none_or(|before| self.taken[before].1 < index)
            })
    }

    /// How many subnets can be had.
    pub(super) fn free(&self) -> u128 {
        let taken: u128 = self.taken.iter().map(|(from, to)| to - from + 1).sum();
        self.pool.size() - taken
    }

    /// The free subnet that `rank` free ones precede.
    pub(super) fn nth_free(&self, rank: u128) -> Option<IpNet> {
        let mut index = rank;
        for (from, to) in &self.taken {
            if index < *from {
                break;
            }
            index = index.checked_add(to - from + 1)?;
        }
        self.pool.nth(index)
    }

    /// Any free subnet, each with the same chance; in an IPv6 pool with more than 2^64 of them, any of the first.
    pub(super) fn random(&self, pick: &mut dyn FnMut(u64) -> u64) -> Option<IpNet> {
        let choices = u64::try_from(self.free()).unwrap_or(u64::MAX);
        let last = choices.checked_sub(1)?;
        self.nth_free(pick(choices).min(last).into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::samples::pool;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn gaps_are_found_between_networks_of_any_size() {
        let pool = pool("10.5.0.0/16", 24, "10.5.1.0", "10.5.9.0");
        let taken =
            nets(&["10.5.8.0/24", "10.5.2.0/23", "10.5.3.128/25", "10.5.0.0/24", "10.9.0.0/16", "fd00::/8"]);
        let space = Space::new(&pool, taken.iter());
        assert_eq!(space.taken, [(1, 2), (7, 7)]);
        let free: Vec<_> = (0..).map_while(|rank| space.nth_free(rank)).collect();
        assert_eq!(
            free,
            nets(&["10.5.1.0/24", "10.5.4.0/24", "10.5.5.0/24", "10.5.6.0/24", "10.5.7.0/24", "10.5.9.0/24"])
        );
        assert_eq!(space.free(), 6);
    }

    #[test]
    fn pools_beyond_64_bits_neither_overflow_nor_loop() {
        let wide = pool("fd00::/16", 96, "fd00::1:0:0", "fd00:ffff:ffff:ffff:ffff:ffff::");
        let taken = nets(&["fd00::/17", "fd00:8000::/96", "fd00:ffff::/32"]);
        let space = Space::new(&wide, taken.iter());
        assert_eq!(space.free(), (1 << 79) - 1 - (1 << 64));
        assert_eq!(space.random(&mut |_| 0), Some(nets(&["fd00:8000::1:0:0/96"])[0]));
        let mut asked = 0;
        let last = space.random(&mut |choices| {
            asked = choices;
            choices
        });
        assert_eq!(asked, u64::MAX);
        assert!(space.is_free(&last.unwrap()));
        let all = nets(&["::/0"]);
        let none = Space::new(&wide, all.iter());
        assert_eq!((none.free(), none.random(&mut |_| 0)), (0, None));
    }

    proptest! {
        /// Against the plainest way: try every subnet against every network.
        #[test]
        fn exactly_the_free_subnets_are_found(
            taken in prop::collection::vec((any::<u16>(), 14_u8..=32), 0..40), base in 1_u8..=60, max in 61_u8..=255,
        ) {
            let pool = pool("10.5.0.0/16", 24, &format!("10.5.{base}.0"), &format!("10.5.{max}.0"));
            let net = |(low, len)| {
                let [a, b] = u16::to_be_bytes(low);
                IpNet::new(std::net::Ipv4Addr::new(10, 5, a, b).into(), len).unwrap().trunc()
            };
            let taken: Vec<_> = taken.into_iter().map(net).collect();
            let want: Vec<_> = (0..pool.size())
                .filter_map(|index| pool.nth(index))
                .filter(|subnet| !taken.iter().any(|net| net.contains(subnet) || subnet.contains(net)))
                .collect();
            let space = Space::new(&pool, taken.iter());
            let free: Vec<_> = (0..).map_while(|rank| space.nth_free(rank)).collect();
            prop_assert_eq!(space.free(), free.len() as u128);
            for subnet in (0..pool.size()).filter_map(|index| pool.nth(index)) {
                prop_assert_eq!(space.is_free(&subnet), free.contains(&subnet));
            }
            prop_assert_eq!(free, want);
        }
    }
}
