//! Strangers: connections to the link port whose other end has not proven yet that it belongs to
//! the cluster.
//!
//! Any client can connect, and so can nodes. So each connection is accepted, and when there are too
//! many, one gives way. Pure.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The strangers, in order of arrival. `T` is the task of each connection.
#[derive(Debug)]
pub(super) struct Strangers<T> {
    max: usize,
    connections: VecDeque<Stranger<T>>,
}

#[derive(Debug)]
pub(super) struct Stranger<T> {
    pub(super) number: u64,
    /// The address, or the /64 network for IPv6, because one machine has all addresses of such a
    /// network.
    from: IpAddr,
    /// Whether a node of the cluster has this address.
    is_known: bool,
    has_sent: Arc<AtomicBool>,
    pub(super) task: T,
}

impl<T> Strangers<T> {
    pub(super) const fn new(max: usize) -> Self {
        Self { max, connections: VecDeque::new() }
    }

    /// Admits a stranger; returns the stranger that gives way, if there are too many. `number`
    /// grows with each call, and `has_sent` is set once the other end has sent something.
    pub(super) fn admit(
        &mut self,
        number: u64,
        from: IpAddr,
        is_known: bool,
        (task, has_sent): (T, Arc<AtomicBool>),
    ) -> Option<Stranger<T>> {
        self.connections.push_back(Stranger {
            number,
            from: network(from),
            is_known,
            has_sent,
            task,
        });
        if self.connections.len() > self.max { self.give_way() } else { None }
    }

    /// Removes a connection that has ended or has proven itself.
    pub(super) fn forget(&mut self, number: u64) {
        // They are in the order of their numbers.
        if let Ok(index) =
            self.connections.binary_search_by_key(&number, |stranger| stranger.number)
        {
            self.connections.remove(index);
        }
    }

    /// Removes the oldest stranger of the address that has the most. Strangers from addresses of
    /// known nodes stay while there are others. Silent strangers and those that have sent something
    /// share the places: the larger group loses one. So silent connections do not displace a node
    /// that is about to prove itself, and a new connection is not the first to give way.
    pub(super) fn give_way(&mut self) -> Option<Stranger<T>> {
        let all_known = self.connections.iter().all(|stranger| stranger.is_known);
        let may_go = |stranger: &Stranger<T>| all_known || !stranger.is_known;
        let has_sent = |stranger: &Stranger<T>| stranger.has_sent.load(Ordering::Relaxed);
        let mut each = [0, 0];
        for stranger in self.connections.iter().filter(|stranger| may_go(stranger)) {
            each[usize::from(has_sent(stranger))] += 1;
        }
        let senders_go = each[1] > each[0];
        // Read once for all strangers: one may start to send in between.
        let candidates: Vec<_> = (0..self.connections.len())
            .filter(|index| {
                let stranger = &self.connections[*index];
                may_go(stranger) && has_sent(stranger) == senders_go
            })
            .collect();
        let mut counts = HashMap::<IpAddr, usize>::new();
        for index in &candidates {
            *counts.entry(self.connections[*index].from).or_default() += 1;
        }
        let most = counts.values().copied().max();
        let goes = |index: &usize| counts.get(&self.connections[*index].from).copied() == most;
        let index = candidates.into_iter().find(goes)?;
        self.connections.remove(index)
    }
}

fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn silent() -> ((), Arc<AtomicBool>) {
        ((), Arc::default())
    }

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    /// Admits these strangers in order; returns the numbers of those that gave way.
    fn admitted(strangers: &mut Strangers<()>, all: &[(u64, IpAddr, bool)]) -> Vec<u64> {
        let admit = |&(number, from, is_known): &_| {
            strangers.admit(number, from, is_known, silent()).map(|it| it.number)
        };
        all.iter().filter_map(admit).collect()
    }

    #[test]
    fn the_oldest_of_the_busiest_address_gives_way_and_known_addresses_last() {
        let mut strangers = Strangers::new(3);
        // A flooding address loses its own connections only.
        let first = [(0, ip(1), false), (1, ip(2), false), (2, ip(2), false)];
        assert_eq!(admitted(&mut strangers, &first), [0_u64; 0]);
        assert_eq!(admitted(&mut strangers, &[(3, ip(2), false), (4, ip(2), false)]), [1, 2]);
        // A known node is admitted, and stays.
        assert_eq!(admitted(&mut strangers, &[(5, ip(9), true)]), [3]);
        assert_eq!(admitted(&mut strangers, &[(6, ip(2), false), (7, ip(2), false)]), [4, 6]);
        strangers.forget(5);
        strangers.forget(99);
        assert_eq!(admitted(&mut strangers, &[(8, ip(2), false)]), [0_u64; 0]);
        // If all addresses are known, the same rule applies as if none were.
        let mut strangers = Strangers::new(2);
        let known = [(0, ip(1), true), (1, ip(2), true), (2, ip(2), true)];
        assert_eq!(admitted(&mut strangers, &known), [1]);
    }

    #[test]
    fn silent_and_sending_connections_do_not_displace_each_other() {
        let mut strangers = Strangers::new(4);
        let speaks = || ((), Arc::new(AtomicBool::new(true)));
        for number in 0..20 {
            strangers.admit(number, ip(1), true, silent());
        }
        // It stays until it has proven itself, whatever number of silent connections follows.
        assert!(strangers.admit(20, ip(1), true, speaks()).is_some());
        for number in 21..40 {
            let gone = strangers.admit(number, ip(1), true, silent());
            assert_ne!(gone.map(|gone| gone.number), Some(20));
        }
        // A new connection has time to send, even while others send.
        for number in 40..60 {
            strangers.admit(number, ip(1), true, speaks());
        }
        for number in 60..80 {
            let gone = strangers.admit(number, ip(1), true, silent());
            assert_ne!(gone.map(|gone| gone.number), Some(number));
        }
    }

    #[test]
    fn all_addresses_of_one_ipv6_network_count_as_one() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), ip(1));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    proptest! {
        #[test]
        fn the_bound_holds_and_a_known_address_stays_while_unknown_ones_exist(
            most in 1_usize..9,
            arrivals in proptest::collection::vec((0_u8..4, any::<bool>()), 0..60),
        ) {
            let mut strangers = Strangers::new(most);
            for (number, (from, is_known)) in (0..).zip(arrivals) {
                let unknown = |strangers: &Strangers<()>| {
                    strangers.connections.iter().filter(|it| !it.is_known).count()
                };
                let others = unknown(&strangers);
                let gone = strangers.admit(number, ip(from), is_known, silent());
                prop_assert!(strangers.connections.len() <= most);
                if let Some(gone) = gone {
                    prop_assert!(!gone.is_known || others + usize::from(!is_known) == 0);
                    prop_assert_eq!(strangers.connections.len(), most);
                }
            }
        }
    }
}
