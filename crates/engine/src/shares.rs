//! Shares of what all callers use, and what gives way when it is used up: the oldest thing of the
//! caller with the largest share.
//!
//! A caller belongs to a group: all callers of one principal, or of one address. Groups share
//! first, then the members of each group. So neither many connections nor many sessions get more
//! than one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::SessionId;

/// The connection that a request came on, as far as its transport knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Connection {
    /// The address at the other end: of the client, or of a proxy.
    pub address: IpAddr,
    /// Distinguishes connections of the same address, such as the port.
    pub number: u64,
}

impl From<SocketAddr> for Connection {
    fn from(other_end: SocketAddr) -> Self {
        Self { address: other_end.ip(), number: other_end.port().into() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Share {
    group: Group,
    member: Member,
}

/// All that belongs to one caller, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Group {
    Principal(Arc<str>),
    Network(IpAddr),
    Session(SessionId),
    /// All unknown callers together.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Member {
    Session(SessionId),
    Connection(u64),
    Unknown,
}

impl Share {
    pub(crate) fn of(
        principal: Option<&Arc<str>>,
        session: Option<&SessionId>,
        connection: Option<Connection>,
    ) -> Self {
        let group = match (principal, connection, session) {
            (Some(principal), ..) => Group::Principal(principal.clone()),
            (None, Some(connection), _) => Group::Network(network(connection.address)),
            (None, None, Some(session)) => Group::Session(session.clone()),
            (None, None, None) => Group::Unknown,
        };
        let member = match (session, connection) {
            (Some(session), _) => Member::Session(session.clone()),
            (None, Some(connection)) => Member::Connection(connection.number),
            (None, None) => Member::Unknown,
        };
        Self { group, member }
    }

    pub(crate) fn group(&self) -> &Group {
        &self.group
    }
}

/// The network of an address: an owner of one IPv6 address has 2⁶⁴ of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

/// The id of something that is held. Later things have larger ids.
pub(crate) type Ticket = u64;

#[derive(Debug)]
pub(crate) struct Shares<T> {
    next: Ticket,
    held: HashMap<Ticket, Holding<T>>,
    groups: Ranks<Group>,
    members: HashMap<Group, Members>,
    cost: usize,
}

#[derive(Debug)]
struct Holding<T> {
    share: Share,
    cost: usize,
    busy: bool,
    item: T,
}

#[derive(Debug, Default)]
struct Members {
    costs: Ranks<Member>,
    /// The things of each member in the order in which they give way: those that are not busy
    /// first, of these the oldest.
    queues: BTreeMap<Member, BTreeSet<(bool, Ticket)>>,
}

/// Holders sorted by cost; equal ones by how long they have held something.
#[derive(Debug)]
struct Ranks<K> {
    costs: HashMap<K, (usize, Reverse<Ticket>)>,
    ranks: BTreeSet<(usize, Reverse<Ticket>, K)>,
}

impl<K> Default for Ranks<K> {
    fn default() -> Self {
        Self { costs: HashMap::new(), ranks: BTreeSet::new() }
    }
}

impl<K: Clone + Eq + Hash + Ord> Ranks<K> {
    /// `since` is used for a key that held nothing before.
    fn change(&mut self, key: &K, since: Ticket, change: impl FnOnce(usize) -> usize) {
        let before = self.costs.remove(key);
        if let Some((cost, since)) = before {
            self.ranks.remove(&(cost, since, key.clone()));
        }
        let (cost, since) = before.unwrap_or((0, Reverse(since)));
        let cost = change(cost);
        if cost > 0 {
            self.costs.insert(key.clone(), (cost, since));
            self.ranks.insert((cost, since, key.clone()));
        }
    }

    /// The holder of the most, and whether that is more than `newcomer` holds. Of equal ones,
    /// another than `newcomer`.
    fn largest(&self, newcomer: &K) -> Option<(&K, bool)> {
        let (most, _, first) = self.ranks.last()?;
        let mut equals = self.ranks.iter().rev().take_while(|(cost, ..)| cost == most);
        let other = equals.find(|(.., key)| key != newcomer).map_or(first, |(.., key)| key);
        let more = self.costs.get(newcomer).is_none_or(|(cost, _)| cost < most);
        Some((other, more))
    }
}

impl<T> Default for Shares<T> {
    fn default() -> Self {
        Self {
            next: 0,
            held: HashMap::new(),
            groups: Ranks::default(),
            members: HashMap::new(),
            cost: 0,
        }
    }
}

impl<T> Shares<T> {
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn cost(&self) -> usize {
        self.cost
    }

    /// Adds a thing. It costs at least 1. Busy things give way last.
    pub(crate) fn insert(&mut self, share: Share, cost: usize, busy: bool, item: T) -> Ticket {
        let ticket = self.next;
        self.next += 1;
        self.enter(ticket, Holding { share, cost: cost.max(1), busy, item });
        ticket
    }

    pub(crate) fn get(&self, ticket: Ticket) -> Option<&T> {
        self.held.get(&ticket).map(|held| &held.item)
    }

    pub(crate) fn change(&mut self, ticket: Ticket, cost: usize, busy: bool) {
        if let Some(held) = self.leave(ticket) {
            self.enter(ticket, Holding { cost: cost.max(1), busy, ..held });
        }
    }

    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<T> {
        self.leave(ticket).map(|held| held.item)
    }

    pub(crate) fn retain(&mut self, mut stays: impl FnMut(&T) -> bool) {
        let gone: Vec<_> =
            self.held.iter().filter(|(_, held)| !stays(&held.item)).map(|(it, _)| *it).collect();
        for ticket in gone {
            self.leave(ticket);
        }
    }

    /// The thing that gives way for a newcomer that needs space, with the newcomer's own things
    /// counted: the oldest one of the member with the largest share, in the group with the largest
    /// share.
    pub(crate) fn gives_way(&self, newcomer: &Share) -> Option<GivesWay> {
        self.first_of_largest(newcomer, false)
    }

    /// As [`gives_way`](Self::gives_way), but only among busy things. `None` also if the thing is
    /// the newcomer's own, or if its holder has no more than the newcomer.
    pub(crate) fn busy_gives_way(&self, newcomer: &Share) -> Option<GivesWay> {
        self.first_of_largest(newcomer, true).filter(|target| target.more && !target.own)
    }

    fn first_of_largest(&self, newcomer: &Share, busy_only: bool) -> Option<GivesWay> {
        let (group, groups_more) = self.groups.largest(&newcomer.group)?;
        let members = self.members.get(group)?;
        let (member, members_more) = members.costs.largest(&newcomer.member)?;
        let queue = members.queues.get(member)?;
        let (busy, ticket) = *queue.range((busy_only, 0)..).next()?;
        let same_group = *group == newcomer.group;
        let own = same_group && *member == newcomer.member;
        let more = if same_group { members_more } else { groups_more };
        let cost = self.held.get(&ticket)?.cost;
        Some(GivesWay { ticket, cost, busy, own, more })
    }

    fn enter(&mut self, ticket: Ticket, held: Holding<T>) {
        let Share { group, member } = &held.share;
        self.groups.change(group, ticket, |cost| cost + held.cost);
        let members = self.members.entry(group.clone()).or_default();
        members.costs.change(member, ticket, |cost| cost + held.cost);
        members.queues.entry(member.clone()).or_default().insert((held.busy, ticket));
        self.cost += held.cost;
        self.held.insert(ticket, held);
    }

    fn leave(&mut self, ticket: Ticket) -> Option<Holding<T>> {
        let held = self.held.remove(&ticket)?;
        let Share { group, member } = &held.share;
        self.cost -= held.cost;
        self.groups.change(group, ticket, |cost| cost - held.cost);
        if let Some(members) = self.members.get_mut(group) {
            members.costs.change(member, ticket, |cost| cost - held.cost);
            if let Some(queue) = members.queues.get_mut(member) {
                queue.remove(&(held.busy, ticket));
                if queue.is_empty() {
                    members.queues.remove(member);
                }
            }
            if members.queues.is_empty() {
                self.members.remove(group);
            }
        }
        Some(held)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GivesWay {
    pub(crate) ticket: Ticket,
    pub(crate) cost: usize,
    pub(crate) busy: bool,
    pub(crate) own: bool,
    /// Whether its holder has more than the newcomer, and not just as much.
    pub(crate) more: bool,
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn caller(address: u8, number: u64) -> Share {
        let address = Ipv4Addr::new(10, 0, 0, address).into();
        Share::of(None, None, Some(Connection { address, number }))
    }

    /// Admits a caller for which others give way. Returns the callers that had to.
    fn admit(shares: &mut Shares<Share>, most: usize, share: &Share, cost: usize) -> Vec<Share> {
        let mut gone = Vec::new();
        shares.insert(share.clone(), cost, false, share.clone());
        while shares.cost() > most {
            let target = shares.gives_way(share).unwrap();
            gone.extend(shares.remove(target.ticket));
        }
        gone
    }

    #[test]
    fn one_address_has_one_share_however_many_connections_it_opens() {
        let mut shares = Shares::default();
        for number in 0..100 {
            admit(&mut shares, 100, &caller(1, number), 1);
        }
        for number in 0..50 {
            assert_eq!(admit(&mut shares, 100, &caller(2, 0), 1).len(), 1, "{number}");
        }
        // From here on both addresses hold the same.
        assert_eq!(admit(&mut shares, 100, &caller(2, 0), 1), [caller(2, 0)]);
    }

    #[test]
    fn an_ipv6_network_is_one_caller_and_a_mapped_address_is_its_ipv4_address() {
        let of = |address: &str| {
            let address = address.parse().unwrap();
            Share::of(None, None, Some(Connection { address, number: 1 }))
        };
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }

    #[test]
    fn what_is_busy_gives_way_last() {
        let (mut shares, one) = (Shares::default(), caller(1, 1));
        let busy = shares.insert(one.clone(), 1, true, ());
        let done = shares.insert(one.clone(), 1, true, ());
        assert_eq!(shares.gives_way(&one).unwrap().ticket, busy);
        shares.change(done, 1, false);
        let gives_way = shares.gives_way(&caller(2, 1)).unwrap();
        let expected = GivesWay { ticket: done, cost: 1, busy: false, own: false, more: true };
        assert_eq!(gives_way, expected);
    }

    #[test]
    fn of_equal_shares_the_first_one_gives_way() {
        let mut shares = Shares::default();
        let all = [5, 3, 9, 1].map(|number| caller(1, number));
        all.iter().for_each(|it| drop(admit(&mut shares, 4, it, 1)));
        for (number, first) in all.iter().enumerate() {
            let newcomer = caller(1, 20 + number as u64);
            assert_eq!(admit(&mut shares, 4, &newcomer, 1), std::slice::from_ref(first));
        }
    }

    proptest! {
        /// Whatever other callers do, a caller that holds less than another loses nothing to it.
        #[test]
        fn who_holds_fewer_than_another_gets_its_place(
            greedy in proptest::collection::vec((0..3_u8, 0..4_u64, 1..20_usize), 0..200),
            modest in 1..8_usize,
        ) {
            let (mut shares, most) = (Shares::default(), 60);
            for (address, number, cost) in greedy {
                admit(&mut shares, most, &caller(address, number), cost);
                prop_assert!(shares.cost() <= most, "it is bounded");
            }
            let newcomer = caller(9, 0);
            for n in 1..=modest {
                let mine = n;
                let gone = admit(&mut shares, most, &newcomer, 1);
                let holds = |shares: &Shares<Share>| {
                    shares.held.values().filter(|held| held.share == newcomer).count()
                };
                // With four groups the fair share is 15.
                prop_assert_eq!(holds(&shares), mine);
                prop_assert!(!gone.contains(&newcomer));
            }
            let costs: usize = shares.held.values().map(|held| held.cost).sum();
            prop_assert_eq!(costs, shares.cost());
        }
    }
}
