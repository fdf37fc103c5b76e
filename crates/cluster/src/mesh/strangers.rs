//! Who is connected to the link port and has not proven yet to be of the cluster.
//!
//! Everybody can connect, and the nodes of the cluster among them. So each is let in, and when there
//! are too many, one gives way. Pure.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Strangers, in the order in which they came. `T` is what is done with each.
#[derive(Debug)]
pub(super) struct Strangers<T> {
    most: usize,
    here: VecDeque<Stranger<T>>,
}

#[derive(Debug)]
pub(super) struct Stranger<T> {
    pub(super) number: u64,
    /// Where it comes from: an address, or of IPv6 a network, of which one machine has all addresses.
    from: IpAddr,
    /// Whether a node of the cluster is there.
    is_known: bool,
    /// Whether it has said something.
    spoke: Arc<AtomicBool>,
    pub(super) task: T,
}

impl<T> Strangers<T> {
    /// No more than `most` at once.
    pub(super) const fn new(most: usize) -> Self {
        Self { most, here: VecDeque::new() }
    }

    /// Lets one in; returns who gives way, if somebody has to. `number` is one that no other has, and
    /// `spoke` is set once it has said something.
    pub(super) fn admit(
        &mut self,
        number: u64,
        from: IpAddr,
        is_known: bool,
        (task, spoke): (T, Arc<AtomicBool>),
    ) -> Option<Stranger<T>> {
        self.here.push_back(Stranger { number, from: network(from), is_known, spoke, task });
        if self.here.len() > self.most { self.give_way() } else { None }
    }

    /// One is none any more.
    pub(super) fn forget(&mut self, number: u64) {
        // They come in the order of their numbers.
        if let Ok(index) = self.here.binary_search_by_key(&number, |stranger| stranger.number) {
            self.here.remove(index);
        }
    }

    /// Takes out the one that came first of those from where the most are. Those from where a node of
    /// the cluster is stay while there are others. Who has said something and who has not share the
    /// room: connections that are only held take nothing from a node that is about to prove itself, and
    /// one that has just come is not the first to go.
    pub(super) fn give_way(&mut self) -> Option<Stranger<T>> {
        let all_known = self.here.iter().all(|stranger| stranger.is_known);
        let may_go = |stranger: &Stranger<T>| all_known || !stranger.is_known;
        let spoke = |stranger: &Stranger<T>| stranger.spoke.load(Ordering::Relaxed);
        let mut each = [0, 0];
        for stranger in self.here.iter().filter(|stranger| may_go(stranger)) {
            each[usize::from(spoke(stranger))] += 1;
        }
        let speakers_go = each[1] > each[0];
        // Said once for all of them, as one may begin to speak meanwhile.
        let candidates: Vec<_> = (0..self.here.len())
            .filter(|index| {
                let stranger = &self.here[*index];
                may_go(stranger) && spoke(stranger) == speakers_go
            })
            .collect();
        let mut counts = HashMap::<IpAddr, usize>::new();
        for index in &candidates {
            *counts.entry(self.here[*index].from).or_default() += 1;
        }
        let most = counts.values().copied().max();
        let goes = |index: &usize| counts.get(&self.here[*index].from).copied() == most;
        let index = candidates.into_iter().find(goes)?;
        self.here.remove(index)
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

    /// Admits them one after the other; the numbers of those that gave way.
    fn admitted(strangers: &mut Strangers<()>, all: &[(u64, IpAddr, bool)]) -> Vec<u64> {
        let admit = |&(number, from, is_known): &_| {
            strangers.admit(number, from, is_known, silent()).map(|it| it.number)
        };
        all.iter().filter_map(admit).collect()
    }

    #[test]
    fn the_oldest_gives_way_from_where_the_most_are_and_known_addresses_last() {
        let mut strangers = Strangers::new(3);
        // One that floods takes only what is its own.
        let first = [(0, ip(1), false), (1, ip(2), false), (2, ip(2), false)];
        assert_eq!(admitted(&mut strangers, &first), [0_u64; 0]);
        assert_eq!(admitted(&mut strangers, &[(3, ip(2), false), (4, ip(2), false)]), [1, 2]);
        // A node that is known is let in, and stays.
        assert_eq!(admitted(&mut strangers, &[(5, ip(9), true)]), [3]);
        assert_eq!(admitted(&mut strangers, &[(6, ip(2), false), (7, ip(2), false)]), [4, 6]);
        strangers.forget(5);
        strangers.forget(99);
        assert_eq!(admitted(&mut strangers, &[(8, ip(2), false)]), [0_u64; 0]);
        // Where all are known, it is as where none is.
        let mut strangers = Strangers::new(2);
        let known = [(0, ip(1), true), (1, ip(2), true), (2, ip(2), true)];
        assert_eq!(admitted(&mut strangers, &known), [1]);
    }

    #[test]
    fn who_only_holds_a_connection_takes_nothing_from_who_speaks_nor_the_other_way_round() {
        let mut strangers = Strangers::new(4);
        let speaks = || ((), Arc::new(AtomicBool::new(true)));
        for number in 0..20 {
            strangers.admit(number, ip(1), true, silent());
        }
        // It stays until it has proven itself, however many come.
        assert!(strangers.admit(20, ip(1), true, speaks()).is_some());
        for number in 21..40 {
            let gone = strangers.admit(number, ip(1), true, silent());
            assert_ne!(gone.map(|gone| gone.number), Some(20));
        }
        // One that has just come has time to speak, also while the others do.
        for number in 40..60 {
            strangers.admit(number, ip(1), true, speaks());
        }
        for number in 60..80 {
            let gone = strangers.admit(number, ip(1), true, silent());
            assert_ne!(gone.map(|gone| gone.number), Some(number));
        }
    }

    #[test]
    fn a_machine_has_one_place_for_all_its_addresses() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), ip(1));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    proptest! {
        #[test]
        fn there_are_never_more_than_may_be_and_who_is_known_and_alone_stays(
            most in 1_usize..9,
            came in proptest::collection::vec((0_u8..4, any::<bool>()), 0..60),
        ) {
            let mut strangers = Strangers::new(most);
            for (number, (from, is_known)) in (0..).zip(came) {
                let unknown = |strangers: &Strangers<()>| {
                    strangers.here.iter().filter(|it| !it.is_known).count()
                };
                let others = unknown(&strangers);
                let gone = strangers.admit(number, ip(from), is_known, silent());
                prop_assert!(strangers.here.len() <= most);
                if let Some(gone) = gone {
                    prop_assert!(!gone.is_known || others + usize::from(!is_known) == 0);
                    prop_assert_eq!(strangers.here.len(), most);
                }
            }
        }
    }
}
